"""Models of a matrix: products of factors, and their diagonal counterparts.

The loss of a batch, sum_i r_i^2 / (4 m), is scaled for U U', in which every parameter appears
twice. In a product of different factors it appears once, so that its gradient is half as large:
near zero a direction of `asymmetric` grows by 1 + learning_rate s / 2 per step, one of `factored`
by 1 + learning_rate s.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.models._model import MatrixModel
from causal_sgd.types import Array, Key

Init = Literal["identity", "gaussian"]

MOST_FACTORS = 1000  # each is a part of the program


def factored(
    *,
    dim: int,
    rank: int | None = None,
    init_scale: float | Array = 1e-3,
    init: Init | None = None,
) -> MatrixModel:
    """The estimate U U' of matrix sensing, with U [d, k] [XGF].

    Args:
        dim: d.
        rank: k, the number of columns, of any size relative to the rank of the signals; None for d.
        init_scale: alpha > 0, the scale of U at the start; may be traced.
        init: "identity" for alpha * I (k = d only), "gaussian" for alpha times standard normal
            entries; None takes "identity" if k = d and "gaussian" otherwise.

    Returns:
        A model whose parameters are U itself.

    Raises:
        ValueError: if an argument is out of range, or `init` is "identity" and k is not d.
    """
    k, init = _size_and_start(dim, rank, init_scale, init)

    def start(key: Key) -> Array:
        if init == "identity":
            return init_scale * jnp.eye(dim)
        return init_scale * random.normals(key, (dim, k), jnp.result_type(float))

    def estimate(params: Array) -> Array:
        # A product with U' would make XLA transpose a copy.
        return jax.lax.dot_general(params, params, (((1,), (1,)), ((), ())), precision="highest")

    def pullback(params: Array, cotangent: Array) -> Array:
        # d<C, U U'> = 2 <C U, dU> for symmetric C: one product instead of the two of the transpose.
        return linalg.product(2 * cotangent, params)

    return MatrixModel(start, estimate, pullback=pullback, factor=lambda params: params)


class Factors(NamedTuple):
    """Parameters of `asymmetric`."""

    left: Array  # [d, k]  U
    right: Array  # [d, k]  V


def asymmetric(
    *,
    dim: int,
    rank: int | None = None,
    init_scale: float | Array = 1e-3,
    init: Init | None = None,
) -> MatrixModel:
    """The estimate U V' of two independent factors [d, k].

    It need not be symmetric, nor positive. It sees whole measurement matrices, not only their
    symmetric parts. Population gradients preserve U = V; the model then moves as `factored` does at
    half the learning rate.

    Args:
        dim: d.
        rank: k; None for d.
        init_scale: alpha > 0, the scale of both at the start; may be traced.
        init: "identity" for U = V = alpha * I (k = d only), "gaussian" for alpha times independent
            standard normal entries; None takes "identity" if k = d and "gaussian" otherwise.

    Returns:
        A model whose parameters are `Factors`.

    Raises:
        ValueError: if an argument is out of range, or `init` is "identity" and k is not d.
    """
    k, init = _size_and_start(dim, rank, init_scale, init)

    def start(key: Key) -> Factors:
        if init == "identity":
            return Factors(init_scale * jnp.eye(dim), init_scale * jnp.eye(dim))
        left, right = init_scale * random.normals(key, (2, dim, k), jnp.result_type(float))
        return Factors(left, right)

    def estimate(params: Factors) -> Array:
        return linalg.product(params.left, params.right.T)

    def layers(params: Factors) -> tuple[Array, Array]:
        return params.right.T, params.left

    return MatrixModel(start, estimate, layers=layers, symmetric=False)


def deep(
    *, dim: int, depth: int = 3, init_scale: float | Array = 0.1, init: Init = "identity"
) -> MatrixModel:
    """The estimate W_L ... W_1, a deep linear factorisation [d, d] of depth L.

    Population gradients of commuting signals keep all factors equal if they start as alpha * I.
    Each direction is then a scalar, w <- w - (learning_rate / 2) (w^L - s) w^(L - 1). Its growth
    from zero is exponential for L = 2 only: for larger L it takes a time of order alpha^(2 - L), so
    alpha should not be tiny.

    Args:
        dim: d.
        depth: L >= 1, the number of factors. L = 1 is linear regression: the estimate is the
            parameter.
        init_scale: alpha > 0, the scale of every factor at the start, alpha^L that of the estimate;
            may be traced.
        init: "identity" for alpha * I, "gaussian" for alpha times N(0, 1/d) entries, which preserve
            norms on average.

    Returns:
        A model whose parameters are the factors [L, d, d], W_1 first.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.integer("depth", depth, maximum=MOST_FACTORS)
    checks.number("init_scale", init_scale, above=0)
    checks.choice("init", init, ("identity", "gaussian"))

    def start(key: Key) -> Array:
        if init == "identity":
            return jnp.broadcast_to(init_scale * jnp.eye(dim), (depth, dim, dim))
        return (
            init_scale * dim**-0.5 * random.normals(key, (depth, dim, dim), jnp.result_type(float))
        )

    def estimate(params: Array) -> Array:
        return functools.reduce(lambda product, layer: linalg.product(layer, product), params)

    def layers(params: Array) -> list[Array]:
        return list(params)

    return MatrixModel(start, estimate, layers=layers if depth > 1 else None, symmetric=False)


def diagonal(*, dim: int, init_scale: float | Array = 1e-3) -> MatrixModel:
    """The estimate diag(u)^2: equal to `factored` under population gradients of diagonal signals.

    If A* and all A_e are diagonal (canonical basis, diagonal cores) and U starts at alpha I, every
    coordinate of `factored` moves by itself, u <- u - learning_rate (u^2 - s) u, with s the
    diagonal of the batch's mean signal. A step of `measurements.population` then costs O(d) instead
    of O(d^3), with the same numbers. With drawn measurements this model differs from `factored`: it
    is a diagonal linear network, which the noise off the diagonal does not reach.

    Args:
        dim: d.
        init_scale: alpha > 0, u at the start; may be traced.

    Returns:
        A model whose parameters are u [d].

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.number("init_scale", init_scale, above=0)

    def pullback(params: Array, cotangent: Array) -> Array:
        return 2 * jnp.diagonal(cotangent) * params

    return MatrixModel(
        lambda key: init_scale * jnp.ones(dim),
        lambda params: jnp.diag(params**2),
        pullback=pullback,
        factor=jnp.diag,
        diagonal=lambda params: params**2,
    )


def signed_diagonal(*, dim: int, init_scale: float | Array = 1e-3) -> MatrixModel:
    """The estimate diag(u^2 - v^2): a diagonal linear network that can learn negative eigenvalues.

    Under population gradients each half of a coordinate moves as in `diagonal` while the other half
    is tiny: u with the signal's eigenvalue s, and v with -s. As for `diagonal`, this is exact for
    diagonal signals only.

    Args:
        dim: d.
        init_scale: alpha > 0, u and v at the start; the estimate starts at zero. May be traced.

    Returns:
        A model whose parameters are u and v, [2, d].

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.number("init_scale", init_scale, above=0)

    def values(params: Array) -> Array:
        return params[0] ** 2 - params[1] ** 2

    def pullback(params: Array, cotangent: Array) -> Array:
        along = 2 * jnp.diagonal(cotangent)
        return jnp.stack([along * params[0], -along * params[1]])

    return MatrixModel(
        lambda key: init_scale * jnp.ones((2, dim)),
        lambda params: jnp.diag(values(params)),
        pullback=pullback,
        diagonal=values,
    )


def _size_and_start(
    dim: int, rank: int | None, init_scale: float | Array, init: Init | None
) -> tuple[int, Init]:
    """The number of columns k and the kind of initialisation, checked."""
    checks.integer("dim", dim)
    k = dim if rank is None else checks.integer("rank", rank)
    checks.number("init_scale", init_scale, above=0)
    if init is None:
        init = "identity" if k == dim else "gaussian"
    checks.choice("init", init, ("identity", "gaussian"))
    if init == "identity" and k != dim:
        raise ValueError(
            f"init must be 'gaussian' unless rank equals dim, got 'identity' with rank {k} and dim "
            f"{dim}: a truncated identity would never see some directions"
        )
    return k, init

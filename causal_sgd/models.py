"""From parameters to the estimate that measurements see."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, draws
from causal_sgd.types import Array, Key, Model

__all__ = ["diagonal", "factored"]


def factored(
    *,
    dim: int,
    rank: int | None = None,
    init_scale: float | Array = 1e-3,
    init: str | None = None,
) -> Model:
    """The estimate U U' of matrix sensing, with U [d, k] [XGF].

    Args:
        dim: d.
        rank: k, the number of columns; None for d. It may lie below, at or above the rank of the signals.
        init_scale: alpha > 0, the scale of U at the start; may be traced.
        init: "identity" for alpha * I (k = d only), "gaussian" for alpha times standard normal entries; None takes
            "identity" where k = d and "gaussian" otherwise.

    Returns:
        A model whose parameters are U itself.

    Raises:
        ValueError: if an argument is out of range, or "identity" is asked for with k other than d.
    """
    checks.integer("dim", dim)
    k = dim if rank is None else checks.integer("rank", rank)
    checks.number("init_scale", init_scale, above=0)
    if init is None:
        init = "identity" if k == dim else "gaussian"
    checks.choice("init", init, ("identity", "gaussian"))
    if init == "identity" and k != dim:
        raise ValueError(
            f"init must be 'gaussian' unless rank equals dim, got 'identity' with rank {k} and dim {dim}: "
            "a truncated identity would never see some directions"
        )

    def start(key: Key) -> Array:
        if init == "identity":
            return init_scale * jnp.eye(dim)
        return init_scale * draws.normals(draws.bits(key, dim * k), jnp.result_type(float)).reshape(dim, k)

    def estimate(params: Array) -> Array:
        return jnp.matmul(params, params.T, precision="highest")

    def pullback(params: Array, cotangent: Array) -> Array:
        # d<C, U U'> = 2 <C U, dU> for symmetric C: one product, where the transpose of `estimate` would take two.
        return jnp.matmul(2 * cotangent, params, precision="highest")

    return Model(start, estimate, pullback=pullback, factor=lambda params: params)


def diagonal(*, dim: int, init_scale: float | Array = 1e-3) -> Model:
    """The estimate diag(u)^2: what U U' stays, by population gradients, if it starts at alpha I and the signals commute.

    Where A* and all A_e are diagonal (canonical bases, diagonal cores), every coordinate of `factored` moves by itself,
    u <- u - learning_rate (u^2 - s) u with s the diagonal of the batch's mean signal; `measurements.population` then takes
    steps of O(d) instead of O(d^3), with the same numbers. With drawn measurements this model is not `factored` but a
    diagonal linear network: the noise outside of the diagonal cannot reach it.

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

    return Model(
        lambda key: init_scale * jnp.ones(dim),
        lambda params: jnp.diag(params**2),
        pullback=pullback,
        factor=jnp.diag,
        diagonal=lambda params: params**2,
    )

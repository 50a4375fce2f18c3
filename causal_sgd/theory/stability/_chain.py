"""The exponent of typical runs around A* of rank one, at a cost free of dimension and batch size.

The linear step of `_moments` for one column and one spurious direction. A deviation has three
coordinates, along the column q, along V, and along the rest of its own, e; whatever lies outside
this frame after a step is e again, up to a rotation that the law does not notice. The residual -A_e
and the linear one L are orthogonal, with the directions e0 and e1 among symmetric matrices. With
a_i, b_i the coordinates of x_i along both and K the triangle of a QR factorisation of [a, b],

    m G[-A_e] = |A_e| (K00^2 e0 + K00 K01 e1 + K00 W1),
    m G[L] = |L| (K00 K01 e0 + (K01^2 + K11^2) e1 + K01 W1 + K11 W2),

where K'K is a Wishart matrix of m degrees and W1, W2 are GOE matrices without their parts along e0
and e1. Of these only a 3 x 3 block in the frame and the length of the rest are needed.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks, linalg
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.theory._rotations import TopExponent
from causal_sgd.types import Array, Key

__all__ = ["almost_sure_exponent"]

FRAME = 3
GOE = FRAME * (FRAME + 1) // 2  # normals of a GOE matrix [3, 3]


def almost_sure_exponent(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    *,
    dim: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 0.0,
    key: Key,
    num_steps: int = 1000,
    num_chains: int = 64,
) -> TopExponent:
    """Estimate the exponent of a small deviation from A* of rank one.

    Almost all runs contract where it is negative. It vanishes beyond `mean_square_edge`: in between
    typical runs contract although their second moments grow. Spurious eigenvalues are mu +- M,
    equally likely. Unbatched; use `vmap` over numbers, which then share their draws.

    Accuracy: the standard error, which is that of a mean over independent chains, after a burn-in
    of a tenth of the steps. With M > 0 the linear step is that of `second_moments`.

    Args:
        learning_rate: eta [].
        batch_size: m [], a whole number.
        dim: d [], at least 3.
        invariant_eigenvalue: sigma* [].
        mean: mu [].
        spread: M [].
        key: random key.
        num_steps: steps averaged in each chain.
        num_chains: independent chains, at least 2.

    >>> result = almost_sure_exponent(0.2, 16, dim=20, key=jax.random.key(0), num_steps=100)
    >>> bool(result.exponent < 0)
    True
    """
    numbers = {
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "dim": dim,
        "invariant_eigenvalue": invariant_eigenvalue,
        "mean": mean,
        "spread": spread,
    }
    check(**numbers)
    checks.number("dim", dim, scalar=False, minimum=FRAME)
    checks.key("key", key)
    num_steps = checks.integer("num_steps", num_steps)
    num_chains = checks.integer("num_chains", num_chains, minimum=2)
    values = jnp.stack(broadcast(*numbers.values()))
    if values.ndim != 1:
        raise ValueError(
            f"learning_rate and the other numbers must be scalars, got shape {values.shape[1:]}"
        )
    return _exponent(values, key, num_steps=num_steps, num_chains=num_chains)


class _Draws(NamedTuple):
    """Random numbers of all steps of all chains, [chain, step, *]."""

    sign: Array  # of the environment, +-1
    first: Array  # normals of W1 in the frame
    second: Array  # of W2
    above: Array  # the entry of the triangle above its diagonal
    squares: Array  # chi-squares of its diagonal and of the rest of the space, [..., 3]


@functools.partial(jax.jit, static_argnames=("num_steps", "num_chains"))
def _exponent(values: Array, key: Key, *, num_steps: int, num_chains: int) -> TopExponent:
    burn_in = -(-num_steps // 10)
    shape = num_chains, burn_in + num_steps
    _, m, dim, *_ = values
    keys = jax.random.split(key, 5)
    degrees = jnp.stack([m, m - 1, dim - FRAME])
    some = jnp.maximum(degrees, 0.5)  # a chi-square without degrees is zero
    squares = 2 * jax.random.gamma(keys[0], some / 2, (*shape, 3), values.dtype)
    draws = _Draws(
        sign=jax.random.rademacher(keys[1], shape, values.dtype),
        first=jax.random.normal(keys[2], (*shape, GOE), values.dtype),
        second=jax.random.normal(keys[3], (*shape, GOE), values.dtype),
        above=jax.random.normal(keys[4], shape, values.dtype),
        squares=jnp.where((degrees > 0)[None, None, :], squares, 0),
    )

    def chain(draws: _Draws) -> Array:
        def step(deviation: Array, draws: _Draws) -> tuple[Array, Array]:
            image = _step(draws, deviation, values)
            growth = jnp.sqrt(jnp.sum(image**2))
            return image / growth, jnp.log(growth)

        start = jnp.full(FRAME, FRAME**-0.5, values.dtype)
        return jax.lax.scan(step, start, draws)[1][burn_in:].mean()

    means = jax.vmap(chain)(draws)
    return TopExponent(means.mean(), means.std(ddof=1) / math.sqrt(num_chains))


def _step(draws: _Draws, deviation: Array, values: Array) -> Array:
    """The deviation [3], along q, V and e, after one step."""
    eta, m, _, sigma, mean, spread = values
    own = mean + spread * draws.sign
    a, c, _ = jnp.sqrt(draws.squares)
    b = draws.above
    unit = jnp.array([1.0, 0.0, 0.0], values.dtype)
    linear = deviation[:, None] * unit[None, :]
    linear = jnp.sqrt(sigma) * (linear + linear.T)
    size = jnp.sqrt(jnp.sum(linear**2))
    along = linear / size
    spurious = jnp.zeros((FRAME, FRAME), values.dtype).at[1, 1].set(jnp.where(own < 0, 1.0, -1.0))
    own = jnp.abs(own)
    first, second = (
        _without(_symmetric(part), spurious, along) for part in (draws.first, draws.second)
    )
    of_spurious = own * a * (a * spurious + b * along + first)
    of_linear = size * (a * b * spurious + (b**2 + c**2) * along + b * first + c * second)
    root = jnp.sqrt(sigma) * unit
    image = linalg.product(of_spurious, deviation) + linalg.product(of_linear, root)
    inside = deviation - eta * image / m
    rest = jnp.sum((own * a * deviation + size * b * root) ** 2) + jnp.sum((size * c * root) ** 2)
    last = jnp.sqrt(inside[2] ** 2 + (eta / m) ** 2 * rest * draws.squares[2] / 2)
    return jnp.stack([inside[0], inside[1], last])


def _symmetric(normals: Array) -> Array:
    """A GOE matrix [3, 3], of variance 1 on and 1/2 off the diagonal."""
    x = normals
    half = 0.5**0.5
    return jnp.stack(
        [
            jnp.stack([x[0], half * x[3], half * x[4]]),
            jnp.stack([half * x[3], x[1], half * x[5]]),
            jnp.stack([half * x[4], half * x[5], x[2]]),
        ]
    )


def _without(matrix: Array, *directions: Array) -> Array:
    """The matrix without its parts along orthonormal matrices."""
    for direction in directions:
        matrix = matrix - jnp.sum(matrix * direction) * direction
    return matrix

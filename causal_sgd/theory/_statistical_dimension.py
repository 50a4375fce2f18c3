"""How many measurements determine a matrix: statistical dimensions of cones of positive matrices.

The eigenvalue density of the Gaussian orthogonal ensemble at finite size gives them exactly. With
phi_j the orthonormal Hermite functions (weight exp(-x^2)) it is, for N = n + 1 and odd or even N
alike (Mehta, Random Matrices, section 7.2),

    R(x) = sum_(j < N) phi_j(x)^2 + sqrt(N / 2) phi_n(x) (C - int_x^inf phi_N) + odd phi_n(x) / c,

with C = int_0^inf phi_N for even N and 0 for odd, and c = int phi_n over the line. The ensemble is
that of packed coordinates: diagonal variance 1, off the diagonal 1/2.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast
from causal_sgd.theory._boundaries import bisect
from causal_sgd.types import Array

__all__ = ["statistical_dimension"]

POINTS = 1536  # of half the line
MARGIN = 6.0  # beyond the edge of the spectrum at sqrt(2 N)
MOST = 10_000
HUGE = 1e12  # above it the recursion is rescaled


class _Density(NamedTuple):
    """Where the density is evaluated, and its value times the spacing."""

    points: Array  # [..., POINTS], from 0 to beyond the edge
    weights: Array  # [..., POINTS], expected eigenvalues near each


class _Climb(NamedTuple):
    """Two Hermite functions and the sum of squares, up to the exponential of a scale."""

    before: Array  # [..., POINTS] phi_(j - 1)
    value: Array  # [..., POINTS] phi_j
    total: Array  # [..., POINTS]
    log_scale: Array  # [..., POINTS]


def statistical_dimension(
    dim: ArrayLike, rank: ArrayLike, threshold: ArrayLike | None = None
) -> Array:
    """The number of Gaussian measurements at which a positive matrix of given rank is recovered.

    Among the positive semidefinite matrices that fit n measurements of A, the one of least trace is
    A itself with high probability iff n exceeds the statistical dimension of the descent cone of
    the trace at A (Amelunxen, Lotz, McCoy and Tropp 2014),

        min over tau >= 0 of E[|G11 - tau I|^2 + 2 |G12|^2 + sum_i (lambda_i(G22) - tau)_+^2]
            = r (r + 1) / 2 + r (d - r) + min over tau of [r tau^2 + Phi_(d - r)(tau)],

    with G from the Gaussian orthogonal ensemble (diagonal variance 1, off the diagonal 1/2) in
    blocks along and across the range of A, and Phi_N(tau) the sum of E (lambda_i - tau)_+^2 over
    the eigenvalues of size N. The expression is the expected squared distance of G from tau times
    the subdifferential, {I along the range, at most I across it}, and convex in tau. The transition
    has a width of order of its square root. At tau = 0 the trace does not count: beyond

        r (r + 1) / 2 + r (d - r) + (d - r) (d - r + 1) / 4

    A is the only positive matrix that fits, and any method that fits finds it. For r = 0 this is
    d (d + 1) / 4, the dimension of the cone itself: up to it, positive matrices fit any labels.

    Accuracy: relative 2e-4 in single precision for d up to 200, of the expression. The statistical
    dimension itself is lower by at most about (d / r)^(1/2).

    Args:
        dim: d [...], whole numbers up to 10,000.
        rank: r [...] of A, whole numbers from 0 to d.
        threshold: tau [...] >= 0; None minimises over it.

    Returns:
        The number [...] of measurements, not rounded.

    Raises:
        ValueError: if an argument is out of range.

    >>> [f"{statistical_dimension(12, rank):.1f}" for rank in (1, 2)]
    ['21.3', '34.9']
    >>> print(f"{statistical_dimension(12, 0, 0):.1f}")
    39.0
    """
    for name, value, least in (("dim", dim, 1), ("rank", rank, 0)):
        checks.number(name, value, minimum=least, maximum=MOST, scalar=False)
        numbers = checks.concrete(value)
        if numbers is not None and np.any(np.asarray(numbers) % 1):
            raise ValueError(f"{name} must hold whole numbers, got {value}")
    if threshold is not None:
        checks.number("threshold", threshold, minimum=0, scalar=False)
    ranks, dims = checks.concrete(rank), checks.concrete(dim)
    if ranks is not None and dims is not None and np.any(np.asarray(ranks) > np.asarray(dims)):
        raise ValueError(f"rank must be at most dim, got {rank} with dim {dim}")
    if threshold is None:
        return _least(jnp.asarray(dim), jnp.asarray(rank))
    return _at(jnp.asarray(dim), jnp.asarray(rank), jnp.asarray(threshold))


@jax.jit
def _least(dim: Array, rank: Array) -> Array:
    d, r = broadcast(dim, rank)
    density = _density(d - r)

    def falling(threshold: Array) -> Array:
        """Minus half the derivative, which changes its sign at the minimum."""
        return _mean_excess(density, threshold, 1) - r * threshold

    best = bisect(falling, jnp.zeros_like(d), density.points[..., -1])
    return _distance(density, d, r, best)


@jax.jit
def _at(dim: Array, rank: Array, threshold: Array) -> Array:
    d, r, tau = broadcast(dim, rank, threshold)
    return _distance(_density(d - r), d, r, tau)


def _distance(density: _Density, d: Array, r: Array, tau: Array) -> Array:
    """The expected squared distance at a threshold."""
    return r * (r + 1) / 2 + r * (d - r) + r * tau**2 + _mean_excess(density, tau, 2)


def _mean_excess(density: _Density, threshold: Array, power: int) -> Array:
    """The sum of E (lambda_i - threshold)_+^power over the eigenvalues, for thresholds >= 0."""
    excess = jnp.maximum(density.points - threshold[..., None], 0)
    return jnp.sum(density.weights * excess**power, -1)


def _density(size: Array) -> _Density:
    """The positive half of the eigenvalue density of size N [...]; no eigenvalues for N = 0."""
    n = jnp.maximum(size, 1)[..., None]
    grid = jnp.linspace(0, 1, POINTS, dtype=size.dtype).reshape((1,) * size.ndim + (-1,))
    points = grid * (jnp.sqrt(2 * n) + MARGIN)
    spacing = points[..., 1:2]

    # phi_j = value exp(log_scale): exp(-x^2 / 2) alone underflows beyond the edge of a large N.
    def climb(j: Array, carry: _Climb) -> _Climb:
        before, value, total, log_scale = carry
        order = jnp.asarray(j, size.dtype)
        total = total + value**2
        after = points * jnp.sqrt(2 / (order + 1)) * value - jnp.sqrt(order / (order + 1)) * before
        large = jnp.abs(after) > HUGE
        factor = jnp.where(large, 1 / HUGE, 1).astype(size.dtype)
        after, before = after * factor, value * factor
        total, log_scale = total * factor**2, log_scale - jnp.log(factor)
        # Sizes below the largest stop at their own N.
        new = _Climb(before, after, total, log_scale)
        return _Climb(*(jnp.where(order < n, *pair) for pair in zip(new, carry, strict=True)))

    zero = jnp.zeros_like(points)
    start = _Climb(zero, zero + np.pi**-0.25, zero, -(points**2) / 2)
    most = jnp.max(n).astype(jnp.int32)
    last, next_, total, log_scale = jax.lax.fori_loop(0, most, climb, start)
    scale = jnp.exp(log_scale)
    last, next_, total = last * scale, next_ * scale, total * scale**2
    beyond = _from_right(next_, spacing)
    odd = jnp.round(n) % 2 == 1
    edge = jnp.where(odd, 0, beyond[..., :1])
    half = _from_right(last, spacing)[..., :1]
    density = total + jnp.sqrt(n / 2) * last * (edge - beyond)
    density = density + jnp.where(odd, last / (2 * jnp.where(odd, half, 1)), 0)
    weights = jnp.where(grid == 0, 0.5, 1) * spacing * density
    return _Density(points, jnp.where(size[..., None] > 0, weights, 0))


def _from_right(values: Array, spacing: Array) -> Array:
    """The integrals from every point to the last [..., POINTS], by trapezoids."""
    pieces = (values[..., 1:] + values[..., :-1]) * spacing / 2
    tails = jnp.flip(jnp.cumsum(jnp.flip(pieces, -1), -1), -1)
    return jnp.concatenate([tails, jnp.zeros_like(values[..., :1])], -1)

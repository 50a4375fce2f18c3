"""How many examples determine a sparse vector: statistical dimensions of cones of the l1 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast
from causal_sgd.theory._boundaries import bisect
from causal_sgd.types import Array

__all__ = ["sparse_dimension"]

MOST = 10**9
LARGEST = 7.0  # above the best threshold for all d up to MOST


def sparse_dimension(
    dim: ArrayLike,
    support: ArrayLike,
    threshold: ArrayLike | None = None,
    *,
    nonnegative: bool = False,
) -> Array:
    """The number of Gaussian examples from which a sparse vector is recovered.

    Among the vectors that fit n examples, the one of least l1 norm is the true one with high
    probability iff n exceeds the statistical dimension of the norm's descent cone at it
    (Amelunxen, Lotz, McCoy and Tropp 2014),

        min over tau >= 0 of k (1 + tau^2) + c (d - k) E (g - tau)_+^2,
        E (g - tau)_+^2 = (1 + tau^2) Phi(-tau) - tau phi(tau),

    g a standard normal number, c = 2 where signs are free and 1 for weights >= 0. The expression is
    the expected squared distance of a Gaussian vector from tau times the subdifferential, {the sign
    on the support, at most 1 off it}. It is convex in tau, and its minimum is of the order of
    k log(d / k). The transition has a width of order of its square root. At tau = 0 the norm does
    not count: d, or k + (d - k) / 2 for weights >= 0, beyond which the true vector is the only one
    that fits, and any method that fits finds it.

    Accuracy: relative 3e-5 in single precision and 1e-12 in double, of the expression. The
    statistical dimension itself is lower by at most about (d / k)^(1/2).

    Args:
        dim: d [...], whole numbers up to 10^9.
        support: k [...], the number of weights that are not zero, whole numbers from 1 to d.
        threshold: tau [...] >= 0; None minimises over it.
        nonnegative: whether only weights >= 0 compete, as in u^2.

    Returns:
        The number [...] of examples, not rounded.

    Raises:
        ValueError: if an argument is out of range.

    >>> [f"{sparse_dimension(dim, 5, nonnegative=True):.1f}" for dim in (25, 100)]
    ['10.2', '16.7']
    >>> print(f"{sparse_dimension(100, 5, 0, nonnegative=True):.1f}")
    52.5
    """
    checks.flags(nonnegative=nonnegative)
    for name, value in (("dim", dim), ("support", support)):
        checks.number(name, value, minimum=1, maximum=MOST, scalar=False)
        numbers = checks.concrete(value)
        if numbers is not None and np.any(np.asarray(numbers) % 1):
            raise ValueError(f"{name} must hold whole numbers, got {value}")
    if threshold is not None:
        checks.number("threshold", threshold, minimum=0, scalar=False)
    counts, dims = checks.concrete(support), checks.concrete(dim)
    known = counts is not None and dims is not None
    if known and np.any(np.asarray(counts) > np.asarray(dims)):
        raise ValueError(f"support must be at most dim, got {support} with dim {dim}")
    sides = 1.0 if nonnegative else 2.0
    if threshold is None:
        return _least(jnp.asarray(dim), jnp.asarray(support), sides)
    return _at(jnp.asarray(dim), jnp.asarray(support), jnp.asarray(threshold), sides)


@jax.jit
def _least(dim: Array, support: Array, sides: float) -> Array:
    d, k = broadcast(dim, support)

    def falling(threshold: Array) -> Array:
        """Minus half the derivative, which changes its sign at the minimum."""
        tail, density = _normal(threshold)
        return sides * (d - k) * (density - threshold * tail) - k * threshold

    best = bisect(falling, jnp.zeros_like(d), jnp.full_like(d, LARGEST))
    return _distance(d, k, best, sides)


@jax.jit
def _at(dim: Array, support: Array, threshold: Array, sides: float) -> Array:
    d, k, tau = broadcast(dim, support, threshold)
    return _distance(d, k, tau, sides)


def _distance(d: Array, k: Array, tau: Array, sides: float) -> Array:
    tail, density = _normal(tau)
    excess = (1 + tau**2) * tail - tau * density
    return k * (1 + tau**2) + sides * (d - k) * excess


def _normal(level: Array) -> tuple[Array, Array]:
    """The upper tail and the density of a standard normal number."""
    density = jnp.exp(-(level**2) / 2) / (2 * jnp.pi) ** 0.5
    return erfc(level / 2**0.5) / 2, density

"""Phase boundaries: where a spurious direction dies and where runs may diverge."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import (
    RATIO_OF_LEAST_EXPONENT,
    families,
    lyapunov,
    lyapunov_environments,
)
from causal_sgd.types import Array

__all__ = [
    "bisect",
    "critical_learning_rate",
    "critical_learning_rate_asymmetric",
    "critical_mass",
    "critical_spread",
    "divergence_bound",
    "is_bounded",
    "least_positive_exponent",
    "mixing_critical_spread",
]

# lambda = log a + h(r) is zero iff M/mu = r/(1 - exp h(r)). This falls up to the ratio r = b/a
# below and rises beyond it.
_RATIO_OF_LEAST_SPREAD = {"uniform": 1.0845530, "gaussian": 0.5740232}


def bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The point of [low, high] where `function` turns from positive to negative, elementwise."""

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        positive = function(middle) > 0
        return jnp.where(positive, middle, low), jnp.where(positive, high, middle)

    steps = jnp.finfo(low.dtype).nmant + 16  # full precision for roots down to 2^-16 of the bracket
    low, high = jax.lax.fori_loop(0, steps, halve, (low, high))
    return (low + high) / 2


@checked_jit
def critical_spread(learning_rate: ArrayLike, mean: ArrayLike, family: str = "two_point") -> Array:
    """The critical heterogeneity M_c: the smallest spread beyond which lambda is negative.

    For two points it is sqrt(2 mu/eta + mu^2). At fixed a the other exponents fall with r = b/a to
    a single minimum (r tanh r = 1 for uniform, the maximum of Dawson's integral for normal
    eigenvalues) and rise beyond it. A bisection up to the minimum therefore finds the smallest
    root. Beyond the second root the direction grows again, if it has not diverged.

    Accuracy: relative 1e-4 in single precision for eta mu from 1e-3 to 1, for uniform and normal
    eigenvalues up to 95 % of the ends given below.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.

    Returns:
        M_c [...]: 0 where mu <= 0 (pooled training also rejects the direction, as long as
        eta mu > -2); inf where no spread makes lambda negative (eta mu above 0.509 for uniform,
        0.278 for normal).

    >>> [f"{critical_spread(0.1, 1.0, name):.2f}" for name in families]
    ['4.58', '7.62', '4.12']
    """
    checks.choice("family", family, families)
    eta, mu = broadcast(learning_rate, mean)
    if family == "two_point":
        mu = jnp.maximum(mu, 0)
        return jnp.sqrt(mu * (2 / eta + mu))
    mean = jnp.where(mu > 0, mu, 1)
    lowest = RATIO_OF_LEAST_EXPONENT[family] * (1 / eta + mean)
    root = bisect(lambda spread: lyapunov(family, eta, mean, spread), jnp.zeros_like(mu), lowest)
    root = jnp.where(lyapunov(family, eta, mean, lowest) < 0, root, jnp.inf)
    return jnp.where(mu > 0, root, 0)


@checked_jit
def critical_learning_rate(mean: ArrayLike, spread: ArrayLike, family: str = "two_point") -> Array:
    """The critical learning rate eta_c: the smallest one beyond which lambda is negative.

    For two points it is 2 mu/(M^2 - mu^2). Otherwise lambda = log a + h(r) with r = b/a is zero iff
    M/mu = r/(1 - exp h(r)). This falls with r to a single minimum, which bounds the bisection in r.

    Accuracy: relative 1e-4 in single precision for M from 1.05 to 100 times the least value given
    below.

    Args:
        mean: mu [...].
        spread: M [...].
        family: one of `families`.

    Returns:
        eta_c [...]: 0 where mu <= 0; inf where no learning rate makes lambda negative: M <= mu for
        two points (no environment has a negative eigenvalue), M < 3.356 mu for uniform, M < 3.047
        mu for normal eigenvalues.

    >>> print(f"{critical_learning_rate(mean=1.0, spread=5.0):.4f}")
    0.0833
    """
    checks.choice("family", family, families)
    mu, spread = broadcast(mean, spread)
    if family == "two_point":
        gap = jnp.where(spread > mu, (spread - mu) * (spread + mu), 0)
        root = jnp.where(gap > 0, 2 * mu / jnp.where(gap > 0, gap, 1), jnp.inf)
        return jnp.where(mu > 0, root, 0)
    mean = jnp.where(mu > 0, mu, 1)
    wide = spread > 2 * mean  # a root needs at least 3; this keeps the denominator below positive
    width = jnp.where(wide, spread, 4 * mean)

    def rate(ratio: Array) -> Array:
        """The learning rate at which b/a equals the ratio."""
        return ratio / (width - ratio * mean)

    def exponent(ratio: Array) -> Array:
        return lyapunov(family, rate(ratio), mean, width)

    first = jnp.full_like(mu, jnp.finfo(mu.dtype).eps)
    last = jnp.full_like(mu, _RATIO_OF_LEAST_SPREAD[family])
    root = jnp.where(wide & (exponent(last) < 0), rate(bisect(exponent, first, last)), jnp.inf)
    return jnp.where(mu > 0, root, 0)


@checked_jit
def critical_learning_rate_asymmetric(up: ArrayLike, down: ArrayLike) -> Array:
    """The critical learning rate 1/down - 1/up of the eigenvalues +up or -down, equally likely.

    Accuracy: absolute 4e-7 / min(up, down) in single precision.

    Args:
        up: size [...] of the positive eigenvalue, not negative.
        down: size [...] of the negative eigenvalue, not negative.

    Returns:
        eta_c [...]: 0 where up <= down (the mean is not positive), inf where down = 0 < up.
    """
    up, down = broadcast(up, down)
    root = (up - down) / jnp.where((up > 0) & (down > 0), up * down, 1)
    return jnp.where(up > down, jnp.where(down > 0, root, jnp.inf), 0)


def critical_mass(
    learning_rate: ArrayLike,
    eigenvalues: ArrayLike,
    outlier: ArrayLike,
    probabilities: ArrayLike | None = None,
) -> Array:
    """The critical probability of a contradicting environment: beyond it the direction dies.

    With probability p the eigenvalue is the outlier, otherwise that of another environment:
    lambda = p l + (1 - p) L with l = log|1 + eta outlier| and L the exponent of the others, which
    is zero at p = L/(L - l). Pooled training needs the mean to vanish, p = mean/(mean - outlier).
    As log(1 + x) is concave, that is more for any outlier below zero with eta |outlier| <= 1.

    Accuracy: relative 1e-5 in single precision for factors 1 + eta s between 0.1 and 10, away from
    L = 0.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., K] of the other environments.
        outlier: the spurious eigenvalue [...] of the contradicting environment.
        probabilities: [K], relative to the other environments; None for equal ones.

    Returns:
        p [...]: 0 where the others reject the direction without the outlier, inf where the outlier
        does not help (l >= 0).

    >>> print(f"{critical_mass(0.1, jnp.array([1.0]), outlier=-5.0):.3f}")
    0.121
    """
    checks.number("outlier", outlier, scalar=False)
    others = lyapunov_environments(learning_rate, eigenvalues, probabilities)
    own = lyapunov_environments(learning_rate, jnp.asarray(outlier)[..., None])
    others, own = broadcast(others, own)
    helps = own < 0
    mass = jnp.where(jnp.isinf(own), 0, others / jnp.where(helps, others - own, 1))
    return jnp.where(others > 0, jnp.where(helps, mass, jnp.inf), 0)


@checked_jit
def mixing_critical_spread(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    environments_per_batch: int,
    family: str = "two_point",
) -> Array:
    """The critical heterogeneity of batches that mix k independent environments in equal parts.

    Such a batch follows the mean of k eigenvalues, of variance Var(s)/k: M_c grows roughly like
    sqrt(k), from HeteroSGD (k = 1) towards pooled training. The result is exact for normal
    eigenvalues and for two points: lambda of the binomial mixture falls from b = 0 to its first
    singularity at b = a, so the root in between is unique. For uniform eigenvalues it is M_c
    sqrt(k), which matches the variance. For 2 k eta mu near 1 or above, the root is only the narrow
    singularity; see `divergence_bound`.

    Accuracy: relative 1e-4 for 2 k eta mu up to 0.2 and two points or normal eigenvalues; 3 % for
    uniform ones.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        environments_per_batch: k, static.
        family: one of `families`.

    Returns:
        M_c [...], 0 where mu <= 0.

    >>> [f"{mixing_critical_spread(0.01, 0.5, k):.1f}" for k in (1, 2, 4)]
    ['10.0', '14.1', '19.9']
    """
    count = checks.integer("environments_per_batch", environments_per_batch)
    checks.choice("family", family, families)
    eta, mu = broadcast(learning_rate, mean)
    if family != "two_point":
        return math.sqrt(count) * critical_spread(eta, mu, family)
    mean = jnp.where(mu > 0, mu, 1)[..., None]
    # The values of the mean of `count` random signs and their binomial probabilities.
    signs = jnp.asarray([2 * j / count - 1 for j in range(count + 1)], mu.dtype)
    weights = jnp.asarray([math.comb(count, j) / 2**count for j in range(count + 1)], mu.dtype)
    signs = jnp.broadcast_to(signs, (*mu.shape, count + 1))

    def exponent(spread: Array) -> Array:
        return lyapunov_environments(eta, mean + spread[..., None] * signs, weights)

    return jnp.where(mu > 0, bisect(exponent, jnp.zeros_like(mu), 1 / eta + mean[..., 0]), 0)


@checked_jit
def is_bounded(learning_rate: ArrayLike, lowest: ArrayLike, highest: ArrayLike) -> Array:
    """Whether the scalar dynamics stays bounded under all eigenvalues in [lowest, highest].

    With c = 1 + eta s a step is u -> (c - eta u^2) u. Its largest peak is u_max = sqrt((4/27)
    c_high^3/eta). The interval |u| <= u_max is invariant iff no step from u_max overshoots on the
    other side: eta u_max^2 <= 1 + c for every c, or (4/27) c_high^3 <= 1 + c_low. Beyond that, one
    step to the peak followed by steps at c_low diverges.

    Accuracy: exact, up to rounding where both sides of the inequality are equal.

    Args:
        learning_rate: eta [...].
        lowest: the smallest eigenvalue [...].
        highest: the largest eigenvalue [...].

    Returns:
        bool [...].
    """
    eta, lowest, highest = broadcast(learning_rate, lowest, highest)
    return 4 / 27 * jnp.maximum(1 + eta * highest, 0) ** 3 <= 2 + eta * lowest


@checked_jit
def least_positive_exponent(learning_rate: ArrayLike, mean: ArrayLike, highest: ArrayLike) -> Array:
    """The least exponent with mean mu in [0, highest], mu log(1 + eta highest)/highest.

    As log(1 + eta s) is concave it lies above its chord, so the minimum is attained by eigenvalues
    that are either 0 or `highest`. It is positive: where no environment contradicts, heterogeneity
    slows a spurious direction but never stops it. Where no sequence can diverge (`is_bounded`:
    eta highest <= 1.38), it is at least 0.628 eta mu.

    Accuracy: relative 1e-6 in single precision.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        highest: the largest eigenvalue [...], above zero.
    """
    eta, mu, highest = broadcast(learning_rate, mean, highest)
    return mu * jnp.log1p(eta * highest) / highest


@checked_jit
def divergence_bound(learning_rate: ArrayLike, mean: ArrayLike) -> Array:
    """The largest M at which eigenvalues in [mu - M, mu + M] keep the scalar dynamics bounded.

    Equality in `is_bounded`, (4/27) y^3 + y = 3 + 2 eta mu for y = 1 + eta mu + eta M, has the
    single real solution y = 3 sinh(asinh(3 + 2 eta mu)/3). At eta mu = 0.1 this is eta M = 0.905.
    In simulations of two points over 600 steps from uniform |u| <= u_max no run diverged at
    eta M = 0.904, 6 % at 0.92, 16 % at 0.95 and 47 % at 1.1. Beyond M_c, runs that start near zero
    mostly shrink before they reach the peak: from u = 1e-3 fewer than 0.1 % diverged.

    Accuracy: absolute 4e-6 / eta in single precision.

    Args:
        learning_rate: eta [...].
        mean: mu [...].

    Returns:
        M [...]; 0 for eta mu >= 2 or <= -3/2, where not even a single environment is covered.

    >>> print(f"{0.1 * divergence_bound(0.1, mean=1.0):.3f}")
    0.905
    """
    eta, mu = broadcast(learning_rate, mean)
    drift = eta * mu
    highest = 3 * jnp.sinh(jnp.arcsinh(3 + 2 * drift) / 3)
    return jnp.where(drift > -1.5, jnp.maximum(highest - 1 - drift, 0), 0) / eta

"""Sharpness-aware minimisation: its edge, its floor, and what it does to environments.

SAM takes the gradient at w + rho g/|g|. Along one direction of curvature lambda, with a = eta
lambda, a step is

    x <- (1 - a) x - a rho sign(x):

x never settles. It ends in the two-cycle of amplitude a rho/(2 - a), whatever the start. With
several directions, each is multiplied by 1 - eta lambda_i (1 + rho lambda_i/|g|); at the two-cycle
of the sharpest one its factor is -1 and those of all others are smaller, so that one direction
oscillates. A factor of -1 means that the curvature is

    lambda = (|g|/(2 rho)) (sqrt(1 + 8 rho/(eta |g|)) - 1),

the edge of SAM (Long and Bartlett, JMLR 2024), which is 2/eta at rho = 0 and falls with |g|.

In U V' with one entry the perturbed factors are u + rho sign(r) v/N and v + rho sign(r) u/N with
N^2 = |u|^2 + |v|^2 = 2 S, and the perturbed residual is r + rho sign(r) N + O(rho^2). Hence u + v
and u - v are multiplied by 1 - (eta rho/2)|r|/N -+ eta r/2 at that residual. At the two-cycle it is
2 rho N/(2 - eta S), and the imbalance is multiplied by 1 - 4 eta rho^2/(2 - eta S)^2 + O(rho^4):
SAM flattens the valley at a rate that does not depend on the imbalance.

Environments share the norm |g| with the learned direction. While that one oscillates, |g| is lambda
times its amplitude, and a small spurious direction of eigenvalue s, curvature -s, is multiplied by
1 + eta s - (2 - eta lambda)(s/lambda)^2 whatever rho is. Where environments are so far apart that
the spurious direction is the sharpest, it takes the norm for itself: v <- v + eta (s v - rho |s|
sign(v)). For small eta, |v| is the walk | |v| - eta rho |s| |, whose stationary density is the tail
of the law of its steps.

All formulas but the edge are derived here. The loss is that of `theory.stability`.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import families, lyapunov
from causal_sgd.types import Array

__all__ = ["sam_amplitude", "sam_balance_exponent", "sam_edge", "sam_exponent", "sam_floor"]


@checked_jit
def sam_edge(learning_rate: ArrayLike, radius: ArrayLike, gradient_norm: ArrayLike) -> Array:
    """The curvature [...] along the gradient at which a step of SAM reverses a deviation.

    (|g|/(2 rho)) (sqrt(1 + 8 rho/(eta |g|)) - 1), as 4/eta over 1 + sqrt(1 + 8 rho/(eta |g|)).

    Accuracy: a few roundings.

    Args:
        learning_rate: eta [...].
        radius: rho [...], at least 0, in units of the parameters.
        gradient_norm: |g| [...], at least 0, in units of the loss over those of the parameters.

    Returns:
        The edge: 2/eta for radius 0, 0 where the gradient vanishes and the radius does not.

    >>> print(f"{sam_edge(0.1, 0.0, 1.0):.4f} {sam_edge(0.1, 0.1, 0.0222222):.4f}")
    20.0000 2.0000
    """
    eta, rho, norm = broadcast(learning_rate, radius, gradient_norm)
    ratio = jnp.where(rho > 0, 8 * rho / (eta * norm), 0)
    return 4 / eta / (1 + jnp.sqrt(1 + ratio))


@checked_jit
def sam_amplitude(learning_rate: ArrayLike, radius: ArrayLike, curvature: ArrayLike) -> Array:
    """The distance [...] from a minimum at which SAM ends: eta lambda rho/(2 - eta lambda).

    Exact for a quadratic. For a direction of U U', lambda = 2 s, the third order in rho takes away
    the share 4 rho^2/(s (1 - eta s)^3), and the middle of the cycle lies below sqrt(s) by 3 rho^2/
    (2 sqrt(s) (1 - eta s)^2).

    Accuracy: relative 2e-7/|2 - eta lambda|.

    Args:
        learning_rate: eta [...].
        radius: rho [...], at least 0, in units of the parameters.
        curvature: lambda [...], above 0, the largest eigenvalue of the Hessian.

    Returns:
        The amplitude in units of the parameters; inf from eta lambda = 2 on.

    >>> print(f"{sam_amplitude(0.1, 0.1, 2.0):.4f}")
    0.0111
    """
    eta, rho, curvature = broadcast(learning_rate, radius, curvature)
    a = eta * curvature
    return jnp.where(a < 2, a * rho / jnp.where(a < 2, 2 - a, 1), jnp.inf)


@checked_jit
def sam_balance_exponent(
    learning_rate: ArrayLike, radius: ArrayLike, curvature: ArrayLike
) -> Array:
    """The exponent [...] of the imbalance |u|^2 - |v|^2 of U V' at the two-cycle of SAM.

    -4 eta rho^2/(2 - eta S)^2 per step, with a remainder of order rho^4. With one column, S^2 - f^2
    falls at twice the exponent, until the sharpness S is that of the flattest minimum, |f|.

    Accuracy: relative 4e-7/|2 - eta S|.

    Args:
        learning_rate: eta [...].
        radius: rho [...], at least 0, in units of the factors.
        curvature: S [...], above 0, (|u|^2 + |v|^2)/2.

    Returns:
        The exponent; -inf from eta S = 2 on, where there is no two-cycle.

    >>> print(f"{sam_balance_exponent(0.2, 0.1, 2.0):.6f}")
    -0.003125
    """
    eta, rho, curvature = broadcast(learning_rate, radius, curvature)
    gap = 2 - eta * curvature
    return jnp.where(gap > 0, -4 * eta * (rho / jnp.where(gap > 0, gap, 1)) ** 2, -jnp.inf)


@checked_jit
def sam_exponent(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    curvature: ArrayLike,
    family: str = "two_point",
) -> Array:
    """The exponent [...] of a small spurious direction beside a learned one, under SAM.

    E log|1 + eta s - (2 - eta lambda)(s/lambda)^2|, in which no radius is left. The factor is that
    of two linear ones, (1 + p s)(1 - q s), p - q = eta and p q = (2 - eta lambda)/lambda^2. For
    small eta it depends on s/lambda alone: for small mu the direction is rejected, at a rate of
    order one, up to M = lambda, whether or not M is critical.

    It holds where |s v| is far below |g| = lambda times `sam_amplitude`, in the limit of a radius
    small against eta: the cubic terms of U U' alternate |g| by the share 3 rho/(2 eta) at sigma* =
    1.

    Accuracy: that of the family's exponent, twice.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        curvature: lambda [...], above 0, of the learned direction: 2 sigma* for U U'.
        family: one of `theory.families`.

    Returns:
        The exponent per step; NaN from eta lambda = 2 on.

    >>> print(f"{sam_exponent(0.1, 0.2, 1.0, 2.0):.4f}")
    -0.6048
    """
    checks.choice("family", family, families)
    eta, mu, spread, curvature = broadcast(learning_rate, mean, spread, curvature)
    gap = 2 - eta * curvature
    product = jnp.where(gap > 0, gap, jnp.nan) / curvature**2
    larger = (eta + jnp.sqrt(eta**2 + 4 * product)) / 2
    smaller = product / larger
    return lyapunov(family, larger, mu, spread) + lyapunov(family, smaller, -mu, spread)


@checked_jit
def sam_floor(
    learning_rate: ArrayLike, radius: ArrayLike, mean: ArrayLike, spread: ArrayLike
) -> Array:
    """The power v^2 [...] at which SAM holds a direction that environments shake alone.

    eta^2 rho^2 E|s|^3/(3 E|s|) for the eigenvalues mu +- M, equally likely: (M^2 + 3 mu^2)/3 times
    eta^2 rho^2 for M > mu. It is the second moment of the stationary density P(eta rho |s| > v) /
    (eta rho E|s|), with a relative remainder of order eta mu and (eta M)^2. Eigenvalues in a simple
    ratio, such as 2 to -1, keep the walk on a lattice, whose place matters by some per cent.

    Accuracy: a few roundings.

    Args:
        learning_rate: eta [...].
        radius: rho [...], at least 0, in units of the parameters.
        mean: mu [...].
        spread: M [...].

    Returns:
        The power, in units of the signal; 0 where both eigenvalues are 0.

    >>> print(f"{sam_floor(0.1, 0.1, 0.0, 3.0):.6f}")
    0.000300
    """
    eta, rho, mu, spread = broadcast(learning_rate, radius, mean, spread)
    first, second = jnp.abs(mu + spread), jnp.abs(mu - spread)
    total = first + second
    ratio = (first**3 + second**3) / jnp.where(total > 0, total, 1)
    return (eta * rho) ** 2 * ratio / 3

"""Two correlated features in closed form: what the Lasso of heterogeneity keeps and loses."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["FeatureThresholds", "feature_thresholds"]


class FeatureThresholds(NamedTuple):
    """Spreads M [...] of the spurious weight at which the solution changes."""

    spurious_lost: Array  # above it only the invariant feature is used; infinite if never
    spurious_enters: Array  # a false positive above it although mu <= 0; infinite if never
    unbiased: Array  # the invariant weight is exactly its own
    invariant_lost: Array  # above it the invariant feature is lost, too; infinite for rho = 0


@checked_jit
def _thresholds(
    learning_rate: ArrayLike,
    correlation: ArrayLike,
    mean: ArrayLike,
    invariant_weight: ArrayLike,
    invariant_variance: ArrayLike,
    spurious_variance: ArrayLike,
) -> FeatureThresholds:
    eta, rho, mu, weight, own, other = broadcast(
        learning_rate, correlation, mean, invariant_weight, invariant_variance, spurious_variance
    )
    ratio = jnp.sqrt(own / other)
    condition = 1 - rho**3 * ratio  # the irrepresentable one, where it is positive
    pull = 2 * mu * (1 - rho**2) / (eta * other)
    nothing = jnp.zeros_like(eta)

    def spread(square: Array, exists: Array) -> Array:
        return jnp.where(exists, jnp.sqrt(jnp.where(exists, square, 1)), jnp.inf)

    holds = condition > 0
    square = pull / jnp.where(condition == 0, 1, condition)
    lost = jnp.where(mu > 0, spread(square, holds & (mu > 0)), jnp.where(holds, nothing, jnp.inf))
    enters = spread(square, (condition < 0) & (mu < 0))
    enters = jnp.where((condition < 0) & (mu == 0), nothing, enters)
    leaning = mu * rho
    safe = jnp.where(rho == 0, 1, rho)
    unbiased = spread(2 * mu / (eta * safe * jnp.sqrt(own * other)), leaning > 0)
    level = weight + leaning / ratio
    last = 2 * level / (eta * safe**2 * other)
    alone = spread(last, (rho != 0) & (level > 0))
    return FeatureThresholds(lost, enters, unbiased, jnp.where(level > 0, alone, nothing))


def feature_thresholds(
    learning_rate: ArrayLike,
    correlation: ArrayLike,
    *,
    mean: ArrayLike = 1.0,
    invariant_weight: ArrayLike = 1.0,
    invariant_variance: ArrayLike = 1.0,
    spurious_variance: ArrayLike = 1.0,
) -> FeatureThresholds:
    """The spreads at which an invariant and a spurious feature are learned and lost.

    Features of variances s1 and s2 and correlation rho have weights theta* and mu +- M in the
    environments, so that with c = rho (s1 s2)^(1/2) the penalties of `heterogeneity_lasso` are
    (eta / 2) M^2 times c^2 and s2^2. With the invariant feature alone its weight is

        theta_1 = theta* + (c / s1) mu - (eta / 2) rho^2 s2 M^2,

    and the spurious one stays out as long as s2 mu (1 - rho^2) <= (eta / 2) M^2 s2^2 K, with

        K = 1 - rho^3 (s1 / s2)^(1/2),    M_c^2 = 2 mu (1 - rho^2) / (eta s2 K).

    K > 0 is the irrepresentable condition (Zhao and Yu 2006) of penalties that are known: where it
    fails, rho > (s2 / s1)^(1/6), the penalty of the invariant feature alone pushes the spurious one
    in, whatever M is. Without correlation M_c^2 = 2 mu / (eta s2). Correlation costs: the invariant
    weight is biased unless M is `unbiased`, and above `invariant_lost` heterogeneity removes the
    invariant feature together with its neighbour.

    Accuracy: a few roundings; those of K where it is small. `invariant_lost` supposes that the
    spurious feature is out, and `spurious_lost` that the invariant one is in.

    Args:
        learning_rate: eta [...].
        correlation: rho [...], above -1 and below 1.
        mean: mu [...], of either sign.
        invariant_weight: theta* [...], at least 0.
        invariant_variance: s1 [...].
        spurious_variance: s2 [...].

    Raises:
        ValueError: if an argument is out of range.

    >>> found = feature_thresholds(0.05, 0.5, mean=0.5)
    >>> print([f"{value:.3f}" for value in found])
    ['4.140', 'inf', '6.325', '14.142']
    """
    checks.number("correlation", correlation, above=-1, scalar=False)
    values = checks.concrete(correlation)
    if values is not None and (values >= 1).any():
        raise ValueError(f"correlation must be above -1 and below 1, got {correlation}")
    checks.number("invariant_weight", invariant_weight, minimum=0, scalar=False)
    for name, value in (
        ("invariant_variance", invariant_variance),
        ("spurious_variance", spurious_variance),
    ):
        checks.number(name, value, above=0, scalar=False)
    return _thresholds(
        learning_rate, correlation, mean, invariant_weight, invariant_variance, spurious_variance
    )

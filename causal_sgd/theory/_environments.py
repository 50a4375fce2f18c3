"""Phase boundaries of environments that are given, not drawn from a family of spectra."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check, count_environments
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import lyapunov_environments
from causal_sgd.types import Array

__all__ = ["critical_learning_rate_environments", "critical_spread_environments"]


def critical_spread_environments(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    deviations: ArrayLike,
    probabilities: ArrayLike | None = None,
) -> Array:
    """The critical heterogeneity of the eigenvalues s_e = mu + M z_e of given environments.

    lambda(M) = sum_e p_e log(1 + eta (mu + M z_e)) is concave up to its first singularity, where a
    factor vanishes and it is -inf. Where lambda(0) > 0 it therefore has one root in between.

    Accuracy: relative 1e-4 in single precision for eta mu from 1e-3 to 1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        deviations: z_e [E].
        probabilities: p_e [E], sum to one; None for equal ones.

    Returns:
        M_c [...]: 0 where mu <= 0; inf where no environment has a negative deviation.

    >>> print(f"{critical_spread_environments(0.1, 1.0, jnp.array([1.0, -1.0])):.2f}")
    4.58
    """
    check(learning_rate=learning_rate, mean=mean)
    checks.number("deviations", deviations, scalar=False)
    if np.ndim(deviations) != 1:
        raise ValueError(f"deviations must have shape [E], got {tuple(np.shape(deviations))}")
    weights = _weights("deviations", deviations, probabilities)
    eta, mu = broadcast(learning_rate, mean)
    values = jnp.expand_dims(jnp.asarray(deviations, eta.dtype), tuple(range(eta.ndim)))
    lowest = jnp.min(jnp.where(weights > 0, jnp.ravel(values), 0))
    factor = 1 + eta * jnp.maximum(mu, 0)
    pole = factor / (eta * jnp.where(lowest < 0, -lowest, 1))

    def exponent(spread: Array) -> Array:
        return lyapunov_environments(eta, mu[..., None] + spread[..., None] * values, weights)

    root = bisect(exponent, jnp.zeros_like(pole), pole)
    return jnp.where(mu > 0, jnp.where(lowest < 0, root, jnp.inf), 0)


def critical_learning_rate_environments(
    eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The critical learning rate of given environments: beyond it lambda is negative.

    lambda(eta) = sum_e p_e log(1 + eta s_e) is concave up to its first singularity, with the slope
    sum_e p_e s_e at 0.

    Accuracy: relative 1e-4 in single precision for a mean above 1e-2 of the largest |s_e|.

    Args:
        eigenvalues: s_e [..., E].
        probabilities: p_e [E], sum to one; None for equal ones.

    Returns:
        eta_c [...]: 0 where the mean of the eigenvalues is not above 0; inf where no environment
        has a negative one.

    >>> print(f"{critical_learning_rate_environments(jnp.array([6.0, -4.0])):.4f}")
    0.0833
    """
    checks.number("eigenvalues", eigenvalues, scalar=False)
    weights = _weights("eigenvalues", eigenvalues, probabilities)
    (values,) = broadcast(eigenvalues)
    each = jnp.expand_dims(weights, tuple(range(values.ndim - 1))).astype(values.dtype)
    mean = jnp.sum(values * each, -1)
    lowest = jnp.min(jnp.where(each > 0, values, 0), -1)
    pole = 1 / jnp.where(lowest < 0, -lowest, 1)

    def exponent(rate: Array) -> Array:
        return lyapunov_environments(rate, values, weights)

    # Rates so small that lambda is lost to rounding do not count as the root.
    first = pole * jnp.finfo(pole.dtype).eps ** 0.5
    root = bisect(exponent, first, pole)
    return jnp.where(mean > 0, jnp.where(lowest < 0, root, jnp.inf), 0)


def _weights(name: str, values: ArrayLike, probabilities: ArrayLike | None) -> Array:
    """The probabilities [E] of the environments."""
    size = count_environments(name, values)
    if probabilities is None:
        return jnp.full(size, 1 / size)
    return jnp.asarray(checks.probabilities("probabilities", probabilities, size))

"""Power laws near the transition: laminar phases below it, bursts above it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check, count_environments
from causal_sgd.theory._exponents import log_abs
from causal_sgd.types import Array

__all__ = ["tail_exponent"]


@jax.jit
def _tail_exponent(learning_rate: Array, eigenvalues: Array, weights: Array) -> Array:
    """Newton's method from above the root of a convex function, which it never crosses."""
    eta, values, weights = broadcast(learning_rate[..., None], eigenvalues, weights)
    weights = weights / jnp.sum(weights, -1, keepdims=True)
    logs = jnp.maximum(
        log_abs(eta * values), -1e4
    )  # the bound replaces log 0 of a vanishing factor
    logs = jnp.where(weights > 0, logs, 0)
    drift = jnp.sum(weights * logs, -1)
    sign = jnp.where(drift > 0, -1, 1)
    logs = logs * sign[..., None]  # with a negative drift the root is positive
    highest = jnp.max(logs, -1)
    # The term of the largest factor alone is 1 here, so the sum is at least 1: beyond the root.
    probability = jnp.sum(jnp.where(logs == highest[..., None], weights, 0), -1)
    start = -jnp.log(probability) / jnp.where(highest > 0, highest, 1)

    def newton(_: int, root: Array) -> Array:
        powers = jnp.expm1(root[..., None] * logs)  # accurate for a small root
        slope = jnp.sum(weights * logs * (powers + 1), -1)
        step = jnp.sum(weights * powers, -1) / jnp.where(slope > 0, slope, 1)
        return jnp.maximum(root - jnp.where(slope > 0, step, 0), 0)

    root = jax.lax.fori_loop(0, 64, newton, start)
    return sign * jnp.where(highest > 0, jnp.where(drift == 0, 0, root), jnp.inf)


def tail_exponent(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The exponent theta of the stationary density ~ |u|^(-1 - theta) of a spurious direction.

    It is the nonzero root of E|1 + eta s|^theta = 1 (Cramer, Lundberg). It has the sign of -lambda
    and is about -2 lambda/v where it is small.

    Below the transition theta < 0: log|u| is a random walk that drifts up against the nonlinearity,
    and in the laminar phases the density is ~ |u|^(|theta| - 1). Above it theta > 0: repeated
    perturbations (batch noise, a tilt) are amplified to bursts with a heavy tail,
    P(|u| > x) ~ x^-theta (Kesten 1973), up to the nonlinearity. Without perturbations, a direction
    that starts at u0 reaches x with a probability ~ (u0/x)^theta.

    Accuracy: 1e-4 (1 + |theta|) in single precision for |lambda| above 0.02; theta itself is as
    sensitive as lambda/v.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., E], the spurious eigenvalue of each environment.
        probabilities: [E], sum to one; None for equal ones.

    Returns:
        theta [...]: 0 at the transition, inf where no factor exceeds 1, -inf where none is below 1.

    >>> print(f"{tail_exponent(0.1, jnp.array([7.0, -5.0])):.3f}")
    0.439
    """
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    size = count_environments("eigenvalues", eigenvalues)
    weights = jnp.ones(size)
    if probabilities is not None:
        weights = jnp.asarray(checks.probabilities("probabilities", probabilities, size))
    return _tail_exponent(jnp.asarray(learning_rate), jnp.asarray(eigenvalues), weights)

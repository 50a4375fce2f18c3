"""The power laws of a spurious direction near the transition: of its quiet phases below it, of its bursts above."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import check, common
from causal_sgd.theory._exponents import log_abs
from causal_sgd.types import Array

__all__ = ["tail_exponent"]


@jax.jit
def _tail_exponent(learning_rate: Array, eigenvalues: Array, weights: Array) -> Array:
    """Newton's method from beyond the root: on a convex function it never crosses it."""
    eta, values, weights = common(learning_rate[..., None], eigenvalues, weights)
    weights = weights / jnp.sum(weights, -1, keepdims=True)
    logs = jnp.where(
        weights > 0, jnp.maximum(log_abs(eta * values), -1e4), 0
    )  # a factor of 0 as one that is tiny
    drift = jnp.sum(weights * logs, -1)
    sign = jnp.where(drift > 0, -1, 1)
    logs = logs * sign[..., None]  # now the drift is down, and the root is positive
    highest = jnp.max(logs, -1)
    likely = jnp.sum(jnp.where(logs == highest[..., None], weights, 0), -1)
    start = -jnp.log(likely) / jnp.where(highest > 0, highest, 1)

    def improve(_: int, root: Array) -> Array:
        powers = jnp.expm1(root[..., None] * logs)  # keeps the digits of a small root
        slope = jnp.sum(weights * logs * (powers + 1), -1)
        root = root - jnp.where(
            slope > 0, jnp.sum(weights * powers, -1) / jnp.where(slope > 0, slope, 1), 0
        )
        return jnp.maximum(root, 0)

    root = jax.lax.fori_loop(0, 64, improve, start)
    return sign * jnp.where(highest > 0, jnp.where(drift == 0, 0, root), jnp.inf)


def tail_exponent(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The power theta of the stationary law of a spurious direction: a density ~ |u|^(-1 - theta).

    It is the other root, beside 0, of E|1 + eta s|^theta = 1 (Cramer, Lundberg), with the sign of -lambda, and
    about -2 lambda/v where it is small.

    Below the transition, theta < 0: log|u| is a random walk that drifts up against the nonlinearity, and the density
    of the quiet phases is ~ |u|^(|theta| - 1). Above it, theta > 0: whatever feeds the direction again and again (the
    noise of a batch, a tilt) is multiplied to a heavy tail of bursts, P(|u| > x) ~ x^-theta (Kesten 1973), up to
    the nonlinearity; a direction that starts at u0 and is fed by nothing reaches x with a probability ~ (u0/x)^theta.

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
    shape = jnp.shape(eigenvalues)
    if not shape or shape[-1] == 0:
        raise ValueError(
            f"eigenvalues must have a last axis of environments, [..., E], got shape {shape}"
        )
    weights = jnp.ones(shape[-1])
    if probabilities is not None:
        weights = jnp.asarray(checks.probabilities("probabilities", probabilities, shape[-1]))
    return _tail_exponent(jnp.asarray(learning_rate), jnp.asarray(eigenvalues), weights)

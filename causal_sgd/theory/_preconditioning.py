"""Preconditioned gradients: the window of damping in which a spurious direction dies."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["DampingWindow", "damping_window"]


class DampingWindow(NamedTuple):
    """Damping between which a spurious direction dies, in units of the signal."""

    low: Array  # [...] below, a step overshoots so far that the direction grows
    high: Array  # [...] above, the step is too short for the environments to contradict each other


@checked_jit
def damping_window(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> DampingWindow:
    """The damping lambda for which ScaledGD rejects a direction of eigenvalues mu +- M.

    `optimizers.scaled` moves a direction by u <- u + eta (s - u^2) u / (u^2 + lambda). Near zero
    this is the map of plain gradients with eta / lambda in place of eta, so that the direction dies
    iff |(1 + x mu)^2 - x^2 M^2| < 1 for x = eta / lambda. For mu > 0 that is

        (eta / 2) [sqrt(2 M^2 - mu^2) - mu] < lambda < eta (M^2 - mu^2) / (2 mu).

    The upper end is `critical_learning_rate` = eta / lambda. Without damping nothing is rejected,
    whatever the heterogeneity: where all directions have one rate, no noise is small.

    Accuracy: relative 1e-5 in single precision, for M above 1.01 |mu|.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...], with two equally likely eigenvalues mu +- M.

    Returns:
        The ends [...] of the window, empty where low >= high, as for M <= mu. For mu <= 0 there is
        no upper end, and the window is the part that reaches infinity.

    >>> [f"{float(end):.3f}" for end in damping_window(0.1, 1.0, 6.0)]
    ['0.371', '1.750']
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    inside = 2 * spread**2 - mu**2
    root = jnp.sqrt(jnp.maximum(inside, 0))
    gap = (spread - mu) * (spread + mu)
    some = jnp.where(mu == 0, 1, 2 * mu)
    # Where sqrt is imaginary, all eigenvalues have one sign: either no step dies, or those that are
    # too short for the largest factor to reach -1.
    low = jnp.where(inside > 0, (root - mu) / 2, jnp.where(mu < 0, gap / some, 0))
    return DampingWindow(eta * jnp.maximum(low, 0), eta * jnp.where(mu > 0, gap / some, jnp.inf))

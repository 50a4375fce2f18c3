"""Expected losses of Gaussian predictions, by Gauss-Hermite quadrature.

For f ~ N(m, s^2) the sum over nodes of weight_k loss(m + s t_k, y) is a function of (m, s) alone.
Its derivatives are sums over the same nodes of the loss's own derivatives, in closed form: the
gradient costs one pass over the nodes, and so do gradients of first derivatives (IRMv1's penalty).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.supervised.losses import Loss
from causal_sgd.types import Array

__all__ = ["expected_loss", "hermite"]

Expectation = Callable[[Array, Array, Array], Array]
"""(Means m [...], deviations s [...], labels y [...]) -> expected losses [...]."""


def hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes t [K] and weights [K] of E g(t), t ~ N(0, 1); exact for degrees below 2 K."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points, weights / weights.sum()


@functools.cache
def expected_loss(loss: Loss, nodes: int) -> Expectation:
    """E loss(f, y) for f ~ N(m, s^2), differentiable in m and s.

    Args:
        loss: of a prediction and a label.
        nodes: K of the quadrature.

    Returns:
        (m, s, y) -> [...]; the arguments are broadcast against each other.
    """
    points, weights = hermite(nodes)

    def at_nodes(mean: Array, deviation: Array) -> tuple[Array, Array, Array]:
        shape = (1,) * mean.ndim + (nodes,)
        t, shares = (jnp.asarray(each, mean.dtype).reshape(shape) for each in (points, weights))
        return mean[..., None] + deviation[..., None] * t, t, shares

    @jax.custom_jvp
    def value(mean: Array, deviation: Array, labels: Array) -> Array:
        f, _, shares = at_nodes(mean, deviation)
        return jnp.sum(shares * loss.value(f, labels[..., None]), -1)

    @jax.custom_jvp
    def slopes(mean: Array, deviation: Array, labels: Array) -> tuple[Array, Array]:
        f, t, shares = at_nodes(mean, deviation)
        first = shares * loss.derivatives(f, labels[..., None])[0]
        return jnp.sum(first, -1), jnp.sum(first * t, -1)

    def curvatures(mean: Array, deviation: Array, labels: Array) -> tuple[Array, Array, Array]:
        f, t, shares = at_nodes(mean, deviation)
        second = shares * loss.derivatives(f, labels[..., None])[1]
        return jnp.sum(second, -1), jnp.sum(second * t, -1), jnp.sum(second * t**2, -1)

    @value.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        by_mean, by_deviation = slopes(*primals)
        return value(*primals), by_mean * tangents[0] + by_deviation * tangents[1]

    @slopes.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
        twice, mixed, across = curvatures(*primals)
        mean, deviation = tangents[:2]
        change = twice * mean + mixed * deviation, mixed * mean + across * deviation
        return slopes(*primals), change

    def expectation(mean: Array, deviation: Array, labels: Array) -> Array:
        return value(*jnp.broadcast_arrays(mean, deviation, labels))

    return expectation

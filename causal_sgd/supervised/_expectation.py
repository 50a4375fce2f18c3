"""Expected losses of Gaussian predictions, by Gauss-Hermite quadrature.

For f ~ N(m, s^2) the sum over nodes of weight_k loss(m + s t_k, y) is a function of (m, s) alone.
Its derivatives are sums over the same nodes of the loss's own derivatives, in closed form: the
gradient costs one pass over the nodes, and so do gradients of first derivatives (IRMv1's penalty).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.losses import Loss
from causal_sgd.types import Array

__all__ = ["derivatives", "expected_loss", "hermite"]

Expectation = Callable[[Array, Array, Array], Array]
"""(Means m [...], deviations s [...], labels y [...]) -> expected losses [...]."""


Sum = Callable[[Array, Array, Array], tuple[Array, ...]]
UNROLLED = 32  # nodes up to which sums are written out


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
    fast = [derivatives(loss, nodes, order) for order in range(3)]

    @jax.custom_jvp
    def value(mean: Array, deviation: Array, labels: Array) -> Array:
        return fast[0](mean, deviation, labels)[0]

    @jax.custom_jvp
    def first(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        return fast[1](mean, deviation, labels)

    @jax.custom_jvp
    def second(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        return fast[2](mean, deviation, labels)

    @value.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
        height, by_mean, by_deviation = first(*primals)
        return height, by_mean * tangents[0] + by_deviation * tangents[1]

    @first.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
        height, by_mean, by_deviation, twice, mixed, across = second(*primals)
        mean, deviation = tangents[:2]
        change = (
            by_mean * mean + by_deviation * deviation,
            twice * mean + mixed * deviation,
            mixed * mean + across * deviation,
        )
        return (height, by_mean, by_deviation), change

    @second.defjvp
    def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
        return jax.jvp(_sums(loss, nodes, 2), primals, tangents)

    def expectation(mean: Array, deviation: Array, labels: Array) -> Array:
        return value(*jnp.broadcast_arrays(mean, deviation, labels))

    return expectation


@functools.cache
def derivatives(loss: Loss, nodes: int, order: int) -> Sum:
    """The expected loss and its derivatives in m, s, mm, ms and ss, in one pass over the nodes.

    Args:
        loss: of a prediction and a label.
        nodes: K of the quadrature.
        order: of the highest derivative: 1, 3 or 6 results for 0, 1 or 2.

    Returns:
        (m, s, y), all of one shape, -> that many arrays of the shape.
    """
    sums = _sums(loss, nodes, order)
    return _flat(sums) if nodes <= UNROLLED else sums


def _sums(loss: Loss, nodes: int, order: int) -> Sum:
    points, weights = hermite(nodes)

    def sums(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        # One node after the other: sums over a last axis of nodes would not fill vectors.
        totals = [jnp.zeros_like(mean)] * (1, 3, 6)[order]
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            f = mean + deviation * point
            slope, curvature = loss.derivatives(f, labels) if order else (f, f)
            terms = [
                weight * loss.value(f, labels),
                *(weight * point**power * slope for power in range(2)),
                *(weight * point**power * curvature for power in range(3)),
            ]
            totals = [total + term for total, term in zip(totals, terms, strict=False)]
        return tuple(totals)

    return sums


def _flat(function: Sum) -> Sum:
    """The same function element by element, on one axis however many runs there are.

    XLA fills vectors along the last axis alone, and that of groups is short.
    """

    def branch(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        # XLA evaluates again for every consumer what does not lie in a branch.
        word = jax.lax.bitcast_convert_type(mean[0], f"uint{8 * mean.dtype.itemsize}")
        out = jax.eval_shape(function, mean, deviation, labels)
        return jax.lax.cond(
            (word | 1) != 0,
            function,
            lambda *_: tuple(jnp.zeros(leaf.shape, leaf.dtype) for leaf in out),
            mean,
            deviation,
            labels,
        )

    @jax.custom_batching.custom_vmap
    def flat(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        shape = mean.shape
        arguments = [jnp.ravel(part) for part in (mean, deviation, labels)]
        results = jax.lax.platform_dependent(*arguments, cpu=branch, default=function)
        return tuple(result.reshape(shape) for result in results)

    @flat.def_vmap
    def _(size: int, batched: Sequence[bool], *arguments: Array):
        wide = [
            one if has else jnp.broadcast_to(one[None], (size, *one.shape))
            for one, has in zip(arguments, batched, strict=True)
        ]
        results = flat(*wide)
        return results, (True,) * len(results)

    def once(mean: Array, deviation: Array, labels: Array) -> tuple[Array, ...]:
        # By hand the branch would be compiled in every call.
        return (flat if checks.is_tracing() else function)(mean, deviation, labels)

    return once

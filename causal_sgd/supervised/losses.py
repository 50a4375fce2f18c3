"""Losses of a prediction f and a label y, example by example.

`squared` is (f - y)^2 / 4, the scale of the whole package. The others are on the scale of their
sources: `logistic` is log(1 + exp(-y f)) and `exponential` is exp(-y f) for labels -1 and 1, and
`softmax` is the cross-entropy -log softmax(f)_y of predictions [C] and labels 0, ..., C - 1. A loss
of the user's own is `Loss(value)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from causal_sgd import _room
from causal_sgd.types import Array

_room(__name__)
__all__ = ["Loss", "exponential", "logistic", "softmax", "squared"]


@dataclass(frozen=True)
class Loss:
    """A differentiable function of predictions and labels.

    Attributes:
        value: (predictions [...], labels [...]) -> losses [...], element by element; a loss with
            `multiclass` takes predictions [..., C].
        slopes: (predictions, labels) -> the first and the second derivative with respect to the
            prediction, [...] each; None to differentiate `value`.
        binary: whether labels are -1 and 1, and the sign of the prediction is the class.
        multiclass: whether labels are whole numbers and predictions have a last axis of classes.
    """

    value: Callable[[Array, Array], Array]
    slopes: Callable[[Array, Array], tuple[Array, Array]] | None = None
    binary: bool = False
    multiclass: bool = False

    def __call__(self, predictions: Array, labels: Array) -> Array:
        """Return the losses [...], which differentiate by `derivatives`.

        Args:
            predictions: f [...], or [..., C] with `multiclass`.
            labels: y, of a shape that broadcasts with the losses.
        """
        if self.slopes is None:
            return self.value(predictions, labels)
        return _differentiable(self)(*jnp.broadcast_arrays(predictions, labels))

    def derivatives(self, predictions: Array, labels: Array) -> tuple[Array, Array]:
        """Return the first and the second derivative with respect to the prediction, [...] each.

        Args:
            predictions: f [...].
            labels: y, of a shape that broadcasts with it.
        """
        if self.slopes is not None:
            return self.slopes(predictions, labels)
        ones = jnp.ones_like(predictions)

        def first(f: Array) -> Array:
            return jax.jvp(lambda g: self.value(g, labels), (f,), (ones,))[1]

        return jax.jvp(first, (predictions,), (ones,))


@functools.cache
def _differentiable(loss: Loss) -> Callable[[Array, Array], Array]:
    """The values of a loss with its own first and second derivatives."""

    @jax.custom_jvp
    def value(predictions: Array, labels: Array) -> Array:
        return loss.value(predictions, labels)

    @jax.custom_jvp
    def slope(predictions: Array, labels: Array) -> Array:
        return loss.derivatives(predictions, labels)[0]

    @value.defjvp
    def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        return value(*primals), slope(*primals) * tangents[0]

    @slope.defjvp
    def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        return slope(*primals), loss.derivatives(*primals)[1] * tangents[0]

    return value


def _squared(predictions: Array, labels: Array) -> Array:
    return (predictions - labels) ** 2 / 4


def _squared_slopes(predictions: Array, labels: Array) -> tuple[Array, Array]:
    return (predictions - labels) / 2, jnp.full_like(predictions, 0.5)


def _logistic(predictions: Array, labels: Array) -> Array:
    # The same exponential as in the derivatives, so that it is computed once.
    odds = jnp.exp(-jnp.abs(predictions))
    return jnp.maximum(-labels * predictions, 0) + jnp.log1p(odds)


def _logistic_slopes(predictions: Array, labels: Array) -> tuple[Array, Array]:
    # Of a sigmoid near 1 the difference 1 - p has no digits, so both tails are computed.
    odds = jnp.exp(-jnp.abs(predictions))
    small, large = odds / (1 + odds), 1 / (1 + odds)
    wrong = jnp.where(labels * predictions < 0, large, small)
    return -labels * wrong, small * large


def _exponential(predictions: Array, labels: Array) -> Array:
    return jnp.exp(-labels * predictions)


def _exponential_slopes(predictions: Array, labels: Array) -> tuple[Array, Array]:
    value = jnp.exp(-labels * predictions)
    return -labels * value, labels**2 * value


def _softmax(predictions: Array, labels: Array) -> Array:
    logarithms = jax.nn.log_softmax(predictions)
    chosen = jnp.expand_dims(jnp.asarray(labels, jnp.int32), -1)
    return -jnp.take_along_axis(logarithms, chosen, -1)[..., 0]


squares = Loss(lambda f, y: f**2 + 0 * y)  # of the prediction alone, for penalties
squared = Loss(_squared, _squared_slopes)
"""(f - y)^2 / 4."""
logistic = Loss(_logistic, _logistic_slopes, binary=True)
"""log(1 + exp(-y f)) for labels -1 and 1, in nats."""
exponential = Loss(_exponential, _exponential_slopes, binary=True)
"""exp(-y f) for labels -1 and 1."""
softmax = Loss(_softmax, multiclass=True)
"""Cross-entropy -log softmax(f)_y of predictions f [..., C] and labels y in 0, ..., C - 1."""

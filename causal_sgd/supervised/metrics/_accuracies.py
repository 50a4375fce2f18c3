"""Shares of right signs or classes, and how much a prediction relies on a shortcut."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.metrics._common import average, check
from causal_sgd.supervised.metrics._errors import (
    errors_of_tests,
    errors_of_training,
    mean_of_rows,
    wrong,
)
from causal_sgd.supervised.models._model import predictions_of
from causal_sgd.types import Array, Metric, Snapshot

__all__ = [
    "accuracies",
    "accuracy",
    "flip_accuracy",
    "reliance",
    "training_accuracies",
    "training_accuracy",
    "worst_accuracy",
]

Intervention = Callable[[Array], tuple[Array, Array]]
"""An input [p] -> the same input with the shortcut set one way, and the other way, [p] each."""


def accuracy(snapshot: Snapshot) -> Array:
    """The share of right signs or classes in an environment of the test, averaged over them; [].

    Labels are -1 and 1, where a prediction of zero counts one half, or the classes of a model with
    an output of each.
    """
    check(snapshot, "accuracy")
    return 1 - jnp.mean(snapshot.once(errors_of_tests))


def accuracies(snapshot: Snapshot) -> Array:
    """The share of right signs or classes in every environment of the test; [T]."""
    check(snapshot, "accuracies")
    return 1 - snapshot.once(errors_of_tests)


def worst_accuracy(snapshot: Snapshot) -> Array:
    """The smallest share of right signs or classes in an environment of the test; []."""
    check(snapshot, "worst_accuracy")
    return 1 - jnp.max(snapshot.once(errors_of_tests))


def training_accuracy(snapshot: Snapshot) -> Array:
    """The share of right signs or classes, averaged over the environments of training; [].

    Of the run's data where it keeps examples, and of the population otherwise.
    """
    check(snapshot, "training_accuracy")
    return 1 - average(snapshot, snapshot.once(errors_of_training))


def training_accuracies(snapshot: Snapshot) -> Array:
    """The share of right signs or classes in every environment of training; [E]."""
    check(snapshot, "training_accuracies")
    return 1 - snapshot.once(errors_of_training)


def reliance(intervention: Intervention) -> Metric:
    """How much predictions change if a shortcut is set one way and the other.

    The mean of f(x1) - f(x2) over the examples, in environments of equal weight: those of the test,
    or those of the run's data where there are none. A model that does not use the shortcut has 0,
    whatever its accuracy is; where the shortcut hardly helps, the accuracy does not show it.

    Args:
        intervention: input [p] -> (x1, x2), that input with the shortcut set both ways, such as
            `lambda x: (x.at[0].set(1.0), x.at[0].set(-1.0))`.

    Returns:
        A metric, []; of a model with outputs for classes one number for each, [C].

    Raises:
        ValueError: if it is no function, or (when it runs) returns something else than two inputs,
            or the run keeps no examples.
    """
    _check_intervention(intervention)

    def metric(snapshot: Snapshot) -> Array:
        check(snapshot, "reliance")
        rows, (first, second) = _both_ways(snapshot, intervention, "reliance")
        one, other = (predictions_of(snapshot.model, snapshot.params, x) for x in (first, second))
        return jnp.mean(mean_of_rows(one - other, rows), 0)

    metric.__name__ = metric.__qualname__ = "reliance"
    return metric


def flip_accuracy(intervention: Intervention) -> Metric:
    """The share of examples that are classified rightly whichever way a shortcut is set.

    No flip of the shortcut breaks them. The mean over environments is that of `reliance`.

    Args:
        intervention: see `reliance`.

    Returns:
        A metric, [].

    Raises:
        ValueError: see `reliance`.
    """
    _check_intervention(intervention)

    def metric(snapshot: Snapshot) -> Array:
        check(snapshot, "flip_accuracy")
        rows, both = _both_ways(snapshot, intervention, "flip_accuracy")
        one, other = (wrong(snapshot, inputs, rows.labels) for inputs in both)
        return 1 - jnp.mean(mean_of_rows(jnp.maximum(one, other), rows))

    metric.__name__ = metric.__qualname__ = "flip_accuracy"
    return metric


def _check_intervention(intervention: object) -> None:
    checks.function(
        "intervention",
        intervention,
        1,
        "a function of an input [p] that returns it with the shortcut set both ways",
    )


def _both_ways(
    snapshot: Snapshot, intervention: Intervention, metric: str
) -> tuple[Rows, tuple[Array, Array]]:
    """The examples that are judged, and their inputs [K, n, p] with the shortcut set both ways."""
    rows = getattr(snapshot.world, "test_rows", None)
    if rows is None:
        rows = getattr(snapshot.data, "rows", None)
    if rows is None:
        raise ValueError(
            f"measurement must keep examples for the metric {metric}, as measurements.examples "
            f"does, or the world must hold examples of a test, got {type(snapshot.world).__name__}"
        )
    size = rows.inputs.shape[-1:]

    def both(x: Array) -> tuple[Array, Array]:
        found = intervention(x)
        shapes = [jnp.shape(each) for each in found] if isinstance(found, tuple | list) else None
        if shapes != [size, size]:
            raise ValueError(
                f"intervention must return two inputs of shape {[*size]}, got "
                f"{type(found).__name__ if shapes is None else ' and '.join(map(str, shapes))}"
            )
        return jnp.asarray(found[0], x.dtype), jnp.asarray(found[1], x.dtype)

    return rows, jax.vmap(jax.vmap(both))(rows.inputs)

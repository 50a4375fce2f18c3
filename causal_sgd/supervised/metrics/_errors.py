"""Shares of wrong signs or classes."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.metrics._common import average, check, vector
from causal_sgd.supervised.models._model import predictions_of
from causal_sgd.supervised.worlds import TableWorld
from causal_sgd.types import Array, Snapshot

__all__ = [
    "margin",
    "split",
    "test_error",
    "test_errors",
    "training_error",
    "validation_error",
    "worst_test_error",
]


def training_error(snapshot: Snapshot) -> Array:
    """The share of labels with another sign than the prediction, averaged over environments; [].

    Of the run's data where it keeps examples, and of the population otherwise. A prediction of
    zero counts one half. Labels are -1 and 1, or the classes of a model with an output of each.
    """
    check(snapshot, "training_error")
    return average(snapshot, snapshot.once(errors_of_training))


def validation_error(snapshot: Snapshot) -> Array:
    """The share of wrong signs among examples that nothing trains on; []."""
    check(snapshot, "validation_error")
    rows = getattr(snapshot.data, "validation_rows", None)
    if rows is not None:
        return average(snapshot, _row_errors(snapshot, rows))
    shares = getattr(snapshot.data, "validation_shares", None)
    if shares is None:
        raise ValueError(
            "measurement must keep validation examples for the metric validation_error, as "
            "measurements.counts(num_validation=...) does"
        )
    return average(snapshot, _table_errors(snapshot, shares))


def test_errors(snapshot: Snapshot) -> Array:
    """The share of wrong signs in every test environment; [T]."""
    check(snapshot, "test_errors")
    return snapshot.once(errors_of_tests)


def test_error(snapshot: Snapshot) -> Array:
    """The share of wrong signs in a test environment, averaged over them; []."""
    check(snapshot, "test_error")
    return jnp.mean(snapshot.once(errors_of_tests))


def worst_test_error(snapshot: Snapshot) -> Array:
    """The largest share of wrong signs in a test environment; []."""
    check(snapshot, "worst_test_error")
    return jnp.max(snapshot.once(errors_of_tests))


def margin(snapshot: Snapshot) -> Array:
    """The smallest y (x'w + b) / |w| over the examples of the run's data, or a table's points; [].

    It is the distance of the closest example from the boundary, negative if one is on the wrong
    side; NaN for weights of zero. Of a linear prediction, and labels -1 and 1.
    """
    check(snapshot, "margin")
    coefficients = snapshot.once(vector)
    world, weights, shift = snapshot.world, coefficients[:-2], coefficients[-1]
    rows = getattr(snapshot.data, "rows", None)
    if rows is not None:
        inputs, labels = rows.inputs, rows.labels
        used = jnp.arange(labels.shape[1])[None] < rows.counts[:, None]
    elif isinstance(world, TableWorld):
        inputs, labels = world.inputs[None], world.labels[None]
        used = jnp.any(world.mass > 0, 0)[None]
    else:
        raise ValueError(
            "measurement must keep examples for the metric margin, as measurements.examples does, "
            f"or the world must be a table; got {type(world).__name__}"
        )
    sides = labels * (linalg.product(inputs, weights[:, None])[..., 0] + shift)
    return jnp.min(jnp.where(used, sides, jnp.inf)) / jnp.sqrt(jnp.sum(weights**2))


def split(snapshot: Snapshot) -> Array:
    """The share of each environment in the first of two inferred ones (`algorithms.zin`); [E]."""
    check(snapshot, "split")
    measurement = snapshot.measurement
    if snapshot.split is None or measurement is None or measurement.risks is None:
        raise ValueError("metric split must see a run that infers environments (algorithms.zin)")
    assert measurement.risks.each is not None
    weights = measurement.risks.each(snapshot.data, snapshot.model, snapshot.world)[1]
    return jnp.sum(weights * snapshot.split, 1) / jnp.sum(weights, 1)


def errors_of_training(snapshot: Snapshot) -> Array:
    """The share of errors in the environments of the run's data, or of the population; [E]."""
    world, data = snapshot.world, snapshot.data
    rows = getattr(data, "rows", None)
    if rows is not None:
        return _row_errors(snapshot, rows)
    if isinstance(world, TableWorld):
        kept = getattr(data, "shares", None)
        shares = world.mass if kept is None else kept
        return _table_errors(snapshot, shares)
    return _rates_of(snapshot, "error_rates")


def wrong(snapshot: Snapshot, inputs: Array, labels: Array) -> Array:
    """1 for a wrong sign and 1/2 for none, or 1 for a wrong class, [...], at inputs [..., p]."""
    predictions = predictions_of(snapshot.model, snapshot.params, inputs)
    if predictions.ndim > labels.ndim:
        return (jnp.argmax(predictions, -1) != labels).astype(predictions.dtype)
    return (1 - jnp.sign(labels * predictions)) / 2


def mean_of_rows(values: Array, rows: Rows) -> Array:
    """The mean of values [E, n, ...] over the examples of each environment, [E, ...]."""
    used = jnp.arange(rows.labels.shape[1])[None] < rows.counts[:, None]
    extra = (1,) * (values.ndim - 2)
    total = jnp.sum(jnp.where(used.reshape(*used.shape, *extra), values, 0), 1)
    return total / rows.counts.reshape(-1, *extra)


def _row_errors(snapshot: Snapshot, rows: Rows) -> Array:
    """The share of errors among the examples of each environment, [E]."""
    return mean_of_rows(wrong(snapshot, rows.inputs, rows.labels), rows)


def _table_errors(snapshot: Snapshot, shares: Array) -> Array:
    world = snapshot.world
    errors = wrong(snapshot, world.inputs, world.labels)
    return linalg.product(shares, errors[:, None])[:, 0]


def errors_of_tests(snapshot: Snapshot) -> Array:
    """The share of wrong signs in the test environments, [T]."""
    world = snapshot.world
    if not world.test_moments.shape[0]:
        raise ValueError("world must have test environments for a test error, got none")
    rows = getattr(world, "test_rows", None)
    if rows is not None:
        return _row_errors(snapshot, rows)
    if isinstance(world, TableWorld):
        return _table_errors(snapshot, world.test_mass)
    return _rates_of(snapshot, "test_error_rates")


def _rates_of(snapshot: Snapshot, name: str) -> Array:
    """Rates in closed form of a prediction x'w + b."""
    rates = getattr(snapshot.world, name, None)
    if rates is None:
        raise ValueError(
            "world must know the errors of its population, as mixtures and tables do, or the "
            f"measurement must keep examples, for a share of errors; got "
            f"{type(snapshot.world).__name__}"
        )
    coefficients = snapshot.once(vector)
    return rates(coefficients[:-2], coefficients[-1])

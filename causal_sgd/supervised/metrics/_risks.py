"""Risks of the run's data and of the test."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.supervised._moments import Rows, quadratic
from causal_sgd.supervised.metrics._common import average, check, vector
from causal_sgd.supervised.metrics._errors import mean_of_rows
from causal_sgd.supervised.models._model import predictions_of
from causal_sgd.supervised.worlds import TableWorld
from causal_sgd.types import Array, RiskFunction, Snapshot

__all__ = [
    "environment_losses",
    "invariance_gap",
    "risk_spread",
    "test_losses",
    "test_risk",
    "training_risk",
    "validation_risk",
    "worst_test_risk",
]


def test_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual in a test environment, averaged over them; []."""
    check(snapshot, "test_risk")
    _check_squared(snapshot, "test_risk")
    return jnp.mean(snapshot.once(_test_risks))


def worst_test_risk(snapshot: Snapshot) -> Array:
    """The largest mean squared residual of a test environment; []."""
    check(snapshot, "worst_test_risk")
    _check_squared(snapshot, "worst_test_risk")
    return jnp.max(snapshot.once(_test_risks))


def environment_losses(snapshot: Snapshot) -> Array:
    """The risk R_e of every environment of the run's data; [E]."""
    check(snapshot, "environment_losses")
    return _risks(snapshot)(snapshot.params)


def test_losses(snapshot: Snapshot) -> Array:
    """The risk in every environment of the test, on the scale of `environment_losses`; [T].

    It needs a table or examples of the test (`worlds.from_arrays`, `worlds.from_draws`) and a
    measurement of examples or counts; under squared loss of a linear prediction moments are enough.
    """
    check(snapshot, "test_losses")
    measurement = snapshot.measurement
    world, rows = snapshot.world, getattr(snapshot.world, "test_rows", None)
    offered = None if measurement is None else measurement.risks
    if offered is None or offered.squared:
        return snapshot.once(_test_risks)
    if offered.loss is not None and rows is not None:
        predictions = predictions_of(snapshot.model, snapshot.params, rows.inputs)
        return mean_of_rows(offered.loss(predictions, rows.labels), rows)
    if offered.loss is not None and isinstance(world, TableWorld):
        predictions = predictions_of(snapshot.model, snapshot.params, world.inputs)
        losses = offered.loss(predictions, world.labels)
        return linalg.product(world.test_mass, losses[:, None])[:, 0]
    raise ValueError(
        "world must be a table or hold examples of the test for the metric test_losses, and the "
        f"measurement must be examples or counts, got {type(world).__name__} and "
        f"{getattr(measurement, 'name', 'none')}"
    )


def training_risk(snapshot: Snapshot) -> Array:
    """The risk R_e, averaged over the environments of the run's data; []."""
    check(snapshot, "training_risk")
    return average(snapshot, _risks(snapshot)(snapshot.params))


def validation_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual of examples that nothing trains on; []."""
    check(snapshot, "validation_risk")
    _check_squared(snapshot, "validation_risk")
    rows = getattr(snapshot.data, "validation_rows", None)
    if rows is not None and snapshot.model.predict is not None:
        return average(snapshot, _mean_squares(snapshot, rows))
    held_out = getattr(snapshot.data, "validation", None)
    if held_out is None:
        raise ValueError(
            "measurement must keep validation examples for the metric validation_risk, as "
            "measurements.moments(num_validation=...) does, or a user's data must hold out rows by "
            "worlds.from_arrays(validation_share=...)"
        )
    return average(snapshot, quadratic(held_out.second, snapshot.once(vector)))


def invariance_gap(snapshot: Snapshot) -> Array:
    """The average of D_e^2, where D_e = 2 E_e r f is the derivative of R_e in a factor of f; [].

    f is the prediction, and the factor is 1. It is the penalty of IRMv1 on the scale of R_e, for
    squared loss 16 times that of the losses R/4.
    """
    check(snapshot, "invariance_gap")
    one = jnp.ones((), snapshot.batch_loss.dtype)
    risks = _risks(snapshot)
    _, slopes = jax.jvp(lambda scale: risks(snapshot.params, scale), (one,), (one,))
    return average(snapshot, slopes**2)


def risk_spread(snapshot: Snapshot) -> Array:
    """The variance of R_e over the environments of the run's data; []."""
    check(snapshot, "risk_spread")
    risks = _risks(snapshot)(snapshot.params)
    return average(snapshot, (risks - average(snapshot, risks)) ** 2)


def _check_squared(snapshot: Snapshot, metric: str) -> None:
    """Refuse a mean squared residual in a run that is trained under another loss."""
    measurement = snapshot.measurement
    if measurement is None or measurement.risks is None or measurement.risks.squared:
        return
    other = metric.replace("risk", "error")
    raise ValueError(
        f"metric {metric} is a mean squared residual and must see a run under squared loss, got "
        f"{measurement.name} with another loss; use {other}"
    )


def _test_risks(snapshot: Snapshot) -> Array:
    """Mean squared residuals in the test environments, [T]."""
    second = snapshot.world.test_moments
    if not second.shape[0]:
        raise ValueError("world must have test environments for a test risk, got none")
    rows = getattr(snapshot.world, "test_rows", None)
    if rows is not None and snapshot.model.predict is not None:
        return _mean_squares(snapshot, rows)
    return quadratic(second, snapshot.once(vector))


def _mean_squares(snapshot: Snapshot, rows: Rows) -> Array:
    """The mean squared residuals of the rows of each environment."""
    predictions = predictions_of(snapshot.model, snapshot.params, rows.inputs)
    return mean_of_rows((predictions - rows.labels) ** 2, rows)


def _risks(snapshot: Snapshot) -> RiskFunction:
    """The risks of the run's data: mean squared residuals, or the losses where they are others."""
    assert snapshot.measurement is not None
    assert snapshot.measurement.risks is not None
    factor = 4.0 if snapshot.measurement.risks.squared else 1.0
    risks = snapshot.risks
    return lambda params, scale=1.0: factor * risks(params, scale)

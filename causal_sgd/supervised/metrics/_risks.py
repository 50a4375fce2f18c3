"""Risks of the run's data and of the test."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd.supervised._moments import quadratic
from causal_sgd.supervised.metrics._common import average, check, vector
from causal_sgd.types import Array, RiskFunction, Snapshot

__all__ = [
    "invariance_gap",
    "risk_spread",
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


def training_risk(snapshot: Snapshot) -> Array:
    """The risk R_e, averaged over the environments of the run's data; []."""
    check(snapshot, "training_risk")
    return average(snapshot, _risks(snapshot)(snapshot.params))


def validation_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual of examples that nothing trains on; []."""
    check(snapshot, "validation_risk")
    _check_squared(snapshot, "validation_risk")
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
    return quadratic(second, snapshot.once(vector))


def _risks(snapshot: Snapshot) -> RiskFunction:
    """The risks of the run's data: mean squared residuals, or the losses where they are others."""
    assert snapshot.measurement is not None
    assert snapshot.measurement.risks is not None
    factor = 4.0 if snapshot.measurement.risks.squared else 1.0
    risks = snapshot.risks
    return lambda params, scale=1.0: factor * risks(params, scale)

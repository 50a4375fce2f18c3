"""What is recorded of a run: functions of a snapshot that return a number or a small array.

Every member of `__all__` is a metric. Errors are in the original coordinates of the inputs, and NaN
where the world does not know its target. Risks are mean squared residuals, without the factor 1/4
of the losses that are trained; training under another loss they are its values. Means over
environments are weighted by the world's probabilities. Test risks are of the population; training
risks are of the run's own data.

What depends on the chosen inputs (`support` and so on) exists for estimators only: the weights of
an iterative method are never exactly zero, and a threshold would be one more parameter. A metric of
the user's own can have one: `estimators.within(metrics.gates(snapshot) > 0.9)` refits the inputs of
open gates, by `(snapshot.data, snapshot.world)`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.supervised._moments import Rows, quadratic, residual
from causal_sgd.supervised.models._model import predictions_of
from causal_sgd.supervised.worlds import TableWorld
from causal_sgd.types import Array, Fit, RiskFunction, Snapshot, check_snapshot, check_world

__all__ = [
    "accepted_sets",
    "batch_loss",
    "causal_error",
    "estimation_error",
    "exact_support",
    "failed",
    "gates",
    "interval_high",
    "interval_low",
    "invariance_gap",
    "noncausal_error",
    "risk_spread",
    "split",
    "spurious_selected",
    "spurious_weight",
    "support",
    "test_error",
    "test_errors",
    "test_risk",
    "training_error",
    "training_risk",
    "true_selected",
    "validation_error",
    "validation_risk",
    "weights",
    "worst_test_error",
    "worst_test_risk",
]

FAILURE = 0.2  # |w - w*|^2 beyond which a run has failed


def batch_loss(snapshot: Snapshot) -> Array:
    """Loss of the last batch, before the update; NaN at step 0; []."""
    check_snapshot(snapshot)
    return snapshot.batch_loss


# Weights and their errors


def weights(snapshot: Snapshot) -> Array:
    """The weights w of the inputs of the data; [p]."""
    _check(snapshot, "weights")
    return snapshot.estimate


def estimation_error(snapshot: Snapshot) -> Array:
    """|w - w*|^2; []."""
    _check(snapshot, "estimation_error")
    return jnp.sum((snapshot.estimate - snapshot.world.target) ** 2)


def failed(snapshot: Snapshot) -> Array:
    """1 if |w - w*|^2 > 0.2 or the estimate is not finite, else 0; []."""
    _check(snapshot, "failed")
    failure = ~(estimation_error(snapshot) <= FAILURE)
    return _judged(snapshot, failure)


def causal_error(snapshot: Snapshot) -> Array:
    """The mean of (w - w*)^2 over the causal inputs; 0 where there are none; []."""
    _check(snapshot, "causal_error")
    return _mean_square(snapshot, snapshot.world.causal)


def noncausal_error(snapshot: Snapshot) -> Array:
    """The mean of (w - w*)^2 over the inputs that are not causal; 0 where there are none; []."""
    _check(snapshot, "noncausal_error")
    return _mean_square(snapshot, ~snapshot.world.causal)


def gates(snapshot: Snapshot) -> Array:
    """The gates of the inputs of the data, without noise; of models with gates only; [p]."""
    _check(snapshot, "gates")
    if not hasattr(snapshot.model, "gates"):
        raise ValueError(
            "model must have gates for the metric gates, as models.gated has, got "
            f"{type(snapshot.model).__name__}"
        )
    return snapshot.model.gates(snapshot.params)


def spurious_weight(snapshot: Snapshot) -> Array:
    """The norm of the weights of the inputs that are not causal; []."""
    _check(snapshot, "spurious_weight")
    world = snapshot.world
    original = linalg.product(world.unscramble, snapshot.estimate[:, None])[:, 0]
    norm = jnp.sqrt(jnp.sum(jnp.where(world.causal, 0, original) ** 2))
    return norm + _unknown(snapshot)


# Risks


def test_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual in a test environment, averaged over them; []."""
    _check(snapshot, "test_risk")
    _check_squared(snapshot, "test_risk")
    return jnp.mean(snapshot.once(_test_risks))


def worst_test_risk(snapshot: Snapshot) -> Array:
    """The largest mean squared residual of a test environment; []."""
    _check(snapshot, "worst_test_risk")
    _check_squared(snapshot, "worst_test_risk")
    return jnp.max(snapshot.once(_test_risks))


def training_risk(snapshot: Snapshot) -> Array:
    """The risk R_e, averaged over the environments of the run's data; []."""
    _check(snapshot, "training_risk")
    return _average(snapshot, _risks(snapshot)(snapshot.params))


def validation_risk(snapshot: Snapshot) -> Array:
    """The mean squared residual of examples that nothing trains on; []."""
    _check(snapshot, "validation_risk")
    _check_squared(snapshot, "validation_risk")
    held_out = getattr(snapshot.data, "validation", None)
    if held_out is None:
        raise ValueError(
            "measurement must keep validation examples for the metric validation_risk, as "
            "measurements.moments(num_validation=...) does, or a user's data must hold out rows by "
            "worlds.from_arrays(validation_share=...)"
        )
    return _average(snapshot, quadratic(held_out.second, snapshot.once(_vector)))


def invariance_gap(snapshot: Snapshot) -> Array:
    """The average of D_e^2, where D_e = 2 E_e r f is the derivative of R_e in a factor of f; [].

    f is the prediction, and the factor is 1. It is the penalty of IRMv1 on the scale of R_e, for
    squared loss 16 times that of the losses R/4.
    """
    _check(snapshot, "invariance_gap")
    one = jnp.ones((), snapshot.estimate.dtype)
    risks = _risks(snapshot)
    _, slopes = jax.jvp(lambda scale: risks(snapshot.params, scale), (one,), (one,))
    return _average(snapshot, slopes**2)


def risk_spread(snapshot: Snapshot) -> Array:
    """The variance of R_e over the environments of the run's data; []."""
    _check(snapshot, "risk_spread")
    risks = _risks(snapshot)(snapshot.params)
    return _average(snapshot, (risks - _average(snapshot, risks)) ** 2)


# Classification


def training_error(snapshot: Snapshot) -> Array:
    """The share of labels with another sign than the prediction, averaged over environments; [].

    Of the run's data where it keeps examples, and of the population otherwise. A prediction of
    zero counts one half. Labels are -1 and 1, or the classes of a model with an output of each.
    """
    _check(snapshot, "training_error")
    world, data = snapshot.world, snapshot.data
    rows = getattr(data, "rows", None)
    if rows is not None:
        return _average(snapshot, _row_errors(snapshot, rows))
    if isinstance(world, TableWorld):
        kept = getattr(data, "shares", None)
        shares = world.mass if kept is None else kept
        return _average(snapshot, _table_errors(snapshot, shares))
    return _average(snapshot, _rates_of(snapshot, "error_rates"))


def validation_error(snapshot: Snapshot) -> Array:
    """The share of wrong signs among examples that nothing trains on; []."""
    _check(snapshot, "validation_error")
    rows = getattr(snapshot.data, "validation_rows", None)
    if rows is not None:
        return _average(snapshot, _row_errors(snapshot, rows))
    shares = getattr(snapshot.data, "validation_shares", None)
    if shares is None:
        raise ValueError(
            "measurement must keep validation examples for the metric validation_error, as "
            "measurements.counts(num_validation=...) does"
        )
    return _average(snapshot, _table_errors(snapshot, shares))


def test_errors(snapshot: Snapshot) -> Array:
    """The share of wrong signs in every test environment; [T]."""
    _check(snapshot, "test_errors")
    return snapshot.once(_test_errors)


def test_error(snapshot: Snapshot) -> Array:
    """The share of wrong signs in a test environment, averaged over them; []."""
    _check(snapshot, "test_error")
    return jnp.mean(snapshot.once(_test_errors))


def worst_test_error(snapshot: Snapshot) -> Array:
    """The largest share of wrong signs in a test environment; []."""
    _check(snapshot, "worst_test_error")
    return jnp.max(snapshot.once(_test_errors))


def split(snapshot: Snapshot) -> Array:
    """The share of each environment in the first of two inferred ones (`algorithms.zin`); [E]."""
    _check(snapshot, "split")
    measurement = snapshot.measurement
    if snapshot.split is None or measurement is None or measurement.risks is None:
        raise ValueError("metric split must see a run that infers environments (algorithms.zin)")
    assert measurement.risks.each is not None
    weights = measurement.risks.each(snapshot.data, snapshot.model, snapshot.world)[1]
    return jnp.sum(weights * snapshot.split, 1) / jnp.sum(weights, 1)


# Estimators


def support(snapshot: Snapshot) -> Array:
    """1 for each chosen input, else 0; of estimators only; [p]."""
    _check(snapshot, "support")
    fit = _fit(snapshot, "support")
    return fit.support.astype(fit.estimate.dtype)


def true_selected(snapshot: Snapshot) -> Array:
    """The number of causal inputs that are chosen; of estimators only; []."""
    _check(snapshot, "true_selected")
    chosen = _fit(snapshot, "true_selected").support
    return _judged(snapshot, jnp.sum(chosen & snapshot.world.causal), axes=True)


def spurious_selected(snapshot: Snapshot) -> Array:
    """The number of chosen inputs that are not causal; of estimators only; []."""
    _check(snapshot, "spurious_selected")
    chosen = _fit(snapshot, "spurious_selected").support
    return _judged(snapshot, jnp.sum(chosen & ~snapshot.world.causal), axes=True)


def exact_support(snapshot: Snapshot) -> Array:
    """1 if the chosen inputs are the causal ones, else 0; of estimators only; []."""
    _check(snapshot, "exact_support")
    chosen = _fit(snapshot, "exact_support").support
    return _judged(snapshot, jnp.all(chosen == snapshot.world.causal), axes=True)


def accepted_sets(snapshot: Snapshot) -> Array:
    """The number of sets that a test accepted, -1 where none is tested; of estimators only; []."""
    _check(snapshot, "accepted_sets")
    return _fit(snapshot, "accepted_sets").accepted


def interval_low(snapshot: Snapshot) -> Array:
    """Lower ends of the confidence intervals, NaN where there are none; of estimators only; [p]."""
    _check(snapshot, "interval_low")
    return _fit(snapshot, "interval_low").low


def interval_high(snapshot: Snapshot) -> Array:
    """Upper ends of the confidence intervals, NaN where there are none; of estimators only; [p]."""
    _check(snapshot, "interval_high")
    return _fit(snapshot, "interval_high").high


def _check(snapshot: Snapshot, metric: str) -> None:
    """Refuse what is no snapshot, or one of another system's run."""
    check_world(snapshot, metric, member="unscramble", system="supervised")


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


def _unknown(snapshot: Snapshot) -> Array:
    """Zero, or NaN where the world does not know its target, nor which inputs are causal; []."""
    return 0 * jnp.sum(snapshot.world.target)


def _judged(snapshot: Snapshot, value: Array, *, axes: bool = False) -> Array:
    """A truth value or number as a float; NaN where it means nothing.

    With `axes` it compares the inputs of the data with the original ones, which a scramble mixes.
    """
    result = value.astype(snapshot.estimate.dtype) + _unknown(snapshot)
    if not axes:
        return result
    unscramble = snapshot.world.unscramble
    moved = jnp.abs(unscramble - jnp.eye(unscramble.shape[0], dtype=unscramble.dtype))
    return jnp.where(jnp.max(moved) < 1e-6, result, jnp.nan)


def _mean_square(snapshot: Snapshot, chosen: Array) -> Array:
    """The mean of the squared errors over chosen original inputs [p]; []."""
    errors = snapshot.once(_errors)
    total = jnp.sum(jnp.where(chosen, errors, 0) ** 2)
    return total / jnp.maximum(jnp.sum(chosen), 1).astype(errors.dtype) + _unknown(snapshot)


def _errors(snapshot: Snapshot) -> Array:
    """The errors of the weights in the original coordinates, [p]."""
    difference = snapshot.estimate - snapshot.world.target
    return linalg.product(snapshot.world.unscramble, difference[:, None])[:, 0]


def _vector(snapshot: Snapshot) -> Array:
    """The vector v [q] of the residual z'v."""
    model = snapshot.model
    if model.predict is not None:
        raise ValueError(
            "model must predict linearly from its inputs for risks from moments, got one with a "
            "predict of its own"
        )
    intercept = getattr(model, "intercept", None)
    return residual(snapshot.estimate, 0.0 if intercept is None else intercept(snapshot.params))


def _test_risks(snapshot: Snapshot) -> Array:
    """Mean squared residuals in the test environments, [T]."""
    second = snapshot.world.test_moments
    if not second.shape[0]:
        raise ValueError("world must have test environments for a test risk, got none")
    return quadratic(second, snapshot.once(_vector))


def _risks(snapshot: Snapshot) -> RiskFunction:
    """The risks of the run's data: mean squared residuals, or the losses where they are others."""
    assert snapshot.measurement is not None
    assert snapshot.measurement.risks is not None
    factor = 4.0 if snapshot.measurement.risks.squared else 1.0
    risks = snapshot.risks
    return lambda params, scale=1.0: factor * risks(params, scale)


def _wrong(snapshot: Snapshot, inputs: Array, labels: Array) -> Array:
    """1 for a wrong sign and 1/2 for none, or 1 for a wrong class, [...], at inputs [..., p]."""
    predictions = predictions_of(snapshot.model, snapshot.params, inputs)
    if predictions.ndim > labels.ndim:
        return (jnp.argmax(predictions, -1) != labels).astype(predictions.dtype)
    return (1 - jnp.sign(labels * predictions)) / 2


def _row_errors(snapshot: Snapshot, rows: Rows) -> Array:
    """The share of errors among the examples of each environment, [E]."""
    used = jnp.arange(rows.labels.shape[1])[None] < rows.counts[:, None]
    wrong = _wrong(snapshot, rows.inputs, rows.labels)
    return jnp.sum(jnp.where(used, wrong, 0), 1) / rows.counts


def _table_errors(snapshot: Snapshot, shares: Array) -> Array:
    world = snapshot.world
    wrong = _wrong(snapshot, world.inputs, world.labels)
    return linalg.product(shares, wrong[:, None])[:, 0]


def _test_errors(snapshot: Snapshot) -> Array:
    """The share of wrong signs in the test environments, [T]."""
    world = snapshot.world
    if not world.test_moments.shape[0]:
        raise ValueError("world must have test environments for a test error, got none")
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
    vector = snapshot.once(_vector)
    return rates(vector[:-2], vector[-1])


def _average(snapshot: Snapshot, values: Array) -> Array:
    return jnp.sum(snapshot.world.probabilities.astype(values.dtype) * values)


def _fit(snapshot: Snapshot, metric: str) -> Fit:
    if not isinstance(snapshot.params, Fit):
        raise ValueError(
            f"metric {metric} must see the fit of an estimator (algorithms.fitted), got "
            f"parameters of {type(snapshot.params).__name__}"
        )
    return snapshot.params

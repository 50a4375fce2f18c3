"""Shares of wrong signs: exact values, tables, drawn rows; and what metrics refuse."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from causal_sgd import sensing, training
from causal_sgd.supervised import estimators, losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.types import Snapshot
from support.supervised import OF_INTERVENTIONS, draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def seen(
    factory: Any,
    weights: Any,
    intercept: float = 0.0,
    measurement: Any = None,
    *,
    world: Any = None,
) -> Snapshot:
    """A snapshot at given parameters."""
    if measurement is None:
        measurement = measurements.quadrature()
    nature = draw_world(factory) if world is None else world
    weights = jnp.asarray(weights, float)
    return Snapshot(
        step=jnp.asarray(1),
        params={"weights": weights, "intercept": jnp.asarray(intercept, float)},
        world=nature,
        batch_loss=jnp.asarray(0.5),
        model=models.linear(dim=len(weights), intercept=True),
        measurement=measurement,
        data=jax.jit(lambda: measurement.init(jax.random.key(3), nature))(),
    )


def values(snapshot: Snapshot, *names: str) -> dict[str, np.ndarray]:
    """Metrics in one program."""
    return jax.device_get(jax.jit(lambda: {n: getattr(metrics, n)(snapshot) for n in names})())


NAMES = ("test_error", "worst_test_error", "test_errors", "training_error")


@pytest.mark.parametrize("scramble", [False, True])
def test_the_background_tells_nothing_of_the_cows_of_the_test(scramble: bool) -> None:
    """Of a classifier of the background alone: s (1 - b) + (1 - s) b with b = P(background 1)."""
    nature = draw_world(worlds.unit_test_cows(scramble=scramble))
    original = jnp.concatenate([jnp.zeros(5), jnp.array([1.0, 0.5, 2.0, 1.5, 1.0])])
    weights = nature.unscramble.T @ original
    found = values(seen(None, weights, world=nature), *NAMES)
    agree, share = np.array([0.95, 0.97, 0.99]), np.array([0.3, 0.5, 0.7])
    background = agree * share + (1 - agree) * (1 - share)
    expected = share * (1 - background) + (1 - share) * background
    np.testing.assert_allclose(found["test_errors"], expected, atol=2e-6)
    np.testing.assert_allclose(found["test_error"], expected.mean(), atol=2e-6)
    np.testing.assert_allclose(found["worst_test_error"], expected.max(), atol=2e-6)
    np.testing.assert_allclose(found["training_error"], np.mean(1 - agree), atol=2e-6)


@pytest.mark.parametrize("scramble", [False, True])
def test_the_oracle_of_small_margins_errs_as_far_as_its_noise(scramble: bool) -> None:
    """Phi(-sqrt(5)): five inputs with means and deviations of 0.1."""
    nature = draw_world(worlds.unit_test_margin(scramble=scramble))
    found = values(seen(None, nature.target, world=nature), *NAMES)
    for name in NAMES:
        np.testing.assert_allclose(found[name], norm.cdf(-(5**0.5)), rtol=2e-5)


def test_errors_of_tables_count_atoms() -> None:
    """A vote of both bits is a tie, one half, where they differ."""
    flips = (0.2, 0.3)
    factory = worlds.two_bit(invariant_flip=0.1, spurious_flips=flips, test_flips=(0.9, 0.5))
    measurement = measurements.counts(num_examples=50, num_validation=70)
    snapshot = seen(factory, [1.0, 1.0], 0.0, measurement)
    found = values(snapshot, *NAMES, "validation_error")

    def vote(flip: float) -> float:
        return 0.1 * flip + (0.1 * (1 - flip) + 0.9 * flip) / 2

    np.testing.assert_allclose(found["test_errors"], [vote(0.9), vote(0.5)], rtol=1e-5)
    world, data = snapshot.world, snapshot.data
    x, y = np.asarray(world.inputs), np.asarray(world.labels)
    wrong = (1 - np.sign(y * x.sum(1))) / 2
    for name, shares in (
        ("training_error", data.shares),
        ("validation_error", data.validation_shares),
    ):
        assert np.abs(np.asarray(shares) - np.asarray(world.mass)).max() > 0
        np.testing.assert_allclose(found[name], (np.asarray(shares) @ wrong).mean(), rtol=1e-5)
    # A fit is judged like a model.
    algorithm = algorithms.fitted(
        world=factory, measurement=measurements.moments(), estimator=estimators.pooled()
    )

    @jax.jit
    def fitted(key: jax.Array) -> jax.Array:
        state = algorithm.step(key, algorithm.init(key))
        return metrics.training_error(algorithm.snapshot(key, state))

    np.testing.assert_allclose(fitted(jax.random.key(0)), 0.1, rtol=1e-5)


def test_errors_of_a_data_set_are_those_of_its_rows() -> None:
    factory = worlds.balancing(dim_noise=3, num_examples=30)
    weights = np.array([-0.4, -1.0, 0.3, -0.2, 0.1])
    snapshot = seen(factory, weights, 0.2, measurements.examples())
    rows, world = snapshot.data.rows, snapshot.world
    np.testing.assert_array_equal(rows.counts, [12, 12, 3, 3])
    errors = []
    for x, y, size in zip(*map(np.asarray, rows), strict=True):
        errors.append(np.mean(np.sign(x[: int(size)] @ weights + 0.2) != y[: int(size)]))
    assert 0.05 < np.dot(world.probabilities, errors) < 0.5
    found = values(snapshot, "training_error", "worst_test_error")
    np.testing.assert_allclose(
        found["training_error"], np.dot(world.probabilities, errors), rtol=1e-5
    )
    # The noise is zero in the test, where the minority follows the spurious input.
    center = np.array([0.4 - 4, 0.4 - 4]) + np.array([0.2, -0.2])
    expected = norm.cdf(-center / (0.15 * np.hypot(0.4, 4))).max()
    np.testing.assert_allclose(found["worst_test_error"], expected, rtol=1e-5)


def test_margins_are_those_of_the_closest_example() -> None:
    """Of rows in groups of different sizes, and of a table, against plain loops."""
    weights, shift = np.array([0.7, -0.4]), 0.3
    points = np.array([[[1.0, 5.0], [3.0, 1.0]], [[1.0, -3.0], [2.5, -2.0]]])
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    table = seen(
        worlds.separable(points, shares=shares),
        weights,
        shift,
        measurements.counts(losses.logistic),
    )
    kept = points.reshape(-1, 2)[[0, 2, 3]]
    sides = np.concatenate([kept @ weights + shift, kept @ weights - shift])  # of both labels
    margin = values(table, "margin")["margin"]
    np.testing.assert_allclose(margin, sides.min() / np.hypot(*weights), rtol=1e-5)
    bits = worlds.gaussian_environments(dim_causal=1, dim_spurious=1)
    rows = seen(bits, weights, shift, measurements.examples((9, 4, 6), loss=losses.logistic))
    closest = np.inf
    for e, size in enumerate((9, 4, 6)):
        x, y = (np.asarray(v[e, :size], float) for v in (rows.data.rows[0], rows.data.rows[1]))
        closest = min(closest, (y * (x @ weights + shift)).min())
    margin = values(rows, "margin")["margin"]
    np.testing.assert_allclose(margin, closest / np.hypot(*weights), rtol=1e-5)
    with pytest.raises(ValueError, match="measurement must keep examples for the metric margin"):
        metrics.margin(seen(bits, weights))


def test_squared_residuals_are_refused_under_other_losses() -> None:
    names = ("test_risk", "worst_test_risk", "validation_risk")
    cases = (
        (worlds.gaussian_environments(dim_causal=1, dim_spurious=1), measurements.quadrature()),
        (worlds.two_bit(), measurements.counts(num_examples=9, num_validation=9)),
    )
    for factory, measurement in cases:
        snapshot = seen(factory, [1.0, 1.0], 0.0, measurement)
        for name in names:
            words = f"^metric {name} is a mean squared residual .* got {measurement.name} with"
            with pytest.raises(ValueError, match=words):
                getattr(metrics, name)(snapshot)
    squared = measurements.counts(losses.squared, num_examples=9, num_validation=9)
    found = values(seen(worlds.two_bit(), [1.0, 1.0], 0.0, squared), *names)
    assert np.isfinite([found[name] for name in names]).all()


def test_risks_of_training_are_those_of_the_loss() -> None:
    flip, weights = 0.2, np.array([0.5, -0.3])
    factory = worlds.two_bit(invariant_flip=0.1, spurious_flips=[flip])
    snapshot = seen(factory, weights, 0.1, measurements.counts())
    world = snapshot.world
    y, f = np.asarray(world.labels, float), np.asarray(world.inputs, float) @ weights + 0.1
    mass = np.asarray(world.mass[0], float)
    found = values(snapshot, "training_risk", "invariance_gap", "risk_spread")
    np.testing.assert_allclose(found["training_risk"], mass @ np.log1p(np.exp(-y * f)), rtol=1e-5)
    slope = mass @ (-y * f / (1 + np.exp(y * f)))
    np.testing.assert_allclose(found["invariance_gap"], slope**2, rtol=1e-4)
    np.testing.assert_allclose(found["risk_spread"], 0, atol=1e-6)


def of_sensing() -> Snapshot:
    """A snapshot of the other system, of which the kind of its world is all that is looked at."""
    world = sensing.worlds.World(*[jnp.zeros(1)] * len(sensing.worlds.World._fields))
    return Snapshot(jnp.asarray(1), jnp.zeros(1), world, jnp.asarray(0.5), None)


OF_ANY_SYSTEM = {"batch_loss", "training_loss", "gradient_norm"}


def test_metrics_name_a_world_of_another_system() -> None:
    labelled = seen(worlds.two_bit(), [1.0, 1.0], 0.0, measurements.counts())
    for room, system, snapshot, kind in (
        (metrics, "supervised", of_sensing(), "causal_sgd.sensing.worlds.World"),
        (sensing.metrics, "sensing", labelled, "causal_sgd.supervised.worlds.TableWorld"),
    ):
        for name in set(room.__all__) - OF_INTERVENTIONS:
            if name in OF_ANY_SYSTEM:
                assert np.ndim(getattr(room, name)(snapshot)) == 0
                continue
            words = f"^metric {name} must see a run in a world of causal_sgd.{system}, got one in "
            with pytest.raises(ValueError, match=words + kind):
                getattr(room, name)(snapshot)


def test_what_a_run_of_classification_lacks_is_refused_by_name() -> None:
    table = seen(worlds.two_bit(), [1.0, 1.0], 0.0, measurements.counts())
    with pytest.raises(ValueError, match="^measurement must keep validation examples"):
        metrics.validation_error(table)
    mixture = draw_world(worlds.gaussian_environments(dim_causal=1, dim_spurious=1))
    untested = mixture._replace(
        test_weights=mixture.test_weights[:0], test_means=mixture.test_means[:0]
    )
    for metric in (metrics.test_error, metrics.test_errors, metrics.worst_test_error):
        with pytest.raises(ValueError, match="^world must have test environments"):
            metric(seen(None, [1.0, 1.0], world=untested))
    regression = seen(worlds.contradiction(), [1.0, 1.0], 0.0, measurements.moments())
    with pytest.raises(ValueError, match="^world must know the errors of its population"):
        metrics.training_error(regression)


def test_errors_are_recorded_in_runs() -> None:
    algorithm = algorithms.sgd(
        world=worlds.gaussian_environments(dim_causal=2, dim_spurious=2, num_environments=2),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.quadrature(),
        model=models.linear(dim=4),
        optimizer=optax.sgd(0.5),
    )
    watched = [metrics.training_error, metrics.test_errors, metrics.weights]

    @jax.jit
    def last(key: jax.Array) -> Any:
        trace = training.run(key, algorithm=algorithm, metrics=watched, num_steps=5)
        return trace.metrics, algorithm.init(key).world

    recorded, world = last(jax.random.key(0))
    assert recorded["training_error"][0] == 0.5  # of no prediction
    w = np.asarray(recorded["weights"][-1], float)
    means = np.asarray(world.test_means, float)[:, 0]
    np.testing.assert_allclose(
        recorded["test_errors"][-1], norm.cdf(-(means @ w) / np.linalg.norm(w)), rtol=1e-4
    )

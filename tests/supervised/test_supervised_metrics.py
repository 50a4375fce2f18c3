"""Metrics of regression against NumPy: formulas from moments, and averages over drawn examples."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import training
from causal_sgd.supervised import estimators, measurements, metrics, models
from causal_sgd.supervised.worlds import LinearWorld
from causal_sgd.training import algorithms, objectives, samplers
from causal_sgd.types import Fit, Snapshot
from support.supervised import OF_INTERVENTIONS

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DIM, ENVIRONMENTS, TESTS = 3, 2, 4
PARAMS = {"weights": np.array([0.4, -0.3, 0.8]), "intercept": np.array(0.35)}
VECTOR = np.array([0.4, -0.3, 0.8, -1, 0.35])  # of the residual, on (x, y, 1)


def rotation() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(1).standard_normal((DIM, DIM)))[0]


def world(key: jax.Array | None = None, *, scrambled: bool = True, known: bool = True) -> Any:
    """Environments with means and unequal probabilities, and more of them for the test."""
    del key
    rng = np.random.default_rng(0)
    target = np.array([1.0, -0.5, 0.0])
    unscramble = rotation() if scrambled else np.eye(DIM)
    drawn = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in {
            "mixing": (ENVIRONMENTS, DIM + 1, 5),
            "means": (ENVIRONMENTS, DIM + 1),
            "test_mixing": (TESTS, DIM + 1, 5),
            "test_means": (TESTS, DIM + 1),
        }.items()
    }
    return LinearWorld(
        **{name: jnp.asarray(value, float) for name, value in drawn.items()},
        target=jnp.asarray(unscramble.T @ target if known else np.full(DIM, np.nan), float),
        causal=jnp.array([True, True, False]),
        unscramble=jnp.asarray(unscramble, float),
        probabilities=jnp.array([0.3, 0.7]),
    )


@functools.cache
def measured(num_examples: int | None, num_validation: int | None) -> tuple[Any, Any]:
    """A measurement and its data, which do not depend on the options of the world."""
    measurement = measurements.moments(num_examples, num_validation=num_validation)
    return measurement, jax.jit(measurement.init)(jax.random.key(3), world())


def snapshot(
    *,
    nature: Any = None,
    params: Any = None,
    model: Any = None,
    num_examples: int | None = 200,
    num_validation: int | None = 90,
) -> Snapshot:
    measurement, data = measured(num_examples, num_validation)
    return Snapshot(
        step=jnp.asarray(1),
        params=jax.tree.map(jnp.asarray, PARAMS) if params is None else params,
        world=world() if nature is None else nature,
        batch_loss=jnp.asarray(2.5),
        model=model or models.linear(dim=DIM, intercept=True),
        measurement=measurement,
        data=data,
    )


def moments_of(mixing: Any, means: Any) -> np.ndarray:
    """E z z' with z = (x, y, 1), of every environment, in a plain loop."""
    result = []
    for loading, mean in zip(np.asarray(mixing, float), np.asarray(means, float), strict=True):
        second = np.ones((len(mean) + 1,) * 2)
        second[:-1, :-1] = loading @ loading.T + np.outer(mean, mean)
        second[-1, :-1] = second[:-1, -1] = mean
        result.append(second)
    return np.array(result)


def risks_of(second: np.ndarray, vector: np.ndarray = VECTOR) -> np.ndarray:
    return np.array([vector @ each @ vector for each in np.asarray(second, float)])


def value(name: str, seen: Snapshot) -> np.ndarray:
    return np.asarray(getattr(metrics, name)(seen))


def check(seen: Snapshot, expected: dict[str, Any]) -> None:
    """Compare metrics, which are evaluated in one program, with numbers."""
    found = jax.jit(lambda: {name: getattr(metrics, name)(seen) for name in expected})()
    for name, number in expected.items():
        np.testing.assert_allclose(found[name], number, rtol=1e-5, err_msg=name)


def test_errors_are_measured_in_the_original_coordinates() -> None:
    seen = snapshot()
    weights = rotation() @ PARAMS["weights"]
    error = weights - [1.0, -0.5, 0.0]
    expected = {
        "causal_error": (error[0] ** 2 + error[1] ** 2) / 2,
        "noncausal_error": error[2] ** 2,
        "estimation_error": np.sum(error**2),
        "spurious_weight": abs(weights[2]),
        "batch_loss": 2.5,
    }
    check(seen, expected)


def test_risks_are_mean_squared_residuals_from_moments() -> None:
    seen = snapshot()
    probabilities, nature = np.array([0.3, 0.7]), seen.world
    tests = risks_of(moments_of(nature.test_mixing, nature.test_means))
    training = risks_of(seen.data.training.second)
    second = np.asarray(seen.data.training.second, float)
    prediction = VECTOR + np.array([0, 0, 0, 1, 0])
    slopes = np.array([2 * VECTOR @ each @ prediction for each in second])
    mean = probabilities @ training
    expected = {
        "test_risk": tests.mean(),
        "worst_test_risk": tests.max(),
        "training_risk": mean,
        "validation_risk": probabilities @ risks_of(seen.data.validation.second),
        "risk_spread": probabilities @ (training - mean) ** 2,
        "invariance_gap": probabilities @ slopes**2,
    }
    check(seen, expected)


@pytest.mark.slow
def test_population_risks_are_averages_over_drawn_examples() -> None:
    """Within 4.5 standard errors of 10^6 examples of each environment."""
    seen, size = snapshot(num_examples=None), 10**6
    nature = seen.world
    as_training = nature._replace(mixing=nature.test_mixing, means=nature.test_means)

    def residuals(source: Any, environment: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = source.draw_examples(jax.random.key(environment), jnp.asarray(environment), size)
        prediction = np.asarray(x, float) @ PARAMS["weights"] + PARAMS["intercept"]
        return prediction - np.asarray(y, float), prediction

    squares = np.array([residuals(as_training, e)[0] ** 2 for e in range(TESTS)])
    error = np.sqrt(np.sum(squares.var(1)) / size) / TESTS
    assert abs(value("test_risk", seen) - squares.mean()) < 4.5 * error
    worst = squares.mean(1).argmax()
    error = squares[worst].std() / np.sqrt(size)
    assert abs(value("worst_test_risk", seen) - squares[worst].mean()) < 4.5 * error
    gap, error = 0.0, 0.0
    for e, probability in enumerate((0.3, 0.7)):
        r, f = residuals(nature, e)
        slope = np.mean(2 * r * f)
        gap += probability * slope**2
        error += probability * 2 * abs(slope) * (2 * r * f).std() / np.sqrt(size)
    assert abs(value("invariance_gap", seen) - gap) < 4.5 * error


def test_the_gap_is_sixteen_times_the_penalty_of_the_losses() -> None:
    seen = snapshot()

    def loss(scale: Any) -> Any:
        return seen.risks(seen.params, scale)

    slopes = jax.jacfwd(loss)(1.0)
    penalty = jnp.sum(seen.world.probabilities * slopes**2)
    np.testing.assert_allclose(value("invariance_gap", seen), 16 * penalty, rtol=1e-5)


def fit(estimate: Any, support: Any, accepted: int = 4) -> Fit:
    estimate = jnp.asarray(estimate, float)
    return Fit(estimate, jnp.asarray(support), estimate - 1, estimate + 1, jnp.asarray(accepted))


def fitted_snapshot(params: Fit, **options: Any) -> Snapshot:
    model = SimpleNamespace(estimate=lambda fit: fit.estimate, predict=None, intercept=None)
    return snapshot(nature=world(**options), params=params, model=model)


@pytest.mark.parametrize(
    ("support", "true", "spurious", "exact"),
    [
        ([True, True, False], 2, 0, 1),
        ([True, False, True], 1, 1, 0),
        ([True, True, True], 2, 1, 0),
        ([False, False, False], 0, 0, 0),
    ],
)
def test_chosen_inputs_are_counted(
    support: list[bool], true: int, spurious: int, exact: int
) -> None:
    seen = fitted_snapshot(fit([1.0, -0.5, 0.1], support), scrambled=False)
    assert value("true_selected", seen) == true
    assert value("spurious_selected", seen) == spurious
    assert value("exact_support", seen) == exact
    np.testing.assert_array_equal(value("support", seen), np.array(support, float))
    assert value("accepted_sets", seen) == 4
    np.testing.assert_allclose(value("interval_low", seen), [0, -1.5, -0.9], rtol=1e-6)
    np.testing.assert_allclose(value("interval_high", seen), [2, 0.5, 1.1], rtol=1e-6)


def test_choices_are_not_judged_where_a_scramble_mixes_the_inputs() -> None:
    seen = fitted_snapshot(fit([1.0, -0.5, 0.1], [True, True, False]))
    for name in ("true_selected", "spurious_selected", "exact_support"):
        assert np.isnan(value(name, seen)), name


def test_nothing_is_judged_where_the_target_is_unknown() -> None:
    seen = fitted_snapshot(fit([1.0, 0, 0], [True, True, True]), scrambled=False, known=False)
    judged = ("failed", "causal_error", "noncausal_error", "estimation_error", "spurious_weight")
    judged = (*judged, "support_error")
    for name in (*judged, "true_selected", "spurious_selected", "exact_support"):
        assert np.isnan(value(name, seen)), name
    assert np.isfinite(value("training_risk", seen))


def test_a_run_fails_beyond_its_threshold_or_without_an_estimate() -> None:
    for first, failure in ((1 + 0.44, 0), (1 + 0.46, 1), (np.nan, 1), (np.inf, 1)):
        seen = fitted_snapshot(fit([first, -0.5, 0.0], [True] * 3), scrambled=False)
        assert value("failed", seen) == failure, first


@pytest.mark.parametrize(
    ("weights", "wrong"),
    # Beyond half of 0.5, the smallest weight of the target (1, -0.5, 0), an input counts as kept.
    [((0.3, 0.3, 0.2), 0), ((0.2, -0.3, 0.2), 1), ((0.2, 0.2, -0.3), 3), ((np.nan, 1, 0), np.nan)],
)
def test_supports_are_compared_at_half_of_the_smallest_weight(weights: Any, wrong: float) -> None:
    seen = fitted_snapshot(fit(weights, [True] * 3), scrambled=False)
    np.testing.assert_array_equal(value("support_error", seen), wrong)
    np.testing.assert_allclose(value("l1_norm", seen), np.abs(weights).sum(), rtol=1e-6)
    scrambled = fitted_snapshot(fit(weights, [True] * 3))
    assert np.isnan(value("support_error", scrambled))


ESTIMATORS_ONLY = (
    *("support", "true_selected", "spurious_selected", "exact_support"),
    *("accepted_sets", "interval_low", "interval_high"),
)


@pytest.mark.parametrize("name", ESTIMATORS_ONLY)
def test_iterative_models_choose_no_inputs(name: str) -> None:
    with pytest.raises(ValueError, match=f"^metric {name} must see the fit of an estimator"):
        value(name, snapshot())


def test_what_a_run_lacks_is_refused_by_name() -> None:
    without = snapshot(num_validation=None)
    with pytest.raises(ValueError, match="^measurement must keep validation examples"):
        metrics.validation_risk(without)
    nature = world()
    untested = snapshot(
        nature=nature._replace(test_mixing=nature.test_mixing[:0], test_means=nature.test_means[:0])
    )
    for metric in (metrics.test_risk, metrics.worst_test_risk):
        with pytest.raises(ValueError, match="^world must have test environments"):
            metric(untested)
    curved = SimpleNamespace(estimate=lambda params: params["weights"], predict=lambda *_: 0)
    with pytest.raises(ValueError, match="^model must predict linearly"):
        metrics.test_risk(snapshot(model=curved))
    for name in set(metrics.__all__) - OF_INTERVENTIONS:
        with pytest.raises(ValueError, match="^snapshot must be a Snapshot"):
            getattr(metrics, name)({"weights": 1})


def test_metrics_of_runs_in_one_program() -> None:
    """Of an iterative method and of a fit, against NumPy from the population's moments."""
    watched = [metrics.test_risk, metrics.risk_spread, metrics.training_risk]
    parts: dict[str, Any] = {
        "world": functools.partial(world, scrambled=False),
        "measurement": measurements.moments(),
    }
    iterative = algorithms.penalised(
        **parts,
        sampler=samplers.stratified(batch_size=2),
        model=models.linear(dim=DIM, init_scale=0.5),
        optimizer=optax.sgd(0.01),
        objective=objectives.mean(),
    )
    one_step = algorithms.fitted(**parts, estimator=estimators.pooled())
    nature = world(scrambled=False)
    training_moments = moments_of(nature.mixing, nature.means)
    test_moments = moments_of(nature.test_mixing, nature.test_means)
    for algorithm in (iterative, one_step):

        def last(key: jax.Array, algorithm: Any = algorithm) -> Any:
            trace = training.run(
                key,
                algorithm=algorithm,
                metrics=[*watched, weights_of],
                num_steps=1,
            )
            return jax.tree.map(lambda values: values[-1], trace.metrics)

        seen = jax.jit(jax.vmap(last))(jax.random.split(jax.random.key(0), 3))
        for lane in range(3):
            vector = np.append(np.asarray(seen["weights_of"][lane], float), [-1, 0])
            risks = risks_of(training_moments, vector)
            mean = np.array([0.3, 0.7]) @ risks
            spread = np.array([0.3, 0.7]) @ (risks - mean) ** 2
            expected = risks_of(test_moments, vector).mean(), spread, mean
            for metric, number in zip(watched, expected, strict=True):
                found = seen[metric.__name__][lane]
                np.testing.assert_allclose(found, number, rtol=2e-5)


def weights_of(seen: Snapshot) -> jax.Array:
    return seen.estimate

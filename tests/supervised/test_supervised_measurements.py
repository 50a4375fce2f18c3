"""Measurements of regression: data sets, fresh batches, features, variances, and bad input."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.supervised import estimators, measurements, models, worlds
from causal_sgd.training import algorithms, objectives, optimizers, samplers
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.types import Batch, Measurement
from support.cases import few
from support.moment_scores import MAX_Z, populations, scores
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")
BIASES = np.array([1.5, -0.5, 0.7], np.float32)
KEY = jax.random.key(0)
MODEL = models.linear(dim=2, intercept=True)
OWNERS = [0, 1, 2, 0, 0, 1, 0, 2, 1, 0]  # whose row each is
PARAMS = {"weights": jnp.array([0.5, 0.25]), "intercept": jnp.array(0.3)}


@functools.cache
def drawn_nature() -> Any:
    return jax.jit(nature())(KEY)


def nature() -> Any:
    return worlds.contradiction(biases=BIASES)


def batch(*counts: int) -> Batch:
    return Batch(jnp.arange(len(counts), dtype=jnp.int32), jnp.array(counts, jnp.int32))


def examples_of(
    measurement: Measurement, counts: tuple[int, ...], model: Any = MODEL, world: Any = None
) -> Examples:
    world = drawn_nature() if world is None else world
    data = jax.jit(lambda key: measurement.init(key, world))(jax.random.key(1))
    return Examples(
        measurement, jax.random.key(2), jnp.asarray(0), data, model, world, batch(*counts)
    )


def test_the_number_of_examples_is_an_axis_of_one_program() -> None:
    """From 10^2 to 10^9; the deviation from the population falls like n^(-1/2), by its own law."""
    traces = []

    @jax.jit
    def moments(number: jax.Array) -> tuple[jax.Array, jax.Array]:
        traces.append(number)
        measurement = measurements.moments(number, num_validation=number)
        data = measurement.init(KEY, nature()(KEY))
        return data.training.second, data.validation.second

    second = populations(drawn_nature())[0].astype(np.float64)
    inputs = second[:, :-1, :-1]
    squares = np.diagonal(inputs, axis1=1, axis2=2)
    spread = np.sqrt(squares[:, :, None] * squares[:, None, :] + inputs**2)  # Isserlis
    for number in (1e2, 1e3, 1e5, 1e7, 1e9):
        training, validation = (np.asarray(v, np.float64) for v in moments(jnp.asarray(number)))
        for drawn in (training, validation):
            z = (drawn - second)[:, :-1, :-1] / spread * np.sqrt(number)
            rounding = 1e-6 / spread * np.sqrt(number)
            assert (np.abs(z) < MAX_Z + rounding).all()
            assert np.abs(drawn - second).max() > 0
        assert not np.array_equal(training, validation)
    assert len(traces) == 1


def weighted(rows: Any, used: np.ndarray) -> tuple[np.ndarray, ...]:
    """Losses, gradients and variances of gradients of weighted examples, by a plain loop."""
    w, b = np.asarray(PARAMS["weights"], np.float64), float(PARAMS["intercept"])
    results = []
    for x, y, counts in zip(np.asarray(rows.inputs), np.asarray(rows.labels), used, strict=True):
        losses, gradients = [], []
        for row, label, count in zip(x, y, counts, strict=True):
            for _ in range(int(count)):
                residual = row @ w + b - label
                losses.append(residual**2 / 4)
                gradients.append(residual / 2 * np.append(row, 1))
        results.append((np.mean(losses), np.mean(gradients, 0), np.var(gradients, 0)))
    return tuple(np.array(values) for values in zip(*results, strict=True))


@pytest.mark.parametrize("kind", few(["subset", "replacement", "full", "fresh"], {"subset"}))
def test_statistics_of_examples_are_those_of_a_plain_loop(kind: str) -> None:
    options: dict[str, Any] = {
        "subset": {"num_examples": 20},
        "replacement": {"num_examples": 20, "replacement": True},
        "full": {"num_examples": 20, "full": True},
        "fresh": {"fresh": 12},
    }[kind]
    counts = (6, 8, 10)
    examples = examples_of(measurements.examples(**options), counts)
    choice = measurements._examples.Choosing(  # which examples a step uses
        options.get("fresh"), kind == "full", kind == "replacement"
    )

    @jax.jit
    def program(params: Any) -> Any:
        parts = examples.key, examples.data, examples.world, examples.batch
        statistics = examples.risks(), examples.measure, examples.features(), examples.variances()
        return choice.rows(*parts), [each(params) for each in statistics]

    (rows, used), statistics = jax.device_get(program(PARAMS))
    assert (used.sum(1) == (20 if kind == "full" else counts)).all()
    assert (used == used.round()).all()
    assert used.max() == 1 or kind == "replacement"
    losses, gradients, variances = weighted(rows, used)
    found_losses, (slope, value), (means, covariances), found = statistics
    np.testing.assert_allclose(found_losses, losses, rtol=1e-5)
    shares = np.array(counts) / sum(counts)
    np.testing.assert_allclose(value, shares @ losses, rtol=1e-5)
    np.testing.assert_allclose(slope["weights"], shares @ gradients[:, :2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["weights"], variances[:, :2], rtol=1e-4)
    np.testing.assert_allclose(found["intercept"], variances[:, 2], rtol=1e-4)
    for place, (x, row) in enumerate(zip(np.asarray(rows.inputs), used, strict=True)):
        chosen = np.repeat(x, row.astype(int), 0)
        np.testing.assert_allclose(means[place], chosen.mean(0), atol=1e-5)
        np.testing.assert_allclose(covariances[place], np.cov(chosen.T, ddof=0), atol=1e-4)


def test_estimators_and_full_steps_see_the_same_data_set() -> None:
    """All examples of a data set give what its moments give."""
    examples = examples_of(measurements.examples(50, full=True, num_validation=9), (1, 2, 3))
    data, world = examples.data, examples.world
    assert data.validation.second.shape == (3, 4, 4)
    np.testing.assert_array_equal(data.training.counts, [50, 50, 50])
    x, y = (np.asarray(v, np.float64).reshape(150, -1) for v in data.rows[:2])
    expected = np.linalg.lstsq(x, y[:, 0])[0]
    fit = jax.jit(estimators.pooled())(data, world)
    np.testing.assert_allclose(fit.estimate, expected, rtol=1e-4)
    by_moments = examples._replace(measurement=measurements.moments())
    both = jax.jit(lambda params: (examples.measure(params), by_moments.measure(params)))(PARAMS)
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def kept() -> tuple[np.ndarray, Any]:
    """Rows (x, y) [10, 3] and the world that they are: 5, 3 and 2 examples, mixed up."""
    table = np.random.default_rng(0).normal(size=(10, 3))
    return table, worlds.from_arrays(table[:, :2], table[:, 2], OWNERS)


@pytest.mark.parametrize("replacement", few([False, True], {False}))
def test_rows_of_a_world_are_its_data_and_padding_is_never_used(replacement: bool) -> None:
    measurement, (table, factory) = measurements.examples(replacement=replacement), kept()
    world, data = jax.jit(lambda key: (factory(key), measurement.init(key, factory(key))))(KEY)
    np.testing.assert_array_equal(data.rows.counts, [5, 3, 2])
    for place, count in enumerate((5, 3, 2)):
        own = table[np.array(OWNERS) == place]
        np.testing.assert_allclose(data.rows.inputs[place, :count], own[:, :2], rtol=1e-6)
        np.testing.assert_allclose(data.rows.labels[place, :count], own[:, 2], rtol=1e-6)
        moments = data.training.second[place, :3, :3]
        np.testing.assert_allclose(moments, own.T @ own / count, rtol=1e-5, atol=1e-6)
    choice = measurements._examples.Choosing(None, False, replacement)

    @jax.jit
    @jax.vmap
    def used(key: jax.Array) -> jax.Array:
        return choice.rows(key, data, world, batch(2, 2, 1))[1]

    shares = np.asarray(used(jax.random.split(KEY, 4000)), np.float64)
    expected = np.array([[0.4] * 5, [2 / 3] * 3 + [0] * 2, [0.5] * 2 + [0] * 3])
    np.testing.assert_array_equal(shares.sum(2), [[2, 2, 1]] * 4000)
    error = np.maximum(shares.std(0), 1e-9) / np.sqrt(4000)
    assert (np.abs(shares.mean(0) - expected) < MAX_Z * error + 1e-6).all()


@pytest.mark.parametrize(
    "measurement",
    [measurements.examples(5), measurements.examples(fresh=5)],
    ids=["data set", "fresh"],
)
def test_batches_with_more_examples_than_there_are_give_nan(measurement: Measurement) -> None:
    losses = np.asarray(jax.jit(examples_of(measurement, (5, 6, 0)).risks())(PARAMS))
    assert np.isfinite(losses[0])
    assert np.isnan(losses[1])
    assert losses[2] == 0
    algorithm = algorithms.sgd(
        world=nature(),
        sampler=samplers.hetero(batch_size=6),
        measurement=measurement,
        model=MODEL,
        optimizer=optax.sgd(0.1),
    )
    with pytest.raises(ValueError, match="batch"):
        jax.eval_shape(algorithm.init, KEY)


@pytest.mark.parametrize("law", few(["batch_moments", "batch_directions"], {"batch_directions"}))
def test_an_environment_without_examples_has_no_loss(law: str) -> None:
    examples = examples_of(getattr(measurements, law)(), (0, 8, 0))
    program = jax.jit(lambda params: (examples.risks()(params), examples.measure(params)))
    losses, measured = jax.device_get(program(PARAMS))
    assert losses[0] == losses[2] == 0 < losses[1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(measured))


@pytest.mark.parametrize("law", ["batch_moments", "batch_directions", "examples"])
def test_the_whole_of_fresh_examples_is_the_population(law: str) -> None:
    options = {"fresh": 5} if law == "examples" else {}
    examples = examples_of(getattr(measurements, law)(**options), (2, 2, 1))
    offered = examples.measurement.risks
    assert offered is not None
    expected = measurements.moments().risks
    assert expected is not None

    @jax.jit
    def program(scale: Any, shift: Any) -> Any:
        data = measurements.moments().init(KEY, examples.world)
        risks: list[Any] = [
            offered.whole(examples.data, MODEL, examples.world),
            expected.whole(data, MODEL, examples.world),
        ]
        if offered.single is not None:
            risks.append(offered.single(examples.data, MODEL, examples.world, jnp.asarray(1)))
        return [each(PARAMS, scale, shift) for each in risks]

    for scale, shift in ((1.0, 0.0), (0.5, 0.2)):
        found, population, *one = jax.device_get(program(scale, shift))
        np.testing.assert_allclose(found, population, rtol=1e-5)
        if one:
            np.testing.assert_allclose(one[0], found[1:2], rtol=1e-6)


@pytest.mark.slow
def test_a_model_that_predicts_for_itself_has_the_losses_of_its_predictions() -> None:
    def predict(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.sum(params * x))

    model = models.VectorModel(lambda key: jnp.ones(2), lambda params: params, predict=predict)
    examples, params = (
        examples_of(measurements.examples(9, full=True), (1, 1, 1), model),
        jnp.ones(2),
    )
    rows = examples.data.rows
    residuals = np.tanh(np.asarray(rows.inputs).sum(-1)) - np.asarray(rows.labels)
    shifted: Any = examples.shifted_risks()
    both = jax.jit(lambda params: (shifted(params), shifted(params, 0.5, 0.2)))(params)
    np.testing.assert_allclose(both[0], (residuals**2).mean(1) / 4, rtol=1e-5)
    scaled = 0.5 * np.tanh(np.asarray(rows.inputs).sum(-1)) + 0.2 - np.asarray(rows.labels)
    np.testing.assert_allclose(both[1], (scaled**2).mean(1) / 4, rtol=1e-5)
    assert jax.eval_shape(examples.variances(), params).shape == (3, 2)
    for other in (measurements.moments(), measurements.batch_moments()):
        with pytest.raises(ValueError, match="predict"):
            examples_of(other, (1, 1, 1), model).risks()
    with pytest.raises(ValueError, match="predict"):
        examples_of(measurements.batch_directions(), (1, 1, 1), model).measure(params)


@pytest.mark.parametrize("kind", few(["linear", "hadamard"], ()))
def test_variances_of_gaussian_examples_have_a_closed_form(kind: str) -> None:
    world: Any = worlds.contradiction(biases=BIASES)(KEY)
    world = world._replace(means=world.means + jnp.array([[0.5, -0.3, 0.8]]))
    model = MODEL if kind == "linear" else models.hadamard(dim=2, signed=True)
    params = PARAMS if kind == "linear" else jax.tree.map(lambda leaf: leaf + 0.5, model.init(KEY))
    exact = examples_of(measurements.moments(), (1, 1, 1), model, world).variances()(params)
    size = 100_000
    drawn = examples_of(measurements.examples(size, full=True), (1, 1, 1), model, world)
    found = jax.jit(drawn.variances())(params)
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(found), strict=True):
        # The relative error of a variance is sqrt((kurtosis - 1) / n); that of r s is at most 60.
        np.testing.assert_allclose(one, other, rtol=4.5 * np.sqrt(60 / size))


def test_features_are_those_of_the_model() -> None:
    model = models.linear_network(dim=2, hidden=3)
    examples = examples_of(measurements.moments(), (1, 1, 1), model)
    assert model.features is not None
    program = jax.jit(lambda params: (examples.features()(params), model.features(params)))
    (means, covariances), matrix = jax.device_get(program(jax.jit(model.init)(KEY)))
    second = populations(examples.world)[0]
    np.testing.assert_allclose(means, second[:, :2, -1] @ matrix, atol=1e-6)
    np.testing.assert_allclose(covariances, matrix.T @ second[:, :2, :2] @ matrix, rtol=1e-5)


FRESH = {"sampler": samplers.stratified(batch_size=30), "optimizer": optax.sgd(0.1)}
OBJECTIVES = {
    "irmv1": objectives.irmv1(weight=10.0),
    "irmv1 with an intercept": objectives.irmv1(weight=10.0, intercept=True),
    "irmv1 of halves": objectives.irmv1(weight=10.0, halves=True),
    "birm": objectives.birm(weight=10.0, deviation=0.3),
    "vrex": objectives.vrex(weight=10.0),
    "group_dro": objectives.group_dro(rate=0.1),
    "iga": objectives.iga(weight=10.0),
    "sd": objectives.sd(weight=1.0),
    "andmask": objectives.andmask(threshold=0.5),
}


def expected_gradient(measurement: Measurement, name: str, draws: int) -> np.ndarray:
    """Gradients and values [draws, 4] of an objective on independent batches."""
    examples, objective = examples_of(measurement, (10, 10, 10)), OBJECTIVES[name]

    def one(key: jax.Array) -> jax.Array:
        state = objective.init(jnp.full(3, 1 / 3), PARAMS)
        slope, value, _ = objective.gradient(
            jnp.asarray(0), state, examples._replace(key=key), PARAMS
        )
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves((slope, value))])

    keys = jax.random.split(jax.random.key(5), draws)
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


@pytest.mark.parametrize("name", few(OBJECTIVES, ()))
def test_an_objective_has_the_same_law_by_directions_as_by_moments(name: str) -> None:
    """The law of what it returns, whose derivatives are taken of losses near the parameters."""
    one = expected_gradient(measurements.batch_directions(), name, 20_000)
    other = expected_gradient(measurements.batch_moments(), name, 20_000)
    z = scores(one, other)
    assert np.abs(z).max() < MAX_Z


def stepped(**options: Any) -> Any:
    algorithm = algorithms.penalised(
        **{"world": nature(), "model": MODEL, **FRESH, **options},
    )
    return jax.eval_shape(lambda key: algorithm.step(key, algorithm.init(key)), KEY)


def test_second_derivatives_of_a_law_at_the_parameters_are_refused() -> None:
    def curved(examples: Any, params: Any) -> jax.Array:
        gradients = jax.jacrev(examples.risks())(params)
        return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)]))

    objective = objectives.from_value(curved)
    stepped(measurement=measurements.batch_moments(), objective=objective)
    with pytest.raises(ValueError, match="second derivatives.*batch_moments"):
        stepped(measurement=measurements.batch_directions(), objective=objective)


@pytest.mark.parametrize(
    ("measurement", "options", "message"),
    [
        (measurements.moments(), {"objective": objectives.irmv1(weight=1.0, halves=True)}, "fresh"),
        (measurements.batch_moments(), {"objective": objectives.fishr(weight=1.0)}, "variances"),
        (measurements.batch_directions(), {"objective": objectives.coral(weight=1.0)}, "features"),
        (
            measurements.batch_directions(),
            {
                "objective": objectives.vrex(weight=1.0),
                "optimizer": optimizers.sam(optax.sgd(0.1), radius=0.1),
            },
            "same examples",
        ),
        (
            measurements.batch_directions(),
            {"world": worlds.two_bit(), "objective": objectives.mean()},
            "world must be linear and Gaussian",
        ),
        (
            measurements.moments(),
            {"world": worlds.two_bit(), "objective": objectives.fishr(weight=1.0)},
            "world must be Gaussian",
        ),
        (measurements.examples(), {"objective": objectives.mean()}, "num_examples must be"),
    ],
)
def test_what_a_measurement_does_not_know_is_refused_by_name(
    measurement: Measurement, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stepped(measurement=measurement, **options)


def test_estimators_refuse_fresh_examples() -> None:
    for measurement in (measurements.batch_moments(), measurements.examples(fresh=5)):
        data = measurement.init(KEY, drawn_nature())
        with pytest.raises(ValueError, match="fresh examples"):
            estimators.pooled()(data, drawn_nature())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moments", {"num_examples": 0}, "num_examples must be"),
        ("moments", {"num_validation": 1.5}, "num_validation must be"),
        ("batch_moments", {"num_validation": -1}, "num_validation must be"),
        ("batch_directions", {"num_validation": "all"}, "num_validation must be"),
        ("examples", {"num_examples": 0}, "num_examples must be"),
        ("examples", {"fresh": 2.5}, "fresh must be"),
        ("examples", {"num_examples": 5, "fresh": 5}, "fresh must be None with num_examples"),
        ("examples", {"fresh": 5, "full": True}, "fresh must be None with full"),
        ("examples", {"fresh": 5, "replacement": True}, "fresh must be None with replacement"),
        ("examples", {"num_examples": 5, "full": True, "replacement": True}, "replacement must"),
        ("examples", {"num_examples": 5, "full": 1}, "full must be True or False"),
    ],
)
def test_bad_numbers_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(measurements, name)(**options)


def test_rows_of_a_user_are_not_held_out_twice() -> None:
    """Rows that are drawn with replacement would be rows of the training."""
    rows = np.random.default_rng(0).normal(size=(8, 3))
    world = draw_world(worlds.from_arrays(rows[:, :2], rows[:, 2], [0] * 4 + [1] * 4))
    for measurement in (
        measurements.moments(num_validation=5),
        measurements.batch_moments(num_validation=5),
        measurements.examples(num_validation=5),
    ):
        with pytest.raises(ValueError, match="num_validation must be None in a world of a user"):
            measurement.init(KEY, world)

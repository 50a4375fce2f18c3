"""Quadrature, counts and projections of batches against examples that are really drawn."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import training
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, objectives, samplers
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.types import Batch, Measurement, Objective
from support.cases import few
from support.moment_scores import MAX_Z, judge, scores
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

COUNTS = (7, 5)
PARAMS = {"weights": jnp.array([0.5, -0.3, 0.8, 0.2]), "intercept": jnp.array(0.2)}
MODEL = models.linear(dim=4, intercept=True)
ZERO = jnp.zeros((), jnp.int32)


def mixture() -> Any:
    return draw_world(worlds.zin_logit(dim_causal=2, dim_spurious=2, scramble=True))


def examples_of(measurement: Measurement, world: Any, counts: Any = COUNTS, **parts: Any) -> Any:
    data = jax.jit(lambda key: measurement.init(key, world))(jax.random.key(1))
    batch = Batch(jnp.arange(2, dtype=jnp.int32), jnp.array(counts, jnp.int32))
    model = parts.pop("model", MODEL)
    return Examples(measurement, jax.random.key(2), ZERO, data, model, world, batch)


def statistics(objective: Objective, examples: Examples, params: Any = PARAMS) -> jax.Array:
    """The gradient and the value of an objective, flat."""
    slope, value, _ = objective.gradient(
        ZERO, objective.init(jnp.full(2, 0.5), params), examples, params
    )
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves((slope, value))])


@pytest.mark.parametrize("name", few(["logistic", "squared", "exponential"], {"logistic"}))
def test_quadrature_has_the_losses_and_gradients_of_drawn_examples(name: str) -> None:
    loss, world, size = getattr(losses, name), mixture(), 100_000
    params = jax.tree.map(lambda leaf: 0.5 * leaf, PARAMS)
    exact = examples_of(measurements.quadrature(loss), world)

    @jax.jit
    def both(key: jax.Array) -> Any:
        x, y = world.draw_examples(key, jnp.array(1), size)

        def losses_of(params: Any) -> jax.Array:
            return loss(MODEL.predictions(params, x), y)

        f = MODEL.predictions(params, x)
        slope = jax.vmap(jax.grad(lambda f, y: loss(f, y)))(f, y)
        each = [losses_of(params), slope, slope * f, *(slope[:, None] * x).T]
        risk = exact.risks()
        one = jnp.ones(())
        by_scale = jax.jvp(lambda s: risk(params, s), (one,), (one,))[1][1]
        by_shift = jax.jvp(lambda s: exact.shifted_risks()(params, 1.0, s), (0 * one,), (one,))
        gradient = jax.jacrev(risk)(params)
        return each, [risk(params)[1], by_shift[1][1], by_scale, *gradient["weights"][1]]

    drawn, found = jax.device_get(both(jax.random.key(0)))
    z = [
        (np.mean(each, dtype=np.float64) - value) / (np.std(each) / size**0.5)
        for each, value in zip(drawn, found, strict=True)
    ]
    judge(np.array(z))


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        pytest.param("cows", objectives.mean()),
        pytest.param("margin", objectives.mean(), marks=pytest.mark.slow),
        pytest.param("cows", objectives.irmv1(weight=0.9, risk_weight=0.1), marks=pytest.mark.slow),
        pytest.param("margin", objectives.iga(weight=10.0), marks=pytest.mark.slow),
    ],
)
def test_trained_error_rates_are_those_of_ten_thousand_examples(
    name: str, objective: Objective
) -> None:
    """Within 4 binomial standard errors, of training and of test environments."""
    factory = getattr(worlds, f"unit_test_{name}")()
    algorithm = algorithms.penalised(
        world=factory,
        sampler=samplers.stratified(batch_size=3),
        measurement=measurements.quadrature(),
        model=models.linear(dim=10, intercept=True),
        optimizer=optax.adam(1e-2),
        objective=objective,
    )

    @jax.jit
    def trained(key: jax.Array) -> Any:
        watched = [metrics.weights, intercept, metrics.training_error, metrics.test_errors]
        trace = training.run(
            key, algorithm=algorithm, metrics=watched, num_steps=300, record_every=300
        )
        world = algorithm.init(key).world
        tests = world._replace(
            weights=world.test_weights, means=world.test_means, labels=world.test_labels
        )
        names = ("weights", "intercept", "training_error", "test_errors")
        w, b, error, tested = (trace.metrics[name][-1] for name in names)

        def errors(world: Any, environment: jax.Array) -> jax.Array:
            x, y = world.draw_examples(jax.random.key(9), environment, 10_000)
            return jnp.mean(jnp.sign(jnp.sum(x * w[None], 1) + b) != y)

        each = [jax.vmap(lambda e, w=w: errors(w, e))(jnp.arange(3)) for w in (world, tests)]
        return error, tested, *each, world.error_rates(w, b)

    error, tested, drawn, drawn_tests, rates = map(
        np.asarray, jax.device_get(trained(jax.random.key(0)))
    )
    np.testing.assert_allclose(error, rates.mean(), rtol=1e-5)
    assert 0 < error < 0.4
    for one, other in ((drawn, rates), (drawn_tests, tested)):
        assert (np.abs(one - other) < 4 * np.sqrt(other * (1 - other) / 10_000)).all()


def intercept(snapshot: Any) -> jax.Array:
    return snapshot.params["intercept"]


LAWS = {
    "vrex": objectives.vrex(weight=3.0),
    "irmv1": objectives.irmv1(weight=3.0, intercept=True),
    "irmv1 of halves": objectives.irmv1(weight=3.0, halves=True),
    "andmask": objectives.andmask(threshold=0.5),
}
CASES = [(loss, name) for loss in ("logistic", "squared", "exponential") for name in LAWS]


@pytest.mark.parametrize(("loss", "name"), few(CASES, (), CASES[: len(LAWS)]))
def test_batches_by_projections_have_the_law_of_drawn_batches(loss: str, name: str) -> None:
    """Moments of order 1 to 4 of gradient and value of objectives."""
    world, draws, objective = mixture(), 20_000, LAWS[name]
    given = getattr(losses, loss)

    def sample(measurement: Measurement, seed: int) -> np.ndarray:
        examples = examples_of(measurement, world)
        keys = jax.random.split(jax.random.key(seed), draws)
        each = jax.jit(jax.vmap(lambda key: statistics(objective, examples._replace(key=key))))
        return np.asarray(each(keys))

    one = sample(measurements.batch_projections(given, max_examples=max(COUNTS)), 5)
    other = sample(measurements.examples(loss=given, fresh=max(COUNTS)), 6)
    judge(scores(one, other))


def test_gradients_of_projections_are_those_of_their_losses() -> None:
    examples = examples_of(measurements.batch_projections(max_examples=8), mixture(), (7, 0))
    whole: Any = examples.measurement.risks
    expected: Any = measurements.quadrature().risks

    @jax.jit
    def program(params: Any) -> Any:
        population = [r.whole(None, MODEL, examples.world)(params) for r in (whole, expected)]
        risks = examples.risks()
        return examples.measure(params), risks(params), jax.jacrev(risks)(params), population

    (slope, value), found, gradients, population = jax.device_get(program(PARAMS))
    assert found[1] == 0
    np.testing.assert_allclose(value, found[0], rtol=1e-6)
    np.testing.assert_allclose(slope["weights"], gradients["weights"][0], rtol=1e-5)
    np.testing.assert_array_equal(*population)


def test_what_projections_do_not_know_is_refused_or_nan() -> None:
    examples = examples_of(measurements.batch_projections(max_examples=4), mixture(), (4, 5))
    program = jax.jit(lambda p: (examples.risks()(p), jax.jacrev(examples.risks())(p, 0.5)))
    values, slopes = jax.device_get(program(PARAMS))
    assert np.isnan(values).tolist() == [False, True]
    assert np.isnan(slopes["weights"]).all()
    for objective, words in (
        (objectives.iga(weight=1.0), "measurement must have losses with second derivatives"),
        (objectives.sd(weight=1.0), "measurement must offer mean squared predictions"),
        (objectives.fishr(weight=1.0), "measurement must offer variances"),
        (objectives.birm(weight=1.0, deviation=0.1), "draws must be the number of scales"),
    ):
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(lambda p, o=objective: statistics(o, examples, p), PARAMS)

    def twice(params: Any) -> jax.Array:
        def slope(scale: jax.Array) -> jax.Array:
            along = jax.jvp(lambda p: examples.risks()(p, scale), (params,), (params,))
            return jnp.sum(along[1])

        return jax.grad(jax.grad(slope))(jnp.ones(()))

    with pytest.raises(ValueError, match="second derivatives in the scale"):
        jax.eval_shape(twice, PARAMS)


@pytest.mark.parametrize("name", few(["linear", "hadamard"], ()))
def test_squares_and_variances_of_a_mixture_are_those_of_examples(name: str) -> None:
    world, size = mixture(), 200_000
    model, params = MODEL, PARAMS
    if name == "hadamard":
        model = models.hadamard(dim=4, signed=True)
        params = {
            "positive": jnp.array([0.5, 1.0, 0.8, 0.2]),
            "negative": jnp.array([1.0, 0.1, 0.2, 0.3]),
        }
    for loss in (losses.logistic, losses.squared):
        found = []
        for measurement in (
            measurements.quadrature(loss),
            measurements.examples(size, loss=loss, full=True),
        ):
            examples = examples_of(measurement, world, model=model)
            program = jax.jit(lambda p, e=examples: (e.mean_squares()(p), e.variances()(p)))
            found.append(jax.device_get(program(params)))
        for one, other in zip(*map(jax.tree.leaves, found), strict=True):
            # The relative error of such a mean is sqrt((kurtosis - 1) / n) with kurtosis < 60.
            np.testing.assert_allclose(one, other, rtol=4.5 * np.sqrt(60 / size))


def table() -> Any:
    return draw_world(worlds.two_bit(invariant_flip=0.1, spurious_flips=(0.2, 0.3)))


@pytest.mark.parametrize("loss", few(["logistic", "squared", "exponential"], {"logistic"}))
def test_counts_are_a_plain_loop_over_examples(loss: str) -> None:
    given, world = getattr(losses, loss), table()
    model, params = (
        models.linear(dim=2, intercept=True),
        {
            "weights": jnp.array([0.7, -0.4]),
            "intercept": jnp.array(0.1),
        },
    )
    measurement = measurements.counts(given, num_examples=40)
    examples = examples_of(measurement, world, model=model)

    @jax.jit
    def program(params: Any) -> Any:
        risks = examples.risks()
        return (
            risks(params),
            jax.jacrev(risks)(params),
            examples.variances()(params),
            examples.mean_squares()(params),
            examples.features()(params),
            examples.data,
        )

    values, slopes, variances, squares, (means, covariances), data = jax.device_get(program(params))
    shares = np.asarray(data.shares, float)
    np.testing.assert_allclose(40 * shares, np.round(40 * shares), atol=1e-4)
    for e in range(2):
        numbers = np.round(40 * shares[e]).astype(int)
        x = np.repeat(np.asarray(world.inputs, float), numbers, 0)
        y = np.repeat(np.asarray(world.labels, float), numbers)
        assert len(y) == 40
        f = x @ [0.7, -0.4] + 0.1
        height, slope = {
            "logistic": (np.log1p(np.exp(-y * f)), -y / (1 + np.exp(y * f))),
            "squared": ((f - y) ** 2 / 4, (f - y) / 2),
            "exponential": (np.exp(-y * f), -y * np.exp(-y * f)),
        }[loss]
        np.testing.assert_allclose(values[e], height.mean(), rtol=1e-5)
        np.testing.assert_allclose(slopes["weights"][e], slope @ x / 40, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(slopes["intercept"][e], slope.mean(), rtol=1e-4)
        spread = (slope[:, None] * x).var(0)
        np.testing.assert_allclose(variances["weights"][e], spread, rtol=1e-4)
        np.testing.assert_allclose(squares[e], np.mean(f**2), rtol=1e-5)
        np.testing.assert_allclose(means[e], x.mean(0), atol=1e-5)
        np.testing.assert_allclose(covariances[e], np.cov(x.T, ddof=0), atol=1e-5)


@pytest.mark.slow
def test_fresh_counts_have_the_law_of_drawn_batches() -> None:
    world, model = table(), models.linear(dim=2, intercept=True)
    params = {"weights": jnp.array([0.7, -0.4]), "intercept": jnp.array(0.1)}
    found = []
    for seed, measurement in enumerate(
        (measurements.counts(fresh=True), measurements.examples(loss=losses.logistic, fresh=7))
    ):
        examples = examples_of(measurement, world, model=model)
        keys = jax.random.split(jax.random.key(seed), 20_000)

        def one(key: jax.Array, examples: Any = examples) -> jax.Array:
            return statistics(LAWS["irmv1"], examples._replace(key=key), params)

        found.append(np.asarray(jax.jit(jax.vmap(one))(keys)))
    judge(scores(*found))


def test_counts_tend_to_the_population() -> None:
    """As n^(-1/2) from 10^2 to 10^7, in one program."""
    world, traces = table(), []

    @jax.jit
    def shares(number: jax.Array) -> Any:
        traces.append(number)
        data = measurements.counts(num_examples=number).init(jax.random.key(0), world)
        return data.shares

    mass = np.asarray(world.mass, float)
    for number in (1e2, 1e4, 1e7):
        drawn = np.asarray(shares(jnp.asarray(number)), float)
        z = (drawn - mass) / np.sqrt(mass * (1 - mass) / number)
        assert (np.abs(z) < MAX_Z).all()
        assert np.abs(z).max() > 0.5
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("quadrature", {"loss": losses.softmax}, "loss must be one of a single prediction"),
        ("quadrature", {"loss": "logistic"}, "loss must be a loss, such as losses.logistic"),
        ("quadrature", {"nodes": 0}, "nodes must be a whole number, at least 1"),
        ("quadrature", {"nodes": 201}, "nodes must be a whole number, .* at most 200"),
        ("batch_projections", {"max_examples": 0}, "max_examples must be a whole number"),
        (
            "batch_projections",
            {"loss": losses.softmax, "max_examples": 1},
            "loss must be one of a single prediction",
        ),
        ("counts", {"loss": None}, "loss must be a loss"),
        ("counts", {"num_examples": 0}, "num_examples must be"),
        ("counts", {"num_validation": 1.5}, "num_validation must be"),
        ("counts", {"fresh": 1}, "fresh must be True or False"),
        ("counts", {"fresh": True, "num_examples": 5}, "num_examples must be None with fresh"),
    ],
)
def test_wrong_numbers_and_losses_are_named(name: str, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        getattr(measurements, name)(**options)


def test_worlds_of_another_kind_are_named() -> None:
    linear = draw_world(worlds.contradiction())
    for measurement, words in (
        (measurements.quadrature(), "world must be a mixture for quadrature, .* got LinearWorld"),
        (measurements.batch_projections(max_examples=3), "world must be a mixture for batch_proj"),
        (measurements.counts(), "world must be a table for counts, .* got LinearWorld"),
    ):
        with pytest.raises(ValueError, match=words):
            measurement.init(jax.random.key(0), linear)
    curved = models.VectorModel(
        lambda key: jnp.ones(4), lambda params: params, predict=lambda params, x: x[0]
    )
    for measurement in (measurements.quadrature(), measurements.batch_projections(max_examples=9)):
        with pytest.raises(ValueError, match="model must predict linearly"):
            examples_of(measurement, mixture(), model=curved).measure(jnp.ones(4))

"""A user's environments under any loss: rows of the test, drawn examples, and shortcuts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import run
from causal_sgd.supervised import losses, measurements, metrics, models, worlds
from causal_sgd.supervised.worlds import _from_arrays
from causal_sgd.training import algorithms, objectives, samplers
from causal_sgd.types import Snapshot
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(8)
SIZES = {"a": 7, "b": 12, "far": 5, "near": 9}
OWNERS = RNG.permutation(np.repeat(list(SIZES), list(SIZES.values())))
X = RNG.normal(size=(len(OWNERS), 3))
SIGNS = RNG.choice([-1.0, 1.0], len(OWNERS))
CLASSES = RNG.permutation(np.arange(len(OWNERS)) % 3)
TESTS = ["near", "far"]  # in another order than that of their names


def network() -> models.VectorModel:
    """One hidden layer of two units."""

    def predict(params: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(params["out"] * jnp.tanh(jnp.sum(params["in"] * x[None], 1)))

    def init(key: jax.Array) -> Any:
        return {"in": jax.random.normal(key, (2, 3)), "out": jnp.array([1.0, -0.5])}

    return models.VectorModel(init, lambda params: params["out"], predict=predict)


def by_network(params: Any, x: np.ndarray) -> np.ndarray:
    inner, outer = (np.asarray(params[name], float) for name in ("in", "out"))
    return np.tanh(x @ inner.T) @ outer


def seen(world: Any, measurement: Any, model: Any, params: Any = None) -> Snapshot:
    """A snapshot at given parameters, or those of the start."""
    key = jax.random.key(4)
    return Snapshot(
        step=jnp.asarray(1),
        params=jax.jit(model.init)(key) if params is None else params,
        world=world,
        batch_loss=jnp.asarray(0.5),
        model=model,
        measurement=measurement,
        data=jax.jit(lambda: measurement.init(key, world))(),
    )


def values(snapshot: Snapshot, *names: str) -> dict[str, np.ndarray]:
    found = jax.jit(lambda s: {name: getattr(metrics, name)(s) for name in names})(snapshot)
    return jax.tree.map(np.asarray, found)


ALL = ("training_accuracy", "training_accuracies", "accuracy", "accuracies", "worst_accuracy")
LOSSES = ("environment_losses", "test_losses")
BY_HAND = {
    "logistic": lambda f, y: np.log1p(np.exp(-y * f)),
    "own": lambda f, y: np.abs(f - y) ** 3,
    "squared": lambda f, y: (f - y) ** 2,  # metrics leave the factor 1/4 of the loss out
}


@pytest.mark.parametrize("name", BY_HAND)
def test_rows_of_the_test_are_judged_under_every_loss(name: str) -> None:
    """Accuracies and losses of a network in every environment, by NumPy."""
    own = losses.Loss(lambda f, y: jnp.abs(f - y) ** 3)
    loss = own if name == "own" else getattr(losses, name)
    world = draw_world(worlds.from_arrays(X, SIGNS, OWNERS, tests=TESTS))
    assert (world.environments, world.test_environments) == (("a", "b"), ("near", "far"))
    snapshot = seen(world, measurements.examples(loss=loss), network())
    found = values(snapshot, *ALL, *LOSSES)
    predictions = by_network(snapshot.params, X)
    right = np.sign(predictions) == SIGNS
    each = BY_HAND[name](predictions, SIGNS)
    accuracies, lost = (
        {place: part[place == OWNERS].mean() for place in SIZES} for part in (right, each)
    )
    of_tests = [accuracies[place] for place in TESTS]
    of_training = [accuracies[place] for place in ("a", "b")]
    np.testing.assert_allclose(found["accuracies"], of_tests, rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], np.mean(of_tests), rtol=1e-5)
    np.testing.assert_allclose(found["worst_accuracy"], np.min(of_tests), rtol=1e-5)
    np.testing.assert_allclose(found["training_accuracies"], of_training, rtol=1e-5)
    pooled = np.dot(of_training, [7 / 19, 12 / 19])
    np.testing.assert_allclose(found["training_accuracy"], pooled, rtol=1e-5)
    np.testing.assert_allclose(found["test_losses"], [lost[p] for p in TESTS], rtol=1e-5)
    np.testing.assert_allclose(found["environment_losses"], [lost[p] for p in "ab"], rtol=1e-5)
    if name == "squared":
        risk = values(snapshot, "worst_test_risk")["worst_test_risk"]
        np.testing.assert_allclose(risk, max(lost[p] for p in TESTS), rtol=1e-5)


def test_classes_are_judged_in_every_environment() -> None:
    world = draw_world(worlds.from_arrays(X, CLASSES, OWNERS, tests=TESTS))
    weights = RNG.normal(size=(3, 3))
    model = models.linear(dim=3, outputs=3)
    params = {"weights": jnp.asarray(weights, float)}
    snapshot = seen(world, measurements.examples(loss=losses.softmax), model, params)
    found = values(snapshot, *ALL, *LOSSES)
    logits = X @ weights
    right = logits.argmax(1) == CLASSES
    lost = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(X)), CLASSES]
    for places, accuracies, loss in (
        (TESTS, "accuracies", "test_losses"),
        (["a", "b"], "training_accuracies", "environment_losses"),
    ):
        for part, name in ((right, accuracies), (lost, loss)):
            expected = [part[place == OWNERS].mean() for place in places]
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_accuracies_of_tables_are_those_of_their_law() -> None:
    world = draw_world(worlds.two_bit(test_flips=[0.9, 0.3]))
    model = models.linear(dim=2)
    params = {"weights": jnp.array([0.1, 1.0])}  # the sign of the colour
    snapshot = seen(world, measurements.counts(), model, params)
    found = values(snapshot, *ALL, "test_losses")
    np.testing.assert_allclose(found["accuracies"], [0.1, 0.7], rtol=1e-5)
    y, f = np.asarray(world.labels, float), np.asarray(world.inputs, float) @ [0.1, 1.0]
    expected = np.asarray(world.test_mass, float) @ np.log1p(np.exp(-y * f))
    np.testing.assert_allclose(found["test_losses"], expected, rtol=1e-5)
    mixture = draw_world(worlds.gaussian_environments(dim_causal=1, dim_spurious=1))
    with pytest.raises(ValueError, match="world must be a table or hold examples of the test for"):
        metrics.test_losses(seen(mixture, measurements.quadrature(), model, params))


def test_rows_of_the_test_have_the_units_of_training() -> None:
    options: dict[str, Any] = {"standardise": True, "tests": TESTS, "validation_share": 0.4}
    world: Any = worlds.from_arrays(X, X[:, 0] ** 2, OWNERS, **options)
    world = jax.jit(world)(jax.random.key(1))
    center, scale = (np.asarray(part, float) for part in (world.center, world.scale))
    for place, name in enumerate(TESTS):
        size = SIZES[name]
        assert world.test_rows.counts[place] == size
        x, y = (np.asarray(part[place], float) for part in world.test_rows[:2])
        own = name == OWNERS
        np.testing.assert_allclose(x[:size], (X[own] - center[:3]) / scale[:3], 1e-4, 1e-5)
        np.testing.assert_allclose(y[:size], X[own, 0] ** 2 - center[3], 1e-4, 1e-5)
        np.testing.assert_array_equal(x[size:], np.broadcast_to(x[size - 1], x[size:].shape))
        moments = np.asarray(world.test_moments[place], float)
        np.testing.assert_allclose(moments[:3, -1], x[:size].mean(0), 1e-4, 1e-5)


def test_networks_are_validated_by_rows() -> None:
    world = draw_world(worlds.from_arrays(X, X[:, 1], OWNERS, validation_share=0.4))
    snapshot = seen(world, measurements.examples(), network())
    rows, expected = snapshot.data.validation_rows, 0.0
    for place, size in enumerate(np.asarray(rows.counts, int)):
        x, y = (np.asarray(part[place, :size], float) for part in rows[:2])
        share = float(world.probabilities[place])
        expected += share * np.mean((by_network(snapshot.params, x) - y) ** 2)
    found = values(snapshot, "validation_risk")["validation_risk"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_images_are_flattened_and_need_no_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    images = RNG.normal(size=(len(OWNERS), 2, 4, 1))
    with pytest.warns(UserWarning, match="fewer training rows than the 8 inputs"):
        plain = worlds.from_arrays(images.reshape(-1, 8), SIGNS, OWNERS, tests=["far"])
    monkeypatch.setattr(_from_arrays, "MOST_INPUTS", 7)
    large = worlds.from_arrays(images, SIGNS, OWNERS, tests=["far"])  # and no warning of few rows
    one, other = draw_world(plain), draw_world(large)
    assert other.second is None
    assert other.tests is None
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_allclose(one.second_moments, other.second_moments, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.test_moments, other.test_moments, rtol=1e-4, atol=1e-5)
    split = worlds.from_arrays(images, SIGNS, OWNERS, validation_share=0.3)
    assert draw_world(split).validation is None
    assert draw_world(split).validation_rows.inputs.shape == (4, 3, 8)
    assert draw_world(split).test_moments.shape == (0, 10, 10)


def draw(key: jax.Array, environment: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Images of two pixels: a noisy sign of the label, and a colour that depends on the place."""
    agreement = jnp.array([0.95, 0.25, 0.1, 0.9])[environment]
    label, noise, colour = (
        jax.random.uniform(jax.random.fold_in(key, i), (size,)) for i in range(3)
    )
    y = jnp.where(label < 0.5, 1, -1)
    pixels = [jnp.where(noise < 0.75, y, -y), jnp.where(colour < agreement, y, -y)]
    return jnp.stack(pixels, 1).reshape(size, 1, 2), y


def test_a_function_that_draws_is_a_world() -> None:
    factory = worlds.from_draws(draw, 2, num_tests=2, test_examples=4000, causal=[0])
    world: Any = jax.jit(factory)(jax.random.key(0))
    assert world.test_rows.inputs.shape == (2, 4000, 2)
    assert world.estimate_shape == (2,)
    np.testing.assert_array_equal(world.causal, [True, False])
    np.testing.assert_allclose(world.probabilities, [0.5, 0.5])
    (x, y), expected = jax.jit(
        lambda key, one: (world.draw_examples(key, one, 7), draw(key, one, 7))
    )(jax.random.key(5), jnp.asarray(1))
    np.testing.assert_array_equal(x, expected[0].reshape(7, 2))
    np.testing.assert_array_equal(y, expected[1])
    params = {"weights": jnp.array([0.1, 1.0])}
    for measurement in (
        measurements.examples(4000, loss=losses.logistic),
        measurements.examples(fresh=9, loss=losses.logistic, num_validation=100),
    ):
        snapshot = seen(world, measurement, models.linear(dim=2), params)
        found = values(snapshot, "accuracies", "test_losses", "test_error")
        for rate, share in zip((0.1, 0.9), found["accuracies"], strict=True):
            assert abs(share - rate) < 4.5 * (rate * (1 - rate) / 4000) ** 0.5
        assert found["test_error"] == pytest.approx(1 - found["accuracies"].mean(), abs=1e-6)
    with pytest.raises(ValueError, match="world must know the moments of its population"):
        world.second_moments.sum()
    trained = algorithms.penalised(
        world=factory,
        sampler=samplers.stratified(batch_size=40),
        measurement=measurements.examples(fresh=40, slots=40, loss=losses.logistic),
        model=models.linear(dim=2),
        objective=objectives.vrex(weight=1.0),
        optimizer=optax.sgd(0.5),
    )
    watched = [metrics.accuracies, metrics.worst_accuracy, metrics.test_losses]

    @jax.jit
    def last(key: jax.Array) -> Any:
        return run(key, algorithm=trained, metrics=watched, num_steps=30).metrics

    recorded = last(jax.random.key(1))
    assert np.isfinite(recorded["test_losses"]).all()
    assert recorded["worst_accuracy"][-1] == recorded["accuracies"][-1].min()


def shortcut(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return x.at[2].set(1.0), x.at[2].set(-1.0)


@pytest.mark.parametrize("tests", [TESTS, []])
def test_reliance_is_the_change_of_predictions(tests: list[str]) -> None:
    """By NumPy, in environments of equal weight, of the test or else of training."""
    world = draw_world(worlds.from_arrays(X, SIGNS, OWNERS, tests=tests))
    snapshot = seen(world, measurements.examples(loss=losses.logistic), network())
    on, off = X.copy(), X.copy()
    on[:, 2], off[:, 2] = 1, -1
    first, second = (by_network(snapshot.params, x) for x in (on, off))
    both = (np.sign(first) == SIGNS) & (np.sign(second) == SIGNS)
    places = tests or list(SIZES)
    for metric, part in ((metrics.reliance, first - second), (metrics.flip_accuracy, both)):
        expected = np.mean([part[place == OWNERS].mean() for place in places])
        found = jax.jit(metric(shortcut))(snapshot)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert metric(shortcut).__name__ == metric.__name__


def test_reliance_of_classes_is_that_of_every_output() -> None:
    world = draw_world(worlds.from_arrays(X, CLASSES, OWNERS, tests=TESTS))
    weights = RNG.normal(size=(3, 3))
    params = {"weights": jnp.asarray(weights, float)}
    softmax = measurements.examples(loss=losses.softmax)
    snapshot = seen(world, softmax, models.linear(dim=3, outputs=3), params)
    found = jax.jit(metrics.reliance(shortcut))(snapshot)
    np.testing.assert_allclose(found, 2 * weights[2], rtol=1e-4)
    assert jax.eval_shape(metrics.flip_accuracy(shortcut), snapshot).shape == ()
    with pytest.raises(ValueError, match="intervention must return two inputs of shape"):
        metrics.reliance(lambda x: x)(snapshot)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"got \(3,\) and \(2,\)"):
        metrics.reliance(lambda x: (x, x[:2]))(snapshot)
    with pytest.raises(ValueError, match="intervention must be a function of an input"):
        metrics.reliance(snapshot)  # pyright: ignore[reportArgumentType]
    table = draw_world(worlds.two_bit())
    of_table = seen(table, measurements.counts(), models.linear(dim=2))
    with pytest.raises(ValueError, match="measurement must keep examples for the metric reliance"):
        metrics.reliance(shortcut)(of_table)


WRONG_LABELS: list[tuple[Any, losses.Loss, str]] = [
    (CLASSES, losses.logistic, "labels must be -1 and 1 under a loss of two classes, got 0, 1, 2"),
    (SIGNS, losses.softmax, "labels must be 0, 1, ..., for classes, got -1, 1"),
    (SIGNS * 0.5, losses.exponential, r"-0.5, 0.5 \(standardise of from_arrays moves labels\)"),
    (CLASSES * 2, losses.softmax, "model must have an output for every class, at least 5, got 3"),
]


@pytest.mark.parametrize(("labels", "loss", "words"), WRONG_LABELS)
def test_labels_that_are_no_classes_are_refused(labels: Any, loss: losses.Loss, words: str) -> None:
    world = draw_world(worlds.from_arrays(X, labels, OWNERS))
    model, measurement = models.linear(dim=3, outputs=3), measurements.examples(loss=loss)
    with pytest.raises(ValueError, match=words):
        metrics.training_risk(seen(world, measurement, model))


def ragged(key: Any, environment: Any, size: int) -> Any:
    return jnp.ones((size, 2)), jnp.ones(size + 1)


WRONG_DRAWS: list[tuple[dict[str, Any], str]] = [
    ({"draw": 1}, r"draw must be a function \(key, environment, n\)"),
    ({"draw": lambda key: key}, r"draw must be a function \(key, environment, n\)"),
    ({"draw": ragged}, r"inputs \[n, p\] and labels \[n\] for n = 3, got \[3, 2\] and \[4\]"),
    ({"draw": lambda k, e, n: jnp.ones(n)}, r"must return a pair, .*, got \[3\]|got array"),
    ({"draw": lambda k, e, n: (jnp.ones(n), jnp.ones(n))}, r"got \[3\] and \[3\]"),
    (
        {"draw": lambda k, e, n: (jnp.ones((n, 1)) * np.array([1, 2])[e], jnp.ones(n))},
        "draw must be a function that jax can trace",
    ),
    ({"draw": type}, r"of \(key, environment, n\) = .*, got a TypeError: type"),
    ({"num_environments": 0}, "num_environments must be a whole number, at least 1"),
    ({"num_tests": -1}, "num_tests must be a whole number, at least 0"),
    ({"test_examples": 0}, "test_examples must be a whole number, at least 1"),
    ({"probabilities": [1.0]}, "probabilities must have one entry per environment"),
    ({"target": [1.0]}, r"target must have shape \[2\]"),
    ({"causal": ["x"]}, "causal must hold numbers of columns without names"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG_DRAWS)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"draw": draw, "num_environments": 2, **changes}
    with pytest.raises(ValueError, match=words):
        worlds.from_draws(**arguments)

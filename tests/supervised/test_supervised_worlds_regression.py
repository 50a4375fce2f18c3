"""Regressions with weights of their own in every environment, against plain NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.types import Batch
from support.moment_scores import by_definition
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

WEIGHTS = np.array([[1.0, 2.0, 0.0], [1.0, -3.0, 0.0]])
COVARIANCE = np.array([[1.0, 0.5, 0.1], [0.5, 1.0, -0.2], [0.1, -0.2, 2.0]])
NOISE = np.array([0.5, 2.0])


def population(weights: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """The moments [E, q, q] of (x, y, 1), entry by entry."""
    moments = np.zeros((len(weights), 5, 5))
    for e, (w, variance) in enumerate(zip(weights, variances, strict=True)):
        moments[e, :3, :3] = COVARIANCE
        moments[e, :3, 3] = moments[e, 3, :3] = COVARIANCE @ w
        moments[e, 3, 3] = w @ COVARIANCE @ w + variance
        moments[e, 4, 4] = 1
    return moments


def test_the_moments_of_a_regression_are_those_of_its_law() -> None:
    world: Any = draw_world(worlds.regression(WEIGHTS, covariance=COVARIANCE, noise=NOISE))
    world.check()
    exact = population(WEIGHTS, NOISE**2)
    for found in (world.second_moments, world.test_moments):
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(world.target, [1, 0, 0])
    np.testing.assert_array_equal(world.causal, [True, False, False])
    x, y = world.draw_examples(jax.random.key(0), jnp.asarray(1), 40_000)
    rows = np.column_stack([x, y]).astype(float)
    products = rows[:, :, None] * rows[:, None, :]
    z = (products.mean(0) - exact[1, :4, :4]) / (products.std(0) / len(rows) ** 0.5)
    assert np.abs(z).max() < 4.5


def test_the_target_and_the_test_may_be_given() -> None:
    options = {"target": [1.0, 0.5, 0.0], "causal": [0, 2], "test_weights": [[0.0, 1.0, 1.0]]}
    shares = np.array([0.25, 0.75])
    world: Any = draw_world(
        worlds.regression(
            WEIGHTS, covariance=COVARIANCE, noise=NOISE, probabilities=shares, **options
        )
    )
    variance = shares @ NOISE**2
    expected = population(np.array(options["test_weights"]), np.array([variance]))
    np.testing.assert_allclose(world.test_moments, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(world.target, options["target"])
    np.testing.assert_array_equal(world.causal, [True, False, True])


def test_a_singular_covariance_has_a_world() -> None:
    """Also a traced one: two copies of one input."""
    ones = np.ones((2, 2))

    def make(covariance: Any) -> Any:
        return worlds.regression(WEIGHTS[:, :2], covariance=covariance)

    for world in (draw_world(make(ones)), jax.jit(lambda c: make(c)(jax.random.key(0)))(ones)):
        np.testing.assert_allclose(world.second_moments[:, :2, :2], [ones] * 2, atol=1e-5)
        x, _ = world.draw_examples(jax.random.key(0), jnp.asarray(0), 5)
        np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-5)


def design(**options: Any) -> Any:
    numbers = {"covariance": COVARIANCE, "noise": NOISE}
    world = draw_world(worlds.fixed_design(WEIGHTS, **numbers, **options))
    world.check()
    return world


def test_a_design_is_shared_by_all_environments() -> None:
    world = design(num_examples=50)
    x, y = np.asarray(world.inputs, float), np.asarray(world.labels, float)
    assert x.shape == (50, 3)
    assert y.shape == (2, 50)
    every = np.broadcast_to(x, (2, 50, 3))
    np.testing.assert_allclose(world.second_moments, by_definition(every, y), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(world.test_moments, population(WEIGHTS, NOISE**2), rtol=1e-5)
    np.testing.assert_array_equal(world.rows.inputs[0], world.inputs)
    x, y = (np.asarray(v) for v in world.draw_examples(jax.random.key(0), jnp.asarray(1), 200))
    places = [int(np.flatnonzero((np.asarray(world.inputs) == row).all(1))[0]) for row in x]
    np.testing.assert_array_equal(y, np.asarray(world.labels)[1, places])
    assert len(set(places)) > 40


def test_noise_of_a_design_is_fixed_and_may_be_shared() -> None:
    own, shared = design(num_examples=20_000), design(num_examples=20_000, shared_noise=True)
    for world, correlation in ((own, 0.0), (shared, 1.0)):
        rest = world.labels - WEIGHTS @ np.asarray(world.inputs, float).T
        np.testing.assert_allclose(rest.std(1), NOISE, rtol=4 / 200)
        found = np.corrcoef(rest)[0, 1]
        assert abs(found - correlation) < 4.5 / 20_000**0.5


def test_drawn_inputs_have_the_covariance() -> None:
    x = np.asarray(design(num_examples=40_000).inputs, float)
    products = x[:, :, None] * x[:, None, :]
    z = (products.mean(0) - COVARIANCE) / (products.std(0) / len(x) ** 0.5)
    assert np.abs(z).max() < 4.5


def test_measurements_train_on_a_given_design() -> None:
    """The gradients of both measurements against a plain loop."""
    x = np.array([[1.0, 0.5, 0.0], [0.2, -1.0, 2.0]])
    world: Any = draw_world(worlds.fixed_design(WEIGHTS, design=x))
    params, model = {"weights": jnp.array([0.3, -0.2, 0.1])}, models.linear(dim=3)
    batch = Batch(jnp.array([1, 0]), jnp.array([1, 3]))
    expected = np.zeros(3)
    for w, share in zip(WEIGHTS, (0.75, 0.25), strict=True):
        for row in x:
            expected += share * (row @ (np.asarray(params["weights"], float) - w)) * row / 4
    for measurement in (measurements.moments(), measurements.examples(full=True)):
        data = measurement.init(jax.random.key(0), world)
        step = jnp.zeros((), jnp.int32)
        slope, _ = measurement.gradient(jax.random.key(1), step, data, model, params, world, batch)
        np.testing.assert_allclose(slope["weights"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worlds.regression(np.ones(3)), r"weights must have shape \[E, p\], got \[3\]"),
        (
            lambda: worlds.regression(WEIGHTS, covariance=np.diag([1.0, 1.0, -1.0])),
            "covariance must be positive semidefinite, got the eigenvalue -1",
        ),
        (
            lambda: worlds.regression(WEIGHTS, covariance=np.triu(np.ones((3, 3)))),
            "covariance must be symmetric",
        ),
        (
            lambda: worlds.regression(WEIGHTS, noise=-1.0),
            "noise must be a finite number at least 0",
        ),
        (lambda: worlds.regression(WEIGHTS, noise=np.ones(3)), r"noise must have shape \[2\]"),
        (lambda: worlds.fixed_design(WEIGHTS), "num_examples must be given, .* got neither"),
        (
            lambda: worlds.fixed_design(WEIGHTS, num_examples=3, design=np.ones((2, 3))),
            "num_examples must be given, or a design in its place, got 3 with a design",
        ),
        (
            lambda: worlds.fixed_design(WEIGHTS, design=np.ones((2, 2))),
            r"design must have shape \[n, 3\], got \[2, 2\]",
        ),
    ],
)
def test_wrong_arguments_of_regressions(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()

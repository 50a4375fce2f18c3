"""Single-index worlds against draws, and the loss that knows the moments of its inputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.types import Batch
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

WEIGHTS = np.array([[1.0, 0.8, 0.0], [1.0, -0.5, 0.0]])
COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 2.0]])


@pytest.mark.parametrize("link", ["sine", "sign", "tanh", "cubic", lambda z: 1 + z + z**2])
def test_moments_of_any_link_are_those_of_draws(link: Any) -> None:
    world: Any = draw_world(
        worlds.single_index(WEIGHTS, link=link, covariance=COVARIANCE, noise=[0.3, 0.5])
    )
    world.check()
    x, y = world.draw_examples(jax.random.key(3), jnp.asarray(1), 40_000)
    rows = np.column_stack([x, y, np.ones(len(y))]).astype(float)
    products = rows[:, :, None] * rows[:, None, :]
    error = products.std(0) / len(rows) ** 0.5
    z = (products.mean(0) - world.second_moments[1])[:4] / error[:4]
    assert np.abs(z).max() < 4.5
    best = np.linalg.solve(COVARIANCE, world.second_moments[:, :3, 3].T).T
    ratios = best[:, :2] / WEIGHTS[:, :2]  # Stein: E x y is S w times one number
    np.testing.assert_allclose(ratios[:, 0], ratios[:, 1], rtol=1e-4)
    np.testing.assert_allclose(best[:, 2], 0, atol=1e-5)
    np.testing.assert_allclose(world.target, [best[:, 0].mean(), 0, 0], rtol=1e-4)


def test_a_linear_link_is_a_regression() -> None:
    one: Any = draw_world(worlds.single_index(WEIGHTS, link="linear", covariance=COVARIANCE))
    other: Any = draw_world(worlds.regression(WEIGHTS, covariance=COVARIANCE))
    for name in ("second_moments", "test_moments", "target", "causal"):
        found, expected = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_environment_without_weights_has_a_constant_label() -> None:
    world: Any = draw_world(worlds.single_index(np.zeros((1, 2)), link=jnp.cos, noise=0.5))
    np.testing.assert_allclose(world.second_moments[0, 2], [0, 0, 1.25, 1], atol=1e-6)


@pytest.mark.slow
def test_known_moments_of_inputs_leave_those_of_the_label() -> None:
    """The gradient is (S w - b^)/2 with the mean b^ of x y of the sample."""
    world: Any = draw_world(worlds.single_index(WEIGHTS, covariance=COVARIANCE, noise=0.5))
    key, params = jax.random.key(0), {"weights": jnp.array([0.3, -0.2, 0.1])}
    plain, known = (measurements.moments(40, known_inputs=flag) for flag in (False, True))
    (sample, data), model = (m.init(key, world).training for m in (plain, known)), None
    np.testing.assert_array_equal(data.second[:, :3, :3], world.second_moments[:, :3, :3])
    np.testing.assert_array_equal(data.second[:, :3, 4], 0)
    np.testing.assert_array_equal(data.second[:, 3], sample.second[:, 3])
    model = models.linear(dim=3)
    batch = Batch(jnp.array([1, 0]), jnp.array([1, 3]))
    slope, _ = known.gradient(
        key, jnp.array(0), known.init(key, world), model, params, world, batch
    )
    cross = 0.25 * sample.second[1, :3, 3] + 0.75 * sample.second[0, :3, 3]
    expected = (COVARIANCE @ np.asarray(params["weights"]) - np.asarray(cross)) / 2
    np.testing.assert_allclose(slope["weights"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worlds.single_index(WEIGHTS, link="sin"), "link must be one of linear, sine"),
        (lambda: worlds.single_index(WEIGHTS, link=3), "link must be a name or a function"),  # pyright: ignore[reportArgumentType]
        (lambda: worlds.single_index(np.ones(2)), r"weights must have shape \[E, p\]"),
        (lambda: measurements.moments(10, known_inputs=1), "known_inputs must be True or False"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_wrong_arguments_of_single_index_worlds(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()

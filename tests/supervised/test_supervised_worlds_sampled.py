"""Worlds of which only samples are known, against plain NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import worlds
from support.moment_scores import by_definition, judge, scores
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def eills(rng: np.random.Generator, shape: tuple[int, ...], environment: int) -> Any:
    """Examples of the demonstration, line by line."""
    u = rng.standard_normal((13, *shape))
    x = np.zeros((13, *shape))
    x[4] = u[4] ** 2 - 1 if environment else u[4]
    x[1] = u[1]
    x[2] = np.sin(x[4]) + u[2]
    x[3] = np.cos(x[4]) + u[3]
    x[5] = np.sin(x[3] + u[5])
    x[10] = 2.5 * x[1] + 1.5 * x[2] + u[10]
    y = 3 * x[1] + 2 * x[2] - 0.5 * x[3] + u[0]
    x[6] = 0.8 * y * u[6]
    x[7] = (4 * x[3] + np.tanh(y) if environment else 0.5 * x[3] + y) + u[7]
    x[8] = 0.5 * x[7] - y + x[10] + u[8]
    x[9] = np.tanh(x[7]) + 0.1 * np.cos(x[8]) + u[9]
    x[11] = 0.4 * (x[7] + x[8]) * u[11]
    x[12] = u[12]
    return np.moveaxis(x[1:], 0, -1), y


@pytest.mark.parametrize("environment", [0, 1])
def test_the_demonstration_has_the_law_of_its_source(environment: int) -> None:
    world, size = draw_world(worlds.eills_demo()), 50_000
    x, y = world.draw_examples(jax.random.key(environment), jnp.array(environment), size)
    other_x, other_y = eills(np.random.default_rng(environment + 5), (size,), environment)
    judge(scores(np.column_stack([x, y]), np.column_stack([other_x, other_y])))


def test_the_demonstration_has_the_known_biases() -> None:
    """E x (y - w*'x) on x7, x8 and x9; its sign is the same in both environments."""
    world = draw_world(worlds.eills_demo())
    counts = jnp.full(2, 400_000)
    second = np.asarray(world.draw_moments(jax.random.key(0), jnp.arange(2), counts))
    biases = second[:, :12, 12] - second[:, :12, :12] @ np.asarray(world.target)
    np.testing.assert_allclose(
        biases[:, 6:9], [[0.99, -0.51, 0.19], [0.18, -0.91, 0.03]], atol=0.02
    )
    np.testing.assert_allclose(np.delete(biases, [6, 7, 8], 1), 0, atol=0.03)
    np.testing.assert_allclose(world.target, [3, 2, -0.5, *[0] * 9])


def test_moments_of_many_slabs_are_those_of_the_same_examples() -> None:
    """2500 examples fill two slabs of 1024 and a part of a third one."""
    world, key = draw_world(worlds.eills_demo()), jax.random.key(3)
    found = world.draw_moments(key, jnp.array([1]), jnp.array([2500]))[0]
    own = jax.random.fold_in(key, 1)
    slabs = [
        world.draw_examples(jax.random.fold_in(own, slab), jnp.array(1), 1024) for slab in range(3)
    ]
    x, y = (np.concatenate(part)[:2500] for part in zip(*slabs, strict=True))
    np.testing.assert_allclose(found, by_definition(x, y), rtol=2e-4, atol=2e-4)


def test_a_traced_number_of_examples_is_drawn_too() -> None:
    world, key = draw_world(worlds.eills_demo()), jax.random.key(3)

    @jax.jit
    @jax.vmap
    def draw(number: jax.Array) -> jax.Array:
        return world.draw_moments(key, jnp.array([0, 1]), jnp.stack([number, number]))

    numbers = jnp.array([0.0, 100.0, 3000.0, jnp.inf])
    found = draw(numbers)
    assert (found[0] == 0).all()
    assert jnp.isnan(found[3]).all()
    for place in (1, 2):
        plain = world.draw_moments(key, jnp.array([0, 1]), jnp.full(2, numbers[place]))
        np.testing.assert_allclose(found[place], plain, rtol=1e-5, atol=1e-5)


def test_a_world_of_samples_says_what_it_does_not_know() -> None:
    world = draw_world(worlds.eills_demo())
    with pytest.raises(ValueError, match="world must know the moments of its population"):
        _ = world.second_moments
    with pytest.raises(ValueError, match="counts must be finite and at most 10"):
        world.draw_moments(jax.random.key(0), jnp.arange(2), jnp.full(2, jnp.inf))
    with pytest.raises(ValueError, match="probabilities must sum to one"):
        worlds.eills_demo(probabilities=[0.5, 0.6])
    assert world.test_moments.shape == (0, 14, 14)
    assert world.accepted
    world.check()

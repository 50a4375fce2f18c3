"""Worlds of which only samples are known, against plain NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import random
from causal_sgd.supervised import worlds
from support.moment_scores import by_definition, drawn_once, judge, scores
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
    second = drawn_once(world, 0, [400_000, 400_000])
    biases = second[:, :12, 12] - second[:, :12, :12] @ np.asarray(world.target)
    np.testing.assert_allclose(
        biases[:, 6:9], [[0.99, -0.51, 0.19], [0.18, -0.91, 0.03]], atol=0.02
    )
    np.testing.assert_allclose(np.delete(biases, [6, 7, 8], 1), 0, atol=0.03)
    np.testing.assert_allclose(world.target, [3, 2, -0.5, *[0] * 9])


@pytest.mark.slow
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


@pytest.mark.slow
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


DIM = 9
LABEL = (DIM + 1) // 2


def many_random_models(**options: Any) -> Any:
    factory = worlds.random_scm(dim=DIM, rejection_examples=2000, **options)
    return jax.jit(jax.vmap(factory))(jax.random.split(jax.random.key(0), 60))


@pytest.mark.slow
def test_random_models_have_the_structure_of_their_source() -> None:
    world = many_random_models(same_variance=False)
    effects, scales = (np.asarray(leaf) for leaf in world.coefficients)
    edges = (effects != 0).any(-1)
    np.testing.assert_array_equal(edges[:, 0], edges[:, 1])
    assert not edges[..., np.triu_indices(DIM + 1)[0], np.triu_indices(DIM + 1)[1]].any()
    assert ((effects != 0).sum(-1) <= 1).all()
    # At most 4 parents, and one more where a child of the label was added; the label has 5.
    parents, children = edges[:, 0].sum(2), edges[:, 0, :, LABEL].sum(1)
    assert (np.delete(parents, LABEL, 1) <= 5).all()
    assert (parents[:, LABEL] == 5).all()
    assert (children == DIM - LABEL).all()  # no more than 4 nodes come later
    # The label is linear with the same coefficients, which are w*.
    np.testing.assert_array_equal(effects[:, 0, LABEL], effects[:, 1, LABEL])
    weights = np.delete(effects[:, 0, LABEL, :, 0], LABEL, 1)
    np.testing.assert_allclose(weights, world.target)
    np.testing.assert_array_equal(weights != 0, world.causal)
    assert ((np.abs(weights) >= 1) & (np.abs(weights) <= 1.5) | (weights == 0)).all()
    assert (effects[:, :, LABEL, :, 1:] == 0).all()
    of_label = np.abs(effects[:, :, LABEL + 1 :, LABEL].sum(-1))
    assert ((of_label > 0.499) & (of_label < 1.501)).all()
    assert ((scales >= 0.5) & (scales <= 2)).all()


@pytest.mark.slow
def test_examples_of_a_random_model_solve_its_equations() -> None:
    world = draw_world(worlds.random_scm(dim=DIM, rejection_examples=2000))
    key = jax.random.key(7)
    x, y = world.draw_examples(key, jnp.array(1), 50)
    z = np.insert(np.asarray(x, np.float64), LABEL, y, axis=1)
    effects, scales = (np.asarray(leaf[1], np.float64) for leaf in world.coefficients)
    assert scales[LABEL] == 1
    functions = (lambda t: t, np.sin, lambda t: 1 / (1 + np.exp(-t)), np.cos)
    functions = (*functions, lambda t: np.sin(np.pi * t))
    noise = z.copy()
    for node in range(DIM + 1):
        for parent in range(node):
            for kind, function in enumerate(functions):
                noise[:, node] -= effects[node, parent, kind] * function(z[:, parent])
    drawn = np.asarray(random.normals(key, (DIM + 1, 50), float)).T
    np.testing.assert_allclose(noise, drawn * scales, atol=2e-3)


@pytest.mark.slow
def test_random_models_are_accepted_where_pooled_least_squares_is_biased() -> None:
    """By NumPy on fresh examples; models whose bias is near the limit of 1/2 are not judged."""
    world = many_random_models()
    keys = jax.random.split(jax.random.key(9), 60)

    def moments(each: Any, key: jax.Array) -> jax.Array:
        return each.draw_moments(key, jnp.arange(2), jnp.full(2, 4000))

    second = np.asarray(jax.jit(jax.vmap(moments))(world, keys), np.float64).mean(1)
    pooled = np.linalg.solve(second[:, :DIM, :DIM], second[:, :DIM, DIM, None])[..., 0]
    bias = ((pooled - world.target) ** 2).sum(1)
    clear = (bias < 0.3) | (bias > 0.8)
    assert clear.sum() > 20
    assert 0 < np.mean(world.accepted) < 1
    np.testing.assert_array_equal(np.asarray(world.accepted)[clear], bias[clear] > 0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 3}, "dim must be a whole number, at least 4, got 3"),
        ({"least_bias": -1.0}, "least_bias must be a finite number at least 0"),
        ({"same_variance": 1}, "same_variance must be True or False"),
        ({"rejection_examples": 0}, "rejection_examples must be a whole number, at least 1"),
        ({"probabilities": [1.0]}, "probabilities must have one entry per environment"),
    ],
)
def test_wrong_arguments_of_random_structural_models(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.random_scm(**options)

"""Discrete worlds and mixtures: populations and the laws of sampled moments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import worlds
from support.cases import few
from support.moment_scores import (
    MAX_Z,
    by_definition,
    drawn_by_definition,
    drawn_moments,
    drawn_once,
    entries,
    judge,
    population_scores,
    populations,
    scores,
)
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FLIPS = (0.2, 0.25)


def two_bit(**options: Any) -> Any:
    return draw_world(worlds.two_bit(invariant_flip=0.1, spurious_flips=FLIPS, **options))


def test_two_bits_have_their_moments_in_closed_form() -> None:
    world = two_bit(test_flips=(0.9,))
    a = 0.8
    for flip, second in zip((*FLIPS, 0.9), np.concatenate(populations(world)), strict=True):
        c = 1 - 2 * flip
        expected = [[1, a * c, a, 0], [a * c, 1, c, 0], [a, c, 1, 0], [0, 0, 0, 1]]
        np.testing.assert_allclose(second, expected, atol=1e-6)
    np.testing.assert_allclose(world.target, [a, 0], atol=1e-6)


def test_the_better_point_of_the_two_bits_has_the_stated_risks() -> None:
    """At alpha = .1 and beta = .2, .25 (Kamath et al. 2021): a = .625, b = .3307."""
    world = two_bit(test_flips=(0.9,))
    v = np.array([0.625, (0.5 - 1 / (4 * 0.8**2)) ** 0.5, -1, 0])
    moments = np.concatenate(populations(world))
    risks = np.einsum("i,eij,j->e", v, moments, v)
    np.testing.assert_allclose(risks, [0.302, 0.335, 0.765], atol=1e-3)
    invariant = np.append(world.target, [-1, 0])
    np.testing.assert_allclose(invariant @ moments[0] @ invariant, 0.36, atol=1e-6)


@pytest.mark.parametrize("count", few([1, 7, 60], {7}))
def test_moments_of_counts_have_the_law_of_drawn_examples(count: int) -> None:
    world, draws = two_bit(), 20_000
    one, other = drawn_moments(world, 1, count, draws), drawn_by_definition(world, 1, count, draws)
    judge(scores(entries(one), entries(other)))


def test_counts_of_atoms_are_whole_and_add_up() -> None:
    world = two_bit()
    counts = jnp.array([1000.0, 0.0])
    draw = jax.jit(world.draw_counts)
    drawn = np.asarray(draw(jax.random.key(0), jnp.arange(2), counts))
    np.testing.assert_array_equal(drawn.sum(1), counts)
    np.testing.assert_array_equal(drawn, drawn.round())
    assert (drawn_once(world, 0, counts)[1] == 0).all()


def test_atoms_are_drawn_with_their_mass() -> None:
    world, size = two_bit(), 100_000
    draw = jax.jit(lambda key: world.draw_examples(key, jnp.array(0), size))
    x, y = map(np.asarray, draw(jax.random.key(4)))
    for x1, x2 in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        for label in (1, -1):
            share = np.mean((x[:, 0] == x1) & (x[:, 1] == x2) & (y == label))
            chance = (0.9 if x1 == label else 0.1) * (0.8 if x2 == label else 0.2) / 2
            assert abs(share - chance) < MAX_Z * (chance * (1 - chance) / size) ** 0.5
    second = by_definition(x, y)
    np.testing.assert_allclose(second, populations(world)[0][0], atol=5 / size**0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"invariant_flip": 1.5},
            "invariant_flip must be a finite number at least 0 and at most 1",
        ),
        ({"spurious_flips": []}, r"spurious_flips must have shape \[E\]"),
        ({"spurious_flips": [-0.1]}, "spurious_flips must be a finite number at least 0"),
        ({"test_flips": 0.9}, r"test_flips must have shape \[T\], got \[\]"),
        (
            {"probabilities": [1.0]},
            r"probabilities must have one entry per environment",
        ),
    ],
)
def test_wrong_arguments_of_two_bits(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.two_bit(**options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": jnp.zeros(7)}, r"world.inputs must have shape \[7, 2\]"),
        ({"mass": jnp.full((2, 8), 0.1)}, "world.mass must sum to one in every environment"),
        ({"mass": jnp.full((2, 8), -0.125)}, "world.mass must be a finite number at least 0"),
        ({"inputs": jnp.full((8, 2), jnp.nan)}, "world.inputs must be a finite number"),
    ],
)
def test_a_table_refuses_arrays_that_make_no_world(changes: dict[str, Any], words: str) -> None:
    world = two_bit()
    world.check()
    with pytest.raises(ValueError, match=words):
        world._replace(**changes).check()


def mixture(rng: np.random.Generator, size: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Examples given the label, by plain NumPy; standard deviations .5, .5 and 2."""
    y = rng.choice([1.0, -1.0], size)
    return y[:, None] * mean + np.array([0.5, 0.5, 2]) * rng.standard_normal((size, 3)), y


MIXTURE: dict[str, Any] = {
    "dim_causal": 2,
    "dim_spurious": 1,
    "signal": np.array([1.0, -0.5]),
    "noise": 0.5,
    "spurious_noise": 2.0,
    "spurious_means": np.array([[1.5], [-0.7]]),
}


def test_gaussian_environments_have_the_moments_of_their_definition() -> None:
    world, rng = draw_world(worlds.gaussian_environments(**MIXTURE)), np.random.default_rng(0)
    training, tests = populations(world)
    z = []
    for index, own in enumerate((1.5, -0.7)):
        for sign, moments in ((1, training), (-1, tests)):
            x, y = mixture(rng, 40_000, np.array([1.0, -0.5, sign * own]))
            z.append(population_scores(moments[index], x, y).ravel())
    judge(np.concatenate(z))
    # w* is the regression on the causal inputs alone in every environment.
    for second in training:
        found = np.linalg.solve(second[:2, :2], second[:2, 3])
        np.testing.assert_allclose(found, np.asarray(world.target)[:2], rtol=1e-4)


@pytest.mark.parametrize("count", few([1, 2, 4, 5, 9, 40], {4}))
def test_moments_of_mixtures_have_the_law_of_drawn_examples(count: int) -> None:
    """Up to p + 2 examples the scatter has fewer degrees than inputs."""
    world, draws = draw_world(worlds.gaussian_environments(**MIXTURE)), 20_000
    x, y = mixture(np.random.default_rng(count), count * draws, np.array([1.0, -0.5, 1.5]))
    other = by_definition(x.reshape(draws, count, 3), y.reshape(draws, count))
    judge(scores(entries(drawn_moments(world, 0, count, draws)), entries(other)))


@pytest.mark.slow
def test_examples_of_mixtures_are_scrambled_as_their_moments() -> None:
    world, size = draw_world(worlds.gaussian_environments(**MIXTURE, scramble=True)), 40_000
    plain = draw_world(worlds.gaussian_environments(**MIXTURE))
    draw = jax.jit(lambda key: world.draw_examples(key, jnp.array(1), size))
    x, y = draw(jax.random.key(2))
    judge(population_scores(world.second_moments[1], np.asarray(x), np.asarray(y)))
    back = np.eye(5)
    back[:3, :3] = world.unscramble
    found = back @ np.asarray(world.second_moments) @ back.T
    np.testing.assert_allclose(found, plain.second_moments, atol=1e-5)
    np.testing.assert_allclose(world.unscramble @ world.target, plain.target, atol=1e-6)
    drawn = drawn_once(world, 0, [1e8, 0.0])
    np.testing.assert_allclose(drawn[0], world.second_moments[0], atol=5e-3)
    assert (drawn[1] == 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim_causal": 0}, "dim_causal must be a whole number, at least 1, got 0"),
        ({"num_environments": 0}, "num_environments must be a whole number, at least 1, got 0"),
        ({"signal": [1.0]}, r"signal must have shape \[3\], got \[1\]"),
        ({"noise": 0.0}, "noise must be a finite number above 0"),
        ({"spurious_scale": -1.0}, "spurious_scale must be a finite number at least 0"),
        ({"spurious_means": np.zeros((2, 2))}, r"spurious_means must have shape \[E, 3\]"),
        ({"scramble": 1}, "scramble must be True or False"),
    ],
)
def test_wrong_arguments_of_gaussian_environments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.gaussian_environments(**options)

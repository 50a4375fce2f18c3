"""Linear worlds: their moments against plain NumPy, and the law of sampled moments."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import random
from causal_sgd.supervised import worlds
from support.cases import few
from support.moment_scores import (
    drawn_by_definition,
    drawn_moments,
    entries,
    judge,
    population_scores,
    populations,
    scores,
)
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE = 40_000
CHAIN_SCALES = (0.2, 2.0, 5.0)
LAW_CASES = {6}  # of the default run
CHAINS = [(hidden, hetero, ones) for hidden in (0, 1) for hetero in (0, 1) for ones in (0, 1)]


def chain_of_the_source(
    rng: np.random.Generator, scale: float, numbers: np.ndarray, hidden: int, hetero: int, ones: int
) -> tuple[np.ndarray, np.ndarray]:
    """Examples of the chain, row by row as its source draws them."""
    eye = np.eye(5)
    on_y, on_z = (eye, eye) if ones else numbers[:2]
    on_x, h_y, h_z = numbers[2:] if hidden else (eye, 0 * eye, 0 * eye)
    normal = rng.standard_normal((4, SIZE, 5))
    h = scale * normal[0]
    x = h @ on_x + scale * normal[1]
    y = x @ on_y + h @ h_y + (scale if hetero else 1) * normal[2]
    z = y @ on_z + h @ h_z + (1 if hetero else scale) * normal[3]
    return np.concatenate([x, z], 1), y.sum(1)


@pytest.mark.parametrize(("hidden", "hetero", "ones"), few(CHAINS, {(1, 0, 0)}))
def test_the_chain_has_the_moments_of_its_source(hidden: int, hetero: int, ones: int) -> None:
    factory = worlds.chain(hidden=bool(hidden), hetero=bool(hetero), ones=bool(ones))
    world = draw_world(factory)
    key = random.fold_in(jax.random.key(0), 0)
    draw = jax.jit(lambda key: random.normals(key, (5, 5, 5), float))
    numbers = np.asarray(draw(key)) / 10
    rng, z = np.random.default_rng(1), []
    training, tests = populations(world)
    assert len(training) == 2
    for scale, second in zip(CHAIN_SCALES, [*training, *tests], strict=True):
        x, y = chain_of_the_source(rng, scale, numbers, hidden, hetero, ones)
        z.append(population_scores(second, x, y).ravel())
    judge(np.concatenate(z))
    row_sums = np.ones(5) if ones else numbers[0].sum(1)
    np.testing.assert_allclose(world.target, [*row_sums, *np.zeros(5)], atol=1e-6)


@pytest.mark.slow
def test_the_unit_test_has_the_moments_of_its_source() -> None:
    world = draw_world(worlds.unit_test_regression(dim_spurious=3, num_environments=5))
    first, second = random.fold_in(jax.random.key(0), jnp.arange(2))
    on_y = np.asarray(random.normals(first, (5, 5), float)) / 5
    columns = [random.normals(random.fold_in(second, place), 5, float) for place in range(3)]
    on_z = np.stack(columns, 1) / 3
    rng, z = np.random.default_rng(2), []
    for index, scale in enumerate((0.1, 1.5, 2.0)):
        x = scale * rng.standard_normal((SIZE, 5))
        y = x @ on_y + scale * rng.standard_normal((SIZE, 5))
        spurious = y @ on_z + rng.standard_normal((SIZE, 3))
        inputs = np.concatenate([x, spurious], 1)
        z.append(population_scores(world.second_moments[index], inputs, y.sum(1)).ravel())
        inputs = np.concatenate([x, rng.permutation(spurious)], 1)
        z.append(population_scores(world.test_moments[index], inputs, y.sum(1)).ravel())
    judge(np.concatenate(z))
    # Further scales are 10^U(-2, 1), and the risk of w* is d e^2.
    v = np.append(world.target, [-1, 0])
    risks = np.einsum("i,eij,j->e", v, world.second_moments, v)
    np.testing.assert_allclose(risks[:3], 5 * np.array([0.1, 1.5, 2]) ** 2, rtol=1e-3)
    assert ((risks[3:] > 5e-4) & (risks[3:] < 500)).all()


@pytest.mark.slow
def test_a_unit_test_without_spurious_inputs_has_causal_ones_only() -> None:
    world = draw_world(worlds.unit_test_regression(dim_spurious=0))
    assert world.causal.all()
    np.testing.assert_allclose(world.second_moments, world.test_moments, rtol=1e-5, atol=1e-6)


def blocks(world: Any) -> tuple[np.ndarray, np.ndarray]:
    """E x x' [E, p, p] and the biases E x (y - w*'x - c) [E, p], by plain NumPy."""
    second, target = populations(world)[0].astype(float), np.asarray(world.target)
    dim = len(target)
    center = second - second[:, :, -1:] * second[:, -1:, :]
    inputs = center[:, :dim, :dim]
    return inputs, center[:, :dim, dim] - inputs @ target


def test_the_contradiction_keeps_its_covariance_and_has_its_biases() -> None:
    biases = np.array([1.9, -0.9, 0.5])
    scales = np.array([1.0, 2.0, 0.5])
    options: dict[str, Any] = {
        "input_means": np.arange(15.0).reshape(3, 5) / 7,
        "intercept": 0.3,
        "dim_invariant": 2,
        "dim_spurious": 3,
        "scales": scales,
        "biases": biases / 3,
        "noise_spread": 0.2,
    }
    world = draw_world(worlds.contradiction(**options))
    inputs, found = blocks(world)
    for index in range(3):
        expected = np.diag([scales[index] ** 2] * 2 + [4.0] * 3)
        np.testing.assert_allclose(inputs[index], expected, atol=2e-5)
        np.testing.assert_allclose(found[index], [0, 0] + [biases[index] / 3] * 3, atol=1e-5)
    v = np.append(world.target, [-1, 0.3])
    risks = np.einsum("i,eij,j->e", v, world.second_moments, v)
    np.testing.assert_allclose(risks, np.array([1.2, 0.8, 1.2]) ** 2, rtol=1e-4)
    np.testing.assert_allclose(world.means[:, :5], options["input_means"], rtol=1e-6)


def test_the_anticausal_world_has_its_biases() -> None:
    slopes = np.array([2.0, -0.5])
    options: dict[str, Any] = {"noise": 0.7, "noise_spread": 0.1, "spurious_noise": 0.4}
    world = draw_world(worlds.anticausal(slopes=slopes, dim_invariant=2, dim_spurious=2, **options))
    inputs, found = blocks(world)
    variances = (0.7 * np.array([1.1, 0.9])) ** 2
    label = 2 + variances
    np.testing.assert_allclose(found[:, 2:], (slopes * variances)[:, None] * np.ones(2), rtol=1e-4)
    np.testing.assert_allclose(found[:, :2], 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:, 3, 3], slopes**2 * label + 0.16, rtol=1e-4)
    np.testing.assert_allclose(inputs[:, 2, 3], slopes**2 * label, rtol=1e-4)
    np.testing.assert_allclose(inputs[:, 0, 3], slopes, rtol=1e-4)


def test_a_rotation_of_the_coordinates_is_undone_by_unscramble() -> None:
    means = np.array([[0.5, 1.0], [0.0, -1.0]])
    plain = draw_world(worlds.contradiction(input_means=means, intercept=2.0))
    angle = 0.6
    turned = draw_world(worlds.contradiction(input_means=means, intercept=2.0, angle=angle))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(turned.target, turn @ [1, 0], atol=1e-6)
    for world in (
        turned,
        draw_world(worlds.contradiction(input_means=means, intercept=2.0, scramble=True)),
    ):
        back = np.eye(4)
        back[:2, :2] = world.unscramble
        found = back @ np.asarray(world.second_moments) @ back.T
        np.testing.assert_allclose(found, plain.second_moments, atol=1e-5)
        np.testing.assert_allclose(world.unscramble @ world.target, [1, 0], atol=1e-6)


@pytest.mark.slow
def test_scrambled_inputs_of_the_test_keep_the_prediction() -> None:
    plain, turned = (
        draw_world(worlds.chain(hidden=True, ones=False, scramble=scramble))
        for scramble in (False, True)
    )
    assert not np.allclose(plain.target, turned.target, atol=0.1)
    back = np.eye(12)
    back[:10, :10] = turned.unscramble
    found = back @ np.asarray(turned.test_moments) @ back.T
    np.testing.assert_allclose(found, plain.test_moments, atol=2e-4)
    np.testing.assert_allclose(turned.unscramble @ turned.target, plain.target, atol=1e-5)


@pytest.mark.parametrize("count", few([1, 2, 4, 5, 6, 12], LAW_CASES))
def test_moments_of_samples_have_the_law_of_drawn_examples(count: int) -> None:
    """k = 4 noises of p + 1 = 4 variables with means; n up to k, just above it, and beyond."""
    world = draw_world(
        worlds.anticausal(
            dim_spurious=2,
            input_means=np.array([[0.5, 0.0, -1.0], [0.0, 1.0, 0.0]]),
            intercept=0.7,
            scramble=True,
        )
    )
    draws = 20_000 if count in LAW_CASES else 60_000
    one = drawn_moments(world, 1, count, draws)
    judge(scores(entries(one), entries(drawn_by_definition(world, 1, count, draws))))


def test_a_traced_number_of_examples_gives_the_population_in_the_limit() -> None:
    world = draw_world(worlds.chain())
    environments = jnp.arange(2)

    @jax.jit
    def draw(number: jax.Array) -> jax.Array:
        return world.draw_moments(jax.random.key(3), environments, jnp.full(2, number))

    population = np.asarray(world.second_moments)
    sizes = np.sqrt(
        population[:, None, range(12), range(12)] * population[:, range(12), range(12), None]
    )
    for number in (1e3, 1e6, 1e9):
        error = np.abs(draw(jnp.asarray(number)) - population) / sizes
        assert error.max() < 5 / number**0.5 + 1e-5
    assert (draw(jnp.asarray(0.0)) == 0).all()
    np.testing.assert_allclose(draw(jnp.asarray(3.0))[:, -1, -1], 1)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("chain", {"dim": 0}, "dim must be a whole number, at least 1, got 0"),
    ("chain", {"scales": [0.2, -1.0]}, "scales must be a finite number above 0"),
    ("chain", {"scales": []}, r"scales must have shape \[E\], got \[0\]"),
    ("chain", {"training": (0, 3)}, "training must be different numbers of environments from 0 to"),
    ("chain", {"training": ()}, "at least one"),
    ("chain", {"training": (1, 1)}, "training must be different"),
    ("chain", {"hidden": 1}, "hidden must be True or False, got 1"),
    ("chain", {"input_means": np.zeros((3, 10))}, r"input_means must have shape \[2, 10\]"),
    ("chain", {"intercept": np.nan}, "intercept must be a finite number, got nan"),
    ("chain", {"probabilities": [0.5, 0.6]}, "probabilities must sum to one"),
    ("chain", {"scramble": "yes"}, "scramble must be True or False"),
    ("contradiction", {"biases": [3.0, 0.0]}, "biases must be at most noise"),
    ("contradiction", {"biases": 1.0}, r"biases must have shape \[E\]"),
    ("contradiction", {"spread": 1.8, "dim_spurious": 2}, "biases must be at most noise"),
    ("contradiction", {"variance": 0.0}, "variance must be a finite number above 0"),
    ("contradiction", {"noise_spread": 1.0}, "noise_spread must be below 1"),
    ("contradiction", {"scales": [1.0]}, r"scales must have shape \[2\]"),
    ("contradiction", {"dim_spurious": 0}, "dim_spurious must be a whole number, at least 1"),
    ("anticausal", {"spurious_noise": 0}, "spurious_noise must be a finite number above 0"),
    ("anticausal", {"slopes": [np.inf]}, "slopes must be a finite number"),
    (
        "unit_test_regression",
        {"dim_spurious": -1},
        "dim_spurious must be a whole number, at least 0",
    ),
    (
        "unit_test_regression",
        {"scales": [1.0], "num_environments": 3},
        "num_environments must be None where scales are given",
    ),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_wrong_arguments_of_linear_worlds(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        getattr(worlds, name)(**options)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        worlds.chain(scale=1.0)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"means": jnp.zeros((2, 2))}, r"world.means must have shape \[2, 3\]"),
        ({"probabilities": jnp.array([0.5, 0.4])}, "world.probabilities must sum to one"),
        ({"mixing": jnp.full((2, 3, 3), jnp.nan)}, "world.mixing must be a finite number"),
        ({"counts": jnp.ones(3)}, r"world.counts must have shape \[2\]"),
    ],
)
def test_a_linear_world_refuses_arrays_that_make_none(changes: dict[str, Any], words: str) -> None:
    world = worlds.contradiction()(jax.random.key(0))
    assert isinstance(world, worlds.LinearWorld)
    world.check()
    with pytest.raises(ValueError, match=words):
        world._replace(**changes).check()

"""Structural equation models: against plain NumPy, node by node, and their interventions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import worlds
from causal_sgd.supervised.worlds import Intervention
from support.moment_scores import judge, population_scores, populations
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE = 40_000
WEIGHTS = np.zeros((5, 5))  # the label is node 2; the order is 3, 0, 2, 4, 1
WEIGHTS[3, 0], WEIGHTS[3, 2], WEIGHTS[0, 2] = 0.8, -0.6, 1.2
WEIGHTS[2, 4], WEIGHTS[4, 1], WEIGHTS[2, 1], WEIGHTS[0, 4] = 0.9, -1.1, 0.5, 0.3
MEANS = np.array([0.2, -0.4, 0.7, 0.0, 1.0])
VARIANCES = np.array([1.0, 0.5, 2.0, 1.5, 0.3])
INTERVENTIONS: list[list[Intervention]] = [
    [],
    [Intervention("shift", 0, 2.0, 1.0), Intervention("scale", 4, factor=3.0)],
    [Intervention("do", 4, -1.0, 0.5), Intervention("shift", 3, 1.0)],
    [Intervention("do", 3, 2.0, 0.0), Intervention("shift", 1, 0.0, 2.0)],
]


def node_by_node(rng: np.random.Generator, interventions: list[Intervention]) -> Any:
    """Examples [n, 4], [n] under interventions, computed in causal order."""
    nodes = np.zeros((SIZE, 5))
    for node in (3, 0, 2, 4, 1):
        noise = VARIANCES[node] ** 0.5 * rng.standard_normal(SIZE)
        for each in interventions:
            if each.node == node and each.kind == "scale":
                noise = each.factor * noise
        value = nodes @ WEIGHTS[:, node] + MEANS[node] + noise
        for each in interventions:
            number = each.mean + np.sqrt(each.variance) * rng.standard_normal(SIZE)
            if each.node == node and each.kind == "do":
                value = number
            if each.node == node and each.kind == "shift":
                value = value + number
        nodes[:, node] = value
    return nodes[:, [0, 1, 3, 4]], nodes[:, 2]


def own(**options: Any) -> Any:
    return worlds.from_equations(
        WEIGHTS, variances=VARIANCES, means=MEANS, label=2, interventions=INTERVENTIONS, **options
    )


def test_own_equations_have_the_moments_of_their_simulation() -> None:
    world = draw_world(own(tests=INTERVENTIONS[1:2]))
    (training, tests), rng = populations(world), np.random.default_rng(0)
    z = [
        population_scores(second, *node_by_node(rng, interventions)).ravel()
        for second, interventions in zip(training, INTERVENTIONS, strict=True)
    ]
    judge(np.concatenate(z))
    np.testing.assert_allclose(tests[0], training[1], rtol=1e-5)
    np.testing.assert_allclose(world.target, [1.2, 0, -0.6, 0], rtol=1e-6)
    np.testing.assert_array_equal(world.causal, [True, False, True, False])


def test_a_later_intervention_on_a_node_adds_to_an_earlier_one() -> None:
    both = [[Intervention("do", 0, 1.0, 0.0), Intervention("shift", 0, 2.0, 0.5)]]
    world = draw_world(worlds.from_equations(WEIGHTS, label=2, interventions=both))
    np.testing.assert_allclose(world.means[0, 0], 3.0, rtol=1e-6)
    variance = world.second_moments[0, 0, 0] - 9
    np.testing.assert_allclose(variance, 0.5, rtol=1e-4)


def test_the_residual_of_random_models_is_the_same_in_every_environment() -> None:
    """The label is never a target; its noise has a mean in (0, 1) and a variance in (1, 2)."""

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> Any:
        world = worlds.sem(dim=5, scramble=True)(key)
        return world, world.second_moments

    world, second = jax.device_get(draw(jax.random.split(jax.random.key(0), 300)))
    v = np.concatenate([world.target, -np.ones((300, 1)), np.zeros((300, 1))], 1)
    means = np.einsum("si,sei->se", v, second[..., -1])
    variances = np.einsum("si,seij,sj->se", v, second, v) - means**2
    np.testing.assert_allclose(means, means[:, :1] * np.ones(3), atol=1e-3)
    np.testing.assert_allclose(variances, variances[:, :1] * np.ones(3), rtol=2e-3)
    assert ((means > -1.001) & (means < 0.001)).all()
    assert ((variances > 0.995) & (variances < 2.005)).all()
    # w* is found by regression on the causal inputs, whose noise is independent.
    weights = np.einsum("sij,sj->si", world.unscramble, world.target)
    assert (np.abs(weights[~np.asarray(world.causal)]) < 1e-5).all()
    sizes = np.abs(weights[np.asarray(world.causal)])
    assert ((sizes > 0.4999) & (sizes < 1.0001)).all()


@pytest.mark.slow
def test_random_graphs_have_their_degree_and_their_targets() -> None:
    draw = jax.jit(jax.vmap(worlds.sem(dim=5, num_environments=3)))
    world = draw(jax.random.split(jax.random.key(1), 4000))
    # The label has 5 possible neighbours; each is a parent with probability degree / (2 p).
    share = np.mean(world.causal)
    per_world = np.mean(world.causal, 1)
    assert abs(share - 0.27) < 4.5 * per_world.std() / 4000**0.5
    # Environments without targets are alike; each has none with probability 1 / 3.
    alike = np.isclose(world.mixing[:, 0], world.mixing[:, 1], rtol=1e-5).all((1, 2))
    chance = 1 / 9
    assert abs(alike.mean() - chance) < 4.5 * (chance * (1 - chance) / 4000) ** 0.5


@pytest.mark.slow
def test_shifts_vanish_with_their_size() -> None:
    world = draw_world(worlds.sem(shift=0.0, shift_variance=0.0))
    np.testing.assert_allclose(world.means, world.means[:1] * jnp.ones((3, 1)), rtol=1e-5)
    np.testing.assert_allclose(world.mixing, world.mixing[:1] * jnp.ones((3, 1, 1)), rtol=1e-5)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"weights": np.zeros(3)}, r"weights must have shape \[r, r\]"),
    ({"weights": np.zeros((2, 3))}, r"weights must be a square matrix"),
    ({"weights": np.ones((2, 2))}, "weights must have no cycles"),
    ({"weights": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])}, r"through the nodes \[0, 1, 2\]"),
    ({"variances": -1.0}, "variances must be a finite number at least 0"),
    ({"variances": np.ones(3)}, r"variances must have shape \[5\]"),
    ({"label": 5}, "label must be a whole number, at least -5 and at most 4, got 5"),
    ({"interventions": []}, "interventions must have at least one environment"),
    ({"interventions": "do"}, "interventions must be a list of interventions"),
    ({"interventions": [["do"]]}, "interventions must be a list of interventions"),
    (
        {"interventions": [[Intervention("do", 2)]], "label": 2},
        "interventions must not replace the equation of the label, node 2",
    ),
    ({"tests": [[Intervention("shift", 7)]]}, "tests: node must be a whole number"),
    (
        {"interventions": [[Intervention("shift", 0, variance=-1.0)]]},
        "interventions: variance must be a finite number at least 0",
    ),
    (
        {"interventions": [[Intervention("push", 0)]]},  # pyright: ignore[reportArgumentType]
        "interventions: kind must be one of shift, do, scale",
    ),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_equations(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.from_equations(**{"weights": WEIGHTS, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 0}, "dim must be a whole number, at least 1, got 0"),
        ({"degree": 6.0}, "degree must be a finite number at least 0 and at most 5"),
        ({"max_targets": 6}, "max_targets must be a whole number, at least 0 and at most 5"),
        ({"shift_variance": -1.0}, "shift_variance must be a finite number at least 0"),
        ({"num_environments": 0}, "num_environments must be a whole number, at least 1"),
        ({"probabilities": [1.0]}, "probabilities must have one entry per environment"),
    ],
)
def test_wrong_arguments_of_random_models(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        worlds.sem(**options)

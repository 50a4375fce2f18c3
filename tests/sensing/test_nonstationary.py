"""Nature changes as promised: redrawn environments keep their law, directions stay a frame.

Statistical tests are at the level 1e-3 each, with fixed seeds.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import World, nonstationary, worlds
from causal_sgd.types import Evolution

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LEVEL = 1e-3
RANKS: dict[str, Any] = {"dim": 6, "invariant_rank": 2, "spurious_rank": 2}


def history(evolution: Evolution, world: World, steps: int) -> World:
    """The worlds of every step, as `sgd` makes them."""

    def one(world: World, step: jax.Array) -> tuple[World, World]:
        world = evolution(jax.random.fold_in(jax.random.key(1), step), step, world)
        return world, world

    return jax.jit(lambda world: jax.lax.scan(one, world, jnp.arange(steps))[1])(world)


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_redrawn_environments_keep_their_law_and_forget_at_the_rate(probability: float) -> None:
    family = worlds.uniform(**RANKS, num_environments=3, mean=1.0, spread=2.0)
    start = jax.jit(family)(jax.random.key(0))
    worlds_seen = history(nonstationary.redraw(family, probability=probability), start, 3000)
    values = np.diagonal(worlds_seen.spurious_cores, axis1=2, axis2=3)[
        :, 1
    ]  # [steps, r2] of one environment
    for direction in values[:: 1 if probability == 1 else 20].T:
        assert stats.kstest(direction, stats.uniform(-1, 4).cdf).pvalue > LEVEL
    kept = np.mean(values[1:, 0] == values[:-1, 0])
    assert kept == pytest.approx(1 - probability, abs=3.3 * np.sqrt(0.25 / 3000))
    np.testing.assert_array_equal(worlds_seen.spurious_basis[-1], start.spurious_basis)


def test_small_drifts_add_up_exactly() -> None:
    world = jax.jit(worlds.two_point(**RANKS, mean=5.0, spread=0.0))(jax.random.key(0))
    steps, change = (
        20_000,
        np.array([0.3, -0.01]),
    )  # most single changes are below the rounding of the sum
    seen = history(nonstationary.drift(rate=change / steps), world, steps + 1)
    moved = np.diagonal(np.asarray(seen.spurious_cores[:, 0]), axis1=1, axis2=2) - 5
    expected = np.arange(steps + 1)[:, None] / steps * change
    np.testing.assert_allclose(moved, expected, atol=2**-12)


def test_rotated_directions_stay_a_frame_and_turn_by_the_angle() -> None:
    world = jax.jit(worlds.two_point(dim=12, invariant_rank=2, spurious_rank=3))(jax.random.key(0))
    seen = history(nonstationary.rotate(angle=0.02), world, 4000)
    own = np.asarray(seen.spurious_basis)
    np.testing.assert_allclose(
        np.einsum("tdi,tdj->tij", own, own), np.eye(3)[None].repeat(4000, 0), atol=1e-5
    )
    assert np.abs(np.einsum("di,tdj->tij", world.invariant_basis, own)).max() < 1e-4
    turned = np.linalg.norm(
        np.diff(own, axis=0), axis=1
    )  # the chord is the angle, as far as it is small
    np.testing.assert_allclose(np.sqrt((turned**2).mean(0)), 0.02, rtol=0.02)
    # isotropic: the last direction forgets as fast as the first; correlation exp(-n angle^2 / 2)
    after = np.einsum("tdi,tdi->ti", own[:-500], own[500:]).mean(0)
    assert np.all(np.abs(after - np.exp(-500 * 0.02**2 / 2)) < 0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "log-normal", "evolution": "redraw", "means": (1.0, 2.0), "rotation": 1.0},
        {"family": "goe", "evolution": "drift", "mean_drift": -3.0},
        {
            "family": "discrete",
            "eigenvalues": (2.0, -3.0),
            "probabilities": (0.7, 0.3),
            "evolution": "rotate",
        },
    ],
    ids=lambda changes: changes["family"],
)
def test_an_experiment_may_have_any_family_and_evolution(changes: dict[str, Any]) -> None:
    experiment = Experiment(
        **RANKS, batch_size=50, steps=3, metrics=("spurious_signal",), **changes
    )
    assert Experiment.parse(experiment.describe()) == experiment
    trace = jax.eval_shape(experiment.cell(), jax.random.key(0))  # traced, not compiled
    assert trace.metrics["spurious_signal"].shape == (2,)


def test_a_run_learns_from_the_world_of_its_step() -> None:
    # one direction, small steps: log u changes by log(1 + eta s_t), where s_t = 1 + t
    experiment = Experiment(
        dim=2,
        invariant_rank=1,
        spurious_rank=1,
        spread=0.0,
        measurement="population",
        model="diagonal",
        basis="canonical",
        evolution="drift",
        mean_drift=5.0,
        learning_rate=0.1,
        steps=5,
        metrics=("spurious_signal", "pooled_error"),
    )
    trace = jax.jit(experiment.cell())(jax.random.key(0))
    growth = trace.metrics["spurious_signal"][-1] / trace.metrics["spurious_signal"][0]
    assert float(growth) == pytest.approx(np.prod(1 + 0.1 * np.arange(1, 6)), rel=1e-4)
    # and metrics see the world as it is: its last mean is 5
    assert float(trace.metrics["pooled_error"][-1]) == pytest.approx(np.hypot(1, 5), rel=1e-3)

"""Worlds that change during a run."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import nonstationary, worlds
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def biases(world: Any) -> np.ndarray:
    """E x (y - w*'x) in the original coordinates, [E, p]."""
    second = np.asarray(world.second_moments)
    dim = len(world.target)
    found = second[:, :dim, dim] - second[:, :dim, :dim] @ np.asarray(world.target)
    return found @ np.asarray(world.unscramble).T


@pytest.mark.parametrize("scramble", [False, True])
def test_a_drift_moves_the_biases_of_spurious_inputs_alone(scramble: bool) -> None:
    world = draw_world(
        worlds.contradiction(noise=0.7, spread=0.3, dim_spurious=2, scramble=scramble)
    )
    evolve = nonstationary.drift(rate=1e-3)

    @jax.jit
    def after(world: Any) -> Any:
        def step(index: jax.Array, current: Any) -> Any:
            return evolve(jax.random.key(0), index, current)

        return jax.lax.fori_loop(0, 501, step, world)

    moved = after(world)
    np.testing.assert_allclose(biases(moved), biases(world) + np.array([0, 0.5, 0.5]), atol=1e-3)
    risk = np.append(world.target, [-1, 0])
    for each in (world, moved):
        risks = np.einsum("i,eij,j->e", risk, each.second_moments, risk)
        np.testing.assert_allclose(risks, 0.49, rtol=1e-4)


def test_a_drift_needs_a_linear_world() -> None:
    world = draw_world(worlds.two_bit())
    with pytest.raises(ValueError, match="world must be a LinearWorld for a drift of its biases"):
        nonstationary.drift(rate=0.1)(jax.random.key(0), jnp.array(1), world)
    with pytest.raises(ValueError, match="rate must be a finite number, got inf"):
        nonstationary.drift(rate=np.inf)

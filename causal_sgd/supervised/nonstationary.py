"""How worlds change during a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised.worlds import SupervisedWorld, WorldFactory
from causal_sgd.types import Array, Evolution, Key

__all__ = ["redraw"]


def redraw(world: WorldFactory, *, probability: float | Array) -> Evolution:
    """Draw the whole world anew with a probability before every step.

    Args:
        world: how it is drawn; its target should not depend on the key.
        probability: in [0, 1]; may be traced.

    Returns:
        An evolution.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.world_factory("world", world)
    checks.number("probability", probability, minimum=0, maximum=1)

    def evolve(key: Key, step: Array, current: SupervisedWorld) -> SupervisedWorld:
        del step
        renewed = random.uniforms(random.bits(random.fold_in(key, 0), 1), float)[0] < probability
        fresh = world(random.fold_in(key, 1))
        return jax.tree.map(lambda new, old: jnp.where(renewed, new, old), fresh, current)

    return evolve

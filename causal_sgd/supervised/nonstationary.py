"""How worlds change during a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import _room, checks, linalg, random
from causal_sgd.supervised.worlds import LinearWorld, SupervisedWorld, WorldFactory
from causal_sgd.types import Array, Evolution, Key

_room(__name__)
__all__ = ["drift", "redraw"]

QUANTUM = 2.0**-12  # smallest change of a bias by `drift`


def drift(*, rate: float | Array) -> Evolution:
    """Move the biases of a linear world: E x_j (y - w*'x) of every spurious input j grows.

    Before a step, the first one excepted, every input that is not causal gets a further multiple of
    the label's noise y - w*'x - c, so that its bias changes by `rate` in all environments. The
    label, its noise, the causal inputs and all means stay. The total change is rounded to whole
    multiples of 2^-12, so that many small ones add up without loss. Where the label has no noise,
    nothing changes.

    Args:
        rate: change of the biases per step; may be traced.

    Returns:
        An evolution.

    Raises:
        ValueError: if the rate is not finite, or (when called) the world is not linear.
    """
    checks.number("rate", rate)

    def evolve(key: Key, step: Array, world: SupervisedWorld) -> LinearWorld:
        del key
        if not isinstance(world, LinearWorld):
            raise ValueError(
                f"world must be a LinearWorld for a drift of its biases, got {type(world).__name__}"
            )
        change = jnp.asarray(rate, world.mixing.dtype) / QUANTUM

        def place(step: Array) -> Array:
            return jnp.round(change * step.astype(change.dtype)) * QUANTUM

        move = place(step) - place(jnp.maximum(step - 1, 0))
        inputs, label = world.mixing[:, :-1], world.mixing[:, -1]
        noise = label - linalg.product(world.target[None, None], inputs)[:, 0]  # [E, k]
        power = jnp.sum(noise**2, 1, keepdims=True)
        per_bias = jnp.where(power > 0, noise / jnp.where(power > 0, power, 1), 0)
        spurious = (~world.causal).astype(inputs.dtype)
        direction = linalg.product(world.unscramble.T, spurious[:, None])[:, 0]
        moved = inputs + move * direction[None, :, None] * per_bias[:, None, :]
        return world._replace(mixing=jnp.concatenate([moved, label[:, None]], 1))

    return evolve


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

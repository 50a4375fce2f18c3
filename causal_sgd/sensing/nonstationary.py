"""How nature changes while a method learns: what `sgd(evolve=...)` applies to the world before every step.

Every member of `__all__` checks its arguments and returns an `Evolution`, a pure function (key, step, world) -> world of the
same shapes. It may change the spurious basis and the cores. The invariant signal, which is what does not change, stays, and
so do the probabilities, which samplers learn at the start. What is random comes from the run's stream "evolution", so
evolutions share all other draws. Two evolutions f and g at once are a function that calls one after the other, with
different keys if both are random.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.worlds import World, WorldFactory
from causal_sgd.types import Array, Evolution, Key

__all__ = ["drift", "redraw", "rotate"]

QUANTUM = 2.0**-12  # of `drift`, in units of the signal


def redraw(world: WorldFactory, *, probability: float | Array = 1.0) -> Evolution:
    """Environments drawn anew: before every step each core is replaced by a fresh one with a probability.

    The cores of any step have exactly the distribution of the family; those of one environment at two steps n apart are the
    same with probability (1 - `probability`)^n and independent otherwise. With `probability` = 1 no environment is ever
    seen twice, and one environment in the world is as good as many for `hetero`.

    Args:
        world: the family that the cores come from, of the run's own shapes. The signs of `two_point` are random only where
            it has `num_environments`.
        probability: in [0, 1]; 0 changes nothing. May be traced.

    Raises:
        ValueError: if the probability is out of range.
    """
    checks.world_factory("world", world)
    checks.number("probability", probability, minimum=0, maximum=1)
    known = checks.concrete(probability)
    always = known is not None and bool((known == 1).all())

    def evolve(key: Key, step: Array, current: World) -> World:
        fresh = world(
            random.fold_in(key, 0)
        ).spurious_cores  # its bases are used nowhere, so they are not computed
        if not always:
            size = current.spurious_cores.shape[0]
            chance = random.uniforms(random.bits(random.fold_in(key, 1), size), fresh.dtype)
            fresh = jnp.where((chance < probability)[:, None, None], fresh, current.spurious_cores)
        return current._replace(spurious_cores=fresh)

    return evolve


def drift(*, rate: float | Array | np.ndarray) -> Evolution:
    """The mean of the spurious signal moves: before every step but the first all cores change by `rate` times I.

    It moves in whole multiples of 2^-12, so that however many small changes add up, none is lost to rounding.

    Args:
        rate: change of the mean in a step, a number or one for each direction [r2]; (end - start) / steps for a change over
            the run. May be traced.

    Raises:
        ValueError: if the rate is not finite, or (when called) has another length than the world has directions.
    """
    checks.number("rate", rate, scalar=False)

    def evolve(key: Key, step: Array, world: World) -> World:
        size = world.spurious_cores.shape[-1]
        if tuple(np.shape(rate)) not in ((), (size,)):
            raise ValueError(
                f"rate must be a number or have shape ({size},), got shape {tuple(np.shape(rate))}"
            )
        change = jnp.broadcast_to(jnp.asarray(rate, world.spurious_cores.dtype), (size,)) / QUANTUM

        def place(step: Array) -> Array:
            return jnp.round(change * step.astype(change.dtype)) * QUANTUM

        move = place(step) - place(jnp.maximum(step - 1, 0))
        return world._replace(
            spurious_cores=world.spurious_cores + (jnp.eye(size) * move[None, :])[None]
        )

    return evolve


def rotate(*, angle: float | Array) -> Evolution:
    """The spurious directions wander: a random walk of V on the frames that are orthogonal to U*.

    Before every step each direction turns by about `angle` in a random direction orthogonal to U* and the frame is made
    orthonormal again. The walk is isotropic; after n steps a direction has turned by about `angle` sqrt(n), and after many
    more than 1 / angle^2 V is a Haar distributed frame. (Where V leans towards U* by a tilt, the tilt fades.)

    Args:
        angle: root mean square angle of a step in radians, at least 0. May be traced.

    Raises:
        ValueError: if the angle is out of range.
    """
    checks.number("angle", angle, minimum=0)

    def evolve(key: Key, step: Array, world: World) -> World:
        shared, own = world.invariant_basis, world.spurious_basis
        dim, size = own.shape
        normals = random.normals(key, own.shape, own.dtype)
        move = normals - linalg.product(shared, linalg.product(shared.T, normals))
        scale = jnp.asarray(angle, own.dtype) / max(dim - shared.shape[1] - 1, 1) ** 0.5
        # To first order in the angle Gram-Schmidt moves all directions alike: the walk is isotropic.
        return world._replace(spurious_basis=linalg.orthonormal(own + scale * move))

    return evolve

"""How nature changes during a run: the `evolve` of an algorithm, applied before every step.

Every factory checks its arguments and returns an `Evolution`, a pure function
(key, step, world) -> world of the same shapes. It may change the spurious basis and the cores. The
invariant signal stays, by definition, and so do the probabilities, which samplers read at the
start. All randomness comes from the run's stream "evolution", so that runs with different
evolutions share all other draws. To combine two evolutions, call one after the other in a function,
with different keys if both are random.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from causal_sgd import _room, checks, linalg, random
from causal_sgd.sensing.worlds import World, WorldFactory
from causal_sgd.types import Array, Evolution, Key

_room(__name__)
__all__ = ["drift", "redraw", "rotate"]

QUANTUM = 2.0**-12  # smallest change of a core by `drift`, in units of the signal


def redraw(world: WorldFactory, *, probability: float | Array = 1.0) -> Evolution:
    """Before every step, replace each core by a fresh one with a probability.

    At any step the cores have exactly the distribution of the family. The cores of one environment
    n steps apart are equal with probability (1 - `probability`)^n and independent otherwise. With
    `probability` = 1 no environment is ever seen twice, and for `hetero` a world with one
    environment is as good as one with many.

    Args:
        world: the family of the fresh cores, with the shapes of the run's world. The signs of
            `two_point` are random only if `num_environments` is given.
        probability: in [0, 1]; 0 changes nothing. May be traced.

    Raises:
        ValueError: if the probability is out of range.
    """
    checks.world_factory("world", world)
    checks.number("probability", probability, minimum=0, maximum=1)
    value = checks.concrete(probability)
    always = value is not None and bool((value == 1).all())

    def evolve(key: Key, step: Array, current: World) -> World:
        # Nothing reads the bases of the fresh world, so the compiler does not compute them.
        fresh = world(random.fold_in(key, 0)).spurious_cores
        if not always:
            size = current.spurious_cores.shape[0]
            chance = random.uniforms(random.bits(random.fold_in(key, 1), size), fresh.dtype)
            fresh = jnp.where((chance < probability)[:, None, None], fresh, current.spurious_cores)
        return current._replace(spurious_cores=fresh)

    return evolve


def drift(*, rate: float | Array | np.ndarray) -> Evolution:
    """Move the mean of the spurious signal: all cores change by `rate` times I before a step.

    The first step is excepted. Changes are rounded to whole multiples of 2^-12 of the total, so
    that many small ones add up without loss.

    Args:
        rate: change of the mean per step, a number or one for each direction [r2];
            (end - start) / steps for a change over the run. May be traced.

    Raises:
        ValueError: if the rate is not finite, or (when called) its length is not the number of
            spurious directions.
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

        # The difference of two rounded totals; rounding each step by itself would accumulate.
        move = place(step) - place(jnp.maximum(step - 1, 0))
        moved = world.spurious_cores + (jnp.eye(size) * move[None, :])[None]
        return world._replace(spurious_cores=moved)

    return evolve


def rotate(*, angle: float | Array) -> Evolution:
    """Rotate the spurious directions at random: V walks on the frames orthogonal to U*.

    Before every step each direction turns by about `angle` in a random direction orthogonal to U*,
    and the frame is made orthonormal again. The walk is isotropic. After n steps a direction has
    turned by about `angle` sqrt(n); after many more than 1 / angle^2 steps V is a Haar distributed
    frame. (If V leans towards U* by a tilt, the tilt decays.)

    Args:
        angle: root mean square angle of a step in radians, from 0 to pi/2. May be traced.

    Raises:
        ValueError: if the angle is out of range.
    """
    checks.angle("angle", angle, minimum=0)

    def evolve(key: Key, step: Array, world: World) -> World:
        shared, own = world.invariant_basis, world.spurious_basis
        dim = own.shape[0]
        normals = random.normals(key, own.shape, own.dtype)
        move = normals - linalg.product(shared, linalg.product(shared.T, normals))
        # The direction itself is one of the d - r1 free dimensions.
        scale = jnp.asarray(angle, own.dtype) / max(dim - shared.shape[1] - 1, 1) ** 0.5
        # To first order Gram-Schmidt moves all directions alike, so the walk is isotropic.
        return world._replace(spurious_basis=linalg.orthonormal(own + scale * move))

    return evolve

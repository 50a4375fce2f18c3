"""How single environments disturb a part of a model: gradients and curvatures of their losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from causal_sgd import random
from causal_sgd.experiment.diagnosis._subspaces import Subspace
from causal_sgd.types import Array, Batch, Key, Params, RiskFunction, Sampler, Snapshot, World

__all__ = ["disturbed", "with_whole"]

PROBES = 4  # random vectors of the coupling
WHOLE = 32  # batches of an environment that stand for all of its examples where these are endless


def disturbed(
    snapshot: Snapshot, space: Subspace, frames: Array, key: Key
) -> tuple[Array, Array, Array, Array, Array]:
    """Drive, defect, coupling, stiffness and slope; see `Growth`."""
    params, rates = snapshot.params, len(frames)
    point, (flat, restore) = space.take(params), ravel_pytree(params)
    frames = frames.astype(point.dtype)

    def one(environment: Array) -> tuple[Array, ...]:
        risk = snapshot.environment_risk(environment)
        slope, product = jax.linearize(jax.grad(lambda v: risk(space.put(params, v))), point)
        images = jax.vmap(jax.vmap(product, 1, 1))(frames)
        drive = -jnp.sum(frames * images, 1)
        total = jnp.sqrt(jnp.sum(jax.grad(lambda v: risk(restore(v)))(flat) ** 2))
        if space.whole:
            along = jnp.sum(frames * slope[None, :, None], 1)
            inner = jnp.sqrt(jnp.sum(images**2, (1, 2)))
            return drive, jnp.sqrt(jnp.sum(along**2, 1)), jnp.zeros(rates), inner, total
        if space.directions == space.size:
            inner = jnp.sqrt(jnp.sum(images[0] ** 2))
        else:  # as for the coupling
            inner = _norm(jax.vmap(product)(_normals(key, (PROBES, space.size), point)))
        outer = _norm(_across(risk, space, flat, restore, key))
        defect = jnp.sqrt(jnp.sum(slope**2))
        return drive, *(jnp.full(rates, each) for each in (defect, outer, inner)), total

    size = snapshot.world.probabilities.shape[0]
    drive, *others, slope = jax.lax.map(one, jnp.arange(size))
    defect, coupling, stiffness = (jnp.swapaxes(each, 0, 1) for each in others)
    return jnp.swapaxes(drive, 0, 1), defect, coupling, stiffness, slope


def _across(
    risk: Callable[[Params], Array],
    space: Subspace,
    flat: Array,
    restore: Callable[[Array], Params],
    key: Key,
) -> Array:
    """P H z for random vectors z outside the subspace, [PROBES, k]."""
    params = restore(flat)
    inside = space.put(jax.tree.map(jnp.zeros_like, params), jnp.ones(space.size, flat.dtype))
    outside = 1 - ravel_pytree(inside)[0]

    def slope(vector: Array) -> Array:
        return space.take(restore(jax.grad(lambda v: risk(restore(v)))(vector)))

    product = jax.linearize(slope, flat)[1]
    return jax.vmap(product)(_normals(key, (PROBES, flat.size), flat) * outside[None])


def _normals(key: Key, shape: tuple[int, int], like: Array) -> Array:
    return random.normals(key, shape, like.dtype)


def _norm(images: Array) -> Array:
    """The Frobenius norm of a matrix, from its products [n, k] with independent normals."""
    return jnp.sqrt(jnp.mean(jnp.sum(images**2, 1)))


def with_whole(snapshot: Snapshot, sampler: Sampler, key: Key) -> Snapshot:
    """The snapshot with risks of all examples, which are means over batches if there is no end."""
    measurement = snapshot.measurement
    assert measurement is not None
    try:
        jax.eval_shape(snapshot.environment_risk(jnp.asarray(0)), snapshot.params)
    except ValueError:
        pass
    else:
        return snapshot
    most = None if measurement.capacity is None else measurement.capacity(1)
    offered = measurement.risks
    assert offered is not None
    assert offered.batch is not None
    on_batch = offered.batch
    number = jnp.asarray(sampler.batch_size, jnp.int32)
    count = number if most is None else jnp.minimum(number, most)

    def single(data: object, model: object, world: World, environment: Array) -> RiskFunction:
        batch = Batch(jnp.asarray(environment, jnp.int32)[None], count[None])

        def risks(params: Params, scale: float | Array = 1.0) -> Array:
            def of_one(index: Array) -> Array:
                part = random.fold_in(key, index), jnp.asarray(0)
                return on_batch(*part, data, model, world, batch)(params, scale)

            return jnp.mean(jax.vmap(of_one)(jnp.arange(WHOLE)), 0)

        return risks

    def whole(data: object, model: object, world: World) -> RiskFunction:
        each = [
            single(data, model, world, jnp.asarray(place))
            for place in range(world.probabilities.shape[0])
        ]
        return lambda params, scale=1.0: jnp.concatenate([risk(params, scale) for risk in each])

    endless = measurement._replace(risks=offered._replace(whole=whole, single=single))
    return dataclasses.replace(snapshot, measurement=endless)

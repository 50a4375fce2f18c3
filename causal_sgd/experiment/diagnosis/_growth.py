"""Lyapunov exponents of the linearised steps of a model, and what the environments pull at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from causal_sgd import checks, random
from causal_sgd.experiment.diagnosis._products import (
    exponents_of,
    orthonormalised,
    rejecting_steps,
    start_frame,
    with_errors,
)
from causal_sgd.experiment.diagnosis._subspaces import Subspace, subspace_of
from causal_sgd.training import curvature
from causal_sgd.types import (
    Array,
    Batch,
    Key,
    Measurement,
    Params,
    RiskFunction,
    Risks,
    Sampler,
    Snapshot,
    World,
)

__all__ = ["Growth", "growth"]

DENSE = 16  # parameters of a subspace up to which the Hessians of its batches are formed
MOST_DIRECTIONS = 4  # of a subspace given as a mask
COARSE, FINE = 64, 23  # learning rates among which the window is looked for
PROBES = 4  # random vectors of the coupling
WHOLE = 32  # batches of an environment that stand for all of its examples where these are endless
STREAMS = ("batches", "start", "whole", "probes")


class Growth(NamedTuple):
    """How small deviations within a subspace grow, and how the environments disturb it.

    There are L learning rates, m exponents and E environments; P projects on the subspace.
    """

    exponents: Array  # [L, m] per step, the largest first
    standard_error: Array  # [L, m]
    drive: Array  # [L, E, m] -v'H_e v in each direction v, whose growth rate is eta times it
    defect: Array  # [L, E] |P g_e|: what an environment adds, however small the parameters are
    coupling: Array  # [L, E] Frobenius norm of P H_e (1 - P), estimated by random vectors
    stiffness: Array  # [L, E] Frobenius norm of P H_e P, with which these are compared
    slope: Array  # [E] |g_e| over all parameters
    window: Array  # [2] between these learning rates the largest exponent is negative
    window_error: Array  # [2]
    stable_steps: Array  # [2] 2 / sharpness: of the sharpest environment, and of the pooled risk


def growth(
    snapshot: Snapshot,
    *,
    sampler: Sampler,
    subspace: object,
    learning_rate: ArrayLike | Sequence[float],
    value: float | Array | None = 0.0,
    cap: float | None = None,
    num_steps: int = 300,
    burn_in: int = 50,
    num_blocks: int = 10,
    key: Key | None = None,
) -> Growth:
    """The growth of small deviations from a model's parameters, under batches of a sampler.

    A small deviation v within the subspace is multiplied by I - eta P H P in a step, with the
    Hessian H of the loss of its batch. An orthonormal frame is multiplied by `num_steps` of these
    matrices and made orthonormal after each; the exponents are the means of the logarithms of the
    lengths that are lost. Up to 16 parameters the matrices are formed, once for all learning rates;
    beyond, only their products with the frame are (`jvp` of `grad`).

    A pure function: under `vmap` and `jit` one program serves many runs and learning rates. As a
    metric it is `lambda snapshot: growth(snapshot, ...).exponents`.

    Args:
        snapshot: of a run with any model and a measurement that has risks on a batch.
        sampler: which environments feed a step.
        subspace: the name of a part of the parameters (a key of their tree, such as "gates"); a
            tree of True and False with the structure of the parameters, in which an array or a
            single value may stand for a whole part; or a whole number k for the k leading
            directions of all parameters.
        learning_rate: eta [L] or [], of the parameters in the subspace, above 0; may be traced.
        value: what the parameters of a mask are set to before all else, such as 0 for gates that
            are closed; None to leave them as they are. The k leading directions leave them.
        cap: the largest relative change of a parameter in a step, above 0, as of
            `optimizers.gates`: a closed gate is then multiplied by 1 - clip(eta h, -cap, cap), with
            h its own curvature. For a mask of up to 16 parameters; None for no limit.
        num_steps: batches that are averaged over.
        burn_in: batches before, in which the frame turns to the leading directions.
        num_blocks: parts of the average whose variation gives the standard errors, at least 2.
        key: of the batches; None for one that follows from the snapshot's own.

    Raises:
        ValueError: if an argument is out of range, or the measurement has no risks on a batch.
    """
    checks.instance("snapshot", snapshot, Snapshot, "a Snapshot, such as metrics see")
    _check_sampler(sampler)
    _check_numbers(learning_rate, value, num_steps, burn_in, num_blocks)
    measurement, on_batch = _offers(snapshot.measurement)
    space = subspace_of(snapshot.params, subspace, MOST_DIRECTIONS)
    if cap is not None:
        checks.number("cap", cap, above=0)
        if space.whole or space.size > DENSE:
            raise ValueError(
                f"cap must be None but for a mask of at most {DENSE} parameters, got {cap:g}"
            )
    keys = _keys(snapshot, key)
    if value is not None and not space.whole:
        closed = space.put(snapshot.params, jnp.full(space.size, value, float))
        snapshot = dataclasses.replace(snapshot, params=closed, next_batch=None)
    rates = jnp.atleast_1d(jnp.asarray(learning_rate, float))
    system = _System(snapshot, sampler, measurement, on_batch, space)
    counts = num_steps, burn_in, num_blocks
    frame = start_frame(keys["start"], space.size, space.directions)
    if space.size <= DENSE:
        logs, frames, window = _from_matrices(system, keys["batches"], rates, frame, counts, cap)
    else:
        logs, frames = _from_products(system, keys["batches"], rates, frame, burn_in + num_steps)
        logs, window = logs[:, burn_in:], None
    exponents, errors = with_errors(logs, num_blocks)
    if window is None:
        window = rejecting_steps(rates, exponents[:, 0], errors[:, 0])
    if space.directions == space.size:  # the parameters themselves, in their order
        frames = jnp.broadcast_to(jnp.eye(space.size, dtype=frames.dtype), frames.shape)
    known = _with_whole(system, keys["whole"])
    disturbed = _disturbances(known, space, frames, keys["probes"])
    sharpest = jnp.max(curvature.environment_sharpness(known))
    sharpness = jnp.stack([sharpest, curvature.sharpness(known)])
    steps = jnp.where(sharpness > 0, 2 / jnp.where(sharpness > 0, sharpness, 1), jnp.inf)
    return Growth(exponents, errors, *disturbed, *window, steps)


class _System(NamedTuple):
    """What a step is made of."""

    snapshot: Snapshot
    sampler: Sampler
    measurement: Measurement
    on_batch: Callable[..., RiskFunction]
    space: Subspace

    def risk(self, key: Key, step: Array, batch: Batch) -> Callable[[Array], Array]:
        """The loss of a batch as a function of the coordinates [k] of the subspace."""
        snapshot, counts = self.snapshot, batch.counts
        losses = self.on_batch(key, step, snapshot.data, snapshot.model, snapshot.world, batch)

        def risk(vector: Array) -> Array:
            values = losses(self.space.put(snapshot.params, vector))
            shares = counts.astype(values.dtype) / jnp.sum(counts).astype(values.dtype)
            return jnp.sum(shares * values)

        return risk

    def draw(self, key: Key, step: Array, state: object) -> tuple[Callable[..., Array], object]:
        """The loss of a step's batch, and the sampler's next state."""
        order, measure = (random.fold_in(random.fold_in(key, part), step) for part in (0, 1))
        batch, state = self.sampler.draw(order, step, state)
        return self.risk(measure, step, batch), state

    def first(self, key: Key) -> object:
        """The state of the sampler at the start."""
        probabilities = self.snapshot.world.probabilities
        return self.sampler.init(random.fold_in(key, 2), probabilities)


def _from_matrices(
    system: _System,
    key: Key,
    rates: Array,
    frame: Array,
    counts: tuple[int, int, int],
    cap: float | None,
) -> tuple[Array, Array, tuple[Array, Array]]:
    """The logarithms [L, T, m], the last frames [L, k, m], and the window, from all Hessians."""
    num_steps, burn_in, num_blocks = counts
    point = system.space.take(system.snapshot.params)

    def step(state: object, number: Array) -> tuple[object, Array]:
        risk, state = system.draw(key, number, state)
        return state, jax.jacfwd(jax.grad(risk))(point)

    numbers = jnp.arange(burn_in + num_steps)
    _, matrices = jax.lax.scan(step, system.first(key), numbers)

    def of(rates: Array, frame: Array) -> tuple[Array, Array]:
        logs, frames = jax.vmap(lambda rate: exponents_of(matrices, rate, frame, cap))(rates)
        return logs[:, burn_in:], frames

    def largest(rates: Array) -> tuple[Array, Array]:
        mean, error = with_errors(of(rates, frame[:, :1])[0], num_blocks)
        return mean[:, 0], error[:, 0]

    size = jnp.max(jnp.sqrt(jnp.sum(matrices**2, (1, 2))))
    coarse = jnp.geomspace(1e-3, 8, COARSE) / jnp.where(size > 0, size, 1)
    (low, high), _ = rejecting_steps(coarse, *largest(coarse))
    ends = jnp.stack([low, high])
    exists = jnp.isfinite(ends) & (ends > 0)
    middle = jnp.where(exists, ends, coarse[0])
    fine = middle[:, None] * jnp.geomspace(0.85, 1.18, FINE)[None]
    values, errors = (each.reshape(2, FINE) for each in largest(fine.ravel()))
    refined = [
        rejecting_steps(fine[place], values[place], errors[place], rising=place == 1)
        for place in (0, 1)
    ]
    found = jnp.stack([window[place] for place, (window, _) in enumerate(refined)])
    spread = jnp.stack([error[place] for place, (_, error) in enumerate(refined)])
    sharp = exists & jnp.isfinite(found) & (found > 0)
    window = jnp.where(sharp, found, ends), jnp.where(sharp, spread, 0)
    logs, frames = of(rates, frame)
    return logs, frames, window


def _from_products(
    system: _System, key: Key, rates: Array, frame: Array, num_steps: int
) -> tuple[Array, Array]:
    """The logarithms [L, T, m] and the last frames [L, k, m], from products with the Hessians."""
    point = system.space.take(system.snapshot.params)

    def step(carry: tuple[object, Array], number: Array) -> tuple[tuple[object, Array], Array]:
        state, frames = carry
        risk, state = system.draw(key, number, state)
        # The gradient itself is computed once for all vectors and learning rates.
        product = jax.linearize(jax.grad(risk), point)[1]
        images = jax.vmap(jax.vmap(product, 1, 1))(frames)
        frames, logs = jax.vmap(orthonormalised)(frames - rates[:, None, None] * images)
        return (state, frames), logs

    frames = jnp.broadcast_to(frame, (len(rates), *frame.shape))
    numbers = jnp.arange(num_steps)
    (_, frames), logs = jax.lax.scan(step, (system.first(key), frames), numbers)
    return jnp.swapaxes(logs, 0, 1), frames


def _disturbances(
    snapshot: Snapshot, space: Subspace, frames: Array, key: Key
) -> tuple[Array, Array, Array, Array, Array]:
    """Drive, defect, coupling, stiffness and slope; see `Growth`."""
    params, rates = snapshot.params, len(frames)
    point, (flat, restore) = space.take(params), ravel_pytree(params)

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


def _with_whole(system: _System, key: Key) -> Snapshot:
    """The snapshot with risks of all examples, which are means over batches if there is no end."""
    snapshot, measurement = system.snapshot, system.measurement
    try:
        jax.eval_shape(snapshot.environment_risk(jnp.asarray(0)), snapshot.params)
    except ValueError:
        pass
    else:
        return snapshot
    most = None if measurement.capacity is None else measurement.capacity(1)
    number = jnp.asarray(system.sampler.batch_size, jnp.int32)
    count = number if most is None else jnp.minimum(number, most)

    def single(data: object, model: object, world: World, environment: Array) -> RiskFunction:
        batch = Batch(jnp.asarray(environment, jnp.int32)[None], count[None])

        def risks(params: Params, scale: float | Array = 1.0) -> Array:
            def of_one(index: Array) -> Array:
                part = random.fold_in(key, index), jnp.asarray(0)
                return system.on_batch(*part, data, model, world, batch)(params, scale)

            return jnp.mean(jax.vmap(of_one)(jnp.arange(WHOLE)), 0)

        return risks

    def whole(data: object, model: object, world: World) -> RiskFunction:
        each = [
            single(data, model, world, jnp.asarray(place))
            for place in range(world.probabilities.shape[0])
        ]
        return lambda params, scale=1.0: jnp.concatenate([risk(params, scale) for risk in each])

    offered = measurement.risks
    assert offered is not None
    endless = measurement._replace(risks=offered._replace(whole=whole, single=single))
    return dataclasses.replace(snapshot, measurement=endless)


def _offers(measurement: Measurement | None) -> tuple[Measurement, Callable[..., RiskFunction]]:
    """The measurement and its risks on a batch.

    Raises:
        ValueError: if it has none that can be differentiated twice.
    """
    risks: Risks | None = None if measurement is None else measurement.risks
    if measurement is None or risks is None or risks.batch is None:
        name = "none" if measurement is None else measurement.name
        raise ValueError(
            "measurement must offer risks on a batch for Hessians of its losses, as examples, "
            f"moments and batch_moments do, got {name}"
        )
    return measurement, risks.batch


def _keys(snapshot: Snapshot, key: Key | None) -> dict[str, Key]:
    if key is None:
        next_batch = snapshot.next_batch
        key = jax.random.key(0) if next_batch is None else next_batch()[0]
    else:
        checks.key("key", key)
    return {name: random.fold_in(key, place) for place, name in enumerate(STREAMS)}


def _check_sampler(sampler: object) -> None:
    allowed = "a Sampler, such as samplers.hetero(batch_size=100)"
    checks.made_of("sampler", sampler, ("init", "draw"), allowed)


def _check_numbers(
    learning_rate: ArrayLike | Sequence[float],
    value: object,
    num_steps: int,
    burn_in: int,
    num_blocks: int,
) -> None:
    checks.number("learning_rate", learning_rate, above=0, scalar=False)
    if np.ndim(learning_rate) > 1 or not np.size(learning_rate):
        raise ValueError(
            f"learning_rate must have shape [L] or [], got {list(np.shape(learning_rate))}"
        )
    if value is not None:
        checks.number("value", value)
    checks.integer("num_blocks", num_blocks, minimum=2)
    checks.integer("num_steps", num_steps, minimum=num_blocks)
    checks.integer("burn_in", burn_in, minimum=0)

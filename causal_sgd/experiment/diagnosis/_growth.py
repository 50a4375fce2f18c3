"""Lyapunov exponents of the linearised steps of a model, and what the environments pull at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks, random
from causal_sgd.experiment.diagnosis._disturbances import disturbed, with_whole
from causal_sgd.experiment.diagnosis._products import (
    exponents_of,
    orthonormalised,
    rejecting_steps,
    start_frame,
    with_errors,
)
from causal_sgd.experiment.diagnosis._subspaces import Subspace, subspace_of
from causal_sgd.training import curvature
from causal_sgd.training.algorithms._parts import check_capacity
from causal_sgd.types import (
    Array,
    Batch,
    Key,
    Measurement,
    RiskFunction,
    Sampler,
    Snapshot,
)

__all__ = ["Disturbances", "Growth", "disturbances", "exponents", "growth"]

DENSE = 16  # parameters of a subspace up to which the Hessians of its batches are formed
MOST_DIRECTIONS = 4  # of a subspace given as a mask
COARSE, FINE = 64, 23  # learning rates among which the window is looked for
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
    metric of a sweep, take `exponents`, which leaves out what else is here.

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
    numbers = num_steps, burn_in, num_blocks
    prepared = _prepared(snapshot, sampler, subspace, learning_rate, value, cap, numbers, key)
    system, keys, rates, frame = prepared
    space = system.space
    if space.size <= DENSE:
        matrices = _matrices(system, keys["batches"], burn_in + num_steps)
        logs, frames = _all_exponents(matrices, rates, frame, cap)
        window = _window(matrices, frame[:, :1], cap, burn_in, num_blocks)
    else:
        logs, frames = _from_products(system, keys["batches"], rates, frame, burn_in + num_steps)
        window = None
    values, errors = with_errors(logs[:, burn_in:], num_blocks)
    if window is None:
        window = rejecting_steps(rates, values[:, 0], errors[:, 0])
    if space.directions == space.size:  # the parameters themselves, in their order
        frames = jnp.broadcast_to(jnp.eye(space.size, dtype=frames.dtype), frames.shape)
    known = with_whole(system.snapshot, sampler, keys["whole"])
    found = disturbed(known, space, frames, keys["probes"])
    sharpest = jnp.max(curvature.environment_sharpness(known))
    sharpness = jnp.stack([sharpest, curvature.sharpness(known)])
    steps = jnp.where(sharpness > 0, 2 / jnp.where(sharpness > 0, sharpness, 1), jnp.inf)
    return Growth(values, errors, *found, *window, steps)


def exponents(
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
) -> tuple[Array, Array]:
    """The exponents of `growth` and their standard errors, [L, m] each, and nothing else.

    For metrics of sweeps: the same numbers from a program that is traced faster and holds less.

    Args:
        snapshot: as for `growth`.
        sampler: as for `growth`.
        subspace: as for `growth`.
        learning_rate: as for `growth`.
        value: as for `growth`.
        cap: as for `growth`.
        num_steps: as for `growth`.
        burn_in: as for `growth`.
        num_blocks: as for `growth`.
        key: as for `growth`.

    Raises:
        ValueError: as for `growth`.
    """
    numbers = num_steps, burn_in, num_blocks
    prepared = _prepared(snapshot, sampler, subspace, learning_rate, value, cap, numbers, key)
    system, keys, rates, frame = prepared
    if system.space.size <= DENSE:
        matrices = _matrices(system, keys["batches"], burn_in + num_steps)
        logs, _ = _all_exponents(matrices, rates, frame, cap)
    else:
        logs, _ = _from_products(system, keys["batches"], rates, frame, burn_in + num_steps)
    return with_errors(logs[:, burn_in:], num_blocks)


class Disturbances(NamedTuple):
    """What single environments do to a part of a model: its members of `Growth`, [E] each."""

    defect: Array
    coupling: Array
    stiffness: Array
    slope: Array


def disturbances(
    snapshot: Snapshot,
    *,
    sampler: Sampler,
    subspace: object,
    value: float | Array | None = 0.0,
    key: Key | None = None,
) -> Disturbances:
    """Whether environments leave a part of a model alone: what `growth` says of it, without steps.

    For metrics of sweeps. A part that could be rejected has no defect and no coupling.

    Args:
        snapshot: as for `growth`.
        sampler: as for `growth`.
        subspace: the name of a part of the parameters, or a tree of True and False.
        value: as for `growth`.
        key: as for `growth`.

    Raises:
        ValueError: as for `growth`, or if the subspace is a number of directions, which only steps
            can tell.
    """
    numbers = 10, 0, 10  # of steps that are not taken
    system, keys, _, frame = _prepared(snapshot, sampler, subspace, 1.0, value, None, numbers, key)
    if system.space.whole:
        raise ValueError(f"subspace must be a name or a mask, got {subspace} directions")
    known = with_whole(system.snapshot, sampler, keys["whole"])
    _, defect, coupling, stiffness, slope = disturbed(
        known, system.space, frame[None], keys["probes"]
    )
    return Disturbances(defect[0], coupling[0], stiffness[0], slope)


class _System(NamedTuple):
    """What a step is made of."""

    snapshot: Snapshot
    sampler: Sampler
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


def _prepared(
    snapshot: Snapshot,
    sampler: Sampler,
    subspace: object,
    learning_rate: ArrayLike | Sequence[float],
    value: float | Array | None,
    cap: float | None,
    numbers: tuple[int, int, int],
    key: Key | None,
) -> tuple[_System, dict[str, Key], Array, Array]:
    """Checked arguments: the system, its keys, learning rates [L] and the first frame [k, m]."""
    checks.instance("snapshot", snapshot, Snapshot, "a Snapshot, such as metrics see")
    _check_sampler(sampler)
    _check_numbers(learning_rate, value, *numbers)
    measurement, on_batch = _on_batch(snapshot.measurement)
    check_capacity(measurement, sampler, snapshot.world.probabilities.shape[0])
    space = subspace_of(snapshot.params, subspace, MOST_DIRECTIONS)
    if cap is not None:
        checks.number("cap", cap, above=0, maximum=1)
        if space.whole or space.size > DENSE:
            raise ValueError(
                f"cap must be None but for a mask of at most {DENSE} parameters, got {cap:g}"
            )
    keys = _keys(snapshot, key)
    if value is not None and not space.whole:
        closed = space.put(snapshot.params, jnp.full(space.size, value, float))
        snapshot = dataclasses.replace(snapshot, params=closed, next_batch=None)
    rates = jnp.atleast_1d(jnp.asarray(learning_rate, float))
    frame = start_frame(keys["start"], space.size, space.directions)
    return _System(snapshot, sampler, on_batch, space), keys, rates, frame


def _matrices(system: _System, key: Key, num_steps: int) -> Array:
    """The Hessians of the batches within the subspace, [T, k, k]."""
    point = system.space.take(system.snapshot.params)

    def step(state: object, number: Array) -> tuple[object, Array]:
        risk, state = system.draw(key, number, state)
        if system.space.size > 1:
            return state, jax.jacfwd(jax.grad(risk))(point)
        # Without an axis of one direction the products of a network's layers are faster.
        return state, jax.jvp(jax.grad(risk), (point,), (jnp.ones_like(point),))[1][:, None]

    return jax.lax.scan(step, system.first(key), jnp.arange(num_steps))[1]


def _all_exponents(
    matrices: Array, rates: Array, frame: Array, cap: float | None
) -> tuple[Array, Array]:
    """The logarithms [L, T, m] and the last frames [L, k, m]."""
    return jax.vmap(lambda rate: exponents_of(matrices, rate, frame, cap))(rates)


def _window(
    matrices: Array, first: Array, cap: float | None, burn_in: int, num_blocks: int
) -> tuple[Array, Array]:
    """Between which learning rates the largest exponent is negative, and the errors, [2] each."""

    def largest(rates: Array) -> tuple[Array, Array]:
        logs, _ = _all_exponents(matrices, rates, first, cap)
        mean, error = with_errors(logs[:, burn_in:], num_blocks)
        return mean[:, 0], error[:, 0]

    size = jnp.max(jnp.sqrt(jnp.sum(matrices**2, (1, 2))))
    coarse = jnp.geomspace(1e-3, 8, COARSE) / jnp.where(size > 0, size, 1)
    (low, high), _ = rejecting_steps(coarse, *largest(coarse), ordered=True)
    ends = jnp.stack([low, high])
    exists = jnp.isfinite(ends) & (ends > 0)
    middle = jnp.where(exists, ends, coarse[0])
    fine = middle[:, None] * jnp.geomspace(0.85, 1.18, FINE)[None]
    values, errors = (each.reshape(2, FINE) for each in largest(fine.ravel()))
    refined = [
        rejecting_steps(each, value, error, rising=place == 1, ordered=True)
        for place, (each, value, error) in enumerate(zip(fine, values, errors, strict=True))
    ]
    found = jnp.stack([window[place] for place, (window, _) in enumerate(refined)])
    spread = jnp.stack([error[place] for place, (_, error) in enumerate(refined)])
    sharp = exists & jnp.isfinite(found) & (found > 0)
    return jnp.where(sharp, found, ends), jnp.where(sharp, spread, 0)


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

    rates, frame = rates.astype(point.dtype), frame.astype(point.dtype)
    frames = jnp.broadcast_to(frame, (len(rates), *frame.shape))
    numbers = jnp.arange(num_steps)
    (_, frames), logs = jax.lax.scan(step, (system.first(key), frames), numbers)
    return jnp.swapaxes(logs, 0, 1), frames


def _on_batch(
    measurement: Measurement | None,
) -> tuple[Measurement, Callable[..., RiskFunction]]:
    """The measurement and its risks on a batch.

    Raises:
        ValueError: if it has none that can be differentiated twice.
    """
    risks = None if measurement is None else measurement.risks
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

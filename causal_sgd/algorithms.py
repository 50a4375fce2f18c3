"""Training methods: pure init/step functions composed of a world, a sampler, a measurement, a model and optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_sgd import checks, draws, samplers
from causal_sgd.types import (
    Algorithm,
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Model,
    Params,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = ["STREAMS", "SGDState", "sgd", "stream"]

STREAMS = ("world", "initialisation", "environments", "measurements", "data", "optimizer", "evolution")
"""The named streams of a run's key. Each is folded in by its place: append to this tuple, never reorder it."""


def stream(key: Key, name: str) -> Key:
    """The key of one named stream of a run, the same for every method and every grid point of a seed.

    Args:
        key: the run's key.
        name: one of `STREAMS`.
    """
    return draws.fold_in(key, STREAMS.index(name))


class SGDState(NamedTuple):
    """State of `sgd`."""

    step: Array  # [] int32, updates done
    world: World
    data: Any  # the measurement's
    params: Params
    optimizer: optax.OptState
    sampler: State
    loss: Array  # [] batch loss before the last update; NaN before the first


def sgd(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: Model,
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
    evolve: Evolution | None = None,
) -> Algorithm:
    """One gradient a step: HeteroSGD, PooledSGD and all between them, by the choice of the sampler.

    Args:
        world: how nature is drawn.
        sampler: which environments feed a step.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: any optax transformation; its numbers may be traced.
        evaluate: (optimizer state, params) -> the parameters that metrics see, such as an average kept by the
            optimiser (`optax.contrib.schedule_free_eval_params`); None for the parameters themselves.
        evolve: how nature changes before every step (see `evolutions`); None for a world that stays as it is.

    Returns:
        An algorithm for `run`.

    Raises:
        ValueError: if the sampler's counts do not sum to its batch size, or that is more than the measurement has
            examples for; if nature is to evolve while the measurement holds labels of the first world.
        AssertionError: (from chex, with both shapes) if a part hands over an array of the wrong shape.
    """
    if evolve is not None and measurement.holds_labels:
        raise ValueError(
            "evolve must be None with a measurement whose labels were drawn once (fixed_design): they would be those of the "
            "first world, got an evolution; measure with examples that are streamed"
        )

    def init(key: Key) -> SGDState:
        nature = world(stream(key, "world"))
        params = model.init(stream(key, "initialisation"))
        _check_sampler(sampler, nature.probabilities.shape[0])
        _check_capacity(measurement, sampler, nature.probabilities.shape[0])
        chex.assert_shape(
            jax.eval_shape(model.estimate, params), (nature.invariant_basis.shape[0],) * 2,
            custom_message="the model's estimate does not have the shape of the world's signals",
        )  # fmt: skip
        return SGDState(
            step=jnp.zeros((), jnp.int32),
            world=nature,
            data=measurement.init(stream(key, "data"), nature),
            params=params,
            optimizer=optimizer.init(params),
            sampler=sampler.init(stream(key, "environments"), nature.probabilities),
            loss=jnp.full((), jnp.nan, jax.tree.leaves(params)[0].dtype),
        )

    def step(key: Key, state: SGDState) -> SGDState:
        order_key = draws.fold_in(stream(key, "environments"), state.step)
        gradient_key = draws.fold_in(stream(key, "measurements"), state.step)
        world = state.world
        if evolve is not None:
            world = evolve(draws.fold_in(stream(key, "evolution"), state.step), state.step, world)
            chex.assert_trees_all_equal_shapes(world, state.world)
        counts, sampler_state = sampler.draw(order_key, state.step, state.sampler)
        gradient, loss = measurement.gradient(
            gradient_key, state.step, state.data, model, state.params, world,
            _batch(counts, sampler.max_environments),
        )  # fmt: skip
        chex.assert_trees_all_equal_shapes(gradient, state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        # Scans need constant types, and a traced hyperparameter of another type must not promote the parameters.
        params = jax.tree.map(lambda new, old: new.astype(old.dtype), params, state.params)
        return state._replace(
            step=state.step + 1,
            world=world,
            params=params,
            optimizer=optimizer_state,
            sampler=sampler_state,
            loss=loss.astype(state.loss.dtype),
        )

    def snapshot(state: SGDState) -> Snapshot:
        params = state.params if evaluate is None else evaluate(state.optimizer, state.params)
        factor = None if model.factor is None else model.factor(params)
        return Snapshot(
            step=state.step,
            params=params,
            dense=model.estimate(params) if factor is None else None,
            factor=factor,
            world=state.world,
            batch_loss=state.loss,
        )

    return Algorithm(init, step, snapshot, lambda state: state.loss)


def _batch(counts: Array, max_environments: int | None) -> Batch:
    """The environments with examples in a batch; a sampler's promise keeps the others out of the step."""
    size = counts.shape[0]
    if max_environments is None or max_environments >= size:
        return Batch(jnp.arange(size), counts)
    if max_environments == 1:
        environment = jnp.argmax(counts)[None]
    else:
        environment = jax.lax.top_k(counts, max_environments)[1]
    return Batch(environment, counts[environment])


def _check_capacity(measurement: Measurement, sampler: Sampler, num_environments: int) -> None:
    """Refuse batches of which it is known that they hold more examples than there are."""
    batch_size = checks.concrete(sampler.batch_size)
    if measurement.capacity is None or batch_size is None:
        return
    most = measurement.capacity(min(sampler.max_environments or num_environments, num_environments))
    if most is not None and batch_size > most:
        raise ValueError(f"batch_size must be at most {most}, the examples that the measurement has, got {batch_size}")


def _check_sampler(sampler: Sampler, num_environments: int) -> None:
    """Draw a few batches of a user's sampler while nothing is traced, to see counts that would be compiled away."""
    if sampler.draw.__module__ == samplers.__name__:
        return  # the package's own are tested; drawing outside of a program would compile piece by piece
    try:
        with jax.ensure_compile_time_eval():
            weights = jnp.full(num_environments, 1 / num_environments)
            key = jax.random.key(0)
            state = sampler.init(key, weights)
            for step in range(3):
                counts, state = sampler.draw(jax.random.fold_in(key, step), jnp.asarray(step), state)
                chex.assert_shape(
                    counts, (num_environments,),
                    custom_message="the sampler's counts must have one entry per environment",
                )  # fmt: skip
                drawn, size = np.asarray(counts), np.asarray(sampler.batch_size)
                if drawn.sum() != size or (drawn < 0).any() or (drawn != np.round(drawn)).any():
                    raise ValueError(
                        "sampler's counts must be whole numbers that sum to its batch_size "
                        f"({size}), got {drawn.tolist()}"
                    )
                most = sampler.max_environments
                if most is not None and np.count_nonzero(drawn) > most:
                    raise ValueError(
                        f"sampler's counts must have at most max_environments ({most}) above zero, got {drawn.tolist()}"
                    )
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        chex.assert_shape(
            jax.eval_shape(
                lambda: sampler.draw(
                    jax.random.key(0),
                    jnp.asarray(0),
                    sampler.init(jax.random.key(0), jnp.full(num_environments, 1 / num_environments)),
                )[0]
            ),
            (num_environments,),
            custom_message="the sampler's counts must have one entry per environment",
        )

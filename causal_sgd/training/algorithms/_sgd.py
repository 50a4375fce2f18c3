"""One gradient a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training.algorithms import _parts
from causal_sgd.types import (
    Algorithm,
    Array,
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

__all__ = ["SGDState", "sgd"]


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
        optimizer: any optax transformation; its numbers may be traced. With `optax.MultiSteps` gradients of several
            batches accumulate to one update; those that ask for the loss or for gradients elsewhere by the same batch
            (`optimizers.sam`, line searches) are given them.
        evaluate: (optimizer state, params) -> the parameters that metrics see, such as an average kept by the
            optimiser (`optimizers.averaged`, `optax.contrib.schedule_free_eval_params`); None for the parameters themselves.
        evolve: how nature changes before every step (see `evolutions`); None for a world that stays as it is.

    Returns:
        An algorithm for `run`.

    Raises:
        ValueError: if the sampler's counts do not sum to its batch size, or that is more than the measurement has
            examples for; if nature is to evolve while the measurement holds labels of the first world.
        AssertionError: (from chex, with both shapes) if a part hands over an array of the wrong shape.
    """
    made_of = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    checks.transformation("optimizer", optimizer)
    _parts.check_evaluate(evaluate)

    def init(key: Key) -> SGDState:
        start = _parts.begin(key, made_of)
        return SGDState(
            step=jnp.zeros((), jnp.int32),
            world=start.world,
            data=start.data,
            params=start.params,
            optimizer=optimizer.init(start.params),
            sampler=start.sampler,
            loss=start.loss,
        )

    def step(key: Key, state: SGDState) -> SGDState:
        world, batch, sampler_state = _parts.meet(
            key, made_of, state.step, state.world, state.sampler
        )
        gradient_key = random.fold_in(_parts.stream(key, "measurements"), state.step)

        def measure(params: Params) -> tuple[Params, Array]:
            return measurement.gradient(
                gradient_key, state.step, state.data, model, params, world, batch
            )

        params, optimizer_state, _, loss = _parts.descend(
            optimizer, measure, state.params, state.optimizer
        )
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
        return _parts.look(model, params, state.step, state.world, state.loss)

    return Algorithm(init, step, snapshot, lambda state: state.loss)

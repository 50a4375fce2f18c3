"""One gradient per step: of the loss, or of an objective of several losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks, random
from causal_sgd.training.algorithms import _parts
from causal_sgd.training.algorithms._by_hand import by_hand
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.training.algorithms._symmetry import check_symmetry
from causal_sgd.training.algorithms._updates import apply_update, init_state, optimizer_key
from causal_sgd.types import (
    Algorithm,
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Model,
    Objective,
    Params,
    PyTree,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = ["SGDState", "penalised", "sgd"]


class SGDState(NamedTuple):
    """State of `sgd` and `penalised`."""

    step: Array  # [] int32, updates done
    world: World
    data: PyTree  # the measurement's
    params: Params
    optimizer: optax.OptState
    sampler: State
    loss: Array  # [] batch loss before the last update; NaN before the first
    objective: State = ()  # of `penalised`


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
    """One gradient per step: HeteroSGD, PooledSGD and all between, by the choice of the sampler.

    The loss of a batch of m examples is sum_i r_i^2 / (4 m), with r_i the residuals. Its mean
    gradient in U is (U U' - S_e) U, without a factor. A learning rate e under the scale 1 / (2 m)
    is 2 e here, and 4 e under 1 / m. Losses of classification have their usual scale.

    Args:
        world: how the world is drawn.
        sampler: which environments feed a step.
        measurement: how examples become a gradient.
        model: parameters and their estimate.
        optimizer: any optax transformation; its numbers may be traced. With `optax.MultiSteps`
            gradients of several batches accumulate to one update. Transformations that draw
            (`optimizers.langevin`) receive a key, and those that need the loss (Polyak steps, momo)
            receive it. Those that need losses or gradients at other parameters by the same batch
            (line searches, L-BFGS, Sophia, `optimizers.sam`) receive them from measurements that
            draw the same examples at all parameters: all but `gaussian_law` and `low_rank_law`.
        evaluate: (optimizer state, params) -> the parameters that metrics see, such as an average
            in the optimizer's state (`optimizers.averaged`,
            `optax.contrib.schedule_free_eval_params`); None for the parameters themselves.
        evolve: how the world changes before every step; None for a constant world.

    Returns:
        An algorithm for `run`.

    Raises:
        ValueError: if an argument is not of its kind, the sampler's batches are invalid or larger
            than the measurement allows, the world's arrays do not fit each other, the world would
            evolve under labels that were drawn once, or (at the first step) the optimizer needs
            what the measurement cannot offer.
        AssertionError: (from chex, with both shapes) if a part returns an array of the wrong shape.
    """
    parts = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    return _algorithm(parts, optimizer, evaluate, None)


def penalised(
    *,
    world: WorldFactory,
    sampler: Sampler,
    measurement: Measurement,
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[optax.OptState, Params], Params] | None = None,
    evolve: Evolution | None = None,
) -> Algorithm:
    """One gradient of an objective per step: IRM, V-REx, GroupDRO and so on.

    With `objectives.mean()` it is `sgd`, to the bit. `hetero` batches hold one environment, so that
    penalties of differences between environments vanish: use `stratified` or `pooled` with them.

    Args:
        world: how the world is drawn.
        sampler: which environments feed a step.
        measurement: how examples become losses.
        model: parameters and their estimate.
        objective: how the losses of the environments become a gradient.
        optimizer: as for `sgd`; transformations that need the loss receive the objective's value.
        evaluate: as for `sgd`.
        evolve: as for `sgd`.

    Returns:
        An algorithm for `run`. The loss that it reports is the objective's value.

    Raises:
        ValueError: as for `sgd`, or (at the first step) if the objective needs what the measurement
            or the model cannot offer.
        AssertionError: as for `sgd`.
    """
    parts = _parts.Parts.checked(world, sampler, measurement, model, evolve)
    checks.made_of(
        "objective", objective, ("init", "gradient"), "an Objective, such as objectives.irmv1()"
    )
    return _algorithm(parts, optimizer, evaluate, objective)


class _Combined(NamedTuple):
    """The losses of a step's environments, combined by an objective."""

    objective: Objective
    step: Array
    state: State  # before the step
    examples: Examples
    result: tuple[Params, Array]  # at the parameters of the step

    def measure(self, params: Params) -> tuple[Params, Array]:
        """Return the gradient and the value at the step's own parameters."""
        del params
        return self.result

    def gradient(self, params: Params) -> Params:
        """Return the gradient at other parameters."""
        self.examples.require_independence()
        return self.objective.gradient(self.step, self.state, self.examples, params)[0]

    def loss(self, params: Params) -> Array:
        """Return the value at other parameters."""
        self.examples.require_independence()
        return self.objective.gradient(self.step, self.state, self.examples, params)[1]


def _algorithm(
    parts: _parts.Parts,
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[optax.OptState, Params], Params] | None,
    objective: Objective | None,
) -> Algorithm:
    checks.transformation("optimizer", optimizer)
    _parts.check_evaluate(evaluate)

    def init(key: Key) -> SGDState:
        return _first_state(key, parts, optimizer, objective)

    def step(key: Key, state: SGDState) -> SGDState:
        return _next_state(key, parts, optimizer, objective, state)

    def next_batch(key: Key, state: SGDState) -> tuple[Key, World, Batch]:
        world, batch, _ = _parts.draw_batch(key, parts, state.step, state.world, state.sampler)
        return _gradient_key(key, state.step), world, batch

    def snapshot(key: Key, state: SGDState) -> Snapshot:
        params = state.params if evaluate is None else evaluate(state.optimizer, state.params)
        return _parts.take_snapshot(
            parts, params, state, jax.tree_util.Partial(next_batch, key, state)
        )

    return Algorithm(init, by_hand(step), snapshot, lambda state: state.loss)


def _first_state(
    key: Key,
    parts: _parts.Parts,
    optimizer: optax.GradientTransformation,
    objective: Objective | None,
) -> SGDState:
    start = _parts.init_run(key, parts)
    reduced = _parts.reduced(parts.model)
    if reduced is not None:
        check_symmetry("optimizer", optimizer, start.params, reduced.embed)
    return SGDState(
        step=jnp.zeros((), jnp.int32),
        world=start.world,
        data=start.data,
        params=start.params,
        optimizer=init_state("optimizer", optimizer, start.params),
        sampler=start.sampler,
        loss=start.loss,
        objective=()
        if objective is None
        else objective.init(start.world.probabilities, start.params),
    )


def _next_state(
    key: Key,
    parts: _parts.Parts,
    optimizer: optax.GradientTransformation,
    objective: Objective | None,
    state: SGDState,
) -> SGDState:
    """The state after one update by one batch; everything drawn depends on the key and the step."""
    world, batch, sampler_state = _parts.draw_batch(
        key, parts, state.step, state.world, state.sampler
    )
    examples = Examples(
        parts.measurement,
        _gradient_key(key, state.step),
        state.step,
        state.data,
        parts.model,
        world,
        batch,
    )
    minimised, objective_state = examples, state.objective
    if objective is not None:
        slope, value, objective_state = _evaluated(objective, state, examples)
        minimised = _Combined(objective, state.step, state.objective, examples, (slope, value))
    params, optimizer_state, _, loss = apply_update(
        optimizer,
        minimised,
        state.params,
        state.optimizer,
        key=optimizer_key(key, state.step),
    )
    reduced = _parts.reduced(parts.model)
    if reduced is not None:
        params, optimizer_state = reduced.reduce((params, optimizer_state))
    return state._replace(
        step=state.step + 1,
        world=world,
        params=params,
        optimizer=optimizer_state,
        sampler=sampler_state,
        loss=loss.astype(state.loss.dtype),
        objective=objective_state,
    )


def _evaluated(
    objective: Objective, before: SGDState, examples: Examples
) -> tuple[Params, Array, State]:
    """The gradient, the value and the next state of an objective, which may be the user's own."""
    result = objective.gradient(before.step, before.objective, examples, before.params)
    if not isinstance(result, tuple) or len(result) != 3:
        number = f" of {len(result)}" if isinstance(result, tuple) else ""
        raise ValueError(
            "objective.gradient must return (gradient, value, state), got a "
            f"{type(result).__name__}{number}"
        )
    slope, value, state = result
    for name, found, expected in (
        ("gradient must have the shapes of params", slope, before.params),
        ("value must have the shape []", value, before.loss),
        ("state must have the shapes of that before", state, before.objective),
    ):
        chex.assert_trees_all_equal_shapes(
            found, expected, custom_message=f"the objective's {name}"
        )
    return slope, value, state


def _gradient_key(key: Key, step: Array) -> Key:
    """The key of all that the measurement draws in a step."""
    return random.fold_in(_parts.stream(key, "measurements"), step)

"""What all methods are made of: the named streams of a run's key, the parts, and how a run and a step begin.

A method draws its world, data, initial parameters, order of environments and measurements from these streams, and from
nothing else, so that methods and settings are compared on the same draws.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_sgd import checks, linalg, random
from causal_sgd.training import samplers
from causal_sgd.types import (
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

__all__ = [
    "STREAMS",
    "Parts",
    "Start",
    "begin",
    "check_evaluate",
    "descend",
    "keep_types",
    "look",
    "meet",
    "stream",
]

STREAMS = (
    "world",
    "initialisation",
    "environments",
    "measurements",
    "data",
    "optimizer",
    "evolution",
)
"""The named streams of a run's key. Each is folded in by its place: append to this tuple, never reorder it."""


def stream(key: Key, name: str) -> Key:
    """The key of one named stream of a run, the same for every method and every grid point of a seed.

    Args:
        key: the run's key.
        name: one of `STREAMS`.
    """
    return random.fold_in(key, jnp.arange(len(STREAMS)))[
        STREAMS.index(name)
    ]  # all at once: one program makes them


class Parts(NamedTuple):
    """What a method is made of, beside its optimisers."""

    world: WorldFactory
    sampler: Sampler
    measurement: Measurement
    model: Model
    evolve: Evolution | None

    @classmethod
    def checked(cls, *parts: Any) -> Parts:
        """The parts, if each is of its kind and nature does not evolve away from labels that were drawn once.

        Raises:
            ValueError: if one is not, or it does.
        """
        made = cls(*parts)
        checks.world_factory("world", made.world)
        checks.made_of(
            "sampler",
            made.sampler,
            ("init", "draw"),
            "a Sampler, such as samplers.hetero(batch_size=100)",
        )
        checks.made_of(
            "measurement",
            made.measurement,
            ("init", "gradient"),
            "a Measurement, such as measurements.gaussian_law()",
        )
        checks.made_of(
            "model", made.model, ("init", "estimate"), "a Model, such as models.factored(dim=50)"
        )
        if made.evolve is not None:
            checks.function(
                "evolve", made.evolve, 3, "None or an Evolution, such as evolutions.drift(rate=0.1)"
            )
        if made.evolve is not None and made.measurement.holds_labels:
            raise ValueError(
                "evolve must be None with a measurement whose labels were drawn once (fixed_design): they would be those of "
                "the first world, got an evolution; measure with examples that are streamed"
            )
        return made


class Start(NamedTuple):
    """How a run begins."""

    world: World
    data: Any  # the measurement's
    params: Params
    sampler: State
    loss: Array  # [] NaN: no batch was seen yet


def begin(key: Key, parts: Parts) -> Start:
    """Draw nature, data and the initial parameters, and check that the parts fit each other.

    Args:
        key: of the run.
        parts: of the method.

    Raises:
        ValueError: if the sampler's counts do not sum to its batch size, or that is more than the measurement has
            examples for.
        AssertionError: (from chex, with both shapes) if a part hands over an array of the wrong shape.
    """
    nature = parts.world(stream(key, "world"))
    params = parts.model.init(stream(key, "initialisation"))
    _check_sampler(parts.sampler, nature.probabilities.shape[0])
    _check_capacity(parts.measurement, parts.sampler, nature.probabilities.shape[0])
    chex.assert_shape(
        jax.eval_shape(parts.model.estimate, params), nature.estimate_shape,
        custom_message="the model's estimate does not have the shape of the world's signals",
    )  # fmt: skip
    return Start(
        world=nature,
        data=parts.measurement.init(stream(key, "data"), nature),
        params=params,
        sampler=parts.sampler.init(stream(key, "environments"), nature.probabilities),
        loss=jnp.full((), jnp.nan, jax.tree.leaves(params)[0].dtype),
    )


def check_evaluate(evaluate: Any) -> None:
    """Raise ValueError if it cannot tell the parameters that metrics see."""
    if evaluate is not None:
        allowed = (
            "None or a function (optimizer state, params) -> params, such as optimizers.averaged"
        )
        checks.function("evaluate", evaluate, 2, allowed)


def meet(
    key: Key, parts: Parts, step: Array, world: World, sampler_state: State
) -> tuple[World, Batch, State]:
    """Nature as it is at a step, the environments that feed it, and the sampler's next state.

    Args:
        key: of the run.
        parts: of the method.
        step: updates done so far, [].
        world: as the last step left it.
        sampler_state: as the last step left it.
    """
    order_key = random.fold_in(stream(key, "environments"), step)
    if parts.evolve is not None:
        before = world
        world = parts.evolve(random.fold_in(stream(key, "evolution"), step), step, world)
        chex.assert_trees_all_equal_shapes(world, before)
    counts, sampler_state = parts.sampler.draw(order_key, step, sampler_state)
    return world, _batch(counts, parts.sampler.max_environments), sampler_state


def descend(
    optimizer: optax.GradientTransformation,
    measure: Callable[[Params], tuple[Params, Array]],
    params: Params,
    state: optax.OptState,
) -> tuple[Params, optax.OptState, Params, Array]:
    """One update by one batch, with the batch's gradient and loss [] at the parameters before it.

    Transformations that look at the loss or at other parameters (line searches, `optimizers.sam`) are given it and the
    same batch, by optax's names: `value`, `grad`, `value_fn(params)` and `grad_fn(params, index)`.

    Args:
        optimizer: any optax transformation.
        measure: params -> (gradient, loss []) of the batch.
        params: before the update.
        state: the optimizer's.
    """
    gradient, loss = measure(params)
    chex.assert_trees_all_equal_shapes(gradient, params)
    update = optax.with_extra_args_support(optimizer).update
    offered = {
        "value": loss,
        "grad": gradient,
        "value_fn": lambda other: measure(other)[1],
        "grad_fn": lambda other, index: measure(other)[0],
    }
    taken = inspect.signature(update).parameters
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        offered = {
            name: value for name, value in offered.items() if name in taken
        }  # optax.contrib.sam is strict
    updates, state = update(gradient, state, params, **offered)
    return keep_types(optax.apply_updates(params, updates), params), state, gradient, loss


def keep_types(new: Params, old: Params) -> Params:
    """Scans need constant types, and a traced hyperparameter of another type must not promote the parameters."""
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), new, old)


def look(model: Model, params: Params, step: Array, world: World, loss: Array) -> Snapshot:
    """What metrics see of parameters."""
    factor = None if model.factor is None else model.factor(params)
    return Snapshot(
        step=step,
        params=params,
        dense=model.estimate(params) if factor is None else None,
        factor=factor,
        world=world,
        batch_loss=loss,
        predict=None if model.predict is None else jax.tree_util.Partial(model.predict, params),
        frame=None if factor is None else linalg.orthonormal(world.bases),
    )


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
        raise ValueError(
            f"batch_size must be at most {most}, the examples that the measurement has, got {batch_size}"
        )


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
                counts, state = sampler.draw(
                    jax.random.fold_in(key, step), jnp.asarray(step), state
                )
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
                    sampler.init(
                        jax.random.key(0), jnp.full(num_environments, 1 / num_environments)
                    ),
                )[0]
            ),
            (num_environments,),
            custom_message="the sampler's counts must have one entry per environment",
        )

"""What all methods share: named streams of keys, the parts, a run's start, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, random
from causal_sgd.types import (
    Array,
    Batch,
    Evolution,
    Key,
    Measurement,
    Model,
    Params,
    PyTree,
    Sampler,
    Snapshot,
    State,
    World,
    WorldFactory,
)

__all__ = [
    "STREAMS",
    "Parts",
    "RunState",
    "Start",
    "check_capacity",
    "check_evaluate",
    "check_world",
    "draw_batch",
    "drawn_batch",
    "evolved",
    "init_run",
    "reduced",
    "stream",
    "take_snapshot",
]

STREAMS = (
    "world",
    "initialisation",
    "environments",
    "measurements",
    "data",
    "optimizer",
    "evolution",
    "gates",
)
"""The named streams of a run's key. Each is folded in by its index: append, never reorder."""

CHECKED_DRAWS = 3  # batches that are drawn from a user's sampler before anything is compiled


def stream(key: Key, name: str) -> Key:
    """Return the key of a named stream of a run, the same for all methods and points of a seed.

    Args:
        key: the run's key.
        name: one of `STREAMS`.

    Raises:
        ValueError: if the key is none, or no stream has this name.
    """
    checks.key("key", key)
    checks.choice("name", name, STREAMS)
    # All streams at once, so that the streams of a run share one program.
    return random.fold_in(key, jnp.arange(len(STREAMS)))[STREAMS.index(name)]


class Parts(NamedTuple):
    """The parts of a method, besides its optimizers."""

    world: WorldFactory
    sampler: Sampler
    measurement: Measurement
    model: Model
    evolve: Evolution | None

    @classmethod
    def checked(
        cls,
        world: WorldFactory,
        sampler: Sampler,
        measurement: Measurement,
        model: Model,
        evolve: Evolution | None,
    ) -> Parts:
        """Return the parts after checking each of them.

        Raises:
            ValueError: if a part is not of its kind, or the world would evolve away from labels
                that were drawn once.
        """
        self = cls(world, sampler, measurement, model, evolve)
        checks.world_factory("world", self.world)
        checks.made_of(
            "sampler",
            self.sampler,
            ("init", "draw"),
            "a Sampler, such as samplers.hetero(batch_size=100)",
        )
        checks.made_of(
            "measurement",
            self.measurement,
            ("init", "gradient"),
            "a Measurement, such as measurements.gaussian_law()",
        )
        checks.made_of(
            "model", self.model, ("init", "estimate"), "a Model, such as models.factored(dim=50)"
        )
        if reduced(self.model) is not None and not self.measurement.takes_reduced:
            raise ValueError(
                "measurement must be right for reduced parameters with such a model "
                "(order_parameters), as order_parameter_law, order_parameter_limit and population "
                f"are, got {self.measurement.name}; use models.factored with it"
            )
        if self.evolve is None:
            return self
        allowed = "None or an Evolution, such as nonstationary.drift(rate=0.1)"
        checks.function("evolve", self.evolve, 3, allowed)
        if self.measurement.holds_labels:
            raise ValueError(
                "evolve must be None with a measurement whose labels were drawn once from the "
                "first world (fixed_design), got an evolution; use one that streams examples"
            )
        return self


class Start(NamedTuple):
    """How a run begins."""

    world: World
    data: PyTree  # the measurement's
    params: Params
    sampler: State
    loss: Array  # [] NaN before the first batch


def init_run(key: Key, parts: Parts) -> Start:
    """Draw the world, the data and the initial parameters, and check that the parts fit each other.

    Args:
        key: the run's key.
        parts: of the method.

    Raises:
        ValueError: if the sampler's batches are invalid or larger than the measurement allows.
        AssertionError: (from chex, with both shapes) if a part returns an array of the wrong shape.
    """
    world = parts.world(stream(key, "world"))
    check_world(world)
    params = parts.model.init(stream(key, "initialisation"))
    num_environments = world.probabilities.shape[0]
    if not parts.sampler.checked:
        _check_sampler(parts.sampler, num_environments)
    check_capacity(parts.measurement, parts.sampler, num_environments)
    # A model without an estimate, such as a network, knows itself what fits the world.
    check = getattr(parts.model, "check", None)
    if check is not None:
        check(params, world.estimate_shape)
    else:
        chex.assert_shape(
            jax.eval_shape(parts.model.estimate, params),
            world.estimate_shape,
            custom_message="the model's estimate does not have the shape of the world's signals",
        )
    with jax.debug_nans(False):  # this one is meant
        loss = jnp.full((), jnp.nan, jax.tree.leaves(params)[0].dtype)
    return Start(
        world=world,
        data=parts.measurement.init(stream(key, "data"), world),
        params=params,
        sampler=parts.sampler.init(stream(key, "environments"), world.probabilities),
        loss=loss,
    )


class Reduced(Protocol):
    """A model whose parameters stand for all that differ from them by a symmetry of the problem."""

    @property
    def reduce(self) -> Callable[[PyTree], PyTree]:
        """(Parameters, optimizer state) -> an equivalent pair, after every update."""
        ...

    def embed(self, tree: PyTree) -> PyTree:
        """Map all leaves of the shape of the parameters to equivalent ones of another shape."""
        ...


def reduced(model: Model) -> Reduced | None:
    """Return a model that has `reduce`; None for all others, also for those that lack it."""
    return cast("Reduced", model) if getattr(model, "reduce", None) is not None else None


def check_evaluate(evaluate: object) -> None:
    """Raise ValueError if it cannot return the parameters that metrics see."""
    if evaluate is not None:
        allowed = (
            "None or a function (optimizer state, params) -> params, such as optimizers.averaged"
        )
        checks.function("evaluate", evaluate, 2, allowed)


def draw_batch(
    key: Key, parts: Parts, step: Array, world: World, sampler_state: State
) -> tuple[World, Batch, State]:
    """Return the world at a step, the batch of the step, and the sampler's next state.

    Args:
        key: the run's key.
        parts: of the method.
        step: updates done so far, [].
        world: after the last step.
        sampler_state: after the last step.
    """
    world = evolved(key, parts, step, world)
    batch, sampler_state = drawn_batch(key, parts, step, world, sampler_state)
    return world, batch, sampler_state


def evolved(key: Key, parts: Parts, step: Array, world: World) -> World:
    """Return the world at a step; for the arguments see `draw_batch`."""
    if parts.evolve is None:
        return world
    before = world
    world = parts.evolve(random.fold_in(stream(key, "evolution"), step), step, world)
    chex.assert_trees_all_equal_shapes(world, before)
    # A system's own world may fix some of its fields.
    check = getattr(world, "check_evolution", None)
    if check is not None:
        check(before)
    return world


def drawn_batch(
    key: Key, parts: Parts, number: Array, world: World, sampler_state: State
) -> tuple[Batch, State]:
    """Return a batch, the first of which has number 0, and the sampler's next state."""
    order_key = random.fold_in(stream(key, "environments"), number)
    batch, sampler_state = parts.sampler.draw(order_key, number, sampler_state)
    _check_batch(batch, world.probabilities.shape[0])
    return batch, sampler_state


class RunState(Protocol):
    """What the states of all methods hold besides their own."""

    @property
    def step(self) -> Array:
        """Updates done so far, []."""
        ...

    @property
    def world(self) -> World:
        """After the last step."""
        ...

    @property
    def data(self) -> PyTree:
        """The measurement's."""
        ...

    @property
    def loss(self) -> Array:
        """The last batch loss, []."""
        ...


def take_snapshot(
    parts: Parts,
    params: Params,
    state: RunState,
    next_batch: Callable[[], tuple[Key, World, Batch]] | None = None,
) -> Snapshot:
    """Return what metrics see of parameters.

    Args:
        parts: of the method.
        params: that metrics see.
        state: of the method.
        next_batch: see `Snapshot`.
    """
    return Snapshot(
        step=state.step,
        params=params,
        world=state.world,
        batch_loss=state.loss,
        model=parts.model,
        measurement=parts.measurement,
        data=state.data,
        next_batch=next_batch,
    )


def check_world(world: World) -> None:
    """Refuse a world with arrays that do not fit, as far as they are concrete.

    Args:
        world: drawn by a factory.

    Raises:
        ValueError: if it is no world, or its arrays do not fit each other.
    """
    checks.instance(
        "world's result", world, World, "a world with `probabilities` and `estimate_shape`"
    )
    # A system's own world knows more about its fields.
    check = getattr(world, "check", None)
    if check is not None:
        check()
    else:
        size = np.shape(world.probabilities)[0] if np.ndim(world.probabilities) == 1 else 1
        checks.probabilities("world.probabilities", world.probabilities, size)


def _check_batch(batch: Batch, num_environments: int) -> None:
    """Refuse what is no batch of [B] environments and [B] counts, from the shapes alone."""
    checks.instance(
        "sampler's batch", batch, Batch, "a Batch(environments [B], counts [B]) of each step"
    )
    environments, counts = map(jnp.shape, batch)
    if len(counts) != 1 or environments != counts or not 1 <= counts[0] <= num_environments:
        raise ValueError(
            "sampler's batch must have environments and counts of one shape [B], B from 1 to "
            f"{num_environments} environments, got {list(environments)} and {list(counts)}"
        )
    types = [jnp.result_type(leaf) for leaf in batch]
    if not all(jnp.issubdtype(kind, jnp.integer) for kind in types):
        raise ValueError(
            "sampler's batch must have environments and counts of an integer type, got "
            f"{types[0]} and {types[1]}"
        )


def check_capacity(measurement: Measurement, sampler: Sampler, num_environments: int) -> None:
    """Refuse batches that are known to hold more examples than there are.

    Args:
        measurement: how examples become losses.
        sampler: which environments feed a step.
        num_environments: E.

    Raises:
        ValueError: if they are larger than the measurement allows.
    """
    batch_size = checks.concrete(sampler.batch_size)
    if measurement.capacity is None or batch_size is None:
        return
    batch = jax.eval_shape(lambda: _first_batch(sampler, num_environments))
    most = measurement.capacity(batch.counts.shape[0])
    if most is not None and batch_size > most:
        raise ValueError(
            f"batch_size must be at most {most}, the examples that the measurement has, "
            f"got {batch_size}"
        )


def _first_batch(sampler: Sampler, num_environments: int) -> Batch:
    key, weights = jax.random.key(0), jnp.full(num_environments, 1 / num_environments)
    return sampler.draw(key, jnp.asarray(0), sampler.init(key, weights))[0]


def _check_sampler(sampler: Sampler, num_environments: int) -> None:
    """Draw a few batches while nothing is traced, and refuse counts that do not add up.

    A sampler with traced numbers is checked by its shapes only, in every step.
    """
    try:
        with jax.ensure_compile_time_eval():
            key = jax.random.key(0)
            state = sampler.init(key, jnp.full(num_environments, 1 / num_environments))
            for step in range(CHECKED_DRAWS):
                batch, state = sampler.draw(jax.random.fold_in(key, step), jnp.asarray(step), state)
                _check_batch(batch, num_environments)
                _check_values(batch, np.asarray(sampler.batch_size), num_environments)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return


def _check_values(batch: Batch, batch_size: np.ndarray, num_environments: int) -> None:
    environments, counts = map(np.asarray, batch)
    if counts.sum() != batch_size or (counts < 0).any():
        raise ValueError(
            "sampler's counts must be at least 0 and sum to its batch_size "
            f"({batch_size}), got {counts.tolist()}"
        )
    inside = (environments >= 0) & (environments < num_environments)
    if not inside.all() or len(np.unique(environments)) < len(environments):
        raise ValueError(
            f"sampler's environments must be different indices below {num_environments}, got "
            f"{environments.tolist()}"
        )

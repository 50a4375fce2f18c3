"""The nouns that all floors share: worlds, batches, snapshots, traces, and the protocols.

Shapes are written beside the fields: `E` environments of the world, `B` environments of one batch,
`*S` the shape of an estimate, `F` recorded frames. Everything here is unbatched; `sweep` adds the
batch axes with `vmap`. Parameters, states, data and the world are pytrees. Each system has its own
pytrees and its own models.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import jax
from jax.extend.core import get_opaque_trace_state

from causal_sgd import checks

Array = jax.Array
Key = jax.Array
PyTree = Any
"""Arrays in nested containers that jax knows; the type checker has no type for it."""
Params = PyTree
State = PyTree
AnyModel = Any
"""A `Model` of which a system may require more, so that it accepts only its own."""

Result = TypeVar("Result")

__all__ = [
    "Algorithm",
    "Array",
    "Batch",
    "Evolution",
    "Key",
    "Measurement",
    "Metric",
    "Model",
    "Params",
    "PyTree",
    "RiskFunction",
    "Risks",
    "Sampler",
    "Snapshot",
    "State",
    "Trace",
    "World",
    "WorldFactory",
    "check_snapshot",
    "check_unreduced",
]


@runtime_checkable
class World(Protocol):
    """One draw of nature: any pytree with these two attributes. Each system defines its own."""

    @property
    def probabilities(self) -> Array:
        """How often each environment is drawn, [E]; sums to one."""
        ...

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape *S of an estimate of the signal."""
        ...


WorldFactory = Callable[[Key], World]
"""How the world of a run is drawn: a pure function of a key."""


Evolution = Callable[[Key, Array, PyTree], PyTree]
"""How the world changes before a step: (key, step, world) -> world of the same shapes.

The measurement's data are made once, from the first world, and samplers receive the probabilities
once: an evolution must leave both valid.
"""


class Batch(NamedTuple):
    """The environments that feed one step.

    B is static: with B = 1 a measurement knows at trace time that the batch is pure, which makes a
    step of HeteroSGD cheap.
    """

    environments: Array  # [B] int32, indices into the world's environments, all different
    counts: Array  # [B] int32, number of examples of each; may be zero; sums to the batch size


class Sampler(NamedTuple):
    """Which environments feed a step. The sampler *is* the experiment: nothing below sees its name.

    Attributes:
        init: (key, probabilities [E]) -> state.
        draw: (key, step, state) -> (batch, state). The environments of a batch are all different
            and its counts sum to the batch size; B is the same in every step.
        batch_size: the number of examples of every batch; may be traced.
        checked: whether all batches are known to be valid. From other samplers a few batches are
            drawn and checked before a run is compiled.
    """

    init: Callable[[Key, Array], State]
    draw: Callable[[Key, Array, State], tuple[Batch, State]]
    batch_size: int | Array
    checked: bool = False


class Model(Protocol):
    """Parameters and the estimate that they stand for. Each system defines its own models."""

    @property
    def init(self) -> Callable[[Key], Params]:
        """Key -> initial parameters, any pytree."""
        ...

    @property
    def estimate(self) -> Callable[[Params], Array]:
        """Parameters -> array [*S], the estimate that measurements and metrics see."""
        ...

    @property
    def predict(self) -> Callable[[Params, Array], Array] | None:
        """(parameters, input) -> prediction []; None where the estimate implies it."""
        ...

    @property
    def reduce(self) -> Callable[[PyTree], PyTree] | None:
        """(Parameters, optimizer state) -> an equivalent pair, after every update; None for none.

        For parameters that stand for all that differ from them by a symmetry of the problem; such a
        model has `embed`, too, by which optimizers are tested for the symmetry.
        """
        ...

    def bound(self, params: Params) -> Array:
        """Numbers that are finite exactly where the estimate is; otherwise the run diverged."""
        ...


class RiskFunction(Protocol):
    """The losses of several environments as one differentiable function."""

    def __call__(self, params: Params, scale: float | Array = 1.0) -> Array:
        """Return the loss of each environment, [E] or [B].

        Args:
            params: of the model.
            scale: factor of the prediction, []; the dummy classifier of IRMv1, whose penalty is the
                squared derivative of the losses with respect to it at 1.
        """
        ...


class Risks(NamedTuple):
    """How a measurement turns its examples into losses that penalties and metrics differentiate.

    The mean of the losses, weighted by the shares of the environments, has the gradient that the
    measurement's `gradient` returns for these shares.

    Attributes:
        whole: (data, model, world) -> the losses of all environments, [E], over everything that
            there is: the population or the data set.
        batch: (key, step, data, model, world, batch) -> the losses of the batch's environments,
            [B], on the examples that `gradient` uses with the same arguments; the loss of an
            environment without examples is 0. None where what is drawn depends on the parameters.
        single: (data, model, world, environment []) -> the loss of one environment, [1], as `whole`
            has it but at the cost of one; None where it is taken from `whole`.
    """

    whole: Callable[[PyTree, AnyModel, PyTree], RiskFunction]
    batch: Callable[[Key, Array, PyTree, AnyModel, PyTree, Batch], RiskFunction] | None = None
    single: Callable[[PyTree, AnyModel, PyTree, Array], RiskFunction] | None = None


class Measurement(NamedTuple):
    """How examples become a gradient.

    Attributes:
        init: (key, world) -> data; () when examples are streamed.
        gradient: (key, step, data, model, params, world, batch) -> (gradient with respect to
            params, batch loss []). The same key gives the same draws whatever the traced numbers
            are.
        capacity: the number of environments in a batch -> the most examples that it can hold, or
            None for no limit; `sgd` refuses samplers whose batches are known to be larger. None for
            never a limit.
        holds_labels: whether the data hold labels, which were drawn once from the first world;
            `sgd` refuses to let the world evolve under them.
        risks: the losses of the environments as differentiable functions; None where there is only
            the gradient, and what needs a risk refuses the measurement.
        differentiates_loss: whether the gradient is the derivative of the batch loss with respect
            to params at the same key. It is not where what is drawn depends on the parameters, as
            by an exact law; `sgd` then refuses optimizers that search along the loss.
        client: the arguments of `gradient` and the position [] of an environment in the batch ->
            the gradient and loss of that environment alone, on its part of the examples that
            `gradient` draws with the same arguments; zero for an environment without examples.
            Environments of one batch are independent. None where `gradient` cannot be divided:
            clients of federated methods then draw with keys of their own.
        takes_reduced: whether it is right for models with `reduce`, whose parameters are fewer than
            those that they stand for; other measurements are refused for them.
    """

    init: Callable[[Key, PyTree], PyTree]
    gradient: Callable[[Key, Array, PyTree, AnyModel, Params, PyTree, Batch], tuple[Params, Array]]
    capacity: Callable[[int], int | None] | None = None
    holds_labels: bool = False
    risks: Risks | None = None
    differentiates_loss: bool = False
    client: (
        Callable[[Key, Array, PyTree, AnyModel, Params, PyTree, Batch, Array], tuple[Params, Array]]
        | None
    ) = None
    takes_reduced: bool = False

    @property
    def repeats_examples(self) -> bool:
        """Whether the same key gives the same examples at all parameters."""
        has_losses = self.risks is not None and self.risks.batch is not None
        return has_losses or self.differentiates_loss

    @property
    def name(self) -> str:
        """The name of the factory that made it, for messages."""
        return getattr(self.gradient, "__qualname__", repr(self.gradient)).split(".")[0]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "world", "batch_loss", "data", "next_batch"),
    meta_fields=("model", "measurement"),
)
@dataclass(frozen=True)
class Snapshot:
    """What a metric sees of a run at one recorded step; everything beyond the fields is on demand.

    Attributes:
        step: [] int32, updates done so far.
        params: what the algorithm evaluates (the average, when it averages).
        world: the world of the run's system.
        batch_loss: [] loss of the last batch, before the update; NaN at step 0.
        model: what is trained.
        measurement: how the run measures; None where an algorithm does without one.
        data: the measurement's.
        next_batch: () -> (key, world, batch) of the next step's gradient; None where a step has
            none or several.
    """

    step: Array
    params: Params
    world: PyTree
    batch_loss: Array
    model: AnyModel
    measurement: Measurement | None = None
    data: PyTree = None
    next_batch: Callable[[], tuple[Key, PyTree, Batch]] | None = None
    _memo: list[tuple[object, object]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def once(self, function: Callable[[Snapshot], Result]) -> Result:
        """Return `function(self)`, computed once for all metrics of this snapshot.

        It is computed anew within a transformation that a metric applies (`jax.grad`, `jax.vmap`, a
        loop): a value from there must not leave it.
        """
        place = function, get_opaque_trace_state()
        for known_place, value in self._memo:
            if known_place == place:
                return cast("Result", value)
        value = function(self)
        self._memo.append((place, value))
        return value

    @property
    def estimate(self) -> Array:
        """The estimate [*S]."""
        return self.once(_estimate)

    @property
    def predict(self) -> Callable[[Array], Array] | None:
        """Input -> prediction []; None where the estimate implies it."""
        predict = self.model.predict
        return None if predict is None else functools.partial(predict, self.params)

    @property
    def risks(self) -> RiskFunction:
        """(params, scale) -> the losses [E] of all environments on the whole of the run's data.

        Raises:
            ValueError: if the measurement has no risks.
        """
        return self.once(_whole_risks)

    def pooled_risk(self, weights: Array | None = None) -> Callable[[Params], Array]:
        """The weighted mean of the risks as a function of the parameters.

        Args:
            weights: [E]; None for the world's probabilities.

        Returns:
            A differentiable function params -> [].

        Raises:
            ValueError: if the measurement has no risks.
        """
        risks, shares = self.risks, self.world.probabilities if weights is None else weights
        return lambda params: _mean(shares, risks(params))

    def environment_risk(self, environment: Array) -> Callable[[Params], Array]:
        """The risk of one environment as a function of the parameters.

        Args:
            environment: its index [].

        Returns:
            A differentiable function params -> [].

        Raises:
            ValueError: if the measurement has no risks.
        """
        single = _offered(self.measurement).single
        if single is None:
            risks = self.risks
            return lambda params: risks(params)[environment]
        risk = single(self.data, self.model, self.world, environment)
        return lambda params: risk(params)[0]

    def batch_risk(self) -> Callable[[Params], Array]:
        """The loss of the next step's batch as a function of the parameters.

        The batch is independent of the parameters of this snapshot, so that averages over runs or
        steps are averages over batches.

        Returns:
            A differentiable function params -> [].

        Raises:
            ValueError: if the measurement has no risks on a batch or a step no single batch.
        """
        return self.once(_batch_risk)


def _estimate(snapshot: Snapshot) -> Array:
    return snapshot.model.estimate(snapshot.params)


def _whole_risks(snapshot: Snapshot) -> RiskFunction:
    return _offered(snapshot.measurement).whole(snapshot.data, snapshot.model, snapshot.world)


def _batch_risk(snapshot: Snapshot) -> Callable[[Params], Array]:
    measurement = snapshot.measurement
    on_batch = _offered(measurement).batch
    if on_batch is None:
        assert measurement is not None
        raise ValueError(
            "measurement must offer risks on a batch whose draws do not depend on the parameters, "
            f"got {measurement.name}, whose draws do"
        )
    if snapshot.next_batch is None:
        raise ValueError(
            "algorithm must take one gradient by one batch in every step for the risk of a batch, "
            "such as sgd, got one that takes none or several"
        )
    key, world, batch = snapshot.next_batch()
    risks = on_batch(key, snapshot.step, snapshot.data, snapshot.model, world, batch)
    total = batch.counts.sum()

    def risk(params: Params) -> Array:
        weighted = _mean(batch.counts, risks(params))
        return weighted / total.astype(weighted.dtype)

    return risk


def _offered(measurement: Measurement | None) -> Risks:
    if measurement is None or measurement.risks is None:
        name = "none" if measurement is None else f"{measurement.name}, which has only a gradient"
        raise ValueError(
            f"measurement must offer risks for a training loss or a curvature, got {name}"
        )
    return measurement.risks


def _mean(weights: Array, values: Array) -> Array:
    return (weights.astype(values.dtype) * values).sum()


def check_snapshot(value: object) -> None:
    """Raise ValueError for anything but a snapshot, such as a dataset handed to a metric."""
    checks.instance(
        "snapshot", value, Snapshot, "a Snapshot; pass the metric itself to `run`, which makes them"
    )


def check_unreduced(snapshot: Snapshot, metric: str) -> None:
    """Raise ValueError if the parameters are fewer than those that they stand for.

    Args:
        snapshot: of a run.
        metric: the name of a metric that needs all parameters or their number.
    """
    if getattr(snapshot.model, "reduce", None) is not None:
        raise ValueError(
            f"metric {metric} must see all parameters, got a model of reduced ones "
            "(order_parameters); use models.factored with low_rank_law"
        )


Metric = Callable[[Snapshot], Array]
"""A pure function of a snapshot; a scalar or a small array."""


class Algorithm(NamedTuple):
    """One training method: pure functions that `run` scans.

    Attributes:
        init: key -> state; draws the world, the data and the initial parameters from streams of the
            key.
        step: (key, state) -> state; the same key at every step, the state counts them. By hand, a
            step of the package's own parts compiles once; one with a function of the user's own
            runs op by op and sees what the function reads.
        snapshot: (key, state) -> what the metrics see; the same key again.
        loss: state -> the last batch loss []; a run has diverged once it is not finite.
    """

    init: Callable[[Key], State]
    step: Callable[[Key, State], State]
    snapshot: Callable[[Key, State], Snapshot]
    loss: Callable[[State], Array]


class Trace(NamedTuple):
    """The record of one run (or, under `vmap`, of many)."""

    step: Array  # [F] int32
    metrics: Mapping[str, Array]  # name -> [F, ...]
    diverged_at: Array  # [] int32, first step with a non-finite loss or parameters; -1 for never

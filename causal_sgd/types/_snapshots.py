"""What metrics see of a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import jax
from jax.extend.core import get_opaque_trace_state

from causal_sgd import checks
from causal_sgd.types._parts import (
    AnyModel,
    Array,
    Batch,
    Key,
    Measurement,
    Params,
    PyTree,
    RiskFunction,
    Risks,
)

__all__ = [
    "Metric",
    "Snapshot",
    "check_snapshot",
    "check_unreduced",
    "check_world",
]

Result = TypeVar("Result")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("step", "params", "world", "batch_loss", "data", "next_batch", "split"),
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
        split: the weight of every example in the first of two inferred environments, [E, n]; None
            where none are inferred.
    """

    step: Array
    params: Params
    world: PyTree
    batch_loss: Array
    model: AnyModel
    measurement: Measurement | None = None
    data: PyTree = None
    next_batch: Callable[[], tuple[Key, PyTree, Batch]] | None = None
    split: Array | None = None
    _memo: list[tuple[object, object]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def once(self, function: Callable[[Snapshot], Result]) -> Result:
        """Return `function(self)`, computed once for all metrics of this snapshot.

        It is computed anew within a transformation that a metric applies (`jax.grad`, `jax.vmap`, a
        loop): a value from there must not leave it.
        """
        if not callable(function):
            raise ValueError(f"function must be a function of a snapshot, got {function!r}")
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
            environment: its index [], from 0 to E - 1.

        Returns:
            A differentiable function params -> [].

        Raises:
            ValueError: if the measurement has no risks, or there is no such environment.
        """
        last = len(self.world.probabilities) - 1
        checks.whole("environment", environment, minimum=0, maximum=last)
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


def check_world(value: object, metric: str, *, member: str, system: str) -> None:
    """Raise ValueError for anything but a snapshot of a run in a world of a system.

    Args:
        value: what the metric got.
        metric: its name.
        member: an attribute that all worlds of its system have.
        system: the name of the system.
    """
    check_snapshot(value)
    assert isinstance(value, Snapshot)
    if not hasattr(value.world, member):
        kind = type(value.world)
        room = ".".join(part for part in kind.__module__.split(".") if not part.startswith("_"))
        raise ValueError(
            f"metric {metric} must see a run in a world of causal_sgd.{system}, got one in "
            f"{room}.{kind.__qualname__}"
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

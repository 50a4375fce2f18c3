"""The nouns that every room shares: worlds, batches, snapshots, traces and the protocols between rooms.

Shapes are written beside the fields: `d` dimension, `k` columns of the factor, `r1` invariant and `r2` spurious rank,
`E` environments, `B` environments of one batch, `F` recorded frames. Everything here is unbatched; `sweep` adds the
batch axes with `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

Array = jax.Array
Key = jax.Array
Params = Any
State = Any

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
    "Sampler",
    "Snapshot",
    "State",
    "Trace",
    "World",
    "WorldFactory",
]


@runtime_checkable
class World(Protocol):
    """One draw of nature: any pytree with these two attributes. Each system defines its own."""

    @property
    def probabilities(self) -> Array:
        """How often each environment is met, [E]; sums to one."""
        ...

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape *S of an estimate of the signal."""
        ...


WorldFactory = Callable[[Key], World]
"""How nature is drawn: a pure function of a key."""


Evolution = Callable[[Key, Array, Any], Any]
"""How nature changes before a step: (key, step, world) -> world of the same shapes. The measurement's data, such as a dense
A*, are made once of the first world, and samplers learn the probabilities once: an evolution may change the spurious basis and
the cores only."""


class Batch(NamedTuple):
    """The environments that feed one step, without those that the sampler promised to leave out.

    With B = 1 a measurement knows at trace time that the batch is pure, which is what makes a HeteroSGD step cheap.
    """

    environments: Array  # [B] int32, indices into the world's environments, all different
    counts: Array  # [B] number of examples of each; may be zero; sums to the batch size


class Sampler(NamedTuple):
    """Which environments feed a step. The sampler *is* the experiment: nothing below learns its name.

    Attributes:
        init: (key, probabilities [E]) -> state.
        draw: (key, step, state) -> (counts [E], state); the counts are whole numbers that sum to the batch size.
        batch_size: the number of examples in every batch; may be traced. Counts are checked against it.
        max_environments: at most so many environments have a count above zero in any batch; None where all may.
    """

    init: Callable[[Key, Array], State]
    draw: Callable[[Key, Array, State], tuple[Array, State]]
    batch_size: Any
    max_environments: int | None = None


class Model(NamedTuple):
    """Parameters and the estimate that they stand for.

    Attributes:
        init: key -> params, any pytree.
        estimate: params -> array [*S], the estimate that measurements see; [d, d] in matrix sensing.
        pullback: (params, cotangent [*S], symmetric) -> gradient with respect to params; None for `jax.vjp`.
        factor: params -> U [d, k] with estimate U U'; None where the model has no such factor.
        diagonal: params -> the diagonal [d] of an estimate that has nothing else; None where it may have.
        symmetric: whether the estimate is symmetric whatever the parameters; measurements then need symmetric parts only.
        predict: (params, input [d]) -> prediction []; None where that is x' estimate x. A model that has its own is no
            linear function of an estimate, and only `measurements.examples` trains it; its `estimate` is what metrics see.
    """

    init: Callable[[Key], Params]
    estimate: Callable[[Params], Array]
    pullback: Callable[[Params, Array], Params] | None = None
    factor: Callable[[Params], Array] | None = None
    diagonal: Callable[[Params], Array] | None = None
    symmetric: bool = True
    predict: Callable[[Params, Array], Array] | None = None


class Measurement(NamedTuple):
    """How examples become a gradient.

    Attributes:
        init: (key, world) -> data; () when examples are streamed.
        gradient: (key, step, data, model, params, world, batch) -> (gradient with respect to params, batch loss []).
            The same key gives the same draws whatever the traced numbers are.
        capacity: how many environments a batch has -> the most examples that it can hold, or None where there is no
            limit; `sgd` refuses samplers whose batches are known to be larger. None for never a limit.
        holds_labels: whether the data hold labels, which were drawn once from the first world; `sgd` refuses to let nature
            evolve under them.
    """

    init: Callable[[Key, Any], Any]
    gradient: Callable[[Key, Array, Any, Any, Params, Any, Batch], tuple[Params, Array]]
    capacity: Callable[[int], int | None] | None = None
    holds_labels: bool = False


class Snapshot(NamedTuple):
    """What a metric sees of a run at one recorded step.

    Where there is a factor the estimate is made on demand: a metric that can do with the factor spends no memory on it.
    """

    step: Array  # [] int32, updates done so far
    params: Params  # what the algorithm evaluates (the average, when it averages)
    dense: Array | None  # [*S], the estimate of a model without a factor, else None
    factor: Array | None  # [d, k] with estimate = factor factor', or None
    world: Any  # the world of the run's system
    batch_loss: Array  # [] loss of the last batch, before the update; NaN at step 0
    predict: Callable[[Array], Array] | None = (
        None  # input [d] -> prediction []; None where that is x' estimate x
    )
    frame: Array | None = (
        None  # [d, r1 + r2], orthonormal, spans U* and V; made once for all metrics of a factor, else None
    )

    @property
    def estimate(self) -> Array:
        """The estimate [*S], [d, d] in matrix sensing."""
        if self.factor is not None:
            return jax.numpy.matmul(self.factor, self.factor.T, precision="highest")
        assert self.dense is not None, "a snapshot holds a factor or a dense estimate"
        return self.dense


Metric = Callable[[Snapshot], Array]
"""A pure function of a snapshot; a scalar or a small array."""


class Algorithm(NamedTuple):
    """One training method: pure functions that `run` scans.

    Attributes:
        init: key -> state; draws the world, the data and the initial parameters from streams of the key.
        step: (key, state) -> state; the same key at every step, the state counts them.
        snapshot: state -> what the metrics see.
        loss: state -> the last batch loss []; a run has diverged once it is not finite.
    """

    init: Callable[[Key], State]
    step: Callable[[Key, State], State]
    snapshot: Callable[[State], Snapshot]
    loss: Callable[[State], Array]


class Trace(NamedTuple):
    """The record of one run (or, under `vmap`, of many)."""

    step: Array  # [F] int32
    metrics: Mapping[str, Array]  # name -> [F, ...]
    diverged_at: (
        Array  # [] int32, the first step with a non-finite loss or parameters; -1 for never
    )

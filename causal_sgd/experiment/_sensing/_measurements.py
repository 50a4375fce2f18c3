"""How examples become a gradient."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._samplers import SamplerFields
from causal_sgd.experiment._table import Computed, Parts, Table, only, option

if TYPE_CHECKING:
    from causal_sgd.sensing.models import MatrixModel

__all__ = ["MEASUREMENTS", "MeasurementFields"]


def _module() -> ModuleType:
    from causal_sgd.sensing import measurements

    return measurements


def _largest_batch(experiment: SamplerFields, parts: object) -> int | None:
    """The batch size unless it is swept: it only saves time, so it may be omitted."""
    return experiment.batch_size if isinstance(experiment.batch_size, int) else None


def _symmetric(experiment: object, parts: Parts) -> bool:
    return cast("MatrixModel", parts["model"]).symmetric


PROMPTS = {
    "covariance": "input_variances",
    "task_covariance": "task_variances",
    "noise": "label_noise",
}
REDUCED = (only("model", "order-parameters", "it is a law of order parameters"),)

MEASUREMENTS = Table(
    "measurement",
    "measurement",
    _module,
    {
        "gaussian-law": option(noise="label_noise", curve=True),
        "low-rank-law": option(noise="label_noise", curve=True),
        "population": option(curve=True),
        "streamed": option(noise="label_noise", curve=True),
        "fixed-design": option(
            "num_examples",
            "fresh_noise",
            noise="label_noise",
            largest_batch=Computed(_largest_batch, ("batch_size",)),
            symmetric=Computed(_symmetric),
            curve=True,
        ),
        "rank-one": option("trace_correction", noise="label_noise", curve=True),
        "completion": option(noise="label_noise", curve=True),
        "examples": option("trace_correction", noise="label_noise"),
        "in-context": option("context_length", PROMPTS),
        "in-context-population": option("context_length", PROMPTS),
        "order-parameter-law": option(noise="label_noise", requires=REDUCED, curve=True),
        "order-parameter-limit": option(
            "batch_ratio", noise="label_noise", requires=REDUCED, curve=True
        ),
    },
)

if TYPE_CHECKING:
    MeasurementName = str
else:
    MeasurementName = Literal[tuple(MEASUREMENTS.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasurementFields:
    """The measurement and its numbers."""

    measurement: MeasurementName = "gaussian-law"
    """How examples become a gradient: gaussian-law (exact, at a cost free of the batch size),
    low-rank-law (the same for ranks far below dim), population, streamed, fixed-design (a finite
    data set in every environment), rank-one (xx', as in networks with quadratic activations),
    completion (single entries), examples (inputs and labels, for relu), in-context (prompts of
    regressions, for linear self-attention; in-context-population is its mean); for the model
    order-parameters: order-parameter-law (exact, at a cost free of dim and batch size) and
    order-parameter-limit (for large dim, batch-ratio examples per dimension)."""
    num_examples: int = 1000
    """Examples of each environment (fixed-design). A larger batch is refused, or ends its run as
    diverged."""
    label_noise: Axis[float] = 0.0
    """Standard deviation of the label noise."""
    fresh_noise: Axis[float] = 0.0
    """Standard deviation of label noise that is drawn anew at every step (fixed-design; elsewhere
    all noise is)."""
    context_length: Axis[int] = 20
    """Labelled examples in the context of a prompt (in-context, in-context-population)."""
    input_variances: tuple[float, ...] | None = None
    """Variances of the inputs of prompts along the coordinates; 1 by default."""
    task_variances: tuple[float, ...] | None = None
    """Variances of the tasks of prompts along the coordinates; 1 by default."""
    batch_ratio: Axis[float] = 10.0
    """Batch size over dim (order-parameter-limit)."""
    trace_correction: bool = True
    """Whether measurements are centred: X = xx' - I up to scale, and labels without their mean
    (rank-one, examples)."""

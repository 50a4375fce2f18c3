"""Multi-environment matrix sensing by names and numbers.

The command line and the studies use it. For other ingredients, compose the parts by hand. Importing
this module does not start jax.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Self

from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._samplers import SAMPLERS, SamplerFields
from causal_sgd.experiment._sensing import _curves, _sizes
from causal_sgd.experiment._sensing._algorithms import ALGORITHMS, AlgorithmFields
from causal_sgd.experiment._sensing._measurements import MEASUREMENTS, MeasurementFields
from causal_sgd.experiment._sensing._metrics import DEFAULT_METRICS, METRICS, MetricName
from causal_sgd.experiment._sensing._models import MODELS, ModelFields
from causal_sgd.experiment._sensing._worlds import EVOLUTIONS, FAMILIES, WorldFields
from causal_sgd.experiment._system import File, System
from causal_sgd.experiment._table import Parts
from causal_sgd.experiment._training import AVERAGES, OPTIMIZERS, SCHEDULES, TrainingFields

__all__ = ["Experiment"]


def _read_file(path: Path) -> File:
    from causal_sgd.experiment._sensing._files import read_world

    return read_world(path)


def _given_parts(experiment: Experiment) -> Parts:
    frame = experiment.invariant_rank + experiment.spurious_rank
    return {"dim": experiment.dim, "frame": frame}


SENSING = System(
    name="sensing",
    implied=True,  # of the descriptions in stores
    tables=(
        FAMILIES,
        EVOLUTIONS,
        SAMPLERS,
        MODELS,
        MEASUREMENTS,
        SCHEDULES,
        OPTIMIZERS,
        AVERAGES,
        ALGORITHMS,
    ),
    main=(
        "sampler",
        "batch_size",
        "optimizer",
        "learning_rate",
        "steps",
        "record_every",
        "family",
        "mean",
        "spread",
        "dim",
        "model",
        "measurement",
        "metrics",
    ),
    metrics=METRICS,
    file_field="world_file",
    file_kind="an .npz file",
    read_file=_read_file,
    given_parts=_given_parts,
    arrays=_sizes.arrays,
    assumed=_curves.ASSUMED,
    family=_curves.family,
    environments=_curves.environments,
    shift=_curves.shift,
    level=_curves.level,
    level_condition="the metric is spurious_signal and the mean is above 0",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment(
    BaseExperiment,
    TrainingFields,  # here again for the order of the flags
    AlgorithmFields,
    ModelFields,
    MeasurementFields,
    WorldFields,
    SamplerFields,
):
    """Multi-environment matrix sensing [Xu, Gu, Fang 2024], described by names and numbers.

    In names, hyphens and underscores are the same.

    Raises:
        ValueError: if a name is unknown or two fields conflict. The parts check the numbers.
    """

    SYSTEM: ClassVar[System] = SENSING

    steps: int = 400
    """Updates in a run; rounds with fedavg, fedprox and scaffold."""
    metrics: tuple[MetricName, ...] = DEFAULT_METRICS
    """What is recorded."""

    def limit(self) -> Self:
        """The same experiment for d to infinity, at its ratio of batch size and dimension.

        For `order-parameter-law` a run of the same key sees the same worlds, start and environments
        in the same order, so that the difference is what the noise of the batches does at finite d.

        Raises:
            ValueError: if the measurement is not order-parameter-law or order-parameter-limit.
        """
        if not self.measurement.startswith("order-parameter-"):
            raise ValueError(
                "measurement must be 'order-parameter-law' for the limit of large dim, got "
                f"{self.measurement!r}"
            )
        if self.measurement == "order-parameter-limit":
            return self
        ratio = self.batch_size / self.dim
        return self.replace(measurement="order-parameter-limit", batch_ratio=ratio)

    def why_no_axis(self, number: str) -> str | None:
        """Why a sweepable number cannot be an axis, as the end of a sentence; None if it can.

        With most models `dim` fixes the shapes of arrays.
        """
        if number != "dim":
            return None
        if self.world_file is not None:
            return "where world_file is given"
        if self.model != "order-parameters":
            return f"unless model is 'order-parameters', got {self.model!r}"
        return None

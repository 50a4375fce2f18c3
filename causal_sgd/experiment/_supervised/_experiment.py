"""Regression in several environments by names and numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._samplers import SAMPLERS, SamplerFields, SamplerName
from causal_sgd.experiment._supervised import _curves, _sizes
from causal_sgd.experiment._supervised._measurements import (
    LOSSES,
    MEASUREMENTS,
    MeasurementFields,
    default_measurement,
)
from causal_sgd.experiment._supervised._methods import (
    ALGORITHMS,
    ANNEALING,
    ESTIMATORS,
    METHODS,
    MethodFields,
)
from causal_sgd.experiment._supervised._metrics import (
    DEFAULT_METRICS,
    FITTED,
    METRICS,
    TRAINED,
    SupervisedMetricName,
)
from causal_sgd.experiment._supervised._models import MODELS, ModelFields
from causal_sgd.experiment._supervised._world_fields import WorldFields
from causal_sgd.experiment._supervised._worlds import BINARY, EVOLUTIONS, WORLDS
from causal_sgd.experiment._system import File, System
from causal_sgd.experiment._table import Table, given, value_of
from causal_sgd.experiment._training import AVERAGES, OPTIMIZERS, SCHEDULES, TrainingFields

__all__ = ["SupervisedExperiment"]

SAMPLED = "of nonlinear equations only samples are known"
FINITE = {
    "method": {"icp": "a population has no p-values"},
    "world": dict.fromkeys(("eills-demo", "random-scm", "additive-scm"), SAMPLED),
}
"""Choices whose moments must be those of a number of examples, and why."""
RATE = 0.1
RATES = {"sem": 0.01, "random-scm": 0.002, "balancing": 0.01, "additive-scm": 0.05}
"""Learning rates of worlds whose inputs may have large second moments. Of drawn worlds with the
default sizes the largest eigenvalue is about 350 (sem), 920 (random-scm), 320 (a group of the data
set of balancing) and 58 (additive-scm), elsewhere below 42."""
OF_STEPS = (SAMPLERS, MODELS, ANNEALING, SCHEDULES, OPTIMIZERS, AVERAGES)
"""The tables that estimators do not need."""
OF_ESTIMATORS = (LOSSES, WORLDS, EVOLUTIONS, MEASUREMENTS, METHODS, ALGORITHMS)
SQUARED = ("test_risk", "worst_test_risk", "validation_risk")
"""The metrics that are mean squared residuals under every loss."""


def _read_file(path: Path) -> File:
    from causal_sgd.experiment._supervised._files import read_data

    return read_data(path)


SUPERVISED = System(
    name="supervised",
    tables=(
        LOSSES,
        WORLDS,
        EVOLUTIONS,
        SAMPLERS,
        MODELS,
        MEASUREMENTS,
        METHODS,
        ANNEALING,
        SCHEDULES,
        OPTIMIZERS,
        AVERAGES,
        ALGORITHMS,
    ),
    main=(
        "method",
        "weight",
        "sampler",
        "batch_size",
        "optimizer",
        "learning_rate",
        "steps",
        "record_every",
        "world",
        "mean",
        "spread",
        "data_file",
        "loss",
        "model",
        "measurement",
        "metrics",
    ),
    metrics=METRICS,
    file_field="data_file",
    file_kind="an .npz or .csv file",
    read_file=_read_file,
    arrays=_sizes.arrays,
    assumed=_curves.ASSUMED,
    family=_curves.family,
    environments=_curves.environments,
    level=_curves.level,
    level_condition="the metric is spurious_weight, the world is contradiction with one spurious "
    "input, and the mean is above 0",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedExperiment(
    BaseExperiment,
    TrainingFields,  # here again for the order of the flags
    MeasurementFields,
    ModelFields,
    SamplerFields,
    WorldFields,
    MethodFields,
):
    """Regression and classification in several environments, described by names and numbers.

    In names, hyphens and underscores are the same.

    Raises:
        ValueError: if a name is unknown or two fields conflict. The parts check the numbers.
    """

    SYSTEM: ClassVar[System] = SUPERVISED

    learning_rate: Axis[float | None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Step size for the loss sum r^2/(4m) of a batch, or for the mean of another loss over it,
    with the penalty of the method. Default: 0.1, 0.05 (additive-scm), 0.01 (sem, balancing)
    or 0.002 (random-scm), with which nearly no drawn world diverges, but which need more steps.
    Steps of least squares diverge beyond 4 / the largest eigenvalue of the inputs' second moments,
    steps of logistic loss not below 8 / it."""
    sampler: SamplerName = "stratified"
    """Which environments feed a step. Batches of several: stratified (all in equal shares), pooled,
    mixed. Batches of one environment: hetero (HeteroSGD, drawn at random), cyclic, shuffled, block,
    sticky."""
    metrics: tuple[SupervisedMetricName, ...] = DEFAULT_METRICS
    """What is recorded."""

    def __post_init__(self) -> None:
        """Check the fields, and that the metrics are about the method."""
        super().__post_init__()
        kind = FITTED if self.fits else TRAINED
        for name in self.metrics:
            if METRICS[name].of not in (None, kind):
                raise ValueError(
                    f"metrics must be about what method {self.method!r} has, got {name!r}, which "
                    f"is about {'methods that take steps' if self.fits else 'estimators'}"
                )
        if "gates" in self.metrics and self.model != "gated":
            raise ValueError(f"model must be 'gated' for the metric gates, got {self.model!r}")
        if "split" in self.metrics and self.method != "zin":
            raise ValueError(f"method must be 'zin' for the metric split, got {self.method!r}")
        self._check_labels()
        held_out = "num_validation" if self.data_file is None else "validation_share"
        for name in ("validation_risk", "validation_error"):
            if name in self.metrics and getattr(self, held_out) is None:
                raise ValueError(f"{held_out} must be given for the metric {name}, got None")

    def _check_labels(self) -> None:
        """Raise ValueError if the loss does not fit the labels, or a metric the loss."""
        if self.loss == "squared":
            return
        if self.data_file is None and self.world not in BINARY:
            raise ValueError(
                f"world must be {' or '.join(map(repr, BINARY))} where loss is {self.loss!r}, got "
                f"{self.world!r}: its labels are numbers"
            )
        if self.data_file is not None and self.standardise:
            raise ValueError(
                f"standardise must be False where loss is {self.loss!r}, got True: it moves labels"
            )
        for name in self.metrics:
            if name in SQUARED:
                raise ValueError(
                    f"metrics must be of the loss, {self.loss!r}, got {name!r}, a mean squared "
                    f"residual; use {name.replace('risk', 'error')}"
                )

    def check_numbers(self) -> None:
        """Raise ValueError if a number, which may be an axis, does not fit or is missing."""
        super().check_numbers()
        if value_of(self, "measurement") == "moments" and self.data_file is None:
            for field, reasons in FINITE.items():
                name = getattr(self, field)
                if name in reasons:
                    given("num_examples", reasons[name]).check(self, f"{field} is {name!r}")

    @property
    def fits(self) -> bool:
        """Whether the method is an estimator, which fits in one step."""
        return self.method in ESTIMATORS

    @property
    def label(self) -> str:
        """A short name among other experiments of the system."""
        return f"{self.method}, {self.sampler}" if SAMPLERS in self.tables else self.method

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables that apply."""
        if self.method == "zin":
            return tuple(table for table in SUPERVISED.tables if table is not SAMPLERS)
        return OF_ESTIMATORS if self.fits else SUPERVISED.tables

    @property
    def implied(self) -> Mapping[str, str | float]:
        """The measurement of world and loss and the learning rate, where they are not given."""
        values: dict[str, str | float] = {}
        if self.measurement is None:
            values["measurement"] = default_measurement(self)
        if self.learning_rate is None:
            own = RATES.get(self.world, RATE)
            values["learning_rate"] = own if self.data_file is None else RATE
        return values

    @property
    def num_steps(self) -> int:
        """Steps of a run: one for an estimator."""
        return 1 if self.fits else self.steps

    def why_unused(self, field: str) -> str | None:
        """Why a field has no effect, such as "where biases is given"; None if it has one."""
        reason = super().why_unused(field)
        of_samplers = {name for row in SAMPLERS.options.values() for name in row.fields}
        if self.method == "zin" and field in of_samplers:
            return "where method is 'zin', which uses all examples in every step"
        if not self.fits:
            return reason
        rows = [row for table in OF_STEPS for row in table.options.values()]
        rows.append(ALGORITHMS.options["erm"])
        of_steps = {"steps"}.union(*(row.fields for row in rows))
        used = any(field in table.fields_used(self) for table in self.tables)
        if field in of_steps and not used:
            return f"where method is {self.method!r}, which fits in one step"
        return reason

    def why_no_axis(self, number: str) -> str | None:
        """Why a sweepable number cannot be an axis, as the end of a sentence; None if it can."""
        reason = "as it fixes the shapes of arrays"
        drawn = value_of(self, "measurement") == "examples"
        if drawn and number == "num_examples":
            return f"where measurement is 'examples', {reason}"
        if drawn and number == "num_validation" and self.loss != "squared":
            return f"where measurement is 'examples' and loss is {self.loss!r}, {reason}"
        if number == "minority_share" and self.world == "balancing":
            return f"where world is 'balancing', {reason}"
        return None

"""How examples become losses."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._supervised._worlds import BINARY, MIXTURES, TABLES
from causal_sgd.experiment._table import (
    AnyExperiment,
    Computed,
    Option,
    Parts,
    Table,
    absent,
    given,
    one_of,
    only,
    option,
)

__all__ = ["LOSSES", "MEASUREMENTS", "MeasurementFields", "default_measurement"]


def _module() -> ModuleType:
    from causal_sgd.supervised import measurements

    return measurements


def _losses() -> ModuleType:
    from causal_sgd.supervised import losses

    return losses


def _loss(experiment: AnyExperiment, parts: Parts) -> object:
    del parts
    return getattr(_losses(), experiment.loss)


LOSS = Computed(_loss, ("loss",))
DATA_FILE = absent("data_file", "of data only examples are known")

MEASUREMENTS = Table(
    "measurement",
    "measurement",
    _module,
    {
        "moments": option("num_examples", "known_inputs", "num_validation", curve=True),
        "batch-moments": option("num_validation"),
        "batch-directions": option("num_validation"),
        "quadrature": option(
            "nodes",
            loss=LOSS,
            requires=(DATA_FILE, one_of("world", MIXTURES, "it integrates over Gaussian groups")),
        ),
        "batch-projections": option(
            "nodes",
            loss=LOSS,
            max_examples="fresh_examples",
            requires=(
                DATA_FILE,
                one_of("world", MIXTURES, "it is the law of Gaussian groups"),
                given("fresh_examples", "it is the most examples of an environment in a batch"),
            ),
        ),
        "counts": option(
            "num_examples",
            "fresh",
            "num_validation",
            loss=LOSS,
            requires=(DATA_FILE, one_of("world", TABLES, "it counts the values of a table")),
        ),
        "examples": option(
            "num_examples",
            "replacement",
            "subsampled",
            "label_noise",
            "num_validation",
            "slots",
            loss=LOSS,
            fresh="fresh_examples",
            full="full_batch",
            most="most_examples",
            noisy="noisy_examples",
        ),
    },
)

OF_A_LOSS = tuple(name for name, row in MEASUREMENTS.options.items() if "loss" in row.fields)
ANY_LOSS = (one_of("measurement", OF_A_LOSS, "moments are those of squared loss"),)

LOSSES = Table(
    "loss",
    "loss",
    _losses,
    {
        "squared": Option(None, curve=True),
        "logistic": Option(None, requires=ANY_LOSS),
        "exponential": Option(None, requires=ANY_LOSS),
        "softmax": Option(
            None,
            requires=(
                given("data_file", "the labels of all worlds are numbers or -1 and 1"),
                only("measurement", "examples", "it has several outputs"),
                only("model", "linear", "it has several outputs"),
            ),
        ),
    },
)
"""No part is built: the measurements that have a loss read its name."""


def default_measurement(experiment: AnyExperiment) -> str:
    """The measurement that is exact for the loss and the world."""
    if experiment.loss == "squared":
        return "moments"
    if experiment.data_file is not None or experiment.world not in BINARY:
        return "examples"
    return "counts" if experiment.world in TABLES else "quadrature"


if TYPE_CHECKING:
    MeasurementName = LossName = str
else:
    MeasurementName = Literal[tuple(MEASUREMENTS.options)]
    LossName = Literal[tuple(LOSSES.options)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasurementFields:
    """The loss, the measurement and their numbers."""

    loss: LossName = "squared"
    """Loss of a prediction f and a label y: squared, (f - y)^2 / 4; for labels -1 and 1 also
    logistic, log(1 + exp(-y f)), and exponential, exp(-y f); for labels 0, 1, ... of data-file
    softmax, the cross-entropy of as many outputs."""
    measurement: MeasurementName | None = None
    """How examples become losses: moments (of the population, or of one data set of num-examples,
    exact at a cost free of their number), batch-moments (of a fresh batch of batch-size, by the
    exact law), batch-directions (the same for many inputs), quadrature (the population of Gaussian
    groups under any loss), batch-projections (a fresh batch of them), counts (discrete worlds under
    any loss), examples (really drawn, any loss). Default: moments; under other losses than squared
    quadrature or counts, and examples of data-file."""
    num_examples: Axis[int | None] = None
    """Examples of each environment (moments, counts, examples). Default: the population (moments,
    counts), all of data-file, or the world's own data set (balancing). An axis of moments and
    counts only."""
    known_inputs: bool = False
    """Whether the moments of the inputs alone are those of the population, so that only those of
    the label are estimated (moments)."""
    fresh_examples: int | None = None
    """In place of a data set, examples are drawn anew in every step, of each environment at most
    this many (examples, batch-projections)."""
    fresh: bool = False
    """Whether every step draws its examples anew (counts)."""
    full_batch: bool = False
    """Whether every step uses all examples of the data set (examples)."""
    replacement: bool = False
    """Whether the examples of a batch are chosen with replacement (examples)."""
    subsampled: bool = False
    """Whether every environment keeps as many examples as the smallest one has (examples)."""
    most_examples: int | None = None
    """The most examples of one environment in a batch, which alone are then computed, so that a
    step costs no more in a larger data set (examples)."""
    slots: int | None = None
    """The same for the examples of all environments of a batch together, such as batch-size
    (examples)."""
    label_noise: Axis[float] = 0.0
    """Standard deviation of noise that every step adds anew to the labels (examples)."""
    noisy_examples: int | None = None
    """How many examples of each environment in a batch have this noise, random ones (examples); all
    by default."""
    num_validation: Axis[int | None] = None
    """Examples of each environment that nothing trains on, for the metrics validation_risk and
    validation_error (counts, examples); none by default. Of data-file rows are held out by
    validation-share instead."""
    nodes: int | None = None
    """Nodes of a quadrature: over a Gaussian group (quadrature, batch-projections; 16 by default),
    or over the margins (minority-groups; 32 by default)."""

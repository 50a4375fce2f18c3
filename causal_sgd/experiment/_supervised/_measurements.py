"""How examples become losses."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from causal_sgd.experiment._fields import Axis
from causal_sgd.experiment._table import Table, option

__all__ = ["MEASUREMENTS", "MeasurementFields"]


def _module() -> ModuleType:
    from causal_sgd.supervised import measurements

    return measurements


MEASUREMENTS = Table(
    "measurement",
    "measurement",
    _module,
    {
        "moments": option("num_examples", "num_validation", curve=True),
        "batch-moments": option("num_validation"),
        "batch-directions": option("num_validation"),
        "examples": option(
            "num_examples",
            "replacement",
            "num_validation",
            fresh="fresh_examples",
            full="full_batch",
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

    measurement: MeasurementName = "moments"
    """How examples become losses: moments (of the population, or of one data set of num-examples,
    exact at a cost free of their number), batch-moments (of a fresh batch of batch-size, by the
    exact law), batch-directions (the same for many inputs), examples (really drawn)."""
    num_examples: Axis[int | None] = None
    """Examples of each environment (moments, examples). Default: the population (moments), or all
    of data-file. An axis with moments only."""
    fresh_examples: int | None = None
    """In place of a data set, examples are drawn anew in every step, of each environment at most
    this many (examples)."""
    full_batch: bool = False
    """Whether every step uses all examples of the data set (examples)."""
    replacement: bool = False
    """Whether the examples of a batch are chosen with replacement (examples)."""
    num_validation: Axis[int | None] = None
    """Examples of each environment that nothing trains on, for the metric validation_risk; none by
    default. Of data-file rows are held out by validation-share instead."""

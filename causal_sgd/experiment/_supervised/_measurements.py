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
    exact at a cost free of their number)."""
    num_examples: Axis[int | None] = None
    """Examples of each environment (moments); the population by default."""
    num_validation: Axis[int | None] = None
    """Examples of each environment that nothing trains on, for the metric validation_risk
    (moments); none by default."""

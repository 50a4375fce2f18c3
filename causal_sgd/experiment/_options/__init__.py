"""The options of matrix sensing: one table per choice, next to the fields that its rows use.

From the tables follow the choices, the checks of combinations, which fields take effect, where
theory's curve applies, and the arguments of every part; from the fields the sweepable numbers and
the flags of the command line.
"""

from causal_sgd.experiment._options._measurements import MEASUREMENTS, MeasurementFields
from causal_sgd.experiment._options._metrics import (
    DEFAULT_METRICS,
    METRICS,
    MetricFields,
    MetricName,
    metric,
)
from causal_sgd.experiment._options._models import MODELS, ModelFields
from causal_sgd.experiment._options._samplers import SAMPLERS, SamplerFields
from causal_sgd.experiment._options._table import SWEEPABLE, Option, Parts, Table
from causal_sgd.experiment._options._training import (
    ALGORITHMS,
    AVERAGES,
    OPTIMIZERS,
    SCHEDULES,
    TrainingFields,
)
from causal_sgd.experiment._options._worlds import EVOLUTIONS, FAMILIES, WorldFields

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "SWEEPABLE",
    "TABLES",
    "MeasurementFields",
    "MetricFields",
    "MetricName",
    "ModelFields",
    "Option",
    "Parts",
    "SamplerFields",
    "Table",
    "TrainingFields",
    "WorldFields",
    "metric",
]

TABLES = (
    FAMILIES,
    EVOLUTIONS,
    SAMPLERS,
    MODELS,
    MEASUREMENTS,
    SCHEDULES,
    OPTIMIZERS,
    AVERAGES,
    ALGORITHMS,
)
"""All tables, in the order in which parts are built: each may refer to the parts before it."""

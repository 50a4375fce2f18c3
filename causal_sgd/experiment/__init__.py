"""An experiment by names and numbers. Importing this package does not start jax."""

from causal_sgd.experiment._curves import theory_curve
from causal_sgd.experiment._experiment import CHOICES, INTEGER_AXES, SWEEPABLE, Experiment
from causal_sgd.experiment._options import DEFAULT_METRICS, MetricName

__all__ = [
    "CHOICES",
    "DEFAULT_METRICS",
    "INTEGER_AXES",
    "SWEEPABLE",
    "Experiment",
    "MetricName",
    "theory_curve",
]

"""An experiment by names and numbers: one frozen description, one cell for a sweep. Does not start jax."""

from causal_sgd.experiment._experiment import (
    CHOICES,
    DEFAULT_METRICS,
    INTEGER_AXES,
    SWEEPABLE,
    Experiment,
)

__all__ = ["CHOICES", "DEFAULT_METRICS", "INTEGER_AXES", "SWEEPABLE", "Experiment"]

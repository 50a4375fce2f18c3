"""What trains any system: samplers, optimizers, algorithms, one run, and curvature as metrics."""

from causal_sgd.training import algorithms, curvature, optimizers, samplers
from causal_sgd.training._run import run, time_average
from causal_sgd.training.algorithms import sgd

__all__ = ["algorithms", "curvature", "optimizers", "run", "samplers", "sgd", "time_average"]

"""What trains any system: samplers, optimizers, algorithms, and the loop of one run."""

from causal_sgd.training import algorithms, optimizers, samplers
from causal_sgd.training._run import run, time_average
from causal_sgd.training.algorithms import sgd

__all__ = ["algorithms", "optimizers", "run", "samplers", "sgd", "time_average"]

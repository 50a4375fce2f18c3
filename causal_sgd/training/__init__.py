"""What trains any system: samplers, objectives, optimizers, algorithms, one run, and curvature."""

from causal_sgd import _room
from causal_sgd.training import algorithms, curvature, objectives, optimizers, samplers
from causal_sgd.training._run import run, time_average
from causal_sgd.training.algorithms import sgd

_room(__name__)
__all__ = [
    "algorithms",
    "curvature",
    "objectives",
    "optimizers",
    "run",
    "samplers",
    "sgd",
    "time_average",
]

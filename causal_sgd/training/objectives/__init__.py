"""Objectives: how the losses of several environments become one that is minimised.

Each takes the weights of its two terms, which may be traced: `risk_weight` of the mean loss and
`weight` of the penalty. Losses are on the house's scale, mean squared residuals over 4; the page on
objectives in the documentation converts the scales of the sources. The mean over environments is
weighted by their shares of the batch, which `samplers.stratified` makes equal.
"""

from __future__ import annotations

from causal_sgd import _room
from causal_sgd.training.objectives._distributions import coral, fishr
from causal_sgd.training.objectives._gradients import andmask, iga, sandmask
from causal_sgd.training.objectives._heads import birm, irm, irmv1
from causal_sgd.training.objectives._robust import group_dro
from causal_sgd.training.objectives._schedules import annealed
from causal_sgd.training.objectives._values import from_value, mean, sd, vrex

_room(__name__)
__all__ = [
    "andmask",
    "annealed",
    "birm",
    "coral",
    "fishr",
    "from_value",
    "group_dro",
    "iga",
    "irm",
    "irmv1",
    "mean",
    "sandmask",
    "sd",
    "vrex",
]

"""Objectives: how the losses of several environments become one that is minimised.

Each takes the weights of its two terms, which may be traced: `risk_weight` of the mean loss and
`weight` of the penalty. Losses are on the house's scale, mean squared residuals over 4; the page on
objectives in the documentation converts the scales of the sources. The mean over environments is
weighted by their shares of the batch, which `samplers.stratified` makes equal.
"""

from __future__ import annotations

from causal_sgd.training.objectives._values import from_value, mean, vrex

__all__ = ["from_value", "mean", "vrex"]

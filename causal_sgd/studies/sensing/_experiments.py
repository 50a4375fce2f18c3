"""Experiments on which several studies build."""

from __future__ import annotations

from causal_sgd.experiment import Experiment

__all__ = ["TWO_SCALARS"]

TWO_SCALARS = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    metrics=("spurious_power",),
)
"""One invariant and one spurious direction, by population gradients: two scalar maps."""

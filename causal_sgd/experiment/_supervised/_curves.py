"""Theory's boundary of HeteroSGD in the contradiction world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment._curves import applies
from causal_sgd.experiment._system import Curves

if TYPE_CHECKING:
    from causal_sgd.experiment import SupervisedExperiment

__all__ = ["curves", "level", "shift"]

AXES = ("spread", "learning_rate", "mean")
ASSUMED = {
    "accumulate": 1,
    "clip_norm": None,
    "sam_radius": None,
    "probabilities": None,
    "biases": None,
    "angle": 0.0,
    "scramble": False,
    "depth": 2,
    "signed": False,
    "num_examples": None,
}
"""Values of fields, where they take effect, that the theory is about."""
POINTS = 200
REJECTING = 0.2  # default level, relative to the spurious weight of pooled least squares


def curves(
    experiment: SupervisedExperiment,
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    shift: Mapping[str, float] | None,
) -> Curves | None:
    """See `theory_curve`."""
    del shift
    if not {x, y} <= set(AXES) or "spread" not in (x, y) or not applies(experiment, ASSUMED):
        return None
    from causal_sgd import theory

    values: dict[str, float | np.ndarray] = {name: getattr(experiment, name) for name in AXES}
    other, grid = (y, ys) if x == "spread" else (x, xs)
    along = values[other] = np.linspace(grid[0], grid[-1], POINTS)
    # The spurious weight is multiplied by 1 + learning_rate * bias, as an eigenvalue is in sensing.
    boundary = np.asarray(
        theory.critical_spread(values["learning_rate"], values["mean"], "two_point")
    )
    return {"theory": (boundary, along) if x == "spread" else (along, boundary)}


def level(experiment: SupervisedExperiment, metric: str) -> float | None:
    """A fifth of the spurious weight of pooled least squares; None where it is not so simple."""
    simple = (
        metric == "spurious_weight"
        and experiment.data_file is None
        and experiment.world == "contradiction"
        and experiment.biases is None
        and experiment.dim_spurious in (None, 1)
    )
    if not simple or experiment.mean <= 0 or experiment.variance <= 0:
        return None
    return REJECTING * experiment.mean / experiment.variance


def shift(
    experiment: SupervisedExperiment, metric: str, level: float | None
) -> dict[str, float] | None:
    """Arguments of the prediction for runs of finite length: there is none."""
    del experiment, metric, level
    return None

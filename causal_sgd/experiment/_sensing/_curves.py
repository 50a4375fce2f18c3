"""Theory's boundary between invariance and its failure, in matrix sensing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment._curves import applies
from causal_sgd.experiment._system import Curves

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment

__all__ = ["curves", "level", "shift"]

AXES = ("spread", "learning_rate", "mean")
ASSUMED = {
    "accumulate": 1,
    "clip_norm": None,
    "sam_radius": None,
    "trace_correction": True,
    "probabilities": None,
    "rotation": 0.0,
    "means": None,
    "spreads": None,
}
"""Values of fields, where they take effect, that the theory is about."""
POINTS = 200
REJECTING = 0.2  # default level, relative to the spurious signal of a pooled run


def curves(
    experiment: Experiment,
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    shift: Mapping[str, float] | None,
) -> Curves | None:
    """See `theory_curve`."""
    if not {x, y} <= set(AXES) or not applies(experiment, ASSUMED):
        return None
    from causal_sgd import theory

    family = experiment.family.replace("-", "_")
    values: dict[str, float | np.ndarray] = {name: getattr(experiment, name) for name in AXES}
    solved = "spread" if "spread" in (x, y) else "learning_rate"
    other, grid = (y, ys) if solved == x else (x, xs)
    values[other] = np.linspace(grid[0], grid[-1], POINTS)
    if solved == "spread":
        curve = theory.critical_spread(values["learning_rate"], values["mean"], family)
    else:
        curve = theory.critical_learning_rate(values["mean"], values["spread"], family)
    boundaries = {"theory": curve}
    if shift is not None and solved == "spread":
        boundaries["at finite time"] = theory.finite_time_critical_spread(
            values["learning_rate"], values["mean"], **shift, family=family
        )
    along = np.asarray(values[other])
    return {
        name: (np.asarray(boundary), along) if solved == x else (along, np.asarray(boundary))
        for name, boundary in boundaries.items()
    }


def level(experiment: Experiment, metric: str) -> float | None:
    """A fifth of the spurious signal of a pooled run; None for another metric."""
    pooled = experiment.spurious_rank * experiment.mean
    return REJECTING * pooled**0.5 if metric == "spurious_signal" and pooled > 0 else None


def shift(experiment: Experiment, metric: str, level: float | None) -> dict[str, float] | None:
    """Arguments of the prediction for finite runs, which is about one direction and the population.

    Args:
        experiment: what is run.
        metric: that of the diagram.
        level: below which a run rejects.
    """
    exact = (
        experiment.measurement == "population"
        and experiment.spurious_rank == 1
        and not experiment.tilt
    )
    if level is None or metric != "spurious_signal" or not exact or level <= 0:
        return None
    return {"num_steps": experiment.steps, "init_scale": experiment.init_scale, "level": level}

"""Theory's boundary in the axes of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from causal_sgd.experiment._experiment import Experiment
from causal_sgd.experiment._options import TABLES

__all__ = ["theory_curve"]

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


def theory_curve(
    experiment: Experiment,
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    shift: Mapping[str, float] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Theory's boundary between invariance and its failure, for a diagram of two parameters.

    The theory is about multipliers 1 + learning_rate * eigenvalue near zero, that is about batches
    of one environment, plain SGD, and models that are quadratic in their parameters.

    Args:
        experiment: what is run.
        x: the horizontal axis.
        xs: its values [n].
        y: the vertical axis.
        ys: its values [m].
        shift: num_steps, init_scale and level of `theory.finite_time_critical_spread`, for the
            boundary of runs of finite length as well.

    Returns:
        Pairs of horizontal and vertical coordinates [200] by the name of the curve; None where the
        theory does not apply or the boundary is not a curve in these axes.
    """
    if not {x, y} <= set(AXES) or not _applies(experiment):
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
    curves = {"theory": curve}
    if shift is not None and solved == "spread":
        curves["at finite time"] = theory.finite_time_critical_spread(
            values["learning_rate"], values["mean"], **shift, family=family
        )
    along = np.asarray(values[other])
    boundaries = {name: np.asarray(curve) for name, curve in curves.items()}
    return {
        name: (boundary, along) if solved == x else (along, boundary)
        for name, boundary in boundaries.items()
    }


def _applies(experiment: Experiment) -> bool:
    """Whether the theory is about this experiment."""
    used = {field for table in TABLES for field in table.fields_used(experiment)}
    return all(table.row(experiment).curve for table in TABLES) and all(
        getattr(experiment, field) == value for field, value in ASSUMED.items() if field in used
    )

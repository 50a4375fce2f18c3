"""Theory's boundary in the axes of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from causal_sgd.experiment._base import BaseExperiment
    from causal_sgd.experiment._system import Curves

__all__ = ["applies", "theory_curve"]


def theory_curve(
    experiment: BaseExperiment,
    x: str,
    xs: np.ndarray,
    y: str,
    ys: np.ndarray,
    shift: Mapping[str, float] | None = None,
) -> Curves | None:
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
    return experiment.SYSTEM.curves(experiment, x, xs, y, ys, shift)


def applies(experiment: BaseExperiment, assumed: Mapping[str, object]) -> bool:
    """Whether a theory is about an experiment.

    Args:
        experiment: whose options must be those with a curve in every table.
        assumed: the values that fields must have where they take effect.
    """
    tables = experiment.tables
    used = {field for table in tables for field in table.fields_used(experiment)}
    return all(table.row(experiment).curve for table in tables) and all(
        getattr(experiment, field) == value for field, value in assumed.items() if field in used
    )

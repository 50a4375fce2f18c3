"""Theory's boundary in the axes of an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from causal_sgd.experiment._base import BaseExperiment
    from causal_sgd.experiment._system import Curves, Given

__all__ = ["theory_curve"]

AXES = ("spread", "learning_rate", "mean")
WITH_VELOCITY = ("momentum", "nesterov")  # optimizers, with an axis of their own
FEWER_POINTS = 50  # of a curve whose every point takes a linear system
POINTS = 200
Number: TypeAlias = float | np.ndarray


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
    of one environment, plain SGD, and models that are quadratic in their parameters. With momentum
    it is about environments drawn independently, and the boundary is that of the spread.

    Args:
        experiment: what is run.
        x: the horizontal axis.
        xs: its values [n].
        y: the vertical axis.
        ys: its values [m].
        shift: num_steps, init_scale and level of `theory.finite_time_critical_spread`, for the
            boundary of runs of finite length as well.

    Returns:
        Pairs of horizontal and vertical coordinates [n] by the name of the curve; None where the
        theory does not apply or the boundary is not a curve in these axes.
    """
    system, experiment = experiment.SYSTEM, experiment.replace(**experiment.implied)
    velocity = experiment.optimizer in WITH_VELOCITY
    names = (*AXES, "momentum") if velocity else AXES
    if not {x, y} <= set(names) or not _applies(experiment):
        return None
    if velocity and ("spread" not in (x, y) or experiment.sampler != "hetero"):
        return None
    from causal_sgd import theory

    values: dict[str, float | np.ndarray] = {name: getattr(experiment, name) for name in names}
    solved = "spread" if "spread" in (x, y) else "learning_rate"
    other, grid = (y, ys) if solved == x else (x, xs)
    along = values[other] = np.linspace(grid[0], grid[-1], FEWER_POINTS if velocity else POINTS)
    family = system.family(experiment)
    if family is None:
        return None
    if velocity:
        if not isinstance(family, str):
            return None
        nesterov = experiment.optimizer == "nesterov"
        arguments = (values["learning_rate"], values["mean"], values["momentum"])
        curve = theory.momentum_critical_spread(*arguments, family, nesterov=nesterov)
    elif solved == "spread":
        curve = _critical_spread(values["learning_rate"], values["mean"], family)
    else:
        curve = _critical_learning_rate(values["mean"], values["spread"], family)
    boundaries = {"theory": curve}
    if shift is not None and solved == "spread" and isinstance(family, str) and not velocity:
        boundaries["at finite time"] = theory.finite_time_critical_spread(
            values["learning_rate"], values["mean"], **shift, family=family
        )
    return {
        name: (np.asarray(boundary), along) if solved == x else (along, np.asarray(boundary))
        for name, boundary in boundaries.items()
    }


def _critical_spread(rate: Number, mean: Number, family: str | Given) -> ArrayLike:
    from causal_sgd import theory

    if isinstance(family, str):
        return theory.critical_spread(rate, mean, family)
    deviations, probabilities = np.asarray(family.deviations), family.probabilities
    probabilities = None if probabilities is None else np.asarray(probabilities)
    return theory.critical_spread_environments(rate, mean, deviations, probabilities)


def _critical_learning_rate(mean: Number, spread: Number, family: str | Given) -> ArrayLike:
    from causal_sgd import theory

    if isinstance(family, str):
        return theory.critical_learning_rate(mean, spread, family)
    deviations, probabilities = np.asarray(family.deviations), family.probabilities
    probabilities = None if probabilities is None else np.asarray(probabilities)
    shifted = np.asarray(mean)[..., None] + np.asarray(spread)[..., None] * deviations
    return theory.critical_learning_rate_environments(shifted, probabilities)


def _applies(experiment: BaseExperiment) -> bool:
    """Whether the theory is about an experiment.

    All its options have a curve, and the fields that take effect have the values assumed.
    """
    tables, assumed = experiment.tables, experiment.SYSTEM.assumed
    used = {field for table in tables for field in table.fields_used(experiment)}
    return all(table.row(experiment).curve for table in tables) and all(
        getattr(experiment, field) == value for field, value in assumed.items() if field in used
    )

"""Theory's boundary between invariance and its failure, in matrix sensing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causal_sgd.experiment._system import INFINITE, THESE, Given

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment

__all__ = ["ASSUMED", "environments", "family", "level", "shift"]

ASSUMED = {
    "accumulate": 1,
    "clip_norm": None,
    "sam_radius": None,
    "trace_correction": True,
    "rotation": 0.0,
    "means": None,
    "spreads": None,
    "eigenvalues": None,
}
"""Values of fields, where they take effect, that the theory is about."""
REJECTING = 0.2  # default level, relative to the spurious signal of a pooled run


def family(experiment: Experiment) -> str | Given | None:
    """The distribution of the spurious eigenvalues; None where there is no theory of it."""
    if experiment.family == "discrete" and experiment.deviations is not None:
        return Given(experiment.deviations, experiment.probabilities)
    return None if experiment.probabilities else experiment.family.replace("-", "_")


def environments(experiment: Experiment) -> str:
    """The environments for which theory's boundary holds exactly.

    With two points each direction has both signs equally often, in whatever patterns.
    """
    number = experiment.num_environments
    paired = experiment.family == "two-point" and (number is None or number % 2 == 0)
    exact = (experiment.family == "discrete" or paired) and experiment.evolution == "none"
    return THESE if exact else INFINITE


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

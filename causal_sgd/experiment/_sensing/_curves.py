"""Theory's boundary between invariance and its failure, in matrix sensing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.experiment import Experiment

__all__ = ["ASSUMED", "family", "level", "shift"]

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
REJECTING = 0.2  # default level, relative to the spurious signal of a pooled run


def family(experiment: Experiment) -> str:
    """The distribution of the spurious eigenvalues."""
    return experiment.family.replace("-", "_")


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

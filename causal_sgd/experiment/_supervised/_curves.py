"""Theory's boundary of HeteroSGD in the contradiction world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causal_sgd.experiment._system import THESE

if TYPE_CHECKING:
    from causal_sgd.experiment import SupervisedExperiment

__all__ = ["ASSUMED", "environments", "family", "level"]

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
REJECTING = 0.2  # default level, relative to the spurious weight of pooled least squares


def family(experiment: SupervisedExperiment) -> str:
    """The distribution of the biases: the spurious weight is multiplied by 1 + rate * bias."""
    del experiment
    return "two_point"


def environments(experiment: SupervisedExperiment) -> str:
    """The environments for which theory's boundary holds: the two of the world."""
    del experiment
    return THESE


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

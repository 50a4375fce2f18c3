"""The systems that can be simulated by names and numbers."""

from __future__ import annotations

from collections.abc import Mapping

from causal_sgd import checks
from causal_sgd.experiment._base import BaseExperiment
from causal_sgd.experiment._sensing._experiment import Experiment
from causal_sgd.experiment._supervised._experiment import SupervisedExperiment

__all__ = ["SYSTEMS", "parsed"]

SYSTEMS: Mapping[str, type[BaseExperiment]] = {
    kind.SYSTEM.name: kind for kind in (Experiment, SupervisedExperiment)
}
"""The class of experiments of each system."""


def parsed(description: Mapping[str, object]) -> BaseExperiment:
    """The experiment of a description by `describe`, of whichever system it is.

    Raises:
        ValueError: if the system or a field is unknown, or a value is not allowed.
    """
    implied = next(name for name, kind in SYSTEMS.items() if kind.SYSTEM.implied)
    system = checks.choice("system", description.get("system", implied), SYSTEMS)
    return SYSTEMS[system].parse(description)

"""Closed forms at the settings of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from causal_sgd.experiment import Experiment
    from causal_sgd.types import Array

__all__ = ["critical_spread", "error_floor"]


def critical_spread(experiment: Experiment) -> float:
    """The critical heterogeneity M_c of two eigenvalues, mu +- M; see `theory.critical_spread`."""
    from causal_sgd import theory

    return float(theory.critical_spread(experiment.learning_rate, experiment.mean))


def error_floor(experiment: Experiment, spread: ArrayLike, **changes: ArrayLike) -> Array:
    """The distance to A* that the noise of the batches maintains; see `theory.error_floor`.

    Args:
        experiment: gives the learning rate, the batch size, the dimension and the ranks.
        spread: root mean square of the spurious eigenvalues.
        **changes: arguments that take the place of the experiment's, or `label_noise`.
    """
    from causal_sgd import theory

    names = ("learning_rate", "batch_size", "dim", "invariant_rank", "spurious_rank")
    arguments = {name: getattr(experiment, name) for name in names} | changes
    return theory.error_floor(spread, **arguments)

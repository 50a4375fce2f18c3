"""Closed forms at the settings of an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from causal_sgd.experiment import Experiment
    from causal_sgd.types import Array

__all__ = ["Margins", "critical_spread", "error_floor", "floor_margins", "second_order_floor"]

Margins = tuple[float, float]


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


def second_order_floor(
    experiment: Experiment,
    spread: ArrayLike,
    *,
    learned: int,
    rows: int,
    spare: float | None = None,
    label_noise: ArrayLike = 0.0,
    **changes: ArrayLike,
) -> np.ndarray:
    """The error floor to second order in eta and 1/m, for unit eigenvalues.

    An entry of the batch gradient has the variance v = (|residual|^2 + sigma_y^2) / (2m), where the
    residual contains the floor itself. The r columns of the learned signals drive their entries
    outside to the variance eta v / (2 - eta - eta v), and the symmetric part of those inside to
    eta v / (1 - eta) each, twice on the diagonal. The q other columns carry a bulk of squared norm
    (eta v n)^2 q (1 - 2q/n) / 4 in the n dimensions outside all signals, q at most n/4, once it has
    grown from alpha, after 2 log(1/alpha) / (eta^2 v n) steps. Terms of third order are relative to
    the square of the loss of signal, rows eta v / 2.

    Args:
        experiment: gives the learning rate, the batch size, the dimension and the columns.
        spread: root mean square of the residual's eigenvalues.
        learned: r, the directions with a signal.
        rows: outside these, in which the noise acts.
        spare: q, all other columns unless given.
        label_noise: sigma_y.
        **changes: arguments that take the place of the experiment's.

    Returns:
        The floor; NaN where the noise grows by itself, as at large steps with small batches.
    """
    dim = experiment.dim
    eta = np.asarray(changes.get("learning_rate", experiment.learning_rate), float)
    outside = dim - experiment.invariant_rank - experiment.spurious_rank
    if spare is None:
        spare = (experiment.rank or dim) - learned
    spare = min(spare, outside / 4)
    floor, stable = np.zeros(()), np.ones((), bool)
    growth = 2 * np.log(1 / experiment.init_scale) / experiment.steps
    for _ in range(50):
        noise = np.sqrt(np.square(np.asarray(label_noise, float)) + floor**2)
        first = error_floor(
            experiment, spread, label_noise=noise, **(changes | {"invariant_rank": learned})
        )
        power = np.square(np.asarray(first, float))
        driven = power / (learned * dim)  # eta v
        stable = stable & (driven < 2 - eta)
        driven = np.where(stable, driven, 0)
        outer = power * rows / dim * 2 / (2 - eta - driven)
        inner = power * (learned + 1) / (dim * (1 - eta))
        bulk = (driven * outside) ** 2 * spare * (1 - 2 * spare / outside) / 4
        bulk = np.where(eta * driven * outside > growth, bulk, 0)
        floor = np.where(stable, np.sqrt(outer + inner + bulk), 0)
    return np.where(stable, floor, np.nan)


def floor_margins(error: float, lost: float = 0.0) -> Margins:
    """The interval of a median error over the predicted one: four standard errors and third order.

    The predicted median is that of the linearised theory around `second_order_floor`, which
    `benchmarks/plain_simulations.py floors` computes: it differs from the root mean square, as the
    error has few degrees of freedom and the noise in spurious rows multiplies.

    Args:
        error: standard error of the measured median, relative to it.
        lost: the share of the learned signals that the noise takes, rows eta v / 2, whose square is
            the size of the terms of third order.
    """
    margin = 4 * error + lost**2
    return 1 - margin, 1 + margin

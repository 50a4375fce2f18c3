"""The step size at which HeteroSGD rejects a colour, from models that never saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._frames import diverged_share, surviving
from causal_sgd.studies.supervised import _digits as digits

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["GRID", "RATES", "critical", "curve", "means", "residuals", "stable"]

RATES = np.array([0.3, 0.5, 0.8, 1.1, 1.5, 2.0, 3.0])  # of the models without colour
GRID = np.linspace(0.01, 10, 1000)  # of predictions


def critical(pilot: xr.Dataset, agreements: tuple[float, float]) -> float:
    """The step size at which a small weight of the colour neither grows nor dies.

    Args:
        pilot: models without colour by their step size.
        agreements: of colour and label in each environment.

    Returns:
        The root of the exponent, for residuals interpolated between models at their own step size.
        Beyond the largest of these they are those of its model. 10 if there is no root below.
    """
    if not stable(pilot).any():
        return 1.0  # any, as nothing follows from runs that diverge
    values = curve(pilot, agreements)
    dead = np.flatnonzero(values <= 0)
    if not len(dead) or not dead[0]:
        return float(GRID[0] if len(dead) else GRID[-1])
    last, first = dead[0] - 1, dead[0]
    share = values[last] / (values[last] - values[first])
    return float(GRID[last] + share * (GRID[first] - GRID[last]))


def curve(pilot: xr.Dataset, agreements: tuple[float, float]) -> np.ndarray:
    """The exponent at all step sizes of `GRID`, for interpolated residuals."""
    known = stable(pilot)
    sizes = [np.interp(GRID, RATES[known], moment) for moment in residuals(pilot)[known].T]
    return digits.exponent(GRID, np.array(agreements), np.stack(sizes, -1))


def stable(pilot: xr.Dataset) -> np.ndarray:
    """The step sizes at which no run diverged, [rates] bool."""
    return (diverged_share(pilot) == 0).values


def residuals(pilot: xr.Dataset) -> np.ndarray:
    """The first two moments of the residuals' size, means over seeds, [rates, 2]."""
    return means(pilot, "residuals")


def means(dataset: xr.Dataset, metric: str) -> np.ndarray:
    """Means over the seeds that did not diverge, [rates, ...]."""
    values = surviving(dataset).isel(step=-1)[metric]
    return values.transpose("learning_rate", "seed", ...).mean("seed").values

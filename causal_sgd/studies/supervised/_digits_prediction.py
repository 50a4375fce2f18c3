"""The step size at which HeteroSGD rejects a colour, from models that never saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._frames import diverged_share, surviving
from causal_sgd.studies.supervised import _digits as digits

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RATES", "critical", "exponents", "means", "residuals", "stable"]

RATES = np.array([0.3, 0.5, 0.8, 1.1, 1.5])  # of the models without colour


def critical(pilot: xr.Dataset, agreements: tuple[float, float]) -> float:
    """The step size at which a small weight of the colour neither grows nor dies.

    Args:
        pilot: models without colour by their step size.
        agreements: of colour and label in each environment.

    Returns:
        The root of the exponent, interpolated between models at their own step size; or the root
        for the residuals of the model with the largest stable one, where it is beyond.
    """
    from scipy import optimize

    known = stable(pilot)
    rates, values = RATES[known], exponents(pilot, agreements)[known]
    signs = np.flatnonzero((values[:-1] > 0) & (values[1:] <= 0))
    if len(signs):
        at = signs[0]
        share = values[at] / (values[at] - values[at + 1])
        return float(rates[at] + share * (rates[at + 1] - rates[at]))
    if not known.any():
        return 1.0  # any, as nothing follows from runs that diverge
    sizes = residuals(pilot)[known][-1]

    def beyond(rate: float) -> float:
        return float(digits.exponent(rate, np.array(agreements), sizes))

    grid = np.linspace(rates[-1], 10, 200)
    dead = np.flatnonzero([beyond(rate) <= 0 for rate in grid])
    if not len(dead) or not dead[0]:
        return float(grid[0] if len(dead) else grid[-1])
    root = optimize.root_scalar(beyond, bracket=(grid[dead[0] - 1], grid[dead[0]]))
    return float(root.root)


def stable(pilot: xr.Dataset) -> np.ndarray:
    """The step sizes at which no run diverged, [rates] bool."""
    return (diverged_share(pilot) == 0).values


def residuals(pilot: xr.Dataset) -> np.ndarray:
    """The first two moments of the residuals' size, means over seeds, [rates, 2]."""
    return means(pilot, "residuals")


def exponents(pilot: xr.Dataset, agreements: tuple[float, float]) -> np.ndarray:
    """The exponents of a small weight of the colour at the step sizes of the models, [rates]."""
    pairs = zip(RATES, residuals(pilot), strict=True)
    return np.array([digits.exponent(rate, np.array(agreements), sizes) for rate, sizes in pairs])


def means(dataset: xr.Dataset, metric: str) -> np.ndarray:
    """Means over the seeds that did not diverge, [rates, ...]."""
    values = surviving(dataset).isel(step=-1)[metric]
    return values.transpose("learning_rate", "seed", ...).mean("seed").values

"""Parts and averages of a sweep's dataset that several studies measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    Values = TypeVar("Values", xr.Dataset, xr.DataArray)

__all__ = ["diverged_share", "farthest_from_one", "late", "mean_and_error", "surviving"]


def surviving(dataset: xr.Dataset) -> xr.Dataset:
    """The metrics of the runs that did not diverge, NaN for the others."""
    return dataset.where(dataset.diverged_at < 0).drop_vars("diverged_at")


def diverged_share(dataset: xr.Dataset) -> xr.DataArray:
    """The share of the seeds that diverged."""
    return (dataset.diverged_at >= 0).mean("seed")


def late(values: Values, after: float) -> Values:
    """The frames recorded after a share of the run."""
    return values.isel(step=slice(int(after * values.sizes["step"]), None))


def mean_and_error(values: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over seeds and its standard error."""
    error = values.std("seed", ddof=1).values / np.sqrt(values.sizes["seed"])
    return values.mean("seed").values, error


def farthest_from_one(ratios: np.ndarray) -> float:
    """The ratio [n] with the largest absolute logarithm, NaN if one is NaN."""
    return float(ratios[np.argmax(np.abs(np.log(ratios)))])

"""Numbers from the results of a sweep: final values, quantiles over seeds and the fraction that diverged.

Imports no jax, and xarray only when it is called. A diverged run counts in the diverged fraction and in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd import checks

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["divergences", "final", "known_quantiles", "metric_names", "summary"]


def metric_names(dataset: xr.Dataset) -> list[str]:
    """The variables of a sweep's dataset that are metrics."""
    _check(dataset)
    return [str(name) for name in dataset.data_vars if name != "diverged_at"]


def divergences(dataset: xr.Dataset) -> xr.DataArray:
    """When each run diverged, `diverged_at`; ValueError for what is not a sweep's dataset."""
    if "diverged_at" not in dataset:
        raise ValueError(
            f"dataset must have diverged_at, as `sweep` returns it, got {metric_names(dataset)}"
        )
    return dataset["diverged_at"]


def final(dataset: xr.Dataset) -> xr.Dataset:
    """The last recorded frame of every run; a dataset without the dim `step` is returned as it is."""
    _check(dataset)
    return dataset.isel(step=-1) if "step" in dataset.dims else dataset


def summary(
    dataset: xr.Dataset, metric: str, quantiles: tuple[float, float] = (0.1, 0.9)
) -> xr.Dataset:
    """Summarise a metric over the seeds that did not diverge.

    Args:
        dataset: of a sweep.
        metric: name of a variable with a dim `seed`.
        quantiles: lower and upper probability of the band.

    Returns:
        A dataset with `median`, `low` and `high`, the metric's dims but `seed`, NaN where no seed is left;
        and `diverged_fraction`, without `step` too: diverged runs among those that ran, NaN where none did.

    Raises:
        ValueError: for an unknown metric, one without the dim `seed`, or quantiles that do not enclose 0.5.
    """
    import xarray as xr

    values = dataset[checks.choice("metric", metric, metric_names(dataset))]
    if "seed" not in values.dims:
        hint = "keep a single seed with .isel(seed=[0])"
        raise ValueError(
            f"metric {metric!r} must have the dimension 'seed', got {values.dims}; {hint}"
        )
    wrong = f"quantiles must be a pair with 0 <= low <= 0.5 <= high <= 1, got {quantiles!r}"
    if np.shape(quantiles) != (2,):
        raise ValueError(wrong)
    low, high = quantiles
    if not 0 <= low <= 0.5 <= high <= 1:
        raise ValueError(wrong)
    diverged = dataset["diverged_at"] >= 0 if "diverged_at" in dataset else xr.DataArray(False)
    kept = values.where(np.isfinite(values) & ~diverged)
    cores = [["seed"], ["level"]], [["level"]]
    bands = xr.apply_ufunc(known_quantiles, kept, np.array([low, 0.5, high]), input_core_dims=cores[0],
                           output_core_dims=cores[1])  # fmt: skip
    present = kept.notnull().any("step") if "step" in kept.dims else kept.notnull()
    blown = (diverged & xr.ones_like(present)).sum("seed")
    ran = blown + present.sum("seed")
    table = {name: bands.isel(level=index) for index, name in enumerate(("low", "median", "high"))}
    return xr.Dataset(table | {"diverged_fraction": blown / ran.where(ran > 0)})


def known_quantiles(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """As nanquantile along the last axis (linear), but vectorised, and silent where nothing is left.

    Args:
        values: [..., n], NaN for what does not count; nothing else that is not finite.
        probabilities: [k].

    Returns:
        Quantiles [..., k], NaN where no value is left.
    """
    ordered = np.sort(values, axis=-1)  # NaN last
    place = probabilities * np.maximum(np.isfinite(values).sum(-1, keepdims=True) - 1, 0)
    below, above = (
        np.take_along_axis(ordered, f(place).astype(int), -1) for f in (np.floor, np.ceil)
    )
    return below + (place - np.floor(place)) * (above - below)


def _check(dataset: xr.Dataset) -> None:
    import xarray as xr

    checks.instance("dataset", dataset, xr.Dataset, "an xarray.Dataset as `sweep` returns it")

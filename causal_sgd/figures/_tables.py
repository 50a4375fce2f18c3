"""From a sweep's dataset to what a figure shows: the summary over its axes, numeric axes, cell edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from causal_sgd import checks
from causal_sgd.analysis import metric_names, summary

__all__ = ["edges", "is_geometric", "nearest", "numeric", "summarise"]


def summarise(
    dataset: xr.Dataset,
    metric: str,
    quantiles: tuple[float, float],
    *,
    step: bool = False,
    **axes: str | None,
) -> xr.Dataset:
    """The summary (at the last step unless `step`) over exactly the given axes: argument's name -> axis."""
    checks.choice("metric", metric, metric_names(dataset))
    chosen = dataset[[metric, *({"diverged_at"} & set(dataset.data_vars))]]
    if step and "step" not in chosen[metric].dims:
        raise ValueError(
            f"metric {metric!r} must have the dimension 'step', got {chosen[metric].dims}"
        )
    if not step and "step" in chosen.dims:
        chosen = chosen.isel(step=-1)
    free = [str(dim) for dim in chosen[metric].dims if dim not in ("seed", "step")]
    used = [
        checks.choice(argument, axis, free) for argument, axis in axes.items() if axis is not None
    ]
    if len(set(used)) < len(used):
        raise ValueError(f"{' and '.join(axes)} must be different axes, got {used[0]!r} for both")
    for dim, size in list(chosen.sizes.items()):
        if dim in (*used, "seed", "step"):
            continue
        if size > 1:
            # The dict, because a dim may be called like an option of .sel, such as 'method'.
            pick = f".sel({{{dim!r}: {chosen[dim].values.tolist()[0]!r}}})"
            way = f" or pass over={dim!r}" if axes.get("over", "none offered") is None else ""
            raise ValueError(
                f"dataset must have no dimension that the figure does not use, but {metric!r} has {dim!r} "
                f"with {size} values; choose one of them, as in dataset{pick}{way}"
            )
        chosen = chosen.isel({dim: 0}, drop=True)
    return summary(chosen, metric, quantiles)


def numeric(argument: str, coordinate: xr.DataArray) -> np.ndarray:
    """The values of a coordinate, which must be distinct finite numbers, as floats."""
    values = coordinate.values
    if (
        values.dtype.kind not in "iuf"
        or not np.isfinite(values).all()
        or len(set(values)) < len(values)
    ):
        raise ValueError(
            f"{argument} must be an axis of distinct finite numbers, got {coordinate.name}={values}"
        )
    return values.astype(float)


def is_geometric(values: np.ndarray) -> bool:
    """Whether sorted coordinates are spaced evenly in their logarithm rather than in themselves."""
    if len(values) < 3 or values[0] <= 0 or values[-1] < 3 * values[0]:
        return False
    plain, logarithmic = (
        np.std(gaps) / np.mean(gaps) for gaps in (np.diff(values), np.diff(np.log(values)))
    )
    return bool(logarithmic < 0.5 * plain)


def edges(argument: str, centres: np.ndarray, log: bool) -> np.ndarray:
    """The n + 1 edges of n sorted cells: midpoints (geometric if `log`), the outer ones by reflection."""
    if log and centres[0] <= 0:
        raise ValueError(
            f"{argument} must have values above 0 for a logarithmic axis, got {centres[0]:g}"
        )
    places = np.log(centres) if log else centres
    gaps = np.diff(places) / 2 if len(places) > 1 else np.array([0.5])
    borders = np.append(places - np.append(gaps[:1], gaps)[: len(places)], places[-1] + gaps[-1])
    return np.exp(borders) if log else borders


def nearest(known: np.ndarray) -> np.ndarray:
    """For every cell [y, x] the flat index of the nearest one that is known, itself where it is; counted in cells."""
    if not known.any():
        return np.arange(known.size).reshape(known.shape)
    places: Any = ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    )
    return np.asarray(np.ravel_multi_index(tuple(places), known.shape))

"""The data behind figures: the summary over their axes, numeric axes, cell edges."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import ndimage

from causal_sgd import checks
from causal_sgd.analysis import final, metric_names, summary

__all__ = ["edges", "is_geometric", "nearest", "numeric", "summarise"]


def summarise(
    dataset: xr.Dataset,
    metric: str,
    quantiles: tuple[float, float],
    *,
    step: bool = False,
    **axes: str | None,
) -> xr.Dataset:
    """The summary of a metric over exactly the axes of a figure.

    Args:
        dataset: the result of a sweep.
        metric: name of the metric.
        quantiles: lower and upper probability of the band.
        step: whether to keep all recorded steps instead of the last one.
        **axes: argument of the figure -> name of the axis.

    Raises:
        ValueError: if a name is unknown or used twice, or the dataset has another axis.
    """
    checks.choice("metric", metric, metric_names(dataset))
    selected = dataset[[metric, *({"diverged_at"} & set(dataset.data_vars))]]
    if step and "step" not in selected[metric].dims:
        raise ValueError(
            f"metric {metric!r} must have the dimension 'step', got {selected[metric].dims}"
        )
    if not step:
        selected = final(selected)
    free = [str(dim) for dim in selected[metric].dims if dim not in ("seed", "step")]
    used = [
        checks.choice(argument, axis, free) for argument, axis in axes.items() if axis is not None
    ]
    if len(set(used)) < len(used):
        raise ValueError(f"{' and '.join(axes)} must be different axes, got {used[0]!r} for both")
    for dim, size in list(selected.sizes.items()):
        if dim in (*used, "seed", "step"):
            continue
        if size > 1:
            # A dict, because a dim may have the name of an option of .sel, such as 'method'.
            example = f"dataset.sel({{{dim!r}: {selected[dim].values.tolist()[0]!r}}})"
            has_unused_over = "over" in axes and axes["over"] is None
            hint = f" or pass over={dim!r}" if has_unused_over else ""
            raise ValueError(
                f"dataset must have no dimension that the figure does not use, but {metric!r} has "
                f"{dim!r} with {size} values; select one of them, as in {example}{hint}"
            )
        selected = selected.isel({dim: 0}, drop=True)
    return summary(selected, metric, quantiles)


def numeric(argument: str, coordinate: xr.DataArray) -> np.ndarray:
    """The values of a coordinate as floats; ValueError unless they are distinct finite numbers."""
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
    """Whether sorted coordinates are evenly spaced on a logarithmic rather than a linear scale."""
    if len(values) < 3 or values[0] <= 0 or values[-1] < 3 * values[0]:
        return False
    linear, logarithmic = (
        np.std(gaps) / np.mean(gaps) for gaps in (np.diff(values), np.diff(np.log(values)))
    )
    return bool(logarithmic < 0.5 * linear)


def edges(argument: str, centres: np.ndarray, log: bool) -> np.ndarray:
    """The n + 1 edges of n sorted cells: midpoints, outer ones by reflection."""
    if log and centres[0] <= 0:
        raise ValueError(
            f"{argument} must have values above 0 for a logarithmic axis, got {centres[0]:g}"
        )
    points = np.log(centres) if log else centres
    halves = np.diff(points) / 2 if len(points) > 1 else np.array([0.5])
    lower = points - np.append(halves[:1], halves)[: len(points)]
    borders = np.append(lower, points[-1] + halves[-1])
    return np.exp(borders) if log else borders


def nearest(valid: np.ndarray) -> np.ndarray:
    """For every cell [y, x] the flat index of the nearest valid one, by distance in cells."""
    if not valid.any():
        return np.arange(valid.size).reshape(valid.shape)
    indices = np.empty((valid.ndim, *valid.shape), np.int32)
    ndimage.distance_transform_edt(
        ~valid, return_distances=False, return_indices=True, indices=indices
    )
    return np.asarray(np.ravel_multi_index(tuple(indices), valid.shape))

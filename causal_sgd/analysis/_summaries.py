"""Summaries of a sweep: final values, quantiles over seeds and the diverged fraction.

Imports no jax, and xarray only when it is called. A diverged run counts in the diverged fraction
and in nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd import checks

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "divergences",
    "final",
    "metric_names",
    "nan_quantiles",
    "real",
    "summary",
    "time_average",
    "valid",
]


def metric_names(dataset: xr.Dataset) -> list[str]:
    """The names of the metrics in the dataset of a sweep."""
    _check(dataset)
    return [str(name) for name in dataset.data_vars if name != "diverged_at"]


def divergences(dataset: xr.Dataset) -> xr.DataArray:
    """The step at which each run diverged, -1 for never; ValueError if `diverged_at` is missing."""
    names = metric_names(dataset)
    if "diverged_at" not in dataset:
        raise ValueError(f"dataset must have diverged_at, as `sweep` returns it, got {names}")
    return dataset["diverged_at"]


def final(dataset: xr.Dataset) -> xr.Dataset:
    """The frame of the last step of every run; without the dim `step`, the dataset itself."""
    _check(dataset)
    if "step" not in dataset.dims:
        return dataset
    last = int(np.argmax(dataset["step"].values)) if "step" in dataset.coords else -1
    return dataset.isel(step=last)


def time_average(dataset: xr.Dataset, *, after: float = 0.75) -> xr.Dataset:
    """The mean of every metric over the recorded frames of the end of every run.

    The last iterate of a method with batches of one environment depends on its last environments;
    a mean over the last quarter does so much less. It needs frames, `record_every`: with the start
    and the end only it is the last frame.

    Args:
        dataset: the result of a sweep.
        after: the share of the run that is left out as its transient, from 0 and below 1. As in
            `training.time_average` the frame at its end is left out, too.

    Returns:
        The dataset without the dim `step`, ready for `summary` and all figures; a dataset without
        this dim as it is. NaN where one of the frames is; `diverged_at` as it is.

    Raises:
        ValueError: if `after` is out of range.
    """
    _check(dataset)
    checks.number("after", after, minimum=0, maximum=1, double=True)
    if float(after) == 1:
        raise ValueError("after must be below 1, so that a frame is left, got 1")
    if "step" not in dataset.dims:
        return dataset
    steps = dataset["step"].values if "step" in dataset.coords else np.arange(dataset.sizes["step"])
    late = steps > steps.min() + float(after) * (steps.max() - steps.min())
    frames = dataset.isel(step=np.flatnonzero(late | (steps == steps.max())))
    means = {
        name: frames[name].mean("step", skipna=False, keep_attrs=True)
        for name in dataset.data_vars
        if "step" in dataset[name].dims
    }
    return dataset.drop_dims("step").assign(means)


def summary(
    dataset: xr.Dataset, metric: str, quantiles: tuple[float, float] = (0.1, 0.9)
) -> xr.Dataset:
    """Summarise a metric over the seeds that did not diverge.

    Args:
        dataset: the result of a sweep.
        metric: name of a variable with a dim `seed`.
        quantiles: lower and upper probability of the band.

    Returns:
        A dataset with `median`, `low` and `high` over the dims of the metric except `seed`, NaN
        where all seeds diverged or are missing; and `diverged_fraction` over the same dims except
        `step`, the share of diverged runs among the completed ones, NaN where there are none.

    Raises:
        ValueError: for an unknown metric, a complex one or one without the dim `seed`, or quantiles
            that do not enclose 0.5.
    """
    import xarray as xr

    values = dataset[checks.choice("metric", metric, metric_names(dataset))]
    if "seed" not in values.dims:
        hint = "select a single seed with .isel(seed=[0])"
        raise ValueError(
            f"metric {metric!r} must have the dimension 'seed', got {values.dims}; {hint}"
        )
    wrong = f"quantiles must be a pair with 0 <= low <= 0.5 <= high <= 1, got {quantiles!r}"
    pair = checks.concrete(quantiles)
    if pair is None or pair.shape != (2,) or pair.dtype.kind not in "iuf":
        raise ValueError(wrong)
    low, high = pair
    if not 0 <= low <= 0.5 <= high <= 1:
        raise ValueError(wrong)
    diverged = dataset["diverged_at"] >= 0 if "diverged_at" in dataset else xr.DataArray(False)
    values = valid(dataset, values)
    bands = xr.apply_ufunc(
        nan_quantiles,
        values,
        np.array([low, 0.5, high]),
        input_core_dims=[["seed"], ["level"]],
        output_core_dims=[["level"]],
    )
    # A run without a single valid frame that did not diverge either is missing.
    present = values.notnull().any("step") if "step" in values.dims else values.notnull()
    num_diverged = (diverged & xr.ones_like(present)).sum("seed")
    num_completed = num_diverged + present.sum("seed")
    table = {name: bands.isel(level=index) for index, name in enumerate(("low", "median", "high"))}
    fraction = num_diverged / num_completed.where(num_completed > 0)
    return xr.Dataset(table | {"diverged_fraction": fraction})


def valid(dataset: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """The finite values of the runs that are completed and did not diverge; NaN elsewhere.

    Args:
        dataset: the result of a sweep; runs are missing where its coordinate `done` is False.
        values: a metric of it, or some of its frames.

    Returns:
        Floating-point numbers, whatever the type of the metric.

    Raises:
        ValueError: for a complex metric.
    """
    real(values)
    keep = np.isfinite(values)
    if "diverged_at" in dataset:
        keep = keep & (dataset["diverged_at"] < 0)
    if "done" in dataset.coords:
        keep = keep & dataset["done"]
    # NaN has no place among booleans: xarray would make objects of them.
    return (values.astype(float) if values.dtype.kind == "b" else values).where(keep)


def real(values: xr.DataArray) -> xr.DataArray:
    """The metric itself if its values have an order; ValueError for complex ones."""
    if values.dtype.kind not in "biuf":
        raise ValueError(
            f"metric must hold real numbers, got {str(values.name)!r} of type {values.dtype}; "
            "record its real part, imaginary part or absolute value"
        )
    return values


def nan_quantiles(values: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """`np.nanquantile` along the last axis, vectorised and without warnings for all-NaN slices.

    Args:
        values: [..., n], finite or NaN; NaN does not count.
        probabilities: [k].

    Returns:
        Quantiles [..., k] by linear interpolation, NaN where all values are NaN.

    Raises:
        ValueError: if `values` holds no real numbers, or a probability is out of range.
    """
    array = checks.concrete(checks.unmasked("values", values))
    if array is None or array.dtype.kind not in "biuf" or not array.ndim or not array.shape[-1]:
        shown = "a traced value" if array is None else f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"values must have real numbers along their last axis, got {shown}")
    checks.number("probabilities", probabilities, minimum=0, maximum=1, scalar=False, double=True)
    probabilities = np.asarray(probabilities)
    ordered = np.sort(array, axis=-1)  # NaN last
    position = probabilities * np.maximum(np.isfinite(array).sum(-1, keepdims=True) - 1, 0)
    below, above = (
        np.take_along_axis(ordered, f(position).astype(int), -1) for f in (np.floor, np.ceil)
    )
    return below + (position - np.floor(position)) * (above - below)


def _check(dataset: xr.Dataset) -> None:
    import xarray as xr

    checks.instance("dataset", dataset, xr.Dataset, "an xarray.Dataset as `sweep` returns it")

"""The data of an explorer page: axes, metrics, quantiles of every cell, trajectories, curves.

Imports no jax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import divergences, final, nan_quantiles
from causal_sgd.analysis._summaries import valid
from causal_sgd.figures.explorer import _labels
from causal_sgd.figures.explorer._axes import Axis, Shown, View, axes_of, shown_metrics, views_of
from causal_sgd.figures.explorer._curves import CurveEntry, Curves, curve_entries
from causal_sgd.figures.explorer._packing import Tracks, packed, quantised

__all__ = ["LEVELS", "MOST_NUMBERS", "Payload", "payload"]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The quantiles over seeds that a page can show."""
BAND = (0, 2, 4)  # indices of the levels that trajectories show: 10 %, median, 90 %
MOST_NUMBERS = 4_000_000
"""Limit on the numbers that trajectories take on a page (11 MB); beyond it frames are thinned."""


class _Metric(TypedDict):
    name: str
    label: str


class Payload(TypedDict):
    """The data of the page's program; [*axes] is the shape of the axes in their order."""

    axes: list[Axis]
    x: str  # the axes that the page begins with
    y: str | None  # None: lines over x
    metrics: list[_Metric]
    levels: list[float]
    band: list[float]
    steps: list[int] | None  # of the frames; None without trajectories
    recorded: int  # number of frames before they were thinned
    final: str  # quantiles of the last frame, [metrics, levels, *axes]
    diverged: str  # fraction of the runs, [*axes]
    runs: str  # number of runs, [*axes]
    tracks: Tracks | None  # quantiles of the frames, [metrics, *axes, frames, band]
    curves: list[CurveEntry]
    left_out: list[str]  # what the page does not show, and why
    merge: bool
    theme: _labels.Theme


class _Numbers(NamedTuple):
    """The numbers of one dataset; [*axes] without that of datasets."""

    final: np.ndarray  # [metrics, levels, *axes]
    tracks: np.ndarray | None  # [metrics, *axes, frames, band]
    diverged: np.ndarray  # [*axes]
    runs: np.ndarray  # [*axes]


def payload(
    datasets: Mapping[str, xr.Dataset],
    *,
    x: str | None = None,
    y: str | None = None,
    curves: Curves | None = None,
    merge: bool = False,
    most_numbers: int = MOST_NUMBERS,
) -> Payload:
    """The data of the page's program, ready for JSON.

    Args:
        datasets: name -> dataset of a sweep, with the same axes. Several become an axis `dataset`.
        x: the horizontal axis; None for the first of numbers.
        y: the vertical axis; None for the next of numbers, and for lines if there is none.
        curves: curves to draw on the diagrams; see `page`.
        merge: whether the page begins with cells without runs drawn as part of the nearest one.
        most_numbers: limit on the numbers that trajectories take.

    Raises:
        ValueError: if there is no dataset or no completed run, a dataset has no axis, or the
            datasets have different axes or metrics.
    """
    views = views_of(datasets)
    first = views[0].dataset
    axes = axes_of(views)
    across, up = _diagram_axes(axes, first, x, y)
    metrics, left_out = shown_metrics(first)
    _check_alike(views, metrics)
    dims = [axis["name"] for axis in axes[int(len(views) > 1) :]]
    num_cells = int(np.prod([len(axis["values"]) for axis in axes]))
    frames = _frames(first, len(metrics) * num_cells, most_numbers)
    numbers = [_numbers(view.dataset, metrics, dims, frames) for view in views]
    runs = np.stack([each.runs for each in numbers])
    if not runs.any():
        raise ValueError("the datasets must have at least one completed run, got none")
    tracks = [each.tracks for each in numbers if each.tracks is not None]
    return {
        "axes": axes,
        "x": across,
        "y": up,
        "metrics": [{"name": metric.name, "label": metric.label} for metric in metrics],
        "levels": list(LEVELS),
        "band": [LEVELS[index] for index in BAND],
        "steps": None if frames is None else first["step"].values[frames].tolist(),
        "recorded": int(first.sizes.get("step", 1)),
        "final": packed(np.stack([each.final for each in numbers], 2)),
        "diverged": packed(np.stack([each.diverged for each in numbers])),
        "runs": packed(runs),
        "tracks": quantised(np.stack(tracks, 1)) if tracks else None,
        "curves": curve_entries(curves, axes, views, (across, up)),
        "left_out": left_out,
        "merge": merge,
        "theme": _labels.theme(),
    }


def _diagram_axes(
    axes: Sequence[Axis], dataset: xr.Dataset, x: str | None, y: str | None
) -> tuple[str, str | None]:
    """The axes that a page begins with."""
    names = [axis["name"] for axis in axes]
    numeric = [axis["name"] for axis in axes if axis["numeric"]]
    if numeric == ["point"] and dataset["point"].ndim and len(dataset.coords) > 1:
        zipped = [name for name in dataset.coords if name not in ("point", "seed", "step", "done")]
        if zipped:
            raise ValueError(
                "a diagram must have at least two axes of numbers, got ['point']; for a refined "
                "diagram, use open_results(PATH, unzip=True)"
            )
    first = [*numeric, *names]
    across = first[0] if x is None else checks.choice("x", x.replace("-", "_"), names)
    rest = [name for name in names if name != across]
    if y is not None:
        return across, checks.choice("y", y.replace("-", "_"), rest)
    return across, next((name for name in numeric if name != across), None)


def _check_alike(views: Sequence[View], metrics: Sequence[Shown]) -> None:
    """Raise ValueError unless the other datasets have the axes and metrics of the first."""
    first = views[0].dataset
    for view in views[1:]:
        for dim in divergences(first).dims:
            alike = dim in view.dataset.dims and np.array_equal(
                view.dataset[dim].values, first[dim].values
            )
            if dim != "seed" and not alike:
                raise ValueError(
                    "the datasets must have the same axes, "
                    f"got a different {dim!r} in {view.name!r}"
                )
        extra = [dim for dim in divergences(view.dataset).dims if dim not in first.dims]
        if extra:
            raise ValueError(
                f"the datasets must have the same axes, got also {extra[0]!r} in {view.name!r}"
            )
        for metric in metrics:
            if metric.variable not in view.dataset:
                raise ValueError(
                    "the datasets must have the same metrics, "
                    f"got no {metric.variable!r} in {view.name!r}"
                )


def _frames(dataset: xr.Dataset, cells: int, most_numbers: int) -> np.ndarray | None:
    """Evenly spaced indices of as many frames as the page may hold; None for fewer than two.

    The frame of the last step is among them.
    """
    count = dataset.sizes.get("step", 1)
    limit = min(count, most_numbers // max(cells * len(BAND), 1))
    if limit < 2:
        return None
    even = np.linspace(0, count - 1, limit).round().astype(int)
    return np.union1d(even, np.argmax(dataset["step"].values))


def _numbers(
    dataset: xr.Dataset, metrics: Sequence[Shown], dims: Sequence[str], frames: np.ndarray | None
) -> _Numbers:
    """The numbers of one dataset, in the order of the axes and of their values."""
    orders = {
        dim: np.argsort(dataset[dim].values, kind="stable")
        for dim in dims
        if dim in dataset.coords and dataset[dim].dtype.kind in "iuf"
    }
    diverged = (dataset["diverged_at"] >= 0).transpose(*dims, "seed").isel(orders)
    done = xr.ones_like(diverged)
    if "done" in dataset.coords:
        done = dataset["done"].transpose(*dims, "seed").isel(orders)
    levels = np.array(LEVELS)
    quantiles, tracks = [], []
    loaded = xr.Dataset()
    for metric in metrics:  # one at a time, and only these frames: a lazy store is read here
        if metric.variable not in loaded:
            whole = dataset[[metric.variable]]
            shown = final(whole) if frames is None else whole.isel(step=frames)
            loaded = shown.load()
        shown = loaded.isel(metric.component)
        last = valid(dataset, final(shown)[metric.variable])
        ordered = last.transpose(*dims, "seed").isel(orders).values
        quantiles.append(np.moveaxis(nan_quantiles(ordered, levels), -1, 0))
        if frames is not None:
            values = valid(dataset, shown[metric.variable])
            if "step" not in values.dims:  # beside other metrics that have it
                values = values.expand_dims(step=len(frames))
            ordered = values.transpose(*dims, "step", "seed").isel(orders).values
            tracks.append(nan_quantiles(ordered, levels[list(BAND)]))
    runs = done.sum("seed")
    fraction = (diverged & done).sum("seed") / runs.where(runs > 0)
    return _Numbers(
        final=np.stack(quantiles),
        tracks=np.stack(tracks) if tracks else None,
        diverged=fraction.values,
        runs=runs.values,
    )

"""The axes and metrics of an explorer page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypedDict

import numpy as np
import xarray as xr

from causal_sgd.analysis import divergences, metric_names
from causal_sgd.figures._tables import is_geometric
from causal_sgd.figures.explorer._labels import label

__all__ = ["MOST_COMPONENTS", "Axis", "Shown", "View", "axes_of", "shown_metrics", "views_of"]

MOST_COMPONENTS = 16
"""Metrics with more components per run than this are left out."""
FIRST = ("spurious_signal", "spurious_weight")  # those of `phase`, of either system
DATASETS = "dataset"  # the name of the axis of several datasets


class Axis(TypedDict):
    """An axis of the page."""

    name: str
    label: str
    numeric: bool  # whether values are numbers in ascending order, or else names
    values: list[float] | list[str]
    log: bool


class View(NamedTuple):
    """One value of the axis of datasets."""

    name: str
    origin: str  # the name of the dataset that it is or that it is a part of
    dataset: xr.Dataset


class Shown(NamedTuple):
    """A metric of the page: one real number per run and step."""

    name: str
    label: str
    variable: str
    component: Mapping[str, int]  # indices of a vector, by dim


def views_of(datasets: Mapping[str, xr.Dataset]) -> list[View]:
    """The datasets, with their axes of names split where these differ.

    Raises:
        ValueError: if there is none.
    """
    if not datasets:
        raise ValueError("datasets must name at least one, got none")
    named = {name: _named_axes(dataset) for name, dataset in datasets.items()}
    first = next(iter(named.values()))
    if all(axes == first for axes in named.values()):
        return [View(name, name, dataset) for name, dataset in datasets.items()]
    views = []
    for name, dataset in datasets.items():
        parts = [(name, dataset)]
        for dim, values in named[name].items():
            parts = [
                (f"{prefix}, {value}", part.isel({dim: index}, drop=True))
                for prefix, part in parts
                for index, value in enumerate(values)
            ]
        views += [View(part_name, name, part) for part_name, part in parts]
    return views


def axes_of(views: list[View]) -> list[Axis]:
    """The axes of the page: that of datasets, unless there is one only unnamed, and theirs.

    Raises:
        ValueError: if there is no axis at all, an axis without values, or one with NaN.
    """
    first = views[0].dataset
    dims = [str(dim) for dim in divergences(first).dims if dim != "seed"]
    for dim in dims:
        if not first.sizes[dim]:
            raise ValueError(f"a diagram must have values along every axis, got none along {dim!r}")
    if not dims:
        raise ValueError(
            "a diagram must have at least one axis beside the seeds, got none; "
            "`phase` and `sweep(axes=...)` vary parameters"
        )
    if "seed" not in first["diverged_at"].dims:
        raise ValueError("the datasets must have the dim 'seed', got none")
    name = DATASETS
    while name in dims:
        name += "_"
    axes: list[Axis] = []
    if len(views) > 1:
        values = [view.name for view in views]
        axes.append(
            {"name": name, "label": "dataset", "numeric": False, "values": values, "log": False}
        )
    return axes + [_axis(first, dim) for dim in dims]


def shown_metrics(dataset: xr.Dataset) -> tuple[list[Shown], list[str]]:
    """The metrics that a page can show, vectors by component, and why it leaves out the others.

    Raises:
        ValueError: if it can show none.
    """
    shown, left_out = [], []
    axes = set(divergences(dataset).dims)
    for name in metric_names(dataset):
        values = dataset[name]
        inner = [str(dim) for dim in values.dims if dim not in axes and dim != "step"]
        count = int(np.prod([values.sizes[dim] for dim in inner], dtype=int))
        if values.dtype.kind not in "biuf":
            kind = "complex" if values.dtype.kind == "c" else str(values.dtype)
            left_out.append(f"{name}, whose values are {kind}")
        elif not axes <= set(values.dims):
            missing = sorted(map(str, axes - set(values.dims)))
            left_out.append(f"{name}, which has no axis {missing[0]}")
        elif count > MOST_COMPONENTS:
            limit = f"at most {MOST_COMPONENTS} are shown"
            left_out.append(f"{name}, which has {count} numbers per run ({limit})")
        elif not inner:
            shown.append(Shown(name, label(dataset, name), name, {}))
        else:
            shown += _components(dataset, name, inner)
    if not shown:
        reasons = f": {'; '.join(left_out)}" if left_out else ""
        raise ValueError(
            f"the datasets must have a metric of real numbers, got none that can be shown{reasons}"
        )
    shown.sort(key=lambda metric: metric.name not in FIRST)
    return shown, left_out


def _components(dataset: xr.Dataset, name: str, inner: list[str]) -> list[Shown]:
    """The components of a metric of vectors or matrices, counted from 0 as in Python."""
    sizes = [dataset.sizes[dim] for dim in inner]
    components = []
    for place in np.ndindex(*sizes):
        indices = dict(zip(inner, place, strict=True))
        words = [
            str(dataset[dim].values[index]) if dim in dataset.coords else str(index)
            for dim, index in indices.items()
        ]
        suffix = f"[{', '.join(words)}]"
        components.append(Shown(name + suffix, label(dataset, name) + suffix, name, indices))
    return components


def _named_axes(dataset: xr.Dataset) -> dict[str, list[str]]:
    """The axes of names, such as the `variant` of `compare`."""
    dims = [str(dim) for dim in divergences(dataset).dims if dim != "seed"]
    return {
        dim: [str(value) for value in dataset[dim].values]
        for dim in dims
        if dataset[dim].dtype.kind in "UOSb"
    }


def _axis(dataset: xr.Dataset, dim: str) -> Axis:
    values, text = dataset[dim].values, label(dataset, dim)
    if values.dtype.kind in "iuf":
        numbers = np.sort(values.astype(float))
        if np.isnan(numbers).any():
            raise ValueError(f"an axis must have numbers as values, got NaN along {dim!r}")
        if np.isfinite(numbers).all() and (np.diff(numbers) > 0).all():
            log = is_geometric(numbers)
            return {
                "name": dim,
                "label": text,
                "numeric": True,
                "values": numbers.tolist(),
                "log": log,
            }
        values = np.sort(values)  # the order of their numbers
    names = [str(value) for value in values]
    return {"name": dim, "label": text, "numeric": False, "values": names, "log": False}

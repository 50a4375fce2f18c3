"""The results of a store as the grid of its parameters, or as a list of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps.store._lazy import lazily

if TYPE_CHECKING:
    from causal_sgd.sweeps.store._reader import StoreReader

__all__ = ["is_full", "is_refined", "listed", "unique_axes", "unzipped"]

GRID_BYTES = 64  # a run of a grid takes about this while it is looked up


def is_refined(grid: Grid) -> bool:
    """Whether a grid is a list of points, as `refine` makes it; so does a mixture of sweeps."""
    return list(grid.axes) == ["point"]


def unique_axes(store: StoreReader, grid: Grid) -> dict[str, Mapping[str, np.ndarray]]:
    """An axis for every parameter of a grid; one of a zipped axis has its values in order."""
    axes: dict[str, Mapping[str, np.ndarray]] = {}
    for dim, parameters in grid.axes.items():
        for name, values in parameters.items():
            if list(parameters) != [dim]:
                # Values that are equal in programs are one value.
                _, first = np.unique(values.astype(store.parameters[name]), return_index=True)
                values = values[first]
            axes[name] = {name: values}
    return axes


def unzipped(store: StoreReader) -> Grid:
    """The grid of all values of the parameters of a store, and of all its seeds.

    Raises:
        ValueError: if the memory does not hold such a grid.
    """
    hull = store.hull()
    grid = Grid(unique_axes(store, hull), hull.seeds)
    size = math.prod(grid.shape)  # in integers of any size
    if size > 10**6:
        import psutil

        most = psutil.virtual_memory().available // GRID_BYTES
        if size > most:
            factors = " x ".join(map(str, grid.shape))
            raise ValueError(
                f"the grid of the values of {', '.join(grid.axes)} and of the seeds must have at "
                f"most {most} runs in this memory, got {factors} in {store.path}, of which "
                f"{store.progress()[0]} were requested"
            )
    return grid


def is_full(store: StoreReader, hull: Grid) -> bool:
    """Whether every run of the hull of a store was requested."""
    return math.prod(hull.shape) == store.progress()[0]


def listed(store: StoreReader) -> xr.Dataset:
    """The runs that are done, along one dimension `run`, read on access.

    The parameters and the seed of each run are coordinates. Runs are in the order of the axes, or
    in ascending order if the requests do not make a full grid.

    Raises:
        ValueError: if no run is done.
    """
    hull = store.hull()
    full = is_full(store, hull)
    grids = [hull] if full else store.requests
    parts = []
    for grid in grids:
        rows = store.rows(grid).ravel()
        runs = np.flatnonzero(rows >= 0)
        parts.append((rows[runs], *grid.runs(runs, np.float64)))
    rows, seeds, *values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if not len(rows):
        raise ValueError(f"{store.path} must have runs that are done, got none")
    by_name = dict(zip(hull.names, values, strict=True))
    columns = {name: by_name[name] for axis in hull.axes.values() for name in axis}
    columns["seed"] = seeds.astype(np.int64)
    if not full:
        _, first = np.unique(rows, return_index=True)  # requests may overlap
        order = first[np.lexsort([column[first] for column in reversed(columns.values())])]
        rows, columns = rows[order], {name: column[order] for name, column in columns.items()}
    dim = "run"
    while dim in {*columns, *store.variables}:  # names of the user
        dim += "_"
    variables = {}
    for name in store.variables:
        array = lazily(store, name, rows)
        inner = (f"{name}_{index}" for index in range(array.ndim - 2))
        variables[name] = ((dim,) if name == "diverged_at" else (dim, "step", *inner), array)
    coordinates = {name: (dim, column) for name, column in columns.items()}
    attributes = store.dataset(grids[0]).attrs
    return xr.Dataset(variables, coordinates | {"step": store.steps}, attributes)

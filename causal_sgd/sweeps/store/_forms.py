"""The grid of the parameters of a store, where its runs are the points of a list."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.sweeps._grid import Grid

if TYPE_CHECKING:
    from causal_sgd.sweeps.store._reader import StoreReader

__all__ = ["is_refined", "unique_axes", "unzipped"]

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

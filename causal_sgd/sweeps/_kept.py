"""The results of a refinement without a store: those of its runs, labelled as the full grid."""

from __future__ import annotations

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from causal_sgd.sweeps._datasets import labelled, with_nan
from causal_sgd.sweeps._refinement import Refinement, Request, cells

__all__ = ["KeptResults"]


class KeptResults:
    """The results of requests in memory, one run in a row.

    They take as much memory as the runs need, however many cells the full grid has.
    """

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._parts: list[tuple[Request, xr.Dataset]] = []

    def add(self, request: Request, results: xr.Dataset) -> None:
        """Keep the results of a request, dims (point, seed, ...)."""
        self._parts.append((request, results))

    def dataset(self, state: Refinement) -> xr.Dataset:
        """All results over the full grid, expanded on access."""
        grid, first = state.grid, self._parts[0][1]
        rows, count = np.full(grid.shape, -1), 0
        for request, _ in self._parts:
            points = {name: values[:, None] for name, values in request.points.items()}
            places = (*cells(state, points), np.array(request.seeds))
            rows[places] = count + np.arange(request.size).reshape(-1, len(request.seeds))
            count += request.size
        variables = {str(name): self._expanded(str(name), rows) for name in first.data_vars}
        dataset = labelled(grid, variables, first["step"].values, first.attrs)
        return dataset.assign_coords(done=((*grid.axes, "seed"), rows >= 0))

    def _expanded(self, name: str, rows: np.ndarray) -> indexing.MemoryCachedArray:
        """A variable over the full grid; missing runs, row -1, are NaN, or -1 in `diverged_at`."""
        values = np.concatenate(
            [part[name].values.reshape(-1, *part[name].shape[2:]) for _, part in self._parts]
        )
        fill = -1 if name == "diverged_at" else 0
        if fill == 0 and (rows < 0).any():
            values, fill = with_nan(name, values), np.nan
        indexed = indexing.LazilyIndexedArray(_Expanded(values, rows, fill))
        return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(indexed))  # pyright: ignore


class _Expanded(BackendArray):
    """The values [R, ...] of the runs in some rows [*axes, seed] in xarray's interface."""

    def __init__(self, values: np.ndarray, rows: np.ndarray, fill: float) -> None:
        self.values, self.rows, self.fill = values, rows, fill
        self.shape = (*rows.shape, *values.shape[1:])
        self.dtype = values.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        ndim = self.rows.ndim
        rows, values = np.asarray(self.rows[key[:ndim]]), self.values[:, *key[ndim:]]
        done = rows >= 0
        out = np.full((*rows.shape, *values.shape[1:]), self.fill, self.dtype)
        out[done] = values[rows[done]]
        return out

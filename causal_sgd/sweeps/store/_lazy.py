"""Variables of a store that xarray reads on access, and only the units that it needs."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from causal_sgd.sweeps._datasets import nullable, with_nan

__all__ = ["lazily"]

READ_AT_ONCE = 2**26  # bytes

Indices: TypeAlias = tuple[int | np.integer | slice | np.ndarray, ...]
"""One index for each axis."""


class Reader(Protocol):
    """The part of a store that its variables use."""

    def layout(self, name: str) -> tuple[np.dtype, tuple[int, ...], int]:
        """The type of a variable, the shape of a run's values, and the rows of a unit."""
        ...

    def read(self, name: str, units: np.ndarray) -> np.ndarray:
        """The values of a variable in some units, [len(units), rows of a unit, ...]."""
        ...


def lazily(store: Reader, name: str, rows: np.ndarray) -> indexing.MemoryCachedArray:
    """A variable of some runs, read on first access and then cached, as xarray does with files.

    Args:
        store: the store.
        name: the variable.
        rows: the rows of the runs, of any shape; -1 for a missing run.

    Returns:
        An array [*rows.shape, ...] for `xarray.Dataset`. If runs are missing it has the `nullable`
        type of the variable, and NaN for them; `diverged_at` has -1.
    """
    indexed = indexing.LazilyIndexedArray(_Stored(store, name, rows))
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(indexed))  # pyright: ignore


class _Stored(BackendArray):
    """A variable of some runs in xarray's interface; row -1 is a missing run."""

    def __init__(self, store: Reader, name: str, rows: np.ndarray) -> None:
        kind, self.inner_shape, self.unit = store.layout(name)
        self.store, self.name, self.rows = store, name, rows
        self.shape = (*rows.shape, *self.inner_shape)
        # The step of divergence is -1 for missing runs, as for those that did not diverge.
        self.widened = name != "diverged_at" and bool((rows < 0).any())
        self.dtype = nullable(kind) if self.widened else kind
        self.fill = np.nan if self.widened else -1 if name == "diverged_at" else 0

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: Indices) -> np.ndarray:
        ndim = self.rows.ndim
        chosen = _outer(self.rows, key[:ndim])
        flat = chosen.ravel()
        out = np.empty((flat.size, *self.inner_shape), self.dtype)
        if self.widened or (flat < 0).any():
            out[...] = self.fill
        order = np.flatnonzero(flat >= 0)
        rows = flat[order]
        if (np.diff(rows) < 0).any():
            ascending = np.argsort(rows, kind="stable")
            order, rows = order[ascending], rows[ascending]
        units = np.unique(rows // self.unit)
        bytes_of_unit = self.unit * max(int(np.prod(self.inner_shape)), 1) * self.dtype.itemsize
        at_once = max(READ_AT_ONCE // bytes_of_unit, 1)
        for start in range(0, len(units), at_once):
            batch = units[start : start + at_once]
            first, last = np.searchsorted(rows, [batch[0] * self.unit, (batch[-1] + 1) * self.unit])
            here = rows[first:last]
            values = self.store.read(self.name, batch)
            values = with_nan(self.name, values) if self.widened else values
            values = values.reshape(-1, *self.inner_shape)
            place = np.searchsorted(batch, here // self.unit) * self.unit + here % self.unit
            out[_stretch(order[first:last])] = values[_stretch(place)]
        return _outer(
            out.reshape((*chosen.shape, *self.inner_shape)),
            (*(slice(None),) * chosen.ndim, *key[ndim:]),
        )


def _stretch(indices: np.ndarray) -> np.ndarray | slice:
    """Ascending indices as a slice if they are consecutive, which is faster."""
    if (
        len(indices)
        and indices[-1] - indices[0] + 1 == len(indices)
        and (np.diff(indices) == 1).all()
    ):
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


def _outer(values: np.ndarray, key: Indices) -> np.ndarray:
    """Index each axis separately."""
    axis = 0
    for index in key:
        if isinstance(index, int | np.integer):
            values = values.take(int(index), axis)
        else:
            values = values[(slice(None),) * axis + (index,)]
            axis += 1
    return values

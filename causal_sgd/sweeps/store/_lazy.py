"""Variables of a store that xarray reads on access, and only the units that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from causal_sgd.sweeps._datasets import nullable, with_nan

if TYPE_CHECKING:
    import zarr

__all__ = ["lazily"]

READ_AT_ONCE = 64  # units

Indices: TypeAlias = tuple[int | np.integer | slice | np.ndarray, ...]
"""One index for each axis."""


class Reader(Protocol):
    """The part of a store that its variables use."""

    tile: int

    def array(self, name: str) -> zarr.Array:
        """The zarr array of a variable, [row, ...]."""
        ...

    def read(self, name: str, units: np.ndarray) -> np.ndarray:
        """The values of a variable in some units, [len(units), tile, ...]."""
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
        inner = store.array(name)
        self.store, self.name, self.rows = store, name, rows
        self.inner_shape = inner.shape[1:]
        self.shape = (*rows.shape, *self.inner_shape)
        # The step of divergence is -1 for missing runs, as for those that did not diverge.
        self.widened = name != "diverged_at" and bool((rows < 0).any())
        self.dtype = nullable(inner.dtype) if self.widened else inner.dtype
        self.fill = np.nan if self.widened else -1 if name == "diverged_at" else 0

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: Indices) -> np.ndarray:
        ndim, tile = self.rows.ndim, self.store.tile
        chosen = _outer(self.rows, key[:ndim])
        flat = chosen.ravel()
        out = np.full((flat.size, *self.inner_shape), self.fill, self.dtype)
        units = np.unique(flat[flat >= 0] // tile)
        for start in range(0, len(units), READ_AT_ONCE):
            batch = units[start : start + READ_AT_ONCE]
            values = self.store.read(self.name, batch)
            values = with_nan(self.name, values) if self.widened else values
            here = (flat >= 0) & np.isin(flat // tile, batch)
            out[here] = values[np.searchsorted(batch, flat[here] // tile), flat[here] % tile]
        return _outer(
            out.reshape(*chosen.shape, *self.inner_shape),
            (*(slice(None),) * chosen.ndim, *key[ndim:]),
        )


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

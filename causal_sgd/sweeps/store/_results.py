"""The results of a sweep in a store."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.sweeps._units import Units
from causal_sgd.sweeps.store._disk import Store
from causal_sgd.sweeps.store._manifest import Manifest

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.types import Trace

__all__ = ["StoredResults"]


class StoredResults:
    """A store as the results of one sweep; locked only if something is missing."""

    def __init__(
        self,
        path: Path,
        store: Store | None,
        manifest: Manifest,
        units: Units,
        environment: Environment,
    ) -> None:
        """Check that the open store belongs to this sweep, or create one.

        Raises:
            StoreError: if the store belongs to another sweep, or cannot be created.
        """
        if store is None:
            store = Store.create(path, manifest, units.tile, by_seed=units.by_seed)
        self._store = store
        self._store.check(manifest, environment)
        self._grid = units.grid
        self._files = manifest.files
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> None:
        with contextlib.ExitStack() as lock:
            if not self._store.complete(self._grid):
                lock.enter_context(self._store.writing())
                self._store.locate(self._files)
                self._store.request(self._grid)
            self._counts = self._store.counts(self._grid)
            self._lock = lock.pop_all()

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def complete(self) -> bool:
        """Whether the store holds every run."""
        return self._store.complete(self._grid)

    def missing(self) -> list[int]:
        """The units that the grid needs and the store lacks."""
        return self._store.missing(self._grid).tolist()

    def done(self) -> int:
        """The number of runs of the grid that the store holds."""
        return self._store.count_done(self._grid)

    def count(self, unit: int) -> int:
        """The number of runs of the grid in a unit."""
        return int(self._counts[unit])

    def columns(self, unit: int) -> Columns:
        """The input of a unit, as the store laid it out."""
        return self._store.columns(unit)

    def write(self, unit: int, trace: Trace, environment: Environment) -> None:
        """Write the data of a unit with checksums, then its status."""
        values = {**trace.metrics, "diverged_at": trace.diverged_at}
        arrays = {name: np.asarray(block) for name, block in values.items()}
        self._store.write(unit, arrays, np.asarray(trace.step[0]), environment)

    def dataset(self) -> xr.Dataset:
        """The labelled results, read on access."""
        dataset = self._store.dataset(self._grid)
        return dataset.drop_vars("done") if dataset.done.all() else dataset

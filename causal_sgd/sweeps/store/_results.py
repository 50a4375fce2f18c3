"""The results of a sweep in a store: tiles are collected and written by units."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.checks import Place
from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.sweeps._units import Units
from causal_sgd.sweeps.store._disk import Store
from causal_sgd.sweeps.store._journal import MOST_TILES
from causal_sgd.sweeps.store._manifest import Manifest

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.types import Trace

__all__ = ["StoredResults"]

UNIT_BYTES = 2**20  # of all variables, up to which a unit takes further tiles
UNIT_SECONDS = 1.0  # in which the tiles of a unit are computed
LEAST_UNITS = 8  # of the first request


class _Tile(NamedTuple):
    values: dict[str, np.ndarray]
    steps: np.ndarray
    environment: Environment


class StoredResults:
    """A store as the results of one sweep; locked only if something is missing.

    The first tiles of a new store wait until the size of its units is settled: as many tiles as
    give a megabyte of results, but no more than were computed in a second. After that a tile waits
    for the others of its unit.
    """

    def __init__(
        self,
        path: Place,
        store: Store | None,
        manifest: Manifest,
        units: Units,
        environment: Environment,
        *,
        fsync: bool = False,
    ) -> None:
        """Check that the open store belongs to this sweep, or create one.

        Raises:
            StoreError: if the store belongs to another sweep, or cannot be created.
        """
        if store is None:
            store = Store.create(path, manifest, units.tile, by_seed=units.by_seed, fsync=fsync)
        self._store = store
        self._store.check(manifest, environment)
        self._grid = units.grid
        self._files = manifest.files
        self._lock = contextlib.ExitStack()
        self._waiting: dict[int, _Tile] = {}
        self._counts = np.zeros(0, int)
        self._expected: Counter[int] = Counter()  # unit -> tiles to be computed
        self._began = 0.0  # when the first tile came

    def __enter__(self) -> None:
        if self._store.complete(self._grid):
            return
        with contextlib.ExitStack() as lock:
            lock.enter_context(self._store.writing())
            self._store.locate(self._files)
            self._store.request(self._grid)
            self._counts = self._store.counts(self._grid)
            self._expect()
            self._lock = lock.pop_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What waits is worth keeping unless the store itself has failed.
        with self._lock, contextlib.suppress(*([OSError, ValueError] if error else [])):
            if self._waiting:
                self._settle()
                for unit in sorted({self._unit(tile) for tile in self._waiting}):
                    self._write(unit)
            if self._expected:
                self._store.finish()

    def complete(self) -> bool:
        """Whether the store holds every run."""
        return self._store.complete(self._grid)

    def missing(self) -> list[int]:
        """The tiles that the grid needs and the store lacks."""
        return self._store.missing(self._grid).tolist() if self._expected else []

    def done(self) -> int:
        """The number of runs of the grid that the store holds."""
        return self._store.count_done(self._grid)

    def count(self, unit: int) -> int:
        """The number of runs of the grid in a tile."""
        return int(self._counts[unit])

    def columns(self, unit: int) -> Columns:
        """The input of a tile, as the store laid it out."""
        return self._store.columns(unit)

    def write(self, unit: int, trace: Trace, environment: Environment) -> None:
        """Take the results of a tile, and write its unit if they were the last ones of it."""
        leaves = {**trace.metrics, "diverged_at": trace.diverged_at}
        values = {name: np.asarray(block) for name, block in leaves.items()}
        self._waiting[unit] = _Tile(values, np.asarray(trace.step[0]), environment)
        if self._store.settled:
            self._write_if_whole(self._unit(unit))
            return
        now = time.monotonic()
        self._began = self._began or now
        if len(self._waiting) >= self._wanted(values) or now > self._began + UNIT_SECONDS:
            self._settle()
            for number in sorted({self._unit(tile) for tile in self._waiting}):
                self._write_if_whole(number)

    def _wanted(self, values: dict[str, np.ndarray]) -> int:
        """The number of tiles in a unit, if they are quick."""
        size = max(sum(block.nbytes for block in values.values()), 1)
        share = int(np.count_nonzero(self._counts)) // LEAST_UNITS
        return _power_of_two(min(MOST_TILES, -(-UNIT_BYTES // size), share))

    def _settle(self) -> None:
        """Settle the size of the units by the tiles that wait."""
        if self._store.settled:
            return
        values = next(iter(self._waiting.values())).values
        quick = len(self._waiting)
        if time.monotonic() > self._began + UNIT_SECONDS:
            quick -= 1  # the time of the first one is not known
        self._store.settle(min(self._wanted(values), _power_of_two(quick)))
        self._counts = self._store.counts(self._grid)
        self._expect()

    def _expect(self) -> None:
        self._expected = Counter(map(self._unit, self._store.missing(self._grid).tolist()))

    def _unit(self, tile: int) -> int:
        return tile // self._store.tiles_per_unit

    def _write_if_whole(self, unit: int) -> None:
        if len(self._tiles(unit)) == self._expected[unit]:
            self._write(unit)

    def _tiles(self, unit: int) -> list[int]:
        """The tiles of a unit that wait."""
        size = self._store.tiles_per_unit
        return [tile for tile in range(unit * size, (unit + 1) * size) if tile in self._waiting]

    def _write(self, unit: int) -> None:
        first = unit * self._store.tiles_per_unit
        waiting = {tile: self._waiting[tile] for tile in self._tiles(unit)}
        environments: list[Environment] = []
        for tile in waiting.values():
            if tile.environment not in environments:
                environments.append(tile.environment)
        values = {tile - first: each.values for tile, each in waiting.items()}
        self._store.write(unit, values, next(iter(waiting.values())).steps, environments)
        for tile in waiting:
            del self._waiting[tile]

    def dataset(self) -> xr.Dataset:
        """The labelled results, read on access."""
        dataset = self._store.dataset(self._grid)
        return dataset.drop_vars("done") if dataset.done.all() else dataset


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number, at least 1."""
    return 2 ** (max(number, 1).bit_length() - 1)

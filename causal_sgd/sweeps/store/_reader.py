"""A store opened for reading: its runs, their status, and their results verified by checksums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._datasets import labelled
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._provenance import Environment, Origin, provenance
from causal_sgd.sweeps._units import of_one_seed
from causal_sgd.sweeps.store._arrays import Array, DamagedChunk
from causal_sgd.sweeps.store._chunks import read_units
from causal_sgd.sweeps.store._files import files_at
from causal_sgd.sweeps.store._header import Header, read_header
from causal_sgd.sweeps.store._journal_ledger import JournalLedger
from causal_sgd.sweeps.store._lazy import lazily
from causal_sgd.sweeps.store._ledger import Ledger
from causal_sgd.sweeps.store._manifest import Configuration, StoreError
from causal_sgd.sweeps.store._old_ledger import OldLedger

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["StoreReader"]

NO_ORIGIN: Origin = {
    "versions": {"causal_sgd": "none", "jax": "none"},
    "platform": "none",
    "device": "none",
}
"""The origin of a store without results."""


class StoreReader:
    """The part of a store that reads."""

    def __init__(self, path: str | Path, *, fsync: bool = False, lenient: bool = False) -> None:
        """Open an existing store, for reading.

        Args:
            path: of the store, or its URL.
            fsync: whether writes wait until the disk has them.
            lenient: whether its journal may be missing, because the store is to be repaired.

        Raises:
            StoreError: if there is no store at the path, or it has a newer format or was altered.
        """
        self.path = checks.place("path", path)
        self._files = files_at(self.path, fsync=fsync)
        self._lenient = lenient
        self._ledger = self._open(read_header(self._files))

    def _open(self, header: Header) -> Ledger:
        """The ledger that belongs to a header."""
        while True:
            if header["format_version"] >= 3:
                ledger: Ledger = JournalLedger(self._files, header, lenient=self._lenient)
            else:
                ledger = OldLedger(self._files, header)
            if not ledger.is_odd():
                return ledger
            # Another process may have written between the header and the ledger.
            header, earlier = read_header(self._files), header
            if header == earlier:
                return ledger

    def refresh(self) -> None:
        """Read again which runs are requested and which are done, if that changed."""
        header = read_header(self._files)
        if header != self._header or self._ledger.grew():
            self._ledger = self._open(header)

    @property
    def _header(self) -> Header:
        return self._ledger.header

    @property
    def format_version(self) -> int:
        """The version of the format."""
        return self._header["format_version"]

    @property
    def tile(self) -> int:
        """Runs in a tile."""
        return self._header["tile"]

    @property
    def by_seed(self) -> bool:
        """Whether the runs of a tile have one seed."""
        return self._header.get("by_seed", False)

    @property
    def configuration(self) -> Configuration:
        """All that decides the results."""
        return self._header["configuration"]

    @property
    def hash(self) -> str:
        """SHA-256 of the configuration."""
        return self._header["configuration_hash"]

    @property
    def parameters(self) -> dict[str, str]:
        """Parameter -> the type of its column."""
        return self._header["parameters"]

    @property
    def variables(self) -> list[str]:
        """The metrics, and `diverged_at`."""
        return self._header["variables"]

    @property
    def created(self) -> str:
        """The time at which the store was made."""
        return self._header["created"]

    @property
    def source(self) -> str | None:
        """The source of the cell, where it was available."""
        return self._header["source"]

    @property
    def environments(self) -> list[Environment]:
        """What computed the results."""
        return self._header["environments"]

    @property
    def files(self) -> dict[str, list[str]]:
        """Field of the configuration -> the places of its file."""
        return self._header.get("files", {})

    @property
    def requests(self) -> list[Grid]:
        """Grids of all runs that were requested."""
        return [Grid.parse(request) for request in self._header["requests"]]

    @property
    def steps(self) -> np.ndarray:
        """The recorded steps [F]; -1 before the first results."""
        steps = self._header["steps"]
        if steps is not None:
            return np.asarray(steps, np.int32)
        frames = next(each.inner[0] for each in self._arrays.values() if each.inner)
        return np.full(frames, -1, np.int32)

    @property
    def _arrays(self) -> dict[str, Array]:
        return self._ledger.arrays

    @property
    def num_tiles(self) -> int:
        """The number of tiles of all requests so far."""
        return len(self._ledger.done)

    @property
    def num_units(self) -> int:
        """The number of units on disk, each of some tiles, of all requests so far."""
        return len(self._ledger.closed)

    @property
    def tiles_per_unit(self) -> int:
        """Tiles in a unit."""
        return self._ledger.tiles_per_unit

    @property
    def done(self) -> np.ndarray:
        """Whether each tile is done, [tiles]."""
        return self._ledger.done

    @property
    def damaged(self) -> dict[int | str, str]:
        """Unit or file -> its damage, as far as that is known without reading the results."""
        return self._ledger.faults

    def missing(self, grid: Grid) -> np.ndarray:
        """The tiles of a grid that are not done; its runs must have been requested."""
        wanted = np.zeros(self.num_tiles, bool)
        rows = self._rows(grid)
        wanted[rows[rows >= 0] // self.tile] = True
        return np.flatnonzero(wanted & ~self.done)

    def hull(self) -> Grid:
        """The smallest grid that contains all requests."""
        requests = self.requests
        if not requests:
            raise StoreError(f"{self.path} is empty: no run was requested yet")
        return Grid.hull(requests, self.parameters)

    def progress(self) -> tuple[int, int]:
        """The numbers of requested runs and of runs that are done."""
        table, asked = self._ledger.table, self._ledger.asked
        done = int((table.filled & np.repeat(self.done, self.tile)).sum())
        if table.filled is asked:
            return int(asked.sum()), done
        # Some tiles were left out of units; their runs may have got new rows since.
        return table.number_of_runs(asked), done

    def diverged(self) -> int:
        """The number of diverged runs."""
        units = np.flatnonzero(self._ledger.closed)
        there = self._ledger.table.filled & np.repeat(self.done, self.tile)
        held = there.reshape(self.num_units, -1)[units]
        return int((held & (self.read("diverged_at", units) >= 0)).sum())

    def complete(self, grid: Grid) -> bool:
        """Whether every run of a grid is done."""
        rows = self._rows(grid)
        return bool((rows >= 0).all() and (self.done.all() or self.done[rows // self.tile].all()))

    def count_done(self, grid: Grid) -> int:
        """The number of runs of a grid that are done."""
        rows = self._rows(grid)
        return int(self.done[rows[rows >= 0] // self.tile].sum())

    def counts(self, grid: Grid) -> np.ndarray:
        """The number of runs of a grid in each tile, [tiles]."""
        rows = self._rows(grid)
        return np.bincount(rows[rows >= 0] // self.tile, minlength=self.num_tiles)

    def _rows(self, grid: Grid) -> np.ndarray:
        """The row of every run of a grid; found once, since a sweep asks often."""
        table = self._ledger.table
        if self._found is None or self._found[0] is not table or self._found[1] is not grid:
            self._found = table, grid, table.rows(grid)
        return self._found[2]

    _found: tuple[object, Grid, np.ndarray] | None = None

    def columns(self, tile: int) -> Columns:
        """The input of a tile; copies of the last run pad the last tile of a request or seed."""
        checks.integer("tile", tile, minimum=0, maximum=self.num_tiles - 1)
        rows = slice(tile * self.tile, (tile + 1) * self.tile)
        columns = tuple(column[rows] for column in self._ledger.table.columns)
        return of_one_seed(columns) if self.by_seed else columns

    def rows(self, grid: Grid) -> np.ndarray:
        """The row of every run of a grid, in the shape of the grid; -1 for missing runs."""
        rows = self._rows(grid)
        if not (self.done.all() and (rows >= 0).all()):
            done = np.append(np.repeat(self.done, self.tile), False)[rows]
            rows = np.where(done, rows, -1)
        return rows.reshape(grid.shape)

    def dataset(self, grid: Grid | None = None, *, only: np.ndarray | None = None) -> xr.Dataset:
        """The labelled results of a grid (by default, of all requests), read on access.

        Missing runs are NaN, whatever the type of a metric, and False in the coordinate `done`;
        `diverged_at` is -1 there. Runs that are False in `only` [*axes, seed] count as missing.
        """
        grid = self.hull() if grid is None else grid
        rows = self.rows(grid)
        if only is not None:
            if only.shape != grid.shape:
                raise ValueError(f"only must have shape {grid.shape}, got {only.shape}")
            rows = np.where(only, rows, -1)
        done = rows >= 0
        variables = {name: lazily(self, name, rows) for name in self.variables}
        origin = self.environments[0] if self.environments else NO_ORIGIN
        key, implementation = self.configuration["key"], self.configuration["key_implementation"]
        attributes = provenance(origin, self.tile, key, implementation)
        attributes |= {
            "configuration_hash": self.hash,
            "environments": max(len(self.environments), 1),
        }
        dataset = labelled(grid, variables, self.steps, attributes)
        return dataset.assign_coords(done=((*grid.axes, "seed"), done))

    def layout(self, name: str) -> tuple[np.dtype, tuple[int, ...], int]:
        """The type of a variable, the shape of a run's values, and the rows of a unit."""
        array = self._arrays[checks.choice("name", name, self.variables)]
        return array.kind, array.inner, array.rows

    def read(self, name: str, units: np.ndarray) -> np.ndarray:
        """Read a variable in some units, [len(units), rows of a unit, ...], and verify it.

        Raises:
            StoreError: if a chunk is damaged or missing.
        """
        array = self._arrays[checks.choice("name", name, self.variables)]
        given = checks.record("units", units)
        inside = (given >= 0) & (given < self.num_units) & (given == np.floor(given))
        if given.ndim != 1 or not inside.all():
            raise ValueError(f"units must be numbers of units, below {self.num_units}, got {units}")
        chosen = given.astype(int).tolist()
        out = np.empty((len(chosen), array.rows, *array.inner), array.kind)
        for index, block in enumerate(read_units(self._files, self._ledger, name, chosen)):
            if isinstance(block, DamagedChunk):
                raise StoreError(
                    f"{self.path}: {block}; recompute it with `causal-sgd repair {self.path}`"
                )
            out[index] = block
        return out

    def faults(self) -> dict[int | str, str]:
        """Describe all damage: of units marked as done, and of the files that describe them."""
        faults = dict(self.damaged)
        units = np.flatnonzero(self._ledger.closed).tolist()
        for name in self.variables:
            blocks = read_units(self._files, self._ledger, name, units)
            for unit, block in zip(units, blocks, strict=True):
                if isinstance(block, DamagedChunk):
                    faults.setdefault(unit, str(block))
        return dict(sorted(faults.items(), key=_units_first)) | self._ledger.export_faults()

    def _check_unit(self, unit: int) -> None:
        checks.integer("unit", unit, minimum=0, maximum=self.num_units - 1)


def _units_first(item: tuple[int | str, str]) -> tuple[bool, int, str]:
    key = item[0]
    return (False, key, "") if isinstance(key, int) else (True, 0, key)

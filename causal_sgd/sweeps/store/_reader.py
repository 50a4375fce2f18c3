"""A store opened for reading: its runs, their status, and their results verified by checksums."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import zarr

from causal_sgd import checks
from causal_sgd.sweeps._datasets import labelled
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._provenance import Environment, Origin, provenance
from causal_sgd.sweeps._units import of_one_seed
from causal_sgd.sweeps.store._layout import (
    FIELDS,
    FORMAT,
    FORMAT_VERSION,
    REMEDY,
    check_attributes,
    first_line,
    get_attributes,
    open_group,
)
from causal_sgd.sweeps.store._lazy import lazily
from causal_sgd.sweeps.store._manifest import Configuration, StoreError, digest
from causal_sgd.sweeps.store._rows import Table

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

    def __init__(self, path: str | Path) -> None:
        """Open an existing store, for reading.

        Raises:
            StoreError: if there is no store at the path, or it has a newer format or was altered.
        """
        self.path = checks.path("path", path)
        self._group = open_group(self.path)
        attributes = get_attributes(self._group)
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{path} is a zarr group but not a sweep's results")
        version = attributes.get("format_version")
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise StoreError(
                f"{path} has format {version}, which a newer causal_sgd wrote; "
                f"this one reads up to {FORMAT_VERSION}: upgrade"
            )
        check_attributes(self.path, attributes)
        if digest(attributes["configuration"]) != attributes["configuration_hash"]:
            raise StoreError(
                f"{path} was altered: its configuration does not match its hash "
                f"{attributes['configuration_hash'][:12]}; restore its zarr.json or "
                "begin a new store"
            )
        self.tile: int = attributes["tile"]
        self.by_seed: bool = attributes.get("by_seed", False)
        self.configuration: Configuration = attributes["configuration"]
        self.hash: str = attributes["configuration_hash"]
        self.parameters: dict[str, str] = attributes["parameters"]
        self.variables: list[str] = attributes["variables"]
        self.created: str = attributes["created"]
        self.source: str | None = attributes["source"]
        try:
            array = self._group["diverged_at"]
            if not isinstance(array, zarr.Array) or array.chunks[0] != self.tile:
                raise ValueError(f"tile is {self.tile}")
            self.refresh()
        except (
            AttributeError,
            IndexError,
            KeyError,
            OverflowError,
            TypeError,
            ValueError,
        ) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{path} was altered: its zarr.json and its arrays do not fit together "
                f"({type(error).__name__}: {first_line(error)}); {REMEDY}"
            ) from error

    def _check_arrays(self) -> None:
        """Refuse arrays whose headers do not fit the configuration, before anything is read.

        Their lengths may differ from those of the requests: another process may let them grow.
        """
        metrics = self.configuration["metrics"]
        inner = {name: tuple(cast("list[int]", metrics[name][1])) for name in self.variables}
        frames = next(shape[0] for name, shape in inner.items() if name != "diverged_at")
        headers: dict[str, tuple[object, tuple[int, ...]]] = {
            "status": ("uint32", (len(FIELDS) + len(self.variables),)),
            "seed": ("int64", ()),
            **{name: (kind, ()) for name, kind in self.parameters.items()},
            **{name: (metrics[name][0], inner[name]) for name in self.variables},
        }
        for name, (kind, shape) in headers.items():
            array = self.array(name)
            chunks = (self.tile, *(max(size, 1) for size in shape))
            if (str(array.dtype), array.shape[1:]) != (kind, shape) or (
                name in inner and array.chunks != chunks
            ):
                raise ValueError(
                    f"array {name} must have {kind} of shape {('runs', *shape)}, "
                    f"got {array.dtype} of shape {array.shape} in chunks {array.chunks}"
                )
        if self.array("step").shape != (frames,):
            raise ValueError(f"array step must have shape {(frames,)}")

    def refresh(self) -> None:
        """Read again which runs are requested and which are done."""
        self._group = open_group(self.path)
        self._arrays: dict[str, zarr.Array] = {}
        attributes = get_attributes(self._group)
        self.requests = [Grid.parse(request) for request in attributes["requests"]]
        self.environments: list[Environment] = list(attributes["environments"])
        self.files: dict[str, list[str]] = attributes.get("files", {})
        self._table = Table.make(self.requests, self.parameters, self.tile, self.by_seed)
        self._check_arrays()
        self._status, self.damaged = self._read_status()
        steps = attributes["steps"]
        frames = self.array("step").shape[0]
        if steps is not None and len(steps) != frames:
            raise ValueError(f"there are {len(steps)} steps for {frames} frames")
        self.steps = np.full(frames, -1, np.int32) if steps is None else np.asarray(steps, np.int32)

    @property
    def num_units(self) -> int:
        """The number of units of all requests so far."""
        return self._table.size // self.tile

    @property
    def done(self) -> np.ndarray:
        """Whether each unit is done, [units]."""
        own = int(self.hash[:8], 16)
        return (self._status[:, 0] == 1) & (self._status[:, 2] == own)

    def missing(self, grid: Grid | None = None) -> np.ndarray:
        """The units of a grid (by default, of all requests) that are not done."""
        units = (
            np.arange(self.num_units)
            if grid is None
            else np.unique(self._table.rows(grid) // self.tile)
        )
        return units[~self.done[units]]

    def hull(self) -> Grid:
        """The smallest grid that contains all requests."""
        if not self.requests:
            raise StoreError(f"{self.path} is empty: no run was requested yet")
        return Grid.hull(self.requests, self.parameters)

    def progress(self) -> tuple[int, int]:
        """The numbers of requested runs and of runs that are done."""
        filled = self._table.filled.reshape(-1, self.tile)
        return int(filled.sum()), int(filled[self.done].sum())

    def diverged(self) -> int:
        """The number of diverged runs."""
        units = np.flatnonzero(self.done)
        filled = self._table.filled.reshape(-1, self.tile)[units]
        return int((filled & (self.read("diverged_at", units) >= 0)).sum())

    def complete(self, grid: Grid) -> bool:
        """Whether every run of a grid is done."""
        rows = self._table.rows(grid)
        return bool((rows >= 0).all()) and bool(self.done[rows // self.tile].all())

    def count_done(self, grid: Grid) -> int:
        """The number of runs of a grid that are done."""
        rows = self._table.rows(grid)
        return int(self.done[rows[rows >= 0] // self.tile].sum())

    def counts(self, grid: Grid) -> np.ndarray:
        """The number of runs of a grid in each unit, [units]."""
        return np.bincount(self._table.rows(grid) // self.tile, minlength=self.num_units)

    def columns(self, unit: int) -> Columns:
        """The input of a unit; copies of the last run pad the last unit of a request or seed."""
        self._check_unit(unit)
        rows = slice(unit * self.tile, (unit + 1) * self.tile)
        columns = tuple(column[rows] for column in self._table.columns)
        return of_one_seed(columns) if self.by_seed else columns

    def rows(self, grid: Grid) -> np.ndarray:
        """The row of every run of a grid, in the shape of the grid; -1 for missing runs."""
        rows = self._table.rows(grid)
        done = np.append(np.repeat(self.done, self.tile), False)[rows]
        return np.where(done, rows, -1).reshape(grid.shape)

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

    def array(self, name: str) -> zarr.Array:
        """A zarr array of the store."""
        checks.instance("name", name, str, "the name of an array")
        if name not in self._arrays:
            try:
                array = self._group[name]
                if not isinstance(array, zarr.Array):
                    raise TypeError("it is a group")
                # Write chunks of fill values too, so that a missing chunk is a lost one.
                self._arrays[name] = array.with_config({"write_empty_chunks": True})
            except Exception as error:  # zarr raises many types for broken files
                raise StoreError(
                    f"{self.path}: the array {name} cannot be opened: {first_line(error)}"
                ) from error
        return self._arrays[name]

    def read(self, name: str, units: np.ndarray) -> np.ndarray:
        """Read a variable in some units, [len(units), tile, ...], and verify the checksums.

        Raises:
            StoreError: if a chunk is damaged or missing.
        """
        checks.choice("name", name, self.variables)
        given = checks.record("units", units)
        inside = (given >= 0) & (given < self.num_units) & (given == np.floor(given))
        if given.ndim != 1 or not inside.all():
            raise ValueError(f"units must be numbers of units, below {self.num_units}, got {units}")
        units = given.astype(int)
        array = self.array(name)
        out = np.empty((len(units), self.tile, *array.shape[1:]), array.dtype)
        for place, count in _stretches(units):
            first = int(units[place])
            try:
                part = np.asarray(array[first * self.tile : (first + count) * self.tile])
            except (ValueError, OSError):  # some chunk is damaged; the loop below finds which
                part = None
            for index in range(count):
                block = None if part is None else part[index * self.tile :][: self.tile]
                if fault := self._fault(name, first + index, block):
                    raise StoreError(
                        f"{self.path}: {fault}; recompute it with `causal-sgd repair {self.path}`"
                    )
            assert part is not None, "one of the chunks must be damaged"
            out[place : place + count] = part.reshape(count, self.tile, *array.shape[1:])
        return out

    def _check_unit(self, unit: int) -> None:
        checks.integer("unit", unit, minimum=0, maximum=self.num_units - 1)

    def faults(self) -> dict[int, str]:
        """Describe every damaged unit among those marked as done, or with an unreadable status."""
        faults = dict(self.damaged)
        foreign = (self._status[:, 0] == 1) & ~self.done
        for unit in np.flatnonzero(foreign):
            faults[int(unit)] = f"unit {unit} belongs to another configuration"
        for unit in np.flatnonzero(self._status[:, 0] > 1):
            faults[int(unit)] = f"unit {unit} has an unknown status {self._status[unit, 0]}"
        for unit in np.flatnonzero(self.done):
            found = (self._fault(name, int(unit), None) for name in self.variables)
            if fault := next(filter(None, found), None):
                faults[int(unit)] = fault
        return faults

    def _read_status(self) -> tuple[np.ndarray, dict[int, str]]:
        """The rows of `status`, and the faults of those that cannot be read; these are zero."""
        array = self.array("status")
        rows = np.zeros((self.num_units, array.shape[1]), np.uint32)
        stored = min(self.num_units, array.shape[0])
        damaged = {}
        try:
            rows[:stored] = array[:stored]
        except (ValueError, OSError):
            for unit in range(stored):
                try:
                    rows[unit] = array[unit]
                except (ValueError, OSError) as error:
                    damaged[unit] = f"the status of unit {unit} is damaged ({first_line(error)})"
        return rows, damaged

    def _fault(self, name: str, unit: int, block: np.ndarray | None) -> str | None:
        """Describe the damage of a chunk (read here unless given); None if it is intact."""
        if block is None:
            try:
                block = np.asarray(self.array(name)[unit * self.tile : (unit + 1) * self.tile])
            except (ValueError, OSError) as error:
                return f"{name} of unit {unit} is damaged ({first_line(error)})"
        expected = int(self._status[unit, len(FIELDS) + self.variables.index(name)])
        if zlib.crc32(np.ascontiguousarray(block).data) == expected:
            return None
        key = self.array(name).metadata.encode_chunk_key((unit,) + (0,) * (block.ndim - 1))
        if not (self.path / name / key).exists():
            return f"{name} of unit {unit} is gone"
        return f"{name} of unit {unit} does not have the checksum it was written with"


def _stretches(units: np.ndarray) -> Iterator[tuple[int, int]]:
    """Indices and lengths of stretches of consecutive units."""
    breaks = np.flatnonzero(np.diff(units) != 1) + 1
    edges = [0, *breaks.tolist(), len(units)]
    yield from ((first, last - first) for first, last in itertools.pairwise(edges) if last > first)

"""Results of a sweep on disk: a zarr group that is filled unit by unit, survives a kill at any moment, and can grow.

A store is a table of runs. A *unit* is a fixed number of rows, the sweep's tile; it is computed and written whole, as one
chunk of every variable, and its row of `status` is written last, with a checksum of each of those chunks. What is not
vouched for there does not count. A run is known by its seed and parameter values, so a sweep with more seeds, other axis
values or another order computes only the rows that are missing and appends them as new units. Nothing is ever unpickled,
and no jax is imported: results open quickly, and anywhere. `xarray.open_zarr` reads the table too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np

from causal_sgd.sweeps._datasets import labelled, provenance
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps.store._layout import (
    FIELDS,
    FORMAT,
    FORMAT_VERSION,
    first_line,
    lay_out,
    now,
    open_group,
    put_chunk,
)
from causal_sgd.sweeps.store._lazy import lazily
from causal_sgd.sweeps.store._manifest import (
    Manifest,
    StoreError,
    changed_lines,
    differences,
    digest,
)
from causal_sgd.sweeps.store._tables import Table

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Store", "open_results"]

SAME_BITS = (
    "versions",
    "platform",
    "device",
    "machine",
    "cpu",
    "x64",
    "matmul_precision",
)  # of an environment


class Store:
    """An open store; see the module for what it promises."""

    def __init__(self, path: str | Path) -> None:
        """Open what is there, for reading.

        Raises:
            StoreError: if the path holds no store, one of a newer format, or one that was altered.
        """
        self.path = Path(path)
        self._group = open_group(self.path)
        attributes: dict[str, Any] = dict(self._group.attrs)
        if attributes.get("format") != FORMAT:
            raise StoreError(f"{path} is a zarr group but not a sweep's results")
        version = attributes.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise StoreError(
                f"{path} has format {version}, which a newer causal_sgd wrote; this one knows up to {FORMAT_VERSION}: upgrade"
            )
        if digest(attributes["configuration"]) != attributes["configuration_hash"]:
            raise StoreError(
                f"{path} was altered: its configuration does not match its hash {attributes['configuration_hash'][:12]}; "
                "restore its zarr.json or begin a new store"
            )
        self.tile: int = attributes["tile"]
        self.configuration: dict[str, Any] = attributes["configuration"]
        self.hash: str = attributes["configuration_hash"]
        self.parameters: dict[str, str] = attributes["parameters"]
        self.variables: list[str] = attributes["variables"]
        self.created: str = attributes["created"]
        self.source: str | None = attributes["source"]
        self.refresh()

    @classmethod
    def create(cls, path: str | Path, header: Manifest, tile: int) -> Store:
        """A new store without runs; it appears whole or not at all.

        Raises:
            StoreError: if the path is taken, cannot be written, or a name cannot be stored.
        """
        path = Path(path)
        reserved = {"status", "seed", "step", *header.parameters}
        for name in header.variables:
            if name in reserved or "/" in name or name.startswith((".", "_")):
                raise StoreError(f"metric {name!r} cannot be stored under that name; rename it")
        draft = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
        try:
            draft.mkdir()
            lay_out(draft, header, tile)
            os.rename(draft, path)
        except OSError as error:
            if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
                return cls(path)  # another process was quicker, or it is no store, which this says
            raise StoreError(
                f"{path} must be a place that can be written: {error.strerror or error}"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    def refresh(self) -> None:
        """Read again which runs are asked for and which are done."""
        self._group = open_group(self.path)
        self._arrays: dict[str, Any] = {}
        self.requests = [Grid.parse(request) for request in self._group.attrs["requests"]]  # pyright: ignore
        self.environments: list[dict[str, Any]] = list(self._group.attrs["environments"])  # pyright: ignore
        self._table = Table.make(self.requests, self.parameters, self.tile)
        self._status, self.damaged = self._read_status()
        steps: Any = self._group.attrs["steps"]
        frames = self.array("step").shape[0]
        self.steps = np.full(frames, -1, np.int32) if steps is None else np.asarray(steps, np.int32)

    # What is there

    @property
    def num_units(self) -> int:
        """Units of all requests so far."""
        return self._table.size // self.tile

    @property
    def done(self) -> np.ndarray:
        """Which units are done, [units]."""
        mine = int(self.hash[:8], 16)
        return (self._status[:, 0] == 1) & (self._status[:, 2] == mine)

    def missing(self, grid: Grid | None = None) -> np.ndarray:
        """The units that a grid (of all requests, by default) needs and that are not done."""
        units = (
            np.arange(self.num_units)
            if grid is None
            else np.unique(self._table.rows(grid) // self.tile)
        )
        return units[~self.done[units]]

    def hull(self) -> Grid:
        """All axis values and seeds that were ever asked for."""
        if not self.requests:
            raise StoreError(f"{self.path} is empty: nothing was asked for yet")
        return Grid.hull(self.requests, self.parameters)

    def progress(self) -> tuple[int, int]:
        """How many runs were asked for, and how many are done."""
        filled = self._table.filled.reshape(-1, self.tile)
        return int(filled.sum()), int(filled[self.done].sum())

    def diverged(self) -> int:
        """How many of the runs that are done diverged."""
        units = np.flatnonzero(self.done)
        filled = self._table.filled.reshape(-1, self.tile)[units]
        return int((filled & (self.read("diverged_at", units) >= 0)).sum())

    def complete(self, grid: Grid) -> bool:
        """Whether every run of a grid is done."""
        rows = self._table.rows(grid)
        return bool((rows >= 0).all()) and bool(self.done[rows // self.tile].all())

    def counts(self, grid: Grid) -> np.ndarray:
        """How many runs of a grid every unit holds, [units]."""
        return np.bincount(self._table.rows(grid) // self.tile, minlength=self.num_units)

    def columns(self, unit: int) -> Columns:
        """The input of a unit's runs; the last run fills up the last unit of a request."""
        rows = slice(unit * self.tile, (unit + 1) * self.tile)
        return tuple(column[rows] for column in self._table.columns)

    def dataset(self, grid: Grid | None = None) -> xr.Dataset:
        """The labelled results of a grid (of all that was asked for, by default), read when they are looked at.

        Runs that are missing are NaN, and False in the coordinate `done`.
        """
        grid = self.hull() if grid is None else grid
        rows = self._table.rows(grid)
        done = np.append(np.repeat(self.done, self.tile), False)[rows].reshape(grid.shape)
        rows = np.where(done, rows.reshape(grid.shape), -1)
        variables = {name: lazily(self, name, rows) for name in self.variables}
        unknown = {
            "versions": dict.fromkeys(("causal_sgd", "jax"), "none"),
            "platform": "none",
            "device": "none",
        }
        environment = self.environments[0] if self.environments else unknown
        key, implementation = self.configuration["key"], self.configuration["key_implementation"]
        attributes = provenance(environment, self.tile, key, implementation)
        attributes |= {
            "configuration_hash": self.hash,
            "environments": max(len(self.environments), 1),
        }
        found = labelled(grid, variables, self.steps, attributes)
        return found.assign_coords(done=((*grid.axes, "seed"), done))

    def read(self, name: str, units: np.ndarray) -> np.ndarray:
        """A variable's values in some units, [len(units), tile, ...], each checked against its checksum.

        Raises:
            StoreError: for a chunk that is damaged or gone.
        """
        array = self.array(name)
        out = np.empty((len(units), self.tile, *array.shape[1:]), array.dtype)
        for place, count in _stretches(units):
            first = int(units[place])
            try:
                part = np.asarray(array[first * self.tile : (first + count) * self.tile])
            except (
                ValueError,
                OSError,
            ):  # a codec's checksum or a truncation; the loop below finds which
                part = None
            for index in range(count):
                fault = self._fault(
                    name,
                    first + index,
                    None if part is None else part[index * self.tile :][: self.tile],
                )
                if fault:
                    raise StoreError(
                        f"{self.path}: {fault}; recompute it with `causal-sgd repair {self.path}`"
                    )
            assert part is not None, "one of the chunks must have been at fault"
            out[place : place + count] = part.reshape(count, self.tile, *array.shape[1:])
        return out

    def faults(self) -> dict[int, str]:
        """Every damaged unit among those that count as done, or whose status is unreadable, and what is wrong with it."""
        found = dict(self.damaged)
        alien = (self._status[:, 0] == 1) & ~self.done
        found |= {
            int(unit): f"unit {unit} belongs to another configuration"
            for unit in np.flatnonzero(alien)
        }
        found |= {
            int(unit): f"unit {unit} has an unknown status {self._status[unit, 0]}"
            for unit in np.flatnonzero(self._status[:, 0] > 1)
        }
        for unit in np.flatnonzero(self.done):
            faults = filter(None, (self._fault(name, int(unit), None) for name in self.variables))
            if fault := next(faults, None):
                found[int(unit)] = fault
        return found

    # What is written

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes.

        Raises:
            StoreError: if another process does, or the store cannot be written.
        """
        lock = filelock.FileLock(self._beside("lock"), timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StoreError(
                f"{self.path} is being written by {self.writer() or 'another process'}; wait for it"
            ) from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written: {error.strerror or error}") from error
        try:
            who = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
            with contextlib.suppress(OSError):
                self._beside("writer").write_text(json.dumps(who))
            self.refresh()
            yield
        finally:
            with contextlib.suppress(OSError):
                self._beside("writer").unlink()
            lock.release()

    def writer(self) -> str | None:
        """Who writes now; None where nobody does."""
        with (
            contextlib.suppress(OSError, filelock.Timeout),
            filelock.FileLock(self._beside("lock"), timeout=0),
        ):
            return None  # whoever may have left its name was killed
        with contextlib.suppress(OSError, ValueError, KeyError):
            who = json.loads(self._beside("writer").read_text())
            return f"process {who['pid']} on {who['host']} since {who['since']}"
        return None

    def request(self, grid: Grid) -> None:
        """Ask for the runs of a grid; those that are new become new units."""
        if (self._table.rows(grid) < 0).any():
            self._put({"requests": [request.describe() for request in (*self.requests, grid)]})
            self.refresh()
        # A process may have been killed after a request and before its rows had room.
        size = self._table.size
        if any(
            self.array(name).shape[0] < size for name in (*self.variables, "seed", *self.parameters)
        ) or (self.array("status").shape[0] < self.num_units):
            self._make_room()

    def write(
        self,
        unit: int,
        values: Mapping[str, np.ndarray],
        steps: np.ndarray,
        environment: Mapping[str, Any],
    ) -> None:
        """Write a unit: its data, then its status."""
        try:
            self._write(unit, values, steps, environment)
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror or error}; what was done before is kept, and the same call "
                "goes on there"
            ) from error

    def _write(
        self,
        unit: int,
        values: Mapping[str, np.ndarray],
        steps: np.ndarray,
        environment: Mapping[str, Any],
    ) -> None:
        place = self._place_of(environment)
        if not np.array_equal(self.steps, steps):
            self.steps = np.asarray(steps)
            self._put({"steps": self.steps.tolist()})
            self.array("step")[:] = self.steps
        sums = []
        for name in self.variables:
            block = np.ascontiguousarray(values[name])
            self._put_chunk(name, unit, block)
            sums.append(zlib.crc32(block.data))
        row = np.array([1, place, int(self.hash[:8], 16), *sums], np.uint32)
        self._put_chunk("status", unit, row[None])
        self._status[unit] = row
        self.damaged.pop(unit, None)

    def repair(self) -> dict[int, str]:
        """Mark every damaged unit as missing, so that the same sweep computes it again; what was wrong with each."""
        with self.writing():
            self._make_room()  # and the coordinates, which follow from the requests
            faults = self.faults()
            for unit in faults:
                self.array("status")[unit] = 0
            self.refresh()
        return faults

    def check(self, header: Manifest, environment: Mapping[str, Any]) -> None:
        """Refuse a sweep that does not belong here; warn where it does but its last bits may not agree.

        Raises:
            StoreError: with every difference.
        """
        found = differences(self.configuration, header.configuration)
        alike = [
            known for known in self.environments if known["versions"] == environment["versions"]
        ]
        if not found and alike and all(known["program"] != header.program for known in alike):
            found = ["the cell computes something else", *changed_lines(self.source, header.source)]
        elif not found and not alike and self.environments and self.source != header.source:
            found = ["the source of the cell differs", *changed_lines(self.source, header.source)]
        if found:
            raise StoreError(
                f"{self.path} holds another configuration, so nothing was added: "
                + "; ".join(found)
                + ". "
                "Give this sweep a store of its own"
            )
        if self.environments:
            old, new = (
                {name: each[name] for name in SAME_BITS}
                for each in (self.environments[0], environment)
            )
            changed = differences(old, new)
            if changed:
                warnings.warn(
                    f"{self.path} was begun elsewhere, so results agree up to rounding only: "
                    + "; ".join(changed),
                    stacklevel=3,
                )

    # How

    def array(self, name: str) -> Any:
        """A zarr array of the store."""
        if name not in self._arrays:
            try:
                # A chunk of nothing but fill values is written too: one that is not there is one that was lost.
                self._arrays[name] = self._group[name].with_config({"write_empty_chunks": True})  # pyright: ignore
            except Exception as error:  # whatever zarr makes of a broken file
                raise StoreError(
                    f"{self.path}: the array {name} cannot be opened: {first_line(error)}"
                ) from error
        return self._arrays[name]

    def _put_chunk(self, name: str, unit: int, block: np.ndarray) -> None:
        put_chunk(self.array(name), unit, block, self.path / name)

    def _beside(self, kind: str) -> Path:
        """A hidden file beside the store: inside, zarr would wonder about it."""
        return self.path.with_name(f".{self.path.name}.{kind}")

    def _put(self, attributes: Mapping[str, Any]) -> None:
        self._group.attrs.update(attributes)

    def _make_room(self) -> None:
        for name in self.variables:
            array = self.array(name)
            array.resize((self._table.size, *array.shape[1:]))
        status = self.array("status")
        status.resize((self.num_units, status.shape[1]))
        seeds, *values = self._table.columns
        coordinates = {"seed": np.where(self._table.filled, seeds.astype(np.int64), -1)}
        coordinates |= dict(zip(sorted(self.parameters), values, strict=True))
        for name, column in coordinates.items():
            array = self.array(name)
            array.resize((self._table.size,))
            array[:] = column
        self.array("step")[:] = self.steps
        self.refresh()

    def _place_of(self, environment: Mapping[str, Any]) -> int:
        plain = dict(environment)
        if plain not in self.environments:
            self.environments.append(plain)
            self._put({"environments": self.environments})
        return self.environments.index(plain)

    def _read_status(self) -> tuple[np.ndarray, dict[int, str]]:
        """The rows of `status`; those that cannot be read are zero, and are named."""
        array = self.array("status")
        rows = np.zeros((self.num_units, array.shape[1]), np.uint32)
        there = min(self.num_units, array.shape[0])
        damaged = {}
        try:
            rows[:there] = array[:there]
        except (ValueError, OSError):
            for unit in range(there):
                try:
                    rows[unit] = array[unit]
                except (ValueError, OSError) as error:
                    damaged[unit] = f"the status of unit {unit} is damaged ({first_line(error)})"
        return rows, damaged

    def _fault(self, name: str, unit: int, block: np.ndarray | None) -> str | None:
        """What is wrong with a chunk (read here unless it is given); None for nothing."""
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


def open_results(path: str | Path) -> xr.Dataset:
    """The labelled results of a store, whether or not it is complete, read from disk when they are looked at.

    Args:
        path: of a store that `sweep(..., store=path)` or `causal-sgd ... --out PATH.zarr` made; a sweep may be writing.

    Returns:
        A dataset with all axis values and seeds ever asked for, as `sweep` returns it, with the coordinate `done`
        [*axes, seed]. Runs that are missing are NaN (and -1 in `diverged_at`).

    Raises:
        StoreError: if the path holds no store or one of a newer format; when values are read, for a damaged chunk.
    """
    return Store(path).dataset()


def _stretches(units: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places and lengths of stretches of units that follow one another."""
    breaks = np.flatnonzero(np.diff(units) != 1) + 1
    edges = [0, *breaks.tolist(), len(units)]
    yield from ((first, last - first) for first, last in itertools.pairwise(edges) if last > first)

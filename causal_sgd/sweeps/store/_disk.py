"""Results of a sweep on disk: a zarr group that is filled unit by unit and can grow.

A store is a table of runs. A *unit* is a fixed number of rows, the tile of the sweep. It is
computed and written whole, as one chunk of every variable; its row of `status` is written last,
with the checksums of these chunks. A unit without a valid status does not count, so a store
survives a kill at any moment. A run is identified by its seed and parameter values: a sweep with
more seeds, other axis values or another order computes only the missing rows and appends them as
new units. Nothing is ever unpickled, and jax is not imported: results open quickly, and anywhere.
`xarray.open_zarr` reads the table too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.sweeps.store._layout import (
    check_environment,
    lay_out,
    places,
    put_attributes,
    put_chunk,
)
from causal_sgd.sweeps.store._lock import locked, writer
from causal_sgd.sweeps.store._manifest import Manifest, StoreError, changed_lines, differences
from causal_sgd.sweeps.store._reader import StoreReader

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Store", "open_results"]

# Entries of an environment on which the last bits of results depend.
SAME_BITS = (
    "versions",
    "platform",
    "device",
    "machine",
    "cpu",
    "x64",
    "matmul_precision",
    "compiler",
)


class Store(StoreReader):
    """A store that can be written; the module states its guarantees."""

    @classmethod
    def create(
        cls, path: str | Path, manifest: Manifest, tile: int, *, by_seed: bool = False
    ) -> Store:
        """Create a store without runs, atomically.

        Args:
            path: where.
            manifest: of the sweep.
            tile: runs per unit.
            by_seed: whether the runs of a unit have one seed.

        Raises:
            StoreError: if the path is taken, cannot be written, or a name cannot be stored.
        """
        path = checks.path("path", path)
        _check_manifest(manifest)
        checks.integer("tile", tile)
        checks.flags(by_seed=by_seed)
        reserved = {"status", "seed", "step", *manifest.parameters}
        for name in manifest.variables:
            if name in reserved or "/" in name or name.startswith((".", "_")):
                raise StoreError(f"metric {name!r} cannot be stored under that name; rename it")
        draft = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}")
        try:
            draft.mkdir()
            lay_out(draft, manifest, tile, by_seed=by_seed)
            os.rename(draft, path)
        except OSError as error:
            if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
                # Another process created it first; or it is not a store, which raises here.
                return cls(path)
            raise StoreError(
                f"{path} must be a place that can be written: {error.strerror or error}"
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    def check(self, manifest: Manifest, environment: Environment) -> None:
        """Refuse a sweep that does not belong to this store.

        Raises:
            StoreError: with every difference.

        Warns:
            UserWarning: if the sweep belongs here but its last bits may differ.
        """
        _check_manifest(manifest)
        check_environment(environment)
        changes = differences(self.configuration, manifest.configuration)
        alike = [old for old in self.environments if old["versions"] == environment["versions"]]
        # Fingerprints of programs are comparable among equal versions only.
        if not changes and alike and all(old["program"] != manifest.program for old in alike):
            changes = ["the cell computes something else"]
            changes += changed_lines(self.source, manifest.source)
        elif not changes and not alike and self.environments and self.source != manifest.source:
            changes = ["the source of the cell differs"]
            changes += changed_lines(self.source, manifest.source)
        if changes:
            raise StoreError(
                f"{self.path} holds another configuration, so nothing was added: "
                f"{'; '.join(changes)}. Give this sweep a store of its own"
            )
        if self.environments:
            old, new = (
                {name: each.get(name) for name in SAME_BITS if name in self.environments[0]}
                for each in (self.environments[0], environment)
            )
            if changes := differences(old, new):
                warnings.warn(
                    f"{self.path} was begun elsewhere, so results agree up to rounding only: "
                    + "; ".join(changes),
                    stacklevel=3,
                )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock, and read what other processes wrote before.

        Raises:
            StoreError: if another process is writing, or the store cannot be written.
        """
        with locked(self.path), self._naming_store():
            self.refresh()
            yield

    def locate(self, files: Mapping[str, str]) -> None:
        """Record where the files of the configuration are now: field -> path."""
        checks.instance("files", files, Mapping, "a mapping of fields to paths")
        for name, file in files.items():
            checks.instance(f"files[{name!r}]", file, str, "a path, as text")
        if (current := places(self.path, files)) != self.files:
            with self._naming_store():
                self._put({"files": current})
                self.files = current

    def writer(self) -> str | None:
        """The process that is writing; None if there is none."""
        return writer(self.path)

    def request(self, grid: Grid) -> None:
        """Request the runs of a grid; new runs become new units.

        Raises:
            StoreError: if the store cannot be written.
        """
        with self._naming_store():
            self._request(grid)

    def _request(self, grid: Grid) -> None:
        if (self._table.rows(grid) < 0).any():
            self._put({"requests": [request.describe() for request in (*self.requests, grid)]})
            self.refresh()
        # A process may have been killed after the request and before the arrays grew.
        size = self._table.size
        names = (*self.variables, "seed", *self.parameters)
        if (
            any(self.array(name).shape[0] < size for name in names)
            or self.array("status").shape[0] < self.num_units
        ):
            self._grow()

    def write(
        self,
        unit: int,
        values: Mapping[str, np.ndarray],
        steps: np.ndarray,
        environment: Environment,
    ) -> None:
        """Write a unit: its data, then its status.

        Args:
            unit: its number.
            values: variable -> [tile, ...].
            steps: the recorded steps [F].
            environment: what computed it.

        Raises:
            ValueError: if they do not fit the store.
            StoreError: if the store cannot be written.
        """
        self._check_unit(unit)
        self._check_values(values, steps)
        check_environment(environment)
        with self._naming_store():
            self._write(unit, values, steps, environment)

    def _check_values(self, values: Mapping[str, np.ndarray], steps: np.ndarray) -> None:
        """Check that the results of a unit have the shapes and types of the arrays."""
        checks.instance("values", values, Mapping, "a mapping of variables to arrays")
        for name in self.variables:
            array, block = self.array(name), checks.concrete(values.get(name))
            shape = (self.tile, *array.shape[1:])
            if block is None or block.shape != shape or block.dtype != array.dtype:
                raise ValueError(
                    f"values must have {array.dtype} of shape {shape} for {name!r}, "
                    f"got {None if block is None else (block.dtype, block.shape)}"
                )
        given = checks.concrete(steps)
        shape = None if given is None else given.shape
        if shape != self.steps.shape:
            raise ValueError(f"steps must have shape {self.steps.shape}, got shape {shape}")

    @contextlib.contextmanager
    def _naming_store(self) -> Iterator[None]:
        """Raise StoreError in place of an OSError, such as that of a full disk."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror or error}; "
                "what was done before is kept, and the same call resumes"
            ) from error

    def _write(
        self,
        unit: int,
        values: Mapping[str, np.ndarray],
        steps: np.ndarray,
        environment: Environment,
    ) -> None:
        environment_index = self._index_of(environment)
        if not np.array_equal(self.steps, steps):
            self.steps = np.asarray(steps)
            self._put({"steps": self.steps.tolist()})
            self.array("step")[:] = self.steps
        sums = []
        for name in self.variables:
            block = np.ascontiguousarray(values[name])
            self._put_chunk(name, unit, block)
            sums.append(zlib.crc32(block.data))
        row = np.array([1, environment_index, int(self.hash[:8], 16), *sums], np.uint32)
        self._put_chunk("status", unit, row[None])
        self._status[unit] = row
        self.damaged.pop(unit, None)

    def repair(self) -> dict[int, str]:
        """Mark damaged units as missing, for the same sweep to recompute; return their faults."""
        with self.writing():
            self._grow()  # this also restores the coordinates, which follow from the requests
            faults = self.faults()
            for unit in faults:
                self.array("status")[unit] = 0
            self.refresh()
        return faults

    def _put_chunk(self, name: str, unit: int, block: np.ndarray) -> None:
        put_chunk(self.array(name), unit, block, self.path / name)

    def _put(self, attributes: Mapping[str, object]) -> None:
        put_attributes(self._group, attributes)

    def _grow(self) -> None:
        """Resize all arrays to the requests, and write the coordinates."""
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

    def _index_of(self, environment: Environment) -> int:
        if environment not in self.environments:
            self.environments.append(environment)
            self._put({"environments": self.environments})
        return self.environments.index(environment)


def _check_manifest(manifest: Manifest) -> None:
    checks.instance("manifest", manifest, Manifest, "a Manifest, as `Manifest.make` returns it")


def open_results(path: str | Path) -> xr.Dataset:
    """Open the labelled results of a store, complete or not; values are read on access.

    Args:
        path: of a store made by `sweep(..., store=path)` or `causal-sgd ... --out PATH.zarr`; a
            sweep may be writing to it.

    Returns:
        A dataset with all axis values and seeds that were requested, as `sweep` returns it, with
        the coordinate `done` [*axes, seed]. Missing runs are NaN (and -1 in `diverged_at`): as long
        as there are any, boolean metrics are 0. and 1., and whole numbers are floating-point.

    Raises:
        StoreError: if there is no store at the path or its format is newer; on access, if a chunk
            is damaged.
    """
    return Store(path).dataset()

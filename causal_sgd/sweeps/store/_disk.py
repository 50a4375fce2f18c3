"""Results of a sweep on disk: a zarr group that is filled unit by unit and can grow.

A store is a table of runs in *tiles*, which a sweep computes, and *units* of some tiles, which are
one chunk of every variable. The chunks of a unit are written first, then its record in a journal,
with the checksums of these chunks and of the input of its runs. A unit without a valid record does
not count, so a store survives a kill at any moment and vouches for what it returns. A run is
identified by its seed and parameter values: a sweep with more seeds, other axis values or another
order computes only the missing runs and appends them. Nothing is ever unpickled, and jax is not
imported: results open quickly, and anywhere. `xarray.open_zarr` reads the table too.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.sweeps.store._attributes import check_environment
from causal_sgd.sweeps.store._chunks import is_recoded
from causal_sgd.sweeps.store._files import files_at
from causal_sgd.sweeps.store._forms import unzipped
from causal_sgd.sweeps.store._header import (
    Header,
    first_header,
    places,
    put_header,
)
from causal_sgd.sweeps.store._journal import MOST_TILES
from causal_sgd.sweeps.store._journal_ledger import JournalLedger
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
        cls,
        path: str | Path,
        manifest: Manifest,
        tile: int,
        *,
        by_seed: bool = False,
        fsync: bool = False,
    ) -> Store:
        """Create a store without runs, atomically.

        Args:
            path: where.
            manifest: of the sweep.
            tile: runs per tile.
            by_seed: whether the runs of a tile have one seed.
            fsync: whether writes wait until the disk has them.

        Raises:
            StoreError: if the path is taken, cannot be written, or a name cannot be stored.
        """
        place = checks.place("path", path)
        _check_manifest(manifest)
        checks.integer("tile", tile)
        checks.flags(by_seed=by_seed, fsync=fsync)
        reserved = {"status", "seed", "step", *manifest.parameters}
        for name in manifest.variables:
            if name in reserved or "/" in name or name.startswith((".", "_")):
                raise StoreError(f"metric {name!r} cannot be stored under that name; rename it")
        files = files_at(place, fsync=fsync)
        try:
            with files.creating() as draft:
                header = first_header(place, manifest, tile, by_seed=by_seed)
                JournalLedger(draft, put_header(draft, header)).export()
        except FileExistsError:
            pass  # Another process created it first; or it is not a store, which raises here.
        except OSError as error:
            raise StoreError(
                f"{place} must be a place that can be written: {error.strerror or error}"
            ) from error
        return cls(place, fsync=fsync)

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
        with self._files.writing(), self._naming_store():
            self.refresh()
            self._ledger.check()
            for array in self._arrays.values() if self.environments else ():
                if is_recoded(self._files, array):
                    raise StoreError(
                        f"{self.path} cannot be written: the array {array.name} has another "
                        "layout than stores are written with; give this sweep a store of its own"
                    )
            yield

    @contextlib.contextmanager
    def mending(self) -> Iterator[None]:
        """Hold the store's lock, whatever is wrong with the store.

        Raises:
            StoreError: if another process is writing, or the store cannot be written.
        """
        with self._files.writing(), self._naming_store():
            self.refresh()
            yield

    def locate(self, files: Mapping[str, str]) -> None:
        """Record where the files of the configuration are now: field -> path."""
        checks.instance("files", files, Mapping, "a mapping of fields to paths")
        for name, file in files.items():
            checks.instance(f"files[{name!r}]", file, str, "a path, as text")
        if (current := places(self.path, files)) != self.files:
            with self._naming_store():
                self._change({"files": current})

    def writer(self) -> str | None:
        """The process that is writing; None if there is none."""
        return self._files.writer()

    def request(self, grid: Grid) -> None:
        """Request the runs of a grid; new runs become new tiles.

        Raises:
            StoreError: if the store cannot be written.
        """
        with self._naming_store():
            self._ledger.extend(grid)
            # Also if a process was killed between the request and this.
            self._ledger.export()

    def settle(self, tiles_per_unit: int) -> None:
        """Set the number of tiles in a unit of a store that has no results yet.

        Raises:
            ValueError: if the store has a size of units, or this is none.
            StoreError: if the store cannot be written.
        """
        checks.integer("tiles_per_unit", tiles_per_unit, maximum=MOST_TILES)
        if self.settled:
            raise ValueError(f"tiles_per_unit must stay {self.tiles_per_unit}")
        with self._naming_store():
            self._ledger.settle(tiles_per_unit)
            self._ledger.export()

    @property
    def settled(self) -> bool:
        """Whether the number of tiles in a unit is set."""
        return self.format_version < 3 or self._header.get("tiles_per_unit") is not None

    def write(
        self,
        unit: int,
        tiles: Mapping[int, Mapping[str, np.ndarray]],
        steps: np.ndarray,
        environments: Sequence[Environment],
    ) -> None:
        """Write a unit: its data, then its record.

        Args:
            unit: its number.
            tiles: place in the unit -> variable -> [tile, ...]. The runs of tiles that are absent
                here get new rows when they are requested again.
            steps: the recorded steps [F].
            environments: what computed the tiles.

        Raises:
            ValueError: if they do not fit the store.
            StoreError: if the store cannot be written, or is no longer where it was.
        """
        if not self.settled:
            self.settle(1)
        self._check_unit(unit)
        checks.instance("tiles", tiles, Mapping, "a mapping of places in the unit to their values")
        for place, values in tiles.items():
            checks.integer("tiles", place, minimum=0, maximum=self.tiles_per_unit - 1)
            self._check_values(values, steps)
        for environment in environments:
            check_environment(environment)
        with self._naming_store():
            self._files.check()
            self._write(unit, tiles, steps, environments)

    def _check_values(self, values: Mapping[str, np.ndarray], steps: np.ndarray) -> None:
        """Check that the results of a tile have the shapes and types of the arrays."""
        checks.instance("tiles", values, Mapping, "mappings of variables to arrays")
        for name, array in self._arrays.items():
            block = checks.concrete(values.get(name))
            shape = (self.tile, *array.inner)
            if block is None or block.shape != shape or block.dtype != array.kind:
                raise ValueError(
                    f"tiles must have {array.kind} of shape {shape} for {name!r}, "
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
            self._files.check()  # the folder may be gone
            raise StoreError(
                f"{self.path} cannot be written: {error.strerror or error}; "
                "what was done before is kept, and the same call resumes"
            ) from error

    def _write(
        self,
        unit: int,
        tiles: Mapping[int, Mapping[str, np.ndarray]],
        steps: np.ndarray,
        environments: Sequence[Environment],
    ) -> None:
        new = [each for each in environments if each not in self.environments]
        changes: dict[str, object] = {}
        if new:
            changes["environments"] = [*self.environments, *new]
        if not np.array_equal(self.steps, steps):
            changes["steps"] = np.asarray(steps).tolist()
        if changes:
            self._change(changes)
        contents: dict[str, bytes] = {}
        for name, array in self._arrays.items():
            block = np.full((array.rows, *array.inner), array.fill)
            for place, values in tiles.items():
                block[place * self.tile : (place + 1) * self.tile] = values[name]
            contents[array.chunk(unit)], _ = array.encode(block)
        self._files.put_each(contents.items())
        sums = [self._ledger.checksum(content) for content in contents.values()]
        indices = [self.environments.index(each) for each in environments]
        self._ledger.record(unit, sorted(tiles), indices, sums)

    def _change(self, changes: Mapping[str, object]) -> None:
        """Write the header with changes that concern no row."""
        header = cast("Header", {**self._header, **changes})
        self._ledger.header = put_header(self._files, header)

    def finish(self) -> None:
        """Write what other readers of the folder need, after the last unit."""
        with self._naming_store():
            self._files.check()
            self._ledger.export()


def _check_manifest(manifest: Manifest) -> None:
    checks.instance("manifest", manifest, Manifest, "a Manifest, as `Manifest.make` returns it")


def open_results(path: str | Path, *, unzip: bool = False) -> xr.Dataset:
    """Open the labelled results of a store, complete or not; values are read on access.

    Prefer it to `xr.open_zarr(path)`. That reads the arrays as they lie on disk: it checks no run,
    and it shows what the sweep wrote at its end. This one says which runs are done, finds damage,
    also reads a store that a sweep is writing, and gives the parameters their axes back.

    Args:
        path: path or URL of a store made by `sweep(..., store=path)` or
            `causal-sgd ... --out PATH.zarr`; a sweep may be writing to it.
        unzip: give every parameter of a `zipped` axis an axis of its own, with all its values. A
            store that `refine` filled becomes a grid; its points are otherwise one axis `point`.

    Returns:
        A dataset with all axis values and seeds that were requested, as `sweep` returns it, with
        the coordinate `done` [*axes, seed]. Missing runs are NaN (and -1 in `diverged_at`): as long
        as there are any, boolean metrics are 0. and 1., and whole numbers are floating-point.

    Raises:
        StoreError: if there is no store at the path or its format is newer; on access, if a chunk
            is damaged.
        ValueError: with `unzip`, if the memory does not hold the grid.
    """
    checks.flags(unzip=unzip)
    store = Store(path)
    return store.dataset(unzipped(store) if unzip else None)

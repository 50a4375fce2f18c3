"""Where the results of a sweep go: arrays in memory, or a store on disk."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._programs import Cell, Program
from causal_sgd.types import Key, Trace

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.sweeps.store import Manifest, Store

__all__ = ["Disk", "Memory", "Sink", "manifest_of"]


class Sink(Protocol):
    """A place for the results of a sweep, as units of one tile each. Entered, it is ready to be written to."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def complete(self) -> bool:
        """Whether nothing is missing; asked before it is entered."""
        ...

    def missing(self) -> list[int]:
        """The units that are to be computed."""
        ...

    def count(self, unit: int) -> int:
        """How many runs of a unit count: the last one is filled up."""
        ...

    def columns(self, unit: int) -> Columns:
        """The input of a unit."""
        ...

    def write(self, unit: int, trace: Trace, environment: Mapping[str, Any]) -> None:
        """Keep what a unit gave."""
        ...

    def dataset(self) -> xr.Dataset:
        """All results, with the coordinate `done` where some are missing."""
        ...


class Memory:
    """Arrays of the right size from the beginning."""

    def __init__(
        self, grid: Grid, kernel: Program, tile: int, environment: Mapping[str, Any]
    ) -> None:
        """Make room."""
        self._grid, self._kernel, self._tile, self._environment = grid, kernel, tile, environment
        self._results = jax.tree.map(
            lambda leaf: np.empty((grid.size, *leaf.shape), leaf.dtype), kernel.shapes
        )
        self._done = np.zeros(-(-grid.size // tile), bool)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def complete(self) -> bool:
        """Whether all was written."""
        return bool(self._done.all())

    def missing(self) -> list[int]:
        """The units that were not written."""
        return np.flatnonzero(~self._done).tolist()

    def count(self, unit: int) -> int:
        """All but in the last unit."""
        return min(self._tile, self._grid.size - unit * self._tile)

    def columns(self, unit: int) -> Columns:
        """Those of the grid, in order."""
        flat = np.arange(unit * self._tile, (unit + 1) * self._tile)
        last = self._grid.size - 1  # the last run fills up the last unit
        return self._grid.runs(np.minimum(flat, last), jnp.result_type(float))

    def write(self, unit: int, trace: Trace, environment: Mapping[str, Any]) -> None:
        """Copy what counts."""
        first, count = unit * self._tile, self.count(unit)
        for target, source in zip(
            jax.tree.leaves(self._results), jax.tree.leaves(trace), strict=True
        ):
            target[first : first + count] = source[:count]
        self._done[unit] = True
        self._environment = environment

    def dataset(self) -> xr.Dataset:
        """The arrays, labelled."""
        from causal_sgd.sweeps._datasets import labelled, provenance

        grid, done = self._grid, np.repeat(self._done, self._tile)[: self._grid.size]
        if not done.all():
            for leaf in jax.tree.leaves(self._results):
                leaf[~done] = np.nan if leaf.dtype.kind == "f" else -1
        values = {**self._results.metrics, "diverged_at": self._results.diverged_at}
        shaped = {
            name: array.reshape(*grid.shape, *array.shape[1:]) for name, array in values.items()
        }
        steps = self._results.step[np.argmax(done)]
        attributes = provenance(self._environment, self._tile, **_key_names(self._kernel.root))
        found = labelled(grid, shaped, steps, attributes)
        return (
            found
            if done.all()
            else found.assign_coords(done=((*grid.axes, "seed"), done.reshape(grid.shape)))
        )


class Disk:
    """A store, which is locked only if something is to be computed."""

    def __init__(
        self,
        path: Path,
        opened: Store | None,
        header: Manifest,
        tile: int,
        grid: Grid,
        environment: Mapping[str, Any],
    ) -> None:
        """Take the store that was opened, if it is of this sweep, or make one where there is none."""
        from causal_sgd.sweeps.store import Store

        self._store = Store.create(path, header, tile) if opened is None else opened
        self._store.check(header, environment)
        self._grid = grid
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> None:
        with contextlib.ExitStack() as lock:
            if not self._store.complete(self._grid):
                lock.enter_context(self._store.writing())
                self._store.request(self._grid)
            self._counts = self._store.counts(self._grid)
            self._lock = lock.pop_all()

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def complete(self) -> bool:
        """Whether the store has it all."""
        return self._store.complete(self._grid)

    def missing(self) -> list[int]:
        """What its status says."""
        return self._store.missing(self._grid).tolist()

    def count(self, unit: int) -> int:
        """As the store laid them out."""
        return int(self._counts[unit])

    def columns(self, unit: int) -> Columns:
        """As the store laid them out."""
        return self._store.columns(unit)

    def write(self, unit: int, trace: Trace, environment: Mapping[str, Any]) -> None:
        """With checksums, and the status last."""
        values = {**trace.metrics, "diverged_at": trace.diverged_at}
        arrays = {name: np.asarray(block) for name, block in values.items()}
        self._store.write(unit, arrays, np.asarray(trace.step[0]), environment)

    def dataset(self) -> xr.Dataset:
        """Read when it is looked at."""
        found = self._store.dataset(self._grid)
        return found.drop_vars("done") if found.done.all() else found


def manifest_of(
    cell: Cell,
    grid: Grid,
    kernel: Program,
    kinds: Sequence[np.dtype],
    config: Mapping[str, Any] | None,
) -> Manifest:
    """What a store of this sweep is made for."""
    from causal_sgd.sweeps.store import Manifest

    experiment = getattr(cell, "configuration", None)
    described: dict[str, Any] = {}
    if experiment is not None:
        # What is an axis is no part of the configuration.
        described["experiment"] = {
            name: value for name, value in experiment.items() if name not in grid.names
        }
    if config is not None:
        described["config"] = dict(config)
        try:
            json.dumps(described["config"], allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"config must hold plain values that JSON can hold, got {config!r}: {error}"
            ) from None
    source = None
    if not described:
        described["cell"] = getattr(cell, "__qualname__", repr(type(cell)))
        with contextlib.suppress(OSError, TypeError):
            source = inspect.getsource(cell)
    parameters = {name: str(kind) for name, kind in zip(grid.names, kinds, strict=True)}
    shapes = {**kernel.shapes.metrics, "diverged_at": kernel.shapes.diverged_at}
    variables = {name: (str(leaf.dtype), tuple(leaf.shape)) for name, leaf in shapes.items()}
    configuration = {
        **described,
        "parameters": parameters,
        "metrics": {name: [kind, list(shape)] for name, (kind, shape) in variables.items()},
        **_key_names(kernel.root),
    }
    return Manifest(
        configuration,
        parameters,
        variables,
        kernel.shapes.step.shape[0],
        kernel.fingerprint,
        source,
    )


def _key_names(root: Key) -> dict[str, str]:
    return {
        "key": " ".join(str(word) for word in np.asarray(jax.random.key_data(root)).ravel()),
        "key_implementation": str(jax.random.key_impl(root)),
    }

"""The results of a sweep while it runs: in memory here, on disk in `store`."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._keys import encode_key
from causal_sgd.sweeps._programs import Program
from causal_sgd.sweeps._provenance import Environment, provenance
from causal_sgd.sweeps._units import Units
from causal_sgd.types import Trace

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["MemoryResults", "Results"]


class Results(Protocol):
    """The results of a sweep, in units of one tile. Enter the context before writing."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def complete(self) -> bool:
        """Whether nothing is missing; may be called before the context is entered."""
        ...

    def missing(self) -> list[int]:
        """The units still to be computed."""
        ...

    def done(self) -> int:
        """The number of runs with results."""
        ...

    def count(self, unit: int) -> int:
        """The number of runs in a unit that belong to the sweep; the others are padding."""
        ...

    def columns(self, unit: int) -> Columns:
        """The input of a unit."""
        ...

    def write(self, unit: int, trace: Trace, environment: Environment) -> None:
        """Store the trace of a unit."""
        ...

    def dataset(self) -> xr.Dataset:
        """All results, with the coordinate `done` if some are missing."""
        ...


class MemoryResults:
    """Results in arrays that are allocated at once."""

    def __init__(self, units: Units, program: Program, environment: Environment) -> None:
        """Allocate the arrays."""
        grid = units.grid
        self._units, self._program, self._environment = units, program, environment
        self._results = jax.tree.map(
            lambda leaf: np.empty((grid.size, *leaf.shape), leaf.dtype), program.shapes
        )
        self._done = np.zeros(units.number, bool)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def complete(self) -> bool:
        """Whether all units are written."""
        return bool(self._done.all())

    def missing(self) -> list[int]:
        """The units that are not written."""
        return np.flatnonzero(~self._done).tolist()

    def done(self) -> int:
        """The number of runs in the units that are written."""
        return self._units.grid.size - sum(map(self.count, self.missing()))

    def count(self, unit: int) -> int:
        """The tile, or less in the last unit of all runs or of a seed."""
        return len(self._units.runs(unit))

    def columns(self, unit: int) -> Columns:
        """The runs of a unit; copies of the last one pad the end."""
        return self._units.columns(unit, jnp.result_type(float))

    def write(self, unit: int, trace: Trace, environment: Environment) -> None:
        """Copy the trace of a unit without its padding."""
        runs = self._units.runs(unit)
        for target, source in zip(
            jax.tree.leaves(self._results), jax.tree.leaves(trace), strict=True
        ):
            target[runs] = source[: len(runs)]
        self._done[unit] = True
        self._environment = environment

    def dataset(self) -> xr.Dataset:
        """The arrays, labelled; NaN where runs are missing."""
        from causal_sgd.sweeps._datasets import labelled, with_nan

        grid, done = self._units.grid, self._units.spread(self._done)
        metrics, diverged_at = self._results.metrics, self._results.diverged_at
        if not done.all():
            metrics = {name: with_nan(name, values) for name, values in metrics.items()}
            for values in metrics.values():
                values[~done] = np.nan
            diverged_at = np.where(done, diverged_at, -1)
        values = {**metrics, "diverged_at": diverged_at}
        shaped = {
            name: array.reshape(*grid.shape, *array.shape[1:]) for name, array in values.items()
        }
        steps = self._results.step[np.argmax(done)]
        key = encode_key(self._program.root)
        attributes = provenance(self._environment, self._units.tile, **key)
        dataset = labelled(grid, shaped, steps, attributes)
        if done.all():
            return dataset
        return dataset.assign_coords(done=((*grid.axes, "seed"), done.reshape(grid.shape)))

"""What is reported of the tiles of a sweep that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps._scheduler import Failure

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SweepError", "message_of"]


class SweepError(RuntimeError):
    """Some runs of a sweep failed; all others are in `dataset`, and in the store if there is one.

    Attributes:
        failures: the failed units with their errors.
        dataset: the results, with the coordinate `done` False for missing runs.
    """

    def __init__(self, message: str, failures: Sequence[Failure], dataset: xr.Dataset) -> None:
        """Attach the results so far."""
        super().__init__(message)
        self.failures, self.dataset = failures, dataset

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle and copy with all arguments; by default, an exception keeps the message alone."""
        return type(self), (str(self), self.failures, self.dataset), self.__dict__


def message_of(
    failures: Sequence[Failure],
    columns: Callable[[int], Columns],
    names: Sequence[str],
    others: str,
) -> str:
    """The failed runs with their errors, one unit per line."""
    lines = []
    for unit, error in failures:
        seeds, *values = columns(unit)
        runs = ", ".join(
            f"{name} {_range(column)}"
            for name, column in (("seed", seeds), *zip(names, values, strict=True))
        )
        lines.append(f"  {runs}: {_short(error)}")
    return "\n".join([f"{len(failures)} of the sweep's tiles failed; {others}", *lines])


def _short(error: Exception) -> str:
    """The first and the last line of an error, without a traceback in between."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip() if len(lines) == 1 else f"{lines[0].strip()} ... {lines[-1].strip()}"


def _range(column: np.ndarray) -> str:
    low, high = column.min(), column.max()
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"

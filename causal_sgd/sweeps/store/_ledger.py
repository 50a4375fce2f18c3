"""The ledger of a store: which run is in which row, and which units are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps.store._arrays import Array
from causal_sgd.sweeps.store._header import Header
from causal_sgd.sweeps.store._rows import Table

__all__ = ["Ledger"]


class Ledger(Protocol):
    """Which run is in which row of a store, and which units are done."""

    header: Header
    arrays: dict[str, Array]  # of the variables
    table: Table  # rows of tiles that a closed unit lacks hold no run
    asked: np.ndarray  # whether a run was put into a row, [rows]
    done: np.ndarray  # whether a tile is done, [tiles]
    closed: np.ndarray  # whether a unit has data, [units]
    faults: dict[int | str, str]  # unit or file -> what is wrong

    @property
    def tiles_per_unit(self) -> int:
        """Tiles in a unit; 1 as long as that is open."""
        ...

    def load(self, header: Header) -> None:
        """Read it from the files that belong to a header."""
        ...

    def grew(self) -> bool:
        """Whether another process may have added records since they were read."""
        ...

    def is_odd(self) -> bool:
        """Whether the ledger does not fit the header, or itself."""
        ...

    def check(self) -> None:
        """Check that new data may follow.

        Raises:
            StoreError: if the header is older than the data, or a file of the ledger is gone.
        """
        ...

    def export_faults(self) -> dict[int | str, str]:
        """File -> its damage, of those that `export` wrote for other readers."""
        ...

    def checksum(self, content: bytes) -> int:
        """The checksum of the content of a chunk's file that is to be recorded."""
        ...

    def is_recorded(self, unit: int, variable: int, block: np.ndarray) -> bool:
        """Whether the values of a chunk have the checksum that was recorded."""
        ...

    def expected(self, unit: int, variable: int) -> int | None:
        """The CRC-32C of a chunk; None if another checksum was recorded."""
        ...

    def extend(self, grid: Grid) -> bool:
        """Add a request, with rows for its new runs; return whether there was anything to add."""
        ...

    def settle(self, tiles_per_unit: int) -> None:
        """Set the size of the units of a store without data."""
        ...

    def record(
        self, unit: int, tiles: Sequence[int], environments: Sequence[int], sums: Sequence[int]
    ) -> None:
        """Mark a unit as done, after its data were written."""
        ...

    def void(self, units: Sequence[int]) -> None:
        """Mark units as missing."""
        ...

    def export(self) -> None:
        """Write what other readers need: the coordinates, the status and the arrays' headers."""
        ...

"""The ledger of stores of formats 1 and 2, which are read and grown as they are.

A unit has one tile. Its row of `status` is a chunk of its own: 1, the environment, the beginning of
the configuration's hash, and the CRC-32 of the data of each variable. Which run is in which row
follows from the requests. Nothing records whether these were the requests when it was written.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import numpy as np

from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps.store._arrays import Array, DamagedChunk
from causal_sgd.sweeps.store._exported import coordinates
from causal_sgd.sweeps.store._files import Files
from causal_sgd.sweeps.store._header import Header, put_header, variables
from causal_sgd.sweeps.store._manifest import StoreError
from causal_sgd.sweeps.store._rows import Table

__all__ = ["OldLedger"]

FIELDS = 3  # of `status` before the checksums
DONE = 1
COORDINATE_ROWS = 2**16


class OldLedger:
    """The ledger of formats 1 and 2."""

    tiles_per_unit = 1

    def __init__(self, files: Files, header: Header) -> None:
        """Read the ledger."""
        self._files = files
        self.load(header)

    def load(self, header: Header) -> None:
        """Read it from the files that belong to a header."""
        self.header = header
        self.faults: dict[int | str, str] = {}
        self.arrays = variables(header, header["tile"], "/")
        self._names = list(self.arrays)
        requests = [Grid.parse(request) for request in header["requests"]]
        by_seed = header.get("by_seed", False)
        self.table = Table.make(requests, header["parameters"], header["tile"], by_seed)
        self.asked = self.table.filled
        self._status = Array(
            "status",
            np.dtype(np.uint32),
            (FIELDS + len(self._names),),
            1,
            ("unit", "field"),
            "/",
        )
        self._rows = np.zeros((self.table.size // header["tile"], *self._status.inner), np.uint32)
        names = map(self._status.chunk, range(len(self._rows)))
        for unit, content in enumerate(self._files.get_each(names)):
            if content is None:
                continue
            try:
                self._rows[unit] = self._status.decode(content)[0]
            except DamagedChunk as error:
                self.faults[unit] = f"the status of unit {unit} is damaged ({error})"
        self.closed = (self._rows[:, 0] == DONE) & (self._rows[:, 2] == self._own)
        self.done = self.closed
        for unit in np.flatnonzero((self._rows[:, 0] == DONE) & ~self.closed):
            self.faults[int(unit)] = f"unit {unit} belongs to another configuration"
        for unit in np.flatnonzero(self._rows[:, 0] > DONE):
            self.faults[int(unit)] = f"unit {unit} has an unknown status {self._rows[unit, 0]}"

    def environment(self, unit: int) -> int:
        """The index of what computed a unit."""
        return int(self._rows[unit, 1])

    def old_files(self) -> list[str]:
        """The files that format 3 has no use for: the status of each unit, and the coordinates."""
        names = list(map(self._status.chunk, range(len(self._rows))))
        for array, values in self._coordinates():
            names += map(array.chunk, range(-(-len(values) // array.rows)))
        return names

    @property
    def _own(self) -> int:
        return int(self.header["configuration_hash"][:8], 16)

    def expected(self, unit: int, variable: int) -> None:
        """None: CRC-32 is recorded."""

    def grew(self) -> bool:
        """Whether another process may have written since: there is no quick way to know."""
        return True

    def is_odd(self) -> bool:
        """Whether something is damaged."""
        return bool(self.faults)

    def check(self) -> None:
        """Check that the status is there."""
        if self.header["requests"] and not self._files.size(self._status.header):
            raise StoreError(f"{self._files} has lost its array status; restore it")

    def export_faults(self) -> dict[int | str, str]:
        """File -> its damage, of the coordinates."""
        faults: dict[int | str, str] = {}
        for array, values in self._coordinates():
            if fault := array.fault(self._files, values):
                faults[array.name] = fault
        return faults

    def _coordinates(self) -> list[tuple[Array, np.ndarray]]:
        tile = self.header["tile"]
        rows = max(COORDINATE_ROWS // tile, 1) * tile
        return coordinates(self.header, self.table.columns, self.asked, rows, separator="/")

    def checksum(self, content: bytes) -> int:
        """The CRC-32 of the values."""
        return zlib.crc32(memoryview(content)[:-4])

    def is_recorded(self, unit: int, variable: int, block: np.ndarray) -> bool:
        """Whether the values of a chunk have the CRC-32 that was recorded."""
        data = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        return zlib.crc32(data.tobytes()) == self._rows[unit, FIELDS + variable]

    def extend(self, grid: Grid) -> bool:
        """Add a request, from which rows for its new runs follow."""
        if not (self.table.rows(grid) < 0).any():
            return False
        requests = [*self.header["requests"], grid.describe()]
        self.load(put_header(self._files, {**self.header, "requests": requests}))
        return True

    def settle(self, tiles_per_unit: int) -> None:
        """Refuse: units of these formats have one tile."""
        raise ValueError(f"tiles_per_unit must be 1 in this format, got {tiles_per_unit}")

    def record(
        self, unit: int, tiles: Sequence[int], environments: Sequence[int], sums: Sequence[int]
    ) -> None:
        """Write the row of a unit whose data were written."""
        row = np.array([DONE, environments[0], self._own, *sums], np.uint32)
        self._put(unit, row)

    def void(self, units: Sequence[int]) -> None:
        """Write rows that mark units as missing."""
        for unit in units:
            self._put(unit, np.zeros(self._rows.shape[1], np.uint32))

    def _put(self, unit: int, row: np.ndarray) -> None:
        self._files.put(self._status.chunk(unit), self._status.encode(row[None])[0])
        self._rows[unit] = row
        self.closed[unit] = row[0] == DONE
        self.faults.pop(unit, None)

    def export(self) -> None:
        """Let the arrays grow, and write the coordinates where they changed."""
        for array in self.arrays.values():
            self._resize(array, self.table.size)
        self._resize(self._status, len(self._rows))
        for array, values in self._coordinates():
            array.put_chunks(self._files, values)
            self._resize(array, len(values))

    def _resize(self, array: Array, length: int) -> None:
        """Change the length in the header of an array that zarr made."""
        try:
            header = json.loads(self._files.get(array.header))
        except (FileNotFoundError, ValueError):
            array.put_header(self._files, length)
            return
        if header["shape"][0] != length:
            header["shape"][0] = length
            self._files.put(array.header, json.dumps(header, indent=2).encode())

"""Which run is in which row, and which units are done: the ledger of a store of format 3.

`status/inputs` holds the input of every row as packed bytes: the seed, the parameters by sorted
names, and 1 for a run or 0 for padding. The header vouches for it as a whole, and every record of
`status/journal` for the rows of its unit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps.store._arrays import Array, DamagedChunk, checksum
from causal_sgd.sweeps.store._chunks import is_recoded
from causal_sgd.sweeps.store._exported import coordinates, status_array
from causal_sgd.sweeps.store._files import Files
from causal_sgd.sweeps.store._header import COPY, Header, copy_fault, put_header, variables
from causal_sgd.sweeps.store._journal import (
    DONE,
    VOID,
    Record,
    Status,
    decode_records,
)
from causal_sgd.sweeps.store._manifest import StoreError
from causal_sgd.sweeps.store._rows import Table, merged

__all__ = ["INPUTS", "JOURNAL", "JournalLedger", "packed_rows"]

JOURNAL, INPUTS = "status/journal", "status/inputs"
IS_RUN = "is run"  # no name of a parameter


class JournalLedger:
    """The ledger of format 3."""

    def __init__(self, files: Files, header: Header, *, lenient: bool = False) -> None:
        """Read the ledger.

        Args:
            files: of the store.
            header: of the store.
            lenient: whether the journal may be missing, because the store is to be repaired.

        Raises:
            StoreError: if there is no journal although there were results.
        """
        self._files, self._lenient = files, lenient
        self.load(header)

    def load(self, header: Header) -> None:
        """Read it from the files that belong to a header."""
        self.header = header
        self.faults: dict[int | str, str] = {}
        rows = self.tiles_per_unit * header["tile"]
        self.arrays = variables(header, rows, header.get("chunk_separator", "."))
        self._names = list(self.arrays)
        self._exported = 0  # rows in the arrays for other readers
        self._kind = _packed(header["parameters"])
        self._load_inputs()
        self._load_journal()

    @property
    def tiles_per_unit(self) -> int:
        """Tiles in a unit; 1 as long as that is open."""
        return self.header.get("tiles_per_unit") or 1

    def _load_inputs(self) -> None:
        content = self._files.read_log(INPUTS)
        size = self.header.get("rows", 0) * self._kind.itemsize
        self.beyond = len(content) > size
        content = content[:size]
        if len(content) < size or checksum(content) != self.header.get("inputs_crc32c"):
            self.faults[INPUTS] = f"{INPUTS} is damaged: it does not match the header"
            content = content.ljust(size, b"\0")
        self._inputs = content
        self.table = _unpacked(content, self._kind)
        self.asked = self.table.filled

    def _load_journal(self) -> None:
        content = self._files.read_log(JOURNAL)
        is_gone = not content and next(self._files.get_each([JOURNAL])) is None
        if is_gone and self.header["environments"]:
            self.faults[JOURNAL] = f"{JOURNAL} is gone"
            if not self._lenient:
                raise StoreError(
                    f"{self._files}: {JOURNAL} is gone, so nothing vouches for the results; mend "
                    f"it with `causal-sgd repair {self._files}`"
                )
        records, damaged, self._journal_size = decode_records(content, len(self._names))
        for number in damaged:
            self.faults[f"{JOURNAL}, record {number}"] = f"record {number} of {JOURNAL} is damaged"
        units = len(self._inputs) // self._kind.itemsize // (self.tiles_per_unit * self._tile)
        self.orphans = np.unique(records[records[:, 0] >= units, 0])
        self.status = Status.of_records(records, units, len(self._names))
        for unit in np.flatnonzero(self.status.state > DONE):
            state = self.status.state[unit]
            self.faults[int(unit)] = f"unit {unit} has an unknown status {state}"
        foreign = (self.status.state == DONE) & (self.status.configuration != self._own)
        for unit in np.flatnonzero(foreign):
            self.faults[int(unit)] = f"unit {unit} belongs to another configuration"
        done = (self.status.state == DONE) & ~foreign
        for unit in np.flatnonzero(done):
            if self._inputs_sum(int(unit)) != self.status.inputs[unit]:
                done[unit] = False
                self.faults[int(unit)] = (
                    f"unit {unit} holds other runs than those of its rows in {INPUTS}"
                )
        self.closed = done
        self.done = (self.status.holds(self.tiles_per_unit) & done[:, None]).ravel()
        self._leave_out()

    def _leave_out(self) -> None:
        """Count rows as empty if their unit was written without their tile."""
        lacking = np.repeat(self.closed, self.tiles_per_unit) & ~self.done
        live = self.asked & ~np.repeat(lacking, self._tile)
        if not np.array_equal(live, self.table.filled):
            self.table = Table(self.table.columns, live)

    @property
    def _tile(self) -> int:
        return self.header["tile"]

    @property
    def _own(self) -> int:
        return int(self.header["configuration_hash"][:8], 16)

    def _inputs_sum(self, unit: int) -> int:
        size = self.tiles_per_unit * self._tile * self._kind.itemsize
        return checksum(self._inputs[unit * size : (unit + 1) * size])

    def grew(self) -> bool:
        """Whether another process added records since they were read."""
        return self._files.size(JOURNAL) != self._journal_size

    def is_odd(self) -> bool:
        """Whether something is damaged or older than the rest."""
        return bool(self.faults) or len(self.orphans) > 0

    def check(self) -> None:
        """Check that new data may follow those that are there."""
        if len(self.orphans):
            raise StoreError(
                f"{self._files} has data of {len(self.orphans)} units that its zarr.json, an older "
                f"one, does not know; recover them with `causal-sgd repair {self._files}`"
            )
        if INPUTS in self.faults:
            raise StoreError(
                f"{self._files}: {self.faults[INPUTS]}; mend it with `causal-sgd repair "
                f"{self._files}`"
            )

    def export_faults(self) -> dict[int | str, str]:
        """File -> its damage, of the arrays that other readers read."""
        faults: dict[int | str, str] = {}
        if len(self.orphans):
            faults["zarr.json"] = (
                f"zarr.json is older than the data: it does not know {len(self.orphans)} units"
            )
        if fault := copy_fault(self._files):
            faults[COPY] = fault
        if len(lost := self.lost_records()):
            faults[JOURNAL] = f"{JOURNAL} has lost the records of {len(lost)} units"
        # In a bucket, the header of a new store is written before its arrays.
        if not self.header["requests"]:
            return faults
        status = status_array(self._names)
        if status.values(self._files, status.length(self._files) or 0) is None:
            faults[status.name] = "a chunk of the exported status is damaged or gone"
        # Headers of variables follow once the size of the units is settled.
        for array in (*self.arrays.values(), status) if self.header["environments"] else ():
            fault = array.header_fault(self._files)
            if fault and not self._is_recoded(array):
                faults[array.header] = fault
        if INPUTS in self.faults:
            return faults
        for array, values in coordinates(self.header, self.table.columns, self.asked):
            fault = array.fault(self._files, values) or array.header_fault(self._files)
            # The steps are exported after the first unit.
            unknown = array.name == "step" and not array.fault(self._files, values * 0 - 1)
            if fault and not unknown:
                faults[array.name] = fault
        return faults

    def lost_records(self) -> np.ndarray:
        """The records [units, fields] that the exported status has and the journal lacks.

        The status is exported at the end of a sweep, so that it may lack what the journal has.
        """
        status = status_array(self._names)
        exported = min(status.length(self._files) or 0, len(self.closed))
        records = status.values(self._files, exported)
        if records is None:
            return np.zeros((0, *status.inner), np.uint32)
        unknown = ~self.status.records[:exported, 1:].any(axis=1)
        return records[unknown & (records[:, 1] == DONE)]

    def checksum(self, content: bytes) -> int:
        """The CRC-32C of the values, with which the file ends."""
        return int.from_bytes(content[-4:], "little")

    def is_recorded(self, unit: int, variable: int, block: np.ndarray) -> bool:
        """Whether the values of a chunk have the CRC-32C that was recorded."""
        array = self.arrays[self._names[variable]]
        return array.encode(block)[1] == self.expected(unit, variable)

    def expected(self, unit: int, variable: int) -> int | None:
        """The CRC-32C of a chunk."""
        return int(self.status.sums[unit, variable])

    def extend(self, grid: Grid) -> bool:
        """Append rows for the new runs of a grid, in whole units, then the request."""
        kinds = self.header["parameters"]
        table = self.table.extended(grid, self._tile, by_seed=self.header.get("by_seed", False))
        added = table.size - self.table.size
        if not added:
            return False
        columns = tuple(column[-added:] for column in table.columns)
        requests = merged([Grid.parse(each) for each in self.header["requests"]], grid, kinds)
        changes = {"requests": [request.describe() for request in requests]}
        self._append(columns, table.filled[-added:], self.tiles_per_unit, changes)
        return True

    def settle(self, tiles_per_unit: int) -> None:
        """Set the size of the units; padding completes the last unit so far."""
        columns = tuple(column[:0] for column in self.table.columns)
        changes = {"tiles_per_unit": tiles_per_unit}
        if not self._files.size(JOURNAL):
            self._files.put_log(JOURNAL, b"")  # from now on, a store without one has lost it
        self._append(columns, np.zeros(0, bool), tiles_per_unit, changes)

    def _append(
        self,
        columns: Columns,
        filled: np.ndarray,
        tiles_per_unit: int,
        changes: Mapping[str, object],
    ) -> None:
        """Append rows and padding to the inputs, then let the header count them."""
        before = len(self._inputs) // self._kind.itemsize
        rows = -(before + len(filled)) % (tiles_per_unit * self._tile) + len(filled)
        content = packed_rows(self.header, columns, filled, rows)
        self._files.append(INPUTS, len(self._inputs), content)
        settled = tiles_per_unit != self.tiles_per_unit
        header = {
            **self.header,
            **changes,
            "rows": before + rows,
            "inputs_crc32c": checksum(content, self.header.get("inputs_crc32c", 0)),
        }
        self.header = put_header(self._files, cast(Header, header))
        if settled:
            self.load(self.header)
            return
        self._inputs += content
        added = _unpacked(content, self._kind)
        self.asked = np.concatenate([self.asked, added.filled])
        self.table = self.table.joined(added.columns, added.filled)
        new = np.zeros(rows // (tiles_per_unit * self._tile), bool)
        self.status = self.status.extended(len(new))
        self.closed = np.concatenate([self.closed, new])
        self.done = np.concatenate([self.done, np.repeat(new, tiles_per_unit)])

    def record(
        self, unit: int, tiles: Sequence[int], environments: Sequence[int], sums: Sequence[int]
    ) -> None:
        """Append the record of a unit whose data were written."""
        record = Record(unit, DONE, environments, self._own, tiles, self._inputs_sum(unit), sums)
        self._put(record)
        self.faults.pop(unit, None)

    def void(self, units: Sequence[int]) -> None:
        """Append records that mark units as missing."""
        for unit in units:
            self._put(Record(unit, VOID, (), self._own, (), 0, [0] * len(self._names)))
            self.faults.pop(unit, None)

    def _put(self, record: Record) -> None:
        content = record.encode()
        self._files.append(JOURNAL, self._journal_size, content)
        self._journal_size += len(content)
        unit, per_unit = record.unit, self.tiles_per_unit
        self.status.records[unit] = np.frombuffer(content, "<u4")[:-1]
        self.closed[unit] = record.state == DONE
        tiles = np.arange(unit * per_unit, (unit + 1) * per_unit)
        self.done[tiles] = np.isin(tiles - tiles[0], record.tiles)
        asked = self.asked.reshape(-1, self._tile)[tiles].any(axis=1)
        if (asked & ~self.done[tiles]).any():
            self._leave_out()

    def _is_recoded(self, array: Array) -> bool:
        """Whether zarr wrote an array anew, in another layout, so that its header must stay."""
        units = np.flatnonzero(self.closed).tolist()
        if not units or not is_recoded(self._files, array):
            return False
        for content in self._files.get_each(map(array.chunk, units)):
            with contextlib.suppress(DamagedChunk):
                array.decode(content or b"")
                return False  # a chunk is in the usual layout, so the header is wrong
        return True

    def export(self) -> None:
        """Write the coordinates, the status and the arrays' headers, where they changed."""
        for array, values in coordinates(self.header, self.table.columns, self.asked):
            array.put_all(self._files, values, known=self._exported * (array.name != "step"))
        self._exported = len(self.asked)
        for array in self.arrays.values():
            if not self._is_recoded(array):
                array.put_header(self._files, len(self.asked))
        status_array(self._names).put_all(self._files, self.status.records)


def _unpacked(content: bytes, kind: np.dtype) -> Table:
    """The rows of `status/inputs`."""
    packed = np.frombuffer(content, kind)
    names = list(kind.names or ())[:-1]
    columns = tuple(packed[name].astype(packed[name].dtype.newbyteorder("=")) for name in names)
    return Table(columns, packed[IS_RUN] == 1)


def packed_rows(header: Header, columns: Columns, filled: np.ndarray, rows: int) -> bytes:
    """The content of `status/inputs` for some rows; zeros follow up to `rows`."""
    kind = _packed(header["parameters"])
    packed = np.zeros(rows, kind)
    for name, column in zip(kind.names or (), (*columns, filled), strict=True):
        packed[name][: len(column)] = column
    return packed.tobytes()


def _packed(parameters: Mapping[str, str]) -> np.dtype:
    """The type of a row of `status/inputs`."""
    kinds = [(name, np.dtype(parameters[name]).newbyteorder("<")) for name in sorted(parameters)]
    return np.dtype([("seed", "<u4"), *kinds, (IS_RUN, "u1")])

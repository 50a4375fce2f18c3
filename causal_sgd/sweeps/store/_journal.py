"""Which units are done: the records of the journal, and the state that follows from them.

A record vouches for one unit. It states the tiles that the unit holds, the configuration that they
belong to, and the checksums of the unit's input and of its chunk of every variable; it ends with a
checksum of its own. Records are only appended: the last one of a unit counts, and one that was
torn by a kill at the end of the journal is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from causal_sgd.sweeps.store._arrays import checksum

__all__ = [
    "DONE",
    "FIELDS",
    "MOST_TILES",
    "VOID",
    "Record",
    "Status",
    "decode_records",
    "encode_rows",
    "record_size",
]

FIELDS = ("unit", "state", "environments", "configuration", "tiles", "more_tiles", "inputs")
"""The fields of a record before the CRC-32C of each variable, uint32. `environments` and the two
fields of tiles are sets of bits; `configuration` is the beginning of its hash; `inputs` is the
CRC-32C of the unit's rows in `status/inputs`."""

VOID, DONE = 0, 1
MOST_TILES = 64  # bits of the two fields
OTHER_ENVIRONMENTS = 31  # the bit of all environments from this one on


class Record(NamedTuple):
    """What is known of a unit."""

    unit: int
    state: int  # DONE, or VOID if it is to be computed again
    environments: Sequence[int]  # indices in the header
    configuration: int
    tiles: Sequence[int]  # the tiles of the unit that it holds
    inputs: int
    sums: Sequence[int]

    def encode(self) -> bytes:
        """The bytes of the record, with its checksum."""
        environments = sum({1 << min(index, OTHER_ENVIRONMENTS) for index in self.environments})
        tiles = sum(1 << tile for tile in set(self.tiles))
        fields = (
            self.unit,
            self.state,
            environments,
            self.configuration,
            tiles & 0xFFFFFFFF,
            tiles >> 32,
            self.inputs,
            *self.sums,
        )
        return encode_rows(np.array([fields], np.uint32))


def encode_rows(records: np.ndarray) -> bytes:
    """The bytes of records [n, fields], each with its checksum."""
    rows = (np.ascontiguousarray(row, "<u4").tobytes() for row in records)
    return b"".join(row + checksum(row).to_bytes(4, "little") for row in rows)


def record_size(num_variables: int) -> int:
    """The length of a record in bytes."""
    return 4 * (len(FIELDS) + num_variables + 1)


def decode_records(content: bytes, num_variables: int) -> tuple[np.ndarray, list[int], int]:
    """Decode a journal.

    Args:
        content: of the journal.
        num_variables: the number of checksums in a record.

    Returns:
        The fields [records, fields] of all intact records in their order, the numbers of the
        damaged ones, and the length in bytes of the journal up to its last intact record. What
        follows was torn and is ignored.
    """
    size = record_size(num_variables)
    count = len(content) // size
    records = np.frombuffer(content, "<u4", count * size // 4).reshape(count, size // 4)
    sums = (checksum(content[start : start + size - 4]) for start in range(0, count * size, size))
    intact = np.fromiter(sums, np.uint32, count) == records[:, -1]
    last = int(np.flatnonzero(intact)[-1]) + 1 if intact.any() else 0
    damaged = np.flatnonzero(~intact[:last]).tolist()
    return records[intact, :-1].astype(np.uint32), damaged, last * size


class Status(NamedTuple):
    """The last record of every unit; zeros for units without one."""

    records: np.ndarray  # [units, fields]

    @classmethod
    def of_records(cls, records: np.ndarray, units: int, num_variables: int) -> Status:
        """The status of the first units from the records of a journal."""
        latest = np.zeros((units, len(FIELDS) + num_variables), np.uint32)
        latest[:, 0] = np.arange(units)
        known = records[records[:, 0] < units]
        # Of repeated units the last one counts.
        unit, first = np.unique(known[::-1, 0], return_index=True)
        latest[unit] = known[::-1][first]
        return cls(latest)

    def extended(self, units: int) -> Status:
        """The status with further units, of which nothing is known."""
        new = np.zeros((units, self.records.shape[1]), np.uint32)
        new[:, 0] = len(self.records) + np.arange(units)
        return Status(np.concatenate([self.records, new]))

    @property
    def state(self) -> np.ndarray:
        """`DONE` for units with data, [units]."""
        return self.records[:, 1]

    @property
    def configuration(self) -> np.ndarray:
        """The beginning of the hash of the configuration that the data belong to, [units]."""
        return self.records[:, 3]

    @property
    def inputs(self) -> np.ndarray:
        """The checksums of the input, [units]."""
        return self.records[:, 6]

    @property
    def sums(self) -> np.ndarray:
        """The checksums of the chunks, [units, variables]."""
        return self.records[:, len(FIELDS) :]

    def holds(self, number: int) -> np.ndarray:
        """Which of the first tiles each unit holds, [units, number]."""
        words = self.records[:, 4:6].astype(np.uint64)
        bits = words[:, 0] | (words[:, 1] << np.uint64(32))
        return (bits[:, None] >> np.arange(number, dtype=np.uint64)) & np.uint64(1) == 1

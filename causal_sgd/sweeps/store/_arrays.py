"""The arrays of a store as zarr defines them: one chunk a unit, little-endian, with its CRC-32C.

Chunks are read and written here, several times as fast as by zarr. The header of an array, its
zarr.json, serves other readers; all that it states follows from the header of the store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import google_crc32c
import numpy as np

from causal_sgd.sweeps.store._files import Files

__all__ = ["Array", "DamagedChunk", "checksum"]

CRC_BYTES = 4
INTACT = 0x48674BC7  # the CRC-32C of any content that ends with its own CRC-32C


class DamagedChunk(ValueError):
    """A chunk does not hold what an array needs."""


class Array(NamedTuple):
    """An array [length, *inner], chunked along its first axis."""

    name: str
    kind: np.dtype
    inner: tuple[int, ...]
    rows: int  # of a chunk
    dims: tuple[str, ...]
    separator: str = "."  # of the parts of a chunk's name
    attributes: Mapping[str, object] = {}

    @property
    def fill(self) -> np.ndarray:
        """The value of what was never written."""
        value = 0
        if self.kind.kind in "fc":
            value = np.nan
        elif self.kind.kind == "i":
            value = np.iinfo(self.kind).min
        return np.asarray(value, self.kind)

    @property
    def header(self) -> str:
        """The name of the file of the array's header."""
        return f"{self.name}/zarr.json"

    def chunk(self, index: int) -> str:
        """The name of the file of a chunk."""
        return f"{self.name}/" + self.separator.join(["c", str(index), *["0"] * len(self.inner)])

    def encode(self, block: np.ndarray) -> tuple[bytes, int]:
        """The content of the file of a chunk [rows, *inner], and its checksum."""
        data = np.ascontiguousarray(block, self.kind.newbyteorder("<")).tobytes()
        crc = google_crc32c.value(data)
        return data + crc.to_bytes(CRC_BYTES, "little"), crc

    def decode(self, content: bytes, crc: int | None = None) -> np.ndarray:
        """The values of a chunk [rows, *inner], read-only.

        Args:
            content: of its file.
            crc: the checksum that it must have; None if that is not known.

        Raises:
            DamagedChunk: if the content has another length or checksum.
        """
        size = self.kind.itemsize * self.rows * math.prod(self.inner)
        if len(content) != size + CRC_BYTES:
            raise DamagedChunk(
                f"is damaged (it has {len(content)} bytes instead of {size + CRC_BYTES})"
            )
        if google_crc32c.value(content) != INTACT:
            raise DamagedChunk("is damaged (its content does not match its checksum)")
        if crc is not None and int.from_bytes(content[size:], "little") != crc:
            raise DamagedChunk("does not have the checksum it was written with")
        flat = np.frombuffer(content, self.kind.newbyteorder("<"), size // self.kind.itemsize)
        return flat.astype(self.kind, copy=False).reshape(self.rows, *self.inner)

    def describe(self, length: int) -> bytes:
        """The content of the array's header for a number of rows."""
        fill: object = self.fill.item()
        if self.kind.kind == "f":
            fill = "NaN"
        elif self.kind.kind == "c":
            fill = ["NaN", "NaN"]
        endian = {"configuration": {"endian": "little"}} if self.kind.itemsize > 1 else {}
        grid = [self.rows, *(max(size, 1) for size in self.inner)]
        header = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [length, *self.inner],
            "data_type": str(self.kind),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid}},
            "chunk_key_encoding": {
                "name": "default",
                "configuration": {"separator": self.separator},
            },
            "fill_value": fill,
            "codecs": [{"name": "bytes", **endian}, {"name": "crc32c"}],
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dims),
        }
        return json.dumps(header, indent=2).encode()

    def put_header(self, files: Files, length: int) -> None:
        """Write the header of the array, unless it is there."""
        wanted = self.describe(length)
        if next(iter(files.get_each([self.header]))) != wanted:
            files.put(self.header, wanted)

    def fault(self, files: Files, values: np.ndarray) -> str | None:
        """Describe how the array on disk differs from the values; None if it does not.

        An array that is shorter than the values is not up to date yet, which is no damage.
        """
        length = self.length(files)
        if length is None:
            return f"the header of {self.name} is damaged or gone"
        if length > len(values):
            return f"{self.name} has {length} values instead of {len(values)}"
        chunks = range(-(-length // self.rows))
        for index, content in zip(chunks, files.get_each(map(self.chunk, chunks)), strict=True):
            try:
                block = self.decode(content or b"")
            except DamagedChunk as error:
                return f"chunk {index} of {self.name} {error}"
            rows = slice(index * self.rows, min((index + 1) * self.rows, length))
            expected = values[rows]
            if not np.array_equal(block[: len(expected)], expected):
                return f"{self.name} does not name the runs of the store"
        return None

    def header_fault(self, files: Files) -> str | None:
        """Describe the damage of the header of the array; None if only its length may differ."""
        length = self.length(files)
        if length is None:
            return f"the header of {self.name} is damaged or gone"
        if json.loads(files.get(self.header)) != json.loads(self.describe(length)):
            return f"the header of {self.name} was altered"
        return None

    def length(self, files: Files) -> int | None:
        """The number of values that the header of the array states; None if it is damaged."""
        try:
            return int(json.loads(files.get(self.header))["shape"][0])
        except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
            return None

    def values(self, files: Files, length: int) -> np.ndarray | None:
        """The first values on disk [length, *inner]; None if a chunk of them is damaged."""
        blocks = [np.zeros((0, *self.inner), self.kind)]
        for content in files.get_each(map(self.chunk, range(-(-length // self.rows)))):
            try:
                blocks.append(self.decode(content or b""))
            except DamagedChunk:
                return None
        return np.concatenate(blocks)[:length]

    def put_all(self, files: Files, values: np.ndarray, *, known: int = 0) -> None:
        """Write an array and its header; files that are up to date are left alone.

        Args:
            files: of the store.
            values: of the array.
            known: the number of first values that are known to be there.
        """
        self.put_chunks(files, values, known=known)
        self.put_header(files, len(values))

    def put_chunks(self, files: Files, values: np.ndarray, *, known: int = 0) -> None:
        """Write the chunks of an array that are not there yet; see `put_all`."""
        files.put_each(self._changed(files, values, known))

    def _changed(self, files: Files, values: np.ndarray, known: int) -> Iterator[tuple[str, bytes]]:
        """Name and content of the chunks that are not there yet."""
        indices = range(known // self.rows, -(-len(values) // self.rows))
        names = [self.chunk(index) for index in indices]
        for index, name, there in zip(indices, names, files.get_each(names), strict=True):
            block = values[index * self.rows : (index + 1) * self.rows]
            missing = self.rows - len(block)
            if missing:
                tail = np.full((missing, *self.inner), self.fill)
                block = np.concatenate([block, tail])
            content, _ = self.encode(block)
            if there != content:
                yield name, content


def checksum(content: bytes, crc: int = 0) -> int:
    """The CRC-32C of some bytes, or of these after others whose CRC-32C is given."""
    return google_crc32c.extend(crc, content)

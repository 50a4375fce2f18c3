"""Verified values of chunks: read directly, or through zarr where an array has another layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from causal_sgd.sweeps.store._arrays import Array, DamagedChunk
from causal_sgd.sweeps.store._files import Files
from causal_sgd.sweeps.store._ledger import Ledger

__all__ = ["is_recoded", "read_units"]


def read_units(
    files: Files, ledger: Ledger, name: str, units: Sequence[int]
) -> Iterator[np.ndarray | DamagedChunk]:
    """The values of a variable in some units, each [rows, ...], or its damage with its place.

    Args:
        files: of the store.
        ledger: with the checksums that the values must have.
        name: of the variable.
        units: their numbers.
    """
    array = ledger.arrays[name]
    contents = files.get_each(map(array.chunk, units))
    for unit, content in zip(units, contents, strict=True):
        try:
            yield _verified(files, ledger, array, unit, content)
        except DamagedChunk as error:
            yield DamagedChunk(f"{name} of unit {unit} {error}")


def _verified(
    files: Files, ledger: Ledger, array: Array, unit: int, content: bytes | None
) -> np.ndarray:
    """The values of a chunk with this content of its file; None if that is missing.

    Raises:
        DamagedChunk: if they are not what was written.
    """
    variable = list(ledger.arrays).index(array.name)
    try:
        if content is None:
            raise DamagedChunk("is gone")
        expected = ledger.expected(unit, variable)
        block = array.decode(content, expected)
        if expected is not None:
            return block
    except DamagedChunk:
        if not is_recoded(files, array):
            raise
        block = _through_zarr(files, array, unit)
    if not ledger.is_recorded(unit, variable, block):
        raise DamagedChunk("does not have the checksum it was written with")
    return block


def is_recoded(files: Files, array: Array) -> bool:
    """Whether the header of an array states another layout or type; no header states none."""
    try:
        stated = json.loads(files.get(array.header))
        expected = json.loads(array.describe(0))
        codecs = [codec["name"] for codec in stated["codecs"]]
        parts = ("data_type", "chunk_grid", "chunk_key_encoding")
        return codecs != ["bytes", "crc32c"] or any(
            stated[part] != expected[part] for part in parts
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _through_zarr(files: Files, array: Array, unit: int) -> np.ndarray:
    """The values of a unit in an array of another layout."""
    import zarr

    try:
        opened = zarr.open_array(files.zarr(), path=array.name, mode="r")
        return np.asarray(opened[unit * array.rows : (unit + 1) * array.rows])
    except Exception as error:  # zarr raises many types for broken files
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedChunk(f"is damaged ({line})") from None

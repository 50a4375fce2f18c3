"""The zarr group of a store: its arrays and attributes."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from causal_sgd.sweeps.store._manifest import Manifest, StoreError

__all__ = [
    "FIELDS",
    "FORMAT",
    "FORMAT_VERSION",
    "first_line",
    "lay_out",
    "now",
    "open_group",
    "put_chunk",
]

FORMAT, FORMAT_VERSION = "causal_sgd.sweep", 1
FIELDS = ("done", "environment", "configuration")
"""Columns of `status`, before the checksums of the variables; the last is the beginning of the configuration's hash."""

COORDINATE_CHUNK = 2**16  # rows


def lay_out(path: Path, header: Manifest, tile: int) -> None:
    """Make the group of a store without runs in an empty folder."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    rows = max(COORDINATE_CHUNK // tile, 1) * tile

    def array(
        name: str, shape: tuple[int, ...], chunks: tuple[int, ...], kind: Any, fill: Any, dims: Any
    ) -> None:
        group.create_array(
            name, shape=shape, chunks=chunks, dtype=kind, fill_value=fill, dimension_names=dims,
            compressors=[Crc32cCodec()], config={"write_empty_chunks": True},
        )  # fmt: skip

    for name, (kind, shape) in header.variables.items():
        fill = (
            np.nan
            if np.dtype(kind).kind == "f"
            else np.iinfo(kind).min
            if np.dtype(kind).kind == "i"
            else 0
        )
        framed = () if name == "diverged_at" else ("step",)
        dims = ("run", *framed, *(f"{name}_{index}" for index in range(len(shape) - len(framed))))
        array(name, (0, *shape), (tile, *(max(size, 1) for size in shape)), kind, fill, dims)
    array("status", (0, len(FIELDS) + len(header.variables)), (1, len(FIELDS) + len(header.variables)), "uint32", 0,
          ("unit", "field"))  # fmt: skip
    group["status"].attrs["fields"] = [*FIELDS, *(f"crc32 of {name}" for name in header.variables)]
    array("seed", (0,), (rows,), "int64", -1, ("run",))
    for name, kind in header.parameters.items():
        array(name, (0,), (rows,), kind, 0, ("run",))
    array("step", (header.num_frames,), (header.num_frames,), "int32", -1, ("step",))
    group.attrs.update(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "created": now(),
            "configuration": dict(header.configuration),
            "configuration_hash": header.digest,
            "parameters": dict(header.parameters),
            "variables": list(header.variables),
            "tile": tile,
            "steps": None,
            "source": header.source,
            "requests": [],
            "environments": [],
        }
    )


def put_chunk(array: Any, place: int, block: np.ndarray, folder: Path) -> None:
    """Write a whole chunk of an array of `lay_out`: its little-endian bytes and their CRC-32C, in one piece or not at all.

    zarr does the same at several times the cost, which is felt where tiles are done quickly.

    Args:
        array: the zarr array, cut into chunks along its first axis alone.
        place: the number of the chunk along that axis.
        block: its values.
        folder: of the array.
    """
    ordered = np.ascontiguousarray(block, array.dtype.newbyteorder("<"))
    content = ordered.tobytes()
    chunk = folder / array.metadata.encode_chunk_key((place,) + (0,) * (array.ndim - 1))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    draft = chunk.with_name(f".{chunk.name}.{os.getpid()}")
    try:
        draft.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
        draft.replace(chunk)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def open_group(path: Path) -> zarr.Group:
    """The group of a store; a StoreError says why it is none."""
    if not path.exists():
        raise StoreError(f"{path} does not exist")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path} is not a sweep's results: it has no zarr.json")
    try:
        return zarr.open_group(
            path,
            mode="r+" if os.access(path, os.W_OK) else "r",
            zarr_format=3,
            use_consolidated=False,
        )
    except Exception as error:  # whatever zarr makes of a broken file
        raise StoreError(f"{path} cannot be opened as zarr: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def now() -> str:
    """The local time to the second, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")

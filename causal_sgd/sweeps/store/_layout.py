"""The zarr group of a store: its arrays and attributes."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

import google_crc32c
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from causal_sgd.sweeps._grid import GridDescription
from causal_sgd.sweeps._provenance import Environment
from causal_sgd.sweeps.store._manifest import Configuration, Manifest, StoreError

if TYPE_CHECKING:
    from zarr.core.common import JSON

__all__ = [
    "FIELDS",
    "FORMAT",
    "FORMAT_VERSION",
    "REMEDY",
    "Attributes",
    "check_attributes",
    "check_environment",
    "first_line",
    "get_attributes",
    "lay_out",
    "now",
    "open_group",
    "places",
    "put_attributes",
    "put_chunk",
]

FORMAT = "causal_sgd.sweep"
FORMAT_VERSION = 2  # 1 without the attribute `by_seed`, and still written where it is False
FIELDS = ("done", "environment", "configuration")
"""Columns of `status` before the checksums of the variables. `configuration` begins its hash."""

REMEDY = "restore its zarr.json or begin a new store"
COORDINATE_CHUNK = 2**16  # rows


class Attributes(TypedDict):
    """The attributes of the group."""

    format: str
    format_version: int
    created: str
    configuration: Configuration
    configuration_hash: str
    parameters: dict[str, str]  # parameter -> type of its column
    variables: list[str]
    tile: int
    by_seed: NotRequired[bool]  # whether the runs of a unit have one seed
    steps: list[int] | None  # None before the first results
    source: str | None
    requests: list[GridDescription]
    environments: list[Environment]
    files: NotRequired[dict[str, list[str]]]  # absent in older stores; see `places`


def lay_out(path: Path, manifest: Manifest, tile: int, *, by_seed: bool) -> None:
    """Create the group of a store without runs in an empty folder."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    rows = max(COORDINATE_CHUNK // tile, 1) * tile

    def array(
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        kind: str,
        fill: float,
        dims: tuple[str, ...],
    ) -> None:
        group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=kind,
            fill_value=fill,
            dimension_names=dims,
            compressors=[Crc32cCodec()],
            config={"write_empty_chunks": True},
        )

    for name, (kind, shape) in manifest.variables.items():
        fill = 0.0
        if np.dtype(kind).kind == "f":
            fill = np.nan
        elif np.dtype(kind).kind == "i":
            fill = np.iinfo(kind).min
        framed = () if name == "diverged_at" else ("step",)
        dims = ("run", *framed, *(f"{name}_{index}" for index in range(len(shape) - len(framed))))
        array(name, (0, *shape), (tile, *(max(size, 1) for size in shape)), kind, fill, dims)
    fields = len(FIELDS) + len(manifest.variables)
    array("status", (0, fields), (1, fields), "uint32", 0, ("unit", "field"))
    sums = (f"crc32 of {name}" for name in manifest.variables)
    group["status"].attrs["fields"] = [*FIELDS, *sums]
    array("seed", (0,), (rows,), "int64", -1, ("run",))
    for name, kind in manifest.parameters.items():
        array(name, (0,), (rows,), kind, 0, ("run",))
    array("step", (manifest.num_frames,), (manifest.num_frames,), "int32", -1, ("step",))
    attributes: Attributes = {
        "format": FORMAT,
        "format_version": 2 if by_seed else 1,
        "created": now(),
        "configuration": manifest.configuration,
        "configuration_hash": manifest.digest,
        "parameters": dict(manifest.parameters),
        "variables": list(manifest.variables),
        "tile": tile,
        "steps": None,
        "source": manifest.source,
        "requests": [],
        "environments": [],
        "files": places(path, manifest.files),
    }
    if by_seed:
        attributes["by_seed"] = True
    put_attributes(group, attributes)


def places(path: Path, files: Mapping[str, str]) -> dict[str, list[str]]:
    """The path of each file, and the one from the folder of the store at `path`."""
    return {name: [file, os.path.relpath(file, path.parent)] for name, file in files.items()}


def put_attributes(group: zarr.Group, attributes: Mapping[str, object]) -> None:
    """Set some of the attributes, which must be plain values."""
    group.attrs.update(cast("dict[str, JSON]", attributes))


def get_attributes(group: zarr.Group) -> Attributes:
    """The attributes, of the stated types only if the group is a store."""
    return cast(Attributes, group.attrs.asdict())


def check_attributes(path: Path, attributes: Mapping[str, object]) -> None:
    """Raise StoreError if an attribute of a store is missing or has another type."""
    for name, (is_valid, allowed) in _ALLOWED.items():
        if name not in attributes:
            if name in _OPTIONAL:
                continue
            raise StoreError(
                f"{path} was altered: its zarr.json has no attribute {name!r}; {REMEDY}"
            )
        if not is_valid(attributes[name]):
            raise StoreError(
                f"{path} was altered: the attribute {name!r} in its zarr.json must be {allowed}, "
                f"got {repr(attributes[name])[:60]}; {REMEDY}"
            )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are(values: object, is_valid: Callable[[object], bool]) -> bool:
    return isinstance(values, list) and all(map(is_valid, values))


def _is_environment(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("versions"), dict):
        return False
    texts = [value.get(name) for name in ("platform", "device", "cpu")]
    return all(map(_is_text, [*texts, *(value["versions"].get(n) for n in ("causal_sgd", "jax"))]))


def check_environment(environment: object) -> None:
    """Raise ValueError if this is not the description of what computes."""
    if not _is_environment(environment):
        raise ValueError(
            "environment must be a mapping with versions, platform, device and cpu, "
            f"got a {type(environment).__name__}"
        )


def _is_grid(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("axes"), dict):
        return False
    axes, seeds = value["axes"], value.get("seeds")
    if isinstance(seeds, dict):
        ends = seeds.get("range")
        whole = isinstance(ends, list) and len(ends) == 2 and _are(ends, _is_whole)
        increasing = whole and cast(list, ends)[0] < cast(list, ends)[1]
    else:
        increasing = bool(seeds) and _are(seeds, _is_whole)
    return increasing and all(
        isinstance(axis, dict)
        and axis
        and all(values and _are(values, _is_number) for values in axis.values())
        for axis in axes.values()
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ALLOWED: dict[str, tuple[Callable[[object], bool], str]] = {
    "created": (_is_text, "text"),
    "configuration": (
        lambda value: (
            isinstance(value, dict)
            and all(map(_is_text, (value.get("key"), value.get("key_implementation"))))
        ),
        "a mapping with a key",
    ),
    "configuration_hash": (_is_text, "text"),
    "parameters": (
        lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
        "a mapping of names to types",
    ),
    "variables": (
        lambda value: _are(value, _is_text) and "diverged_at" in cast(list, value),
        "a list of names with diverged_at",
    ),
    "tile": (lambda value: _is_whole(value) and cast(int, value) > 0, "a whole number above 0"),
    "by_seed": (lambda value: isinstance(value, bool), "true or false"),
    "steps": (lambda value: value is None or _are(value, _is_whole), "null or whole numbers"),
    "source": (lambda value: value is None or _is_text(value), "null or text"),
    "requests": (lambda value: _are(value, _is_grid), "a list of grids"),
    "environments": (lambda value: _are(value, _is_environment), "a list of environments"),
    "files": (
        lambda value: (
            isinstance(value, dict) and all(_are(paths, _is_text) for paths in value.values())
        ),
        "a mapping of names to lists of paths",
    ),
}
"""What the attributes of a store may be, apart from its format."""

_OPTIONAL = {"by_seed", "files"}


def put_chunk(array: zarr.Array, index: int, block: np.ndarray, folder: Path) -> None:
    """Write a whole chunk of an array of `lay_out` atomically: its little-endian bytes and CRC-32C.

    zarr does the same, but takes several times as long, which matters for fast tiles.

    Args:
        array: the zarr array, chunked along its first axis only.
        index: of the chunk along that axis.
        block: the values of the chunk.
        folder: of the array.
    """
    ordered = np.ascontiguousarray(block, array.dtype.newbyteorder("<"))
    content = ordered.tobytes()
    chunk = folder / array.metadata.encode_chunk_key((index,) + (0,) * (array.ndim - 1))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    draft = chunk.with_name(f".{chunk.name}.{os.getpid()}")
    try:
        draft.write_bytes(content + google_crc32c.value(content).to_bytes(4, "little"))
        draft.replace(chunk)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def open_group(path: Path) -> zarr.Group:
    """Open the group of a store.

    Raises:
        StoreError: if the path is not a store.
    """
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
    except Exception as error:  # zarr raises many types for broken files
        raise StoreError(f"{path} cannot be opened as zarr: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")

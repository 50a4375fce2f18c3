"""The header of a store: the attributes in its zarr.json, which give its numbers their meaning."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np

from causal_sgd.checks import Place
from causal_sgd.sweeps._grid import GridDescription
from causal_sgd.sweeps._provenance import Environment, now
from causal_sgd.sweeps.store._arrays import Array
from causal_sgd.sweeps.store._attributes import check_attributes
from causal_sgd.sweeps.store._files import Files
from causal_sgd.sweeps.store._manifest import Configuration, Manifest, StoreError, digest

__all__ = [
    "FORMAT_VERSION",
    "Header",
    "first_header",
    "places",
    "put_header",
    "read_header",
    "restore_header",
    "variables",
]

FORMAT = "causal_sgd.sweep"
FORMAT_VERSION = 3
"""Formats 1 and 2 (with `by_seed`) have one tile in a unit, and a chunk of `status` for each."""

FILE, COPY = "zarr.json", "status/header"


class Header(TypedDict):
    """The attributes of the group."""

    format: str
    format_version: int
    created: str
    configuration: Configuration
    configuration_hash: str
    parameters: dict[str, str]  # parameter -> type of its column
    variables: list[str]
    tile: int
    by_seed: NotRequired[bool]  # whether the runs of a tile have one seed; absent in format 1
    steps: list[int] | None  # None before the first results
    source: str | None
    requests: list[GridDescription]
    environments: list[Environment]
    files: NotRequired[dict[str, list[str]]]  # absent in older stores; see `places`
    # Since format 3:
    tiles_per_unit: NotRequired[int | None]  # None before the first results
    rows: NotRequired[int]  # in `status/inputs`
    inputs_crc32c: NotRequired[int]  # of these rows
    chunk_separator: NotRequired[str]  # "/" in converted stores; by default "."
    generation: NotRequired[int]  # the number of times that the header was written
    header_hash: NotRequired[str]  # SHA-256 of all other attributes as canonical JSON


def first_header(place: Place, manifest: Manifest, tile: int, *, by_seed: bool) -> Header:
    """The header of a store at a place, without runs."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": now(),
        "configuration": manifest.configuration,
        "configuration_hash": manifest.digest,
        "parameters": dict(manifest.parameters),
        "variables": list(manifest.variables),
        "tile": tile,
        "by_seed": by_seed,
        "tiles_per_unit": None,
        "rows": 0,
        "inputs_crc32c": 0,
        "steps": None,
        "source": manifest.source,
        "requests": [],
        "environments": [],
        "files": places(place, manifest.files),
        "generation": 0,
    }


def variables(header: Header, rows: int, separator: str) -> dict[str, Array]:
    """The arrays of all metrics and of `diverged_at`, in chunks of a number of rows."""
    arrays = {}
    for name in header["variables"]:
        kind, shape = header["configuration"]["metrics"][name]
        inner = tuple(cast("list[int]", shape))
        framed = () if name == "diverged_at" else ("step",)
        numbered = (f"{name}_{index}" for index in range(len(inner) - len(framed)))
        dims = ("run", *framed, *numbered)
        arrays[name] = Array(name, np.dtype(cast(str, kind)), inner, rows, dims, separator)
    return arrays


def places(store: Place, files: Mapping[str, str]) -> dict[str, list[str]]:
    """The path of each file, and the one from the folder in which the store is, if it is in one."""
    if not isinstance(store, Path):
        return {name: [file] for name, file in files.items()}
    return {name: [file, os.path.relpath(file, store.parent)] for name, file in files.items()}


def put_header(files: Files, header: Header) -> Header:
    """Write the header and its copy, and return it as written.

    A process killed in between leaves an older copy, which is no damage.
    """
    if header["format_version"] >= 3:
        header = {**header, "generation": header.get("generation", 0) + 1}
        header["header_hash"] = _hash(header)
    content = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": header}, indent=2)
    files.put(FILE, content.encode())
    if header["format_version"] >= 3:
        files.put(COPY, content.encode())
    return header


def _hash(header: Mapping[str, object]) -> str:
    return digest({name: value for name, value in header.items() if name != "header_hash"})


def read_header(files: Files) -> Header:
    """Read and check the header.

    Raises:
        StoreError: if there is no store, its format is newer, or its header was altered.
    """
    if not files.exists():
        raise StoreError(f"{files} does not exist")
    try:
        content = files.get(FILE)
    except (FileNotFoundError, NotADirectoryError):
        left = "" if _copy(files) is None else f", but a copy of it: {_remedy(files)}"
        raise StoreError(f"{files} is not a sweep's results: it has no zarr.json{left}") from None
    except OSError as error:
        raise StoreError(f"{files} cannot be read: {error.strerror or error}") from error
    try:
        header = _parse(files, content)
    except StoreError as error:
        if _copy(files) is None:
            raise
        raise StoreError(f"{error}; {_remedy(files)}") from None
    if header["format_version"] >= 3:
        copy = _copy(files)
        if copy is not None and _generation(copy) > _generation(header):
            # Another process may have written both files in the meantime.
            header = _parse(files, files.get(FILE))
            if _generation(copy) > _generation(header):
                raise StoreError(f"{files} has an older zarr.json than its data; {_remedy(files)}")
    return header


def restore_header(files: Files) -> str | None:
    """Restore a lost, altered or older zarr.json from its copy; return its fault, if it had one.

    Raises:
        StoreError: if the header is not one of a store and has no valid copy, or the store cannot
            be written.
    """
    try:
        read_header(files)
        return None
    except StoreError as error:
        if _copy(files) is None:
            raise
        with files.writing():
            files.put(FILE, files.get(COPY))
        return str(error).partition(";")[0]


def _remedy(files: Files) -> str:
    return f"restore it with `causal-sgd repair {files}`"


def _generation(header: Header) -> int:
    return header.get("generation", 0)


def _copy(files: Files) -> Header | None:
    """The copy of the header; None if there is no valid one."""
    try:
        return _parse(files, files.get(COPY))
    except (OSError, StoreError):
        return None


def _parse(files: Files, content: bytes) -> Header:
    """Check the content of a header's file."""
    try:
        group = json.loads(content)
        if not isinstance(group, dict) or group.get("zarr_format") != 3:
            raise ValueError("it is no group of zarr 3")
        attributes = group.get("attributes", {})
        if group.get("node_type") != "group" or not isinstance(attributes, dict):
            raise ValueError("it is no group of zarr 3")
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{files} cannot be opened as zarr: {error}") from error
    if attributes.get("format") != FORMAT:
        raise StoreError(f"{files} is a zarr group but not a sweep's results")
    version = attributes.get("format_version", 0)
    if (
        not isinstance(version, int)
        or isinstance(version, bool)
        or not 1 <= version <= FORMAT_VERSION
    ):
        raise StoreError(
            f"{files} has format {version}, which a newer causal_sgd wrote; "
            f"this one reads up to {FORMAT_VERSION}: upgrade"
        )
    check_attributes(files, attributes)
    header = cast(Header, attributes)
    if digest(header["configuration"]) != header["configuration_hash"]:
        raise StoreError(
            f"{files} was altered: its configuration does not match its hash "
            f"{header['configuration_hash'][:12]}"
        )
    if version >= 3 and _hash(header) != attributes["header_hash"]:
        raise StoreError(f"{files} was altered: its zarr.json does not match its header_hash")
    return header

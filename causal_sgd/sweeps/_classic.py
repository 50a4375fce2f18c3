"""netCDF files of version 3, written piece by piece, so that a large dataset needs little memory.

The layout is that of netCDF's 64-bit offset format (CDF-2): a header, the variables of fixed size,
then the records. A record has the values of all variables at one index of their first dimension.
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import xarray as xr

__all__ = ["can_write", "write_classic"]

AT_ONCE = 2**26  # bytes
LARGEST = 2**31 - 4  # bytes of a variable of fixed size, or of one in a record
KINDS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "float32", "float64")
CODES = {"i1": 1, "S1": 2, "i2": 3, "i4": 4, "f4": 5, "f8": 6}
DIMENSION, VARIABLE, ATTRIBUTE = 10, 11, 12


class _Variable(NamedTuple):
    """A variable as it is stored."""

    name: str
    dims: tuple[str, ...]
    kind: np.dtype  # big-endian
    attributes: Mapping[Any, object]
    shape: tuple[int, ...]  # without that of the records

    @property
    def size(self) -> int:
        """Bytes, with padding to whole words."""
        return -(-math.prod(self.shape) * self.kind.itemsize // 4) * 4


def can_write(dataset: xr.Dataset, record: str) -> bool:
    """Whether a file with records along a dimension can hold a dataset."""
    variables = dataset.variables.values()
    records = [variable for variable in variables if record in variable.dims]
    if len(records) < 2:  # a single variable would have records without padding
        return False
    for variable in variables:
        count = dataset.sizes[record] if record in variable.dims else 1
        if record in variable.dims[1:] or variable.nbytes > LARGEST * count:
            return False
        if str(variable.dtype) not in KINDS and not _is_small(variable):
            return False
    return True


def _is_small(variable: xr.Variable) -> bool:
    """Whether this is a coordinate of whole numbers in 32 bits."""
    if variable.dtype.kind not in "iu" or variable.ndim != 1:
        return False
    limit = np.iinfo(np.int32)
    return bool(((variable.values >= limit.min) & (variable.values <= limit.max)).all())


def write_classic(dataset: xr.Dataset, record: str, out: Path) -> None:
    """Write a dataset that `can_write` accepts, with records along a dimension."""
    encoded = _encoded(dataset.isel({record: slice(1)}))
    variables = [_variable(dataset, str(name), encoded, record) for name in encoded.variables]
    fixed = [variable for variable in variables if record not in variable.dims]
    in_records = [variable for variable in variables if record in variable.dims]
    with out.open("wb") as file:
        file.write(_header(dataset, record, encoded.attrs, fixed, in_records))
        for variable in fixed:
            _put(file, dataset, variable, {})
        if sum(variable.size for variable in in_records) <= AT_ONCE:
            _put_records(file, dataset, record, in_records)
            return
        for index in range(dataset.sizes[record]):
            for variable in in_records:
                _put(file, dataset, variable, {record: index})


def _variable(dataset: xr.Dataset, name: str, encoded: xr.Dataset, record: str) -> _Variable:
    found = encoded.variables[name]
    kind, attributes = found.dtype, dict(found.attrs)
    if kind.kind == "b":  # xarray has decoded it already
        kind, attributes["dtype"] = np.dtype(np.int8), "bool"
    dims = tuple(map(str, found.dims))
    shape = tuple(dataset.sizes[dim] for dim in dims if dim != record)
    return _Variable(name, dims, kind.newbyteorder(">"), attributes, shape)


def _encoded(dataset: xr.Dataset) -> xr.Dataset:
    """A small dataset with the types and attributes that xarray gives it in a file."""
    wider = {"uint8": "int16", "uint16": "int32"}  # version 3 has no unsigned integers
    signed = {
        name: dataset[name].astype(wider[str(variable.dtype)])
        for name, variable in dataset.variables.items()
        if str(variable.dtype) in wider
    }
    content = dataset.assign(signed).to_netcdf(engine="scipy")
    with xr.open_dataset(io.BytesIO(content), engine="scipy", decode_cf=False) as encoded:
        return encoded.load()


def _put_records(
    file: BinaryIO, dataset: xr.Dataset, record: str, variables: Iterable[_Variable]
) -> None:
    """Write several records at a time."""
    names, formats, offsets, size = [], [], [], 0
    for variable in variables:
        names.append(variable.name)
        formats.append((variable.kind, variable.shape))
        offsets.append(size)
        size += variable.size
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    count = max(AT_ONCE // size, 1)
    for start in range(0, dataset.sizes[record], count):
        part = dataset.isel({record: slice(start, start + count)}).load()
        block = np.zeros(part.sizes[record], layout)
        for variable in variables:
            block[variable.name] = _values(part, variable)
        file.write(block.tobytes())


def _put(
    file: BinaryIO, dataset: xr.Dataset, variable: _Variable, index: Mapping[str, int]
) -> None:
    """Write a variable of fixed size, or that of one record, in pieces."""
    values = dataset[[variable.name]].isel(index)
    dims = [dim for dim in variable.dims if dim not in index]
    most = max(AT_ONCE // variable.kind.itemsize, 1)
    for piece in _pieces(variable.shape, most):
        part = values.isel(dict(zip(dims, piece, strict=False)))
        file.write(_values(part, variable).tobytes())
    file.write(bytes(variable.size - math.prod(variable.shape) * variable.kind.itemsize))


def _pieces(shape: tuple[int, ...], most: int) -> Iterator[tuple[slice, ...]]:
    """Consecutive pieces of an array in row-major order, of at most so many entries each."""
    if math.prod(shape) <= most:
        yield ()
        return
    inner = math.prod(shape[1:])
    count = max(most // inner, 1)
    for start in range(0, shape[0], count):
        rest = _pieces(shape[1:], most) if inner > most else [()]
        yield from ((slice(start, start + count), *others) for others in rest)


def _values(dataset: xr.Dataset, variable: _Variable) -> np.ndarray:
    """The values of a variable in its stored type."""
    return dataset[variable.name].values.astype(variable.kind)


def _header(
    dataset: xr.Dataset,
    record: str,
    attributes: Mapping[str, object],
    fixed: list[_Variable],
    in_records: list[_Variable],
) -> bytes:
    """The header, in which every variable has its place."""
    dims = {str(dim): 0 if dim == record else size for dim, size in dataset.sizes.items()}
    numbers = {dim: number for number, dim in enumerate(dims)}

    def content(start: int) -> bytes:
        parts = [b"CDF\x02", struct.pack(">i", dataset.sizes[record])]
        parts.append(struct.pack(">ii", DIMENSION, len(dims)))
        parts += [_text(dim) + struct.pack(">i", size) for dim, size in dims.items()]
        parts.append(_attributes(attributes))
        parts.append(struct.pack(">ii", VARIABLE, len(fixed) + len(in_records)))
        for variable in (*fixed, *in_records):
            places = [numbers[dim] for dim in variable.dims]
            parts.append(_text(variable.name))
            parts.append(struct.pack(f">{1 + len(places)}i", len(places), *places))
            parts.append(_attributes(variable.attributes))
            code = CODES[variable.kind.str[1:]]
            parts.append(struct.pack(">iiq", code, variable.size, start))
            start += variable.size
        return b"".join(parts)

    return content(len(content(0)))


def _text(text: str) -> bytes:
    """A name: its length, and its characters in whole words."""
    return _padded(struct.pack(">i", len(text.encode())) + text.encode())


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


def _attributes(attributes: Mapping[str, object]) -> bytes:
    if not attributes:
        return bytes(8)
    parts = [struct.pack(">ii", ATTRIBUTE, len(attributes))]
    for name, value in attributes.items():
        if isinstance(value, str):
            value = np.frombuffer(value.encode(), "S1")
        array = np.atleast_1d(np.asarray(value))
        array = array.astype(array.dtype.newbyteorder(">"))
        parts.append(_text(name))
        parts.append(struct.pack(">ii", CODES[array.dtype.str[1:]], array.size))
        parts.append(_padded(array.tobytes()))
    return b"".join(parts)

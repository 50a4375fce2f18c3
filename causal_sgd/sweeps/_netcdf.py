"""netCDF files of datasets, by whichever library is installed. Imports no jax."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import xarray as xr

from causal_sgd.figures._files import replacing
from causal_sgd.sweeps._classic import can_write, write_classic

__all__ = ["netcdf_engine", "write_netcdf"]

Engine: TypeAlias = Literal["netcdf4", "h5netcdf", "scipy"]

# xarray's default is h5netcdf wherever it is installed. From version 1.8 it no longer requires
# h5py, with which it writes, and fails without it.
LIBRARIES: Mapping[Engine, tuple[str, ...]] = {
    "netcdf4": ("netCDF4",),
    "h5netcdf": ("h5netcdf", "h5py"),
    "scipy": (),  # which is always installed, and writes version 3
}
AT_ONCE = 2**28  # bytes; a larger dataset is written in pieces
LARGEST = 2**31 - 4  # bytes of a variable that scipy writes: it packs their number into an int32
WIDER = {"uint8": "int16", "uint16": "int32"}  # version 3 has no unsigned integers


class Typed(Protocol):
    """An array, or a description of one."""

    @property
    def dtype(self) -> np.dtype:
        """The type of its entries."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...


def netcdf_engine(variables: Mapping[str, Typed]) -> Engine:
    """The library, among those installed, that can write variables of these types and shapes.

    Args:
        variables: arrays, whose values are checked, too, or descriptions, by name.

    Raises:
        ValueError: if there is none; the message says what to install.
    """
    installed: list[Engine] = [
        engine for engine, needed in LIBRARIES.items() if all(map(importlib.util.find_spec, needed))
    ]
    fault = ""
    for engine in installed:
        faults = (
            f"{name} must be of a type and size that netCDF can hold, got {reason}"
            for name, variable in variables.items()
            if (reason := _beyond(engine, variable))
        )
        fault = next(faults, "")
        if not fault:
            return engine
    remedy = "keep a store (.zarr) or export a table (.csv)"
    if "h5netcdf" not in installed:
        remedy = f"pip install 'causal_sgd[netcdf4]', or {remedy}"
    raise ValueError(f"{fault}; {remedy}")


def write_netcdf(dataset: xr.Dataset, out: Path) -> None:
    """Write a netCDF file: version 4 if a library for it is installed, otherwise version 3.

    A large dataset is written in pieces, as version 3, if that can hold it. Only then it need not
    fit the memory.

    Raises:
        ValueError: before anything is written, if the file cannot hold a variable.
    """
    record = next((str(values.dims[0]) for values in dataset.values() if values.dims), "")
    if dataset.nbytes > AT_ONCE and can_write(dataset, record):
        with replacing(out) as draft:
            write_classic(dataset, record, draft)
        return
    engine = netcdf_engine(dataset.variables)  # pyright: ignore[reportArgumentType]
    if engine == "scipy":
        wider = {
            name: dataset[name].astype(WIDER[str(variable.dtype)])
            for name, variable in dataset.variables.items()
            if str(variable.dtype) in WIDER
        }
        dataset = dataset.assign(wider)
        whole = {
            str(name): variable.values
            for name, variable in dataset.variables.items()
            if variable.dtype.kind in "iu"
        }
        netcdf_engine(whole)
    with replacing(out) as draft:
        dataset.to_netcdf(draft, engine=engine)


def _beyond(engine: Engine, variable: Typed) -> str:
    """What of a variable is beyond a library; nothing if it can write the variable."""
    kind = np.dtype(variable.dtype)
    half = kind.kind in "fV" and kind.itemsize < 4
    if half and (engine != "h5netcdf" or kind.kind == "V"):
        return f"numbers of type {kind}"
    if kind.kind == "c" and engine != "h5netcdf":
        return f"complex numbers ({kind})"
    if engine != "scipy":
        return ""
    size = int(np.prod(variable.shape, dtype=float)) * kind.itemsize
    if size > LARGEST:
        return f"{size / 2**30:.3g} GiB, more than the 2 GiB of a variable in version 3"
    if isinstance(variable, np.ndarray) and kind.kind in "iu" and variable.size:
        limit = np.iinfo(np.int32)
        low, high = int(variable.min()), int(variable.max())
        if low < limit.min or high > limit.max:
            return f"whole numbers from {low} to {high}, beyond the 32 bits of version 3"
    return ""

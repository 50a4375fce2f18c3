"""The labelled dataset that a sweep returns, and its netCDF file. Imports no jax."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from causal_sgd.figures import _accessor  # noqa: F401  # registers `dataset.sgd`
from causal_sgd.sweeps._grid import Grid

__all__ = ["labelled", "provenance", "write_netcdf"]


def labelled(
    grid: Grid, variables: Mapping[str, Any], steps: np.ndarray, attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Label the results of a sweep.

    Args:
        grid: the runs.
        variables: metric -> [*axes, seed, step, ...], and `diverged_at` [*axes, seed].
        steps: the recorded steps, [F].
        attributes: the attributes of the dataset.
    """
    dims = (*grid.axes, "seed")
    coordinates: dict[str, Any] = {"seed": grid.seeds, "step": steps}
    for dim, parameters in grid.axes.items():
        coordinates |= {name: (dim, values) for name, values in parameters.items()}
    named = {}
    for name, values in variables.items():
        inner = tuple(f"{name}_{index}" for index in range(values.ndim - len(dims) - 1))
        named[name] = (dims if name == "diverged_at" else (*dims, "step", *inner), values)
    return xr.Dataset(named, coordinates, dict(attributes))


def provenance(
    environment: Mapping[str, Any], tile: int, key: str, key_implementation: str
) -> dict[str, Any]:
    """The attributes of every sweep's dataset: what computed it, and the root key."""
    return {
        "causal_sgd": environment["versions"]["causal_sgd"],
        "jax": environment["versions"]["jax"],
        "platform": environment["platform"],
        "device": environment["device"],
        "tile": tile,
        "key": key,
        "key_implementation": key_implementation,
    }


def write_netcdf(dataset: xr.Dataset, out: Path) -> None:
    """Write a netCDF file: version 4 if a library for it is installed, otherwise version 3.

    xarray's default is h5netcdf wherever it is installed. From version 1.8 it no longer requires
    h5py, with which it writes, and fails without it.
    """
    libraries = {"netcdf4": ("netCDF4",), "h5netcdf": ("h5netcdf", "h5py")}
    engines = [
        name for name, needed in libraries.items() if all(map(importlib.util.find_spec, needed))
    ]
    engine: Any = engines[0] if engines else "scipy"
    dataset.to_netcdf(out, engine=engine)

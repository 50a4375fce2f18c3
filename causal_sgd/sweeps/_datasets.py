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
    """Name the dims of a sweep's results.

    Args:
        grid: of the runs.
        variables: metric -> [*axes, seed, step, ...], and `diverged_at` [*axes, seed].
        steps: the recorded steps, [F].
        attributes: of the dataset.
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
    """The attributes that every sweep's dataset has: what computed it, and from which key."""
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
    """Write a netCDF file: version 4 where a library for it is installed, else 3.

    xarray's own choice is h5netcdf wherever that is installed, which from version 1.8 on comes without the h5py that it
    writes with, and fails.
    """
    libraries = {"netcdf4": ("netCDF4",), "h5netcdf": ("h5netcdf", "h5py")}
    engines = [
        name for name, needed in libraries.items() if all(map(importlib.util.find_spec, needed))
    ]
    dataset.to_netcdf(out, engine=engines[0] if engines else "scipy")  # pyright: ignore[reportCallIssue, reportArgumentType]

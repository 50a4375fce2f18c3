"""What a study computes, read from its module and its datasets: experiments, grids, seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.experiment import SYSTEMS
from causal_sgd.studies import Study

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.experiment._base import BaseExperiment

__all__ = ["Data", "Settings", "data_of", "settings_of"]


class Settings(NamedTuple):
    """An experiment among the constants of a study."""

    name: str
    values: Mapping[str, object]  # those that differ from the defaults


class Data(NamedTuple):
    """A dataset in one line."""

    name: str
    axes: Mapping[str, str]  # axis -> its values in a few words
    seeds: int
    runs: int
    diverged: int | None  # number of runs; None where the dataset does not record it


def settings_of(study: Study) -> list[Settings]:
    """The experiments among the constants of a study's module."""
    kinds = tuple(SYSTEMS.values())
    return [
        Settings(name, _changed(experiment))
        for name, experiment in vars(study).items()
        if isinstance(experiment, kinds) and not name.startswith("_")
    ]


def _changed(experiment: BaseExperiment) -> dict[str, object]:
    """The fields that differ from the defaults."""
    default = type(experiment)()
    names = [field.name for field in dataclasses.fields(default)]
    return {
        name: getattr(experiment, name)
        for name in names
        if getattr(experiment, name) != getattr(default, name)
    }


def data_of(data: Mapping[str, xr.Dataset]) -> list[Data]:
    """The grids of a study's datasets."""
    return [_line(name, dataset) for name, dataset in data.items()]


def _line(name: str, dataset: xr.Dataset) -> Data:
    inner = {str(dim) for variable in dataset.data_vars for dim in dataset[variable].dims}
    axes = [str(dim) for dim in dataset.sizes if dim not in ("seed", "step") and dim in inner]
    if "diverged_at" in dataset:  # which lacks the dims of single metrics
        axes = [str(dim) for dim in dataset["diverged_at"].dims if dim != "seed"]
    seeds = int(dataset.sizes.get("seed", 1))
    runs = seeds * int(np.prod([dataset.sizes[axis] for axis in axes], dtype=int))
    diverged = int((dataset["diverged_at"] >= 0).sum()) if "diverged_at" in dataset else None
    return Data(name, {axis: _values(dataset, axis) for axis in axes}, seeds, runs, diverged)


def _values(dataset: xr.Dataset, axis: str) -> str:
    if axis not in dataset.coords:
        return str(dataset.sizes[axis])
    values = dataset[axis].values
    if values.dtype.kind not in "iuf":
        return ", ".join(map(str, values)) if len(values) <= 6 else f"{len(values)} kinds"
    if len(values) <= 4:
        return ", ".join(f"{value:.4g}" for value in values)
    return f"{len(values)} from {values.min():.4g} to {values.max():.4g}"

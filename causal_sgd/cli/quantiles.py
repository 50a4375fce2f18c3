"""Medians and quantiles over seeds: at every recorded step for JSON, and as a table (.csv)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.cli.outputs import Plain, plain

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LEVELS", "trajectories", "write_table"]

LEVELS = {"median": "median", "q10": "low", "q90": "high"}
"""Name of a level, as JSON and tables have it -> variable of a summary."""


def trajectories(dataset: xr.Dataset) -> dict[str, object]:
    """The recorded steps, and for every metric its levels at each of them, for JSON."""
    from causal_sgd.analysis import metric_names, summary

    metrics: dict[str, dict[str, Plain]] = {}
    for name in metric_names(dataset):
        table = summary(dataset, name).transpose("step", ...)
        metrics[name] = {level: plain(table[column].values) for level, column in LEVELS.items()}
    return {"step": dataset["step"].values.tolist(), "metrics": metrics}


def write_table(path: Path, dataset: xr.Dataset, along: Sequence[str]) -> None:
    """Write a row for every metric, entry of it, and point of some dims.

    The columns are metric, index (the place in a metric that is an array; empty for a number), the
    dims, median, q10, q90, and the share of runs that diverged.

    Args:
        path: the file (.csv).
        dataset: the results of a sweep.
        along: the dims, such as step, whose values stand in columns of their own.
    """
    from causal_sgd.figures._files import replacing

    with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["metric", "index", *along, *LEVELS, "diverged_fraction"])
        writer.writerows(_rows(dataset, along))


def _rows(dataset: xr.Dataset, along: Sequence[str]) -> Iterator[list[object]]:
    from causal_sgd.analysis import metric_names, summary

    diverged = dataset["diverged_at"] >= 0
    points = [dataset[name].values.tolist() for name in along]
    for name in metric_names(dataset):
        table = summary(dataset, name).transpose(*along, ...)
        shape = table["median"].shape
        levels = [table[column].values for column in LEVELS.values()]
        levels.append(_share(diverged, table, dataset))
        for place in np.ndindex(shape):
            own = place[len(along) :]
            values = [points[axis][index] for axis, index in enumerate(place[: len(along)])]
            numbers = (float(level[place]) for level in levels)
            texts = [f"{value:.9g}" if np.isfinite(value) else "" for value in numbers]
            yield [name, ";".join(map(str, own)), *values, *texts]


def _share(diverged: xr.DataArray, table: xr.Dataset, dataset: xr.Dataset) -> np.ndarray:
    """The share of the completed runs that diverged, for every number of a table of levels."""
    if "done" in dataset.coords:
        diverged = diverged.where(dataset["done"])
    share = diverged.mean("seed")
    return share.broadcast_like(table["median"]).transpose(*table["median"].dims).values

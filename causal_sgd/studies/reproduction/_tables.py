"""The plotted numbers of a study as one table in long form: figures/STUDY.csv.

A row holds one metric at one setting and one step, summarised over seeds. Everything that a study
recorded is there; what its figure derives from that, such as boundaries, growth rates and lines of
theory, comes from the function `table` of its module, if it has one. A single number is its own
median, quantiles and mean.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from causal_sgd.studies import Study

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FIRST", "STATISTICS", "rows", "write"]

FIRST = ("dataset",)
STATISTICS = ("median", "q10", "q90", "mean", "sd", "count", "diverged")
"""Quantiles, mean and standard deviation over the runs that did not diverge; their count; and the
share of those that did, empty where divergence was not recorded."""
RESERVED = (*FIRST, "step", "index", "metric", *STATISTICS)

MOST_FRAMES = 401
MOST_ROWS = 30_000  # where fewer frames can achieve it: about three megabytes


def write(study: Study, data: Mapping[str, xr.Dataset], path: Path) -> Path:
    """Write the table of a study to `path` with .csv, as a whole or not at all; return the file."""
    from causal_sgd.figures._files import replacing

    found = list(rows(study, data))
    used = dict.fromkeys(name for row in found for name in row)
    settings = [name for name in used if name not in RESERVED and not name.startswith("index_")]
    indices = [name for name in used if name.startswith("index")]
    columns = [*FIRST, *settings, "step", *indices, "metric", *STATISTICS]
    file = path.with_name(path.name + ".csv")
    with replacing(file) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(found)
    return file


def rows(study: Study, data: Mapping[str, xr.Dataset]) -> Iterator[dict[str, str]]:
    """The rows of a study's table: column -> text, without the empty ones."""
    derive = cast(
        "Callable[[Mapping[str, xr.Dataset]], Mapping[str, xr.Dataset]] | None",
        getattr(study, "table", None),
    )
    derived = derive(data) if derive is not None else {}
    if both := sorted(set(data) & set(derived)):
        raise ValueError(f"table must name its datasets unlike those of run, got {both[0]!r}")
    datasets = [*data.items(), *derived.items()]
    most = _limit([_size(dataset) for _, dataset in datasets])
    for name, dataset in datasets:
        yield from _rows(name, _thinned(dataset, most))


def _limit(sizes: Sequence[int]) -> int:
    """The largest number of rows of a dataset with which all together have `MOST_ROWS`."""
    left = MOST_ROWS
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return MOST_ROWS


def _size(dataset: xr.Dataset) -> int:
    """The number of rows of a dataset with at most `MOST_FRAMES` frames."""
    sizes = dict(dataset.sizes) | {"seed": 1}
    if "step" in sizes:
        sizes["step"] = min(sizes["step"], MOST_FRAMES)
    dims = [dataset[metric].dims for metric in _metrics(dataset)]
    return sum(math.prod(sizes[dim] for dim in axes) for axes in dims)


def _metrics(dataset: xr.Dataset) -> list[str]:
    return [
        str(name)
        for name, values in dataset.data_vars.items()
        if name != "diverged_at" and values.dtype.kind in "biuf"
    ]


def _rows(name: str, dataset: xr.Dataset) -> Iterator[dict[str, str]]:
    for metric in _metrics(dataset):
        table = _statistics(dataset, metric)
        columns = {"dataset": np.full(table["count"].size, name)}
        columns |= {
            column: np.broadcast_to(values, table["count"].shape).ravel()
            for column, values in _settings(dataset, metric, table["count"].dims).items()
        }
        columns["metric"] = np.full(table["count"].size, metric)
        texts = {column: list(map(str, values)) for column, values in columns.items()}
        texts |= {
            statistic: list(map(_text, table[statistic].values.ravel())) for statistic in STATISTICS
        }
        for values in zip(*texts.values(), strict=True):
            yield dict(zip(texts, values, strict=True))


def _thinned(dataset: xr.Dataset, most: int) -> xr.Dataset:
    """The first, the last and evenly spaced frames between, in at most this number of rows."""
    if "step" not in dataset.dims:
        return dataset
    frames = dataset.sizes["step"]
    few = min(MOST_FRAMES, frames, most * min(frames, MOST_FRAMES) // max(_size(dataset), 1))
    chosen = np.linspace(0, frames - 1, max(few, min(frames, 2)))
    return dataset.isel(step=np.unique(np.round(chosen).astype(int)))


def _statistics(dataset: xr.Dataset, metric: str) -> dict[str, xr.DataArray]:
    """The statistics of a metric over seeds, all with the same dims."""
    from causal_sgd.analysis import summary
    from causal_sgd.analysis._summaries import valid

    if "seed" not in dataset[metric].dims:
        value = dataset[metric].astype(float)
        single = dict.fromkeys(("median", "q10", "q90", "mean"), value)
        missing = value * np.nan
        return single | {
            "sd": missing,
            "count": value.notnull().astype(int),
            "diverged": missing,
        }
    bands = summary(dataset, metric)
    values = valid(dataset, dataset[metric]).astype(float)
    count = values.count("seed")
    recorded = "diverged_at" in dataset
    return {
        "median": bands["median"],
        "q10": bands["low"],
        "q90": bands["high"],
        "mean": values.mean("seed"),
        "sd": values.std("seed", ddof=1).where(count > 1),
        "count": count,
        "diverged": bands["diverged_fraction"].broadcast_like(count).transpose(*count.dims)
        if recorded
        else count * np.nan,
    }


def _settings(dataset: xr.Dataset, metric: str, dims: tuple[object, ...]) -> dict[str, np.ndarray]:
    """The columns that tell the rows of a metric apart, each broadcast against its dims."""
    columns: dict[str, np.ndarray] = {}
    for coordinate, values in dataset.coords.items():
        if coordinate == "seed" or not set(values.dims) <= set(dims):
            continue
        name = str(coordinate)
        if name in RESERVED and name != "step":
            name = f"setting_{name}"
        columns[name] = _along(values.values, [dims.index(dim) for dim in values.dims], len(dims))
    for place, dim in enumerate(dims):
        labelled = any(dim in values.dims for values in dataset.coords.values())
        if not labelled:
            name = str(dim)
            if name.startswith(f"{metric}_"):  # of a metric whose values are arrays
                name = "index" + name.removeprefix(metric).removesuffix("_0")
            columns[name] = _along(np.arange(dataset.sizes[str(dim)]), [place], len(dims))
    return columns


def _along(values: np.ndarray, places: list[int], ndim: int) -> np.ndarray:
    """Values whose axes become the axes `places` among `ndim`."""
    ordered = np.transpose(values, np.argsort(places)) if places else values
    shape = np.ones(ndim, int)
    shape[sorted(places)] = ordered.shape
    return ordered.reshape(shape)


def _text(value: float) -> str:
    """Nine digits, which distinguish all numbers of single precision; nothing for NaN."""
    return "" if np.isnan(value) else f"{value:.9g}"

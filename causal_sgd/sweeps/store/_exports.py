"""The results of a store as files for other programs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import xarray as xr

from causal_sgd import checks
from causal_sgd.figures._files import replacing
from causal_sgd.sweeps._netcdf import write_netcdf
from causal_sgd.sweeps.store._disk import Store
from causal_sgd.sweeps.store._forms import is_full, listed

__all__ = ["export_results"]

NUMBERS_AT_ONCE = 10**7  # of a table


def export_results(path: str | Path, out: str | Path) -> xr.Dataset:
    """Write the results of a store to a file, piece by piece if they are large.

    A table (.csv) has the runs that are done: a row for every run and recorded step, with a column
    for every parameter, the seed, the step, every metric (or entry of an array) and `diverged_at`.

    A netCDF file (.nc) has the dataset of `open_results` if every combination of the axis values
    and seeds was requested. The results of other requests, such as those of `refine`, would leave
    most of that grid empty. The file then has the runs that are done along one dimension `run`,
    with their parameters and seeds as coordinates.

    If writing fails, a file that was there before stays as it was.

    Args:
        path: of the store, or its URL.
        out: the file, .nc or .csv.

    Returns:
        The dataset in the file, read on access: that of the full grid, or that of the runs.

    Raises:
        StoreError: (a ValueError) if there is no store or it is damaged.
        ValueError: for another type of file, if a netCDF file cannot hold a variable, or if no run
            is done.
    """
    out = checks.path("out", out)
    checks.choice("out's suffix", out.suffix, (".nc", ".csv"))
    store = Store(path)
    if out.suffix == ".nc":
        hull = store.hull()
        dataset = store.dataset(hull) if is_full(store, hull) else listed(store)
        write_netcdf(dataset, out)
        return dataset
    dataset = listed(store)
    with replacing(out) as draft:
        _write_table(dataset, draft)
    return dataset


def _write_table(runs: xr.Dataset, out: Path) -> None:
    """Write a table in pieces of some runs."""
    dim, count = str(runs["diverged_at"].dims[0]), runs["diverged_at"].size
    numbers = sum(variable.size for variable in runs.variables.values())
    piece = max(NUMBERS_AT_ONCE * count // numbers, 1)
    with out.open("w", encoding="utf-8", newline="") as file:
        for start in range(0, count, piece):
            part = runs.isel({dim: slice(start, start + piece)}).load()
            _frame(part, dim).to_csv(file, header=not start, index=False)


def _frame(runs: xr.Dataset, dim: str) -> pd.DataFrame:
    """A row for every run and step, and a column for every entry of an array."""
    flat = runs
    for name in list(runs.data_vars):
        inner = [each for each in runs[name].dims if each not in (dim, "step")]
        if inner:
            entries = runs[name].stack(entry=inner, create_index=False)
            columns = {
                f"{name}_{i}": entries.isel(entry=i, drop=True)
                for i in range(entries.sizes["entry"])
            }
            flat = flat.drop_vars(str(name)).assign(columns)
    coordinates = [str(name) for name in runs.coords if name != "step"]
    frame = flat.to_dataframe(dim_order=[dim, "step"]).reset_index()
    return frame.loc[:, [*coordinates, "step", *map(str, flat.data_vars)]]

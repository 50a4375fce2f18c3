"""The results of a store as files for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.figures._files import replacing
from causal_sgd.sweeps._netcdf import write_netcdf
from causal_sgd.sweeps.store._disk import open_results

__all__ = ["export_results"]

ROWS_AT_ONCE = 10**6


def export_results(path: str | Path, out: str | Path) -> xr.Dataset:
    """Write the results of a store to a file.

    Args:
        path: of the store, or its URL.
        out: a netCDF file (.nc) with the labels of the dataset; or a table (.csv) with one row per
            run and recorded step, and one column per axis, metric (per entry, for arrays),
            `diverged_at` and `done`.

    If writing fails, a file that was there before stays as it was.

    Returns:
        The dataset of the store.

    Raises:
        StoreError: (a ValueError) if there is no store or it is damaged.
        ValueError: for another type of file, or if a netCDF file cannot hold a variable.
    """
    out = checks.path("out", out)
    checks.choice("out's suffix", out.suffix, (".nc", ".csv"))
    dataset = open_results(path)
    if out.suffix == ".nc":
        write_netcdf(dataset, out)
    else:
        with replacing(out) as draft:
            _write_table(dataset, draft)
    return dataset


def _write_table(dataset: xr.Dataset, out: Path) -> None:
    """Write pieces along the first dimension, so that a large store needs little memory."""
    first = str(next(iter(dataset["diverged_at"].dims)))
    rows = int(np.prod([dataset.sizes[dim] for dim in (*dataset["diverged_at"].dims, "step")]))
    piece = max(ROWS_AT_ONCE * dataset.sizes[first] // rows, 1)
    flat = dataset
    for name in list(dataset.data_vars):
        inner = [dim for dim in dataset[name].dims if str(dim).startswith(f"{name}_")]
        if inner:
            entries = dataset[name].stack(entry=inner, create_index=False)
            columns = {
                f"{name}_{i}": entries.isel(entry=i, drop=True)
                for i in range(entries.sizes["entry"])
            }
            flat = flat.drop_vars(str(name)).assign(columns)
    for start in range(0, dataset.sizes[first], piece):
        part = flat.isel({first: slice(start, start + piece)}).load()
        order = [*(str(dim) for dim in dataset["diverged_at"].dims), "step"]
        part.to_dataframe(dim_order=order).to_csv(out, mode="a" if start else "w", header=not start)

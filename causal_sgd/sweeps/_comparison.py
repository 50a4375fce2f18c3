"""Sweeps of several cells over the same axes and seeds, stacked into one dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from causal_sgd import checks
from causal_sgd.sweeps import _machine
from causal_sgd.sweeps._failures import SweepError
from causal_sgd.sweeps._names import check_dim, check_files
from causal_sgd.sweeps._options import CompareOptions
from causal_sgd.sweeps._programs import Cell
from causal_sgd.sweeps._sweep import Sweep, how_to_go_on

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["compare"]


def compare(
    cells: Mapping[str, Cell],
    *,
    dim: str = "variant",
    store: str | Path | None = None,
    **options: Unpack[CompareOptions],
) -> xr.Dataset:
    """Sweep several cells over the same axes and seeds, and stack the results.

    Use it to vary anything that is neither an array shape nor a number: a sampler, an optimizer, a
    measurement. All methods share worlds, data, initialisations and measurements seed by seed, so
    their differences are paired. All cells are checked before any is run, and the next one is
    compiled while the current one is.

    Args:
        cells: method name -> cell.
        dim: the name of the new leading dimension.
        store: a folder that holds one store per cell, named after it.
        **options: as for `sweep`.

    Returns:
        The dataset of `sweep` with `dim` in front. A metric that a cell lacks is NaN there.

    Raises:
        ValueError: as `sweep` does for any of the cells, or if they record different steps or
            metrics of different shapes, the results use `dim` already, or with a store, if the name
            of a cell is no name of a file.
        SweepError: at the end, if some tiles failed; its dataset has all methods.
    """
    import xarray as xr

    sweeps = _sweeps(cells, dim, store, options)
    try:
        parts, errors = _run(sweeps)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(sweeps)) from None
    if errors:
        steps = next((part["step"] for part in parts if _done(part).any()), None)
        parts = [
            part.assign_coords(done=_done(part), step=part["step"] if steps is None else steps)
            for part in parts
        ]
    parts = _with_nan(parts)
    variants = xr.Variable(dim, list(cells))
    dataset = xr.concat(
        parts, dim=variants, combine_attrs="override", join="exact", data_vars="all"
    )
    if errors:
        message = "\n".join(f"{label}: {error}" for label, error in errors.items())
        failures = [failure for error in errors.values() for failure in error.failures]
        raise SweepError(message, failures, dataset)
    return dataset


def _sweeps(
    cells: Mapping[str, Cell],
    dim: str,
    store: str | Path | None,
    options: CompareOptions,
) -> list[Sweep]:
    """The checked sweeps of all cells."""
    checks.instance("cells", cells, Mapping, "a mapping of names to cells")
    checks.instance("dim", dim, str, "the name of a dimension")
    if not cells:
        raise ValueError("cells must name at least one cell, got none")
    for name in cells:
        checks.instance("cells", name, str, "a mapping of names to cells")
    if store is not None:
        check_files(cells)
        store = checks.place("store", store)
        if isinstance(store, Path):
            with contextlib.suppress(OSError):  # the first store reports the reason
                store.mkdir(parents=True, exist_ok=True)
    sweeps: list[Sweep] = []
    for name, cell in cells.items():
        own = None if store is None else store / f"{name}.zarr"
        sweeps.append(Sweep.make(cell, label=name, store=own, **options))
        _check_shapes(sweeps[0], sweeps[-1])
    check_dim(dim, sweeps[0].grid.axes, [each.metrics for each in sweeps])
    return sweeps


def _run(sweeps: Sequence[Sweep]) -> tuple[list[xr.Dataset], dict[str, SweepError]]:
    """Run sweeps one after another, each compiled while its predecessor is compiled or run."""
    parts: list[xr.Dataset] = []
    steps: xr.DataArray | None = None
    errors: dict[str, SweepError] = {}
    with ThreadPoolExecutor(_machine.cores()) as pool:
        sweeps[0].begin(pool)
        for index, current in enumerate(sweeps):
            for following in sweeps[index + 1 : index + 2]:
                following.begin(pool)
            try:
                part = current.run()
            except SweepError as error:
                errors[current.label] = error
                part = error.dataset
            if _done(part).any():  # a sweep that failed as a whole has no steps
                steps = part["step"] if steps is None else steps
                if not steps.equals(part["step"]):
                    raise ValueError(
                        f"cells must record the same steps, got {steps.values.tolist()} and, "
                        f"for {current.label!r}, {part['step'].values.tolist()}"
                    )
            parts.append(part)
    return parts, errors


def _check_shapes(one: Sweep, other: Sweep) -> None:
    """Refuse cells whose results cannot be stacked."""
    first, second = (
        {"step": shapes.step, **shapes.metrics} for shapes in (one.shapes, other.shapes)
    )
    for name in first:
        if name in second and first[name].shape != second[name].shape:
            raise ValueError(
                f"cells must give the same shapes, got {first[name].shape} for {name!r} in "
                f"{one.label!r} and {second[name].shape} in {other.label!r}"
            )


def _with_nan(parts: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The datasets with metrics in types that have NaN, where some lack a metric or runs of it."""
    from causal_sgd.sweeps._datasets import with_nan

    metrics = {str(name) for part in parts for name in part.data_vars} - {"diverged_at"}
    for name in metrics:
        kinds = {part[name].dtype for part in parts if name in part}
        if len(kinds) > 1 or not all(name in part for part in parts):
            parts = [
                part.assign({name: (part[name].dims, with_nan(name, part[name].values))})
                if name in part
                else part
                for part in parts
            ]
    return list(parts)


def _done(part: xr.Dataset) -> xr.DataArray:
    """Whether each run was computed."""
    import xarray as xr

    return part["done"] if "done" in part.coords else xr.ones_like(part["diverged_at"], dtype=bool)

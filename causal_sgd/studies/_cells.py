"""Cells and comparisons that several studies run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict, Unpack

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr
    from jax.typing import ArrayLike

    from causal_sgd.experiment import Experiment
    from causal_sgd.types import Key, Trace

__all__ = ["Cell", "Options", "averaged", "both_methods", "compare_over"]

Cell = Callable[..., "Trace"]


class Options(TypedDict):
    """The arguments of `sweep` and `compare` that all sweeps of a study share."""

    key: int
    progress: bool | None


def averaged(cell: Cell, *, after: float = 0.2) -> Cell:
    """A cell that records one frame: the time averages of the metrics after a share of the run."""
    from causal_sgd.training import time_average

    @functools.wraps(cell)  # with its signature, from which `sweep` reads the parameters
    def average(key: Key, **numbers: ArrayLike) -> Trace:
        return time_average(cell(key, **numbers), after=after)

    return average


def both_methods(experiment: Experiment) -> dict[str, Cell]:
    """The cells of HeteroSGD and PooledSGD on one experiment."""
    return {
        "HeteroSGD": experiment.cell(),
        "PooledSGD": experiment.replace(sampler="pooled").cell(),
    }


def compare_over(
    axis: str,
    cells: Mapping[int, Cell],
    *,
    seeds: int,
    axes: Mapping[str, npt.ArrayLike] | None = None,
    **options: Unpack[Options],
) -> xr.Dataset:
    """Compare the cells of a static number, such as a rank, as one axis.

    Args:
        axis: name of the axis.
        cells: value of the number -> cell.
        seeds: the number of seeds.
        axes: further axes, as for `sweep`.
        **options: of `compare`.
    """
    from causal_sgd.sweeps import compare

    named = {str(value): cell for value, cell in cells.items()}
    dataset = compare(named, axes=axes, seeds=seeds, **options)
    return dataset.assign_coords(variant=list(cells)).rename(variant=axis)

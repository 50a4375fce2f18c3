"""Refine a diagram near a boundary: ask which runs are needed next, tell their results.

The diagram is a full grid, of which only some cells are run. It begins with a coarse subset of the
grid, whose neighbours span boxes. While the binomial interval of a cell straddles the share, the
cell gets more seeds, up to a limit. Then every box with cells on different sides (rejects, keeps,
mostly diverged) is halved along each axis, and its new corners are run. What remains unresolved is
a chain of boxes of neighbouring cells: the boundary at the resolution of the full grid. The runs
are a subset of the sweep over the full grid, with the same seeds. Estimators and figures therefore
treat the result as a sweep with missing cells, and a store can be shared with such a sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import final, metric_names
from causal_sgd.analysis._crossings import clopper_pearson
from causal_sgd.analysis._summaries import real
from causal_sgd.sweeps._datasets import with_nan
from causal_sgd.sweeps._grid import Grid, Zipped, axis_values, zipped

__all__ = [
    "FIRST_SEEDS",
    "Refinement",
    "Request",
    "ask",
    "cells",
    "limited",
    "refinement",
    "tell",
]

FIRST_SEEDS = 8  # if all agree, the 95 % interval excludes 1/2, even with one seed less
COARSE_STEP = 8  # the most cells between neighbours of the coarse grid
UNKNOWN, KEEPS, REJECTS, LOST = -1, 0, 1, 2  # sides

Box = tuple[tuple[int, int], ...]
"""First and last index along every axis."""


class Refinement(NamedTuple):
    """The state of a refined diagram; `tell` returns a new one."""

    axes: Mapping[str, np.ndarray]  # parameter -> its increasing values
    metric: str
    level: float  # a final value below it is a rejection
    share: float  # of rejecting seeds, from which on a cell rejects
    confidence: float  # of the binomial interval of a cell
    coarse: int  # initial cells along each axis
    first_seeds: int  # of every cell that is run
    max_seeds: int  # of a cell whose interval straddles the share
    values: np.ndarray  # [*axes, max_seeds] final values of the metric, NaN where not run
    diverged_at: np.ndarray  # [*axes, max_seeds] -1 for never, or where not run
    done: np.ndarray  # [*axes, max_seeds] whether it was run

    @property
    def runs(self) -> int:
        """The number of runs with results."""
        return int(self.done.sum())

    @property
    def grid(self) -> Grid:
        """The full grid, with all seeds."""
        axes = {name: {name: values} for name, values in self.axes.items()}
        return Grid(axes, np.arange(self.max_seeds))

    def dataset(self) -> xr.Dataset:
        """The final values over the full grid, dims (*axes, seed), with the coordinate `done`."""
        dims = (*self.axes, "seed")
        coordinates = {**self.axes, "seed": np.arange(self.max_seeds), "done": (dims, self.done)}
        variables = {self.metric: (dims, self.values), "diverged_at": (dims, self.diverged_at)}
        return xr.Dataset(variables, coordinates)


class Request(NamedTuple):
    """Runs that are needed next: every point with every seed."""

    points: Mapping[str, np.ndarray]  # parameter -> values [n], one for each point
    seeds: range

    @property
    def size(self) -> int:
        """The number of runs."""
        return len(next(iter(self.points.values()))) * len(self.seeds)

    @property
    def axes(self) -> dict[str, Zipped]:
        """The points as the one axis of a `sweep`."""
        return {"point": zipped(**self.points)}


def refinement(
    axes: Mapping[str, npt.ArrayLike],
    *,
    metric: str = "spurious_signal",
    level: float,
    share: float = 0.5,
    confidence: float = 0.95,
    coarse: int | None = None,
    first_seeds: int = FIRST_SEEDS,
    max_seeds: int = 32,
) -> Refinement:
    """A diagram without results.

    Args:
        axes: parameter name -> increasing values of the full grid; any number of axes.
        metric: the metric whose final values decide.
        level: a value below it is a rejection.
        share: fraction of rejecting seeds, in (0, 1), from which on a cell rejects.
        confidence: of the Clopper-Pearson interval of each cell, in (0, 1).
        coarse: initial cells along each axis, evenly spaced; None for every eighth, and at least 5.
            Features smaller than their distance, such as islands, may be missed.
        first_seeds: seeds of every cell that is run.
        max_seeds: seeds of a cell that stays undecided.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.instance("axes", axes, Mapping, "a mapping of parameter names to their values")
    checks.instance("metric", metric, str, "the name of a metric")
    grid = {name: axis_values(name, values) for name, values in axes.items()}
    if not grid:
        raise ValueError("axes must name at least one axis, got none")
    for name, values in grid.items():
        if len(values) < 2 or (np.diff(values) <= 0).any():
            raise ValueError(
                f"axis {name!r} must have at least two increasing values, got {values.tolist()}"
            )
    checks.number("level", level, double=True)
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("first_seeds", first_seeds)
    checks.integer("max_seeds", max_seeds, minimum=first_seeds)
    if coarse is None:
        coarse = max(5, -(-(max(map(len, grid.values())) - 1) // COARSE_STEP) + 1)
    checks.integer("coarse", coarse, minimum=2)
    shape = (*map(len, grid.values()), max_seeds)
    return Refinement(
        axes=grid,
        metric=metric,
        level=float(level),
        share=share,
        confidence=confidence,
        coarse=coarse,
        first_seeds=first_seeds,
        max_seeds=max_seeds,
        values=np.full(shape, np.nan, np.float32),
        diverged_at=np.full(shape, -1, np.int32),
        done=np.zeros(shape, bool),
    )


def ask(state: Refinement) -> Request | None:
    """Return the runs that are needed next; None once more would not sharpen the boundary.

    First come more seeds, doubled each time, for cells whose interval straddles the share. If there
    are none, the first seeds of the new corners of boxes that the boundary crosses follow. Last
    come all seeds of the neighbouring cells between which the boundary is interpolated.
    """
    _check_state(state)
    sides, undecided = _sides(state)
    counts = _counts(state)
    wanted = undecided & (counts < state.max_seeds)
    for crossed, limit in ((False, state.first_seeds), (True, state.max_seeds)):
        if not wanted.any():
            wanted = _corners(state, sides, crossed=crossed) & (counts < limit)
    if not wanted.any():
        return None
    fewest = int(counts[wanted].min())
    target = state.first_seeds if fewest < state.first_seeds else min(2 * fewest, state.max_seeds)
    indices = np.nonzero(wanted & (counts == fewest))
    points = {
        name: values[index]
        for (name, values), index in zip(state.axes.items(), indices, strict=True)
    }
    return Request(points, range(fewest, target))


def tell(state: Refinement, dataset: xr.Dataset) -> Refinement:
    """Add the results of runs, requested or not; adding the same runs again changes nothing.

    Args:
        state: the diagram so far.
        dataset: of a sweep over points or any subset of the grid, with the metric, and with seeds
            counted from 0.

    Raises:
        ValueError: if the metric or an axis is missing, or a point is not on the grid.
    """
    _check_state(state)
    checks.choice("metric", state.metric, metric_names(dataset))
    for name in state.axes:
        checks.choice(
            "axis of the dataset", name, [str(coordinate) for coordinate in dataset.coords]
        )
    names = [state.metric, "diverged_at", *({"done"} & set(dataset.coords))]
    table = final(dataset.reset_coords("done") if "done" in names else dataset)[names]
    dims = [str(dim) for dim in table["diverged_at"].dims if dim != "seed"]
    real(table[state.metric])
    flat = table.stack(cell=dims, create_index=False).transpose("cell", "seed")
    indices = cells(state, {name: flat[name].values[:, None] for name in state.axes})
    seeds = flat["seed"].values
    valid = np.broadcast_to(seeds < state.max_seeds, flat["diverged_at"].shape)
    if "done" in names:
        valid = valid & flat["done"].values
    where = tuple(
        np.broadcast_to(index, valid.shape)[valid] for index in (*indices, seeds[None, :])
    )
    results = with_nan(state.metric, flat[state.metric].values)
    values = state.values.astype(np.result_type(state.values, results))
    diverged_at, done = state.diverged_at.copy(), state.done.copy()
    values[where] = results[valid]
    diverged_at[where] = flat["diverged_at"].values[valid]
    done[where] = True
    return state._replace(values=values, diverged_at=diverged_at, done=done)


def cells(state: Refinement, points: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The indices of points on each axis, in the shape of their values.

    Raises:
        ValueError: if a point is not on the grid.
    """
    return [_indices(name, axis, points[name]) for name, axis in state.axes.items()]


def _check_state(state: object) -> None:
    checks.instance("state", state, Refinement, "a Refinement, as `refinement` returns it")


def limited(state: Refinement, max_seeds: int) -> Refinement:
    """The same results with another limit of the seeds."""
    padding = [(0, 0)] * len(state.axes) + [(0, max(max_seeds - state.max_seeds, 0))]

    def resized(array: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(array, padding, constant_values=fill)[..., :max_seeds]

    return state._replace(
        max_seeds=max_seeds,
        values=resized(state.values, np.nan),
        diverged_at=resized(state.diverged_at, -1),
        done=resized(state.done, False),
    )


def _counts(state: Refinement) -> np.ndarray:
    """The number of consecutive seeds of each cell that were run, [*axes]."""
    return np.where(state.done.all(-1), state.max_seeds, np.argmin(state.done, -1))


def _sides(state: Refinement) -> tuple[np.ndarray, np.ndarray]:
    """The side of each cell so far, and whether it is undecided, [*axes]."""
    runs = state.done.sum(-1)
    finite = state.done & (state.diverged_at < 0) & np.isfinite(state.values)
    finite_runs = finite.sum(-1)
    rejects = (finite & (state.values < np.float64(state.level))).sum(-1)
    sides = np.where(rejects >= state.share * finite_runs, REJECTS, KEEPS)
    sides = np.where(2 * finite_runs < runs, LOST, sides)
    sides = np.where(runs > 0, sides, UNKNOWN)

    def straddles(count: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
        low, high = clopper_pearson(count, total, state.confidence)
        return (low <= share) & (high >= share)

    undecided = straddles(runs - finite_runs, runs, 0.5) | (
        (sides != LOST) & straddles(rejects, finite_runs, state.share)
    )
    return sides, undecided & (runs > 0)


def _corners(state: Refinement, sides: np.ndarray, *, crossed: bool) -> np.ndarray:
    """The corners of all boxes, or only of those that the boundary crosses, as a mask [*axes]."""
    mask = np.zeros(sides.shape, bool)
    for box, mixed in _boxes(state, sides):
        if mixed or not crossed:
            mask[np.ix_(*box)] = True
    return mask


def _boxes(state: Refinement, sides: np.ndarray) -> Iterator[tuple[Box, bool]]:
    """The boxes of the refined grid, and whether each has cells on different sides.

    A box whose corners were run and that has cells on different sides is halved as often as
    possible.
    """
    starts = []
    for values in state.axes.values():
        count = min(state.coarse, len(values))
        indices = np.unique(np.round(np.linspace(0, len(values) - 1, count)).astype(int))
        starts.append(list(itertools.pairwise(indices.tolist())))
    waiting: list[Box] = list(itertools.product(*starts))
    while waiting:
        box = waiting.pop()
        inside = sides[tuple(slice(first, last + 1) for first, last in box)]
        # Cells on the rim that only a neighbour requested count too, so that the boundary is
        # followed into the next box.
        decided = inside[inside != UNKNOWN]
        mixed = bool((decided != decided[:1]).any())
        whole = (sides[np.ix_(*box)] != UNKNOWN).all()
        if mixed and whole and any(last - first > 1 for first, last in box):
            waiting += itertools.product(*map(_halves, box))
        else:
            yield box, mixed


def _halves(side: tuple[int, int]) -> list[tuple[int, int]]:
    first, last = side
    middle = (first + last) // 2
    return [side] if last - first == 1 else [(first, middle), (middle, last)]


def _indices(name: str, axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The indices of values on an axis."""
    index = np.clip(np.searchsorted(axis, values), 1, len(axis) - 1)
    index = index - (np.abs(values - axis[index - 1]) < np.abs(values - axis[index]))
    off = ~np.isclose(values, axis[index], rtol=1e-6, atol=0)
    if off.any():
        raise ValueError(
            f"dataset must have values of {name!r} that are on the grid, got {values[off][0]:g}"
        )
    return index

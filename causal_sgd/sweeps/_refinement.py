"""Refine a diagram where the boundary passes: ask which runs are needed next, tell what they gave.

The diagram is the full grid of some axes, of which only some cells are run. It begins with a coarse subset of the grid,
whose neighbours span boxes. As long as the binomial interval of a cell that was run straddles the share, it gets more
seeds, up to a limit; then every box in which cells lie on different sides (rejects, keeps, mostly diverged) is cut in
half along each axis, and its new corners are run. What remains unresolved is a chain of boxes of neighbouring cells:
the boundary at the resolution of the full grid. Runs are those of a sweep over it, seed by seed, so that estimators
and figures take the result like any sweep with missing cells, and a store can be shared with such a sweep.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import final, metric_names, rejection_boundary
from causal_sgd.analysis._crossings import clopper_pearson
from causal_sgd.sweeps._grid import Grid, Zipped, axis_values, zipped

if TYPE_CHECKING:
    from causal_sgd.sweeps._programs import Cell

__all__ = ["Refinement", "Request", "ask", "refine", "refinement", "tell"]

FIRST_SEEDS = 8  # the least number that, all of one mind, decides at 95 % with a seed to spare
COARSE_STEP = 8  # at most so many cells lie between neighbours of the coarse grid
UNKNOWN, KEEPS, REJECTS, LOST = -1, 0, 1, 2  # sides

Box = tuple[tuple[int, int], ...]
"""First and last index along every axis."""


class Refinement(NamedTuple):
    """What is known of a diagram; `tell` makes a new one."""

    axes: Mapping[str, np.ndarray]  # parameter -> its increasing values
    metric: str
    level: float  # a final value below it is a rejection
    share: float  # of the seeds, which makes a cell one that rejects
    confidence: float  # of the interval of a cell's binomial
    coarse: int  # cells along each axis to begin with
    first_seeds: int  # of every cell that is run
    max_seeds: int  # of a cell whose interval straddles the share
    values: np.ndarray  # [*axes, max_seeds] final values of the metric, NaN where not run
    diverged_at: np.ndarray  # [*axes, max_seeds] -1 for never, or where not run
    done: np.ndarray  # [*axes, max_seeds] whether it was run

    @property
    def runs(self) -> int:
        """How many runs were told."""
        return int(self.done.sum())

    def dataset(self) -> xr.Dataset:
        """The results over the full grid, dims (*axes, seed); False in the coordinate `done` where a run is missing."""
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
    axes: Mapping[str, Any],
    *,
    metric: str = "spurious_signal",
    level: float,
    share: float = 0.5,
    confidence: float = 0.95,
    coarse: int | None = None,
    first_seeds: int = FIRST_SEEDS,
    max_seeds: int = 32,
) -> Refinement:
    """A diagram of which nothing is known yet.

    Args:
        axes: parameter name -> increasing values: the grid in whose cells the boundary is wanted. Any number of axes.
        metric: whose final values are taken.
        level: a value below it is a rejection.
        share: of the seeds, in (0, 1); with more than that rejecting, a cell rejects.
        confidence: of the Clopper-Pearson interval of each cell, in (0, 1).
        coarse: cells along each axis to begin with, evenly spread; None for every eighth, and at least 5. What is smaller
            than their distance, such as an island, may be missed.
        first_seeds: of every cell that is run.
        max_seeds: of a cell that stays undecided.

    Raises:
        ValueError: if an argument is out of range.
    """
    grid = {name: axis_values(name, values) for name, values in axes.items()}
    if not grid:
        raise ValueError("axes must name at least one axis, got none")
    for name, values in grid.items():
        if len(values) < 2 or (np.diff(values) <= 0).any():
            raise ValueError(
                f"axis {name!r} must have at least two increasing values, got {values.tolist()}"
            )
    checks.number("level", level)
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("first_seeds", first_seeds)
    checks.integer("max_seeds", max_seeds, minimum=first_seeds)
    if coarse is None:
        coarse = max(5, -(-(max(map(len, grid.values())) - 1) // COARSE_STEP) + 1)
    checks.integer("coarse", coarse, minimum=2)
    shape = (*map(len, grid.values()), max_seeds)
    return Refinement(
        grid, metric, float(level), share, confidence, coarse, first_seeds, max_seeds,
        np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int32), np.zeros(shape, bool),
    )  # fmt: skip


def ask(state: Refinement) -> Request | None:
    """What is needed next; None once the boundary is known as well as the grid and the seeds allow.

    First more seeds, twice as many each time, for cells whose interval straddles the share; where there are none, the
    first seeds of the new corners of the boxes through which the boundary passes; and at last all seeds for the
    neighbouring cells between which it passes, as it is interpolated between their fractions.
    """
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
    places = np.nonzero(wanted & (counts == fewest))
    points = {
        name: values[place]
        for (name, values), place in zip(state.axes.items(), places, strict=True)
    }
    return Request(points, range(fewest, target))


def tell(state: Refinement, dataset: xr.Dataset) -> Refinement:
    """Add the results of runs, asked for or not; the same run told again changes nothing.

    Args:
        state: what was known.
        dataset: of a sweep over points or over any subset of the grid, with the metric, and seeds counted from 0.

    Raises:
        ValueError: if the metric or an axis is missing, or a point is not on the grid.
    """
    checks.choice("metric", state.metric, metric_names(dataset))
    for name in state.axes:
        checks.choice(
            "axis of the dataset", name, [str(coordinate) for coordinate in dataset.coords]
        )
    names = [state.metric, "diverged_at", *({"done"} & set(dataset.coords))]
    table = final(dataset.reset_coords("done") if "done" in names else dataset)[names]
    dims = [str(dim) for dim in table["diverged_at"].dims if dim != "seed"]
    flat = table.stack(cell=dims, create_index=False).transpose("cell", "seed")
    places = [
        _places(name, values, flat[name].values)[:, None] for name, values in state.axes.items()
    ]
    seeds = flat["seed"].values
    kept = np.broadcast_to(seeds < state.max_seeds, flat["diverged_at"].shape)
    if "done" in names:
        kept = kept & flat["done"].values
    where = tuple(np.broadcast_to(index, kept.shape)[kept] for index in (*places, seeds[None, :]))
    values, diverged_at, done = state.values.copy(), state.diverged_at.copy(), state.done.copy()
    values[where] = flat[state.metric].values[kept]
    diverged_at[where] = flat["diverged_at"].values[kept]
    done[where] = True
    return state._replace(values=values, diverged_at=diverged_at, done=done)


def refine(
    cell: Cell,
    *,
    axes: Mapping[str, Any],
    metric: str = "spurious_signal",
    level: float,
    share: float = 0.5,
    confidence: float = 0.95,
    coarse: int | None = None,
    first_seeds: int = FIRST_SEEDS,
    max_seeds: int = 32,
    budget: int | None = None,
    precision: float | None = None,
    along: str | None = None,
    **options: Any,
) -> xr.Dataset:
    """Sweep those cells of a grid through which a boundary passes.

    With a store, the same call goes on where it was stopped: what it asks for follows from what is known, so that nothing
    is lost and nothing is computed twice.

    Args:
        cell: as for `sweep`.
        axes: parameter name -> increasing values of the full grid.
        metric: see `refinement`, as for the other arguments that are not named here.
        level: a value below it is a rejection.
        share: of the seeds that reject.
        confidence: of the intervals.
        coarse: cells along each axis to begin with.
        first_seeds: of every cell that is run.
        max_seeds: of a cell that stays undecided.
        budget: the most runs; None for as many as it takes.
        precision: begin with twice the first seeds as the limit and double it, up to `max_seeds`, until half the interval of
            the boundary is at most this, in units of the axis `along` and in the median along the boundary. None
            for `max_seeds` at once.
        along: the axis that `precision` is measured along; None for the first.
        **options: as for `sweep`: key, store, executor, progress, ...

    Returns:
        A dataset with the metric and `diverged_at`, dims (*axes, seed), and the coordinate `done`: False, NaN and -1
        where a run was not needed. `rejection_boundary` finds the boundary in it.

    Raises:
        ValueError: if an argument is out of range; see `sweep`.
    """
    from causal_sgd.sweeps._sweep import sweep

    names = {"metric": metric, "level": level, "share": share, "confidence": confidence}
    state = refinement(axes, **names, coarse=coarse, first_seeds=first_seeds, max_seeds=max_seeds)
    along = checks.choice("along", next(iter(axes)) if along is None else along, axes)
    if budget is not None:
        checks.integer("budget", budget)
    if precision is not None:
        checks.number("precision", precision, above=0)
        state = _limited(state, min(2 * first_seeds, max_seeds))
    check_metric(cell, axes, metric)
    options = {"label": "refinement"} | options
    attributes: dict[str, Any] = {}
    while True:
        request = ask(state)
        if request is None:
            if precision is None or state.max_seeds >= max_seeds:
                break
            found = rejection_boundary(
                state.dataset(), metric, along=along, level=level, share=share, resamples=199
            )
            half = ((found.high - found.low) / 2).where(found["value"].notnull())
            if half.notnull().any() and float(half.median()) <= precision:
                break
            state = _limited(state, min(2 * state.max_seeds, max_seeds))
            continue
        if budget is not None:
            points = min(
                (budget - state.runs) // len(request.seeds), request.size // len(request.seeds)
            )
            if points < 1:
                break
            request = request._replace(
                points={name: values[:points] for name, values in request.points.items()}
            )
        told = sweep(cell, axes=request.axes, seeds=request.seeds, **options)
        attributes = attributes or dict(told.attrs)
        state = tell(state, told)
    return state.dataset().assign_attrs(attributes)


def check_metric(cell: Cell, axes: Mapping[str, Any], metric: str) -> None:
    """Raise ValueError unless a cell records a metric that is one number a frame; nothing is run."""
    import jax

    from causal_sgd.sweeps import _machine

    grid = Grid.make(cell, axes, 1)
    _machine.local_devices(None)  # before the first key, as in `sweep`
    recorded = jax.eval_shape(lambda key: cell(key, **grid.corners()[0]), jax.random.key(0)).metrics
    shape = recorded[checks.choice("metric", metric, recorded)].shape[1:]
    if shape:
        raise ValueError(f"metric must be one number a frame, got {metric!r} of shape {shape}")


def _limited(state: Refinement, max_seeds: int) -> Refinement:
    """With another limit of the seeds."""
    room = [(0, 0)] * len(state.axes) + [(0, max(max_seeds - state.max_seeds, 0))]
    grown = {
        name: np.pad(array, room, constant_values=fill)[..., :max_seeds]
        for name, array, fill in (
            ("values", state.values, np.nan), ("diverged_at", state.diverged_at, -1), ("done", state.done, False),
        )
    }  # fmt: skip
    return state._replace(max_seeds=max_seeds, **grown)


def _counts(state: Refinement) -> np.ndarray:
    """How many seeds of each cell were run without a gap, [*axes]."""
    return np.where(state.done.all(-1), state.max_seeds, np.argmin(state.done, -1))


def _sides(state: Refinement) -> tuple[np.ndarray, np.ndarray]:
    """On which side each cell lies by what is known, and whether an interval straddles what decides it, [*axes]."""
    runs = state.done.sum(-1)
    finite = state.done & (state.diverged_at < 0) & np.isfinite(state.values)
    stayed = finite.sum(-1)
    rejects = (finite & (state.values < state.level)).sum(-1)
    sides = np.where(rejects >= state.share * stayed, REJECTS, KEEPS)
    sides = np.where(2 * stayed < runs, LOST, sides)
    sides = np.where(runs > 0, sides, UNKNOWN)

    def straddles(count: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
        low, high = clopper_pearson(count, total, state.confidence)
        return (low <= share) & (high >= share)

    open_ = straddles(runs - stayed, runs, 0.5) | (
        (sides != LOST) & straddles(rejects, stayed, state.share)
    )
    return sides, open_ & (runs > 0)


def _corners(state: Refinement, sides: np.ndarray, *, crossed: bool) -> np.ndarray:
    """The corners of all boxes, or only of those that the boundary crosses, as a mask [*axes]."""
    mask = np.zeros(sides.shape, bool)
    for box, mixed in _boxes(state, sides):
        if mixed or not crossed:
            mask[np.ix_(*box)] = True
    return mask


def _boxes(state: Refinement, sides: np.ndarray) -> Iterator[tuple[Box, bool]]:
    """The boxes of the refined grid, and whether known cells in each lie on different sides; such are cut as far as they go."""
    starts = []
    for values in state.axes.values():
        places = np.unique(
            np.round(np.linspace(0, len(values) - 1, min(state.coarse, len(values)))).astype(int)
        )
        starts.append(list(itertools.pairwise(places.tolist())))
    waiting: list[Box] = list(itertools.product(*starts))
    while waiting:
        box = waiting.pop()
        inside = sides[tuple(slice(first, last + 1) for first, last in box)]
        # Those on the rim that only the neighbours asked for count too: so the boundary is followed into the next box.
        known = inside[inside != UNKNOWN]
        mixed = bool((known != known[:1]).any())
        whole = (sides[np.ix_(*box)] != UNKNOWN).all()
        if mixed and whole and any(last - first > 1 for first, last in box):
            waiting += itertools.product(*map(_halves, box))
        else:
            yield box, mixed


def _halves(side: tuple[int, int]) -> list[tuple[int, int]]:
    first, last = side
    middle = (first + last) // 2
    return [side] if last - first == 1 else [(first, middle), (middle, last)]


def _places(name: str, axis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The indices of values on an axis."""
    place = np.clip(np.searchsorted(axis, values), 1, len(axis) - 1)
    place = place - (np.abs(values - axis[place - 1]) < np.abs(values - axis[place]))
    off = ~np.isclose(values, axis[place], rtol=1e-6, atol=0)
    if off.any():
        raise ValueError(
            f"dataset must have values of {name!r} that are on the grid, got {values[off][0]:g}"
        )
    return place

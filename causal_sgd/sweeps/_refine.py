"""Sweep only those cells of a grid that a boundary needs; `_refinement` chooses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Unpack

import numpy.typing as npt
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis import rejection_boundary
from causal_sgd.sweeps._grid import Grid
from causal_sgd.sweeps._kept import KeptResults
from causal_sgd.sweeps._refinement import (
    FIRST_SEEDS,
    Refinement,
    Request,
    ask,
    limited,
    refinement,
    tell,
)

if TYPE_CHECKING:
    from causal_sgd.sweeps._options import RefineOptions
    from causal_sgd.sweeps._programs import Cell, TracedCell

__all__ = ["check_metric", "refine"]


def refine(
    cell: Cell,
    *,
    axes: Mapping[str, npt.ArrayLike],
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
    **options: Unpack[RefineOptions],
) -> xr.Dataset:
    """Sweep only those cells of a grid that a boundary needs.

    With a store, the same call resumes an interrupted refinement: its requests follow from the
    results so far, so nothing is lost or computed twice.

    Args:
        cell: as for `sweep`.
        axes: parameter name -> increasing values of the full grid.
        metric: as for `refinement`, like the next six arguments.
        level: a value below it is a rejection.
        share: fraction of rejecting seeds.
        confidence: of the intervals.
        coarse: initial cells along each axis.
        first_seeds: seeds of every cell that is run.
        max_seeds: seeds of a cell that stays undecided.
        budget: the maximal number of runs, at least `first_seeds`; None for no limit.
        precision: limit the seeds to twice the first seeds, and double the limit, up to
            `max_seeds`, until the median half-width of the boundary's interval is at most this, in
            units of the axis `along`. None for `max_seeds` at once.
        along: the axis along which `precision` is measured; None for the first.
        **options: as for `sweep`: key, store, executor, progress, ...

    Returns:
        The dataset of the full grid, as `sweep` returns it: all metrics at all recorded steps, and
        `diverged_at`. The coordinate `done` [*axes, seed] is False where a run was not needed, with
        NaN and -1 as values. Values are expanded to the grid on access, so the memory holds those
        of the runs alone; with a store, they are read from disk. `rejection_boundary` finds the
        boundary in it. `open_results(store, unzip=True)` has the runs of the store in this form.

    Raises:
        ValueError: if an argument is out of range; see `sweep`.
    """
    from causal_sgd.sweeps._programs import TracedCell

    names = {"metric": metric, "level": level, "share": share, "confidence": confidence}
    state = refinement(axes, **names, coarse=coarse, first_seeds=first_seeds, max_seeds=max_seeds)
    along = checks.choice("along", next(iter(axes)) if along is None else along, axes)
    if budget is not None:
        checks.integer("budget", budget)
        if budget < first_seeds:
            raise ValueError(
                f"budget must be at least the first seeds of a cell, {first_seeds}, got {budget}"
            )
    if precision is not None:
        checks.number("precision", precision, above=0, double=True)
        state = limited(state, min(2 * first_seeds, max_seeds))
    if (store := options.get("store")) is not None:
        options["store"] = store = checks.place("store", store)
    check_metric(cell, axes, metric)
    options = {"label": "refinement", **options}
    kept = KeptResults()
    traced = TracedCell(cell)  # once for all requests
    while True:
        request = ask(state)
        if request is None:
            if (
                precision is None
                or state.max_seeds >= max_seeds
                or _is_precise(state, along, precision)
            ):
                break
            state = limited(state, min(2 * state.max_seeds, max_seeds))
            continue
        if budget is not None:
            request = _affordable(request, budget - state.runs)
            if request is None:
                break
        results = _sweep(cell, traced, request, options)
        if store is None:
            kept.add(request, results)
        state = tell(state, results)
    if store is None:
        return kept.dataset(state)
    from causal_sgd.sweeps.store import Store

    return Store(store).dataset(state.grid, only=state.done)


def _is_precise(state: Refinement, along: str, precision: float) -> bool:
    """Whether the median half-width of the boundary's interval is small enough."""
    boundary = rejection_boundary(
        state.dataset(),
        state.metric,
        along=along,
        level=state.level,
        share=state.share,
        resamples=199,
    )
    half = ((boundary.high - boundary.low) / 2).where(boundary["value"].notnull())
    return bool(half.notnull().any()) and float(half.median()) <= precision


def _affordable(request: Request, runs: int) -> Request | None:
    """As many points of a request as this number of runs allows; None for none."""
    points = min(runs, request.size) // len(request.seeds)
    if points < 1:
        return None
    return request._replace(
        points={name: values[:points] for name, values in request.points.items()}
    )


def _sweep(cell: Cell, traced: TracedCell, request: Request, options: RefineOptions) -> xr.Dataset:
    """The results of a request.

    Raises:
        KeyboardInterrupt: if interrupted; with a store, the message says how many runs are kept.
    """
    from causal_sgd.sweeps._sweep import Sweep
    from causal_sgd.sweeps.store import Store

    arguments = {"axes": request.axes, "seeds": request.seeds, **options}
    try:
        return Sweep.make(cell, known=traced, **arguments).run()
    except KeyboardInterrupt as stop:
        store = options.get("store")
        if store is None:
            raise
        # Earlier rounds and the current one.
        done = Store(store).progress()[1]
        message = f"{done} runs are kept in {store}; the same call goes on with the others"
        raise KeyboardInterrupt(message) from stop


def check_metric(cell: Cell, axes: Mapping[str, npt.ArrayLike], metric: str) -> None:
    """Check, without running anything, that a cell records a metric with one number per frame.

    Raises:
        ValueError: if it does not.
    """
    import jax

    from causal_sgd.sweeps import _machine

    grid = Grid.make(cell, axes, 1)
    _machine.local_devices(None)  # before the first key, as in `sweep`
    with _machine.applied({}):
        key = jax.random.key(0)
        recorded = jax.eval_shape(lambda key: cell(key, **grid.corners()[0]), key).metrics
    values = recorded[checks.choice("metric", metric, recorded)]
    if shape := values.shape[1:]:
        raise ValueError(f"metric must be one number a frame, got {metric!r} of shape {shape}")
    if jax.numpy.issubdtype(values.dtype, jax.numpy.complexfloating):
        raise ValueError(f"metric must be a real number a frame, got {metric!r} of {values.dtype}")

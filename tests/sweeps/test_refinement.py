"""Refined diagrams: synthetic transitions with a known boundary, three phases, budgets, stores."""

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis, sweeps
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.sweeps.store import Store

Outcome = Callable[..., np.ndarray]
"""(seed [S], *axis values [N]) -> final values [N, S]; NaN for a run that diverged."""


def answer(outcome: Outcome, points: Mapping[str, np.ndarray], seeds: range) -> xr.Dataset:
    """The dataset of a sweep over points."""
    values = outcome(np.array(seeds)[None, :], *(column[:, None] for column in points.values()))
    coords = {name: ("point", column) for name, column in points.items()} | {
        "seed": np.array(seeds)
    }
    dims = ("point", "seed")
    return xr.Dataset(
        {"signal": (dims, values), "diverged_at": (dims, np.where(np.isnan(values), 3, -1))}, coords
    )


def explored(state: sweeps.Refinement, outcome: Outcome) -> sweeps.Refinement:
    while (request := sweeps.ask(state)) is not None:
        state = sweeps.tell(state, answer(outcome, request.points, request.seeds))
    return state


def curve(rate: np.ndarray) -> np.ndarray:
    return 2 + 10 * (1 - rate) ** 2


def synthetic(width: float, key: int = 0) -> Outcome:
    """Every seed has its own threshold, normal about the curve: half of the seeds reject on it."""
    shifts = np.random.default_rng(key).normal(0, width, 256)

    def outcome(seed: np.ndarray, spread: np.ndarray, rate: np.ndarray) -> np.ndarray:
        return np.where(spread > curve(rate) + shifts[seed], 0.0, 1.0)

    return outcome


def axes(count: int) -> dict[str, np.ndarray]:
    return {"spread": np.linspace(0, 14, count), "rate": np.linspace(0, 1, count)}


def uniform(state: sweeps.Refinement, outcome: Outcome) -> xr.Dataset:
    """All cells with all seeds."""
    columns = (column.ravel() for column in np.meshgrid(*state.axes.values(), indexing="ij"))
    everything = answer(
        outcome, dict(zip(state.axes, columns, strict=True)), range(state.max_seeds)
    )
    return sweeps.tell(state, everything).dataset()


def boundary(dataset: xr.Dataset) -> xr.Dataset:
    return analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5, resamples=99)


@pytest.mark.parametrize(("count", "fewer"), [(16, 2.5), (64, 8)])
@pytest.mark.parametrize("width", [0.05, 1.0])
def test_the_boundary_is_that_of_the_full_grid_with_a_fraction_of_its_runs(
    count: int, fewer: float, width: float
) -> None:
    errors, runs = {"refined": [], "full": []}, []
    for key in range(4 if count == 16 else 1):
        outcome = synthetic(width, key)
        empty = sweeps.refinement(axes(count), metric="signal", level=0.5)
        state = explored(empty, outcome)
        runs.append(state.runs)
        for name, dataset in {"refined": state.dataset(), "full": uniform(empty, outcome)}.items():
            found = boundary(dataset)
            assert found["value"].notnull().all()
            errors[name].append(float(((found["value"] - curve(found.rate)) ** 2).mean()))
            assert ((found.low <= found["value"]) & (found["value"] <= found.high)).all()
    assert np.mean(errors["refined"]) <= 1.05 * np.mean(errors["full"]) + 1e-6
    assert fewer * np.mean(runs) <= count**2 * 32


def test_asking_and_telling_change_nothing_and_telling_again_adds_nothing() -> None:
    outcome = synthetic(0.5)
    state = sweeps.refinement(axes(16), metric="signal", level=0.5)
    before = state.dataset().copy(deep=True)
    request = sweeps.ask(state)
    assert request is not None
    told = answer(outcome, request.points, request.seeds)
    once = sweeps.tell(state, told)
    assert state.dataset().identical(before)
    assert once.runs == request.size == 25 * 8
    assert sweeps.tell(once, told).dataset().identical(once.dataset())
    half = told.isel(point=slice(0, 9)), told.isel(point=slice(9, None))
    assert sweeps.tell(sweeps.tell(state, half[1]), half[0]).dataset().identical(once.dataset())


def test_a_phase_in_which_most_runs_diverge_has_a_boundary_too() -> None:
    def outcome(seed: np.ndarray, spread: np.ndarray, rate: np.ndarray) -> np.ndarray:
        return np.where(spread + 0 * seed < 5, 1.0, np.where(rate < 0.5, 0.0, np.nan))

    state = explored(sweeps.refinement(axes(33), metric="signal", level=0.5), outcome)
    run = state.done.any(-1)
    grid = np.meshgrid(*state.axes.values(), indexing="ij")
    kept, lost = grid[0] < 5, (grid[0] >= 5) & (grid[1] >= 0.5)
    sides = np.where(kept, 0, np.where(lost, 2, 1))
    for axis in (0, 1):
        differ = np.diff(sides, axis=axis) != 0
        both_run = np.minimum(np.take(run, range(32), axis), np.take(run, range(1, 33), axis))
        assert both_run[differ].all()
    assert run.mean() < 0.35


@pytest.mark.parametrize("count", [1, 3])
def test_one_axis_and_three(count: int) -> None:
    def outcome(seed: np.ndarray, *values: np.ndarray) -> np.ndarray:
        return np.where(sum(values) + 0 * seed > 0.6, 0.0, 1.0)

    names = ["x", "y", "z"][:count]
    state = sweeps.refinement(
        {name: np.linspace(0, 1, 17) for name in names}, metric="signal", level=0.5
    )
    found = analysis.rejection_boundary(
        explored(state, outcome).dataset(), "signal", along="x", level=0.5, resamples=9
    )
    exact = 0.6 - sum((found[name] for name in names[1:]), xr.zeros_like(found["value"]))
    crossed = exact.where((exact > 0) & (exact < 1))
    assert float(abs(found["value"] - crossed).max()) <= 1 / 16
    assert (found["value"].notnull() == crossed.notnull()).all()


EXPERIMENT = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    model="diagonal",
    basis="canonical",
    steps=150,
    metrics=("spurious_signal", "invariant_signal"),
)
CELL = EXPERIMENT.cell()
REAL = {"spread": np.linspace(2, 8, 12), "learning_rate": np.geomspace(0.08, 0.2, 9)}


def test_a_refinement_with_a_store_resumes(tmp_path: Path) -> None:
    options = {"axes": REAL, "level": 0.1, "max_seeds": 16, "tile": 64, "progress": False}
    whole = sweeps.refine(CELL, **options)
    path = tmp_path / "refined.zarr"
    part = sweeps.refine(CELL, **options, budget=300, store=path)
    assert int(part.done.sum()) <= 300
    assert Store(path).progress() == (int(part.done.sum()),) * 2
    assert sweeps.refine(CELL, **options, store=path).equals(whole)
    runs = int(whole.done.sum())
    assert Store(path).progress() == (runs, runs), "a run was lost, or computed twice"
    full = sweep(CELL, axes=REAL, seeds=16, tile=64)
    assert whole.equals(masked(full, whole.done))
    assert 2 * runs < full.diverged_at.size


def masked(full: xr.Dataset, done: xr.DataArray) -> xr.Dataset:
    """The dataset of a full sweep as if only some runs were done."""
    metrics = full.drop_vars("diverged_at").where(done)
    return metrics.assign(diverged_at=full.diverged_at.where(done, -1)).assign_coords(done=done)


@pytest.mark.slow
def test_a_refinement_returns_all_metrics_at_all_steps(tmp_path: Path) -> None:
    experiment = EXPERIMENT.replace(steps=20, record_every=5)
    axes = {"spread": np.linspace(2, 8, 6), "learning_rate": [0.1, 1e5]}  # the second diverges
    options = {"axes": axes, "level": 0.1, "max_seeds": 12, "coarse": 2, "budget": 60}
    options |= {"tile": 16, "progress": False}
    refined = sweeps.refine(experiment.cell(), **options)
    full = sweep(experiment.cell(), axes=axes, seeds=refined.sizes["seed"], tile=16)
    assert 0 < int(refined.done.sum()) < full.diverged_at.size
    assert set(full.data_vars) == {"spurious_signal", "invariant_signal", "diverged_at"}
    assert full.sizes["step"] == 5
    expected = masked(full, refined.done)
    assert refined.equals(expected)
    assert (expected.diverged_at >= 0).any()
    assert refined.attrs == full.attrs
    chosen = {"spread": [4, 1], "seed": slice(3, 9, 2), "step": [0, 3]}
    fresh = sweeps.refine(experiment.cell(), **options)
    corner = dict.fromkeys(refined.dims, 0)
    assert fresh.isel(corner).load().equals(expected.isel(corner))
    assert fresh.isel(chosen).equals(expected.isel(chosen)), "parts are read without the rest"

    path = tmp_path / "shared.zarr"
    sweep(experiment.cell(), axes=axes, seeds=12, tile=16, store=path)
    assert sweeps.refine(experiment.cell(), **options, store=path).equals(expected), (
        "the runs of another sweep in the store change nothing"
    )


@pytest.mark.slow
def test_a_refinement_takes_the_memory_of_its_runs() -> None:
    """The full grid would take 2 * 200 * 200 * 64 * 151 * 4 bytes, 3.1 GB."""
    experiment = EXPERIMENT.replace(record_every=1)
    axes = {"spread": np.linspace(2, 8, 200), "learning_rate": np.linspace(0.08, 0.2, 200)}
    options = {"level": 0.1, "max_seeds": 64, "budget": 400, "tile": 64, "progress": False}
    tracemalloc.start()
    refined = sweeps.refine(experiment.cell(), axes=axes, **options)
    frame = refined.spurious_signal.isel(step=75, seed=0).load()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refined.nbytes > 3e9
    assert frame.notnull().sum() == int(refined.done.isel(seed=0).sum()) > 0
    assert peak < 4e8


def test_seeds_are_added_until_the_band_is_narrow() -> None:
    options = {"axes": REAL, "level": 0.1, "tile": 64, "max_seeds": 64, "progress": False}
    rough, fine = (sweeps.refine(CELL, **options, precision=precision) for precision in (2.0, 0.01))
    assert rough.sizes["seed"] == 16
    assert fine.sizes["seed"] == 64
    assert int(fine.done.sum()) > int(rough.done.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": {}}, "at least one axis"),
        (
            {"axes": {"spread": [2.0, 1.0]}},
            "axis 'spread' must have at least two increasing values",
        ),
        ({"axes": {"spread": [1.0]}}, "at least two increasing values"),
        ({"level": np.inf}, "level must be a finite number"),
        ({"share": 0.0}, "share must be"),
        ({"first_seeds": 0}, "first_seeds must be"),
        ({"max_seeds": 4}, "max_seeds must be a whole number, at least 8"),
        ({"coarse": 1}, "coarse must be"),
        ({"budget": 0}, "budget must be"),
        ({"budget": 7}, "budget must be at least the first seeds of a cell, 8, got 7"),
        ({"precision": 0}, "precision must be"),
        ({"along": "spraed"}, "did you mean 'spread'"),
        ({"metric": "spurious_sgnal"}, "did you mean 'spurious_signal'"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweeps.refine(
            CELL, **({"axes": REAL, "level": 0.1, "tile": 64, "progress": False} | options)
        )


def test_results_of_another_diagram_are_refused() -> None:
    state = sweeps.refinement(axes(16), metric="signal", level=0.5)
    request = sweeps.ask(state)
    assert request is not None
    told = answer(synthetic(1.0), request.points, request.seeds)
    with pytest.raises(ValueError, match="on the grid"):
        sweeps.tell(state, told.assign_coords(spread=told.spread + 0.1))
    with pytest.raises(ValueError, match="did you mean 'signal'"):
        sweeps.tell(state._replace(metric="sgnal"), told)
    with pytest.raises(ValueError, match="axis of the dataset"):
        sweeps.tell(state, told.drop_vars("rate"))

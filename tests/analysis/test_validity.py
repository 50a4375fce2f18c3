"""Estimators say when their assumptions fail, and stay silent where they hold."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from scipy import stats

from causal_sgd import analysis, run, samplers, theory
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import algorithms, time_average

SCALARS = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    basis="canonical",
    metrics=("spurious_signal",),
)


def doubts(function, *args, **kwargs) -> tuple:
    """The result of an estimator and its warnings in one string."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    return result, "\n".join(str(warning.message) for warning in caught)


def walks(drift: float, *, floor: float = -np.inf, ceiling: float = np.inf) -> xr.Dataset:
    """Signals whose logarithm is a random walk from -20, kept between a floor and a ceiling."""
    steps = np.random.default_rng(0).normal(drift, 0.45, (200, 400))
    logs = np.full((200, 401), -20.0)
    for t in range(400):
        logs[:, t + 1] = np.clip(logs[:, t] + steps[:, t], floor, ceiling)
    frames = np.arange(0, 401, 100)
    return xr.Dataset(
        {
            "spurious_signal": (("seed", "step"), np.exp(logs[:, frames])),
            "diverged_at": ("seed", np.full(200, -1)),
        },
        {"step": frames, "seed": np.arange(200)},
    )


@pytest.mark.parametrize("drift", [-0.06, 0.0, 0.04])
@pytest.mark.parametrize("frames", [(0, 1, 2, 3, 4), (0, 2, 4)])
def test_a_free_walk_has_its_drift_and_no_warning(drift: float, frames: tuple) -> None:
    growth, doubt = doubts(analysis.growth_rate, walks(drift).isel(step=list(frames)))
    assert not doubt
    assert abs(float(growth.rate) - drift) < 4 * float(growth.standard_error) < 0.01


@pytest.mark.parametrize("frames", [(0, 1, 2, 3, 4), (0, 2, 4)])
@pytest.mark.parametrize(
    ("drift", "limits"),
    [(0.04, {"ceiling": -12.0}), (-0.06, {"floor": -25.0})],
)
def test_a_walk_that_reaches_a_floor_or_a_ceiling_is_reported(
    drift: float, limits: dict, frames: tuple
) -> None:
    dataset = walks(drift, **limits).isel(step=list(frames))
    growth, doubt = doubts(analysis.growth_rate, dataset)
    assert abs(float(growth.rate) - drift) > 4 * float(growth.standard_error), "sure and wrong"
    assert "does not grow exponentially" in doubt


def test_growth_that_cannot_be_measured_is_nan_with_a_reason() -> None:
    dataset = xr.concat([walks(0.02)] * 4, xr.Variable("spread", [1.0, 2.0, 3.0, 4.0]))
    dataset = dataset.copy(deep=True)
    dataset["spurious_signal"][1, 0, -1] = 0.0
    dataset["diverged_at"][2, 5] = 300
    dataset["spurious_signal"][3, :50] = np.nan  # missing runs
    growth, doubt = doubts(analysis.growth_rate, dataset)
    assert "in 2 of 4 cells, such as spread=2.0, the rate is NaN" in doubt
    assert "2 runs in all" in doubt
    np.testing.assert_array_equal(np.isnan(growth.rate), [False, True, True, False])
    some, _ = doubts(analysis.growth_rate, walks(0.02).isel(seed=slice(50, None)))
    np.testing.assert_allclose(growth.isel(spread=3).to_array(), some.to_array(), rtol=1e-12)


def exact_powers(values: np.ndarray) -> xr.Dataset:
    noise = np.random.default_rng(1).normal(0, 0.02, (len(values), 100))
    return xr.Dataset(
        {
            "spurious_power": (("spread", "seed"), values[:, None] + noise),
            "diverged_at": (("spread", "seed"), np.full(noise.shape, -1)),
        },
        {"spread": np.array([4.0, 4.25, 4.5, 4.75])},
    )


def test_an_order_parameter_off_a_line_is_reported() -> None:
    line = 1 - (np.array([4.0, 4.25, 4.5, 4.75]) / 5) ** 2
    boundary, doubt = doubts(analysis.order_parameter_boundary, exact_powers(line))
    assert boundary.low < 5 < boundary.high
    assert not doubt
    # Noise or rounding feeds a signal close to the boundary.
    fed = exact_powers(line + np.array([0, 0, 0.01, 0.04]))
    boundary, doubt = doubts(analysis.order_parameter_boundary, fed)
    assert boundary.low > 5, "sure and wrong"
    assert "do not lie on a line" in doubt


def test_dead_runs_and_values_beyond_the_boundary_are_reported() -> None:
    line = 1 - (np.array([4.0, 4.25, 4.5, 4.75]) / 5) ** 2
    frozen = exact_powers(line)
    frozen["spurious_power"][3, :10] = 1e-15
    assert "in 10% of the runs at 4.75" in doubts(analysis.order_parameter_boundary, frozen)[1]
    beyond = exact_powers(np.array([0.3, 0.2, 0.05, 0.0]))
    doubt = doubts(analysis.order_parameter_boundary, beyond)[1]
    assert "values of the axis lie on both sides" in doubt
    none = exact_powers(np.array([2.0, 2.1, 2.2, 2.3]))
    assert "does not cross zero" in doubts(analysis.order_parameter_boundary, none)[1]


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, pytest.param(4, marks=pytest.mark.long)])
def test_rounding_in_a_random_frame_is_reported(dim: int) -> None:
    """It freezes a dead signal in two dimensions and feeds it in more; neither in 64 bits."""
    critical = float(theory.critical_spread(0.1, 1.0))
    options = {"init_scale": 0.1, "steps": 20_000, "record_every": 20, "dim": dim}

    def boundary(basis: str) -> tuple[analysis.Boundary, str]:
        metrics = ("spurious_power",)
        base = SCALARS.replace(basis=basis, metrics=metrics, **options).cell()

        def cell(key, *, spread):
            return time_average(base(key, spread=spread), after=0.2)

        spreads = np.array([0.8, 0.85, 0.9, 0.95]) * critical
        return doubts(
            analysis.order_parameter_boundary,
            sweep(cell, axes={"spread": spreads}, seeds=400 if dim == 2 else 100),
        )

    value, doubt = boundary("canonical")
    assert abs(value.value / critical - 1) < 0.01
    assert not doubt
    assert ("the signal died" if dim == 2 else "do not lie on a line") in boundary("random")[1]


@pytest.mark.slow
def test_the_growth_of_tiny_signals_in_both_frames() -> None:
    spreads = np.array([3.0, 4.0, 4.8])
    options = {"init_scale": 1e-12, "steps": 400, "record_every": 100, "dim": 10}
    axes = {"spread": spreads}
    exact = np.asarray(theory.lyapunov_two_point(0.1, 1.0, spreads))
    for basis in ("canonical", "random"):
        dataset = sweep(SCALARS.replace(basis=basis, **options).cell(), axes=axes, seeds=100)
        growth, doubt = doubts(analysis.growth_rate, dataset)
        right = abs(growth.rate - exact) < 4 * growth.standard_error
        assert bool(right.all()) == (basis == "canonical")
        assert ("does not grow exponentially" in doubt) == (basis == "random")


LISTS = {
    "t": stats.t(2).ppf((np.arange(20) + 0.5) / 20),
    "outlier": np.append(np.full(49, 1 / 49), -1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LISTS, "two_point"])
def test_heavy_tails_of_a_finite_time_boundary_are_reported(name: str) -> None:
    directions = LISTS.get(name, np.array([-1.0, 1.0]))
    directions = (directions - directions.mean()) / directions.std()
    grid = np.linspace(0.1, 10, 2000)
    exponents = np.log(abs(1 + 0.1 * (1 + grid[:, None] * directions))).mean(1)
    critical = grid[np.argmax(exponents < 0)]

    def cell(key, *, spread):
        world = worlds.discrete(
            dim=2,
            invariant_rank=1,
            spurious_rank=1,
            eigenvalues=1 + spread * jnp.asarray(directions),
            basis="canonical",
        )
        algorithm = algorithms.sgd(
            world=world,
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.diagonal(dim=2, init_scale=1e-12),
            optimizer=optax.sgd(0.1),
        )
        metric = [metrics.spurious_signal]
        return run(key, algorithm=algorithm, metrics=metric, num_steps=800, record_every=100)

    dataset = sweep(cell, axes={"spread": np.linspace(0.3, 1.3, 21) * critical}, seeds=256)
    boundary, doubt = doubts(analysis.finite_time_boundary, dataset, level=1e-6, first_step=200)
    assert bool(doubt) == (name in LISTS)
    if doubt:
        assert not boundary.low < critical < boundary.high, "sure and wrong"
        assert "do not lie on a line" in doubt
    else:
        assert boundary.value == pytest.approx(critical, rel=0.02)

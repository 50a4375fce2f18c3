"""Boundaries from results: made-up datasets with known answers, and one real sweep against the theory."""

import numpy as np
import pytest
import xarray as xr

from causal_sgd import phase, theory
from causal_sgd.experiment import Experiment
from causal_sgd.simulate import time_average
from causal_sgd.sweeps import sweep


def made_up(values: np.ndarray, spreads: np.ndarray) -> xr.Dataset:
    """A dataset with a metric [spread, seed]."""
    coords = {"spread": spreads, "seed": np.arange(values.shape[1])}
    return xr.Dataset(
        {
            "spurious_power": (("spread", "seed"), values),
            "diverged_at": (("spread", "seed"), np.full(values.shape, -1)),
        },
        coords,
    )


def test_the_extrapolated_boundary_is_the_root_of_the_line_and_its_interval_covers_it() -> None:
    spreads = np.array([3.0, 3.5, 4.0])
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 200))
    found = phase.order_parameter_boundary(made_up((1 - (spreads / 5) ** 2)[:, None] + noise, spreads))
    assert found.low < found.value < found.high
    assert found.low < 5 < found.high
    assert found.high - found.low < 0.3


def test_a_diverged_run_does_not_count() -> None:
    spreads = np.array([3.0, 3.5, 4.0])
    values = np.repeat((1 - (spreads / 5) ** 2)[:, None], 4, axis=1)
    values[:, 0] = 1e9
    dataset = made_up(values, spreads)
    dataset["diverged_at"][:, 0] = 3
    assert phase.order_parameter_boundary(dataset).value == pytest.approx(5)


def test_what_does_not_fall_has_no_boundary() -> None:
    spreads = np.array([1.0, 2.0])
    assert np.isnan(phase.order_parameter_boundary(made_up(np.ones((2, 3)) * [[1], [2]], spreads)).value)


def test_level_crossing_interpolates_the_median() -> None:
    spreads = np.array([0.0, 1.0, 2.0])
    dataset = made_up(np.array([[4.0, 4.0, 9.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), spreads)
    options = {"metric": "spurious_power", "along": "spread"}
    assert float(phase.level_crossing(dataset, level=3.0, **options)) == pytest.approx(0.5)
    assert float(phase.level_crossing(dataset, level=5.0, **options)) == 0.0
    assert np.isnan(float(phase.level_crossing(dataset, level=-1.0, **options)))


def test_bad_names_are_told() -> None:
    dataset = made_up(np.ones((2, 3)), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="did you mean 'spurious_power'"):
        phase.order_parameter_boundary(dataset, metric="spurious_powr")
    with pytest.raises(ValueError, match="at least two values"):
        phase.order_parameter_boundary(dataset.isel(spread=[0]))


def test_the_population_boundary_lies_on_the_curve() -> None:
    """eta = 0.1, mu = 1; 400 seeds put the standard error of the boundary at about 0.3 %."""
    experiment = Experiment(
        dim=2, invariant_rank=1, spurious_rank=1, measurement="population", basis="canonical", init_scale=0.1,
        steps=20_000, record_every=20, metrics=("spurious_power",),
    )  # fmt: skip
    base = experiment.cell()

    def cell(key, *, spread):
        return time_average(base(key, spread=spread), after=0.2)

    critical = float(theory.critical_spread(0.1, 1.0))
    dataset = sweep(cell, axes={"spread": np.array([0.8, 0.85, 0.9, 0.95]) * critical}, seeds=400)
    assert phase.order_parameter_boundary(dataset).value == pytest.approx(critical, rel=0.02)

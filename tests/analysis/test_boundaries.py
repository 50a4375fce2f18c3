"""Boundaries from results: made-up datasets with known answers, and one real sweep against the theory."""

import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis, theory
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.training import time_average


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
    found = analysis.order_parameter_boundary(
        made_up((1 - (spreads / 5) ** 2)[:, None] + noise, spreads)
    )
    assert found.low < found.value < found.high
    assert found.low < 5 < found.high
    assert found.high - found.low < 0.3


def test_a_diverged_run_does_not_count() -> None:
    spreads = np.array([3.0, 3.5, 4.0])
    values = np.repeat((1 - (spreads / 5) ** 2)[:, None], 4, axis=1)
    values[:, 0] = 1e9
    dataset = made_up(values, spreads)
    dataset["diverged_at"][:, 0] = 3
    assert analysis.order_parameter_boundary(dataset).value == pytest.approx(5)


def test_what_does_not_fall_has_no_boundary() -> None:
    spreads = np.array([1.0, 2.0])
    assert np.isnan(
        analysis.order_parameter_boundary(made_up(np.ones((2, 3)) * [[1], [2]], spreads)).value
    )


def test_level_crossing_interpolates_the_median() -> None:
    spreads = np.array([0.0, 1.0, 2.0])
    dataset = made_up(np.array([[4.0, 4.0, 9.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), spreads)
    options = {"metric": "spurious_power", "along": "spread"}
    assert float(analysis.level_crossing(dataset, level=3.0, **options)) == pytest.approx(0.5)
    assert float(analysis.level_crossing(dataset, level=5.0, **options)) == 0.0
    assert np.isnan(float(analysis.level_crossing(dataset, level=-1.0, **options)))


def test_bad_names_are_told() -> None:
    dataset = made_up(np.ones((2, 3)), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="did you mean 'spurious_power'"):
        analysis.order_parameter_boundary(dataset, metric="spurious_powr")
    with pytest.raises(ValueError, match="at least two values"):
        analysis.order_parameter_boundary(dataset.isel(spread=[0]))


def test_the_population_boundary_lies_on_the_curve() -> None:
    """eta = 0.1, mu = 1; 400 seeds put the standard error of the boundary at about 0.3 %."""
    experiment = Experiment(
        dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical", init_scale=0.1,
        steps=20_000, record_every=20, metrics=("spurious_power",),
    )  # fmt: skip
    base = experiment.cell()

    def cell(key, *, spread):
        return time_average(base(key, spread=spread), after=0.2)

    critical = float(theory.critical_spread(0.1, 1.0))
    dataset = sweep(cell, axes={"spread": np.array([0.8, 0.85, 0.9, 0.95]) * critical}, seeds=400)
    assert analysis.order_parameter_boundary(dataset).value == pytest.approx(critical, rel=0.02)


def coins(chances: np.ndarray, seeds: int, seed: int = 0) -> xr.Dataset:
    """A diagram whose runs reject (0.1) with given chances [rate, spread], else keep (1)."""
    rejects = np.random.default_rng(seed).random((*chances.shape, seeds)) < chances[..., None]
    dims = ("rate", "spread", "seed")
    coords = {
        "rate": np.arange(chances.shape[0]) + 1.0,
        "spread": np.arange(chances.shape[1]) * 1.0,
        "seed": np.arange(seeds),
    }
    values = np.where(rejects, 0.1, 1.0)
    return xr.Dataset(
        {"signal": (dims, values), "diverged_at": (dims, np.full(values.shape, -1))}, coords
    )


def test_the_band_of_the_rejection_boundary_covers_the_truth_as_often_as_it_says() -> None:
    # The chance rises linearly from 0 to 1 over the axis, so that half reject exactly at 2, the fraction there is binomial.
    chances = np.tile(np.linspace(0, 1, 5), (300, 1))
    found = analysis.rejection_boundary(
        coins(chances, 40), "signal", along="spread", level=0.5, resamples=200
    )
    assert found["value"].dims == ("rate",)
    covered = ((found.low <= 2) & (found.high >= 2)).mean()
    assert 0.9 < covered <= 1, "nominally 0.95; 300 curves leave a standard error of 0.013"
    assert abs(float(found["value"].mean()) - 2) < 0.05
    assert float((found.high - found.low).mean()) < 1.5


def test_a_sharp_transition_is_found_between_its_cells_and_beyond_the_axis_not_at_all() -> None:
    chances = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found = analysis.rejection_boundary(coins(chances, 10), "signal", along="spread", level=0.5)
    np.testing.assert_array_equal(found["value"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.low, [1.5, np.inf, -np.inf])
    np.testing.assert_array_equal(found.high, [1.5, np.inf, -np.inf])


def test_diverged_and_missing_runs_reject_nothing_and_keep_nothing() -> None:
    dataset = coins(np.array([[0.0, 1.0, 1.0]]), 10)
    plain = analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5)
    dataset["diverged_at"][0, 0, :3] = 4
    dataset["signal"][0, 0, :3] = 0.0
    dataset["signal"][0, 2, :] = np.nan
    found = analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5)
    assert found["value"].equals(plain["value"])
    cells = analysis.rejecting_fraction(dataset, "signal", level=0.5)
    assert cells.runs.values.tolist() == [[7, 10, 0]]
    assert np.isnan(cells.fraction[0, 2])
    assert cells.decided.values.tolist() == [[-1, 1, 0]]


def test_cells_are_decided_by_their_binomial_interval() -> None:
    from scipy import stats

    dataset = coins(np.array([[0.2, 0.5, 0.8]]), 60, seed=3)
    cells = analysis.rejecting_fraction(dataset, "signal", level=0.5, confidence=0.9)
    for index in range(3):
        values = dataset.signal[0, index] < 0.5
        interval = stats.binomtest(int(values.sum()), 60).proportion_ci(0.9, "exact")
        np.testing.assert_allclose([cells.low[0, index], cells.high[0, index]], interval, rtol=1e-9)
    assert cells.decided.values.tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"along": "spraed"}, "did you mean 'spread'"),
        ({"metric": "sgnal"}, "did you mean 'signal'"),
        ({"share": 0.0}, "share must be a finite number above 0"),
        ({"confidence": 2.0}, "confidence must be"),
        ({"resamples": 0}, "resamples must be"),
        ({"level": np.nan}, "level must be a finite number"),
    ],
)
def test_bad_arguments_of_the_rejection_boundary_are_named(options: dict, message: str) -> None:
    arguments = {"metric": "signal", "along": "spread", "level": 0.5} | options
    with pytest.raises(ValueError, match=message):
        analysis.rejection_boundary(coins(np.ones((1, 3)), 2), arguments.pop("metric"), **arguments)


def test_an_axis_that_does_not_increase_is_named() -> None:
    dataset = coins(np.ones((1, 3)), 2).isel(spread=[2, 1, 0])
    with pytest.raises(ValueError, match="at least two increasing values"):
        analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5)


def test_a_boundary_is_found_along_an_axis_on_which_fewer_reject_too() -> None:
    chances = np.array(
        [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    )
    found = analysis.rejection_boundary(coins(chances, 10), "signal", along="spread", level=0.5)
    np.testing.assert_array_equal(found["value"], [1.5, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(found.low, [1.5, 0.5, np.inf, -np.inf])


def test_cells_that_were_not_run_are_filled_from_other_rows() -> None:
    """The middle row has only the two cells at the boundary: without the others its band would end nowhere."""
    chances = np.tile([0.0, 0.1, 0.3, 0.7, 0.9, 1.0], (3, 1))
    whole = coins(chances, 30)
    sparse = whole.copy(deep=True)
    sparse["signal"][1, [0, 1, 4, 5]] = np.nan
    full, found = (
        analysis.rejection_boundary(d, "signal", along="spread", level=0.5) for d in (whole, sparse)
    )
    assert found["value"].equals(full["value"])
    assert np.isfinite(found.low[1])
    assert np.isfinite(found.high[1])


@pytest.mark.parametrize(("name", "exact"), [("mean", 2.0), ("learning_rate", 8.0)])
def test_the_order_parameter_is_extrapolated_along_other_axes_linearly(
    name: str, exact: float
) -> None:
    values = np.array([3.0, 3.5, 4.0])
    signal = np.repeat(abs(values - exact)[:, None], 5, axis=1)
    dataset = made_up(signal, values).rename(spread=name)
    assert analysis.order_parameter_boundary(dataset, along=name).value == pytest.approx(exact)


def test_the_finite_time_boundary_is_the_end_of_the_line_in_one_over_t() -> None:
    steps, spreads, shift = (
        np.array([0, 100, 200, 400]),
        np.linspace(2, 5, 13),
        np.linspace(-0.2, 0.2, 41),
    )
    apparent = np.sqrt(16 - 700 / np.maximum(steps, 1))
    thresholds = apparent[None, :, None] + shift[None, None, :]
    values = np.where(spreads[:, None, None] > thresholds, 0.0, 1.0)
    dims = ("spread", "step", "seed")
    dataset = xr.Dataset(
        {
            "spurious_signal": (dims, values),
            "diverged_at": (("spread", "seed"), np.full((13, 41), -1)),
        },
        {"spread": spreads, "step": steps, "seed": np.arange(41)},
    )
    found = analysis.finite_time_boundary(dataset, level=0.5, resamples=99)
    assert found.value == pytest.approx(4, abs=0.05)
    assert found.low < 4 < found.high
    late = analysis.finite_time_boundary(dataset, level=0.5, first_step=400, resamples=9)
    assert np.isnan(late.value), "one frame shows no trend"
    with pytest.raises(ValueError, match="recorded steps"):
        analysis.finite_time_boundary(dataset.isel(step=-1, drop=True), level=0.5)


def test_the_finite_time_boundary_of_short_runs_is_the_critical_spread() -> None:
    """256 seeds put the standard error at 0.8 %; the apparent boundary at the last step is 9 % low."""
    experiment = Experiment(
        dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
        init_scale=1e-12, steps=800, record_every=100, metrics=("spurious_signal",),
    )  # fmt: skip
    critical = float(theory.critical_spread(0.1, 1.0))
    dataset = sweep(
        experiment.cell(), axes={"spread": np.linspace(0.4, 1.1, 15) * critical}, seeds=256
    )
    found = analysis.finite_time_boundary(dataset, level=1e-6, first_step=200, resamples=99)
    assert found.value == pytest.approx(critical, rel=0.03)
    last = analysis.rejection_boundary(
        dataset, "spurious_signal", along="spread", level=1e-6, resamples=9
    )
    assert float(last["value"]) < 0.94 * critical

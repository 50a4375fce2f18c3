"""Boundaries of synthetic datasets with a given answer, and of two sweeps against the theory."""

import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis, theory
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from causal_sgd.training import time_average

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def synthetic(values: np.ndarray, spreads: np.ndarray) -> xr.Dataset:
    """A dataset with a metric [spread, seed]."""
    coords = {"spread": spreads, "seed": np.arange(values.shape[1])}
    return xr.Dataset(
        {
            "spurious_power": (("spread", "seed"), values),
            "diverged_at": (("spread", "seed"), np.full(values.shape, -1)),
        },
        coords,
    )


def scalar_experiment(**options) -> Experiment:
    """The population dynamics of one invariant and one spurious direction."""
    return Experiment(
        dim=2,
        invariant_rank=1,
        spurious_rank=1,
        measurement="population",
        model="diagonal",
        basis="canonical",
        **options,
    )


def test_the_order_parameter_boundary_is_the_root_of_a_line_within_its_interval() -> None:
    spreads = np.array([3.0, 3.5, 4.0])
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 200))
    boundary = analysis.order_parameter_boundary(
        synthetic((1 - (spreads / 5) ** 2)[:, None] + noise, spreads)
    )
    assert boundary.low < boundary.value < boundary.high
    assert boundary.low < 5 < boundary.high
    assert boundary.high - boundary.low < 0.3


@pytest.mark.filterwarnings("error::scipy.stats.DegenerateDataWarning")
def test_diverged_runs_do_not_count() -> None:
    spreads = np.array([3.0, 3.5, 4.0])
    values = np.repeat((1 - (spreads / 5) ** 2)[:, None], 4, axis=1)
    values[:, 0] = 1e9
    dataset = synthetic(values, spreads)
    dataset["diverged_at"][:, 0] = 3
    with pytest.warns(RuntimeWarning, match="some resamples of the seeds have no boundary"):
        boundary = analysis.order_parameter_boundary(dataset)
    assert boundary.value == pytest.approx(5)
    assert np.isnan(boundary.low)


@pytest.mark.filterwarnings("error::scipy.stats.DegenerateDataWarning")
def test_an_order_parameter_that_rises_has_no_boundary() -> None:
    spreads = np.array([1.0, 2.0])
    rising = synthetic(np.ones((2, 3)) * [[1], [2]], spreads)
    with pytest.warns(RuntimeWarning, match="the fitted line does not cross zero"):
        assert np.isnan(analysis.order_parameter_boundary(rising).value)


def test_level_crossing_interpolates_the_median() -> None:
    spreads = np.array([0.0, 1.0, 2.0])
    dataset = synthetic(np.array([[4.0, 4.0, 9.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), spreads)
    options = {"metric": "spurious_power", "along": "spread"}
    assert float(analysis.level_crossing(dataset, level=3.0, **options)) == pytest.approx(0.5)
    assert float(analysis.level_crossing(dataset, level=5.0, **options)) == 0.0
    assert np.isnan(float(analysis.level_crossing(dataset, level=-1.0, **options)))


def test_bad_names_and_short_axes_are_reported() -> None:
    dataset = synthetic(np.ones((2, 3)), np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="did you mean 'spurious_power'"):
        analysis.order_parameter_boundary(dataset, metric="spurious_powr")
    with pytest.raises(ValueError, match="at least two values"):
        analysis.order_parameter_boundary(dataset.isel(spread=[0]))


def test_the_population_boundary_lies_on_the_curve() -> None:
    """For eta = 0.1, mu = 1; the standard error of the boundary is about 0.3 % with 400 seeds."""
    metrics = ("spurious_power",)
    base = scalar_experiment(init_scale=0.1, steps=20_000, record_every=20, metrics=metrics).cell()

    def cell(key, *, spread):
        return time_average(base(key, spread=spread), after=0.2)

    critical = float(theory.critical_spread(0.1, 1.0))
    dataset = sweep(cell, axes={"spread": np.array([0.8, 0.85, 0.9, 0.95]) * critical}, seeds=400)
    assert analysis.order_parameter_boundary(dataset).value == pytest.approx(critical, rel=0.02)


def coins(chances: np.ndarray, seeds: int, seed: int = 0) -> xr.Dataset:
    """A diagram whose runs reject (signal 0.1, not 1) with given probabilities [rate, spread]."""
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


def test_the_band_of_the_rejection_boundary_has_its_nominal_coverage() -> None:
    # The probability rises linearly from 0 to 1 over the axis: half reject exactly at 2.
    chances = np.tile(np.linspace(0, 1, 5), (300, 1))
    boundary = analysis.rejection_boundary(
        coins(chances, 40), "signal", along="spread", level=0.5, resamples=200
    )
    assert boundary["value"].dims == ("rate",)
    covered = ((boundary.low <= 2) & (boundary.high >= 2)).mean()
    assert 0.9 < covered <= 1, "nominally 0.95, with a standard error of 0.013 for 300 curves"
    assert abs(float(boundary["value"].mean()) - 2) < 0.05
    assert float((boundary.high - boundary.low).mean()) < 1.5


def test_a_sharp_transition_lies_between_cells_or_beyond_the_axis() -> None:
    chances = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    boundary = analysis.rejection_boundary(coins(chances, 10), "signal", along="spread", level=0.5)
    np.testing.assert_array_equal(boundary["value"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(boundary.low, [1.5, np.inf, -np.inf])
    np.testing.assert_array_equal(boundary.high, [1.5, np.inf, -np.inf])


def test_diverged_and_missing_runs_do_not_count_in_fractions() -> None:
    dataset = coins(np.array([[0.0, 1.0, 1.0]]), 10)
    plain = analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5)
    dataset["diverged_at"][0, 0, :3] = 4
    dataset["signal"][0, 0, :3] = 0.0
    dataset["signal"][0, 2, :] = np.nan
    boundary = analysis.rejection_boundary(dataset, "signal", along="spread", level=0.5)
    assert boundary["value"].equals(plain["value"])
    cells = analysis.rejecting_fraction(dataset, "signal", level=0.5)
    assert cells.runs.values.tolist() == [[7, 10, 0]]
    assert np.isnan(cells.fraction[0, 2])
    assert cells.decided.values.tolist() == [[-1, 1, 0]]


def test_the_binomial_interval_decides_a_cell() -> None:
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
def test_bad_arguments_of_the_rejection_boundary_are_reported(options: dict, message: str) -> None:
    arguments = {"metric": "signal", "along": "spread", "level": 0.5} | options
    with pytest.raises(ValueError, match=message):
        analysis.rejection_boundary(coins(np.ones((1, 3)), 2), arguments.pop("metric"), **arguments)


def test_the_rejecting_fraction_may_fall_along_the_axis() -> None:
    chances = np.array(
        [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    )
    boundary = analysis.rejection_boundary(coins(chances, 10), "signal", along="spread", level=0.5)
    np.testing.assert_array_equal(boundary["value"], [1.5, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(boundary.low, [1.5, 0.5, np.inf, -np.inf])


def test_cells_without_runs_are_filled_from_other_rows() -> None:
    """The middle row has only the two cells at the boundary, too few for a finite band."""
    chances = np.tile([0.0, 0.1, 0.3, 0.7, 0.9, 1.0], (3, 1))
    whole = coins(chances, 30)
    sparse = whole.copy(deep=True)
    sparse["signal"][1, [0, 1, 4, 5]] = np.nan
    full, boundary = (
        analysis.rejection_boundary(data, "signal", along="spread", level=0.5)
        for data in (whole, sparse)
    )
    assert boundary["value"].equals(full["value"])
    assert np.isfinite(boundary.low[1])
    assert np.isfinite(boundary.high[1])


@pytest.mark.parametrize(("name", "exact"), [("mean", 2.0), ("learning_rate", 8.0)])
def test_the_order_parameter_is_linear_in_axes_other_than_the_spread(
    name: str, exact: float
) -> None:
    values = np.array([3.0, 3.5, 4.0])
    signal = np.repeat(abs(values - exact)[:, None], 5, axis=1)
    dataset = synthetic(signal, values).rename(spread=name)
    assert analysis.order_parameter_boundary(dataset, along=name).value == pytest.approx(exact)


def test_the_finite_time_boundary_is_the_intercept_of_a_line_in_one_over_t() -> None:
    steps = np.array([0, 100, 200, 400])
    spreads, shift = np.linspace(2, 5, 13), np.linspace(-0.2, 0.2, 41)
    apparent = np.array([np.nan, *np.sqrt(16 - 700 / steps[1:])])
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
    boundary = analysis.finite_time_boundary(dataset, level=0.5, resamples=99)
    assert boundary.value == pytest.approx(4, abs=0.05)
    assert boundary.low < 4 < boundary.high
    with pytest.warns(RuntimeWarning, match="crossing within the axis, which must be at least 2"):
        late = analysis.finite_time_boundary(dataset, level=0.5, first_step=400, resamples=9)
    assert np.isnan(late.value), "one frame has no trend"
    with pytest.raises(ValueError, match="recorded steps"):
        analysis.finite_time_boundary(dataset.isel(step=-1, drop=True), level=0.5)


def test_the_finite_time_boundary_of_short_runs_is_the_critical_spread() -> None:
    """The standard error is 0.8 % with 256 seeds; the last apparent boundary is 9 % low."""
    metrics = ("spurious_signal",)
    experiment = scalar_experiment(init_scale=1e-12, steps=800, record_every=100, metrics=metrics)
    critical = float(theory.critical_spread(0.1, 1.0))
    dataset = sweep(
        experiment.cell(), axes={"spread": np.linspace(0.4, 1.1, 15) * critical}, seeds=256
    )
    boundary = analysis.finite_time_boundary(dataset, level=1e-6, first_step=200, resamples=99)
    assert boundary.value == pytest.approx(critical, rel=0.03)
    last = analysis.rejection_boundary(
        dataset, "spurious_signal", along="spread", level=1e-6, resamples=9
    )
    assert float(last["value"]) < 0.94 * critical

"""Results do not depend on the order of the values of any axis of a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis

DIMS = ("learning_rate", "spread", "seed", "step")
RATES, SPREADS = np.array([0.1, 0.2, 0.4]), np.linspace(0, 12, 7)
STEPS, SEEDS = np.array([0, 10, 20, 40]), np.arange(30)


def decaying() -> xr.Dataset:
    """Signals that fall with the spread and the step, as a walk near zero does."""
    rate, spread, seed, step = np.meshgrid(RATES, SPREADS, SEEDS, STEPS, indexing="ij")
    noise = np.random.default_rng(0).normal(0, 1, rate.shape)
    logs = (1 - (spread / 6) ** 2) * rate * step + 0.3 * noise
    values = {"signal": (DIMS, np.exp(logs)), "power": (DIMS, 3 - (spread / 6) ** 2 + 0.1 * noise)}
    diverged_at = (DIMS[:-1], np.where(spread[..., 0] + seed[..., 0] > 39, 1, -1))
    coords = {"learning_rate": RATES, "spread": SPREADS, "seed": SEEDS, "step": STEPS}
    return xr.Dataset({**values, "diverged_at": diverged_at}, coords)


def refined() -> xr.Dataset:
    """The same, without runs in some cells away from the boundary."""
    dataset = decaying()
    for rate, spread in ((1, 1), (1, 5), (0, 4)):
        dataset["signal"][rate, spread] = np.nan
    return dataset


FUNCTIONS: dict[str, Callable[[xr.Dataset], object]] = {
    "final": analysis.final,
    "time_average": analysis.time_average,
    "summary": lambda data: analysis.summary(data, "signal"),
    "order_parameter_boundary": lambda data: analysis.order_parameter_boundary(
        data.sel(learning_rate=0.2), metric="power", resamples=9
    ),
    "level_crossing": lambda data: analysis.level_crossing(
        data, "signal", along="spread", level=0.5
    ),
    "level_crossing along a falling axis": lambda data: analysis.level_crossing(
        -data, "signal", along="learning_rate", level=-1.1
    ),
    "rejecting_fraction": lambda data: analysis.rejecting_fraction(data, "signal", level=0.5),
    "rejection_boundary": lambda data: analysis.rejection_boundary(
        data, "signal", along="spread", level=0.5, resamples=9
    ),
    "finite_time_boundary": lambda data: analysis.finite_time_boundary(
        data.sel(learning_rate=0.2), "signal", level=0.5, resamples=9
    ),
    "growth_rate": lambda data: analysis.growth_rate(data, "signal"),
}
# The signal dies within the axis, and in some cells before the last steps.
WARNINGS = {
    "order_parameter_boundary": "values of the axis lie on both sides",
    "growth_rate": "the rate is NaN|the signal does not grow exponentially",
}


@pytest.mark.parametrize("order", ["reversed", "shuffled"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_order_of_values_does_not_matter(name: str, order: str) -> None:
    generator = np.random.default_rng(2)
    data = refined()
    places = {
        dim: np.arange(size)[::-1] if order == "reversed" else generator.permutation(size)
        for dim, size in data.sizes.items()
        if dim != "seed"  # resamples of the bootstrap count seeds by their place
    }
    expecting = contextlib.nullcontext()
    if name in WARNINGS:
        expecting = pytest.warns(RuntimeWarning, match=WARNINGS[name])
    with expecting:
        expected, result = FUNCTIONS[name](data), FUNCTIONS[name](data.isel(places))
    if isinstance(expected, analysis.Boundary):
        assert np.isfinite(expected.value)
        np.testing.assert_allclose(result, expected, rtol=1e-9)
        return
    result = result.sortby([dim for dim in result.dims if dim in data.dims])
    expected, result = (
        table.transpose(*DIMS, missing_dims="ignore") for table in (expected, result)
    )
    xr.testing.assert_allclose(result, expected, rtol=1e-9)


def test_a_level_crossing_along_descending_spreads_is_that_along_ascending_ones() -> None:
    medians = np.array([3.0, 2.8, 2.0, 0.5, 0.2, 0.1, 0.0])
    dataset = xr.Dataset(
        {"signal": (("spread", "seed"), np.repeat(medians[:, None], 3, 1))}, {"spread": SPREADS}
    )
    options = {"metric": "signal", "along": "spread", "level": 1.0}
    for data in (dataset, dataset.isel(spread=slice(None, None, -1))):
        assert float(analysis.level_crossing(data, **options)) == pytest.approx(4 + 2 * 2 / 3)


def test_cells_without_runs_are_skipped_by_a_level_crossing() -> None:
    values = np.repeat(np.array([[4.0, np.nan, 2.0, 0.0]]).T, 3, 1)
    dataset = xr.Dataset({"signal": (("spread", "seed"), values)}, {"spread": [0.0, 1.0, 2.0, 3.0]})
    crossing = analysis.level_crossing(dataset, "signal", along="spread", level=3.0)
    assert float(crossing) == 1.0


def test_cells_are_not_filled_from_other_methods() -> None:
    """Numbers have neighbours, names have none."""
    values = np.ones((3, 4, 5))
    values[:, 2:] = 0
    values[1, [1, 2]] = np.nan
    dims = ("method", "spread", "seed")
    dataset = xr.Dataset(
        {"signal": (dims, values), "diverged_at": (dims, np.full(values.shape, -1))},
        {"method": ["hetero", "mixed", "pooled"], "spread": np.arange(4.0)},
    )
    options = {"metric": "signal", "along": "spread", "level": 0.5, "resamples": 9}
    boundary = analysis.rejection_boundary(dataset, **options)
    rates = dataset.assign_coords(method=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(boundary["value"], [1.5, 1.5, 1.5])
    assert float(analysis.rejection_boundary(rates, **options)["value"][1]) == 1.5
    dataset["signal"][1, 0] = np.nan  # nothing is left on one side of the boundary
    assert np.isnan(analysis.rejection_boundary(dataset, **options)["value"][1])
    rates = dataset.assign_coords(method=[1.0, 2.0, 3.0])
    assert float(analysis.rejection_boundary(rates, **options)["value"][1]) == 1.5


@pytest.mark.parametrize(
    ("coordinate", "message"),
    [
        ([1.0, 1.0, 2.0], r"at least 2 different finite numbers, got \[1.0, 1.0, 2.0\]"),
        ([1.0, np.nan, 2.0], "different finite numbers"),
        (["a", "b", "c"], "different finite numbers"),
        (None, "got 'spread', which has no values of its own"),
    ],
)
def test_an_axis_without_an_order_is_refused(coordinate: list | None, message: str) -> None:
    data = decaying().isel(spread=slice(3), learning_rate=0)
    data = data.drop_vars("spread") if coordinate is None else data.assign_coords(spread=coordinate)
    calls = [
        lambda: analysis.order_parameter_boundary(data, metric="power"),
        lambda: analysis.rejection_boundary(data, "signal", along="spread", level=0.5),
        lambda: analysis.finite_time_boundary(data, "signal", level=0.5),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=message.replace("2 diff", "1 diff")):
        analysis.level_crossing(data, "signal", along="spread", level=0.5)

"""Means over the end of every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from causal_sgd import analysis
from causal_sgd.figures import Runs
from causal_sgd.training import time_average
from causal_sgd.types import Trace

STEPS = np.array([0, 10, 20, 30, 40])


def runs() -> xr.Dataset:
    values = np.arange(30.0).reshape(2, 3, 5)
    values[0, 1, -1] = np.nan
    return xr.Dataset(
        {
            "signal": (("rate", "seed", "step"), values),
            "failed": (("rate", "seed", "step"), values > 12),
            "diverged_at": (("rate", "seed"), np.where(np.arange(6).reshape(2, 3) == 1, 40, -1)),
        },
        {"rate": [0.1, 0.2], "seed": np.arange(3), "step": STEPS},
    )


@pytest.mark.parametrize(("after", "first"), [(0.75, 4), (0.5, 3), (0.6, 3), (0, 1)])
def test_frames_beyond_the_transient_are_averaged(after: float, first: int) -> None:
    data = runs()
    found = analysis.time_average(data, after=after)
    assert "step" not in found.dims
    for name in ("signal", "failed"):
        expected = data[name].values[..., first:].mean(-1)
        np.testing.assert_allclose(found[name], expected)
    np.testing.assert_array_equal(found.diverged_at, data.diverged_at)
    summary = analysis.summary(found, "signal")
    np.testing.assert_allclose(summary.diverged_fraction, [1 / 3, 0])
    mean = data.signal.values[0, [0, 2], first:].mean()
    np.testing.assert_allclose(summary["median"][0], mean)


@pytest.mark.parametrize("after", [0.75, 0.5, 0.25, 0])
def test_datasets_and_traces_have_the_same_means(after: float) -> None:
    data = runs().isel(rate=1, seed=0)
    values: Any = data.signal.values
    trace = Trace(data.step.values, {"signal": values}, np.array(-1))  # pyright: ignore
    mean = time_average(trace, after=after).metrics["signal"][0]
    np.testing.assert_allclose(analysis.time_average(data, after=after).signal, mean)


def test_the_order_of_steps_does_not_matter() -> None:
    data = runs()
    one = analysis.time_average(data, after=0.4)
    xr.testing.assert_equal(one, analysis.time_average(data.isel(step=[3, 0, 4, 2, 1]), after=0.4))


def test_with_start_and_end_only_the_end_is_left() -> None:
    data = runs().isel(step=[0, -1])
    xr.testing.assert_allclose(
        analysis.time_average(data).signal, data.signal.isel(step=-1, drop=True)
    )
    once = analysis.time_average(data)
    xr.testing.assert_identical(analysis.time_average(once), once)
    xr.testing.assert_identical(Runs(data).time_average(), once)


@pytest.mark.parametrize("after", [1, 1.5, -0.1, float("nan"), "late"])
def test_shares_out_of_range_are_refused(after: Any) -> None:
    with pytest.raises(ValueError, match="^after must be"):
        analysis.time_average(runs(), after=after)
    with pytest.raises(ValueError, match="^dataset must be"):
        analysis.time_average(after)

"""Where a transition lies, with its uncertainty."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.results import metric_names, summary

__all__ = ["Boundary", "level_crossing", "order_parameter_boundary"]


class Boundary(NamedTuple):
    """A measured boundary and its bootstrap interval over the seeds."""

    value: float
    low: float
    high: float


def order_parameter_boundary(
    dataset: xr.Dataset,
    *,
    along: str = "spread",
    metric: str = "spurious_power",
    confidence: float = 0.95,
    resamples: int = 999,
) -> Boundary:
    """The critical value of an axis, from the order parameter extrapolated to zero.

    In the stationary state E log|1 + eta (s - u^2)| = 0 makes the time average of u^2 about lambda / eta, which crosses
    zero linearly in the squared spread. The mean over seeds of the time average is therefore fitted by a line in the
    square of the axis, whose root is the boundary. Medians and thresholds of final values misplace it by 5 to 15 %,
    because just below the boundary the signal is off most of the time.

    Args:
        dataset: of a sweep whose last frame holds time averages (`time_average`), with dims (along, seed[, step]); the
            values of `along` should lie between about 0.8 and 0.95 of the boundary.
        along: the axis that is crossed.
        metric: the time average of |V' U|_F^2.
        confidence: of the percentile bootstrap interval over seeds, in (0, 1).
        resamples: of the bootstrap, at least 1; it has a fixed generator, so the interval is reproducible.

    Returns:
        The boundary; NaN where the fitted line does not fall to zero.

    Raises:
        ValueError: if a name is unknown, or there are fewer than two values along the axis or two seeds.
    """
    checks.choice("metric", metric, metric_names(dataset))
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    values = dataset[metric].where(dataset["diverged_at"] < 0)
    if "step" in values.dims:
        values = values.isel(step=-1)
    checks.choice("along", along, [str(dim) for dim in values.dims if dim != "seed"])
    values = values.squeeze([dim for dim in values.dims if dim not in (along, "seed") and values.sizes[dim] == 1])
    if set(values.dims) != {along, "seed"} or values.sizes[along] < 2 or values.sizes["seed"] < 2:
        raise ValueError(
            f"dataset must have dims ({along}, seed) with at least two values of each, got {dict(values.sizes)}; "
            "select one point of the other axes"
        )
    squares = np.asarray(values[along].values, float) ** 2
    table = values.transpose("seed", along).values.astype(float)

    def root(chosen: np.ndarray) -> float:
        chosen_runs = table[chosen]
        if np.isnan(chosen_runs).all(0).any():
            return np.nan  # a point of the axis has no run left
        means = np.nanmean(chosen_runs, axis=0)
        slope, intercept = np.polyfit(squares, means, 1)
        return float(np.sqrt(-intercept / slope)) if slope < 0 < intercept else np.nan

    everyone = np.arange(len(table))
    interval = stats.bootstrap(
        (everyone,), root, n_resamples=resamples, confidence_level=confidence, method="percentile",
        vectorized=False, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Boundary(root(everyone), float(interval.low), float(interval.high))


def level_crossing(dataset: xr.Dataset, metric: str, *, along: str, level: float) -> xr.DataArray:
    """Where the median final value first falls below a level along an axis, by linear interpolation.

    In runs of finite length it lies below the boundary; see `order_parameter_boundary`.

    Args:
        dataset: of a sweep.
        metric: whose median over the seeds that did not diverge is taken at the last step.
        along: the axis, with increasing values.
        level: the level.

    Returns:
        The crossing, with the remaining dims of the sweep; NaN where there is none. Where the median is below from the
        start, the first value of the axis.

    Raises:
        ValueError: if a name is unknown.
    """
    median = summary(dataset, metric)["median"]
    if "step" in median.dims:
        median = median.isel(step=-1)
    checks.choice("along", along, [str(dim) for dim in median.dims])
    checks.number("level", level)
    axis = np.asarray(median[along].values, float)

    def cross(values: np.ndarray) -> float:
        below = np.flatnonzero(values < level)
        if not len(below):
            return np.nan
        after = below[0]
        if after == 0:
            return axis[0]
        before = after - 1
        share = (values[before] - level) / (values[before] - values[after])
        return float(axis[before] + share * (axis[after] - axis[before]))

    return xr.apply_ufunc(cross, median, input_core_dims=[[along]], vectorize=True)

"""Boundaries by levels of a metric: crossings, and the share of the runs that reject."""

from __future__ import annotations

import numpy as np
import xarray as xr

from causal_sgd import checks
from causal_sgd.analysis._crossings import (
    clopper_pearson,
    crossings,
    increasing,
    rejections,
    tails,
)
from causal_sgd.analysis._summaries import final, summary

__all__ = [
    "level_crossing",
    "rejecting_fraction",
    "rejection_boundary",
]


def level_crossing(dataset: xr.Dataset, metric: str, *, along: str, level: float) -> xr.DataArray:
    """The point of an axis at which the median final value first falls below a level.

    By linear interpolation, from the smallest value of the axis upwards. In runs of finite length
    it lies below the boundary; see `order_parameter_boundary`.

    Args:
        dataset: the result of a sweep.
        metric: name of the metric; its median at the last step is over the seeds that did not
            diverge. Cells without such a seed are skipped.
        along: the axis; its values may have any order.
        level: the level.

    Returns:
        The crossing over the remaining dims of the sweep; NaN where there is none, the smallest
        value of the axis where the median is below the level there.

    Raises:
        ValueError: if a name is unknown, or the axis has no different finite numbers.
    """
    median = final(summary(dataset, metric))["median"]
    checks.choice("along", along, [str(dim) for dim in median.dims])
    checks.number("level", level, double=True)
    median = increasing(median, along, least=1)
    axis = np.asarray(median[along].values, float)

    def cross(values: np.ndarray) -> float:
        (valid,) = np.nonzero(np.isfinite(values))
        below = np.flatnonzero(values[valid] < level)
        if not len(below):
            return np.nan
        after = valid[below[0]]
        if below[0] == 0:
            return float(axis[after])
        before = valid[below[0] - 1]
        weight = (values[before] - level) / (values[before] - values[after])
        return float(axis[before] + weight * (axis[after] - axis[before]))

    return xr.apply_ufunc(cross, median, input_core_dims=[[along]], vectorize=True)


def rejecting_fraction(
    dataset: xr.Dataset, metric: str, *, level: float, share: float = 0.5, confidence: float = 0.95
) -> xr.Dataset:
    """The fraction of seeds in every cell that reject the spurious part.

    Args:
        dataset: the result of a sweep.
        metric: name of the metric; runs that diverged or are missing do not count.
        level: a final value below it is a rejection.
        share: the fraction that each cell is compared with, in (0, 1].
        confidence: level of the Clopper-Pearson interval of each cell, in (0, 1].

    Returns:
        A dataset with `fraction`, `low`, `high`, `runs` (number of valid runs) and `decided` (1
        where the interval lies above the share, -1 where it lies below, 0 where it contains the
        share or there is no valid run), over the dims of the sweep except `seed` and `step`.

    Raises:
        ValueError: if the metric is unknown or a number is out of range.
    """
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    rejects = rejections(dataset, metric, level)
    runs = rejects.notnull().sum("seed")
    count = rejects.sum("seed")
    low, high = xr.apply_ufunc(
        lambda k, n: clopper_pearson(k, n, confidence), count, runs, output_core_dims=[[], []]
    )
    low, high = low.where(runs > 0), high.where(runs > 0)
    # NaN compares false: a cell without runs is undecided.
    decided = (low > share).astype(int) - (high < share).astype(int)
    return xr.Dataset(
        {
            "fraction": count / runs.where(runs > 0),
            "low": low,
            "high": high,
            "runs": runs,
            "decided": decided,
        }
    )


def rejection_boundary(
    dataset: xr.Dataset,
    metric: str,
    *,
    along: str,
    level: float,
    share: float = 0.5,
    confidence: float = 0.95,
    resamples: int = 999,
) -> xr.Dataset:
    """The boundary curve, with its band, at which a share of the seeds rejects the spurious part.

    The fraction of seeds with a final value below the level is interpolated linearly along the
    axis; the boundary is its first crossing of the share, coming from the side where fewer seeds
    reject. The band is the percentile bootstrap over seeds, resampled jointly for all cells because
    cells share their worlds. In a refined diagram, cells without runs are filled by linear
    interpolation along the other axes of numbers. In runs of finite length the boundary lies below
    that of `order_parameter_boundary`; see `finite_time_boundary`.

    Args:
        dataset: the result of a sweep.
        metric: name of the metric; runs that diverged or are missing do not count.
        along: the axis, in any order of its values; the fraction may rise or fall along it.
        level: a final value below it is a rejection.
        share: the share of the seeds, in (0, 1].
        confidence: level of the band, in (0, 1].
        resamples: number of bootstrap resamples, at least 1. The generator is fixed: the band is
            reproducible.

    Returns:
        A dataset with `value`, `low` and `high` over the other axes of the sweep. `value` is NaN
        where there is no crossing within the axis; a bound is infinite where that quantile of the
        bootstrap distribution lies beyond the axis.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or the axis does not have at
            least two different finite numbers.
    """
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    rejects = rejections(dataset, metric, level)
    checks.choice("along", along, [str(dim) for dim in rejects.dims if dim != "seed"])
    rejects = increasing(rejects, along).transpose(..., along, "seed")
    points = crossings(rejects, along, share, resamples)
    value = np.where(np.isfinite(points[0]), points[0], np.nan)
    # A resample without a crossing counts as one beyond an end of the axis. Interpolated quantiles
    # would mix infinite and finite values.
    low, high = np.quantile(points[1:], tails(confidence), axis=0, method="inverted_cdf")
    others = rejects.dims[:-2]
    coords = {
        name: rejects.coords[name]
        for name in rejects.coords
        if set(rejects.coords[name].dims) <= set(others)
    }
    bounds = zip(("value", "low", "high"), (value, low, high), strict=True)
    return xr.Dataset({name: (others, bound) for name, bound in bounds}, coords)

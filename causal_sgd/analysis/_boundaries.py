"""Two estimators of a boundary from the results of a sweep over any axis, and the binomial of every cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.analysis._crossings import checked_axis, clopper_pearson, crossings, rejections
from causal_sgd.analysis._summaries import divergences, metric_names, summary

__all__ = [
    "Boundary", "finite_time_boundary", "level_crossing", "order_parameter_boundary", "rejecting_fraction",
    "rejection_boundary",
]  # fmt: skip


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
    power: float | None = None,
) -> Boundary:
    """The critical value of an axis, from the order parameter extrapolated to zero.

    In the stationary state E log|1 + eta (s - u^2)| = 0 makes the time average of u^2 about lambda / eta, which crosses
    zero linearly in the squared spread, and in the learning rate and the mean themselves: for small steps it is
    mu - eta (Var s + mu^2) / 2. The mean over seeds of the time average is therefore fitted by a line in the square of the
    spread, or in another axis itself, whose root is the boundary. Medians and thresholds of final values misplace it by 5
    to 15 %, because just below the boundary the signal is off most of the time.

    Args:
        dataset: of a sweep whose last frame holds time averages (`time_average`), with dims (along, seed[, step]); the
            values of `along` should lie where the signal survives, within about 20 % of the boundary but no nearer than 5 %.
        along: the axis that is crossed, on either side of whose values the boundary may lie.
        metric: the time average of |V' U|_F^2.
        confidence: of the percentile bootstrap interval over seeds, in (0, 1).
        resamples: of the bootstrap, at least 1; it has a fixed generator, so the interval is reproducible.
        power: of the axis in which the order parameter is linear; None for 2 along `spread` and 1 along any other.

    Returns:
        The boundary; NaN where the fitted line does not fall to zero.

    Raises:
        ValueError: if a name is unknown, or there are fewer than two values along the axis or two seeds.
    """
    checks.choice("metric", metric, metric_names(dataset))
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    values = dataset[metric].where(divergences(dataset) < 0)
    if "step" in values.dims:
        values = values.isel(step=-1)
    checks.choice("along", along, [str(dim) for dim in values.dims if dim != "seed"])
    values = values.squeeze(
        [dim for dim in values.dims if dim not in (along, "seed") and values.sizes[dim] == 1]
    )
    if set(values.dims) != {along, "seed"} or values.sizes[along] < 2 or values.sizes["seed"] < 2:
        raise ValueError(
            f"dataset must have dims ({along}, seed) with at least two values of each, got {dict(values.sizes)}; "
            "select one point of the other axes"
        )
    power = (
        (2.0 if along == "spread" else 1.0)
        if power is None
        else float(checks.number("power", power, above=0))
    )
    places = np.asarray(values[along].values, float) ** power
    table = values.transpose("seed", along).values.astype(float)

    def root(chosen: np.ndarray) -> float:
        chosen_runs = table[chosen]
        if np.isnan(chosen_runs).all(0).any():
            return np.nan  # a point of the axis has no run left
        slope, intercept = np.polyfit(places, np.nanmean(chosen_runs, axis=0), 1)
        zero = -intercept / slope if slope else np.nan
        return float(zero ** (1 / power)) if zero > 0 else np.nan

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


def rejecting_fraction(
    dataset: xr.Dataset, metric: str, *, level: float, share: float = 0.5, confidence: float = 0.95
) -> xr.Dataset:
    """In every cell, the fraction of seeds whose final value is below a level: those that reject the spurious part.

    Args:
        dataset: of a sweep.
        metric: whose final values are taken; a run that diverged, or is missing, counts in nothing.
        level: a value below it is a rejection.
        share: the fraction that a cell is compared with, in (0, 1).
        confidence: of the Clopper-Pearson interval of each cell's binomial, in (0, 1).

    Returns:
        A dataset with `fraction`, `low`, `high`, `runs` (those that count) and `decided` (1 where the interval lies above the
        share, -1 below, 0 where it straddles it or no run counts), with the dims of the sweep but `seed` and `step`.

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
    """Where a share of the seeds rejects the spurious part, along an axis: a boundary curve with its band.

    The fraction of seeds whose final value is below the level is interpolated linearly between the values of the axis, and
    the boundary is its first crossing of the share, seen from where fewer reject. The band is the percentile bootstrap over
    seeds, which are resampled together for all cells, as they share their worlds. Cells that were not run, in a refined
    diagram, are filled linearly between those that were along the other axes, where there are any. In runs of finite
    length the boundary lies below that of `order_parameter_boundary`; see `finite_time_boundary`.

    Args:
        dataset: of a sweep.
        metric: whose final values are taken; a run that diverged, or is missing, counts in nothing.
        along: the axis that is crossed, with increasing values; more seeds may reject towards either end.
        level: a value below it is a rejection.
        share: of the seeds, in (0, 1).
        confidence: of the band, in (0, 1).
        resamples: of the bootstrap, at least 1; it has a fixed generator, so the band is reproducible.

    Returns:
        A dataset with `value`, `low` and `high` over the other axes of the sweep. `value` is NaN where the axis shows no
        crossing; a bound is infinite where that end of the bootstrap distribution lies beyond the axis.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or the axis has fewer than two or no increasing values.
    """
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    rejects = rejections(dataset, metric, level)
    checks.choice("along", along, [str(dim) for dim in rejects.dims if dim != "seed"])
    table = checked_axis(rejects, along)
    found = crossings(table, along, share, resamples)
    value = np.where(np.isfinite(found[0]), found[0], np.nan)
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    # A resample that rejects everywhere, or nowhere, has its crossing beyond one end of the axis or the other.
    low, high = np.quantile(found[1:], edges, axis=0, method="inverted_cdf")
    others = table.dims[:-2]
    coords = {
        name: table.coords[name]
        for name in table.coords
        if set(table.coords[name].dims) <= set(others)
    }
    bounds = zip(("value", "low", "high"), (value, low, high), strict=True)
    return xr.Dataset({name: (others, bound) for name, bound in bounds}, coords)


def finite_time_boundary(
    dataset: xr.Dataset,
    metric: str = "spurious_signal",
    *,
    along: str = "spread",
    level: float,
    share: float = 0.5,
    first_step: int = 1,
    confidence: float = 0.95,
    resamples: int = 999,
    power: float | None = None,
) -> Boundary:
    """The critical value of an axis from runs of finite length: the apparent transition extrapolated in 1/T to zero.

    In the linear regime log|u_T| is about log(alpha) + lambda T +- sqrt(v T): half of the runs lie below a level where
    lambda = log(level/alpha)/T. As lambda is about linear in the squared spread, the square of the apparent boundary at the
    recorded steps T is fitted by a line in 1/T, whose value at zero is the boundary. That holds as long as the walk has
    not felt the nonlinearity: sqrt(v T) well below log(1/level). Take a small alpha and a level between it and 1, such as
    1e-12 and 1e-6, and few steps. Beyond, the apparent boundary stays below the true one however long the runs are; see
    `theory.finite_time_critical_spread`, which predicts both.

    Args:
        dataset: of a sweep with several recorded steps, dims (along, seed, step).
        metric: whose values are compared with the level: |V' U|_F of one spurious direction.
        along: the axis that is crossed, with increasing values.
        level: a value below it is a rejection.
        share: of the seeds, in (0, 1).
        first_step: earlier frames are left out.
        confidence: of the percentile bootstrap interval over seeds, in (0, 1).
        resamples: of the bootstrap.
        power: of the axis in which lambda is linear; None for 2 along `spread` and 1 along any other.

    Returns:
        The boundary; NaN with fewer than two frames at which the axis shows a crossing.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or there is another axis with several values.
    """
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    checks.integer("first_step", first_step)
    rejects = rejections(dataset, metric, level, frames=True)
    if "step" not in rejects.dims:
        raise ValueError(
            "dataset must have the recorded steps of its runs, dims (along, seed, step), got one frame"
        )
    rejects = rejects.sel(step=rejects["step"] >= first_step)
    checks.choice("along", along, [str(dim) for dim in rejects.dims if dim not in ("seed", "step")])
    rejects = rejects.squeeze(
        [
            dim
            for dim in rejects.dims
            if dim not in (along, "seed", "step") and rejects.sizes[dim] == 1
        ]
    )
    if set(rejects.dims) != {along, "seed", "step"}:
        raise ValueError(
            f"dataset must have dims ({along}, seed, step), got {dict(rejects.sizes)}; select one point"
        )
    table = checked_axis(rejects, along)
    power = (
        (2.0 if along == "spread" else 1.0)
        if power is None
        else float(checks.number("power", power, above=0))
    )
    found = crossings(table, along, share, resamples)
    seen = np.isfinite(found[0])
    if seen.sum() < 2:
        return Boundary(np.nan, np.nan, np.nan)
    inverse = 1 / table["step"].values[seen].astype(float)
    heights = found[:, seen] ** power
    heights = np.where(np.isfinite(heights), heights, np.nan)
    spreads = np.maximum(
        np.nanstd(heights[1:], 0), 1e-9 * np.nanmean(abs(heights))
    )  # frames weigh by their scatter
    design = np.stack([np.ones_like(inverse), inverse], 1) / spreads[:, None]
    ends = (heights / spreads) @ np.linalg.pinv(design)[0]
    roots = np.where(ends > 0, np.abs(ends) ** (1 / power), np.nan)
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (
        np.nanquantile(roots[1:], edges) if np.isfinite(roots[1:]).any() else (np.nan, np.nan)
    )
    return Boundary(float(roots[0]), float(low), float(high))

"""Two estimators of a boundary from the results of a sweep over any axis, and the binomial of every cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.results import final, metric_names, summary

__all__ = [
    "Boundary", "clopper_pearson", "level_crossing", "order_parameter_boundary", "rejecting_fraction",
    "rejection_boundary",
]  # fmt: skip


AT_ONCE = 2**22  # numbers that the bootstrap of a diagram holds at a time


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
    power = (2.0 if along == "spread" else 1.0) if power is None else float(checks.number("power", power, above=0))
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
    rejects = _rejects(dataset, metric, level)
    runs = rejects.notnull().sum("seed")
    count = rejects.sum("seed")
    low, high = xr.apply_ufunc(lambda k, n: clopper_pearson(k, n, confidence), count, runs, output_core_dims=[[], []])
    low, high = low.where(runs > 0), high.where(runs > 0)
    decided = (low > share).astype(int) - (high < share).astype(int)
    return xr.Dataset(
        {"fraction": count / runs.where(runs > 0), "low": low, "high": high, "runs": runs, "decided": decided}
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
    the boundary is its first crossing of the share, seen from where fewer reject. The band is the percentile bootstrap over seeds, which are
    resampled together for all cells, as they share their worlds. Cells that were not run, in a refined diagram, are filled
    linearly between those that were along the other axes, where there are any. In runs of finite length the boundary lies
    below that of `order_parameter_boundary`, the more so the shorter they are.

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
    rejects = _rejects(dataset, metric, level)
    checks.choice("along", along, [str(dim) for dim in rejects.dims if dim != "seed"])
    axis = np.asarray(rejects[along].values, float)
    if len(axis) < 2 or (np.diff(axis) <= 0).any():
        raise ValueError(
            f"along must name an axis with at least two increasing values, got {axis.tolist()} for {along!r}"
        )
    table = rejects.transpose(..., along, "seed")
    *others, _ = table.dims[:-1]
    runs = table.values.reshape(-1, table.sizes["seed"])
    known = np.isfinite(runs)
    rejecting = np.where(known, runs, 0)
    seeds = runs.shape[1]
    # How often a resample draws each seed; the first takes each once and is the sample itself.
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    drawn = np.concatenate([np.ones((1, seeds)), drawn])
    filled = _filler(known.any(1).reshape(table.shape[:-1]))
    # Where fewer reject towards the upper end, as along the mean, everything is done on the mirrored axis.
    turn = -1 if _falls(table.mean("seed").values) else 1
    axis = turn * axis[::turn]
    places = []
    for some in np.array_split(drawn, -(-len(drawn) * len(runs) // AT_ONCE)):
        with np.errstate(invalid="ignore"):
            fractions = (some @ rejecting.T) / (some @ known.T.astype(float))
        places.append(_first_crossing(axis, filled(fractions.reshape(-1, *table.shape[:-1]))[..., ::turn], share))
    crossings = turn * np.concatenate(places)
    # A resample that rejects everywhere, or nowhere, has its crossing beyond one end of the axis or the other.
    value = np.where(np.isfinite(crossings[0]), crossings[0], np.nan)
    edges = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(crossings[1:], edges, axis=0, method="inverted_cdf")
    coords = {name: table.coords[name] for name in table.coords if set(table.coords[name].dims) <= set(others)}
    return xr.Dataset(
        {name: (others, bound) for name, bound in zip(("value", "low", "high"), (value, low, high), strict=True)},
        coords,
    )


def clopper_pearson(count: np.ndarray, total: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The exact interval of a binomial's probability, elementwise; (0, 1) where there are no trials."""
    tail = (1 - confidence) / 2
    some, not_all = count > 0, count < total
    low = stats.beta.ppf(tail, np.where(some, count, 1), np.where(some, total - count + 1, 1))
    high = stats.beta.ppf(1 - tail, np.where(not_all, count + 1, 1), np.where(not_all, total - count, 1))
    return np.where(some, low, 0.0), np.where(not_all, high, 1.0)


def _falls(fractions: np.ndarray) -> bool:
    """Whether fractions [..., along] fall along the axis, most of them."""
    half = fractions.shape[-1] // 2
    lower, upper = (part[np.isfinite(part)] for part in (fractions[..., :half], fractions[..., -half:]))
    return bool(lower.size and upper.size and lower.mean() > upper.mean())


def _filler(known: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fill cells that were not run, [..., *others, along], between those that were, along one other axis after another.

    In a refined diagram a row holds few cells but those at the boundary; its neighbours tell how far the band reaches.
    """
    steps = []
    for axis in range(known.ndim - 1):
        size = known.shape[axis]
        place = np.arange(size).reshape(-1, *[1] * (known.ndim - axis - 1))
        before = np.maximum.accumulate(np.where(known, place, -1), axis)
        after = np.flip(np.minimum.accumulate(np.flip(np.where(known, place, size), axis), axis), axis)
        between = ~known & (before >= 0) & (after < size)
        share = np.where(between, (place - before) / np.maximum(after - before, 1), 0)
        before, after = np.where(between, before, place), np.where(between, after, place)
        steps.append((axis - known.ndim, before, after, share))
        known = known | between

    def fill(values: np.ndarray) -> np.ndarray:
        for axis, before, after, share in steps:
            left, right = (np.take_along_axis(values, index[None], axis) for index in (before, after))
            values = np.where(share > 0, (1 - share) * left + share * right, left)
        return values

    return fill


def _first_crossing(axis: np.ndarray, fractions: np.ndarray, share: float) -> np.ndarray:
    """Where fractions [..., along] first reach a share from below; -inf where they start above, inf where they never do."""
    known = np.isfinite(fractions)
    above = known & (fractions >= share)
    after = np.argmax(above, -1)[..., None]
    place = np.where(known, np.arange(len(axis)), -1)
    last = np.maximum.accumulate(place, -1)  # the last known cell up to each
    before = np.take_along_axis(last, np.maximum(after - 1, 0), -1)
    inside = (after > 0) & (before >= 0)
    before = np.where(inside, before, after)
    low, high = (np.take_along_axis(fractions, index, -1)[..., 0] for index in (before, after))
    before, after, inside = before[..., 0], after[..., 0], inside[..., 0]
    part = np.where(inside, (share - low) / np.where(inside, high - low, 1), 0)
    found = axis[before] + part * (axis[after] - axis[before])
    return np.where(above.any(-1), np.where(inside, found, -np.inf), np.inf)


def _rejects(dataset: xr.Dataset, metric: str, level: float) -> Any:
    """Whether a run's final value is below a level, as 0 or 1; NaN where it diverged or is missing."""
    checks.number("level", level)
    values = final(dataset)[checks.choice("metric", metric, metric_names(dataset))]
    kept = np.isfinite(values) & (dataset["diverged_at"] < 0)
    return (values < level).astype(float).where(kept)

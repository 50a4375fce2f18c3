"""Critical values by extrapolation: an order parameter to zero, finite runs to infinite ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.analysis._crossings import (
    crossings,
    increasing,
    rejections,
    resamples_of,
    tails,
)
from causal_sgd.analysis._summaries import divergences, final, metric_names, valid
from causal_sgd.analysis._validity import bent, doubt

__all__ = [
    "Boundary",
    "finite_time_boundary",
    "order_parameter_boundary",
]

DEAD = 1e-6  # a time average below this share of the mean over seeds belongs to a dead signal
SHARE_OF_DEAD = 0.08  # of the runs; rarer ones belong to the stationary state
RESAMPLES = 199  # bootstrap resamples of a check


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

    In the stationary state E log|1 + eta (s - u^2)| = 0, so the time average of u^2 is about
    lambda / eta. It crosses zero linearly in the squared spread, in the learning rate and in the
    mean: for small steps it is mu - eta (Var s + mu^2) / 2. The boundary is therefore the root of a
    line fitted to the mean over seeds of the time average, as a function of the squared spread or
    of another axis itself. Medians and thresholds of final values misplace it by 5 to 15 %, because
    just below the boundary the signal is off most of the time.

    The line itself is accurate to 1 % for eta mu up to 0.1 and values between 0.8 and 0.95 of the
    boundary; the interval does not contain this error. It requires stationary runs, of many times
    1 / (eta mu) steps, in which a dead signal can fall freely. In single precision and a random
    frame (`basis="random"`), rounding of the parameters feeds or freezes signals below about 1e-7,
    which moves the boundary by several per cent. A canonical frame or 64 bits avoid it: the frame
    changes no distribution where measurements are isotropic.

    Args:
        dataset: the result of a sweep whose last frame holds time averages (`time_average`), with
            dims (along, seed[, step]). The values of `along` should lie where the signal survives,
            within about 20 % of the boundary but no closer than 5 %; with fewer than three nothing
            shows whether they lie on a line.
        along: the axis; the boundary may lie on either side of its values.
        metric: the time average of |V' U|_F^2.
        confidence: level of the percentile bootstrap interval over seeds, in (0, 1].
        resamples: number of bootstrap resamples, at least 1. The generator is fixed: the interval
            is reproducible.
        power: the power of the axis in which the order parameter is linear; None for 2 along
            `spread` and 1 along any other axis.

    Returns:
        The boundary; NaN where the fitted line does not cross zero at a positive value.

    Warns:
        RuntimeWarning: if the order parameter is not linear (a parabola moves the boundary by more
            than 1 %), signals died, values lie beyond the boundary or there is none, or none of
            some resamples.

    Raises:
        ValueError: if a name is unknown, there are fewer than two values along the axis or two
            seeds, or the axis has no different finite numbers.
    """
    checks.choice("metric", metric, metric_names(dataset))
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    divergences(dataset)  # must be there
    values = valid(dataset, final(dataset)[metric])
    checks.choice("along", along, [str(dim) for dim in values.dims if dim != "seed"])
    values = _squeezed(values, (along, "seed"))
    if set(values.dims) != {along, "seed"} or values.sizes[along] < 2 or values.sizes["seed"] < 2:
        raise ValueError(
            f"dataset must have dims ({along}, seed) with at least two values of each, "
            f"got {dict(values.sizes)}; select one point of the other axes"
        )
    values = increasing(values, along)
    exponent = _linear_power(along, power)
    abscissas = np.asarray(values[along].values, float) ** exponent
    table = values.transpose("seed", along).values.astype(float)

    def root(seeds: np.ndarray) -> float:
        sample = table[seeds]
        if np.isnan(sample).all(0).any():
            return np.nan  # all runs at one point of the axis diverged
        slope, intercept = np.polyfit(abscissas, np.nanmean(sample, axis=0), 1)
        zero = -intercept / slope if slope else np.nan
        return float(zero ** (1 / exponent)) if zero > 0 else np.nan

    seeds = np.arange(len(table))
    with warnings.catch_warnings():
        # It speaks of another kind of interval; what is wrong is said below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        bootstrap = stats.bootstrap(
            (seeds,),
            root,
            n_resamples=resamples,
            confidence_level=confidence,
            method="percentile",
            vectorized=False,
            rng=np.random.default_rng(0),
        )
    interval, value = bootstrap.confidence_interval, root(seeds)
    if np.isnan(interval.low) and not np.isnan(value):
        reason = "some resamples of the seeds have no boundary, so its interval is NaN"
        doubt("order_parameter_boundary", f"{reason}; use more seeds")
    for reason in _doubts_of_order_parameter(table, np.asarray(values[along]), value, exponent):
        doubt("order_parameter_boundary", reason)
    return Boundary(value, float(interval.low), float(interval.high))


def _doubts_of_order_parameter(
    table: np.ndarray, axis: np.ndarray, boundary: float, exponent: float
) -> Iterator[str]:
    """Reasons to doubt the root of a line through the means of time averages [seed, along]."""
    if np.isnan(boundary):
        yield "the fitted line does not cross zero at a positive value, or a point has no valid run"
        return
    if axis.min() < boundary < axis.max():
        yield (
            f"values of the axis lie on both sides of {boundary:.4g}; those where the signal is "
            "dead do not lie on the line"
        )
    dead = np.nanmean(
        np.where(np.isnan(table), np.nan, abs(table) < DEAD * abs(np.nanmean(table, 0))), 0
    )
    if dead.max() > SHARE_OF_DEAD:
        yield (
            f"in {dead.max():.0%} of the runs at {axis[dead.argmax()]:.4g} the signal died. Runs "
            "are too short, or rounding freezes it (single precision in a random frame)"
        )
    counts = resamples_of(len(table), RESAMPLES)
    with np.errstate(invalid="ignore"):  # 0/0 in a resample without valid runs
        means = (counts @ np.nan_to_num(table)) / (counts @ np.isfinite(table).astype(float))
    if reason := bent(axis.astype(float) ** exponent, means, boundary, "root", exponent):
        yield (
            f"{reason}. Values are too far from the boundary, runs are too short, or noise or "
            "rounding feeds the dead signal (single precision in a random frame)"
        )


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
    """The critical value of an axis from runs of finite length, extrapolated to T = infinity.

    In the linear regime log|u_T| is about log(alpha) + lambda T +- sqrt(v T): half of the runs lie
    below a level where lambda = log(level/alpha)/T. As lambda is approximately linear in the
    squared spread, a line in 1/T is fitted to the squared apparent boundary at the recorded steps
    T; its value at zero is the boundary. This is valid as long as the walk has not reached the
    nonlinearity: sqrt(v T) well below log(1/level). Use a small alpha and a level between it and 1,
    such as 1e-12 and 1e-6, and few steps. In longer runs the apparent boundary stays below the true
    one; see `theory.finite_time_critical_spread`, which predicts both regimes.

    It is accurate to 2 % for two points, uniform and normal eigenvalues (eta mu up to 0.1, four or
    more frames from T = 2/(eta mu) to 8/(eta mu)); the interval does not contain this error. Lists
    with heavy tails or a rare outlier bend the line by several per cent: v is large, and log|u_T|
    is far from normal. In single precision the level must exceed 1e-6 in a random frame, where
    rounding feeds smaller signals.

    Args:
        dataset: the result of a sweep with several recorded steps, dims (along, seed, step).
        metric: |V' U|_F of one spurious direction, compared with the level.
        along: the axis; its values may have any order.
        level: a value below it is a rejection.
        share: the share of the seeds, in (0, 1].
        first_step: earlier frames are ignored.
        confidence: level of the percentile bootstrap interval over seeds, in (0, 1].
        resamples: number of bootstrap resamples, at least 1.
        power: the power of the axis in which lambda is linear; None for 2 along `spread` and 1
            along any other axis.

    Returns:
        The boundary; NaN if fewer than two frames have a crossing within the axis.

    Warns:
        RuntimeWarning: if the apparent boundaries are not linear in 1/T (a parabola moves the
            boundary by more than 1 %; it takes three frames to see) or there is none.

    Raises:
        ValueError: if a name is unknown, a number is out of range, another axis has several
            values, or the axis does not have at least two different finite numbers.
    """
    checks.number("share", share, above=0, maximum=1)
    checks.number("confidence", confidence, above=0, maximum=1)
    checks.integer("resamples", resamples)
    checks.integer("first_step", first_step)
    rejects = rejections(dataset, metric, level, frames=True)
    if "step" not in rejects.dims:
        raise ValueError(
            "dataset must have the recorded steps of its runs, dims (along, seed, step), "
            "got a single frame"
        )
    rejects = rejects.sel(step=rejects["step"] >= first_step)
    checks.choice("along", along, [str(dim) for dim in rejects.dims if dim not in ("seed", "step")])
    rejects = _squeezed(rejects, (along, "seed", "step"))
    if set(rejects.dims) != {along, "seed", "step"}:
        raise ValueError(
            f"dataset must have dims ({along}, seed, step), got {dict(rejects.sizes)}; "
            "select one point of the other axes"
        )
    rejects = increasing(rejects, along)
    exponent = _linear_power(along, power)
    points = crossings(rejects, along, share, resamples)
    crossed = np.isfinite(points[0])
    if crossed.sum() < 2:
        doubt(
            "finite_time_boundary",
            f"{crossed.sum()} of {len(crossed)} frames have a crossing within the axis, which must "
            "be at least 2; its values or the level are out of reach",
        )
        return Boundary(np.nan, np.nan, np.nan)
    inverse_steps = 1 / rejects["step"].values[crossed].astype(float)
    intercepts = _intercepts(inverse_steps, points[:, crossed] ** exponent)
    boundaries = np.where(intercepts > 0, np.abs(intercepts) ** (1 / exponent), np.nan)
    low = high = np.nan
    if np.isfinite(boundaries[1:]).any():
        low, high = np.nanquantile(boundaries[1:], tails(confidence))
    heights = np.where(np.isfinite(points), points, np.nan)[:, crossed] ** exponent
    if reason := bent(inverse_steps, heights, float(boundaries[0]), "intercept", exponent):
        doubt(
            "finite_time_boundary",
            f"{reason}. The walk has reached the nonlinearity, the tail of the eigenvalues is "
            "heavy, or frames are too early: choose other steps or a smaller alpha",
        )
    return Boundary(float(boundaries[0]), float(low), float(high))


def _intercepts(abscissas: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Values at zero [1 + R] of lines fitted to heights [1 + R, n]: the sample, then its resamples.

    Points are weighted by their standard deviation over the resamples.
    """
    heights = np.where(np.isfinite(heights), heights, np.nan)
    # The floor keeps the weight of a point finite if all resamples agree on it.
    deviations = np.maximum(np.nanstd(heights[1:], 0), 1e-9 * np.nanmean(abs(heights)))
    design = np.stack([np.ones_like(abscissas), abscissas], 1) / deviations[:, None]
    return (heights / deviations) @ np.linalg.pinv(design)[0]


def _squeezed(values: xr.DataArray, dims: tuple[str, ...]) -> xr.DataArray:
    """The array without the dims of length one other than the given ones."""
    return values.squeeze(
        [dim for dim in values.dims if dim not in dims and values.sizes[dim] == 1]
    )


def _linear_power(along: str, power: float | None) -> float:
    """The power of an axis in which the exponent is approximately linear."""
    if power is None:
        return 2.0 if along == "spread" else 1.0
    return float(checks.number("power", power, above=0, double=True))

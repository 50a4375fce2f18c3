"""Rejecting runs, crossings of a share and binomial intervals: what boundary estimators share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.analysis._summaries import divergences, final, metric_names, valid

__all__ = ["clopper_pearson", "crossings", "increasing", "rejections", "resamples_of", "tails"]

BLOCK_SIZE = 2**22  # numbers that the bootstrap of a diagram holds in memory at a time


def rejections(
    dataset: xr.Dataset, metric: str, level: float, *, frames: bool = False
) -> xr.DataArray:
    """Whether each run ends below a level, as 1 or 0; NaN where it diverged or is missing.

    Args:
        dataset: the result of a sweep.
        metric: name of a metric with one number per run and frame.
        level: a value below it is a rejection.
        frames: whether to compare all frames instead of the last one.

    Raises:
        ValueError: if the metric is unknown or has inner dims, or the level is not finite.
    """
    checks.number("level", level, double=True)
    checks.choice("metric", metric, metric_names(dataset))
    values = (dataset if frames else final(dataset))[metric]
    diverged_at = divergences(dataset)
    if inner := [str(dim) for dim in values.dims if dim not in ("step", *diverged_at.dims)]:
        raise ValueError(
            f"metric must have one number per run and frame, got {metric!r} with {inner[0]!r}; "
            "select one entry with .isel"
        )
    values = valid(dataset, values)
    return (values < np.float64(level)).astype(float).where(values.notnull())


def increasing(values: xr.DataArray, along: str, *, least: int = 2) -> xr.DataArray:
    """The array with the coordinate of one axis in increasing order.

    Args:
        values: with the dim `along`.
        along: the axis.
        least: the smallest number of values it may have.

    Raises:
        ValueError: if the axis has no coordinate of different finite numbers, or too few.
    """
    required = f"along must name an axis with at least {least} different finite numbers"
    if along not in values.coords:
        raise ValueError(f"{required}, got {along!r}, which has no values of its own")
    axis = values[along].values
    if not _is_ordered(axis) or len(axis) < least:
        raise ValueError(f"{required}, got {axis.tolist()} for {along!r}")
    return values.isel({along: np.argsort(axis)})


def crossings(rejects: xr.DataArray, along: str, share: float, resamples: int) -> np.ndarray:
    """Where the rejecting fraction crosses a share, in the sample and in bootstrap resamples.

    Args:
        rejects: [..., along, seed] in any order, 0 or 1, NaN for runs that do not count.
        along: the axis that is crossed, with increasing values; the others may have any order.
        share: the fraction of seeds at the crossing.
        resamples: number R of bootstrap resamples, with a fixed generator.

    Returns:
        Crossings [1 + R, ...], the other dims in the order of `rejects`; the first is that of the
        sample itself. -inf and inf stand for a crossing before and after the axis.
    """
    rejects = rejects.transpose(..., along, "seed")
    # Cells without runs are filled from their neighbours, so the other axes must be in order, too.
    others = [dim for dim in map(str, rejects.dims[:-2]) if dim in rejects.coords]
    ordered = [dim for dim in others if _is_ordered(rejects[dim].values)]
    orders = {dim: np.argsort(rejects[dim].values) for dim in ordered}
    rejects = rejects.isel(orders)
    axis = np.asarray(rejects[along].values, float)
    runs = rejects.values.reshape(-1, rejects.sizes["seed"])
    valid = np.isfinite(runs)
    rejecting = np.where(valid, runs, 0)
    seeds = runs.shape[1]
    # The seeds are drawn jointly for all cells, because cells share their worlds.
    counts = resamples_of(seeds, resamples)
    fill = _filler(
        np.reshape(valid.any(1), rejects.shape[:-1]), [rejects.dims.index(dim) for dim in ordered]
    )
    # Where fewer seeds reject towards the upper end, as along the mean, mirror the axis.
    sign = -1 if _falls(rejects.mean("seed").values) else 1
    axis = sign * axis[::sign]
    blocks = []
    for block in np.array_split(counts, -(-len(counts) * len(runs) // BLOCK_SIZE)):
        with np.errstate(invalid="ignore"):  # 0/0 in a cell without valid runs
            fractions = (block @ rejecting.T) / (block @ valid.T.astype(float))
        fractions = fill(fractions.reshape(-1, *rejects.shape[:-1]))[..., ::sign]
        blocks.append(_first_crossing(axis, fractions, share))
    points = sign * np.concatenate(blocks)
    for dim, order in orders.items():
        points = np.take(points, np.argsort(order), 1 + rejects.dims.index(dim))
    return points


def resamples_of(seeds: int, number: int) -> np.ndarray:
    """The sample and its bootstrap resamples, by how often they contain each seed; [1 + R, S].

    Fractions and means are then products of matrices. The generator is fixed.
    """
    counts = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), number)
    return np.concatenate([np.ones((1, seeds)), counts])


def clopper_pearson(
    count: np.ndarray, total: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The exact interval of a binomial probability, elementwise; (0, 1) without trials."""
    tail = (1 - confidence) / 2
    some, not_all = count > 0, count < total
    # The beta law is undefined at 0 and at `total` successes; the bound is 0 or 1 there.
    low = stats.beta.ppf(tail, np.where(some, count, 1), np.where(some, total - count + 1, 1))
    high = stats.beta.ppf(
        1 - tail, np.where(not_all, count + 1, 1), np.where(not_all, total - count, 1)
    )
    return np.where(some, low, 0.0), np.where(not_all, high, 1.0)


def _is_ordered(axis: np.ndarray) -> bool:
    """Whether the values of an axis are different finite numbers, not names."""
    return bool(
        axis.dtype.kind in "iuf" and np.isfinite(axis).all() and len(np.unique(axis)) == len(axis)
    )


def _falls(fractions: np.ndarray) -> bool:
    """Whether fractions [..., along] are larger in the lower half of the axis than in the upper."""
    half = fractions.shape[-1] // 2
    lower, upper = (
        part[np.isfinite(part)] for part in (fractions[..., :half], fractions[..., -half:])
    )
    return bool(lower.size and upper.size and lower.mean() > upper.mean())


def _filler(valid: np.ndarray, axes: Sequence[int]) -> Callable[[np.ndarray], np.ndarray]:
    """A function that fills cells without runs by interpolation along given axes in turn.

    In a refined diagram a row has few cells besides those at the boundary; the band between its
    neighbours then needs their values. It is linear in the position on the axis, whether that is
    spaced evenly or geometrically. The indices and weights depend on `valid` [..., along] only and
    are computed once for all resamples.
    """
    interpolations = []
    for axis in axes:
        size = valid.shape[axis]
        index = np.arange(size).reshape(-1, *[1] * (valid.ndim - axis - 1))
        # The nearest valid cells on either side: -1 or `size` where there is none.
        before = np.maximum.accumulate(np.where(valid, index, -1), axis)
        reverse = np.flip(np.where(valid, index, size), axis)
        after = np.flip(np.minimum.accumulate(reverse, axis), axis)
        between = ~valid & (before >= 0) & (after < size)
        weight = np.where(between, (index - before) / np.maximum(after - before, 1), 0)
        before, after = np.where(between, before, index), np.where(between, after, index)
        interpolations.append((axis - valid.ndim, before, after, weight))
        valid = valid | between

    def fill(values: np.ndarray) -> np.ndarray:
        for axis, before, after, weight in interpolations:
            left, right = (
                np.take_along_axis(values, index[None], axis) for index in (before, after)
            )
            # Without the branch, NaN of an unused neighbour would enter with weight zero.
            values = np.where(weight > 0, (1 - weight) * left + weight * right, left)
        return values

    return fill


def _first_crossing(axis: np.ndarray, fractions: np.ndarray, share: float) -> np.ndarray:
    """Where fractions [..., along] first reach a share from below, by linear interpolation.

    Cells that are NaN are skipped. Returns -inf where the first valid cell is already above the
    share, inf where no cell reaches it.
    """
    valid = np.isfinite(fractions)
    above = valid & (fractions >= share)
    after = np.argmax(above, -1)[..., None]
    last_valid = np.maximum.accumulate(np.where(valid, np.arange(len(axis)), -1), -1)
    before = np.take_along_axis(last_valid, np.maximum(after - 1, 0), -1)
    inside = (after > 0) & (before >= 0)
    before = np.where(inside, before, after)
    low, high = (np.take_along_axis(fractions, index, -1)[..., 0] for index in (before, after))
    before, after, inside = before[..., 0], after[..., 0], inside[..., 0]
    weight = np.where(inside, (share - low) / np.where(inside, high - low, 1), 0)
    crossing = axis[before] + weight * (axis[after] - axis[before])
    return np.where(above.any(-1), np.where(inside, crossing, -np.inf), np.inf)


def tails(confidence: float) -> list[float]:
    """The probabilities at the ends of a central interval."""
    return [(1 - confidence) / 2, (1 + confidence) / 2]

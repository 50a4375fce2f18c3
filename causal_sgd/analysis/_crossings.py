"""What estimators of boundaries share: which runs reject, where a fraction of them crosses a share, and binomials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.analysis._summaries import divergences, final, metric_names

__all__ = ["checked_axis", "clopper_pearson", "crossings", "rejections"]

AT_ONCE = 2**22  # numbers that the bootstrap of a diagram holds at a time


def rejections(dataset: xr.Dataset, metric: str, level: float, *, frames: bool = False) -> Any:
    """Whether a run's final value (or that of each frame) is below a level, as 0 or 1; NaN where it diverged or is missing."""
    checks.number("level", level)
    values = (dataset if frames else final(dataset))[
        checks.choice("metric", metric, metric_names(dataset))
    ]
    diverged_at = divergences(dataset)
    if inner := [str(dim) for dim in values.dims if dim not in ("step", *diverged_at.dims)]:
        raise ValueError(
            f"metric must be one number a frame, got {metric!r} with {inner[0]!r}; choose one entry with .isel"
        )
    kept = np.isfinite(values) & (diverged_at < 0)
    return (values < level).astype(float).where(kept)


def checked_axis(rejects: xr.DataArray, along: str) -> xr.DataArray:
    """The table with dims (..., along, seed), if the axis increases."""
    axis = np.asarray(rejects[along].values, float)
    if len(axis) < 2 or (np.diff(axis) <= 0).any():
        raise ValueError(
            f"along must name an axis with at least two increasing values, got {axis.tolist()} for {along!r}"
        )
    return rejects.transpose(..., along, "seed")


def crossings(table: xr.DataArray, along: str, share: float, resamples: int) -> np.ndarray:
    """Where the fraction crosses the share, [1 + resamples, *others]: in the sample itself and in bootstrap resamples."""
    axis = np.asarray(table[along].values, float)
    runs = table.values.reshape(-1, table.sizes["seed"])
    known = np.isfinite(runs)
    rejecting = np.where(known, runs, 0)
    seeds = runs.shape[1]
    # How often a resample draws each seed; the first takes each once.
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    drawn = np.concatenate([np.ones((1, seeds)), drawn])
    filled = _filler(np.reshape(known.any(1), table.shape[:-1]))
    # Where fewer reject towards the upper end, as along the mean, everything is done on the mirrored axis.
    turn = -1 if _falls(table.mean("seed").values) else 1
    axis = turn * axis[::turn]
    places = []
    for some in np.array_split(drawn, -(-len(drawn) * len(runs) // AT_ONCE)):
        with np.errstate(invalid="ignore"):
            fractions = (some @ rejecting.T) / (some @ known.T.astype(float))
        fractions = filled(fractions.reshape(-1, *table.shape[:-1]))[..., ::turn]
        places.append(_first_crossing(axis, fractions, share))
    return turn * np.concatenate(places)


def clopper_pearson(
    count: np.ndarray, total: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The exact interval of a binomial's probability, elementwise; (0, 1) where there are no trials."""
    tail = (1 - confidence) / 2
    some, not_all = count > 0, count < total
    low = stats.beta.ppf(tail, np.where(some, count, 1), np.where(some, total - count + 1, 1))
    high = stats.beta.ppf(
        1 - tail, np.where(not_all, count + 1, 1), np.where(not_all, total - count, 1)
    )
    return np.where(some, low, 0.0), np.where(not_all, high, 1.0)


def _falls(fractions: np.ndarray) -> bool:
    """Whether fractions [..., along] fall along the axis, most of them."""
    half = fractions.shape[-1] // 2
    lower, upper = (
        part[np.isfinite(part)] for part in (fractions[..., :half], fractions[..., -half:])
    )
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
        after = np.flip(
            np.minimum.accumulate(np.flip(np.where(known, place, size), axis), axis), axis
        )
        between = ~known & (before >= 0) & (after < size)
        share = np.where(between, (place - before) / np.maximum(after - before, 1), 0)
        before, after = np.where(between, before, place), np.where(between, after, place)
        steps.append((axis - known.ndim, before, after, share))
        known = known | between

    def fill(values: np.ndarray) -> np.ndarray:
        for axis, before, after, share in steps:
            left, right = (
                np.take_along_axis(values, index[None], axis) for index in (before, after)
            )
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

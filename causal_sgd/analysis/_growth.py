"""The growth rate of a small signal: a Lyapunov exponent measured in runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from causal_sgd import checks
from causal_sgd.analysis._summaries import divergences, metric_names, real
from causal_sgd.analysis._validity import doubt

__all__ = ["growth_rate"]

FALSE_ALARMS = 1e-3  # probability of a warning about a dataset without a fault
LEAST_RATE = 1e-6  # per step: smaller differences are rounding
TRANSIENT = 2.0  # change of log|u| that the memory of a method may cause at the start


def growth_rate(dataset: xr.Dataset, metric: str = "spurious_signal") -> xr.Dataset:
    """The mean over seeds of log(last / second frame) per step.

    As long as the signal stays small this is an unbiased estimate of the Lyapunov exponent. The
    first frame is left out: the memory of a method (velocity, control variates) is empty before it.
    Use a small initial scale and few steps: the signal must stay below about 1e-2 and above the
    smallest number of its type (1e-37 in single precision), or above 1e-6 in a random frame, where
    rounding of the parameters feeds it (`basis="canonical"` or 64 bits avoid that).

    Whether it does is checked on the data: log|u| must grow as much in the second half of the
    frames as in the first, and its increments must not be anticorrelated, as they are between a
    floor and a ceiling. With four or more frames the check is sharper than with three.

    Args:
        dataset: the result of a sweep, with at least three frames.
        metric: a signal, not its square.

    Returns:
        `rate` and its `standard_error`, per step, with the dims of the sweep except `seed` and
        `step`. Missing runs do not count. A cell is NaN if the signal of one of its runs is zero,
        negative or not finite, or the run diverged: leaving it out would bias the others.

    Raises:
        ValueError: if the metric is unknown, or there are fewer than three frames or two seeds.

    Warns:
        RuntimeWarning: if cells are NaN, or log|u| does not grow linearly in them; with the reason.
    """
    values = real(dataset[checks.choice("metric", metric, metric_names(dataset))])
    if values.sizes.get("step", 1) < 3 or values.sizes.get("seed", 1) < 2:
        raise ValueError(
            f"dataset must have at least three frames and two seeds, got {dict(values.sizes)}"
        )
    values = values.sortby("step").transpose(..., "seed", "step")
    steps, signals = values["step"].values.astype(float), values.values.astype(float)
    diverged, missing = _excluded(dataset, values)
    middle = 1 + int(np.argmin(abs(steps[1:-1] - (steps[1] + steps[-1]) / 2)))
    frames = signals[..., [0, 1, middle, -1]]
    times = steps[[0, 1, middle, -1]]
    used = frames[..., 1:]
    usable = np.all(np.isfinite(used) & (used > 0), -1)
    broken = ~missing & (diverged | ~usable)
    refused = np.asarray(broken.any(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where((missing | refused[..., None])[..., None], np.nan, np.log(frames))
    cells = values.isel(seed=0, step=0, drop=True)
    if refused.any():
        doubt(
            "growth_rate",
            f"{_where(refused, cells)} the rate is NaN, because runs have a signal that is zero, "
            f"negative or not finite ({int(broken.sum())} runs in all); use fewer steps, or a "
            "larger initial scale where the signal falls",
        )
    bent = _bent(logs, times, middle > 1)
    if bent.any():
        doubt(
            "growth_rate",
            f"{_where(bent, cells)} the signal does not grow exponentially, so the rate is biased: "
            "it reaches the nonlinearity, or a floor by rounding (single precision in a random "
            "frame) or by noise",
        )
    rate = _mean((logs[..., 3] - logs[..., 1]) / (times[3] - times[1]))
    named = {"rate": rate.value, "standard_error": rate.error}
    return xr.Dataset({name: (cells.dims, array) for name, array in named.items()}, cells.coords)


def _excluded(dataset: xr.Dataset, values: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Runs [..., seed] that diverged within the frames of a metric, and runs that are missing."""
    runs = values.isel(step=0, drop=True)

    def like_runs(flags: xr.DataArray) -> np.ndarray:
        return flags.broadcast_like(runs).transpose(*runs.dims).values

    diverged = np.zeros(runs.shape, bool)
    if "diverged_at" in dataset:
        step = divergences(dataset)
        diverged = like_runs((step >= 0) & (step <= values["step"].max()))
    missing = np.asarray(values.isnull().any("step").values) & ~diverged
    if "done" in dataset.coords:
        missing |= ~like_runs(dataset["done"])
    return diverged & ~missing, missing


class _Mean(NamedTuple):
    value: np.ndarray  # [...]
    error: np.ndarray  # [...] the standard error
    freedom: np.ndarray  # [...] one less than the number of values


def _mean(values: np.ndarray) -> _Mean:
    """The mean over the last axis of the values that are not NaN; NaN for fewer than two."""
    valid = np.isfinite(values)
    count = valid.sum(-1)
    divisor = np.where(count > 1, count, np.nan)
    mean = np.where(valid, values, 0).sum(-1) / divisor
    squares = np.where(valid, (values - mean[..., None]) ** 2, 0).sum(-1)
    return _Mean(mean, np.sqrt(squares / (divisor - 1) / divisor), count - 1)


def _bent(logs: np.ndarray, times: np.ndarray, has_middle: bool) -> np.ndarray:
    """Cells [...] in which log|u| [..., seed, 4] is not a random walk with a constant drift.

    Args:
        logs: at the frames 0, 1, one in the middle and the last.
        times: steps [4] of these frames.
        has_middle: whether the one in the middle differs from the second.
    """
    increments = np.diff(logs, axis=-1)
    lengths = np.diff(times)
    threshold = FALSE_ALARMS / max(1, np.prod(logs.shape[:-2]))

    def significant(ratio: np.ndarray, freedom: np.ndarray) -> np.ndarray:
        return stats.t.sf(ratio, np.maximum(freedom, 1)) < threshold / 4

    whole = (logs[..., 3] - logs[..., 1]) / (times[3] - times[1])
    start = _mean(increments[..., 0] / lengths[0] - whole)
    with np.errstate(divide="ignore", invalid="ignore"):
        bent = significant(abs(start.value) / start.error, start.freedom)
        bent &= abs(start.value) * min(lengths[0], times[3] - times[1]) > TRANSIENT
        if has_middle:
            halves = _mean(increments[..., 2] / lengths[2] - increments[..., 1] / lengths[1])
            drift = abs(_mean(whole).value)
            bent |= significant(abs(halves.value) / halves.error, halves.freedom) & (
                abs(halves.value) > LEAST_RATE + 0.02 * drift
            )
        # Between a floor and a ceiling, what rose before falls afterwards.
        early, late = increments[..., 0], logs[..., 3] - logs[..., 1]
        early, late = (part - _mean(part).value[..., None] for part in (early, late))
        product = _mean(early * late)
        size = np.sqrt(_mean(early**2).value * _mean(late**2).value)
        correlation = np.clip(product.value / size, -1, 1)
        freedom = product.freedom - 1
        ratio = -correlation * np.sqrt(np.maximum(freedom, 0) / (1 - correlation**2))
        bent |= significant(ratio, freedom) & (size > 1e-2) & (freedom > 0)
    return bent


def _where(cells: np.ndarray, like: xr.DataArray) -> str:
    """Name the first of some cells [...], and say how many there are."""
    if not cells.ndim:
        return "here"
    first = like[dict(zip(like.dims, np.argwhere(cells)[0], strict=True))]
    place = ", ".join(
        f"{dim}={first[dim].item()}" for dim in map(str, like.dims) if dim in like.coords
    )
    return f"in {int(cells.sum())} of {cells.size} cells, such as {place or 'the first'},"

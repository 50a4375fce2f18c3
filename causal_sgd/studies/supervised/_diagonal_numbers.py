"""Settings of diagonal networks and the numbers that claims, table and figure share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised import _diagonal_runs as runs
from causal_sgd.studies.supervised._diagonal_runs import (
    SPARSITY,
    SPURIOUS,
    TARGET,
)

if TYPE_CHECKING:
    import xarray as xr

FULL_RATES = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6)  # of gradient descent
SINGLE_RATES = (0.02, 0.04, 0.07, 0.1)  # of SGD
ALPHAS = (0.1, 0.2, 0.5, 0.7, 1.0)  # besides ALPHA; 1.4 is beyond the edge of stability
RATE = 0.2  # of environments
SPREADS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
MEANS = (0.0, 0.5)
REJECTED = (2.5, 3.0, 3.5)  # beyond the critical spread of a mean of 0.5, 2.29
SMALL = 0.01  # the alpha of their start
COMPARED = (
    *(("full", {"learning_rate": rate}) for rate in FULL_RATES),
    *(("single", {"learning_rate": rate}) for rate in SINGLE_RATES),
    *(("full", {"learning_rate": 0.1, "alpha": alpha}) for alpha in ALPHAS),
    *(("full", {"learning_rate": RATE, "spread": m, "mean": 0.0}) for m in (0.1, 0.25, 0.5)),
)
SIZES = {"full": 20, "single": 1}  # m, examples in a step


def first_shape(name: str) -> float:
    """The expected gain on the support over that off it, in the first step of a method."""
    from causal_sgd.theory import sparse

    gain = np.asarray(sparse.first_gain(1.0, TARGET, SIZES[name]))
    return float(gain[0] / gain[-1])


def shape(gain: np.ndarray) -> tuple[float, float]:
    """The ratio of mean gains [designs, d] on and off the support, and its standard error."""
    on, off = gain[:, :SPARSITY].mean(1), gain[:, SPARSITY:].mean(1)
    ratio = on.mean() / off.mean()
    # Of a ratio of means, to first order.
    return float(ratio), float(np.std(on - ratio * off, ddof=1) / off.mean() / len(on) ** 0.5)


def distances(data: Mapping[str, xr.Dataset]) -> dict[str, np.ndarray]:
    """Distances [rows, designs] to the interpolators of "start" and "end", for `COMPARED`, and the
    "error" of those of the start.
    """
    parts = [runs.row_of(data[name], **settings) for name, settings in COMPARED]
    weights = np.stack([runs.estimates(part) for part in parts])
    alphas, which = np.unique([float(part.alpha) for part in parts], return_inverse=True)
    logs = [part.log_scale.isel(step=-1).transpose("design", ...).values for part in parts]
    ends = np.exp(np.stack(logs))
    starts = np.broadcast_to(alphas[:, None, None] ** 2, (len(alphas), *ends.shape[1:]))
    # Diverged runs are NaN, and a scale may be too small for single precision.
    ends = np.where(np.isfinite(ends), np.maximum(ends, 1e-30), 1)
    found = runs.interpolators(np.concatenate([starts, ends]))
    first, last = found[which], found[len(alphas) :]
    return {
        "start": np.linalg.norm(first - weights, axis=-1),
        "end": np.linalg.norm(last - weights, axis=-1),
        "error": runs.errors(first),
    }


def recovery(data: Mapping[str, xr.Dataset], mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors [SPREADS, designs] at the end, and on the plateau before pooled training."""
    parts = [
        runs.row_of(data["full"], learning_rate=RATE, mean=mean, spread=spread)
        for spread in SPREADS
    ]
    ends = [runs.errors(runs.estimates(part)) for part in parts]
    return np.array(ends), np.array([runs.errors(runs.plateau(part)) for part in parts])


def rejected_gains(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The gain per step of the rejected coordinate in the first frame, [REJECTED, designs]."""
    apart = {"learning_rate": RATE, "mean": MEANS[1], "apart": 1.0, "alpha": SMALL}
    parts = [runs.row_of(data["full"], **apart, spread=spread) for spread in REJECTED]
    return np.array([runs.gains(p, 1)[:, SPURIOUS] / int(p.step[1]) for p in parts])

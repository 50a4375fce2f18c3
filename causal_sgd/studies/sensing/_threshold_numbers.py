"""What the study of sample thresholds derives from its early and its settled runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_powers", "early_levels"]


def early_levels(dataset: xr.Dataset, deviation: float) -> np.ndarray:
    """The largest eigenvalue of U U' [alpha, seed] where its root leaves linear growth.

    Args:
        dataset: singular values with and without feedback.
        deviation: of the root, relative.
    """
    values = dataset.singular_values
    values = values[{values.dims[-1]: 0, "rank": 0, "num_examples": 0}]
    linear, true = values.transpose("feedback", "init_scale", "seed", "step").values
    off = true < (1 - deviation) ** 2 * linear
    first = np.argmax(off, -1)[..., None]
    # At the crossing, between two steps.
    ratios = np.log(true / linear)
    after, before = (np.take_along_axis(ratios, first - back, -1) for back in (0, 1))
    share = (2 * np.log1p(-deviation) - before) / (after - before)
    logs = [np.log(np.take_along_axis(true, first - back, -1)) for back in (0, 1)]
    return np.exp(logs[1] + share * (logs[0] - logs[1]))[..., 0]


def draw_powers(ax: Axes, dataset: xr.Dataset, scales: np.ndarray, number: int) -> None:
    """The median relative error from starts of several scales, for one number of examples."""
    errors = dataset.relative_invariant_error.isel(step=-1).median("seed").values.ravel()
    ax.loglog(scales, errors, "o-")
    ax.set(xlabel=r"initial scale $\alpha$", ylabel=r"$\|UU^\top - A^\star\| / \|A^\star\|$")
    ax.set_title(f"$n = {number}$, between the thresholds")

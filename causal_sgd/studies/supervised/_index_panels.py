"""Panels of the study of single-index models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_weights"]


def draw_weights(ax: Axes, runs: xr.Dataset, window: tuple[float, float], size: float) -> None:
    """The weights of one run of the sign over the steps.

    Args:
        ax: to draw on.
        runs: the run, over `step`.
        window: when to stop.
        size: of the weights of the support.
    """
    steps = runs.step.values
    ax.axvspan(*window, color="0.9", lw=0, label="window")
    for name, color, label in (("support", "C0", "support"), ("others", "C3", "others")):
        lines = ax.plot(steps, _by_step(runs[name]), color=color, lw=1)
        lines[0].set_label(label)
    ax.axhline(size, color="0.3", ls=":", lw=1)
    ax.set_xlim(0, 1200)
    ax.set_xlabel("step $t$")
    ax.set_title("weights, link: sign")
    ax.legend(frameon=False, fontsize=8, loc=(0.62, 0.38))


def _by_step(weights: xr.DataArray) -> np.ndarray:
    (other,) = (name for name in weights.dims if name != "step")
    return weights.transpose("step", other).values

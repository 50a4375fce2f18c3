"""The panels of the study `digits-threshold`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised import _digits_prediction as prediction

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["accuracies", "exponents", "gaps"]

COLORS = {"first": "C0", "second": "C1", "small": "C2", "weak": "C3"}
DASHED = "small"
WORDS = {
    "first": "95 %, 25 %",
    "second": "90 %, 20 %",
    "small": "95 %, 25 %, 8 x 8 digits",
    "weak": "90 %, 40 %",
}
LOWEST, LARGEST = -0.1, 4.2  # exponent and step size that are shown


def exponents(
    ax: Axes,
    pilots: Mapping[str, xr.Dataset],
    worlds: Mapping[str, tuple[tuple[float, float], str]],
    unstable: float,
) -> None:
    """The exponent over the step size, up to where it leaves the panel.

    Args:
        ax: axes.
        pilots: models without colour by their images.
        worlds: agreements and images by name.
        unstable: the step size from which on runs diverge.
    """
    rates = prediction.GRID[prediction.GRID <= LARGEST]
    for name, (agreements, images) in worlds.items():
        values = prediction.curve(pilots[images], agreements)[: len(rates)]
        low = np.flatnonzero(values < LOWEST)
        end = low[0] if len(low) else len(rates)
        ax.plot(rates[:end], values[:end], color=COLORS[name], ls=_dashes(name), label=WORDS[name])
        root = prediction.critical(pilots[images], agreements)
        ax.plot(root, 0, "o", ms=5, mfc="white", mec=COLORS[name], zorder=3)
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.axvspan(unstable, LARGEST, color="0.92", lw=0, zorder=-1)
    ax.text((unstable + LARGEST) / 2, -0.05, "training diverges", ha="center", fontsize=8)
    ax.set_xlim(0, LARGEST)
    ax.set_ylim(LOWEST, 0.36)
    ax.set_xlabel(r"step size $\eta$")
    ax.set_ylabel("growth of a small colour a step")
    ax.set_title("predicted without the colour")
    ax.legend(loc="upper left", fontsize=8, frameon=False)


def gaps(
    ax: Axes, name: str, factors: np.ndarray, mean: np.ndarray, error: np.ndarray, near: slice
) -> None:
    """The gap of one world over the step size by its predicted one.

    Args:
        ax: axes.
        name: of the world.
        factors: step sizes over the predicted one.
        mean: of the gap.
        error: its standard error.
        near: the places of a straight line.
    """
    color = COLORS[name]
    shift = {"first": -0.004, "small": 0.004}.get(name, 0)
    ax.errorbar(
        factors + shift, mean, 2 * error, fmt="o", ms=3.5, lw=1, color=color, label=WORDS[name]
    )
    slope, intercept = np.polyfit(factors[near], mean[near], 1)
    ends = np.array([factors[near][0], -intercept / slope])
    ax.plot(ends, intercept + slope * ends, color=color, ls=_dashes(name), lw=1)
    ax.axvline(1, ymax=0.72, color="0.6", lw=0.8, zorder=0)
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.set_xlabel("step size over the predicted one")
    ax.set_ylabel("gap between both colours")
    ax.set_title("the colour dies where predicted")
    ax.legend(loc="upper right", fontsize=8, frameon=False)


def accuracies(ax: Axes, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], bare: float) -> None:
    """Right signs where the colour is mostly wrong, over the step size.

    Args:
        ax: axes.
        lines: step sizes and shares by name.
        bare: the share without colour.
    """
    words = {
        "first": ("HeteroSGD", "C0", 0.66, 0.6),
        "pooled": ("mixed batches", "0.4", 0.2, 0.54),
        "linear": ("linear weights", "C5", 0.2, 0.44),
        "same_sign": ("same sign: 90 %, 80 %", "C4", 0.2, 0.13),
    }
    for name, (rates, right) in lines.items():
        text, color, x, y = words[name]
        ax.plot(rates, right, "o-", ms=3.5, color=color)
        ax.text(x, y, text, color=color, fontsize=8)
    for height, style, text in ((bare, ":", "without colour"), (0.75, "-", "best possible")):
        ax.axhline(height, color="0.5", ls=style, lw=0.9, zorder=0)
        ax.text(0.2, height + 0.012, text, color="0.4", fontsize=8)
    ax.set_ylim(0, 0.82)
    ax.set_xlabel(r"step size $\eta$")
    ax.set_ylabel("right signs")
    ax.set_title("where 10 % of colours agree")


def _dashes(name: str) -> str:
    return "--" if name == DASHED else "-"

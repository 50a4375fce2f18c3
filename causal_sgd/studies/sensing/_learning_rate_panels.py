"""Panels of the study `max-learning-rate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.sensing import _learning_rate
from causal_sgd.studies.sensing._learning_rate import BATCHES, RATES, SPREADS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh


def draw_diagram(ax: Axes, lost: np.ndarray, spread: float) -> QuadMesh:
    mesh = ax.pcolormesh(
        BATCHES, RATES, lost.T, cmap="cividis", vmin=0, vmax=1, shading="nearest", rasterized=True
    )
    _draw_edges(ax, spread, color="white", lw=1.5)
    ax.axhline(1.0, color="white", lw=1.2, ls=":")
    limits = RATES[0], RATES[-1]
    ax.set(
        xscale="log", yscale="log", ylim=limits, xlabel="batch size $m$", title=f"$M = {spread:g}$"
    )
    return mesh


def _draw_edges(ax: Axes, spread: float, *, color: str, lw: float) -> None:
    dense = np.geomspace(BATCHES[0], BATCHES[-1], 60)
    ax.plot(dense, _learning_rate.mean_square_edge(dense, spread), color=color, lw=lw)
    exponents = _learning_rate.almost_sure_rates(0.0)[SPREADS.index(spread)]
    ax.plot(BATCHES, exponents, color=color, lw=lw, ls=(0, (4, 2)))
    if spread:
        ax.plot(dense, _learning_rate.noise_edge(dense, spread), color=color, lw=lw, ls="-.")


def draw_rates(ax: Axes, measured: np.ndarray) -> None:
    from causal_sgd.figures import COLOURS

    for index, spread in enumerate(SPREADS):
        colour = COLOURS[index]
        ax.plot(BATCHES, measured[index], "osD"[index], color=colour, label=f"$M = {spread:g}$")
        _draw_edges(ax, spread, color=colour, lw=1.0)
    ax.axhline(1.0, color="0.3", lw=1, ls=":")
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(RATES[0] / 1.3, RATES[-1] * 1.3),
        xlabel="batch size $m$",
        ylabel=r"$\eta$ at which half of the runs are lost",
        title="linear, then capped by $M$",
    )
    ax.legend(frameon=False, loc="lower right")

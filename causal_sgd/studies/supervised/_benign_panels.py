"""The panels of the figure of two redundant features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import mark
from causal_sgd.studies.supervised import _benign_runs as runs
from causal_sgd.studies.supervised._benign_runs import (
    CONTROL,
    DIFFERENT,
    EQUAL,
    EVERY,
    GROWTH,
    LABELS,
    RATE_OF_SIZES,
    RATES,
    SIZE_SPREAD,
    STEPS,
    WEAK,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(data: Mapping[str, xr.Dataset]) -> Figure:
    """All panels."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(13.5, 3.4))
    _draw_exponents(axes[0], data)
    _draw_ends(axes[1], data)
    _draw_labels(axes[2], data)
    _draw_control(axes[3], data)
    return fig


def _draw_exponents(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    exponents = runs.exponents(data)
    dense = np.linspace(1, float(stability.edges(1.0).two_cycle) - 1e-6, 100)
    for index, weak in enumerate(EQUAL):
        values = exponents.sel(world=EQUAL[weak])
        ax.plot(GROWTH, values, "o-", ms=3, lw=0.7, color=COLOURS[index], label=f"$u = {weak:g}$")
        ax.plot(dense, stability.weak_exponent(dense, 1.0, weak), color="black", lw=1.2, ls="--")
    ax.axhline(0, color="0.3", lw=0.8)
    mark(ax, float(stability.edges(1.0).one_sign))
    ax.set(
        xlim=(1, 2),
        xlabel=r"$\eta v$",
        ylabel="exponent per step",
        title="growth of a small weak feature",
    )
    ax.legend(frameon=False, loc="lower left")


def _draw_ends(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    ends = np.array([runs.left(data, rate) for rate in RATES])
    ax.plot(RATES, ends, "o", ms=3, color=COLOURS[0], alpha=0.6)
    dense = np.linspace(1.001, RATES[-1], 200)
    found = stability.oscillation_end(dense, 1.0, WEAK)
    ax.plot(dense, found.edge, color="0.3", lw=1, ls=":", label=r"sharpness $2/\eta$")
    ax.plot(dense, found.end, color="black", lw=1.2, ls="--", label="with overshoot")
    mark(ax, float(stability.edges(1.0).one_sign))
    ax.set(
        ylim=(-0.05, 1.1),
        xlabel=r"$\eta v$",
        ylabel="share of the strong feature",
        title="where it ends",
    )
    ax.legend(frameon=False, loc="lower left")


def _draw_labels(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    steps = data["hetero"].step.values
    for index, (rate, spread) in enumerate(LABELS):
        shares = runs.shares(data["hetero"], rate, DIFFERENT[spread])
        low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75), axis=0)
        label = rf"$\eta v = {rate:g}$, $M = {spread:g}$"
        first = runs.learned(steps, rate)
        ax.plot(steps[first:], middle[first:], color=COLOURS[index], lw=2, label=label)
        ax.fill_between(
            steps[first:], low[first:], high[first:], color=COLOURS[index], alpha=0.3, lw=0
        )
        levels = np.linspace(middle[first], 0.01, 100)
        times = steps[first] + runs.time(levels, middle[first], rate, spread)
        ax.plot(times, levels, color="black", lw=1, ls="--")
        pooled = runs.shares(data["pooled"], rate, DIFFERENT[spread])[0]
        ax.plot(steps[first:], pooled[first:], color="0.6", lw=1)
    ax.set(
        xscale="log",
        xlim=(EVERY, STEPS),
        xlabel="step",
        ylabel="share of the strong feature",
        title="environments: labels $1 \\pm M$",
    )
    ax.legend(frameon=False, loc="lower left", fontsize=8)


def _draw_control(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    steps = data["hetero"].step.values[1:]
    for name, label, colour, style in (
        ("pooled", "pooled", "0.6", "-"),
        ("hetero", "HeteroSGD", COLOURS[0], "-."),
    ):
        strong, weak = runs.features(data[name], RATE_OF_SIZES, CONTROL)
        shares = np.median(strong / (strong + weak), axis=0)[1:]
        ax.plot(steps, shares, color=colour, ls=style, lw=2, label=label)
    law = 1 / (2 * RATE_OF_SIZES * SIZE_SPREAD**2 * steps)
    ax.plot(steps, law, color="black", lw=1, ls="--", label=r"$1/(2 \eta M^2 t)$")
    ax.set(
        xscale="log",
        yscale="log",
        ylim=(None, 1.2),
        xlabel="step",
        ylabel="share of the strong feature",
        title="control: sizes of the strong one differ",
    )
    ax.legend(frameon=False)

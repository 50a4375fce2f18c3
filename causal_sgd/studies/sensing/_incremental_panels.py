"""Panels of the study `incremental-learning`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import mark
from causal_sgd.studies.sensing import _incremental_numbers as numbers
from causal_sgd.studies.sensing._incremental import (
    BETWEEN,
    DATA_SCALES,
    DEEP_RATE,
    DEEP_SCALES,
    DEEP_SPREAD,
    DEPTHS,
    EXAMPLES,
    LEVELS,
    ORDER,
    POWER,
    SCALES,
    SEPARATED,
    SPREADS,
    TARGETS,
    TIMED,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = [
    "draw_data",
    "draw_levels",
    "draw_scales",
    "draw_shares",
    "draw_stopped",
    "draw_times",
]


def draw_levels(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures, theory

    scale = SCALES[3][3]
    part = dataset.sel(init_scale=scale, method="nearest").isel(seed=0)
    steps = part.step.values[1:]
    for index, level in enumerate(LEVELS):
        colour = figures.COLOURS[index]
        ax.plot(
            part.step, part[f"level_{index}"], color=colour, lw=2, label=f"$\\sigma = {level:g}$"
        )
        law = theory.incremental_level(
            steps, level, learning_rate=DEEP_RATE, init_scale=scale, depth=3
        )
        ax.plot(steps, law, color="black", lw=0.9, ls=(0, (3, 2)))
    ax.set(
        xlim=(0, 2000),
        xlabel="step",
        ylabel="level of the direction",
        title=f"$L = 3$, $\\alpha = {scale:.2g}$: one after the other",
    )
    ax.legend(frameon=False)


def draw_scales(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    ratios = np.linspace(0.4, 0.95, 60)
    for index, depth in enumerate(DEPTHS):
        colour = figures.COLOURS[index]
        ax.semilogy(
            1 - ratios, numbers.flow_scale(depth, ratios), color=colour, label=f"$L = {depth}$"
        )
        measured = numbers.separating(depth, numbers.remainders(data[f"depth {depth}"]))
        ax.plot(1 - LEVELS[1] / LEVELS[0], measured, "osD"[index], color=colour)
    ax.set(
        ylim=(1e-12, 1),
        xlabel="gap $1 - \\sigma_2/\\sigma_1$",
        ylabel=r"largest separating $\alpha$",
        title="Two factors need tiny starts",
    )
    ax.legend(frameon=False, loc="lower right")


def draw_data(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures

    for index, (name, label) in enumerate(TARGETS.items()):
        style = {"color": figures.COLOURS[(0, 1, 6)[index]]}
        ax.loglog(
            DATA_SCALES, numbers.least(dataset, name), "osx"[index] + "-", label=label, **style
        )
    ax.set(
        xlabel=r"initial scale $\alpha$",
        ylabel=r"least distance of $UU^\top$ on its way",
        title=f"Full batches of $n = {EXAMPLES}$ examples",
    )
    ax.legend(frameon=False)


def draw_times(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures, theory

    invariant = dataset.invariant.isel(step=-1)
    ax.plot(SPREADS, invariant.median("seed"), "s-", color=figures.COLOURS[0], label="invariant")
    spurious = dataset.spurious.isel(step=-1)
    full = spurious.fillna(float(ORDER.steps))
    ax.plot(
        SPREADS[TIMED],
        spurious.mean("seed")[TIMED],
        "o",
        color=figures.COLOURS[1],
        label="spurious",
    )
    low, high = (full.quantile(q, "seed").values for q in (0.1, 0.9))
    ax.fill_between(
        SPREADS, low, np.minimum(high, ORDER.steps), color=figures.COLOURS[1], alpha=0.15, lw=0
    )
    dense = np.linspace(0, 5.6, 200)
    rates = np.asarray(theory.lyapunov_two_point(ORDER.learning_rate, ORDER.mean, dense))
    distance = np.log(POWER**0.5 / ORDER.init_scale)
    ax.plot(dense, distance / rates, color=figures.COLOURS[1], ls="--", lw=1)
    mark(ax, numbers.reversing(), label="$M_r$")
    mark(
        ax,
        float(theory.critical_spread(ORDER.learning_rate, ORDER.mean)),
        color="0.7",
        label="$M_c$",
    )
    ax.set(
        ylim=(0, ORDER.steps),
        xlabel="heterogeneity $M$",
        ylabel=f"steps to a power of {POWER:g}",
        title="$L = 2$, $\\mu = 1.5\\,\\sigma^\\star$: the order reverses",
    )
    ax.legend(frameon=False, loc="upper left")


def draw_shares(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    dense = np.linspace(0, 6, 121)
    ax.plot(
        dense, numbers.predicted_shares(dense), color="black", lw=1, ls="--", label="first passage"
    )
    ax.plot(SPREADS, numbers.shares(data["order"]), "o", color=figures.COLOURS[0], label="$L = 2$")
    ax.set(
        xlim=(0, 6),
        ylim=(-0.03, 1.03),
        xlabel="heterogeneity $M$ ($L = 2$, points)",
        ylabel="share: invariant direction first",
        title="Noise decides; for $L = 3$ the means as $\\alpha \\to 0$",
    )
    mark(ax, numbers.reversing())
    other = ax.twiny()
    other.plot(
        DEEP_SCALES,
        numbers.shares(data["averages"]),
        "s-",
        color=figures.COLOURS[1],
        label=f"$L = 3$, $M = {DEEP_SPREAD:g}$",
    )
    other.set(xscale="log", xticks=(0.02, 0.05, 0.1, 0.2))
    other.xaxis.set_major_formatter("{x:g}")
    other.xaxis.set_minor_formatter("")
    other.set_xlabel(r"initial scale $\alpha$ ($L = 3$, squares)", fontsize=8)
    handles = [*ax.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
    ax.legend(handles=handles, frameon=False, loc="upper left")


def draw_stopped(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures

    for index, spread in enumerate((BETWEEN, 0.0)):
        errors = dataset.invariant_error.sel(spread=spread)
        low, middle, high = (errors.quantile(q, "seed").values for q in (0.1, 0.5, 0.9))
        colour = figures.COLOURS[index]
        ax.plot(dataset.step, middle, color=colour, label=f"$M = {spread:g}$")
        ax.fill_between(dataset.step, low, high, color=colour, alpha=0.2, lw=0)
    mark(ax, numbers.learned(), label=f"$A^\\star$ learned to {SEPARATED:g}")
    ax.set(
        xlim=(0, 800),
        ylim=(0, 2.7),
        xlabel="step",
        ylabel=r"$\|UU^\top - A^\star\|_F / \|A^\star\|_F$",
        title="Between $M_r$ and $M_c$: stop early",
    )
    ax.legend(frameon=False, loc="upper right")

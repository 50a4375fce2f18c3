"""Panels of the study `natural-tables`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.studies.supervised import _natural_tables as tables
from causal_sgd.studies.supervised._natural_tables import Outlook, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Changes", "draw_errors", "draw_outlooks", "draw_path", "draw_weights"]

NAMES = {
    "diabetes": "diabetes, age",
    "munnell": "output, state",
    "occupation": "wages, occupation",
    "year": "wages, year",
    "gapminder": "life expectancy, continent",
    "grunfeld": "investment, firm",
}
NEVER = 60.0  # where inputs are drawn that no learning rate rejects


class Changes(NamedTuple):
    """Relative changes of errors in environments left out, at every learning rate."""

    mean: np.ndarray  # of the mean error
    worst: np.ndarray  # of the largest error


def draw_weights(
    ax: Axes, names: list[str], found: np.ndarray, lasso: np.ndarray, least: np.ndarray
) -> None:
    places = np.arange(len(names))
    ax.bar(places, least, width=0.9, color="0.85", label="least squares")
    ax.plot(places, found, "o", ms=5, color="C0", label="HeteroSGD")
    ax.plot(places, lasso, "x", ms=6, mew=1.4, color="C3", label="Lasso, no fit")
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set_xticks(places, names, rotation=50, ha="right", fontsize=8)
    ax.set(ylabel="weight", title="output of states", ylim=(-0.4, 0.95))
    ax.legend(frameon=False, fontsize=8, ncols=2)


def draw_path(ax: Axes, problem: Problem, rates: np.ndarray, runs: np.ndarray) -> None:
    grid = np.linspace(0.005, 1.05, 36)
    path = np.stack([tables.lasso(problem, rate) for rate in grid])
    for place, name in enumerate(tables.columns(problem.table)):
        (line,) = ax.plot(grid, path[:, place], lw=1.3, color=f"C{place}")
        ax.plot(rates, runs[:, place], "o", ms=4, color=line.get_color())
        ax.annotate(
            name,
            (grid[0], path[0, place]),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            color=line.get_color(),
        )
    ax.axhline(0, color="0.3", lw=0.8)
    ax.axvline(tables.outlook(problem).stable, color="0.3", ls=":", lw=1.2)
    ax.set(xlabel="learning rate", ylabel="weight", title="diabetes by age", xlim=(-0.11, 1.05))


def draw_errors(ax: Axes, rates: np.ndarray, changes: Mapping[str, np.ndarray]) -> None:
    ax.axhspan(-2, 2, color="0.92", lw=0)
    ax.axhline(0, color="0.3", lw=0.8)
    for place, (name, change) in enumerate(changes.items()):
        ax.plot(rates, 100 * change, "o-", ms=4, color=f"C{place}", label=NAMES[name])
    ax.set(
        xlabel="learning rate",
        ylabel="change of the error [%]",
        xscale="log",
        title="environments left out",
    )
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=7)


def draw_outlooks(ax: Axes, looks: Mapping[str, Outlook]) -> None:
    for place, look in enumerate(looks.values()):
        ratio = np.minimum(look.threshold / look.stable, NEVER)
        ax.plot(look.dissent, ratio, "o", ms=5, mfc="none", color=f"C{place}")
    ax.axhline(1, color="0.3", lw=1)
    ax.axhspan(0.1, 1, color="0.92", lw=0)
    ax.text(0.01, 0.8, "could be rejected", va="top", fontsize=8)
    ax.set(
        yscale="log",
        ylim=(0.25, 1.5 * NEVER),
        xlim=(-0.03, 0.68),
        xlabel="share that contradicts",
        ylabel="step to reject over stable step",
        title="inputs of all tables",
    )
    ax.set_yticks([0.3, 1, 3, 10, NEVER], ["0.3", "1", "3", "10", "never"])
    ax.minorticks_off()

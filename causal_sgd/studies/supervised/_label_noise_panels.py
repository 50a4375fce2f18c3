"""Panels of the study of label noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised._label_noise import SUPPORT

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_eigenvalues", "draw_methods", "draw_recovery", "draw_weights"]

SHAKING = ("label", "Hetero")  # with a Lasso as limit


def draw_methods(ax: Axes, found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Distances from w* of the time average and of the predicted Lasso, by method.

    Args:
        ax: to draw in.
        found: name of a method -> measured and predicted distances [seeds].
    """
    from causal_sgd import figures

    for place, (name, (measured, predicted)) in enumerate(found.items()):
        hetero, shaken = "input" in name, name.startswith(SHAKING)
        color = figures.COLOURS[1] if hetero else figures.COLOURS[0] if shaken else "0.45"
        rows = np.full(len(measured), place)
        ax.plot(measured, rows, "o", color=color, ms=4, alpha=0.5, mew=0)
        ax.plot(np.median(measured), place, "|", color=color, ms=14, mew=2)
        if shaken:
            ax.plot(np.median(predicted), place, "x", color="black", ms=6, mew=1.3)
    ax.plot([], [], "x", color="black", label="Lasso, known beforehand", ls="")
    ax.set(
        xscale="log",
        xlabel=r"distance of $u^2$ from $w^\star$",
        title="Gradient noise and the solution, $n = 40$, $d = 100$",
    )
    ax.set_yticks(range(len(found)), [*found])
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="upper left")


def draw_weights(ax: Axes, descent: np.ndarray, hetero: np.ndarray, lasso: np.ndarray) -> None:
    """The weights [d] of two methods on one design, in the order of those of the Lasso."""
    from causal_sgd import figures

    spurious = np.arange(SUPPORT, len(lasso))
    order = np.concatenate([np.arange(SUPPORT), spurious[np.argsort(-lasso[SUPPORT:])]])
    places = np.arange(len(order))
    ax.vlines(places, 0, descent[order], color="0.75", lw=1.2, label="gradient descent")
    ax.plot(places, hetero[order], "o", color=figures.COLOURS[1], ms=4, label="HeteroSGD, 1 input")
    ax.plot(places, lasso[order], "x", color="black", ms=5, mew=1, label="its Lasso")
    ax.axvline(SUPPORT - 0.5, color="0.3", ls=":", lw=1)
    ax.set(
        xlabel="inputs: the five of $w^\\star$, then in the order of the Lasso",
        ylabel="weight $u^2$",
        title="Out of the kernel regime, without label noise",
    )
    ax.legend(frameon=False, loc="upper right")


def draw_recovery(ax: Axes, tables: Mapping[str, xr.Dataset]) -> None:
    """The share of runs that recover w* against n, with predicted thresholds."""
    from causal_sgd import figures

    for name, style, words in (("noisy", "o-", "label noise"), ("bare", "s--", "no noise")):
        dims = tables[name].dim.values
        for dim in np.unique(dims):
            color = figures.COLOURS[[25, 50, 100].index(dim)]
            rows = tables[name].isel(point=np.flatnonzero(dims == dim))
            ax.plot(
                rows.num_examples,
                rows.recovered,
                style,
                color=color,
                ms=4.5,
                mfc=color if name == "noisy" else "white",
                label=f"$d = {dim}$, {words}",
            )
            ax.axvline(float(rows.threshold[0]), color=color, ls=":", lw=1.2)
    ax.set(
        xscale="log",
        xlim=(6.5, 95),
        xlabel="examples $n$",
        ylabel=r"share of runs that recover $w^\star$",
        title="With label noise $n$ grows as $\\log d$, without as $d$",
    )
    ticks = [7, 10, 15, 20, 30, 40]
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False, loc="lower right")


def draw_eigenvalues(ax: Axes, found: np.ndarray, limits: np.ndarray) -> None:
    """Eigenvalues of U U' in falling order, of all data sets.

    Args:
        ax: to draw in.
        found: without noise and with it, [2, seeds, d, d].
        limits: predicted with noise, [seeds, d, d].
    """
    from causal_sgd import figures

    places = 1 + np.arange(found.shape[-1])
    for matrices, color, label in (
        (found[0], "0.6", "no noise"),
        (found[1], figures.COLOURS[0], "label noise"),
    ):
        values = np.linalg.eigvalsh(matrices)[:, ::-1]
        ax.plot(places, values.T, "-", color=color, lw=0.8, alpha=0.6)
        ax.plot(places, np.median(values, 0), "o", color=color, ms=4.5, label=label)
    predicted = np.median(np.linalg.eigvalsh(limits)[:, ::-1], 0)
    ax.plot(places, predicted, "x", color="black", ms=5.5, mew=1.2, label="least curvature")
    ax.set(
        xlabel="eigenvalue",
        ylabel="eigenvalues of $UU^\\top$",
        title="Least trace among matrices ($n = 28$, $d = 10$, rank 1)",
    )
    ax.set_xticks(places)
    ax.legend(frameon=False)

"""The panels of the study of progressive sharpening."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import Line, Symbols

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_ends", "draw_flattening", "draw_paths", "draw_small_starts"]

DASHED: Line = {"color": "black", "ls": (0, (4, 3)), "lw": 1.0}


def _edge(ax: Axes) -> None:
    ax.axhline(2, color="0.3", lw=1, ls=":")


def draw_paths(ax: Axes, kernel: xr.DataArray, *, ratio: float, target: float) -> None:
    """The sharpness over time, for every spread.

    Args:
        ax: of the panel.
        kernel: means over the runs, [spread, step].
        ratio: eps.
        target: y.
    """
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    for index, spread in enumerate(kernel.spread.values):
        colour = "0.35" if spread == 0 else COLOURS[index - 1]
        label = f"$M = {spread:g}$" if spread else "all data"
        line = kernel.sel(spread=spread).isel(step=slice(1, None))
        ax.semilogx(line.step, line, color=colour, lw=0.8, alpha=0.35)
        smooth = line.rolling(step=8, center=True, min_periods=1).mean()
        ax.semilogx(smooth.step, smooth, color=colour, lw=1.6, label=label)
    _edge(ax)
    ax.axhline(float(stability.sharpening_end(1.0, target, ratio)), **DASHED)
    ax.set(
        xlabel="step",
        ylim=(0.95, 2.15),
        ylabel=r"sharpness $\eta S$",
        title="environments leave the edge",
    )
    ax.legend(frameon=False, fontsize="small", loc="lower left")


def draw_ends(
    ax: Axes, shares: np.ndarray, overshoots: np.ndarray, ratios: np.ndarray, targets: np.ndarray
) -> None:
    """How far below 2 the sharpness ends, by how far it was above.

    Args:
        ax: of the panel.
        shares: measured over the law, [ratio, target, overshoot].
        overshoots: X.
        ratios: eps.
        targets: y.
    """
    from causal_sgd.figures import COLOURS

    law = _reflected(overshoots)
    for index, ratio in enumerate(ratios):
        for place, target in enumerate(targets):
            colour = COLOURS[index]
            symbols: Symbols = {"marker": "os"[place], "ms": 4, "color": colour}
            symbols["mfc"] = colour if target else "white"
            label = None if place else f"$\\epsilon = {ratio:g}$"
            ax.plot(overshoots, shares[index, place] * law, ls="", label=label, **symbols)
    dense = np.linspace(0.01, 6, 200)
    ax.plot(dense, _reflected(dense), label=r"theory, $\epsilon \to 0$", **DASHED)
    ax.text(5.9, 0.06, "open: $y = 0$, filled: $y = 1/2$", ha="right", fontsize=8, color="0.3")
    ax.set(
        xlim=(0, 6),
        ylim=(0, 1.6),
        xlabel=r"overshoot $2D/\epsilon(1 - y)$",
        ylabel=r"end: $2(2 - \eta S)/\epsilon(1 - y)$",
        title="a large overshoot is forgotten",
    )
    ax.legend(frameon=False, fontsize="small", loc="upper left")


def _reflected(overshoots: np.ndarray) -> np.ndarray:
    """2 less the sharpness in units of its value after a large overshoot."""
    from causal_sgd.theory import stability

    small = 0.01  # eps, at y = 0
    end = np.asarray(stability.sharpening_end(1.0, 0.0, small, overshoots * small / 2), float)
    return (2 - end) / (small / 2)


def draw_flattening(
    ax: Axes, slow: xr.DataArray, *, start: float, theory: tuple[np.ndarray, np.ndarray]
) -> None:
    """The slow sharpness over M^2 t, from where it is `start`.

    Args:
        ax: of the panel.
        slow: of the runs, [spread, step].
        start: sharpness at time 0.
        theory: M^2 t and the sharpness.
    """
    from causal_sgd.figures import COLOURS

    for index, spread in enumerate(slow.spread.values):
        line = slow.sel(spread=spread)
        peak = int(np.argmax(line.values))
        after = line.isel(step=slice(peak, None))
        begin = float(np.interp(-start, -after.values, after.step.values))
        kept = after.sel(step=slice(begin, None))
        ax.plot(
            (kept.step - begin) * spread**2,
            kept,
            color=COLOURS[index],
            lw=2.2,
            alpha=0.7,
            label=f"$M = {spread:g}$",
        )
    ax.plot(*theory, label="theory", **DASHED)
    ax.set(
        xlim=(0, 25),
        ylim=(1.0, start),
        xlabel="$M^2 t$",
        ylabel=r"slow part of $\eta S$",
        title="flattening without instability",
    )
    ax.legend(frameon=False, fontsize="small")


def draw_small_starts(ax: Axes, mean: xr.Dataset) -> None:
    """Curvatures of one entry of U V' over that of its flattest minimum.

    Args:
        ax: of the panel.
        mean: time averages, [target, spread].
    """
    from causal_sgd.figures import COLOURS

    flat = 2 * mean.target
    for index, spread in enumerate(mean.spread.values):
        part = mean.sel(spread=spread)
        colour = "0.35" if spread == 0 else COLOURS[index - 1]
        label = f"$M = {spread:g}$" if spread else "$M = 0$"
        ax.plot(flat, part.sharpness, "o-", ms=3.5, lw=1.1, color=colour, label=label)
        if spread:
            along = part.along / part.gradient_square
            ax.plot(flat, along, ls="--", lw=1.1, color=colour)
    ax.plot([], [], "o-", ms=3.5, color="0.3", label="pooled")
    ax.plot([], [], ls="--", color="0.3", label=r"batch, $E\,g^\top Hg/E|g|^2$")
    _edge(ax)
    ax.set(
        ylim=(0.8, 3.2),
        xlabel=r"flattest minimum $2\eta y$",
        ylabel=r"mean sharpness $\eta S$",
        title="$UV^\\top$, small start: neither stops at 2",
    )
    ax.legend(frameon=False, fontsize="x-small", loc="upper left")

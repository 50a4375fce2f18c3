"""The panels of the study of sharpness-aware steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import Line, mark

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = ["draw_edge", "draw_exponents", "draw_levels", "draw_valley"]

DASHED: Line = {"color": "black", "ls": (0, (4, 3)), "lw": 1.0}
FRAMES = 6  # whose geometric mean is one symbol: both phases of the cycle
LEAST = 1e-12  # of the powers that are shown


def draw_edge(ax: Axes, runs: xr.Dataset, *, rate: float, radii: np.ndarray) -> None:
    """Sharpness against the norm of the gradient, beside SAM's edge.

    Args:
        ax: of the panel.
        runs: of U V', [radius, seed, step].
        rate: eta.
        radii: rho.
    """
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    norms = np.geomspace(2e-3, 0.4, 100)
    for index, radius in enumerate(radii):
        ax.plot(norms, np.asarray(stability.sam_edge(rate, radius, norms)), zorder=3, **DASHED)
        run = runs.sel(radius=radius).isel(seed=0)
        norm, height = (
            np.exp(np.log(run[name].values[6:126]).reshape(-1, FRAMES).mean(1))
            for name in ("gradient_norm", "sharpness")
        )
        above = height > 1.1  # closer to the flattest minimum there is no sharpest direction
        label = f"$\\rho = {radius:g}$"
        symbols = {"marker": "osD"[index], "ls": "", "ms": 4, "color": COLOURS[index]}
        ax.plot(norm[above], height[above], label=label, **symbols)
    ax.plot([], [], label="SAM's edge", **DASHED)
    ax.set(
        xscale="log",
        xlim=(2e-3, 0.4),
        ylim=(0.8, 3.2),
        xlabel="gradient norm $|g|$",
        ylabel="sharpness $S$",
        title=f"$UV^\\top$ slides along the edge; $2/\\eta = {2 / rate:g}$",
    )
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def draw_valley(ax: Axes, runs: xr.Dataset, *, paths: Sequence[np.ndarray], signal: float) -> None:
    """The sharpness over time, and its path by the exponent of the imbalance.

    Args:
        ax: of the panel.
        runs: of U V', [radius, seed, step].
        paths: of theory, for each radius at the frames.
        signal: f.
    """
    from causal_sgd.figures import COLOURS

    for index, path in enumerate(paths):
        run = runs.isel(radius=index, seed=0)
        ax.plot(run.step, run.sharpness, color=COLOURS[index], lw=1.8)
        ax.plot(run.step, path, **DASHED)
    ax.axhline(signal, color="0.5", lw=1, ls=":")
    ax.text(10, signal - 0.03, "flattest, $|f|$", va="top", fontsize=8, color="0.4")
    ax.set(
        ylim=(0.8, 3.2),
        xlabel="step",
        ylabel="sharpness $S$",
        title=r"$-4\eta\rho^2/(2-\eta S)^2$ per step (dashed)",
    )


def draw_exponents(
    ax: Axes,
    spreads: np.ndarray,
    measured: np.ndarray,
    *,
    theory: tuple[np.ndarray, np.ndarray],
    rate: float,
    means: Sequence[float],
) -> None:
    """The exponent of a small spurious direction over the spread.

    Args:
        ax: of the panel.
        spreads: M [n].
        measured: exponents [mean, n].
        theory: spreads [m], and exponents [mean, m].
        rate: eta.
        means: mu.
    """
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import lyapunov_two_point

    dense, lines = theory
    for index, (line, values) in enumerate(zip(lines, measured, strict=True)):
        label = f"SAM, $\\mu = {means[index]:g}$"
        ax.plot(dense, line, color=COLOURS[index], lw=1.1)
        ax.plot(spreads, values, "os"[index], ms=4, color=COLOURS[index], label=label)
    sgd = np.asarray(lyapunov_two_point(rate, means[0], dense))
    ax.plot(dense, sgd, color="0.4", lw=1.1, ls="--", label=f"SGD, $\\mu = {means[0]:g}$")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    mark(ax, 2.0)
    ax.text(2.08, -2.3, r"$2\sigma^\star$", fontsize=9, color="0.3")
    ax.set(
        ylim=(-2.6, 3.0),
        xlabel="heterogeneity $M$",
        ylabel="exponent per step",
        title="spurious, beside a learned direction",
    )
    ax.legend(frameon=False, fontsize="small")


def draw_levels(
    ax: Axes,
    median: xr.DataArray,
    *,
    rate: float,
    mean: float,
    critical: float,
    start: float,
) -> None:
    """The spurious power over the spread, beside the floor in closed form.

    Args:
        ax: of the panel.
        median: of the powers, [radius, spread].
        rate: eta.
        mean: mu.
        critical: M_c of SGD.
        start: of the spurious direction.
    """
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    spreads = median.spread.values
    dense = np.linspace(2.2, spreads[-1], 100)
    for index, radius in enumerate(median.radius.values):
        colour = "0.4" if index == 0 else COLOURS[index - 1]
        level = median.sel(radius=radius).values
        ax.plot(spreads, level, ls="-", lw=0.8, alpha=0.4, color=colour)
        symbols = {"marker": "xosD"[index], "ls": "", "ms": 4, "color": colour}
        ax.plot(spreads, np.maximum(level, LEAST), clip_on=False, **symbols)
        if radius:
            floor = np.asarray(stability.sam_floor(rate, radius, mean, dense))
            ax.plot(dense, floor, **DASHED)
            text = f"SAM, $\\rho = {radius:g}$"
            ax.text(6, 2.2 * floor[-1], text, ha="right", color=colour, fontsize=8)
    ax.text(4.2, 3e-11, "SGD", color="0.4", fontsize=8)
    mark(ax, critical)
    ax.text(critical + 0.08, 0.2, "$M_c$", fontsize=9, color="0.3")
    ax.set(
        yscale="log",
        ylim=(LEAST, 1),
        xlabel="heterogeneity $M$",
        ylabel="median spurious power",
        title=f"start at {start:g}; dashed: floor in closed form",
    )

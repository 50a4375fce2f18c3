"""The panels of the study `where-it-sits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._drawing import mark
from causal_sgd.studies.sensing._where_it_sits import (
    MEAN,
    RATE,
    RELEASED_UNTIL,
    SIGMA,
    critical,
    levels,
    log_signal,
    stationary,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

__all__ = [
    "draw_edge",
    "draw_ends",
    "draw_landscape",
    "draw_profiles",
    "draw_release",
    "draw_spectra",
]

DASHED = (0, (4, 2.5))
WALK = 0  # the seed of the runs in the landscape
PATH = 300  # steps shown there


def _colours() -> tuple[str, str]:
    """The colours of HeteroSGD and PooledSGD."""
    from causal_sgd.figures import COLOURS

    return COLOURS[0], COLOURS[1]


def draw_landscape(ax: Axes, hetero: xr.Dataset, pooled: xr.Dataset) -> None:
    """The pooled loss in the plane of the first direction of U* and V, with a run of each."""
    x, y = np.meshgrid(np.linspace(-0.08, 1.35, 200), np.linspace(-0.12, 1.75, 200))
    loss = ((x**2 - SIGMA[0]) ** 2 + (y**2 - MEAN) ** 2) / 4
    steps = np.linspace(0, 0.95, 20) ** 2
    ax.contourf(x, y, loss, levels=steps, cmap="Greys_r", extend="max", alpha=0.55)
    ax.contour(x, y, loss, levels=steps, colors="0.55", linewidths=0.4)
    for runs, colour, label in zip(
        (pooled, hetero), _colours()[::-1], ("PooledSGD", "HeteroSGD"), strict=True
    ):
        path = levels(runs.sel(released=0, step=slice(None, PATH)).isel(seed=WALK)) ** 0.5
        across, along = (path.isel(direction=index) for index in (0, len(SIGMA)))
        ax.plot(across, along, ".-", color=colour, lw=1.5, ms=4, label=label)
    ax.plot(1, 0, "X", color="white", ms=10, mec="black", mew=1.1, zorder=5)
    ax.plot(1, MEAN**0.5, "o", color="white", ms=8, mec="black", mew=1.1, zorder=5)
    ax.text(1.03, 0.1, "$A^\\star$:\nstrict saddle", fontsize=8)
    ax.text(1.05, 1.26, "$A^\\star + \\overline{A}$:\nminimum", fontsize=8, color="white")
    ax.set(
        xlim=(-0.08, 1.35),
        ylim=(-0.12, 1.75),
        xlabel=r"$|u_1^{\star\top} U|$, invariant",
        ylabel=r"$|V^\top U|$, spurious",
        title="The pooled loss and a run of each",
    )
    ax.legend(loc="upper left", framealpha=0.9, edgecolor="none")


def draw_profiles(ax: Axes, spread: float) -> None:
    """The losses along V at A*, of both environments and pooled."""
    from causal_sgd.figures import COLOURS

    y = np.linspace(-1.9, 1.9, 301)
    for s, colour, label, style in (
        (MEAN + spread, COLOURS[3], f"$s = \\mu + M = {MEAN + spread:g}$", "-"),
        (MEAN - spread, COLOURS[2], f"$s = \\mu - M = {MEAN - spread:g}$", "-"),
        (MEAN, "black", f"pooled, $\\mu = {MEAN:g}$", "-"),
    ):
        width = 2.0 if s == MEAN else 1.4
        ax.plot(y, y**4 / 4 - s * y**2 / 2, color=colour, ls=style, lw=width, label=label)
    ax.plot(0, 0, "X", color="white", ms=10, mec="black", mew=1.1, zorder=5)
    ax.set(
        ylim=(-3.2, 3.2),
        xlabel="along $V$, in a spare column",
        ylabel="loss above that at $A^\\star$",
        title=f"At $A^\\star$: curvature $-s_e$, $M = {spread:g}$",
    )
    ax.legend(frameon=False, loc="lower center")


def draw_release(ax: Axes, hetero: xr.Dataset, pooled: xr.Dataset) -> None:
    """Log |V'U| of runs released at A*, averages over runs, with the exponents."""
    from causal_sgd import figures, theory

    steps = np.arange(0, RELEASED_UNTIL + 1, 10)
    start = float(log_signal(pooled).isel(step=0, spread=0, seed=0))
    drawn = [(log_signal(pooled).isel(spread=0), np.log1p(RATE * MEAN), "PooledSGD", _colours()[1])]
    for spread, colour in ((3.0, figures.COLOURS[2]), (6.5, _colours()[0]), (8.0, "#0b3d66")):
        exponent = float(theory.lyapunov_two_point(RATE, MEAN, spread))
        label = f"HeteroSGD, $M = {spread:g}$"
        drawn.append((log_signal(hetero).sel(spread=spread), exponent, label, colour))
    for logs, exponent, label, colour in drawn:
        scaled = logs / np.log(10)
        for seed in range(3):
            ax.plot(steps, scaled.isel(seed=seed), color=colour, lw=0.5, alpha=0.5)
        ax.plot(steps, scaled.mean("seed"), color=colour, lw=1.7, label=label)
        line = (start + exponent * steps) / np.log(10)
        shown = line < 0
        ax.plot(steps[shown], line[shown], color="black", lw=0.9, ls=DASHED)
    ax.set(
        ylim=(-19, 1.2),
        xlabel="step after the release",
        ylabel=r"$\log_{10} |V^\top U|$",
        title="Released at $A^\\star$: leaves or returns",
    )
    ax.legend(frameon=False, loc="lower left")


def draw_spectra(ax: Axes, spectra: xr.Dataset) -> None:
    """The eigenvalues of the pooled loss's Hessian at both ends, measured and predicted."""
    index = spectra.index.values + 1
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    for name, law, colour, label, marker in (
        ("pooled", "minimum", _colours()[1], "PooledSGD", "s"),
        ("hetero", "saddle", _colours()[0], "HeteroSGD", "o"),
    ):
        ax.step(index, spectra[law], where="mid", color="black", lw=0.9, ls=DASHED)
        ax.plot(index, spectra[name], marker, color=colour, ms=4, label=label)
    for place, value, text in (
        (4.2, -MEAN, r"$-\mu$"),
        (5.3, SIGMA[1] - MEAN - 0.06, r"$\sigma_i - \mu$"),
        (31, 2 * SIGMA[0], r"$2\sigma_1$"),
        (31, 2 * MEAN, r"$2\mu$"),
    ):
        ax.text(place, value, text, fontsize=9, va="center")
    ax.set(
        xlim=(-0.5, 34.5),
        xlabel="index",
        ylabel="eigenvalue",
        title="Hessian of the pooled loss at the end",
    )
    ax.legend(frameon=False, loc="upper left")


def draw_ends(ax: Axes, curvatures: xr.Dataset) -> None:
    """Sharpness and lowest curvature of the pooled loss over M, with the laws at both ends."""
    hetero, pooled = _colours()
    spreads = curvatures.spread.values
    dense = np.linspace(0, spreads[-1] + 0.4, 43)
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    for value, style in ((2 * max(MEAN, SIGMA[0]), "-"), (0.0, "-")):
        ax.plot(dense, np.full(len(dense), value), color=pooled, lw=1.4, ls=style)
    beyond = dense >= critical()
    _, lowest = stationary(dense[~beyond])
    ax.plot(dense[~beyond], lowest, color="black", lw=0.9, ls=DASHED)
    for value in (-MEAN, 2 * SIGMA[0]):
        ax.plot(dense[beyond], np.full(beyond.sum(), value), color="black", lw=0.9, ls=DASHED)
    ax.plot(spreads, curvatures.sharpness, "^", color=hetero, ms=6, label="sharpness")
    ax.plot(spreads, curvatures.lowest_curvature, "v", color=hetero, ms=6, label="lowest curvature")
    ax.text(0.1, 2 * MEAN + 0.08, r"PooledSGD: $2\mu$", fontsize=8, color=pooled)
    ax.text(0.1, 0.08, "PooledSGD: 0", fontsize=8, color=pooled)
    mark(ax, critical(), label="$M_c$")
    ax.set(
        ylim=(-1.9, 4.4),
        xlabel="heterogeneity $M$",
        ylabel="curvature of the pooled loss",
        title="HeteroSGD: from minimum to saddle",
    )
    ax.legend(frameon=False, loc="upper right", ncols=2, columnspacing=0.8)


def draw_edge(ax: Axes, curvatures: xr.Dataset) -> None:
    """Sharpness, environment sharpness and batch sharpness over M, against the edge."""
    from causal_sgd.figures import COLOURS

    spreads = curvatures.spread.values
    dense = np.linspace(0, spreads[-1] + 0.4, 43)
    ax.axhspan(2 / RATE, 2 / RATE + 4, color="0.88", zorder=0)
    ax.axhline(2 / RATE, color="0.3", lw=1.0)
    ax.text(0.1, 2 / RATE + 0.4, r"$2/\eta$: edge of stability", fontsize=8)
    ax.plot(dense, 2 * MEAN + dense, color=_colours()[1], lw=1.3)
    ax.text(2.1, 8.3, "PooledSGD: $2\\mu + M$", fontsize=8, color=_colours()[1])
    below = dense < critical()
    batch, _ = stationary(dense[below])
    ax.plot(dense[below], batch, color="black", lw=0.9, ls=DASHED)
    beyond = dense[~below]
    for law in (np.full(len(beyond), -MEAN), SIGMA[0] + beyond - MEAN):
        ax.plot(beyond, law, color="black", lw=0.9, ls=DASHED)
    for name, marker, colour, label in (
        ("environment_sharpness", "D", COLOURS[3], "worst environment"),
        ("sharpness", "^", COLOURS[0], "pooled"),
        ("batch_sharpness", "o", COLOURS[2], "batch"),
    ):
        ax.plot(spreads, curvatures[name], marker, color=colour, ms=5.5, label=label)
    error = curvatures.batch_sharpness_error
    ax.errorbar(spreads, curvatures.batch_sharpness, error, fmt="none", ecolor=COLOURS[2], lw=1.0)
    mark(ax, critical())
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(
        ylim=(-3.5, 23.5),
        xlabel="heterogeneity $M$",
        ylabel="sharpness",
        title="Far below the edge of stability",
    )
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.87))

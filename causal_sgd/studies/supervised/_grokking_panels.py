"""The panels of the figure of grokking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised import _grokking as cells

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

COLORS = {"training": "C0", "test": "C1"}
LABELS = {"training": "training", "test": "new examples"}
SAMPLERS = {"stratified": "all environments", "hetero": "HeteroSGD"}
TITLES = {"shared": "same inputs", "own": "own inputs"}
TOP = 2000.0  # where symbols stand for times that are infinite
RATIO = 0.9


def draw_losses(ax: Axes, run: xr.Dataset, level: float) -> None:
    """The losses of one environment at p/n = 0.9, with the gap."""
    from causal_sgd.theory import linear_dynamics

    steps = run.step.values[1:]
    laws = linear_dynamics.losses(steps, cells.RATE, RATIO, dim=cells.DIM)
    ends = []
    for name, law in zip(COLORS, laws, strict=True):
        curve = run[name].values[1:]
        ax.plot(steps, curve, color=COLORS[name], lw=3, alpha=0.45, label=LABELS[name])
        ax.plot(steps, law, color="0.2", ls=":")
        ends.append(cells.crossing(steps, curve, level))
    ax.axhline(level, color="0.5", ls="--", lw=0.8)
    if np.isfinite(ends).all():
        ax.annotate(
            "", (ends[1], level), (ends[0], level), arrowprops={"arrowstyle": "<->", "color": "k"}
        )
        middle = np.exp(np.mean(np.log(ends)))
        ax.text(middle, 0.8 * level, "gap", ha="center", va="top", fontsize=9)
    ax.set(xscale="log", yscale="log", ylim=(2e-5, 2), xlabel="step $t$", ylabel="loss")
    place = ax.get_yaxis_transform()
    ax.text(0.02, level, "95 % accuracy", transform=place, va="bottom", fontsize=8, color="0.3")
    ax.set_title("one environment, $p/n = 0.9$")
    ax.legend(frameon=False, fontsize=8, loc="lower left")


def draw_times(ax: Axes, ratios: np.ndarray, times: np.ndarray, level: float) -> None:
    """Steps to the level against p/n."""
    from causal_sgd.theory import linear_dynamics

    critical = float(linear_dynamics.critical_ratio(level))
    beside = critical - (critical - 1) * np.geomspace(1, 0.02, 20)
    fine = np.concatenate([np.linspace(0.05, 0.99, 48), beside])
    limit, finite = (_times(fine, np.zeros(1), level, dim=dim) for dim in (None, cells.DIM))
    for place, name in enumerate(COLORS):
        _symbols(ax, ratios, times[place], COLORS[name])
        ax.plot(fine, limit[place], color=COLORS[name], lw=1)
        ax.plot(fine, finite[place], color="0.2", ls=":")
    ax.axvline(critical, color="0.5", ls="--", lw=0.8)
    ax.text(critical - 0.015, 12, f"{critical:.3f}", rotation=90, ha="right", fontsize=8)
    ax.plot([], [], color="0.4", lw=1, label=r"law, $p \to \infty$")
    ax.plot([], [], color="0.2", ls=":", label="law, $p = 63$")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    ax.set(yscale="log", ylim=(5, TOP), xlim=(0, 1.1), xlabel="$p/n$")
    ax.set_ylabel("steps to 95 % accuracy")
    ax.set_title("one environment")


def draw_spreads(
    ax: Axes, design: str, spreads: np.ndarray, runs: Sequence[Sequence[xr.Dataset]], level: float
) -> None:
    """Steps to the level against the spread over its root, for runs of both samplers."""
    fine = np.linspace(0, 1.4, 113)
    for sampler, own in zip(SAMPLERS, runs, strict=True):
        whole = sampler == "stratified"
        laws = _times(
            np.full(1, RATIO),
            fine * level**0.5,
            level,
            dim=cells.DIM,
            design=design,
            sampler=sampler,
        )
        for name, law in zip(COLORS, laws, strict=True):
            steps = own[0].step.values
            times = np.array([cells.crossing(steps, run[name].values, level) for run in own])
            ax.plot(fine, law, color=COLORS[name], lw=1, ls="-" if whole else "--")
            _symbols(ax, spreads, times, COLORS[name], hollow=not whole)
        ax.plot([], [], "o", color="0.4", mfc=None if whole else "white", label=SAMPLERS[sampler])
    ax.set(yscale="log", ylim=(5, TOP), xlim=(-0.04, 1.4))
    ax.set_xlabel(r"spread $M$ / $\sqrt{\mathrm{level}}$")
    ax.set_ylabel("steps to 95 % accuracy")
    ax.set_title(f"two environments, {TITLES[design]}, $p/n = 0.9$")
    ax.legend(frameon=False, fontsize=8, loc="center right")


def _symbols(
    ax: Axes, x: np.ndarray, times: np.ndarray, color: str, *, hollow: bool = False
) -> None:
    """Circles at finite times, and triangles at the upper edge."""
    reached = np.isfinite(times)
    for symbol, part in (("o", reached), ("^", ~reached)):
        places = np.where(reached, times, 0.85 * TOP)[part]
        ax.plot(x[part], places, symbol, color=color, mfc="white" if hollow else None)


def _times(
    ratios: np.ndarray,
    spreads: np.ndarray,
    level: float,
    *,
    dim: int | None,
    design: str = "shared",
    sampler: str = "stratified",
) -> np.ndarray:
    """Steps to the level [2, ratios or spreads] by the curves of the law; NaN for never."""
    from causal_sgd.theory import linear_dynamics

    steps = np.geomspace(1, 1e4, 240)
    losses = linear_dynamics.losses(
        steps[:, None], cells.RATE, ratios, spreads, dim=dim, design=design, sampler=sampler
    )
    found = np.array(
        [[cells.crossing(steps, curve, level) for curve in np.asarray(part).T] for part in losses]
    )
    return np.where(np.isinf(found), np.nan, found)

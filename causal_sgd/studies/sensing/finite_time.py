"""Finite runs misplace the transition, by a predicted amount; two estimators place it right.

A run counts as rejecting if |u| ends below a level. In short runs from a small alpha even growing
directions have not reached the level yet, and the apparent critical spread lies far below M_c: a
walk log|u| of drift lambda needs lambda T = log(level / alpha). One would expect long runs to end
at M_c. They do not: they end where half of the stationary law lies below the level, 12 % below M_c
for a level of 0.1, because just below M_c a surviving direction is small most of the time. A walk
reflected at the nonlinearity predicts both limits and all between
(`theory.finite_time_critical_spread`) to a few per cent. What it misses, the size of the
fluctuations that the map adds to the walk, is of order eta mu.

Two estimators lead to M_c. Where alpha and the level are minute, the walk is free, and the square
of the apparent spread is a line in 1/T that ends at M_c (`analysis.finite_time_boundary`). Where
the level is alpha itself, the shift vanishes from the start: the sign of lambda decides whether a
run grows at all, at any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _experiments
from causal_sgd.studies.sensing._predictions import critical_spread

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.analysis import Boundary

BASE = _experiments.TWO_SCALARS.replace(
    learning_rate=0.1, steps=6400, record_every=50, metrics=("spurious_signal",)
)
SPREADS = np.linspace(0.5, 5.5, 41)
SCALES = (1e-1, 1e-3, 1e-6, 1e-12)
LEVEL, LOW_LEVEL = 0.1, 1e-6
STEPS = (50, 100, 200, 400, 800, 1600, 3200, 6400)
TINY = 1e-12  # the initial scale of free walks
GROWN = TINY * (1 + 1e-6)  # a run that ends above it has grown
# Steps in which a walk from 1e-12 crosses 1e-6 and does not feel the nonlinearity yet.
FREE = slice(100, 1600)
CLAIMS = {
    "worst": Claim(
        "apparent over predicted critical spread, four initial scales, 50 to 6400 steps: "
        "farthest from 1",
        0.88,
        1.12,
        "random walk with reflection",
    ),
    "typical": Claim(
        "apparent over predicted critical spread: median", 0.96, 1.02, "random walk with reflection"
    ),
    "short": Claim(
        "alpha = 1e-3, 100 steps: apparent critical spread over M_c", 0.68, 0.77, "free walk"
    ),
    "long": Claim(
        "alpha = 1e-3, 6400 steps: apparent critical spread over M_c", 0.84, 0.92, "stationary law"
    ),
    "extrapolated": Claim(
        "alpha = 1e-12, extrapolated in 1/T: critical spread over M_c", 0.97, 1.03, "free walk"
    ),
    "growth": Claim(
        "alpha = 1e-12, 50 to 1600 steps, a level of alpha: critical spread over M_c, "
        "farthest from 1",
        0.94,
        1.06,
        "sign of the Lyapunov exponent",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Runs of 6400 steps over spread and initial scale, 512 seeds (64 when quick)."""
    from causal_sgd.sweeps import sweep

    return {
        "runs": sweep(
            BASE.cell(),
            axes={"init_scale": SCALES, "spread": SPREADS},
            seeds=64 if quick else 512,
            key=key,
            progress=progress,
            label="finite time",
        )
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The apparent critical spreads over their prediction and over M_c, and both estimators."""
    critical, runs = critical_spread(BASE), data["runs"]
    apparent = _apparent(runs)["value"]
    ratios = []
    for scale in SCALES:
        predicted = _predicted(scale, np.array(STEPS))
        inside = predicted > 1.2 * SPREADS[0]  # elsewhere the transition lies off the axis
        ratios.append((apparent.sel(init_scale=scale).values / predicted)[inside])
    ratio = np.concatenate(ratios)
    free = runs.sel(init_scale=TINY, step=[step for step in STEPS if step <= FREE.stop])
    return {
        "worst": farthest_from_one(ratio),
        "typical": float(np.median(ratio)),
        "short": float(apparent.sel(init_scale=1e-3, step=100)) / critical,
        "long": float(apparent.sel(init_scale=1e-3, step=6400)) / critical,
        "extrapolated": _extrapolated(runs).value / critical,
        "growth": farthest_from_one(_crossings(free, GROWN).values.astype(float) / critical),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The apparent critical spreads over M_c with their prediction, and both estimators."""
    critical, runs = critical_spread(BASE), data["runs"]
    apparent = _apparent(runs, resamples=199) / critical
    scales, steps = np.meshgrid(SCALES, STEPS, indexing="ij")
    predicted = [_predicted(scale, np.array(STEPS)) / critical for scale in SCALES]
    tiny = runs.sel(init_scale=TINY, step=runs.step.values[1:])
    low, grown = (_crossings(tiny, level) / critical for level in (LOW_LEVEL, GROWN))
    value, below, above = np.array(_extrapolated(runs), float) / critical
    return {
        "apparent over true spread": apparent,
        "theory": points({"init_scale": scales, "step": steps}, {"ratio": predicted}),
        "free walks": points({"step": low.step.values}, {"low_level": low, "grown": grown}),
        "extrapolated": points({}, {"ratio": value, "low": below, "high": above}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The apparent spread against the length of the runs with its prediction, and both estimators
    against 1/T.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.4))
    _draw_apparent(axes[0], data["runs"])
    _draw_estimators(axes[1], data["runs"])
    return fig


def _draw_apparent(ax: Axes, runs: xr.Dataset) -> None:
    from causal_sgd.figures._theme import COLOURS, DASHES

    critical = critical_spread(BASE)
    dense = np.geomspace(STEPS[0], STEPS[-1], 100)
    apparent = _apparent(runs, resamples=199)
    for index, scale in enumerate(SCALES):
        part, colour = apparent.sel(init_scale=scale), COLOURS[index]
        label = f"$\\alpha = 10^{{{int(np.log10(scale))}}}$"
        values = part["value"] / critical
        ax.plot(STEPS, values, "osD^"[index], color=colour, mfc="white", label=label)
        low, high = part["low"].clip(SPREADS[0]), part["high"].clip(max=SPREADS[-1])
        ax.vlines(STEPS, low / critical, high / critical, color=colour, linewidth=1)
        curve = _predicted(scale, dense)
        curve = np.where(curve > SPREADS[0], curve, np.nan)
        ax.plot(dense, curve / critical, color=colour, linewidth=1, linestyle=DASHES[index])
    ax.axhline(1, color="0.3", linewidth=1, linestyle=":")
    ax.set(
        xscale="log", xlabel="steps $T$", ylabel="apparent over true critical spread", ylim=(0, 1.1)
    )
    ax.set_title(f"half of the runs end below {LEVEL:g}")
    ax.legend(frameon=False, loc="lower right")


def _draw_estimators(ax: Axes, runs: xr.Dataset) -> None:
    from causal_sgd.figures import COLOURS

    critical = critical_spread(BASE)
    tiny = runs.sel(init_scale=TINY, step=runs.step.values[1:])
    low, grown = (_crossings(tiny, level) / critical for level in (LOW_LEVEL, GROWN))
    steps = low.step.values.astype(float)
    inverse = 1000 / steps
    ax.plot(inverse, low**2, ".", color=COLOURS[3], markersize=4)
    ax.plot(inverse, grown**2, "x", color=COLOURS[4], markersize=4)
    free = (steps >= FREE.start) & (steps <= FREE.stop) & np.isfinite(low.values)
    slope = np.polyfit(inverse[free], low.values[free] ** 2, 1)[0]
    value, below, above = (np.array(_extrapolated(runs), float) / critical) ** 2
    ends = np.array([0, inverse[free].max()])
    ax.plot(ends, value + slope * ends, color="0.4", linewidth=0.9, zorder=1)
    ax.errorbar(
        [0],
        [value],
        [[value - below], [above - value]],
        color="black",
        marker="o",
        mfc="white",
        capsize=2,
        clip_on=False,
        zorder=3,
    )
    ax.axhline(1, color="0.3", linewidth=1, linestyle=":")
    label = "level $\\alpha$: grown at all?"
    ax.text(10, 0.9, label, color=COLOURS[4], ha="right", va="top", fontsize=8)
    ax.text(3.2, 0.62, "level $10^{-6}$", color=COLOURS[3], fontsize=8)
    ax.set(
        xlim=(-0.3, 10.3),
        ylim=(0, 1.15),
        xlabel="$1000 / T$",
        ylabel="(apparent over true critical spread)$^2$",
    )
    ax.set_title("free walks from $\\alpha = 10^{-12}$")


def _predicted(scale: float, steps: np.ndarray) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(
        theory.finite_time_critical_spread(
            BASE.learning_rate, BASE.mean, num_steps=steps, init_scale=scale, level=LEVEL
        ),
        float,
    )


def _apparent(runs: xr.Dataset, *, resamples: int = 1) -> xr.Dataset:
    """Where half of the runs lie below the level, [init_scale, step], with its band."""
    return _half_rejecting(runs.sel(step=list(STEPS)), LEVEL * (1 + 1e-6), resamples=resamples)


def _crossings(runs: xr.Dataset, level: float) -> xr.DataArray:
    """Where half of the runs lie below a level, [step]."""
    return _half_rejecting(runs, level)["value"]


def _half_rejecting(runs: xr.Dataset, level: float, *, resamples: int = 1) -> xr.Dataset:
    """The rejection boundary in the spread at every recorded step."""
    import xarray as xr

    from causal_sgd.analysis import rejection_boundary

    parts = [
        rejection_boundary(
            final(runs.sel(step=[step])),
            "spurious_signal",
            along="spread",
            level=level,
            resamples=resamples,
        )
        for step in runs.step.values
    ]
    return xr.concat(parts, xr.Variable("step", runs.step.values))


def _extrapolated(runs: xr.Dataset) -> Boundary:
    from causal_sgd.analysis import finite_time_boundary

    return finite_time_boundary(
        runs.sel(init_scale=TINY, step=slice(0, FREE.stop)),
        level=LOW_LEVEL,
        first_step=FREE.start,
        resamples=499,
    )

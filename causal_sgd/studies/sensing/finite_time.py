"""Runs of finite length see the transition in the wrong place, where it is predicted; and two ways to see it where it is.

A run is called one that rejects if |u| lies below a level at its end. In short runs from a small alpha even growing directions
have not come up to the level yet, and the apparent critical spread lies far below M_c: a walk log|u| of drift lambda needs
lambda T = log(level/alpha). One would expect long runs to end at M_c; they do not. They end where half of the stationary law
lies below the level, 12 % below M_c for a level of 0.1, because just below M_c a direction that survives is small most of the
time. A walk reflected at the nonlinearity predicts both and all between (`theory.finite_time_critical_spread`) to a few
percent; what it misses, the size of the fluctuations that the map adds to the walk, is of order eta mu.

Two ways lead to M_c. Where alpha and the level are minute, the walk is free, and the square of the apparent spread is a line in
1/T that ends at M_c (`phase.finite_time_boundary`). Where the level is alpha itself the shift is zero from the start: whether
a run grew at all is decided by the sign of lambda in runs of any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
    learning_rate=0.1, steps=6400, record_every=50, metrics=("spurious_signal",),
)  # fmt: skip
SPREADS = np.linspace(0.5, 5.5, 41)
SCALES = (1e-1, 1e-3, 1e-6, 1e-12)
LEVEL, LOW_LEVEL = 0.1, 1e-6
STEPS = (50, 100, 200, 400, 800, 1600, 3200, 6400)
FREE = slice(
    100, 1600
)  # steps in which a walk from 1e-12 crosses 1e-6 and has not felt the nonlinearity
CLAIMS = {
    "worst": Claim(
        "apparent over predicted critical spread, four initial scales, 50 to 6400 steps: the furthest from 1", 0.88, 1.12,
        "random walk with reflection",
    ),
    "typical": Claim("apparent over predicted critical spread: the median", 0.96, 1.02, "random walk with reflection"),
    "short": Claim("alpha = 1e-3, 100 steps: apparent critical spread over M_c", 0.68, 0.77, "free walk"),
    "long": Claim("alpha = 1e-3, 6400 steps: apparent critical spread over M_c", 0.84, 0.92, "stationary law"),
    "extrapolated": Claim("alpha = 1e-12, extrapolated in 1/T: critical spread over M_c", 0.97, 1.03, "free walk"),
    "growth": Claim(
        "alpha = 1e-12, 50 to 1600 steps, a level of alpha: critical spread over M_c, the furthest from 1", 0.94, 1.06,
        "sign of the Lyapunov exponent",
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Runs of 6400 steps over spread and initial scale, 512 seeds (64 when quick)."""
    from causal_sgd.sweeps import sweep

    return {
        "runs": sweep(
            BASE.cell(), axes={"init_scale": SCALES, "spread": SPREADS}, seeds=64 if quick else 512, key=key,
            progress=progress, label="finite time",
        )
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The apparent critical spreads over their prediction and over M_c, and what the two corrections give."""
    critical = _critical()
    runs = data["runs"]
    ratios, shown = [], _apparent(runs)
    for scale in SCALES:
        predicted = _predicted(scale, np.array(STEPS))
        inside = predicted > 1.2 * SPREADS[0]  # elsewhere the transition lies beyond the axis
        ratios.append((shown.sel(init_scale=scale).values / predicted)[inside])
    ratio = np.concatenate(ratios)
    grew = _grew(runs) / critical
    return {
        "worst": _furthest(ratio),
        "typical": float(np.median(ratio)),
        "short": float(shown.sel(init_scale=1e-3, step=100)) / critical,
        "long": float(shown.sel(init_scale=1e-3, step=6400)) / critical,
        "extrapolated": _extrapolated(runs).value / critical,
        "growth": _furthest(grew),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The apparent spread against the length of the runs with its prediction, and both corrections against 1/T."""
    from matplotlib import pyplot as plt

    from causal_sgd.figures._theme import COLOURS, DASHES

    critical = _critical()
    runs = data["runs"]
    drawing, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4))
    dense = np.geomspace(STEPS[0], STEPS[-1], 100)
    shown = _apparent(runs, bands=True)
    for index, scale in enumerate(SCALES):
        part = shown.sel(init_scale=scale)
        exponent = int(np.log10(scale))
        look: dict[str, Any] = {
            "color": COLOURS[index],
            "marker": "osD^"[index],
            "mfc": "white",
            "linestyle": "",
        }
        left.plot(STEPS, part["value"] / critical, label=f"$\\alpha = 10^{{{exponent}}}$", **look)
        low, high = part["low"].clip(SPREADS[0]), part["high"].clip(max=SPREADS[-1])
        left.vlines(STEPS, low / critical, high / critical, color=COLOURS[index], linewidth=1)
        curve = _predicted(scale, dense)
        curve = np.where(curve > SPREADS[0], curve, np.nan)
        left.plot(
            dense, curve / critical, color=COLOURS[index], linewidth=1, linestyle=DASHES[index]
        )
    left.axhline(1, color="0.3", linewidth=1, linestyle=":")
    left.set(
        xscale="log", xlabel="steps $T$", ylabel="apparent over true critical spread", ylim=(0, 1.1)
    )
    left.set_title(f"half of the runs end below {LEVEL:g}")
    left.legend(frameon=False, loc="lower right")

    low_level = _crossed(runs.sel(init_scale=1e-12), LOW_LEVEL)
    steps = low_level.step.values.astype(float)
    place = 1000 / steps
    right.plot(
        place, (low_level / critical) ** 2, color=COLOURS[3], marker=".", linestyle="", markersize=4
    )
    free = (steps >= FREE.start) & (steps <= FREE.stop) & np.isfinite(low_level.values)
    found = _extrapolated(runs)
    weights = np.polyfit(place[free], (low_level.values[free] / critical) ** 2, 1)
    ends = np.array([0, place[free].max()])
    right.plot(
        ends,
        (found.value / critical) ** 2 + weights[0] * ends,
        color="0.4",
        linewidth=0.9,
        zorder=1,
    )
    right.errorbar(
        [0], [(found.value / critical) ** 2],
        [[(found.value**2 - found.low**2) / critical**2], [(found.high**2 - found.value**2) / critical**2]],
        color="black", marker="o", mfc="white", capsize=2, clip_on=False, zorder=3,
    )  # fmt: skip
    grown = _crossed(runs.sel(init_scale=1e-12), 1e-12 * (1 + 1e-6))
    right.plot(
        1000 / grown.step,
        (grown / critical) ** 2,
        color=COLOURS[4],
        marker="x",
        linestyle="",
        markersize=4,
    )
    right.axhline(1, color="0.3", linewidth=1, linestyle=":")
    right.text(
        10,
        0.9,
        "level $\\alpha$: grown at all?",
        color=COLOURS[4],
        ha="right",
        va="top",
        fontsize=8,
    )
    right.text(3.2, 0.62, "level $10^{-6}$", color=COLOURS[3], fontsize=8)
    right.set(
        xlim=(-0.3, 10.3),
        ylim=(0, 1.15),
        xlabel="$1000 / T$",
        ylabel="(apparent over true critical spread)$^2$",
    )
    right.set_title("free walks from $\\alpha = 10^{-12}$")
    return drawing


def _critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(BASE.learning_rate, BASE.mean))


def _predicted(scale: float, steps: np.ndarray) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(
        theory.finite_time_critical_spread(
            BASE.learning_rate, BASE.mean, num_steps=steps, init_scale=scale, level=LEVEL
        ),
        float,
    )


def _apparent(runs: xr.Dataset, *, bands: bool = False) -> Any:
    """Where half of the runs lie below the level, [init_scale, step]; with its band as a dataset."""
    import xarray as xr

    from causal_sgd.analysis import rejection_boundary

    options: dict[str, Any] = {
        "along": "spread",
        "level": LEVEL * (1 + 1e-6),
        "resamples": 199 if bands else 1,
    }
    parts = [
        rejection_boundary(final(runs.sel(step=[step])), "spurious_signal", **options)
        for step in STEPS
    ]
    found = xr.concat(parts, xr.Variable("step", list(STEPS)))
    return found if bands else found["value"]


def _crossed(runs: xr.Dataset, level: float) -> Any:
    """The same for every recorded step of runs from one scale."""
    import xarray as xr

    from causal_sgd.analysis import rejection_boundary

    steps = runs.step.values[1:]
    parts = [
        rejection_boundary(
            final(runs.sel(step=[step])),
            "spurious_signal",
            along="spread",
            level=level,
            resamples=1,
        )
        for step in steps
    ]
    return xr.concat(parts, xr.Variable("step", steps))["value"]


def _grew(runs: xr.Dataset) -> np.ndarray:
    """The critical spreads of runs that are asked whether they grew."""
    own = runs.sel(init_scale=1e-12, step=[step for step in STEPS if step <= FREE.stop])
    return np.array(
        [_crossed_once(own.sel(step=[step]), 1e-12 * (1 + 1e-6)) for step in own.step.values]
    )


def _crossed_once(runs: xr.Dataset, level: float) -> float:
    from causal_sgd.analysis import rejection_boundary

    found = rejection_boundary(
        final(runs), "spurious_signal", along="spread", level=level, resamples=1
    )
    return float(found["value"])


def _extrapolated(runs: xr.Dataset) -> Any:
    from causal_sgd.analysis import finite_time_boundary

    return finite_time_boundary(
        runs.sel(init_scale=1e-12, step=slice(0, FREE.stop)),
        level=LOW_LEVEL,
        first_step=FREE.start,
        resamples=499,
    )


def _furthest(ratios: np.ndarray) -> float:
    """The ratio that is furthest from 1, NaN if one is missing."""
    return (
        float("nan") if np.isnan(ratios).any() else float(ratios[np.argmax(np.abs(np.log(ratios)))])
    )

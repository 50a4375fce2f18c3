"""Environments flatten a minimum without any instability, at an exponent known in closed form.

One entry f of U V', with any number of columns, is an exact map of f and the sharpness S
(`theory.stability.catapult_step`). Without a signal, a step size of eta S below 2 leaves S nearly
alone, and between 2 and 4 the loss first rises, S falls until eta S < 2, and the run ends in a
flatter minimum; beyond 4 it diverges. This is the catapult (Lewkowycz et al. 2020), which needs a
large step.

Environments do the same at steps far below 2/S. The imbalance |u|^2 - |v|^2 is multiplied by
1 - (eta r/2)^2 at every step, whatever makes the residual r. Beyond the critical spread the
direction is rejected, r = -s, and the imbalance falls at E log|1 - (eta s/2)^2|, the sharpness at
twice the exponent of the direction itself. Below it part of s is learned, r is smaller, and the
factors balance more slowly than that, but still without an end: S falls to |f|, the flattest
minimum of that output.

The map, the thresholds and both exponents are derived here; the flattening by environments is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._drawing import mark
from causal_sgd.studies._frames import diverged_share, farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._one_entry import (
    FEW,
    LONG,
    SETTLED,
    SMALL,
    TRACKED,
    one_entry_cell,
)

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS, STEPS = 200, 300
LAZY = np.array([0.5, 1.0, 1.5])  # eta S at the start
JUMPS = np.array([2.05, 2.1, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 3.9, 3.99])
BEYOND = np.array([4.01, 4.05, 4.2])
SHARPNESS = np.concatenate([LAZY, [1.9], JUMPS, BEYOND])
FIRST = 100  # steps in which the exact map is compared
RATE, MEAN = 0.2, 1.0  # eta S = 0.2 at the start
SPREADS = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
BELOW, REJECTED = SPREADS[1:5], SPREADS[5:]  # M_c = 4.58
CLAIMS = (
    {
        "map": Claim(
            f"no signal, k = 200, the first {FIRST} steps: largest deviation of f and S from one "
            "step of the exact map, over S",
            0,
            1e-4,
            "exact map of two numbers, up to rounding",
        ),
        "rises": Claim(
            "share of runs whose loss first rises iff eta S - (eta f)^2/4 > 2 at the start",
            1,
            1,
            "exact map of two numbers",
        ),
        "lazy": Claim(
            "eta S up to 1.5 at the start: S at the end over S - f^2 (1 - eta S/4)/(2 - eta S), "
            "farthest from 1",
            0.98,
            1.02,
            "exact map to second order in f",
        ),
        "flatter": Claim(
            "eta S from 2.05 to 3.99 at the start: largest eta S at the end",
            0,
            2,
            "Lewkowycz et al. 2020",
        ),
        "bounded": Claim("up to 3.99: diverged share", 0, 0, "S falls iff eta S < 4"),
        "diverges": Claim("from 4.01 on: diverged share", 1, 1, "S falls iff eta S < 4"),
        "imbalance": Claim(
            f"environments, M = 2 to 7: imbalance after {TRACKED} steps over the product of "
            "1 - (eta r/2)^2, median over runs farthest from 1",
            0.99,
            1.01,
            "exact map of two numbers",
        ),
    }
    | {
        f"balance_{spread:g}": Claim(
            f"M = {spread:g}, rejected: exponent of the imbalance over E log|1 - (eta s/2)^2|",
            0.98,
            1.02,
            "Lyapunov exponent",
        )
        for spread in REJECTED
    }
    | {
        f"flatten_{spread:g}": Claim(
            f"M = {spread:g}, rejected, small S: exponent of S + f less twice that of the "
            "direction, in standard errors",
            0,
            4,
            "Lyapunov exponent",
        )
        for spread in REJECTED
    }
    | {
        "stable": Claim(
            "environments: largest eta S at any time, below the edge 2", 0, 2, "no instability"
        ),
        "learned": Claim.finding(
            "M = 3, partly learned: exponent of the imbalance over E log|1 - (eta s/2)^2|"
        ),
        "slope": Claim.finding(
            "M = 7, from eta S = 0.2: mean slope of log S in the second half over twice the "
            "exponent of the direction"
        ),
        "flattest": Claim.finding("M = 3: median of S over |f| at the end, 1 where it is flattest"),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """The catapult without a signal, 200 columns, over eta S at the start with 32 seeds (8 when
    quick); environments of M = 0 to 7 with 8 columns and 4096 seeds (1024).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    return {
        "catapult": sweep(
            one_entry_cell(COLUMNS, STEPS),
            axes={"learning_rate": SHARPNESS, "mean": [0.0], "spread": [0.0], "start": [1.0]},
            seeds=8 if quick else 32,
            label="catapult",
            **options,
        ),
        "environments": sweep(
            one_entry_cell(FEW, LONG, tracked=True),
            axes={
                "learning_rate": [RATE],
                "mean": [MEAN],
                "spread": SPREADS,
                "start": [1.0, SMALL],
            },
            seeds=1024 if quick else 4096,
            label="environments",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The catapult against the exact map, and the exponents of balance and flattening."""
    runs = data["catapult"].squeeze(["mean", "spread", "start"])
    rates = runs.learning_rate.values
    first, loss = runs.isel(step=0), runs.output**2 / 4
    rises = loss.isel(step=1) > loss.isel(step=0)
    excess = rates[:, None] - (rates[:, None] * first.output.transpose(..., "seed")) ** 2 / 4 - 2
    agree = (rises.transpose(..., "seed").values == (excess.values > 0))[np.abs(excess) > 1e-5]
    end = final(runs).sharpness * runs.learning_rate
    environments = _environments(data)
    shaken = environments.sel(spread=SPREADS[2:])
    imbalance = np.exp(np.abs(shaken.tracked - shaken.predicted).median("seed")).values
    small = data["environments"].squeeze(["learning_rate", "mean", "step"]).sel(start=SMALL)
    values = {
        "map": _deviation_from_map(runs),
        "rises": float(agree.mean()),
        "lazy": _lazy(runs.sel(learning_rate=LAZY)),
        "flatter": float(end.sel(learning_rate=JUMPS).max()),
        "bounded": float(diverged_share(runs).where(runs.learning_rate < 4).max()),
        "diverges": float(diverged_share(runs).sel(learning_rate=BEYOND).min()),
        "imbalance": farthest_from_one(imbalance),
        "stable": float(RATE * environments.largest.max()),
        "flattest": float(
            (environments.sharpness / np.abs(environments.output)).sel(spread=3.0).median()
        ),
    }
    balance = environments.exponent.mean("seed")
    for spread in REJECTED:
        values[f"balance_{spread:g}"] = float(balance.sel(spread=spread) / _balance(spread))
        slopes = small.exponent_of_sum.sel(spread=spread).values
        error = slopes.std(ddof=1) / len(slopes) ** 0.5
        values[f"flatten_{spread:g}"] = abs(slopes.mean() - _flattening(spread)) / error
    values["slope"] = float(environments.slope.sel(spread=7.0).mean()) / float(_flattening(7.0))
    values["learned"] = float(balance.sel(spread=3.0) / _balance(3.0))
    return values


def _lazy(runs: xr.Dataset) -> float:
    """The farthest from 1 of S at the end over its second order in f."""
    rate, square = runs.learning_rate, runs.output.isel(step=0) ** 2
    ratio = final(runs).sharpness / (1 - square * (1 - rate / 4) / (2 - rate))
    return farthest_from_one(ratio.values.ravel())


def _environments(data: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The runs with environments that start at S = 1, [spread, seed, ...]."""
    runs = data["environments"].squeeze(["learning_rate", "mean", "step"])
    return runs.sel(start=1.0, drop=True)


def _deviation_from_map(runs: xr.Dataset) -> float:
    """The largest difference to a step of the exact map from the state before, over S."""
    shown = runs.isel(step=slice(FIRST + 1)).sel(learning_rate=SHARPNESS[SHARPNESS < 4])
    rate = shown.learning_rate.values[:, None]
    f, s = (
        shown[name].transpose("step", "learning_rate", "seed").values.astype(float)
        for name in ("output", "sharpness")
    )
    square = (rate * f) ** 2 / 4
    exact = f - rate * s * f + square * f, s - rate * f * f + square * s
    errors = [
        np.abs(values[1:] - image[:-1]) / s[:-1]
        for values, image in zip((f, s), exact, strict=True)
    ]
    return float(np.max(errors))


def _balance(spread: ArrayLike) -> np.ndarray:
    """The exponent of the imbalance where r = -s."""
    from causal_sgd.theory import stability

    return np.asarray(stability.balance_exponent(RATE, MEAN, spread))


def _flattening(spread: ArrayLike) -> np.ndarray:
    """The exponent of S in a rejected direction: twice that of u + v."""
    from causal_sgd import theory

    return 2 * np.asarray(theory.lyapunov_two_point(RATE / 2, MEAN, spread))


def _critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(RATE / 2, MEAN))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The sharpness at the end, and measured and predicted exponents."""
    runs = data["catapult"].squeeze(["mean", "spread", "start"])
    ends = (final(runs).sharpness * runs.learning_rate).median("seed").values
    environments = _environments(data)
    numbers = {
        "imbalance": environments.exponent.mean("seed").values,
        "sharpness": environments.slope.mean("seed").values,
        "imbalance_theory": _balance(SPREADS),
        "sharpness_theory": _flattening(SPREADS),
    }
    return {
        "ends": points({"sharpness_at_start": SHARPNESS}, {"sharpness_at_end": ends}),
        "exponents": points({"spread": SPREADS}, numbers),
        "theory": points({}, {"critical_spread": _critical()}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The sharpness at the end against that at the start, runs of both kinds, and the exponents of
    balance and flattening under environments.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(13.5, 3.4))
    runs = data["catapult"].squeeze(["mean", "spread", "start"])
    _draw_ends(axes[0], runs)
    _draw_runs(axes[1], runs)
    environments = _environments(data)
    _draw_flattening(axes[2], environments)
    _draw_exponents(axes[3], environments)
    return fig


def _draw_ends(ax: Axes, runs: xr.Dataset) -> None:
    from causal_sgd.figures import COLOURS

    shown = runs.sel(learning_rate=SHARPNESS[SHARPNESS < 4])
    ends = (final(shown).sharpness * shown.learning_rate).transpose("learning_rate", "seed")
    ax.plot(shown.learning_rate, ends, ".", ms=3, color=COLOURS[0], alpha=0.5)
    ax.plot([0, 2, 4], [0, 2, 2], color="0.3", lw=1, ls=(0, (4, 3)), label="2, the edge")
    ax.axvspan(4, 4.4, color="0.85", zorder=0)
    ax.text(4.2, 1, "diverges", rotation=90, ha="center", va="center", fontsize=8)
    ax.set(
        xlim=(0, 4.4),
        ylim=(0, 2.2),
        xlabel=r"$\eta S$ at the start",
        ylabel=r"$\eta S$ at the end",
        title="no signal: the catapult",
    )
    ax.legend(frameon=False, loc="upper left")


def _draw_runs(ax: Axes, runs: xr.Dataset) -> None:
    from causal_sgd.figures import COLOURS

    for index, rate in enumerate((1.5, 2.5, 3.5)):
        part = runs.sel(learning_rate=rate).isel(seed=0, step=slice(41))
        colour = COLOURS[index]
        ax.plot(part.step, rate * part.sharpness, color=colour, label=f"$\\eta S_0 = {rate:g}$")
        ax.plot(part.step, rate * np.abs(part.output), color=colour, lw=0.9, ls=":")
    ax.axhline(2, color="0.3", lw=1, ls=(0, (4, 3)))
    ax.set(xlabel="step", title=r"solid: $\eta S$, dotted: $\eta |f|$")
    ax.legend(frameon=False)


def _draw_flattening(ax: Axes, environments: xr.Dataset) -> None:
    from causal_sgd.figures import COLOURS

    steps = np.arange(0, LONG + 1, 20)
    for index, spread in enumerate((0.0, 3.0, 6.0, 7.0)):
        logs = environments.log_sharpness.sel(spread=spread).mean("seed").values
        colour = COLOURS[index]
        ax.semilogy(steps, np.exp(logs), "osD^"[index], color=colour, label=f"$M = {spread:g}$")
        if spread > _critical():
            after = steps >= SETTLED
            line = logs[after][0] + float(_flattening(spread)) * (steps[after] - SETTLED)
            ax.semilogy(steps[after], np.exp(line), color="black", lw=1, ls=(0, (4, 3)))
    ax.set(
        xlabel="step",
        ylabel="sharpness $S$, geometric mean",
        title=r"environments, $\eta S_0 = 0.2$",
    )
    ax.legend(frameon=False)


def _draw_exponents(ax: Axes, environments: xr.Dataset) -> None:
    from causal_sgd.figures import COLOURS

    dense = np.linspace(0, 7.2, 145)
    ax.plot(dense, _balance(dense), color=COLOURS[0], lw=1.1, ls="--")
    beyond = dense[dense > _critical()]
    ax.plot(beyond, _flattening(beyond), color=COLOURS[1], lw=1.1, ls="--")
    ax.plot(SPREADS, environments.exponent.mean("seed"), "o", color=COLOURS[0], label="imbalance")
    ax.plot(SPREADS, environments.slope.mean("seed"), "s", color=COLOURS[1], label="sharpness")
    ax.plot([], [], color="0.3", lw=1.1, ls="--", label="theory for $r = -s$")
    mark(ax, _critical())
    ax.set(xlabel="heterogeneity $M$", ylabel="exponent per step", title="$M_c$ dotted")
    ax.legend(frameon=False)

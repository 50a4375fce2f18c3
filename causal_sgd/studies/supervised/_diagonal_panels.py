"""The panels of the figure of diagonal networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised import _diagonal_numbers as numbers
from causal_sgd.studies.supervised import _diagonal_runs as runs

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

NAMES = {"full": "gradient descent", "single": "SGD, one example"}
RATES = {"full": numbers.FULL_RATES, "single": numbers.SINGLE_RATES}
SHOWN = {"full": 0.1, "single": 0.04}  # learning rates whose gain is shown


def draw(data: Mapping[str, xr.Dataset]) -> Figure:
    """All panels."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(10.8, 6.4))
    found = numbers.distances(data)
    _draw_shape(axes[0, 0], data)
    _draw_distances(axes[0, 1], found)
    _draw_steps(axes[0, 2], data)
    _draw_alphas(axes[1, 0], data, found)
    _draw_gains(axes[1, 1], data)
    _draw_spreads(axes[1, 2], data)
    return fig


def _label_steps(ax: Axes) -> None:
    """Plain labels of a logarithmic axis of steps."""
    steps = (0.02, 0.05, 0.1, 0.2, 0.5)
    ax.set_xticks(steps, [f"{step:g}" for step in steps])
    ax.set_xticks([], minor=True)


def _draw_shape(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    places = np.arange(1, runs.DIM + 1)
    for index, (name, label) in enumerate(NAMES.items()):
        gain = runs.gains(runs.row_of(data[name], learning_rate=SHOWN[name])).mean(0)
        off = gain[runs.SPARSITY :].mean()
        ax.plot(places, gain / off, "os"[index], ms=4, color=COLOURS[index], label=label)
        ax.hlines(numbers.first_shape(name), 1, runs.SPARSITY, color="black", ls="--", lw=1)
    ax.axhline(1, color="0.5", lw=0.8)
    ax.set(
        ylim=(0, None),
        xlabel="coordinate, the first three are the support",
        ylabel="gain over its mean off the support",
        title="shape of the gain, first step dashed",
    )
    ax.legend(frameon=False)


def _draw_distances(ax: Axes, found: Mapping[str, np.ndarray]) -> None:
    from causal_sgd.figures import COLOURS

    for index, (name, label) in enumerate(NAMES.items()):
        rows = [
            (settings["learning_rate"], i)
            for i, (method, settings) in enumerate(numbers.COMPARED)
            if method == name and len(settings) == 1
        ]
        rates, places = map(list, zip(*rows, strict=True))
        for kind, face in (("start", "white"), ("end", COLOURS[index])):
            values = np.nanmedian(found[kind][places], axis=1)
            shown = label if kind == "end" else None
            ax.loglog(rates, values, "os"[index] + "-", color=COLOURS[index], mfc=face, label=shown)
    steps = np.array([0.02, 0.2])
    for power, level in ((1, 3e-2), (2, 1e-4)):
        ax.loglog(steps, level * (steps / steps[0]) ** power, color="black", lw=0.8, ls=":")
        ax.text(steps[1], level * 10**power, f" {power}", va="center", fontsize=8)
    ax.set(
        xlabel=r"step $\eta$",
        ylabel="distance to the interpolator",
        title="scale of the start (hollow) and of the end",
    )
    _label_steps(ax)
    ax.legend(frameon=False)


def _draw_steps(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    for index, (name, label) in enumerate(NAMES.items()):
        errors = [
            np.nanmedian(runs.errors(runs.estimates(runs.row_of(data[name], learning_rate=rate))))
            for rate in RATES[name]
        ]
        ax.semilogx(RATES[name], errors, "os"[index] + "-", color=COLOURS[index], label=label)
    ax.set(
        xlabel=r"step $\eta$",
        ylabel=r"error $|\beta - \beta^\star|$",
        title="recovery of a sparse target",
    )
    _label_steps(ax)
    ax.legend(frameon=False)


def _draw_alphas(ax: Axes, data: Mapping[str, xr.Dataset], found: Mapping[str, np.ndarray]) -> None:
    from causal_sgd.figures import COLOURS

    alphas = sorted({*numbers.ALPHAS, runs.ALPHA})
    errors = [
        np.nanmedian(runs.errors(runs.estimates(runs.row_of(data["full"], alpha=alpha))))
        for alpha in alphas
    ]
    law = {
        {**runs.SETTING, **settings}["alpha"]: np.median(found["error"][i])
        for i, (_, settings) in enumerate(numbers.COMPARED)
    }
    ax.plot(alphas, errors, "o", color=COLOURS[0], label=r"gradient descent, $\eta = 0.1$")
    ax.plot(alphas, [law[a] for a in alphas], color="black", lw=1, ls="--", label="interpolator")
    least = np.sqrt(runs.SPARSITY * (1 - runs.EXAMPLES / runs.DIM))
    ax.axhline(least, color="0.4", lw=0.9, ls=":", label=r"least $\ell_2$ norm, on average")
    ax.set(
        xscale="log",
        ylim=(0, 1.15),
        xlabel=r"start $\alpha$",
        ylabel=r"error $|\beta - \beta^\star|$",
        title="from rich to kernel",
    )
    ax.legend(frameon=False, loc="lower right")


def _draw_gains(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import theory
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import sparse

    mean = numbers.MEANS[1]
    rates = numbers.rejected_gains(data)
    critical = float(theory.critical_spread(numbers.RATE, mean))
    dense = np.linspace(critical, 3.8, 100)
    law = sparse.gain_per_step(numbers.RATE, mean, dense)
    error = rates.std(1, ddof=1) / rates.shape[1] ** 0.5
    ax.errorbar(numbers.REJECTED, rates.mean(1), 2 * error, fmt="o", color=COLOURS[2], capsize=2)
    ax.plot(dense, law, color="black", lw=1, ls="--", label=r"$\mathrm{E}\,q(\eta s)$")
    ax.axvline(critical, color="0.3", lw=1, ls=":", label="$M_c$")
    ax.set(
        ylim=(0, None),
        xlabel="heterogeneity $M$",
        ylabel="gain per step",
        title="rejected, orthogonal input",
    )
    ax.legend(frameon=False)


def _draw_spreads(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    ends, constant = numbers.recovery(data, 0.0)
    with_mean, _ = numbers.recovery(data, numbers.MEANS[1])
    low, middle, high = np.nanquantile(ends, (0.25, 0.5, 0.75), axis=1)
    ax.fill_between(numbers.SPREADS, low, high, color=COLOURS[0], alpha=0.15, lw=0)
    for values, style, face, colour, label in (
        (with_mean, "s-", COLOURS[1], COLOURS[1], "mean 0.5, then pooled"),
        (constant, "o:", "white", COLOURS[0], "no mean, constant step"),
        (ends, "o-", COLOURS[0], COLOURS[0], "no mean, then pooled"),
    ):
        shown = middle if values is ends else np.nanmedian(values, axis=1)
        ax.plot(numbers.SPREADS, shown, style, color=colour, mfc=face, label=label)
    ax.set(
        ylim=(0, 3.1),
        xlabel="heterogeneity $M$ of one spurious input",
        ylabel=r"error $|\beta - \beta^\star|$ of the others",
        title="HeteroSGD on one design",
    )
    ax.legend(frameon=False, loc="upper left")

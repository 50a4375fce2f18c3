"""Spurious directions tilted towards the invariant ones cost accuracy and cause bursts.

A tilt by phi lets the spurious signal act on the invariant direction. At every step eta s_t phi u
is added to the component w of the learned direction outside U*, and w itself is multiplied by 1 +
eta (s_t - sigma*), as sigma* holds the invariant column (population gradients, one direction of
each kind). Such a process (Kesten 1973) has no floor but a heavy tail, P(|w| > x) ~ (phi/x)^theta
with E|1 + eta (s - sigma*)|^theta = 1. Most of the time the learned direction leans away from V by
about phi, and the error is proportional to phi. The share of time in bursts falls only like
phi^theta. For mu > sigma* (theta < 1) this is slower than the error, so that no tilt is small
enough to end the bursts. At a tilt of 0.03, under 2 degrees, some 5 to 15 % of the time are spent
more than 0.2 |A*| away. The law is one of small tilts: the exponents measured between 0.0003 and
0.01 lie up to 15 % below theta, as bursts of the size of the signals outlast the prediction of the
linear process. The noise of a finite batch feeds w in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import density_exponent
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._frames import late
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options
    from causal_sgd.studies._drawing import Line

RATE, LEVEL = 0.1, 1.0
BASE = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    basis="canonical",
    learning_rate=RATE,
    invariant_eigenvalue=LEVEL,
    init_scale=0.1,
    steps=8000,
    record_every=4,
    metrics=("invariant_error",),
)
NATURES = ((0.5, 6.0), (1.0, 6.0), (1.5, 7.0))  # mean and spread, beyond the transition
TILTS = np.array([0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3])
SMALL = slice(1, 5)  # the tilts at which the power laws are fitted
TINY = 1e-5  # so that the tail is a power over decades, still above the rounding of float32
WINDOW = 30.0, 3000.0  # of the tail, in units of TINY
BURST = 0.2  # of |A*|
AFTER = 0.2  # of the run: the transient
CLAIMS = (
    {
        "none": Claim("no tilt: median distance to A*", 0, 1e-3, "population gradients"),
    }
    | {
        f"median_{index}": Claim(
            f"mean {mean:g}, M = {spread:g}: exponent of the tilt in the median distance to A*",
            0.9,
            1.1,
            "linear response",
        )
        for index, (mean, spread) in enumerate(NATURES)
    }
    | {
        f"bursts_{index}": Claim(
            f"mean {mean:g}, M = {spread:g}: exponent of the tilt in the share of time in bursts "
            "over theta",
            0.75,
            1.1,
            "Kesten process",
        )
        for index, (mean, spread) in enumerate(NATURES)
    }
    # Three standard errors of 0.7 %, and the correction to the tail where the window begins, one in
    # WINDOW[0].
    | {
        f"tail_{index}": Claim(
            f"mean {mean:g}, M = {spread:g}, tilt {TINY:g}: exponent of the tail over theta",
            1 - 0.021 - 1 / WINDOW[0],
            1 + 0.021,
            "Kesten process",
        )
        for index, (mean, spread) in enumerate(NATURES)
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Long runs over the tilt for three spectra, 192 seeds (48 when quick), and at a tiny tilt 1536
    seeds (192), every fourth step recorded.
    """
    from causal_sgd.sweeps import sweep, zipped

    means, spreads = zip(*NATURES, strict=True)
    nature, cell = zipped(mean=means, spread=spreads), BASE.cell()
    options: Options = {"key": key, "progress": progress}
    return {
        name: sweep(
            cell, axes={"tilt": tilts, "nature": nature}, seeds=seeds, label=name, **options
        )
        for name, tilts, seeds in (
            ("tilt", TILTS, 48 if quick else 192),
            ("tiny tilt", [TINY], 192 if quick else 1536),
        )
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The exponents of the tilt in the median distance and in the share of bursts, and the tail."""
    errors = _errors(data)
    logs = np.log(TILTS[SMALL])
    values = {"none": float(errors.sel(tilt=0.0).median())}
    for index in range(len(NATURES)):
        part = errors.isel(nature=index)
        medians, shares = part.median(["seed", "step"]).values, _shares(part)
        values[f"median_{index}"] = np.polyfit(logs, np.log(medians[SMALL]), 1)[0]
        # Weighted as counts: rare bursts are few.
        slope = np.polyfit(logs, np.log(shares[SMALL]), 1, w=np.sqrt(shares[SMALL]))[0]
        values[f"bursts_{index}"] = slope / _theta(index)
        values[f"tail_{index}"] = _tail(data["tiny tilt"], index) / _theta(index)
    return values


def _tail(dataset: xr.Dataset, index: int) -> float:
    """The exponent of the tail of the component w + phi, positive as the noise that drives it.

    w + phi is multiplied by 1 + eta (s - sigma*), and eta sigma* phi is added. A burst of w has the
    distance sqrt(2) w to A*.
    """
    distance = late(dataset.invariant_error, AFTER).isel(nature=index).values / (2**0.5 * LEVEL)
    low, high = (TINY * end for end in WINDOW)
    return density_exponent(distance + TINY, low=low, high=high).exponent


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The drawn runs, the densities, and the median distance and the share of bursts."""
    errors = _errors(data)
    tilts = TILTS[1:]
    centres, densities = _densities(errors)
    tables = {
        "runs": errors.isel(nature=1, seed=0).sel(tilt=[0.1, 0.01]).to_dataset(name="distance"),
        "densities": points(
            {"tilt": tilts[:, None], "log10_distance": centres}, {"density": densities}
        ),
    }
    for index, (mean, spread) in enumerate(NATURES):
        part = errors.isel(nature=index)
        shares = _shares(part)[1:]
        numbers = {
            "median_distance": part.median(["seed", "step"]).values[1:],
            "share_of_bursts": shares,
            "theory_of_bursts": shares[1] * (tilts / tilts[1]) ** _theta(index),
        }
        tables[f"cost, mean {mean:g}, spread {spread:g}"] = points({"tilt": tilts}, numbers)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Bursts in one run, the distribution of the distance, and the median distance and the share of
    bursts against the tilt.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    errors = _errors(data)
    _draw_runs(axes[0], errors)
    _draw_densities(axes[1], errors)
    _draw_costs(axes[2], errors)
    return fig


def _draw_runs(ax: Axes, errors: xr.DataArray) -> None:
    from causal_sgd.figures import COLOURS

    for tilt, colour in ((0.1, COLOURS[1]), (0.01, COLOURS[0])):
        line = errors.sel(tilt=tilt).isel(nature=1, seed=0)
        ax.semilogy(line.step, line, color=colour, lw=0.6, label=f"tilt {tilt:g}")
    ax.axhline(BURST, color="0.3", ls=":", lw=1)
    ax.set(
        xlabel="step",
        ylabel=r"$\|UU^\top - A^\star\|_F$",
        title=r"bursts in one run, $\mu = 1$, $M = 6$",
    )
    ax.legend(frameon=False, loc="lower right")


def _draw_densities(ax: Axes, errors: xr.DataArray) -> None:
    import matplotlib as mpl

    centres, densities = _densities(errors)
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(TILTS) - 1))
    for tilt, density, colour in zip(TILTS[1:], densities, shades, strict=True):
        shown = np.where(density > 0, density, np.nan)
        ax.semilogy(centres, shown, color=colour, label=f"{tilt:g}")
    ends, theta = np.array([-2.6, -0.4]), _theta(1)
    tail = 2e-4 * 10 ** (-theta * (ends + 0.4))
    ax.semilogy(ends, tail, color="black", ls=(0, (4, 3)), lw=1)
    label = f"$|w|^{{-\\theta}}$, $\\theta = {theta:.2f}$"
    ax.annotate(label, (-1.9, 1.5e-3), fontsize=8, ha="right")
    ax.set(
        xlabel=r"$\log_{10}$ distance to $A^\star$",
        ylabel="density",
        title="heavy tails",
        ylim=(1e-4, 60),
    )
    ax.legend(
        frameon=False,
        title="tilt",
        ncols=3,
        loc="upper right",
        fontsize="x-small",
        title_fontsize="x-small",
    )


def _densities(errors: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """The densities of log10 of the distance, [tilt, bin], after the centres of the bins."""
    edges = np.linspace(-4, 1, 51)
    densities = [
        np.histogram(np.log10(errors.sel(tilt=tilt).isel(nature=1).values), edges, density=True)[0]
        for tilt in TILTS[1:]
    ]
    return (edges[1:] + edges[:-1]) / 2, np.array(densities)


def _draw_costs(ax: Axes, errors: xr.DataArray) -> None:
    from causal_sgd.figures import COLOURS

    tilts = TILTS[1:]
    dashed: Line = {"color": "black", "ls": (0, (4, 3)), "lw": 0.9}
    for index, ((mean, spread), marker) in enumerate(zip(NATURES, "osD", strict=True)):
        part, colour = errors.isel(nature=index), COLOURS[index]
        medians, shares = part.median(["seed", "step"]).values[1:], _shares(part)[1:]
        ax.loglog(tilts, medians, marker, color=colour, mfc="white", ls="-")
        ax.loglog(tilts, shares, marker, color=colour, label=f"$\\mu = {mean:g}$, $M = {spread:g}$")
        # The line meets the measured share at the second tilt.
        ax.loglog(tilts, shares[1] * (tilts / tilts[1]) ** _theta(index), **dashed)
    ax.plot([], [], "o-", mfc="white", color="0.4", label="median distance")
    ax.plot([], [], "o", color="0.4", label="share of time in bursts")
    ax.plot([], [], label=r"theory: $\varphi^{\,\theta}$", **dashed)
    ax.set(xlabel=r"tilt $\varphi$, radians", title="the cost of a tilt")
    ax.legend(frameon=False, fontsize="x-small")


def _errors(data: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """Distances to A* over |A*|, [tilt, nature, seed, step] after the transient."""
    return late(data["tilt"].invariant_error / LEVEL, AFTER)


def _shares(errors: xr.DataArray) -> np.ndarray:
    """The share of time in bursts, for each tilt."""
    return (errors > BURST).mean(["seed", "step"]).values


def _theta(index: int) -> float:
    """The tail exponent of the component outside U*, which sigma* damps."""
    from causal_sgd import theory

    mean, spread = NATURES[index]
    return float(theory.tail_exponent(RATE, np.array([mean + spread, mean - spread]) - LEVEL))

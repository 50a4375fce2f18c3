"""Three eigenvalue laws and four step sizes collapse on one line: the Lyapunov exponent decides.

At one step size two-point, uniform and normal eigenvalues lose the spurious direction at spreads
that differ by a factor of up to two, and of up to four over all step sizes. In terms of the
exponent lambda = E log|1 + eta s| they all lose it at one place, lambda = 0: the order parameter
<u^2>, extrapolated to zero, gives the predicted critical spread within 2 % in all twelve cases.
Uniform and normal eigenvalues are redrawn at every step, so that their spectra are not those of
finitely many environments. The transition collapses, not the whole order parameter: <u^2> equals
lambda / eta, the line in the figure, only for small steps, and falls below it by a quarter near the
transition at eta mu = 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import averaged
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _experiments

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._drawing import Symbols

BASE = _experiments.TWO_SCALARS.replace(init_scale=0.1, steps=20_000, record_every=20)
EXPERIMENTS = {
    "two-point": BASE,
    "uniform": BASE.replace(family="uniform", num_environments=1, evolution="redraw"),
    "gaussian": BASE.replace(family="gaussian", num_environments=1, evolution="redraw"),
}
RATES = (0.02, 0.035, 0.06, 0.1)
BELOW = np.array([0.8, 0.85, 0.9, 0.95])  # of M_c, where the order parameter is linear in M^2
SHOWN = np.array([0.3, 0.5, 0.65, 1.0, 1.1])  # of M_c, for the figure only
MARKERS = "osD^"
CLAIMS = {
    f"{family}_{index}": Claim(
        f"{family}, learning rate {rate:g}: measured critical spread over that of lambda = 0",
        0.98,
        1.02,
        "Lyapunov exponent",
    )
    for family in EXPERIMENTS
    for index, rate in enumerate(RATES)
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Time averages of |V'U|^2 for every family, with 200 seeds below the transition and 50
    elsewhere (40 and 16 when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    data = {}
    for family, experiment in EXPERIMENTS.items():
        cell = averaged(experiment.cell())
        for part, shares, seeds in (
            ("below", BELOW, 40 if quick else 200),
            ("shown", SHOWN, 16 if quick else 50),
        ):
            rates = np.repeat(RATES, len(shares))
            spreads = np.tile(shares, len(RATES)) * _critical(family, rates)
            data[f"{family}_{part}"] = sweep(
                cell,
                axes={"point": zipped(learning_rate=rates, spread=spreads)},
                seeds=seeds,
                key=key,
                progress=progress,
                label=f"{family}, {part}",
            )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The measured over the predicted critical spreads."""
    return {name: bounds[0] for name, bounds in _ratios(data).items()}


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The exponents of all points, and the critical spreads over those of zero exponent."""
    from causal_sgd import theory

    exponents = {}
    for name, dataset in data.items():
        family = name.rpartition("_")[0].replace("-", "_")
        rates, spreads = (dataset[part].values for part in ("learning_rate", "spread"))
        values = theory.lyapunov(family, rates, BASE.mean, spreads)
        exponents[f"{name}, theory"] = points(
            {"learning_rate": rates, "spread": spreads}, {"exponent": values}
        )
    ratios = np.array(list(_ratios(data).values())).T
    settings = {
        "family": np.repeat(list(EXPERIMENTS), len(RATES)),
        "learning_rate": np.tile(RATES, len(EXPERIMENTS)),
    }
    names = ("measured_over_predicted", "low", "high")
    return exponents | {"critical spread": points(settings, dict(zip(names, ratios, strict=True)))}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The order parameter against the spread and against the exponent, and the ratios of measured
    to predicted critical spreads with their intervals.
    """
    from matplotlib import pyplot as plt

    from causal_sgd.figures import COLOURS

    fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.3))
    _draw_order_parameters(axes[0], axes[1], data)
    _draw_ratios(axes[2], data)
    for colour, family in zip(COLOURS, EXPERIMENTS, strict=False):
        axes[0].plot([], [], color=colour, label=family)
    for marker, rate in zip(MARKERS, RATES, strict=True):
        label = f"$\\eta = {rate:g}$"
        axes[0].plot([], [], marker, color="0.4", mfc="white", ms=3.5, label=label)
    axes[1].legend(frameon=False, loc="upper left")
    handles = axes[0].get_legend_handles_labels()
    fig.legend(*handles, frameon=False, ncols=7, loc="outside lower center")
    return fig


def _draw_order_parameters(left: Axes, right: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import theory
    from causal_sgd.figures import COLOURS

    mean = BASE.mean
    for colour, family in zip(COLOURS, EXPERIMENTS, strict=False):
        for marker, rate in zip(MARKERS, RATES, strict=True):
            parts = [final(data[f"{family}_{part}"]) for part in ("below", "shown")]
            parts = [part.isel(point=part.learning_rate == rate) for part in parts]
            spread = np.concatenate([part.spread for part in parts])
            power = np.concatenate(
                [part.spurious_power.where(part.diverged_at < 0).mean("seed") for part in parts]
            )
            exponent = np.asarray(theory.lyapunov(family.replace("-", "_"), rate, mean, spread))
            order = np.argsort(spread)
            symbols: Symbols = {"color": colour, "marker": marker, "ms": 3.5}
            symbols |= {"mfc": "white", "mew": 0.9}
            left.plot(spread[order], power[order] / mean, linewidth=0.8, **symbols)
            right.plot(exponent / (rate * mean), power / mean, linestyle="", **symbols)
    line = "$\\lambda / \\eta$"
    right.plot([-0.25, 0, 1], [0, 0, 1], color="0.3", linewidth=1, zorder=0, label=line)
    left.set(
        xlabel="heterogeneity $M$",
        ylabel="mean $|V^\\top U|^2 / \\mu$",
        xscale="log",
        title="against the spread",
    )
    left.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    left.minorticks_off()
    right.set(
        xlabel="$\\lambda / (\\eta \\mu)$",
        xlim=(-0.25, 1),
        ylim=(-0.03, 1),
        title="against the exponent",
    )


def _draw_ratios(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    count = len(RATES)
    for index, (value, low, high) in enumerate(_ratios(data).values()):
        colour, marker = COLOURS[index // count], MARKERS[index % count]
        ax.plot([low, high], [index, index], linewidth=1.4, color=colour)
        ax.plot([value], [index], marker, color=colour, markersize=4.5, mfc="white")
    ax.axvspan(0.98, 1.02, color="0.93", zorder=0)
    ax.axvline(1, color="0.3", linewidth=1)
    middles = [count * index + (count - 1) / 2 for index in range(len(EXPERIMENTS))]
    ax.set_yticks(middles, list(EXPERIMENTS))
    ax.invert_yaxis()
    ax.set(xlabel="measured $M_c$ over that of $\\lambda = 0$", title="extrapolated to zero")


def _critical(family: str, rates: ArrayLike) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.critical_spread(rates, BASE.mean, family.replace("-", "_")), float)


def _ratios(data: Mapping[str, xr.Dataset]) -> dict[str, tuple[float, ...]]:
    """Measured over predicted critical spreads and their bootstrap intervals, by claim."""
    from causal_sgd.analysis import order_parameter_boundary

    ratios = {}
    for family in EXPERIMENTS:
        dataset = data[f"{family}_below"]
        for index, rate in enumerate(RATES):
            part = dataset.isel(point=dataset.learning_rate == rate)
            part = part.assign_coords(point=part.spread.values).drop_vars("spread")
            bounds = order_parameter_boundary(part.rename(point="spread"), resamples=199)
            predicted = float(_critical(family, rate))
            ratios[f"{family}_{index}"] = tuple(bound / predicted for bound in bounds)
    return ratios

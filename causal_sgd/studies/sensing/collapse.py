"""Three distributions of the spurious eigenvalue and four step sizes collapse on one line: the Lyapunov exponent decides.

Two-point, uniform and normal eigenvalues lose the spurious direction at spreads that differ by a factor of up to two at one
step size, and of four over all. Against the exponent lambda = E log|1 + eta s| they do so at one place, lambda = 0: the
order parameter <u^2>, extrapolated to zero, gives the critical spread of the theory within 2 % in all twelve cases. Uniform
and normal eigenvalues are drawn anew at every step, so that their spectra are not those of finitely many environments.
The collapse is one of the transition and not of the whole order parameter: <u^2> is lambda / eta, the line in the figure, only
for small steps, and falls below it by a quarter near the transition at eta mu = 0.1.
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
    init_scale=0.1, steps=20_000, record_every=20, metrics=("spurious_power",),
)  # fmt: skip
EXPERIMENTS = {
    "two-point": BASE,
    "uniform": BASE.replace(family="uniform", num_environments=1, evolution="redraw"),
    "gaussian": BASE.replace(family="gaussian", num_environments=1, evolution="redraw"),
}
RATES = (0.02, 0.035, 0.06, 0.1)
BELOW = np.array(
    [0.8, 0.85, 0.9, 0.95]
)  # of the critical spread, where the order parameter is linear in M^2
SHOWN = np.array([0.3, 0.5, 0.65, 1.0, 1.1])  # and where the figure shows it too
CLAIMS = {
    f"{family}_{index}": Claim(
        f"{family}, learning rate {rate:g}: measured critical spread over that of lambda = 0", 0.98, 1.02, "Lyapunov exponent"
    )
    for family in EXPERIMENTS
    for index, rate in enumerate(RATES)
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Time averages of |V'U|^2 for every family, 200 seeds below the transition and 50 elsewhere (40 and 16 when quick)."""
    from causal_sgd.sweeps import sweep, zipped

    data = {}
    for family, experiment in EXPERIMENTS.items():
        cell = _averaged(experiment)
        for part, shares, seeds in (
            ("below", BELOW, 40 if quick else 200),
            ("shown", SHOWN, 16 if quick else 50),
        ):
            rates = np.repeat(RATES, len(shares))
            points = zipped(
                learning_rate=rates, spread=np.tile(shares, len(RATES)) * _critical(family, rates)
            )
            data[f"{family}_{part}"] = sweep(
                cell,
                axes={"point": points},
                seeds=seeds,
                key=key,
                progress=progress,
                label=f"{family}, {part}",
            )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The measured critical spreads over the theory's."""
    return {name: bounds[0] for name, bounds in _ratios(data).items()}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The order parameter against the spread, against the exponent, and the ratios with their intervals."""
    from matplotlib import pyplot as plt

    from causal_sgd import theory
    from causal_sgd.figures._theme import COLOURS

    drawing, (left, middle, right) = plt.subplots(1, 3, figsize=(10.2, 3.3))
    for colour, family in zip(COLOURS, EXPERIMENTS, strict=False):
        for marker, rate in zip("osD^", RATES, strict=True):
            parts = [final(data[f"{family}_{part}"]) for part in ("below", "shown")]
            parts = [part.isel(point=part.learning_rate == rate) for part in parts]
            spread = np.concatenate([part.spread for part in parts])
            power = np.concatenate(
                [part.spurious_power.where(part.diverged_at < 0).mean("seed") for part in parts]
            )
            exponent = np.asarray(
                theory.lyapunov(family.replace("-", "_"), rate, BASE.mean, spread)
            )
            order = np.argsort(spread)
            look: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "markersize": 3.5,
                "mfc": "white",
                "markeredgewidth": 0.9,
            }
            left.plot(spread[order], power[order] / BASE.mean, linewidth=0.8, **look)
            middle.plot(exponent / (rate * BASE.mean), power / BASE.mean, linestyle="", **look)
    middle.plot(
        [-0.25, 0, 1], [0, 0, 1], color="0.3", linewidth=1, zorder=0, label="$\\lambda / \\eta$"
    )
    for index, (value, low, high) in enumerate(_ratios(data).values()):
        colour, marker = COLOURS[index // len(RATES)], "osD^"[index % len(RATES)]
        right.plot([low, high], [index, index], color=colour, linewidth=1.4)
        right.plot(
            [value], [index], color=colour, marker=marker, markersize=4.5, mfc="white", linestyle=""
        )
    right.axvspan(0.98, 1.02, color="0.93", zorder=0)
    right.axvline(1, color="0.3", linewidth=1)
    places = [len(RATES) * index + (len(RATES) - 1) / 2 for index in range(len(EXPERIMENTS))]
    right.set_yticks(places, list(EXPERIMENTS))
    right.invert_yaxis()
    left.set(
        xlabel="heterogeneity $M$",
        ylabel="mean $|V^\\top U|^2 / \\mu$",
        xscale="log",
        title="against the spread",
    )
    left.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    left.minorticks_off()
    middle.set(
        xlabel="$\\lambda / (\\eta \\mu)$",
        xlim=(-0.25, 1),
        ylim=(-0.03, 1),
        title="against the exponent",
    )
    right.set(xlabel="measured $M_c$ over that of $\\lambda = 0$", title="extrapolated to zero")
    for colour, family in zip(COLOURS, EXPERIMENTS, strict=False):
        left.plot([], [], color=colour, label=family)
    for marker, rate in zip("osD^", RATES, strict=True):
        left.plot(
            [],
            [],
            color="0.4",
            marker=marker,
            mfc="white",
            linestyle="",
            markersize=3.5,
            label=f"$\\eta = {rate:g}$",
        )
    middle.legend(frameon=False, loc="upper left")
    drawing.legend(
        *left.get_legend_handles_labels(), frameon=False, ncols=7, loc="outside lower center"
    )
    return drawing


def _averaged(experiment: Experiment) -> Any:
    """The experiment as a cell of two numbers that records the time average."""
    base = experiment.cell()

    def cell(key: Any, *, spread: Any, learning_rate: Any) -> Any:
        from causal_sgd.training import time_average

        return time_average(base(key, spread=spread, learning_rate=learning_rate), after=0.2)

    return cell


def _critical(family: str, rates: Any) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.critical_spread(rates, BASE.mean, family.replace("-", "_")), float)


def _ratios(data: Mapping[str, xr.Dataset]) -> dict[str, tuple[float, ...]]:
    """Measured over predicted critical spreads with their bootstrap intervals, by the names of the claims."""
    from causal_sgd.analysis import order_parameter_boundary

    found = {}
    for family in EXPERIMENTS:
        dataset = data[f"{family}_below"]
        for index, rate in enumerate(RATES):
            part = dataset.isel(point=dataset.learning_rate == rate)
            part = (
                part.assign_coords(point=part.spread.values)
                .drop_vars("spread")
                .rename(point="spread")
            )
            bounds = order_parameter_boundary(part, resamples=199)
            found[f"{family}_{index}"] = tuple(
                bound / float(_critical(family, rate)) for bound in bounds
            )
    return found

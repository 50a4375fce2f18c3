"""Heterogeneity separates the methods only where the spurious mean is positive and signs change.

PooledSGD learns a spurious direction iff its mean eigenvalue mu is positive. For mu <= 0 it rejects
the direction as HeteroSGD does, with the same error, and heterogeneity gains nothing. HeteroSGD
rejects it up to mu_c = (sqrt(1 + (eta M)^2) - 1) / eta, so that the methods differ for 0 < mu <
mu_c. Since mu_c < M at every learning rate, they never differ where all environments agree in sign,
mu > M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final, summary
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged, both_methods
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _experiments
from causal_sgd.studies.sensing._predictions import second_order_floor

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RATE, SPREAD = 0.1, 6.0
BASE = Experiment(
    dim=10,
    invariant_rank=2,
    spurious_rank=1,
    learning_rate=RATE,
    spread=SPREAD,
    batch_size=4000,
    steps=1500,
    metrics=("spurious_signal", "invariant_error"),
)
MEANS = np.arange(-2, 3.25, 0.25)
POPULATION = _experiments.TWO_SCALARS.replace(
    learning_rate=RATE,
    spread=SPREAD,
    init_scale=0.3,
    batch_size=2**20,
    steps=10_000,
    record_every=20,
)
# Multiples of the critical mean at which the order parameter is linear.
BEYOND = np.array([1.05, 1.1, 1.15, 1.2])
POOLED_MEANS = np.array([0.1, 0.2, 0.3, 0.4])
CRITICAL = (np.sqrt(1 + (RATE * SPREAD) ** 2) - 1) / RATE
CLAIMS = {
    "hetero": Claim(
        "HeteroSGD: measured over predicted critical mean", 0.98, 1.02, "Lyapunov exponent"
    ),
    "pooled": Claim("PooledSGD: measured critical mean", -0.03, 0.03, "the mean alone decides"),
    "level": Claim(
        "PooledSGD, mean 1, batch 4000: spurious signal over sqrt(mean)",
        0.95,
        1.05,
        "Xu, Gu, Fang 2024 (qualitative; the interval is ours)",
    ),
    "negative": Claim(
        "mean <= -0.5: largest median spurious signal of PooledSGD",
        0,
        0.1,
        "a negative mean is rejected",
    ),
    "gain": Claim(
        "mean <= -0.5: error of PooledSGD over that of HeteroSGD, median over the means",
        0.9,
        1.1,
        "no gain from heterogeneity",
    ),
    # Three standard errors of the median of 64 errors of 16 normal numbers are 9 %; the spurious
    # row among the ten may add 1/d to the error of HeteroSGD.
    "between": Claim(
        "mean 0.5 and 1: error of PooledSGD over that of HeteroSGD, over the ratio of |mean A_e| "
        "with its floor and the floor, farthest from 1",
        0.82,
        1.09,
        "error floor of second order",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Both methods at batch 4000 over the mean with 64 seeds (16 when quick), and their order
    parameters: 400 seeds (100) for HeteroSGD, 8 for PooledSGD.
    """
    from causal_sgd.sweeps import compare, sweep

    options: Options = {"key": key, "progress": progress}
    cells = both_methods(POPULATION)
    return {
        "means": compare(
            both_methods(BASE), axes={"mean": MEANS}, seeds=16 if quick else 64, **options
        ),
        "hetero": sweep(
            averaged(cells["HeteroSGD"]),
            axes={"mean": BEYOND * CRITICAL},
            seeds=100 if quick else 400,
            label="order parameter, HeteroSGD",
            **options,
        ),
        "pooled": sweep(
            averaged(cells["PooledSGD"]),
            axes={"mean": POOLED_MEANS},
            seeds=8,
            label="order parameter, PooledSGD",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The critical means of both methods, and medians of what they learn at batch 4000."""
    runs = final(data["means"])
    signal, error = (
        summary(runs, metric)["median"] for metric in ("spurious_signal", "invariant_error")
    )
    pooled = signal.sel(variant="PooledSGD")
    ratio = error.sel(variant="PooledSGD") / error.sel(variant="HeteroSGD")
    negative = slice(None, -0.5)
    return {
        "hetero": _root(data["hetero"])[0] / CRITICAL,
        "pooled": _root(data["pooled"])[0],
        "level": float(pooled.sel(mean=1.0)),
        "negative": float(pooled.sel(mean=negative).max()),
        "gain": float(ratio.sel(mean=negative).median()),
        "between": farthest_from_one(
            np.array([float(ratio.sel(mean=mean)) / _gain(mean) for mean in (0.5, 1.0)])
        ),
    }


def _gain(mean: float) -> float:
    """The predicted error of PooledSGD over that of HeteroSGD, at a positive mean."""
    ranks = BASE.invariant_rank, BASE.invariant_rank + BASE.spurious_rank
    hetero, pooled = (
        float(second_order_floor(BASE, spread, learned=learned, rows=BASE.dim - learned))
        for spread, learned in zip((np.hypot(SPREAD, mean), SPREAD), ranks, strict=True)
    )
    return float(np.hypot(mean, pooled)) / hetero


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The lines fitted to the order parameters, the critical means, and the level of PooledSGD."""
    lines = np.array([_root(data[name]) for name in ("hetero", "pooled")])
    return {
        "critical mean": points(
            {"variant": ["HeteroSGD", "PooledSGD"]},
            {"measured": lines[:, 0], "slope": lines[:, 1], "theory": [CRITICAL, 0.0]},
        ),
        "theory": points({"mean": MEANS}, {"spurious_signal": np.sqrt(np.maximum(MEANS, 0))}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Spurious signal and distance to A* against the mean, and the order parameters of both
    methods.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.6))
    marks = {r"$\mu = 0$": 0.0, r"$\mu_c$": CRITICAL}
    level = {r"$\sqrt{\mu}$": lambda mean: np.sqrt(np.maximum(mean, 0))}
    for ax, metric in zip(axes, ("spurious_signal", "invariant_error"), strict=False):
        figures.final_value(
            ax,
            data["means"],
            metric,
            along="mean",
            over="variant",
            mark=marks,
            theory=level if metric == "spurious_signal" else None,
        )
        ax.axvspan(0, CRITICAL, color="0.5", alpha=0.12, lw=0, zorder=0)
    _draw_order_parameters(axes[2], data)
    for mean in marks.values():
        axes[2].axvline(mean, color="0.3", linestyle=(0, (6, 2, 1, 2)), linewidth=1)
    return fig


def _draw_order_parameters(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    for name, label, marker in (("hetero", "HeteroSGD", "o"), ("pooled", "PooledSGD", "s")):
        power = final(data[name]).spurious_power.mean("seed")
        root, slope = _root(data[name])
        (points,) = ax.plot(power["mean"], power, marker, label=label)
        last = power["mean"][-1]
        ax.plot([root, last], [0, slope * (last - root)], color=points.get_color(), lw=0.9)
    ax.set(xlabel=r"spurious mean $\mu$", ylabel=r"mean $|V^\top U|^2$", ylim=(0, None))
    ax.set_title("order parameter, population")
    ax.legend(frameon=False)


def _root(dataset: xr.Dataset) -> tuple[float, float]:
    """Root and slope of the line fitted to the order parameter, which rises with the mean."""
    power = final(dataset).spurious_power.mean("seed")
    slope, intercept = np.polyfit(power["mean"].values, power.values, 1)
    return -intercept / slope, slope

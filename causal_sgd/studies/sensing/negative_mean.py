"""Heterogeneity separates the methods only where the spurious mean is positive and the signs change.

PooledSGD learns a spurious direction iff its mean eigenvalue mu is positive: for mu <= 0 it rejects it as HeteroSGD does, with the
same error, and nothing is gained. HeteroSGD rejects it up to mu_c = (sqrt(1 + (eta M)^2) - 1)/eta, so that the two differ
for 0 < mu < mu_c. Since mu_c < M at every learning rate, they never differ where all environments agree in sign, mu > M.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.analysis import final, summary
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

RATE, SPREAD = 0.1, 6.0
BASE = Experiment(
    dim=10, invariant_rank=2, spurious_rank=1, learning_rate=RATE, spread=SPREAD, batch_size=4000, steps=1500,
    metrics=("spurious_signal", "invariant_error"),
)  # fmt: skip
MEANS = np.arange(-2, 3.25, 0.25)
POPULATION = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
    learning_rate=RATE, spread=SPREAD, init_scale=0.3, batch_size=2**20, steps=10_000, record_every=20,
    metrics=("spurious_power",),
)  # fmt: skip
BEYOND = np.array(
    [1.05, 1.1, 1.15, 1.2]
)  # of the critical mean, where the order parameter is linear
POOLED_MEANS = np.array([0.1, 0.2, 0.3, 0.4])
CRITICAL = (np.sqrt(1 + (RATE * SPREAD) ** 2) - 1) / RATE
CLAIMS = {
    "hetero": Claim("HeteroSGD: measured critical mean over theory", 0.95, 1.05, "Lyapunov exponent"),
    "pooled": Claim("PooledSGD: measured critical mean", -0.03, 0.03, "the mean alone decides"),
    "level": Claim("PooledSGD, mean 1, batch 4000: spurious signal over sqrt(mean)", 0.95, 1.05, "Xu, Gu, Fang 2024"),
    "negative": Claim("mean <= -0.5: largest median spurious signal of PooledSGD", 0, 0.1, "consequence 2 of the theory"),
    "gain": Claim(
        "mean <= -0.5: error of PooledSGD over that of HeteroSGD, middle of the means", 0.9, 1.1, "nothing is gained"
    ),
    "between": Claim("mean 0.5 and 1: least ratio of the errors", 2, np.inf, "Xu, Gu, Fang 2024"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Both methods at batch 4000 over the mean, 64 seeds (16 when quick), and their order parameters, 400 (100) and 8."""
    from causal_sgd.sweeps import compare, sweep
    from causal_sgd.training import time_average

    def averaged(experiment: Experiment) -> Any:
        base = experiment.cell()

        def cell(key: Any, *, mean: Any) -> Any:
            return time_average(base(key, mean=mean), after=0.2)

        return cell

    options: dict[str, Any] = {"key": key, "progress": progress}
    cells = {"HeteroSGD": BASE.cell(), "PooledSGD": BASE.replace(sampler="pooled").cell()}
    return {
        "means": compare(cells, axes={"mean": MEANS}, seeds=16 if quick else 64, **options),
        "hetero": sweep(
            averaged(POPULATION), axes={"mean": BEYOND * CRITICAL}, seeds=100 if quick else 400,
            label="order parameter, HeteroSGD", **options,
        ),
        "pooled": sweep(
            averaged(POPULATION.replace(sampler="pooled")), axes={"mean": POOLED_MEANS}, seeds=8,
            label="order parameter, PooledSGD", **options,
        ),
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The critical means of both methods, and what they learn at batch 4000, in medians over seeds."""
    runs = final(data["means"])
    signal, error = (
        summary(runs, metric)["median"] for metric in ("spurious_signal", "invariant_error")
    )
    pooled = signal.sel(variant="PooledSGD")
    ratio = error.sel(variant="PooledSGD") / error.sel(variant="HeteroSGD")
    negative = slice(None, -0.5)
    return {
        "hetero": _line(data["hetero"])[0] / CRITICAL,
        "pooled": _line(data["pooled"])[0],
        "level": float(pooled.sel(mean=1.0)),
        "negative": float(pooled.sel(mean=negative).max()),
        "gain": float(ratio.sel(mean=negative).median()),
        "between": float(ratio.sel(mean=[0.5, 1.0]).min()),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Spurious signal and distance to A* over the mean, and both order parameters."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    drawing, axes = plt.subplots(1, 3, figsize=(10.5, 3.6))
    mark = {r"$\mu = 0$": 0.0, r"$\mu_c$": CRITICAL}
    level = {r"$\sqrt{\mu}$": lambda mean: np.sqrt(np.maximum(mean, 0))}
    for panel, metric in zip(axes, ("spurious_signal", "invariant_error"), strict=False):
        figures.final_value(
            panel, data["means"], metric, along="mean", over="variant", mark=mark,
            theory=level if metric == "spurious_signal" else None,
        )  # fmt: skip
        panel.axvspan(0, CRITICAL, color="0.5", alpha=0.12, lw=0, zorder=0)
    for name, label, marker in (("hetero", "HeteroSGD", "o"), ("pooled", "PooledSGD", "s")):
        part = final(data[name]).spurious_power.mean("seed")
        root, slope = _line(data[name])
        (points,) = axes[2].plot(part["mean"], part, marker, label=label)
        axes[2].plot(
            [root, part["mean"][-1]],
            [0, slope * (part["mean"][-1] - root)],
            color=points.get_color(),
            lw=0.9,
        )
    for place in mark.values():
        axes[2].axvline(place, color="0.3", linestyle=(0, (6, 2, 1, 2)), linewidth=1)
    axes[2].set(xlabel=r"spurious mean $\mu$", ylabel=r"mean $|V^\top U|^2$", ylim=(0, None))
    axes[2].set_title("order parameter, population")
    axes[2].legend(frameon=False)
    return drawing


def _line(dataset: xr.Dataset) -> tuple[float, float]:
    """Where a line through the mean order parameter, which rises with the mean, is zero, and its slope."""
    part = final(dataset).spurious_power.mean("seed")
    slope, start = np.polyfit(part["mean"].values, part.values, 1)
    return -start / slope, slope

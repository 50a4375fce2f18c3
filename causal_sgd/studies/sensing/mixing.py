"""A batch that mixes k environments follows their mean: the critical heterogeneity grows like sqrt(k), from Hetero to Pooled.

With k environments drawn for every batch the spurious eigenvalue of a step is the mean of k, of variance M^2/k, so that k = 1
is HeteroSGD and large k is PooledSGD. For small steps only the variance counts: M_c(k) = sqrt(k) M_c(1). The exact boundary,
where the mean of log|1 + eta s| over the binomial distribution of the signs is zero, lies within 2 % of that law at
eta mu = 0.02, and the measured one follows it. No amount of mixing removes the transition, it only moves it; but the batches
that mix many environments need a heterogeneity that comes close to the bound on divergence.
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

RATE, MEAN = 0.02, 1.0
BASE = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
    learning_rate=RATE, mean=MEAN, init_scale=0.3, batch_size=240, steps=20_000, record_every=40,
    metrics=("spurious_power",),
)  # fmt: skip
MIXTURES = (1, 2, 4, 8, 16)
BELOW = np.array(
    [0.75, 0.8, 0.85, 0.9]
)  # of the exact boundary, where the order parameter is linear
SPREADS = np.arange(0, 44, 4.0)
CLAIMS = {
    f"boundary_{k}": Claim(f"k = {k}: measured boundary over the exact one", 0.97, 1.03, "binomial Lyapunov exponent")
    for k in MIXTURES
} | {
    "power": Claim("power of k with which the measured boundary grows", 0.47, 0.52, "M_c ~ sqrt(k)"),
    "pooled": Claim("PooledSGD, every M: least mean |V'U|^2 over mu", 0.97, 1.03, "no heterogeneity is left"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Order parameters of 128 seeds (32 when quick) below each boundary, and of 8 over all spreads, with PooledSGD."""
    from causal_sgd.sweeps import compare, sweep

    options: dict[str, Any] = {"key": key, "progress": progress}
    cells = {
        f"{k}": _averaged(BASE.replace(sampler="mixed", environments_per_batch=k)) for k in MIXTURES
    }
    data = {
        f"mixed_{k}": sweep(
            cell,
            axes={"spread": BELOW * exact},
            seeds=32 if quick else 128,
            label=f"mixing {k} environments",
            **options,
        )
        for (k, cell), exact in zip(cells.items(), _exact(MIXTURES), strict=True)
    }
    cells["pooled"] = _averaged(BASE.replace(sampler="stratified"))
    data["all"] = compare(cells, axes={"spread": SPREADS}, seeds=8, **options)
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundaries against the exact curve and the law of the square root, and what PooledSGD learns."""
    boundaries = np.array([bound.value for bound in _boundaries(data)])
    exact = _exact(MIXTURES)
    pooled = final(data["all"]).spurious_power.sel(variant="pooled").mean("seed") / MEAN
    return {
        f"boundary_{k}": boundaries[index] / exact[index] for index, k in enumerate(MIXTURES)
    } | {
        "power": np.polyfit(np.log(MIXTURES), np.log(boundaries), 1)[0],
        "pooled": float(pooled.min()),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The order parameter over the heterogeneity for each k, and the boundary over k."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    drawing, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6))
    exact = _exact(MIXTURES)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(MIXTURES)))
    means = (final(data["all"]).spurious_power.where(data["all"].diverged_at < 0) / MEAN).mean(
        "seed"
    )
    for k, critical, colour in zip(MIXTURES, exact, colours, strict=True):
        curve = means.sel(variant=str(k))
        near = final(data[f"mixed_{k}"]).spurious_power.mean("seed") / MEAN
        spreads = np.append(SPREADS[critical * 0.8 > SPREADS], near.spread.values)
        left.plot(
            spreads, np.append(curve.values[critical * 0.8 > SPREADS], near), "o-", color=colour
        )
        end = (near.spread.values[-1], near.values[-1])
        left.annotate(
            f"$k = {k}$", end, (0, -11), textcoords="offset points", ha="center", color=colour
        )
        left.plot([critical], [0], "|", color=colour, ms=12, mew=2, clip_on=False)
    left.plot(SPREADS, means.sel(variant="pooled"), "--", color="black", label="PooledSGD")
    left.set(xlabel="heterogeneity $M$", ylabel=r"mean $|V^\top U|^2 / \mu$", ylim=(0, None))
    left.set_title(r"from HeteroSGD to PooledSGD; bars: theory")
    left.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.82))

    dense = np.arange(1, 21)
    right.loglog(dense, _exact(dense), color="black", lw=1.1, label="exact: binomial exponent")
    right.loglog(
        dense, np.sqrt(dense) * exact[0], color="0.5", ls=(0, (4, 3)), label=r"$\sqrt{k}\,M_c$"
    )
    bounds = _boundaries(data)
    low, high = ([abs(end - bound.value) for bound, end in zip(bounds, ends, strict=True)]
                 for ends in ([b.low for b in bounds], [b.high for b in bounds]))  # fmt: skip
    right.errorbar(
        MIXTURES,
        [b.value for b in bounds],
        (low, high),
        fmt="o",
        color="#0072B2",
        label="measured",
        capsize=2,
    )
    right.set_xticks(MIXTURES, [str(k) for k in MIXTURES])
    right.set_yticks([10, 20, 40], ["10", "20", "40"])
    right.minorticks_off()
    right.set(xlabel="environments in a batch, $k$", ylabel="critical heterogeneity $M_c$")
    right.legend(frameon=False)
    return drawing


def _averaged(experiment: Experiment) -> Any:
    from causal_sgd.training import time_average

    base = experiment.cell()

    def cell(key: Any, *, spread: Any) -> Any:
        return time_average(base(key, spread=spread), after=0.2)

    return cell


def _exact(mixtures: Any) -> np.ndarray:
    """The exact critical spread of each k."""
    from causal_sgd import theory

    return np.array([float(theory.mixing_critical_spread(RATE, MEAN, int(k))) for k in mixtures])


def _boundaries(data: Mapping[str, xr.Dataset]) -> list[Any]:
    from causal_sgd.analysis import order_parameter_boundary

    return [order_parameter_boundary(data[f"mixed_{k}"]) for k in MIXTURES]

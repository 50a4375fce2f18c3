"""Mixing k environments in a batch averages them: the critical heterogeneity grows like sqrt(k).

With k environments drawn for every batch, the spurious eigenvalue of a step is the mean of k, of
variance M^2 / k: k = 1 is HeteroSGD and large k is PooledSGD. For small steps only the variance
matters: M_c(k) = sqrt(k) M_c(1). The exact boundary, where the mean of log|1 + eta s| over the
binomial distribution of the signs vanishes, lies within 2 % of that law at eta mu = 0.02, and the
measured boundary follows it. No amount of mixing removes the transition; it only moves it. But
batches of many environments need a heterogeneity close to the bound on divergence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged
from causal_sgd.studies._tables import intervals, points
from causal_sgd.studies.sensing import _experiments

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.analysis import Boundary

RATE, MEAN = 0.02, 1.0
BASE = _experiments.TWO_SCALARS.replace(
    learning_rate=RATE, mean=MEAN, init_scale=0.3, batch_size=240, steps=20_000, record_every=40
)
MIXTURES = (1, 2, 4, 8, 16)
# Shares of the exact boundary at which the order parameter is linear in M^2.
BELOW = np.array([0.75, 0.8, 0.85, 0.9])
SPREADS = np.arange(0, 44, 4.0)
CLAIMS = {
    f"boundary_{k}": Claim(
        f"k = {k}: measured over exact boundary", 0.97, 1.03, "binomial Lyapunov exponent"
    )
    for k in MIXTURES
} | {
    "power": Claim(
        "exponent of k with which the measured boundary grows", 0.47, 0.52, "M_c ~ sqrt(k)"
    ),
    "pooled": Claim(
        "PooledSGD: smallest mean |V'U|^2 over mu at any M", 0.97, 1.03, "no heterogeneity remains"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Order parameters of 128 seeds (32 when quick) below each boundary, and of 8 seeds at all
    spreads, PooledSGD included.
    """
    from causal_sgd.sweeps import compare, sweep

    options: Options = {"key": key, "progress": progress}
    cells = {
        f"{k}": averaged(BASE.replace(sampler="mixed", environments_per_batch=k).cell())
        for k in MIXTURES
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
    cells["pooled"] = averaged(BASE.replace(sampler="stratified").cell())
    data["all"] = compare(cells, axes={"spread": SPREADS}, seeds=8, **options)
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundaries against the exact curve and the square root, and what PooledSGD learns."""
    boundaries = np.array([bound.value for bound in _boundaries(data)])
    exact = _exact(MIXTURES)
    pooled = final(data["all"]).spurious_power.sel(variant="pooled").mean("seed") / MEAN
    return {
        f"boundary_{k}": boundaries[index] / exact[index] for index, k in enumerate(MIXTURES)
    } | {
        "power": np.polyfit(np.log(MIXTURES), np.log(boundaries), 1)[0],
        "pooled": float(pooled.min()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The boundaries with their intervals, the exact curve and the square root."""
    exact = _exact(MIXTURES)
    numbers = intervals(_boundaries(data)) | {
        "exact": exact,
        "square_root": np.sqrt(MIXTURES) * exact[0],
    }
    return {"critical spread": points({"environments_per_batch": MIXTURES}, numbers)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The order parameter against the heterogeneity for each k, and the boundary against k."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8.6, 3.6))
    _draw_order_parameters(axes[0], data)
    _draw_boundaries(axes[1], _boundaries(data))
    return fig


def _draw_order_parameters(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(MIXTURES)))
    runs = data["all"]
    means = final(runs).spurious_power.where(runs.diverged_at < 0).mean("seed") / MEAN
    for k, critical, colour in zip(MIXTURES, _exact(MIXTURES), colours, strict=True):
        coarse = critical * 0.8 > SPREADS
        near = final(data[f"mixed_{k}"]).spurious_power.mean("seed") / MEAN
        spreads = np.append(SPREADS[coarse], near.spread.values)
        power = np.append(means.sel(variant=str(k)).values[coarse], near)
        ax.plot(spreads, power, "o-", color=colour)
        ax.annotate(
            f"$k = {k}$",
            (spreads[-1], power[-1]),
            (0, -11),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
        ax.plot([critical], [0], "|", color=colour, ms=12, mew=2, clip_on=False)
    ax.plot(SPREADS, means.sel(variant="pooled"), "--", color="black", label="PooledSGD")
    ax.set(xlabel="heterogeneity $M$", ylabel=r"mean $|V^\top U|^2 / \mu$", ylim=(0, None))
    ax.set_title("from HeteroSGD to PooledSGD; bars: theory")
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.82))


def _draw_boundaries(ax: Axes, bounds: list[Boundary]) -> None:
    dense = np.arange(1, 21)
    exact = _exact(dense)
    ax.loglog(dense, exact, color="black", lw=1.1, label="exact: binomial exponent")
    root = np.sqrt(dense) * exact[0]
    ax.loglog(dense, root, color="0.5", ls=(0, (4, 3)), label=r"$\sqrt{k}\,M_c$")
    values = np.array([bound.value for bound in bounds])
    errors = np.abs(np.array([(bound.low, bound.high) for bound in bounds]).T - values)
    ax.errorbar(MIXTURES, values, errors, fmt="o", color="#0072B2", label="measured", capsize=2)
    ax.set_xticks(MIXTURES, [str(k) for k in MIXTURES])
    ax.set_yticks([10, 20, 40], ["10", "20", "40"])
    ax.minorticks_off()
    ax.set(xlabel="environments in a batch, $k$", ylabel="critical heterogeneity $M_c$")
    ax.legend(frameon=False)


def _exact(mixtures: Iterable[int]) -> np.ndarray:
    """The exact critical spread of each k."""
    from causal_sgd import theory

    return np.array([float(theory.mixing_critical_spread(RATE, MEAN, int(k))) for k in mixtures])


def _boundaries(data: Mapping[str, xr.Dataset]) -> list[Boundary]:
    from causal_sgd.analysis import order_parameter_boundary

    return [order_parameter_boundary(data[f"mixed_{k}"]) for k in MIXTURES]

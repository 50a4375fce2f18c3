"""The same transition and the same floor from d = 100 to d = 10,000, at the same d / m.

A factor with k = 20 columns and `measurements.low_rank_law`, which forms no d x d array. The spurious direction is a scalar that
knows nothing of the dimension: at one ratio d / m its growth or decay is that of d = 100, seed by seed, as all dimensions meet
the same environments in the same order. The error floor rests on d / m alone, like sqrt(d / m) over three decades, as far as the
bulk that the noise feeds outside of the signals stays small (`over-parameterisation`). What is left of a rejected signal rests on
m alone: one direction catches the noise of one entry of the gradient, of variance 1 / m, so at one d / m a large dimension
rejects better, like 1 / sqrt(m).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

BASE = Experiment(
    measurement="low-rank-law", rank=20, invariant_rank=2, spurious_rank=1, learning_rate=0.1, init_scale=1e-4,
    steps=200, record_every=10, metrics=("invariant_error", "spurious_signal"),
)  # fmt: skip
DIMS = (100, 1000, 10_000)
SPREADS = (2.0, 6.0)  # the critical spread is 4.58
EXAMPLES = 100  # a batch in a comparison of dimensions has so many for each
LARGE = 6.0
BATCH_SIZES = (250_000, 4_000_000)
SETTLED = 150  # steps: A* is learned after about 80
CLAIMS = {
    f"floor_{dim}": Claim(f"d = {dim}, M = 6: distance to A* over the predicted floor", 0.95, 1.2, "error floor")
    for dim in DIMS
} | {
    "exponent": Claim("M = 6: exponent of the distance to A* in d / m", 0.48, 0.53, "error floor"),
    "equal": Claim(
        "M = 6, m = 100 d: distance to A* at d = 10,000 over that at d = 100, same environments", 0.85, 1.15,
        "error floor",
    ),
    "learned": Claim(
        "M = 2, m = 100 d: |V'U| at d = 10,000 over that at d = 100 in the end, same environments", 0.9, 1.1,
        "Lyapunov exponent",
    ),
    "growth": Claim(
        "M = 2, m = 100 d: growth of log|V'U| until step 60 at d = 10,000 less that at d = 100, farthest from 0 over seeds",
        -0.3, 0.3, "Lyapunov exponent",
    ),
    "rejected": Claim(
        "M = 6, m = 100 d: median |V'U| in the end at d = 10,000 over that at d = 100 (1 / sqrt(m) is a tenth)",
        0.03, 0.4, "this study",
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD in three dimensions: over M at m = 100 d, 4 seeds, and over the batch size at M = 6, 2 (1 of each when quick)."""
    import xarray as xr

    from causal_sgd.sweeps import sweep

    parts: dict[str, list[xr.Dataset]] = {"transition": [], "floor": []}
    for dim in DIMS:
        options: dict[str, Any] = {"key": key, "progress": progress, "label": f"d = {dim}"}
        cell = BASE.replace(dim=dim).cell()
        axes = {"spread": SPREADS, "batch_size": [EXAMPLES * dim]}
        parts["transition"].append(
            sweep(cell, axes=axes, seeds=1 if quick else 4, **options).squeeze(
                "batch_size", drop=True
            )
        )
        parts["floor"].append(
            sweep(
                cell,
                axes={"spread": [LARGE], "batch_size": BATCH_SIZES},
                seeds=1 if quick else 2,
                **options,
            )
        )
    return {
        name: xr.concat(found, dim=xr.Variable("dim", list(DIMS))) for name, found in parts.items()
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The floor in every dimension, and the transition in the largest against the smallest."""
    errors = _errors(data["floor"])
    ratios = (errors / _floor(errors.dim, errors.batch_size)).mean("batch_size")
    slope = np.polyfit(
        np.log(errors.dim / errors.batch_size).values.ravel(), np.log(errors.values).ravel(), 1
    )[0]
    runs = data["transition"]
    largest = runs.sizes["dim"] - 1
    equal = _errors(runs).sel(spread=LARGE)
    signals = runs.spurious_signal
    last = signals.sel(step=slice(SETTLED, None)).median(("seed", "step"))
    logs = np.log(signals.sel(spread=2.0))
    growth = (logs.sel(step=60) - logs.sel(step=0)).isel(
        dim=[0, largest]
    )  # the start is another draw in every dimension
    apart = growth.diff("dim").values.ravel()
    found = {f"floor_{dim}": float(ratios.sel(dim=dim)) for dim in DIMS}
    return found | {
        "exponent": float(slope),
        "equal": float(equal.isel(dim=largest) / equal.isel(dim=0)),
        "learned": float((last.isel(dim=largest) / last.isel(dim=0)).sel(spread=2.0)),
        "growth": float(apart[np.argmax(np.abs(apart))]),
        "rejected": float((last.isel(dim=largest) / last.isel(dim=0)).sel(spread=LARGE)),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The spurious signal against the step in every dimension, and the floor against d / m."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    runs = data["transition"]
    drawing, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for index, spread in enumerate(SPREADS):
        figures.trajectories(
            axes[index],
            runs.sel(spread=spread),
            "spurious_signal",
            over="dim",
            logy=True,
            legend=not index,
        )
        axes[index].set_title(f"heterogeneity $M = {spread:g}$, $m = {EXAMPLES}\\,d$")
    errors = _errors(data["floor"])
    for index, dim in enumerate(errors.dim.values):
        look: Any = {"marker": "osD"[index], "ls": "", "color": figures.COLOURS[index]}
        axes[2].loglog(dim / errors.batch_size, errors.sel(dim=dim), label=f"$d$ = {dim}", **look)
    ratios = np.geomspace(
        errors.dim.min() / errors.batch_size.max(), errors.dim.max() / errors.batch_size.min(), 50
    )
    axes[2].loglog(
        ratios, _floor(ratios, 1.0), color="black", lw=1.1, ls="--", label="predicted floor"
    )
    axes[2].set(xlabel="$d / m$", ylabel=r"$\|UU^\top - A^\star\|_F$", title=f"$M = {LARGE:g}$")
    axes[2].legend(frameon=False)
    return drawing  # fmt: skip


def _errors(dataset: xr.Dataset) -> xr.DataArray:
    """The distance to A*, median over seeds and the settled steps, without axes of length one."""
    kept = dataset.invariant_error.where(dataset.diverged_at < 0).sel(step=slice(SETTLED, None))
    return kept.median(("seed", "step")).squeeze()


def _floor(dim: Any, batch_size: Any) -> Any:
    from causal_sgd import theory

    # the floor knows d and m by their ratio only, which may be below what `theory` takes for a dimension
    base = theory.error_floor(
        np.hypot(LARGE, BASE.mean), learning_rate=BASE.learning_rate, batch_size=1.0, dim=1.0,
        invariant_rank=BASE.invariant_rank, spurious_rank=BASE.spurious_rank,
    )  # fmt: skip
    return float(base) * np.sqrt(dim / batch_size)

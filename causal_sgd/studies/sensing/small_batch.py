"""PooledSGD with small batches ends near neither A* nor A* + mean A_e.

A smaller batch does make PooledSGD more heterogeneous from step to step, but it does not stand in for heterogeneity: at
batch 80 the noise of the measurements is as large as the signal at every step size [Xu, Gu, Fang 2024]. What small batches
do in place of finding the invariant part is to shake all directions alike. The distance to A* + mean A_e is the error floor
of HeteroSGD, with r1 + r2 directions learned in place of r1; the invariant and the spurious signal lose the same share; and the
distance to A* stays above |mean A_e| at every batch size. A batch of m examples mixes m environments, so that the spurious part
would die at a heterogeneity of about M_c sqrt(m) only, whose noise no step size survives.
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

BASE = Experiment(
    sampler="pooled",
    dim=30,
    invariant_rank=2,
    spurious_rank=1,
    spread=6.0,
    batch_size=80,
    steps=2000,
    record_every=40,
    metrics=(
        "relative_invariant_error",
        "relative_pooled_error",
        "invariant_signal",
        "spurious_signal",
    ),
)
LEARNING_RATES = (0.01, 0.05, 0.1)
SIZED = BASE.replace(metrics=("invariant_error", "pooled_error"), record_every=100)
BATCH_SIZES = (20, 80, 320, 1280, 5120)
QUICK_SIZES = (80, 1280)
SETTLED = 0.6  # of the run: by then A* + mean A_e is learned even at the smallest learning rate
CLAIMS = {
    f"{rate:g}": Claim(
        f"learning rate {rate:g}: relative distance to the nearer of A* and A* + mean (infinite where most runs diverge)",
        0.25, np.inf, "Xu, Gu, Fang 2024",
    )
    for rate in LEARNING_RATES
} | {
    f"floor_{rate:g}": Claim(
        f"learning rate {rate:g}, batch 80: distance to A* + mean over the predicted floor", 0.95, 1.2, "error floor"
    )
    for rate in LEARNING_RATES
} | {
    "scaling": Claim(
        "exponent of the distance to A* + mean in the batch size, from 80 on, mean over the learning rates",
        -0.53, -0.48, "error floor",
    ),
    "apart": Claim(
        "least distance to A* over |mean A_e|, over batch sizes and learning rates", 0.97, np.inf, "this study"
    ),
    "alike": Claim(
        "batch 80: least share of the spurious over the share of the invariant signal learned, over learning rates",
        0.8, 1.1, "this study",
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """PooledSGD at three learning rates: batch 80, 16 seeds (8 when quick), and over the batch size, 6 seeds (2)."""
    from causal_sgd.sweeps import sweep

    options: dict[str, Any] = {"key": key, "progress": progress}
    axes = {"learning_rate": LEARNING_RATES}
    sizes = QUICK_SIZES if quick else BATCH_SIZES
    return {
        "runs": sweep(
            BASE.cell(), axes=axes, seeds=8 if quick else 16, label="PooledSGD, batch 80", **options
        ),
        "sizes": sweep(
            SIZED.cell(),
            axes=axes | {"batch_size": sizes},
            seeds=2 if quick else 6,
            label="batch sizes",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The nearer of the two targets is far, at each learning rate, by the predicted floor."""
    runs = final(data["runs"])
    near = [
        summary(runs, f"relative_{target}_error")["median"] for target in ("invariant", "pooled")
    ]
    lost = (data["runs"].diverged_at >= 0).mean("seed")
    found = {}
    for rate in LEARNING_RATES:
        nearer = min(float(target.sel(learning_rate=rate)) for target in near)
        found[f"{rate:g}"] = np.inf if float(lost.sel(learning_rate=rate)) > 0.5 else nearer
    apart, far = (_settled(data["sizes"], name) for name in ("invariant_error", "pooled_error"))
    for rate in LEARNING_RATES:
        found[f"floor_{rate:g}"] = float(far.sel(learning_rate=rate, batch_size=80)) / _floor(
            rate, 80.0
        )
    large = far.sel(batch_size=far.batch_size[far.batch_size >= 80])
    slopes = np.polyfit(
        np.log(large.batch_size), np.log(large.transpose("batch_size", "learning_rate")), 1
    )[0]
    shares = [
        _settled(data["runs"], f"{part}_signal") ** 2 / rank
        for part, rank in (
            ("spurious", BASE.spurious_rank * BASE.mean),
            ("invariant", BASE.invariant_rank),
        )
    ]
    return found | {
        "scaling": float(slopes.mean()),
        "apart": float(apart.min()) / (BASE.mean * BASE.spurious_rank**0.5),
        "alike": float((shares[0] / shares[1]).min()),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Both distances against the step, one panel for each target, and against the batch size."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    drawing, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for index, target in enumerate(("invariant", "pooled")):
        figures.trajectories(
            axes[index],
            data["runs"],
            f"relative_{target}_error",
            over="learning_rate",
            legend=not index,
            label="" if index else "relative distance",
        )
        axes[index].set_ylim(0, 1.5)
        axes[index].set_title(("to $A^\\star$", "to $A^\\star + \\bar A$")[index])
    kept = (
        data["sizes"]
        .isel(step=slice(int(SETTLED * data["sizes"].sizes["step"]), None))
        .median("step")
    )
    sizes = np.geomspace(kept.batch_size.min(), kept.batch_size.max(), 50)
    drawn = figures.final_value(
        axes[2], kept, "pooled_error", along="batch_size", over="learning_rate", logx=True, logy=True,
        legend=False,
        label="distance to $A^\\star + \\bar A$",
    )  # fmt: skip
    for rate, line in zip(LEARNING_RATES, drawn.lines, strict=True):
        axes[2].plot(sizes, _floor(rate, sizes), color=line.get_color(), ls=":", lw=1)
    axes[2].set_title("dotted: predicted floor")
    return drawing  # fmt: skip


def _settled(dataset: xr.Dataset, metric: str) -> xr.DataArray:
    """The median over seeds and the last part of the run; NaN where most runs diverge."""
    kept = dataset[metric].where(dataset.diverged_at < 0)
    kept = kept.isel(step=slice(int(SETTLED * dataset.sizes["step"]), None))
    return kept.median(("seed", "step")).where((dataset.diverged_at >= 0).mean("seed") <= 0.5)


def _floor(learning_rate: float, batch_size: Any) -> Any:
    """The distance to A* + mean A_e that the noise keeps up: all r1 + r2 directions are learned, the spread is the residual."""
    from causal_sgd import theory

    spread = BASE.spread * BASE.spurious_rank**0.5
    return np.asarray(
        theory.error_floor(
            spread,
            learning_rate=learning_rate,
            batch_size=batch_size,
            dim=BASE.dim,
            invariant_rank=BASE.invariant_rank + BASE.spurious_rank,
            spurious_rank=1,
        )
    )

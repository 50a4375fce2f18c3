"""PooledSGD with small batches ends near neither A* nor A* + mean A_e.

A smaller batch does make PooledSGD more heterogeneous from step to step, but it does not stand in for heterogeneity: at
batch 80 the noise of the measurements is as large as the signal at every step size [Xu, Gu, Fang 2024].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.results import final, summary
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
    metrics=("relative_invariant_error", "relative_pooled_error", "spurious_signal"),
)
LEARNING_RATES = (0.01, 0.05, 0.1)
CLAIMS = {
    f"{rate:g}": Claim(
        f"learning rate {rate:g}: relative distance to the nearer of A* and A* + mean (infinite where most runs diverge)",
        0.25, np.inf, "Xu, Gu, Fang 2024",
    )
    for rate in LEARNING_RATES
}  # fmt: skip


def run(*, quick: bool = False, key: int = 0, progress: bool | None = None) -> dict[str, xr.Dataset]:
    """PooledSGD at batch 80 and three learning rates, 16 seeds (8 when quick)."""
    from causal_sgd.sweeps import sweep

    return {
        "runs": sweep(
            BASE.cell(), axes={"learning_rate": LEARNING_RATES}, seeds=8 if quick else 16, key=key,
            progress=progress, label="PooledSGD, batch 80",
        )
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The nearer of the two targets is far, at each learning rate."""
    runs = final(data["runs"])
    near = [summary(runs, f"relative_{target}_error")["median"] for target in ("invariant", "pooled")]
    lost = (data["runs"].diverged_at >= 0).mean("seed")
    found = {}
    for rate in LEARNING_RATES:
        nearer = min(float(target.sel(learning_rate=rate)) for target in near)
        found[f"{rate:g}"] = np.inf if float(lost.sel(learning_rate=rate)) > 0.5 else nearer
    return found


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Both distances against the step, one panel for each target."""
    from matplotlib import pyplot as plt

    from causal_sgd import plots

    drawing, axes = plt.subplots(1, 2, figsize=(8.0, 3.0), sharey=True)
    for index, target in enumerate(("invariant", "pooled")):
        plots.trajectories(
            axes[index],
            data["runs"],
            f"relative_{target}_error",
            over="learning_rate",
            legend="right" if index else False,
            label="" if index else "relative distance",
        )
        axes[index].set_ylim(bottom=0)
        axes[index].set_title(("to $A^\\star$", "to $A^\\star + \\bar A$")[index])
    return drawing  # fmt: skip

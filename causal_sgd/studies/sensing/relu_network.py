"""The bias carries over to a two-layer ReLU network only if both layers are trained.

The labels are x'(A* + A_e)x, centred, for x ~ N(0, I). The quadratic part of the network (its
second Hermite coefficient, in closed form) and its predictions are measured. With both layers
trained, HeteroSGD forgets the spurious direction beyond a heterogeneity at which PooledSGD keeps
it. The correlation of the labels with a neuron of direction v is v'Sv / (2 sqrt(2 pi)) in the scale
of the loss. A small balanced neuron along a spurious direction therefore grows by the factor 1 +
eta_v s with eta_v = eta / (4 sqrt(2 pi)), and the spurious component of a neuron that points
elsewhere with 2 eta_v: as in matrix sensing a Lyapunov exponent decides, with a critical spread for
each of the two. The remaining signal below M_c falls linearly in M^2, so that half of it is gone at
M_c / sqrt(2); the measurement confirms this for the lower M_c. With so noisy a gradient no sharp
boundary is visible. With fixed outputs nothing multiplies: a neuron grows by steps that do not
depend on its length, and the network learns the mean in the median, like PooledSGD, with a large
scatter from run to run. The predictions agree, less clearly: without biases the network represents
x^2 as a multiple of |x|, so that even a correct quadratic part leaves a large prediction error
along U*. At M = 6 some runs of HeteroSGD diverge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final, summary
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

BASE = Experiment(
    model="relu",
    measurement="examples",
    dim=8,
    invariant_rank=1,
    spurious_rank=1,
    neurons=12,
    batch_size=400,
    learning_rate=1.0,
    steps=500,
    init_scale=0.03,
    metrics=(
        "invariant_error",
        "invariant_signal",
        "spurious_signal",
        "invariant_prediction_error",
        "spurious_prediction",
    ),
)
SPREADS = np.array([0.0, 2.0, 3.0, 4.0, 5.0, 6.0])
LARGE = 5.0
METHODS = {
    "HeteroSGD": BASE,
    "PooledSGD": BASE.replace(sampler="pooled"),
    "HeteroSGD, first layer only": BASE.replace(trained_layers="first"),
}
CLAIMS = {
    "forgotten": Claim.finding(f"HeteroSGD, M = {LARGE:g}: median |V'U| of the quadratic part"),
    "learned": Claim.finding(f"HeteroSGD, M = {LARGE:g}: median |U*'U| of the quadratic part"),
    "pooled": Claim(
        f"PooledSGD, M = {LARGE:g}: median |V'U| of the quadratic part",
        0.7,
        1.05,
        "Xu, Gu, Fang 2024 (qualitative; the interval is ours)",
    ),
    "first": Claim(
        f"M = {LARGE:g}: median |V'U|, HeteroSGD on the first layer only over PooledSGD",
        0.7,
        1.4,
        "additive growth",
    ),
    "predictions": Claim.finding(
        f"M = {LARGE:g}: predictions in span V, HeteroSGD over PooledSGD, medians"
    ),
    "error": Claim.finding(
        f"M = {LARGE:g}: distance of the quadratic part to A*, HeteroSGD over PooledSGD"
    ),
    "half": Claim(
        "HeteroSGD: M at which the median |V'U|^2 falls below half, "
        "over the lower critical spread / sqrt(2)",
        0.65,
        1.35,
        "order parameter linear in M^2",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD, PooledSGD and HeteroSGD on the first layer alone over the heterogeneity, 12 seeds
    (4 when quick).
    """
    from causal_sgd.sweeps import compare

    cells = {name: experiment.cell() for name, experiment in METHODS.items()}
    axes = {"spread": SPREADS}
    return {"runs": compare(cells, axes=axes, seeds=4 if quick else 12, key=key, progress=progress)}


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Medians of what is learned and forgotten at large heterogeneity, and where half is gone."""
    from causal_sgd.analysis import level_crossing

    runs = final(data["runs"])

    def median(metric: str, index: int) -> float:
        return float(summary(runs, metric)["median"].isel(variant=index).sel(spread=LARGE))

    crossing = level_crossing(
        data["runs"].isel(variant=0), "spurious_signal", along="spread", level=0.5**0.5
    )
    return {
        "forgotten": median("spurious_signal", 0),
        "learned": median("invariant_signal", 0),
        "pooled": median("spurious_signal", 1),
        "first": median("spurious_signal", 2) / median("spurious_signal", 1),
        "predictions": median("spurious_prediction", 0) / median("spurious_prediction", 1),
        "error": median("invariant_error", 0) / median("invariant_error", 1),
        "half": float(crossing) / (_critical()[0] / 2**0.5),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The two predicted critical spreads."""
    settings = {"neurons": ["elsewhere", "along V"]}
    return {"theory": points(settings, {"critical_spread": _critical()})}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The spurious and invariant quadratic parts and the predictions in span V against the
    heterogeneity.

    The two lines mark the critical spreads of neurons that point elsewhere and of neurons along the
    spurious direction.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(1, 3, figsize=(10.8, 3.5))
    lower, upper = _critical()
    panels = (
        ("spurious_signal", r"spurious quadratic part $|\mathrm{tr}\,V^\top H V|^{1/2}$"),
        (
            "invariant_signal",
            r"invariant quadratic part $|\mathrm{tr}\,U_\star^\top H U_\star|^{1/2}$",
        ),
        ("spurious_prediction", r"predictions in span $V$, over $|x|^2$"),
    )
    for index, (metric, label) in enumerate(panels):
        figures.final_value(
            axes[index],
            data["runs"],
            metric,
            along="spread",
            over="variant",
            label=label,
            legend=index == 1,
            mark=None if index else {"$M_c$": lower, "$M_c'$": upper},
        )
        axes[index].set_ylim(bottom=0)
    return fig


def _critical() -> tuple[float, float]:
    """The critical spreads of neurons that point elsewhere, and of neurons along V."""
    from causal_sgd import theory

    rate = BASE.learning_rate / (4 * np.sqrt(2 * np.pi))
    lower, upper = (float(theory.critical_spread(eta, BASE.mean)) for eta in (2 * rate, rate))
    return lower, upper

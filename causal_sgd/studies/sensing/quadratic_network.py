"""A network with quadratic activations has the same transition; uncentred labels halve M_c^2.

Rank-one measurements X = (x x' - I) / sqrt(2) are those of the two-layer network f(x) = sum_j a_j
(w_j'x)^2 with centred labels. Their mean gradient is that of matrix sensing, and so is the
boundary, up to noise: along a spurious direction the gradient of one example has seven times the
variance of Gaussian X, which feeds the directions near the boundary and moves the measured boundary
up. Without the correction, X = x x' / sqrt(2), the mean gradient is R + tr(R) I / 2. One would
expect a nuisance. It is more: the trace of the residual changes with the environment and shakes all
directions together, so that a spurious one meets (3/2) s in place of s, while the network learns
the mean of the trace in every direction, as an isotropic part. In high dimensions the spurious
direction dies where its exponent falls below that of this part, at about sqrt(mu / eta) in place of
sqrt(2 mu / eta). Less heterogeneity is needed, but tr(U U') ends at the trace of the pooled signal,
and the error is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final, summary
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged, both_methods
from causal_sgd.studies._drawing import line_to_zero, mark
from causal_sgd.studies._tables import intervals, points
from causal_sgd.studies.sensing._scalars import traced_complement

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=6,
    invariant_rank=1,
    spurious_rank=1,
    learning_rate=0.1,
    batch_size=500,
    init="gaussian",
    init_scale=0.1,
    steps=1500,
    record_every=5,
    metrics=("spurious_power", "complement_signal"),
)
NETWORK = BASE.replace(
    model="quadratic", measurement="rank-one", neurons=6, negative_neurons=0, init=None
)
BELOW = np.array([0.8, 0.85, 0.9, 0.95])  # shares of the boundary of each variant
CRITICAL = (2 * BASE.mean / BASE.learning_rate + BASE.mean**2) ** 0.5
# With the trace left in, all directions meet (c + s/2). The level that all of them learn keeps
# E log|1 + eta (c + s/2)| = 0, and the spurious direction dies beyond
# E log|1 + eta (c + 3 s/2)| = 0: sqrt(1 + x) + eta mu = sqrt(1 + 9 x), x = (eta M / 2)^2.
STEP = BASE.learning_rate * BASE.mean
TRACED = 2 / BASE.learning_rate * ((5 * STEP**2 + STEP * (9 * STEP**2 + 64) ** 0.5) / 32) ** 0.5
# Experiment, predicted boundary, label.
VARIANTS = {
    "gaussian": (BASE, CRITICAL, "Gaussian $X$"),
    "centred": (NETWORK, CRITICAL, "network"),
    "trace": (NETWORK.replace(trace_correction=False), TRACED, "network, trace left in"),
}
SIGNALS = NETWORK.replace(
    neurons=None,
    negative_neurons=None,
    steps=400,
    init_scale=0.01,
    record_every=None,
    metrics=("spurious_signal", "invariant_signal", "invariant_error"),
)
SPREADS = np.linspace(0, 6, 5)
CLAIMS = {
    "gaussian": Claim(
        "Gaussian X, batch 500: measured boundary over the critical spread",
        1.0,
        1.12,
        "rounding by noise",
    ),
    "centred": Claim(
        "network, batch 500: measured boundary over the critical spread",
        1.0,
        1.22,
        "rounding by noise",
    ),
    "noise": Claim.finding("network: its boundary over that with Gaussian X"),
    "trace": Claim(
        "network: boundary with the trace left in over that without, "
        "about sqrt(1/2) in high dimensions",
        0.6,
        0.8,
        "Lyapunov exponents",
    ),
    # Three standard errors of 16 seeds are 6 %. The noise of batch 500 takes part of the isotropic
    # level, at most what it sustains where the trace is removed: a tenth.
    "isotropic": Claim(
        "network: mean |U_perp' U|^2 with the trace left in, at 0.8 of its boundary, over that of "
        "the population's map",
        0.84,
        1.06,
        "independent simulation of the scalar maps",
    ),
    "forgotten": Claim(
        "network of both signs, HeteroSGD at M = 6: share of the spurious signal that remains",
        0,
        0.35,
        "transition",
    ),
    "pooled": Claim(
        "network of both signs, PooledSGD at M = 6: share of the spurious signal learned",
        0.85,
        1.15,
        "Xu, Gu, Fang 2024 (qualitative; the interval is ours)",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Order parameters near the boundaries with 16 seeds (6 when quick), and both methods over the
    heterogeneity with 64 (16).
    """
    from causal_sgd.sweeps import compare, sweep

    options: Options = {"key": key, "progress": progress}
    data = {
        name: sweep(
            averaged(experiment.cell()),
            axes={"spread": BELOW * critical},
            seeds=6 if quick else 16,
            label=name,
            **options,
        )
        for name, (experiment, critical, _) in VARIANTS.items()
    }
    cells, seeds = both_methods(SIGNALS), 16 if quick else 64
    return data | {"signals": compare(cells, axes={"spread": SPREADS}, seeds=seeds, **options)}


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundaries with and without the trace, the isotropic part, and both methods at M = 6."""
    from causal_sgd.analysis import order_parameter_boundary

    boundaries = {name: order_parameter_boundary(data[name]).value for name in VARIANTS}
    isotropic = float((final(data["trace"]).complement_signal ** 2).isel(spread=0).mean())
    expected = traced_complement(
        NETWORK.learning_rate,
        BELOW[0] * TRACED,
        mean=NETWORK.mean,
        outside=NETWORK.dim - 2,
        start=NETWORK.init_scale,
        steps=NETWORK.steps,
        draws=2000,
    )
    remaining = summary(final(data["signals"]), "spurious_signal")["median"].sel(spread=6.0)
    return {
        "gaussian": boundaries["gaussian"] / CRITICAL,
        "centred": boundaries["centred"] / CRITICAL,
        "noise": boundaries["centred"] / boundaries["gaussian"],
        "trace": boundaries["trace"] / boundaries["centred"],
        "isotropic": isotropic / float(np.mean(expected**2)),
        "forgotten": float(remaining.sel({"variant": "HeteroSGD"})) / SIGNALS.mean**0.5,
        "pooled": float(remaining.sel({"variant": "PooledSGD"})) / SIGNALS.mean**0.5,
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The boundaries with their intervals, and the predicted ones."""
    from causal_sgd.analysis import order_parameter_boundary

    bounds = [order_parameter_boundary(data[name]) for name in VARIANTS]
    return {
        "critical spread": points({"design": list(VARIANTS)}, intervals(bounds)),
        "theory": points({}, {"critical_spread": CRITICAL, "critical_spread_with_trace": TRACED}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The order parameters near the boundaries with the extrapolating lines, and the spurious
    signal of both methods.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.5))
    _draw_order_parameters(axes[0], data)
    figures.final_value(
        axes[1],
        data["signals"],
        "spurious_signal",
        along="spread",
        over="variant",
        mark={"$M_c$": CRITICAL},
    )
    return fig


def _draw_order_parameters(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    for index, (name, (_, _, label)) in enumerate(VARIANTS.items()):
        power, colour = final(data[name]).spurious_power, figures.COLOURS[index]
        squares, means = power.spread.values**2, power.mean("seed").values
        error = power.std("seed").values / power.sizes["seed"] ** 0.5
        ax.errorbar(
            squares, means, error, fmt="osD"[index], color=colour, lw=0.8, capsize=2, label=label
        )
        line_to_zero(ax, squares, means, color=colour)
    for spread, label in ((CRITICAL, "$M_c$"), (TRACED, "$M_c$, trace left in, large $d$")):
        mark(ax, spread**2)
        ax.annotate(
            label,
            (spread**2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    ax.set(xlabel="$M^2$", ylabel=r"mean $\|V^\top U\|_F^2$", ylim=(0, None))
    ax.legend(frameon=False)

"""Heterogeneity and step size decide together: learned, forgotten or diverged, as theory predicts.

The diagram has d = 50, r1 = r2 = 3, batch 4000 and 600 steps. The boundary is measured by the order
parameter of long runs, with population gradients, where the theory is exact, and at batch 4000. At
a finite batch the measurement noise keeps feeding the spurious directions and rounds the
transition. At the critical spread log|u| is a random walk between the noise and the nonlinearity,
and the mean of |V'U|^2 is not zero but about (v / eta) / (2 log m + const), with v = Var log|1 +
eta s|: two factors of the noise, each of variance 1/m, separate u^2 from its lower barrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, averaged
from causal_sgd.studies._drawing import line_to_zero, mark
from causal_sgd.studies._frames import diverged_share

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=50,
    invariant_rank=3,
    spurious_rank=3,
    batch_size=4000,
    steps=600,
    metrics=("spurious_signal", "invariant_error"),
)
SPREADS = np.arange(10.0)
LEARNING_RATES = np.geomspace(0.02, 0.2, 8)
# Median final |V'U| over 8 seeds of an independent simulation, for M = 0, ..., 7; infinity where
# most runs diverge. The standard error of a median reaches 0.2 near the transition, and the cells
# share their seeds.
REFERENCE = {
    0: (1.73, 1.71, 1.66, 1.60, 1.50, 1.38, 1.08, 0.71),
    3: (1.73, 1.63, 1.49, 1.31, 1.04, 0.68, 0.22, 0.11),
    5: (1.73, 1.57, 1.22, 0.85, 0.41, 0.15, 0.07, 0.08),
    7: (1.73, 1.49, 0.74, 0.27, 0.10, np.inf, np.inf, np.inf),
}
POPULATION = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    measurement="population",
    basis="canonical",
    init_scale=0.1,
    steps=20_000,
    record_every=20,
    metrics=("spurious_power",),
)
# Shares of the critical spread at which the order parameter is linear in M^2.
BELOW = np.array([0.8, 0.85, 0.9, 0.95])
POINTS = ((0.1, 1.0), (0.05, 1.0), (0.02, 0.5))  # learning rate, mean
FINITE = POPULATION.replace(dim=6, measurement="gaussian-law", steps=4000, record_every=10)
BATCH_SIZES = (1000, 4000, 16_000, 64_000)
CLAIMS = (
    {
        f"reference_{index}": Claim(
            f"learning rate {LEARNING_RATES[index]:.3f}: smallest p-value of a reference cell "
            "as the median of 8 of our seeds",
            0.001,
            1,
            "independent simulation",
        )
        for index in REFERENCE
    }
    | {
        f"diverged_{index}": Claim(
            f"learning rate {LEARNING_RATES[index]:.3f}, M >= {reference.index(np.inf)}: "
            "smallest share of diverged runs",
            0.5,
            1,
            "third phase",
        )
        for index, reference in REFERENCE.items()
        if np.inf in reference
    }
    | {
        f"boundary_{index}": Claim(
            f"population, learning rate {rate:g}, mean {mean:g}: measured over predicted boundary",
            0.98,
            1.02,
            "Lyapunov exponent",
        )
        for index, (rate, mean) in enumerate(POINTS)
    }
    | {
        "batch": Claim(
            "batch 4000: measured over predicted boundary", 1.0, 1.08, "rounding by noise"
        ),
        "rounding": Claim(
            "at M_c: slope of 1 / mean |V'U|^2 in log(batch size) over 2 eta / v",
            0.75,
            1.25,
            "random walk between barriers",
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """The diagram with 64 seeds (8 when quick); order parameters with 400 seeds (100) for
    population gradients, with 64 (32) at batch 4000 and with 512 (64) at the critical spread.
    """
    from causal_sgd import theory
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    data = {
        "diagram": sweep(
            BASE.cell(),
            axes={"spread": SPREADS, "learning_rate": LEARNING_RATES},
            seeds=8 if quick else 64,
            label="phase diagram",
            **options,
        )
    }
    cell = averaged(POPULATION.replace(batch_size=1).cell())
    for index, (rate, mean) in enumerate(POINTS):
        spreads = BELOW * float(theory.critical_spread(rate, mean))
        data[f"population_{index}"] = sweep(
            cell,
            axes={"spread": spreads, "learning_rate": [rate], "mean": [mean]},
            seeds=100 if quick else 400,
            label=f"order parameter, learning rate {rate:g}",
            **options,
        )
    cell = averaged(FINITE.cell())
    rate, mean = POINTS[0]
    critical = float(theory.critical_spread(rate, mean))
    fixed = {"learning_rate": [rate], "mean": [mean]}
    data["batch_4000"] = sweep(
        cell,
        axes={"spread": BELOW * critical, "batch_size": [4000], **fixed},
        seeds=32 if quick else 64,
        label="order parameter, batch 4000",
        **options,
    )
    data["critical"] = sweep(
        cell,
        axes={"spread": [critical], "batch_size": BATCH_SIZES, **fixed},
        seeds=64 if quick else 512,
        label="at the critical spread",
        **options,
    )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The agreement with the reference, the boundaries over theory, and the rounding by noise."""
    from causal_sgd import theory
    from causal_sgd.analysis import order_parameter_boundary

    values = _diagram(data["diagram"])
    for index, (rate, mean) in enumerate(POINTS):
        boundary = order_parameter_boundary(data[f"population_{index}"])
        values[f"boundary_{index}"] = boundary.value / float(theory.critical_spread(rate, mean))
    rate, mean = POINTS[0]
    critical = float(theory.critical_spread(rate, mean))
    slope = _rounding(data["critical"])[0]
    predicted = 2 * rate / float(theory.log_variance_two_point(rate, mean, critical))
    return values | {
        "batch": order_parameter_boundary(data["batch_4000"]).value / critical,
        "rounding": slope / predicted,
    }


def _diagram(diagram: xr.Dataset) -> dict[str, float]:
    """The agreement with the reference, and the shares of diverged runs."""
    lost = diverged_share(diagram)
    runs = final(diagram).spurious_signal.where(diagram.diverged_at < 0)
    values = {}
    for index, reference in REFERENCE.items():
        cells = [
            runs.isel(learning_rate=index, spread=m).dropna("seed").values
            for m in range(len(reference))
        ]
        values[f"reference_{index}"] = min(
            _p_value(cell, median)
            for cell, median in zip(cells, reference, strict=True)
            if np.isfinite(median)
        )
        diverging = [m for m, median in enumerate(reference) if not np.isfinite(median)]
        if diverging:
            shares = lost.isel(learning_rate=index, spread=diverging)
            values[f"diverged_{index}"] = float(shares.min())
    return values


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The diagram with the predicted curve and the measured boundaries; the order parameters; the
    rounding of the transition at a finite batch.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplot_mosaic("aab;aac", figsize=(9.2, 5.4))
    _draw_diagram(axes["a"], data)
    _draw_order_parameters(axes["b"], data)
    _draw_rounding(axes["c"], data["critical"])
    return fig


def _draw_diagram(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures, theory
    from causal_sgd.analysis import order_parameter_boundary

    rates = np.geomspace(LEARNING_RATES[0], LEARNING_RATES[-1], 100)
    measured = [
        (order_parameter_boundary(data[f"population_{index}"]), rate)
        for index, (rate, mean) in enumerate(POINTS)
        if mean == BASE.mean
    ]
    bounds = [[bound.value, rate, bound.low, bound.high] for bound, rate in measured]
    figures.phase_diagram(
        ax,
        data["diagram"],
        "spurious_signal",
        x="spread",
        y="learning_rate",
        theory={"theory: critical spread": (theory.critical_spread(rates, BASE.mean), rates)},
        boundary=tuple(np.array(bounds).T),
    )


def _draw_order_parameters(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import theory

    for index, (rate, mean) in enumerate(POINTS):
        power = final(data[f"population_{index}"]).spurious_power.squeeze().mean("seed") / mean
        squares = (power.spread.values / float(theory.critical_spread(rate, mean))) ** 2
        ax.plot(squares, power, "osD"[index], label=f"$\\eta = {rate:g}$, $\\mu = {mean:g}$")
        line_to_zero(ax, squares, power, color="0.4", lw=0.8)
    mark(ax, 1)
    ax.set(
        xlabel="$(M / M_c)^2$",
        ylabel="mean $|V^\\top U|^2 / \\mu$",
        title="order parameter, population",
    )
    ax.legend(frameon=False)


def _draw_rounding(ax: Axes, dataset: xr.Dataset) -> None:
    slope, intercept = _rounding(dataset)
    sizes = np.array(BATCH_SIZES, float)
    inverse = 1 / final(dataset).spurious_power.squeeze().mean("seed")
    ax.semilogx(sizes, inverse, "o", label="measured")
    ax.semilogx(sizes, intercept + slope * np.log(sizes), color="0.4", lw=0.8, label="fit")
    ax.set(
        xlabel="batch size $m$",
        ylabel="1 / mean $|V^\\top U|^2$",
        title="at $M = M_c$: rounded by noise",
    )
    ax.legend(frameon=False)


def _p_value(runs: np.ndarray, reference: float) -> float:
    """Two-sided bootstrap p-value of a reference, given to two decimals, as a median of 8 runs."""
    draws = np.median(np.random.default_rng(0).choice(runs, (20_000, 8)), axis=1)
    below, above = np.mean(draws <= reference + 0.005), np.mean(draws >= reference - 0.005)
    return float(min(1, 2 * min(below, above)))


def _rounding(dataset: xr.Dataset) -> tuple[float, float]:
    """Slope and intercept of 1 / mean |V'U|^2 in the logarithm of the batch size."""
    means = final(dataset).spurious_power.squeeze().mean("seed").values
    slope, intercept = np.polyfit(np.log(np.array(BATCH_SIZES, float)), 1 / means, 1)
    return float(slope), float(intercept)

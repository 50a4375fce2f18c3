"""Heterogeneity and step size decide together: learned, forgotten or diverged, with the theory's curve between.

The diagram has d = 50, r1 = r2 = 3, batch 4000 and 600 steps. Its boundary is measured by the order parameter of long runs
with population gradients, where the theory is exact, and at batch 4000. There the noise of the measurements keeps
feeding the spurious directions, so the transition is rounded: at the critical spread, where log|u| is a random walk between
the noise and the nonlinearity, the mean of |V'U|^2 is not zero but about (v / eta) / (2 log m + const), with
v = Var log|1 + eta s|: two factors of the noise, each of variance 1/m, lie between u^2 and its lower barrier.
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

BASE = Experiment(
    dim=50, invariant_rank=3, spurious_rank=3, batch_size=4000, steps=600,
    metrics=("spurious_signal", "invariant_error"),
)  # fmt: skip
SPREADS = np.arange(10.0)
LEARNING_RATES = np.geomspace(0.02, 0.2, 8)
# Final |V'U|, medians over 8 seeds of an independent simulation, for M = 0, ..., 7; infinity where most runs diverge.
# Such a median has a standard error of up to 0.2 near the transition, and the cells share their seeds.
REFERENCE = {
    0: (1.73, 1.71, 1.66, 1.60, 1.50, 1.38, 1.08, 0.71),
    3: (1.73, 1.63, 1.49, 1.31, 1.04, 0.68, 0.22, 0.11),
    5: (1.73, 1.57, 1.22, 0.85, 0.41, 0.15, 0.07, 0.08),
    7: (1.73, 1.49, 0.74, 0.27, 0.10, np.inf, np.inf, np.inf),
}
POPULATION = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", basis="canonical", init_scale=0.1,
    steps=20_000, record_every=20, metrics=("spurious_power",),
)  # fmt: skip
BELOW = np.array(
    [0.8, 0.85, 0.9, 0.95]
)  # of the critical spread, where the order parameter is linear
POINTS = ((0.1, 1.0), (0.05, 1.0), (0.02, 0.5))  # learning rate, mean
FINITE = POPULATION.replace(dim=6, measurement="gaussian-law", steps=4000, record_every=10)
BATCH_SIZES = (1000, 4000, 16_000, 64_000)
CLAIMS = {
    f"reference_{index}": Claim(
        f"learning rate {LEARNING_RATES[index]:.3f}: least p-value of a reference cell as a median of 8 of our seeds",
        0.001, 1, "independent simulation",
    )
    for index in REFERENCE
} | {
    f"diverged_{index}": Claim(
        f"learning rate {LEARNING_RATES[index]:.3f}, M >= {reference.index(np.inf)}: least share of diverged runs",
        0.5, 1, "third phase",
    )
    for index, reference in REFERENCE.items()
    if np.inf in reference
} | {
    f"boundary_{index}": Claim(
        f"population, learning rate {rate:g}, mean {mean:g}: measured boundary over the curve", 0.98, 1.02,
        "Lyapunov exponent",
    )
    for index, (rate, mean) in enumerate(POINTS)
} | {
    "batch": Claim("batch 4000: measured boundary over the curve", 1.0, 1.08, "rounded by noise"),
    "rounding": Claim(
        "at M_c: slope of 1 / mean |V'U|^2 in log(batch size) over 2 eta / v", 0.75, 1.25,
        "random walk between barriers",
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """The diagram with 64 seeds (8 when quick) and the order parameters with 400, 64 and 512 (100, 32 and 64)."""
    from causal_sgd import theory
    from causal_sgd.sweeps import sweep

    def averaged(experiment: Experiment) -> Any:
        from causal_sgd.training import time_average

        base = experiment.cell()

        def cell(
            key: Any, *, spread: Any, learning_rate: Any, mean: Any, batch_size: Any = 1
        ) -> Any:
            trace = base(
                key, spread=spread, learning_rate=learning_rate, mean=mean, batch_size=batch_size
            )
            return time_average(trace, after=0.2)

        return cell

    options: dict[str, Any] = {"key": key, "progress": progress}
    data = {
        "diagram": sweep(
            BASE.cell(), axes={"spread": SPREADS, "learning_rate": LEARNING_RATES}, seeds=8 if quick else 64,
            label="phase diagram", **options,
        )
    }  # fmt: skip
    cell = averaged(POPULATION)
    for index, (rate, mean) in enumerate(POINTS):
        spreads = BELOW * float(theory.critical_spread(rate, mean))
        axes = {"spread": spreads, "learning_rate": [rate], "mean": [mean]}
        label = f"order parameter, learning rate {rate:g}"
        data[f"population_{index}"] = sweep(
            cell, axes=axes, seeds=100 if quick else 400, label=label, **options
        )
    cell = averaged(FINITE)
    rate, mean = POINTS[0]
    critical = float(theory.critical_spread(rate, mean))
    seeds = 32 if quick else 64
    fixed = {"learning_rate": [rate], "mean": [mean]}
    data["batch_4000"] = sweep(
        cell, axes={"spread": BELOW * critical, "batch_size": [4000], **fixed}, seeds=seeds,
        label="order parameter, batch 4000", **options,
    )  # fmt: skip
    data["critical"] = sweep(
        cell, axes={"spread": [critical], "batch_size": BATCH_SIZES, **fixed}, seeds=64 if quick else 512,
        label="at the critical spread", **options,
    )  # fmt: skip
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The reference diagram, the measured boundary against the curve, and the rounding by a finite batch."""
    from causal_sgd import theory
    from causal_sgd.analysis import order_parameter_boundary

    diagram = data["diagram"]
    lost = (diagram.diverged_at >= 0).mean("seed")
    runs = final(diagram).spurious_signal.where(diagram.diverged_at < 0)
    found = {}
    for index, reference in REFERENCE.items():
        cells = [
            runs.isel(learning_rate=index, spread=m).dropna("seed").values
            for m in range(len(reference))
        ]
        likely = [
            _likelihood(cell, value)
            for cell, value in zip(cells, reference, strict=True)
            if np.isfinite(value)
        ]
        found[f"reference_{index}"] = min(likely)
        blown = [m for m, value in enumerate(reference) if not np.isfinite(value)]
        if blown:
            found[f"diverged_{index}"] = float(lost.isel(learning_rate=index, spread=blown).min())
    for index, (rate, mean) in enumerate(POINTS):
        boundary = order_parameter_boundary(data[f"population_{index}"])
        found[f"boundary_{index}"] = boundary.value / float(theory.critical_spread(rate, mean))
    rate, mean = POINTS[0]
    critical = float(theory.critical_spread(rate, mean))
    slope = _rounding(data["critical"])[0]
    predicted = 2 * rate / float(theory.log_variance_two_point(rate, mean, critical))
    return found | {
        "batch": order_parameter_boundary(data["batch_4000"]).value / critical,
        "rounding": slope / predicted,
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The diagram with curve and measured boundaries, the order parameters, and the rounding by a finite batch."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures, theory
    from causal_sgd.analysis import order_parameter_boundary

    drawing, axes = plt.subplot_mosaic("aab;aac", figsize=(9.2, 5.4))
    rates = np.geomspace(LEARNING_RATES[0], LEARNING_RATES[-1], 100)
    measured = [
        (order_parameter_boundary(data[f"population_{index}"]), rate)
        for index, (rate, mean) in enumerate(POINTS)
        if mean == BASE.mean
    ]
    bounds = [[bound.value, rate, bound.low, bound.high] for bound, rate in measured]
    middle, heights, low, high = np.array(bounds).T
    figures.phase_diagram(
        axes["a"], data["diagram"], "spurious_signal", x="spread", y="learning_rate",
        theory={"theory: critical spread": (theory.critical_spread(rates, BASE.mean), rates)},
        boundary=(middle, heights, low, high),
    )  # fmt: skip
    for index, (rate, mean) in enumerate(POINTS):
        part = final(data[f"population_{index}"]).spurious_power.squeeze()
        share = part.spread.values / float(theory.critical_spread(rate, mean))
        label = f"$\\eta = {rate:g}$, $\\mu = {mean:g}$"
        axes["b"].plot(share**2, part.mean("seed") / mean, "osD"[index], label=label)
        slope, start = np.polyfit(share**2, part.mean("seed") / mean, 1)
        axes["b"].plot(
            [share[0] ** 2, -start / slope], [slope * share[0] ** 2 + start, 0], color="0.4", lw=0.8
        )
    axes["b"].axvline(1, color="0.3", ls=":", lw=1)
    axes["b"].set(
        xlabel="$(M / M_c)^2$",
        ylabel="mean $|V^\\top U|^2 / \\mu$",
        title="order parameter, population",
    )
    axes["b"].legend(frameon=False)
    slope, start = _rounding(data["critical"])
    sizes = np.array(BATCH_SIZES, float)
    inverse = 1 / final(data["critical"]).spurious_power.squeeze().mean("seed")
    axes["c"].semilogx(sizes, inverse, "o", label="measured")
    axes["c"].semilogx(sizes, start + slope * np.log(sizes), color="0.4", lw=0.8, label="fit")
    axes["c"].set(
        xlabel="batch size $m$",
        ylabel="1 / mean $|V^\\top U|^2$",
        title="at $M = M_c$: rounded by noise",
    )
    axes["c"].legend(frameon=False)
    return drawing


def _likelihood(values: np.ndarray, reference: float) -> float:
    """Two-sided bootstrap p-value of a reference, printed to two digits, as the median of 8 of the given runs."""
    draws = np.median(np.random.default_rng(0).choice(values, (20_000, 8)), axis=1)
    return float(
        min(1, 2 * min(np.mean(draws <= reference + 0.005), np.mean(draws >= reference - 0.005)))
    )


def _rounding(dataset: xr.Dataset) -> tuple[float, float]:
    """Slope and intercept of 1 / mean |V'U|^2 in the logarithm of the batch size."""
    means = final(dataset).spurious_power.squeeze().mean("seed").values
    slope, start = np.polyfit(np.log(np.array(BATCH_SIZES, float)), 1 / means, 1)
    return float(slope), float(start)

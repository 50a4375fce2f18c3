"""Preconditioned gradients ignore the condition number, and reject in a window of damping only.

ScaledGD multiplies the gradient of a factor by (U'U + lambda I)^-1, that of U V' by the inverse of
the partner's (Tong, Ma and Chi 2021; Xu, Shen, Chi and Ma 2023 with lambda > 0). Near a solution of
rank k and with lambda = 0 the error H moves by H <- H - eta (P A(H) + A(H) P), where P projects on
the range of U and A averages the measurements: no eigenvalue of the signal is left, so the rate is
the same for every condition number kappa, -log(1 - eta) for population gradients. That of plain
gradients is eta sigma_r, 1 / kappa of it. (Re-derived here; the settings are those of the sources,
smaller: m = 5 d r measurements, eta = 0.5, kappa from 1 to 20.)

Plain gradients of U V' keep the imbalance |U'U - V'V| of their start, of order alpha^2, and need
log(1 / alpha) / log(1 + eta sigma_r / 2) steps (Jiang, Chen and Ding 2022): directions of U + V
grow by as much as those of U - V shrink, up to (eta sigma / 2)^2 a step. Preconditioned ones do not
keep it: at alpha = 0.001 the largest imbalance is some 450 times as large.

New is what heterogeneity makes of it. Near zero a spurious direction is multiplied by 1 + (eta /
lambda) s, so that eta / lambda takes the place of the learning rate in the law of the transition:
the direction dies iff 2 mu < (M^2 - mu^2) eta / lambda < mu + (2 M^2 - mu^2)^(1/2), a window.
Too much damping leaves steps that are too short for the environments to contradict each other. Too
little makes every step overshoot. Without damping nothing is rejected, however heterogeneous the
environments are: what makes the rates equal takes the bias away, as it does for Adam.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one, late
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _preconditioned_panels as panels
from causal_sgd.studies.sensing._experiments import TWO_SCALARS
from causal_sgd.studies.sensing._preconditioned import RATE, balance_cell, rate_cell
from causal_sgd.studies.sensing._scalars import deviation, optimized_levels

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options
    from causal_sgd.theory import DampingWindow

METHODS, PLACES = ("plain", "ScaledGD"), ("population", "design")
CONDITIONS = np.array([1.0, 5.0, 10.0, 20.0])
RATE_STEPS = 1000
ERRORS = 1e-5, 1e-3  # relative, between which the rate is fitted: the dynamics are linear there
SCALES = np.geomspace(0.001, 0.03, 4)  # alpha
SLOWEST = 0.5  # sigma_r of the signal whose imbalance is followed
BALANCED_DAMPING, BALANCED_STEPS = 0.1, 120
STEP, MEAN, SPREAD = 0.1, 1.0, 6.0
SCALAR = TWO_SCALARS.replace(
    optimizer="scaled",
    learning_rate=STEP,
    mean=MEAN,
    spread=SPREAD,
    init_scale=0.1,
    steps=1000,
    record_every=20,
    metrics=("spurious_power", "invariant_signal"),
)
TILE = 512
LEVELS = np.array([0.05, 0.2, 0.33, 0.36, 0.45, 0.6, 1.0, 1.3, 2.0, 2.5, 4.0])  # lambda
INSIDE = slice(4, 8)  # the indices of those far inside the window
EDGES = {"low": 0.371, "high": 1.75}  # about where the exponent changes its sign
AROUND = np.array([0.92, 0.96, 1.0, 1.04, 1.08])
PROBE = SCALAR.replace(
    sampler="cyclic", init_scale=1e-12, steps=20, record_every=20, metrics=("spurious_signal",)
)
MATRIX = Experiment(
    dim=20,
    rank=6,
    invariant_rank=2,
    spurious_rank=2,
    measurement="population",
    optimizer="scaled",
    learning_rate=STEP,
    mean=MEAN,
    spread=SPREAD,
    init_scale=0.05,
    steps=1000,
    record_every=20,
    metrics=("spurious_power", "invariant_error"),
)
MATRIX_DAMPING = np.array([0.1, 0.8, 8.0])  # below, inside and above
DIAGRAM_DAMPING = np.geomspace(0.03, 8, 22)
DIAGRAM_SPREADS = np.linspace(0.5, 9, 18)
SCALAR_DRAWS = 512
EXPONENT = "linear dynamics near zero"
CLAIMS = {
    "population": Claim(
        "ScaledGD, population gradients: rate over -log(1 - eta), farthest from 1 over kappa",
        0.99,
        1.01,
        "linearised dynamics",
    ),
    "design": Claim(
        "ScaledGD, 5 d r measurements: rate at kappa = 20 over that at kappa = 1",
        1 / 1.1,
        1.1,
        "linearised dynamics, free of kappa (Tong, Ma and Chi 2021)",
    ),
    "plain": Claim(
        "plain gradients of the population: rate over -log(1 - eta sigma_r), farthest from 1 over "
        "kappa",
        0.97,
        1.03,
        "linearised dynamics",
    ),
    "plain_design": Claim.finding(
        "plain gradients, 5 d r measurements: rate at kappa = 20 over 1/20 of that at kappa = 1"
    ),
    "imbalance": Claim(
        "U V', plain gradients: exponent of alpha in the largest imbalance",
        1.95,
        2.05,
        "conserved by the gradient flow (Jiang, Chen and Ding 2022)",
    ),
    "iterations": Claim(
        "U V', plain gradients: steps to half of sigma_r for each factor of alpha over "
        "1 / log(1 + eta sigma_r / 2)",
        0.97,
        1.03,
        "linear growth (Jiang, Chen and Ding 2022)",
    ),
    "unbalanced": Claim.finding(
        "U V', ScaledGD with lambda = 0.1: largest imbalance over that of plain gradients at the "
        "smallest alpha"
    ),
    # The line through exponents up to 8 % away from the end bends by less than one per cent.
    "low": Claim(
        "damping at which the measured exponent changes its sign over the lower end of the window",
        0.99,
        1.01,
        EXPONENT,
    ),
    "high": Claim(
        "damping at which the measured exponent changes its sign over the upper end of the window",
        0.99,
        1.01,
        EXPONENT,
    ),
    "inside": Claim(
        "damping from 0.45 to 1.3, inside the window: largest median of the final spurious power",
        0,
        1e-6,
        EXPONENT,
    ),
    "outside": Claim(
        "damping outside the window: largest deviation of the mean spurious power from that of the "
        "scalar map, in standard errors",
        0,
        4.5,
        "independent simulation of the scalar map",
    ),
    "undamped": Claim.finding("damping 0.05: mean spurious power over that of pooled training, mu"),
    "invariant": Claim(
        "all dampings: mean invariant power over sigma*, farthest from 1",
        0.999,
        1.001,
        "fixed point",
    ),
    "matrix": Claim(
        "d = 20, k = 6, damping inside the window: median final spurious power over r2 mu",
        0,
        1e-3,
        EXPONENT,
    ),
    "matrix_outside": Claim.finding(
        "d = 20, k = 6, damping 0.1 and 8: smaller median spurious power over r2 mu"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Rates over kappa from 4 seeds (2 when quick); imbalance over alpha from 8 (2); growth near
    zero with the environments in turn around both ends of the window; levels of 256 seeds (64), a
    diagram from 16 (4), and matrices from 32 (8).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    both = {"scaled": [0, 1]}
    data = {
        place: sweep(
            rate_cell(place == "design", RATE_STEPS),
            axes={"condition": CONDITIONS, **both},
            seeds=2 if quick else 4,
            label=place,
            **options,
        )
        for place in PLACES
    }
    data["imbalance"] = sweep(
        balance_cell(SLOWEST, BALANCED_DAMPING, BALANCED_STEPS),
        axes={"init_scale": SCALES, **both},
        seeds=2 if quick else 8,
        label="imbalance",
        **options,
    )
    for end, about in EDGES.items():
        data[end] = sweep(
            PROBE.cell(), axes={"damping": about * AROUND}, label=f"{end} end", **options
        )
    cell = SCALAR.cell()
    for name, seeds, axes in (
        ("levels", 64 if quick else 256, {"damping": LEVELS, "spread": [SPREAD]}),
        ("diagram", 4 if quick else 16, {"damping": DIAGRAM_DAMPING, "spread": DIAGRAM_SPREADS}),
    ):
        data[name] = sweep(cell, axes=axes, seeds=seeds, tile=TILE, label=name, **options)
    data["matrix"] = sweep(
        MATRIX.cell(),
        axes={"damping": MATRIX_DAMPING},
        seeds=8 if quick else 32,
        label="matrices",
        **options,
    )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Rates, exponents of alpha, ends of the window, and levels inside and outside."""
    exact, design = (_rates(data[place]) for place in PLACES)
    expected = {
        "ScaledGD": np.full(len(CONDITIONS), -np.log1p(-RATE)),
        "plain": -np.log1p(-RATE / CONDITIONS),
    }
    ratios = {name: exact[name] / expected[name][:, None] for name in METHODS}
    spread = {name: np.median(design[name][-1] / design[name][0]) for name in METHODS}
    matrix = (data["matrix"].spurious_power.isel(step=-1) / (MATRIX.spurious_rank * MEAN)).median(
        "seed"
    )
    levels = late(data["levels"].isel(spread=0), 0.2)
    final = data["levels"].isel(spread=0).spurious_power.isel(step=-1).median("seed")
    learned = (levels.invariant_signal**2).mean(["seed", "step"])
    return {
        "population": farthest_from_one(ratios["ScaledGD"].ravel()),
        "design": float(spread["ScaledGD"]),
        "plain": farthest_from_one(ratios["plain"].ravel()),
        "plain_design": float(spread["plain"]) * CONDITIONS[-1],
        **_balance(data["imbalance"]),
        **{end: _zero(data[end], end) / getattr(_window(), end) for end in EDGES},
        "inside": float(final.isel(damping=INSIDE).max()),
        "outside": _against_scalars(levels.spurious_power),
        "undamped": float(levels.spurious_power.mean(["seed", "step"])[0]) / MEAN,
        "invariant": farthest_from_one(learned.values),
        "matrix": float(matrix[1]),
        "matrix_outside": float(matrix[[0, 2]].min()),
    }


def _rates(dataset: xr.Dataset) -> dict[str, np.ndarray]:
    """The rates of convergence [kappa, seed] of each method, in relative error."""
    errors = dataset.relative_invariant_error.transpose("scaled", "condition", "seed", "step")
    steps = dataset.step.values

    def rate(row: np.ndarray) -> float:
        fit = (row > ERRORS[0]) & (row < ERRORS[1])
        return -np.polyfit(steps[fit], np.log(row[fit]), 1)[0] if fit.sum() > 2 else np.nan

    return dict(zip(METHODS, np.apply_along_axis(rate, 3, errors.values), strict=True))


def _balance(dataset: xr.Dataset) -> dict[str, float]:
    """How imbalance and time depend on alpha."""
    plain, scaled = (
        dataset.sel(scaled=scaled).imbalance.max("step").median("seed").values for scaled in (0, 1)
    )
    # The slowest direction has half of its level where the error falls to half of sigma_r.
    logs = np.log(SCALES)
    times = _times(dataset)
    return {
        "imbalance": np.polyfit(logs, np.log(plain), 1)[0],
        "iterations": -np.polyfit(logs, times, 1)[0] * np.log1p(RATE * SLOWEST / 2),
        "unbalanced": float(scaled[0] / plain[0]),
    }


def _times(dataset: xr.Dataset) -> np.ndarray:
    """The median steps of plain gradients after which the error is half of sigma_r, [alpha]."""
    part = dataset.invariant_error.sel(scaled=0).transpose("init_scale", "seed", "step")
    steps = part.step.values
    times = [
        [float(np.interp(-SLOWEST / 2, -row, steps)) for row in runs]  # errors that fall
        for runs in np.minimum.accumulate(part.values, 2)
    ]
    return np.median(times, 1)


def _zero(dataset: xr.Dataset, end: str) -> float:
    """The damping at which the mean of log|u| does not change."""
    signals = dataset.spurious_signal.isel(step=-1, seed=0).values
    growth = np.log(signals / PROBE.init_scale)
    slope, intercept = np.polyfit(np.log(AROUND), growth, 1)
    return EDGES[end] * float(np.exp(-intercept / slope))


def _against_scalars(powers: xr.DataArray) -> float:
    """The largest deviation of the mean spurious power outside the window, in standard errors."""
    inside = range(len(LEVELS))[INSIDE]
    outside = [index for index in range(len(LEVELS)) if index not in inside]
    means = powers.mean("step").transpose("damping", "seed").values
    return max(deviation(means[index], _scalar_levels(LEVELS[index])) for index in outside)


@functools.cache  # for the figure, too
def _scalar_levels(damping: float) -> np.ndarray:
    """The time averages of u^2 [draws] of the preconditioned scalar map, in plain NumPy."""

    def rule(g: np.ndarray, u: np.ndarray, memory: dict[str, np.ndarray], t: int) -> np.ndarray:
        return g / (u * u + damping)

    return optimized_levels(
        rule,
        np.array([SPREAD]),
        rate=STEP,
        start=0.1,
        steps=SCALAR.steps,
        every=20,
        draws=SCALAR_DRAWS,
        mean=MEAN,
        after=0.2,
    )[0]


def _window() -> DampingWindow:
    from causal_sgd import theory

    return theory.damping_window(STEP, MEAN, SPREAD)


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Rates over kappa, the window over M, and the levels."""
    from causal_sgd import theory

    ends = theory.damping_window(STEP, MEAN, DIAGRAM_SPREADS)
    low, high = (np.asarray(end) for end in ends)
    valid = high > low
    tables = {
        "window": points(
            {"spread": DIAGRAM_SPREADS[valid]}, {"low": low[valid], "high": high[valid]}
        ),
        "mean levels": late(data["levels"], 0.2).mean(["seed", "step"]).drop_vars("diverged_at"),
    }
    for place in PLACES:
        rates = {name: np.median(rate, 1) for name, rate in _rates(data[place]).items()}
        tables[f"rates, {place}"] = points({"condition": CONDITIONS}, rates)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Convergence for four condition numbers, the imbalance over alpha, the spurious power over the
    damping and over damping and spread, with the window in closed form.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.0, 3.5))
    panels.draw_convergence(axes[0], data["design"])
    panels.draw_imbalance(axes[1], data["imbalance"])
    _draw_levels(axes[2], data)
    _draw_diagram(axes[3], data["diagram"])
    return fig


def _draw_levels(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    window = _window()
    ax.axvspan(float(window.low), float(window.high), color="0.85", label="window of rejection")
    powers = late(data["levels"], 0.2).spurious_power.isel(spread=0).mean(["seed", "step"])
    expected = [_scalar_levels(damping).mean() for damping in LEVELS]
    ax.semilogx(LEVELS, expected, color="black", lw=1, label="scalar map")
    ax.semilogx(LEVELS, powers, "o", color=COLOURS[0], label="runs")
    ax.set(xlabel=r"damping $\lambda$", ylabel=r"mean $|V^\top U|^2$")
    ax.set_title(f"$\\eta = {STEP:g}$, $M = {SPREAD:g}$")
    ax.legend(frameon=False, fontsize="small")


def _draw_diagram(ax: Axes, dataset: xr.Dataset) -> None:
    from matplotlib.colors import Normalize

    from causal_sgd import figures, theory

    level = late(dataset, 0.5).spurious_power.mean("step").to_dataset(name="level")
    level["diverged_at"] = dataset.diverged_at
    spreads = np.linspace(1.01, DIAGRAM_SPREADS[-1], 200)
    low, high = (np.asarray(end) for end in theory.damping_window(STEP, MEAN, spreads))
    open_ = high > low
    figures.phase_diagram(
        ax,
        level,
        "level",
        x="damping",
        y="spread",
        logx=True,
        norm=Normalize(0, 1.5),
        label=r"mean $|V^\top U|^2$",
        legend=False,
        theory={
            "lower end": (low[open_], spreads[open_]),
            "upper end": (high[open_], spreads[open_]),
        },
    )
    ax.set(xlabel=r"damping $\lambda$", ylabel="spread $M$")

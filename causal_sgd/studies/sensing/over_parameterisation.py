"""Spare columns make heterogeneity necessary; the initial scale costs only time.

With exactly k = r1 columns the invariant signal leaves no column to the spurious one, which then
meets s - sigma* in place of s: for mu <= sigma* it dies at every heterogeneity M > 0, far below
M_c. From k = r1 + r2 on the spurious signal has its own column, and k no longer matters, up to k =
d: only an over-parameterised model needs heterogeneity. One would expect more columns to fit more
noise. They do not: the batch noise sustains a bulk outside all signals, but in at most (d - r1 - r2
- 1)/4 columns, as `theory.complement_power` predicts; further ones die. The initial scale changes
the time to learn, by log(1/alpha)/log(1 + eta sigma*), but neither what is learned nor what is
forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, compare_over
from causal_sgd.studies._frames import late, surviving
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=24,
    invariant_rank=2,
    spurious_rank=1,
    learning_rate=0.1,
    batch_size=500,
    steps=3000,
    record_every=10,
    init="gaussian",
    init_scale=0.1,
    metrics=("invariant_error", "complement_signal", "spurious_signal"),
)
RANKS = (2, 3, 4, 6, 8, 12, 24)
BELOW, ABOVE = 2.0, 6.0  # the critical spread is 4.58
SCALED = Experiment(
    dim=24,
    invariant_rank=2,
    spurious_rank=1,
    learning_rate=0.1,
    batch_size=500,
    steps=800,
    record_every=2,
    metrics=("invariant_error", "invariant_signal", "spurious_signal"),
)
SCALES = np.logspace(-6, -1, 6)
# A negative mean: the spurious signal dies without bursts, whose residuals drive the complement.
QUIET = BASE.replace(
    rank=2, mean=-1.0, spread=4.0, steps=1000, record_every=5, metrics=("complement_signal",)
)
QUIET_SIZES = (250, 1000)
# The mean square over `theory.complement_power` at M = 6 by the columns, and its standard error,
# from 256 runs of an independent simulation of the exact law (`benchmarks/plain_simulations.py
# columns`): bursts and terms of second order in eta v add some per cent. The study has 48 seeds.
SIMULATED = {2: (1.041, 0.0023), 4: (1.048, 0.0045), 24: (1.056, 0.0048)}
SEEDS, SIMULATED_SEEDS = 48, 256


def _interval(value: float, error: float) -> tuple[float, float]:
    """Four standard errors, of the study's seeds and of the expected value, around the latter."""
    margin = 4 * error * (1 + SIMULATED_SEEDS / SEEDS) ** 0.5
    return value - margin, value + margin


CLAIMS = (
    {
        f"complement_{rank}": Claim(
            f"M = {ABOVE:g}, k = {rank}: mean square of the complement signal over the prediction",
            *_interval(*expected),
            "random matrices; independent simulation of the exact law",
        )
        for rank, expected in SIMULATED.items()
    }
    | {
        # A frame is a mean of 42 squares, whose noise is (mu +- M)^2 over the last 9.5 steps: its
        # variance is 0.071, and 96 runs have 7400 independent frames. Four standard errors of
        # 0.31 %, and 0.4 % for terms of third order, three times the squared loss of signal at
        # batch 250.
        f"quiet_{size}": Claim(
            f"no bursts, k = r1, batch {size}: mean square of the complement signal over the "
            "prediction of second order",
            0.984,
            1.016,
            "random matrices",
        )
        for size in QUIET_SIZES
    }
    | {
        "quarter": Claim(
            f"M = {ABOVE:g}: the same at k = d over that at k = 8, "
            "the first above r1 + (d - r1 - r2 - 1)/4",
            *_interval(1.0186, 0.0065),
            "random matrices; independent simulation of the exact law",
        ),
        "tight": Claim.finding(f"M = {BELOW:g}, k = r1: mean |V'U|^2 over lambda / eta"),
        "spare": Claim(
            f"M = {BELOW:g}, k = r1 + r2: mean |V'U|^2 over lambda / eta",
            *_interval(0.984, 0.0039),
            "Lyapunov exponent; independent simulation of the exact law",
        ),
        "wide": Claim.finding(f"M = {BELOW:g}: mean |V'U|^2 at k = d over that at k = r1 + r2"),
        "rejected": Claim(
            f"M = {ABOVE:g}: largest median |V'U|^2 over k", 0, 0.02, "Lyapunov exponent"
        ),
        # Frames two steps apart on a range of 121 steps; the noise slows by less than 1 %.
        "time": Claim(
            "slope of the steps to half of A* in the predicted growth time",
            0.97,
            1.03,
            "population dynamics",
        ),
        "floor": Claim.finding(
            f"M = {ABOVE:g}: largest over smallest median error in the last quarter, "
            "over the initial scales"
        ),
        "level": Claim.finding(
            f"M = {BELOW:g}: largest over smallest mean |V'U|^2 in the last quarter, "
            "over the initial scales"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD below and above M_c over the columns k, 48 seeds (4 when quick), and over the
    initial scale, 16 (4); with k = r1 and a negative mean over the batch size, 96 seeds (16).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    axes = {"spread": [BELOW, ABOVE]}
    ranks = {rank: BASE.replace(rank=rank).cell() for rank in RANKS}
    return {
        "columns": compare_over("rank", ranks, axes=axes, seeds=4 if quick else SEEDS, **options),
        "scales": sweep(
            SCALED.cell(),
            axes={"init_scale": SCALES, **axes},
            seeds=4 if quick else 16,
            label="initial scale",
            **options,
        ),
        "quiet": sweep(
            QUIET.cell(),
            axes={"batch_size": QUIET_SIZES},
            seeds=16 if quick else 96,
            label="no bursts",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """What the noise sustains, what is forgotten, and the time to learn."""
    from causal_sgd import theory

    runs = _late(data["columns"], 0.4)
    complement = (runs.complement_signal**2).mean(("seed", "step")).sel(spread=ABOVE)
    values = {
        f"complement_{rank}": float(complement.sel(rank=rank)) / _predicted(rank)
        for rank in SIMULATED
    }
    power = (runs.spurious_signal**2).mean(("seed", "step")).sel(spread=BELOW)
    exponent = float(theory.lyapunov_two_point(BASE.learning_rate, BASE.mean, BELOW))
    level = exponent / BASE.learning_rate
    typical = (runs.spurious_signal**2).median(("seed", "step")).sel(spread=ABOVE)
    last = _late(data["scales"], 0.75)
    floors = last.invariant_error.median(("seed", "step")).sel(spread=ABOVE)
    levels = (last.spurious_signal**2).mean(("seed", "step")).sel(spread=BELOW)
    measured, predicted = _times(data["scales"])
    quiet = (_late(data["quiet"], 0.2).complement_signal ** 2).mean(("seed", "step"))
    return values | {
        **{
            f"quiet_{size}": float(quiet.sel(batch_size=size)) / _quiet(size)
            for size in QUIET_SIZES
        },
        "quarter": float(complement.sel(rank=24) / complement.sel(rank=8)),
        "tight": float(power.sel(rank=2)) / level,
        "spare": float(power.sel(rank=3)) / level,
        "wide": float(power.sel(rank=24) / power.sel(rank=3)),
        "rejected": float(typical.max()),
        "time": float(np.polyfit(predicted, measured, 1)[0]),
        "floor": float(floors.max() / floors.min()),
        "level": float(levels.max() / levels.min()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The settled powers and their prediction, and the steps to half of A*."""
    measured, predicted = _times(data["scales"])
    ranks = np.arange(RANKS[0], RANKS[-1] + 1)
    return {
        "settled": _powers(data["columns"]),
        "predicted": points(
            {"rank": ranks}, {"complement_signal": [_predicted(int(rank)) for rank in ranks]}
        ),
        "steps to half": points(
            {"init_scale": SCALES}, {"measured": measured, "theory": predicted}
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The complement and the spurious signal against the number of columns, and the time to learn
    against the initial scale.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.3))
    _draw_columns(axes[0], axes[1], data["columns"])
    measured, predicted = _times(data["scales"])
    axes[2].semilogx(SCALES, measured, "o", label="median over seeds")
    axes[2].semilogx(
        SCALES, predicted, label="predicted growth time", color="black", lw=1.1, ls="--"
    )
    axes[2].set(
        xlabel=r"initial scale $\alpha$", ylabel="steps to half of $A^\\star$", ylim=(0, None)
    )
    axes[2].legend(frameon=False)
    return fig


def _draw_columns(left: Axes, right: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures

    powers = _powers(dataset)
    ranks = np.arange(RANKS[0], RANKS[-1] + 1)
    figures.final_value(
        left,
        powers.sel(spread=ABOVE),
        "complement_signal",
        along="rank",
        logx=True,
        theory={"predicted": (ranks, [_predicted(int(rank)) for rank in ranks])},
        mark={"$r_1$ + a quarter of $d$": BASE.invariant_rank + (BASE.dim - 4) / 4},
        label=r"complement $\|U_\perp^\top U\|_F^2$",
    )
    left.set_ylim(bottom=0)
    figures.final_value(
        right,
        powers,
        "spurious_signal",
        along="rank",
        over="spread",
        logx=True,
        mark={"$r_1 + r_2$": BASE.invariant_rank + BASE.spurious_rank},
        label=r"$\|V^\top U\|_F^2$",
    )
    for ax in (left, right):
        ax.set_xlabel("columns $k$")


def _late(dataset: xr.Dataset, after: float) -> xr.Dataset:
    """The metrics of the surviving runs after a share of the run."""
    return late(surviving(dataset).isel(step=slice(1, None)), after)


def _powers(dataset: xr.Dataset) -> xr.Dataset:
    """The squares of the metrics, averaged over the settled steps of each run."""
    return (_late(dataset, 0.4) ** 2).mean("step").assign(diverged_at=dataset.diverged_at)


def _predicted(rank: int) -> float:
    from causal_sgd import theory

    return float(
        theory.complement_power(
            np.hypot(ABOVE, BASE.mean),
            rank=rank,
            learning_rate=BASE.learning_rate,
            batch_size=BASE.batch_size,
            dim=BASE.dim,
            invariant_rank=BASE.invariant_rank,
            spurious_rank=BASE.spurious_rank,
        )
    )


def _quiet(batch_size: int) -> float:
    """The power of the complement at k = r1 to second order in eta and 1/m.

    With eta v the noise of an entry of the gradient, an entry outside has the variance eta v /
    (2 - eta - eta v), since the noise lowers the learned signal. The residual in v contains the
    error itself, twice this power.
    """
    from causal_sgd import theory

    eta, power = QUIET.learning_rate, 0.0
    for _ in range(20):
        power = float(
            theory.complement_power(
                np.hypot(QUIET.spread, QUIET.mean),
                rank=QUIET.invariant_rank,
                learning_rate=eta,
                batch_size=batch_size,
                dim=QUIET.dim,
                invariant_rank=QUIET.invariant_rank,
                spurious_rank=QUIET.spurious_rank,
                label_noise=(2 * power) ** 0.5,
            )
        )
        outside = QUIET.dim - QUIET.invariant_rank - QUIET.spurious_rank
        driven = power * (2 - eta) / (QUIET.invariant_rank * outside)  # eta v
        power *= (2 - eta) / (2 - eta - driven)
    return power


def _times(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Steps until half of A* is learned by initial scale: medians above M_c, and
    `theory.growth_time`.
    """
    from causal_sgd import theory

    signal = dataset.sel(spread=ABOVE).invariant_signal ** 2
    reached = (signal >= BASE.invariant_rank / 2).idxmax("step") * 1.0
    predicted = theory.growth_time(1.0, learning_rate=BASE.learning_rate, init_scale=SCALES)
    return reached.median("seed").values, np.asarray(predicted)

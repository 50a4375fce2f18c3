"""Heterogeneity first helps, then hurts: the distance to A* is U-shaped, with a predicted floor.

Above the critical spread the spurious signal is gone, but its residual remains, with the mean
square E s^2 = mu^2 + M^2: it keeps shaking the invariant signal, and to first order the error grows
like sqrt((mu^2 + M^2) r1 r2 d eta sigma* / (2 m)). The error is itself a part of the residual;
`theory.noise_level` solves for both. PooledSGD learns the spurious signal at every heterogeneity.

The best heterogeneity depends on the batch. Below m of about r1 d sigma* / mu the best is none: the
noise of heterogeneity costs more than the spurious signal it removes. Above, theory places the
optimum at M_c for every batch, and the typical run agrees. The mean square error does not: the
noise keeps feeding the spurious direction, whose rare bursts cost most near M_c. Heterogeneity pays
from about twice the predicted batch on, and its optimum moves from below M_c to well above it as
the batch grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final, summary
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, both_methods
from causal_sgd.studies._frames import diverged_share, farthest_from_one, late, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._predictions import (
    critical_spread,
    floor_margins,
    second_order_floor,
)

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = Experiment(
    dim=30,
    invariant_rank=2,
    spurious_rank=1,
    learning_rate=0.1,
    batch_size=1000,
    steps=600,
    metrics=("invariant_error", "pooled_error", "invariant_signal", "spurious_signal"),
)
SPREADS = np.arange(0, 8.25, 0.5)
BATCH_SIZES = (500, 1000, 2000, 4000)
LARGE, LARGEST = 6.0, 8.0
FLOOR = BASE.replace(record_every=5, metrics=("invariant_error",))
SMALL = BASE.replace(
    dim=12,
    init_scale=0.03,
    steps=1500,
    record_every=10,
    metrics=("invariant_error",),
)
SHARES = np.array([0, 0.5, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4, 1.6])  # of the critical spread
SMALL_SIZES = (12, 24, 48, 96, 384, 1536)
# The median distance over the floor of second order, from five cells of 256 runs each of an
# independent simulation of the exact law (`benchmarks/plain_simulations.py distances`: 1.010 to
# 1.012, with a standard error of 0.002 each). The noise that multiplies in the spurious row adds
# 0.7 % at M = 6 in linearised theory, and bursts the rest. The margins are four standard errors of
# 64 seeds, of 0.004.
MEDIAN = 1.011
LOW, HIGH = floor_margins(0.0042)
CLAIMS = {
    f"floor_{size}": Claim(
        f"M = 6, batch {size}: median distance to A* over that of the floor of second order",
        LOW,
        HIGH,
        "error floor of second order",
    )
    for size in BATCH_SIZES
} | {
    "left": Claim(
        "HeteroSGD: error at M = 0 over |mean A_e|", 0.999, 1.001, "fixed point of pooled training"
    ),
    "right": Claim(
        "HeteroSGD: median error at M = 8 over that of the floor of second order",
        LOW,
        HIGH,
        "error floor of second order",
    ),
    "bottom": Claim(
        "HeteroSGD: M of the smallest median error over the critical spread (lower in finite runs)",
        0.6,
        1.25,
        "optimal heterogeneity",
    ),
    "pays": Claim(
        "d = 12: batch from which heterogeneity of at least 0.8 M_c lowers the mean square error, "
        "over r1 d sigma* / mu",
        1,
        4,
        "optimal heterogeneity",
    ),
    "typical": Claim(
        "d = 12, batch 1536: M of the smallest median error over the critical spread",
        0.75,
        1.25,
        "optimal heterogeneity",
    ),
    "mean_square": Claim.finding(
        "d = 12, batch 1536: M of the smallest mean square error over the critical spread"
    ),
    # The median of 32 seeds of an error of some 90 normal numbers has a standard error of 1.3 %.
    "pooled": Claim(
        "PooledSGD, M from 4 to 8: distance to A* + mean A_e over the floor of second order, "
        "farthest from 1",
        0.96,
        1.04,
        "error floor of second order",
    ),
    "apart": Claim(
        "PooledSGD: smallest error over |mean A_e|", 0.98, 1.02, "fixed point of pooled training"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Both methods over the heterogeneity, 32 seeds (16 when quick); HeteroSGD at M = 6 and 8
    over the batch size, 64 seeds (16); long runs of HeteroSGD at d = 12 over both, 16 seeds (6).
    """
    from causal_sgd.sweeps import compare, sweep

    seeds = 16 if quick else 32
    options: Options = {"key": key, "progress": progress}
    return {
        "spread": compare(both_methods(BASE), axes={"spread": SPREADS}, seeds=seeds, **options),
        "floor": sweep(
            FLOOR.cell(),
            axes={"batch_size": BATCH_SIZES, "spread": [LARGE, LARGEST]},
            seeds=16 if quick else 64,
            label="error floor",
            **options,
        ),
        "optimum": sweep(
            SMALL.cell(),
            axes={"batch_size": SMALL_SIZES, "spread": SHARES * critical_spread(SMALL)},
            seeds=6 if quick else 16,
            label="optimal heterogeneity",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The floors, the U shape and its minimum, and what PooledSGD learns, as medians over seeds."""
    floors = late(surviving(data["floor"]), 0.5).invariant_error.median(("seed", "step"))
    values = {
        f"floor_{size}": float(floors.sel(spread=LARGE, batch_size=size))
        / (MEDIAN * float(_floor(LARGE, size)))
        for size in BATCH_SIZES
    }
    largest = floors.sel(spread=LARGEST, batch_size=BASE.batch_size)
    hetero, pooled = (
        summary(final(data["spread"].sel({"variant": name})), "invariant_error")["median"].values
        for name in ("HeteroSGD", "PooledSGD")
    )
    bottom = int(np.argmin(hetero))
    errors = _late_errors(data["optimum"])
    squares = (errors**2).mean(("seed", "step"))
    median_best, square_best = (
        SHARES[int(table.isel(batch_size=-1).argmin("spread"))]
        for table in (errors.median(("seed", "step")), squares)
    )
    predicted = SMALL.invariant_rank * SMALL.dim * SMALL.invariant_eigenvalue
    return values | {
        "pays": _paying_batch(squares) * SMALL.mean / predicted,
        "typical": median_best,
        "mean_square": square_best,
        "left": hetero[0] / (BASE.mean * BASE.spurious_rank**0.5),
        "right": float(largest) / (MEDIAN * float(_floor(LARGEST))),
        "bottom": SPREADS[bottom] / critical_spread(BASE),
        "apart": pooled.min() / (BASE.mean * BASE.spurious_rank**0.5),
        "pooled": _pooled(data["spread"]),
    }


def _floor(spread: ArrayLike, batch_size: ArrayLike = BASE.batch_size) -> np.ndarray:
    """The second-order floor of HeteroSGD, in which the mean adds to the residual."""
    learned = BASE.invariant_rank
    return second_order_floor(
        BASE,
        np.hypot(np.asarray(spread, float), BASE.mean),
        learned=learned,
        rows=BASE.dim - learned,
        batch_size=batch_size,
    )


def _pooled(dataset: xr.Dataset) -> float:
    """The distances of PooledSGD to A* + mean A_e over the floor, at M from 4 on: farthest from 1.

    All r1 + r2 directions are learned, and the spread alone is the residual.
    """
    runs = final(dataset.sel({"variant": "PooledSGD"}).sel(spread=slice(4, None)))
    errors = summary(runs, "pooled_error")["median"]
    learned = BASE.invariant_rank + BASE.spurious_rank
    spreads = np.asarray(errors.spread, float)
    floor = second_order_floor(BASE, spreads, learned=learned, rows=BASE.dim - learned)
    return farthest_from_one((errors / floor).values)


def _paying_batch(squares: xr.DataArray) -> float:
    """The batch size from which heterogeneity lowers the mean square error [batch_size, spread]."""
    gains = np.log(
        (squares.isel(spread=slice(2, None)).min("spread") / squares.isel(spread=0)).values
    )
    after = int(np.argmax(gains < 0))  # the first batch size at which it does
    sizes = np.log([SMALL_SIZES[after], SMALL_SIZES[after - 1]])
    return np.exp(np.interp(0, [gains[after], gains[after - 1]], sizes))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The predicted floors, the critical spread, and the root mean square error of long runs."""
    critical = critical_spread(BASE)
    spreads = SPREADS[critical <= SPREADS]
    roots = (_late_errors(data["optimum"]) ** 2).mean(("seed", "step")) ** 0.5
    return {
        "predicted floor": points({"spread": spreads}, {"invariant_error": _floor(spreads)}),
        "predicted floor of batches": points(
            {"spread": LARGE, "batch_size": BATCH_SIZES},
            {"invariant_error": _floor(LARGE, np.array(BATCH_SIZES, float))},
        ),
        "theory": points({}, {"critical_spread": critical}),
        "long runs": roots.to_dataset(name="root_mean_square_error"),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The spurious signal and the distance to A* against the heterogeneity, the floor against the
    batch size, and the root mean square error of long runs.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(2, 2, figsize=(8.4, 6.8))
    critical = critical_spread(BASE)
    spreads = SPREADS[critical <= SPREADS]
    floor = {"predicted floor": (spreads, _floor(spreads))}
    metrics = (("spurious_signal", None), ("invariant_error", floor))
    for ax, (metric, curve) in zip(axes[0], metrics, strict=True):
        figures.final_value(
            ax,
            data["spread"],
            metric,
            along="spread",
            over="variant",
            mark={"$M_c$": critical},
            theory=curve,
        )
    sizes = np.array(BATCH_SIZES, float)
    figures.final_value(
        axes[1, 0],
        data["floor"].sel(spread=LARGE),
        "invariant_error",
        along="batch_size",
        theory={"predicted floor": (sizes, _floor(LARGE, sizes))},
        logx=True,
        logy=True,
    )
    axes[1, 0].set_title("HeteroSGD, $M = 6$")
    _draw_optimum(axes[1, 1], data["optimum"])
    return fig


def _draw_optimum(ax: Axes, dataset: xr.Dataset) -> None:
    from matplotlib import pyplot as plt

    roots = (_late_errors(dataset) ** 2).mean(("seed", "step")) ** 0.5
    for index, size in enumerate(SMALL_SIZES):
        colour = plt.get_cmap("viridis")(index / len(SMALL_SIZES))
        ax.plot(
            SHARES,
            roots.sel(batch_size=size),
            color=colour,
            marker="osD^vP"[index],
            label=f"$m$ = {size}",
        )
    ax.axvline(1, color="0.3", ls=(0, (6, 2, 1, 2)), lw=1)
    ax.set(
        xlabel="$M / M_c$",
        ylabel="root mean square error",
        ylim=(0, 2.2),
        title="$d = 12$, long runs",
    )
    ax.legend(frameon=False, ncols=2)


def _late_errors(dataset: xr.Dataset) -> xr.DataArray:
    """Distances to A* after two fifths of the run; NaN where most runs of a cell diverge."""
    errors = surviving(dataset).invariant_error.where(diverged_share(dataset) <= 0.5)
    return late(errors, 0.4)

"""The same transition and the same floor from d = 100 to d = 10,000, at the same d / m.

The model is a factor with k = 20 columns, the measurement `measurements.low_rank_law`, which forms
no d x d array. The spurious direction is a scalar, independent of the dimension: at one ratio d / m
it grows or decays as at d = 100, seed by seed, since all dimensions see the same environments in
the same order. The error floor depends on d / m alone, like sqrt(d / m) over three decades, as long
as the bulk that the noise feeds outside the signals stays small (`over-parameterisation`). The
remainder of a rejected signal depends on m alone: one direction receives the noise of one entry of
the gradient, of variance 1 / m, so that at one d / m a large dimension rejects better, like 1 /
sqrt(m).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._frames import mean_and_error, surviving
from causal_sgd.studies.sensing._predictions import (
    error_floor,
    second_order_floor,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

BASE = Experiment(
    measurement="low-rank-law",
    rank=20,
    invariant_rank=2,
    spurious_rank=1,
    learning_rate=0.1,
    init_scale=1e-4,
    steps=200,
    record_every=10,
    metrics=("invariant_error", "spurious_signal"),
)
DIMS = (100, 1000, 10_000)
SPREADS = (2.0, 6.0)  # the critical spread is 4.58
EXAMPLES = 100  # per dimension, in a batch that compares dimensions
LARGE = 6.0
BATCH_SIZES = (250_000, 4_000_000)
SETTLED = 150  # steps: A* is learned after about 80
FEW, MANY = 2, 32  # seeds
SEEDS = dict(zip(DIMS, (MANY, MANY, FEW), strict=True))  # from which the floor is measured


def _interval(dim: int, seeds: int) -> tuple[float, float]:
    """The interval of a median distance over 50 settled steps, over the floor of second order.

    The squared residual is (mu +- M)^2 by the step's environment, the same in every dimension, and
    the squared floor its running mean. The floor itself is a sum over r1 d squares, which forget
    their past in (1 + a) / (1 - a) steps with a = (1 - eta)^2. The median of the linearised theory
    (see `floor_margins`) is 0.7 % above its root mean square at d = 30, and like 1/d.
    """
    relative = 2 * BASE.mean * LARGE / (LARGE**2 + BASE.mean**2)
    memory = (1 - BASE.learning_rate) ** 2
    independent = 50 * (1 - memory) / (1 + memory)
    squares = BASE.invariant_rank * dim
    variance = relative**2 / (50 * seeds) + 2 / squares / (independent * seeds)
    margin = 3 * (np.pi / 2 * variance / 4) ** 0.5
    centre = 1 + 0.0071 * 28 / (dim - BASE.invariant_rank)
    return centre - margin, centre + margin


CLAIMS = {
    f"floor_{dim}": Claim(
        f"d = {dim}, M = 6: distance to A* over the floor of second order",
        *_interval(dim, seeds),
        "error floor of second order",
    )
    for dim, seeds in SEEDS.items()
} | {
    "exponent": Claim("M = 6: exponent of the distance to A* in d / m", 0.48, 0.53, "error floor"),
    "equal": Claim(
        "M = 6, m = 100 d: distance to A* at d = 10,000 over that at d = 100, same environments",
        0.85,
        1.15,
        "error floor",
    ),
    "learned": Claim(
        "M = 2, m = 100 d: final |V'U| at d = 10,000 over that at d = 100, same environments",
        0.9,
        1.1,
        "Lyapunov exponent",
    ),
    "growth": Claim(
        "M = 2, m = 100 d: growth of log|V'U| up to step 60, d = 10,000 less d = 100: "
        "farthest from 0 over seeds",
        -0.3,
        0.3,
        "Lyapunov exponent",
    ),
    # Student's t at MANY seeds: 0.1 % lies outside.
    "rejected": Claim(
        "M = 6, m = 100 d: exponent of |V'U| in d from 100 to 1000, deviation from -1/2, "
        "in standard errors",
        0,
        3.5,
        "noise of the batches, of variance 1/m",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD in three dimensions: over M at m = 100 d with 4 seeds, and over the batch size at M
    = 6 with 2 (1 of each when quick); at M = 6 in the smaller dimensions with 32 (8).
    """
    import xarray as xr

    from causal_sgd.sweeps import sweep

    parts: dict[str, list[xr.Dataset]] = {"transition": [], "floor": [], "many": []}
    options: Options = {"key": key, "progress": progress}
    for dim in DIMS:
        cell = BASE.replace(dim=dim).cell()
        axes = {"spread": SPREADS, "batch_size": [EXAMPLES * dim]}
        runs = sweep(cell, axes=axes, seeds=1 if quick else 4, label=f"d = {dim}", **options)
        parts["transition"].append(runs.squeeze("batch_size", drop=True))
        axes = {"spread": [LARGE], "batch_size": BATCH_SIZES}
        parts["floor"].append(
            sweep(cell, axes=axes, seeds=1 if quick else FEW, label=f"d = {dim}", **options)
        )
        if SEEDS[dim] == MANY:
            axes = {"spread": [LARGE], "batch_size": [EXAMPLES * dim]}
            runs = sweep(cell, axes=axes, seeds=8 if quick else MANY, label="many", **options)
            parts["many"].append(runs.squeeze("batch_size", drop=True))
    return {
        name: xr.concat(datasets, dim=xr.Variable("dim", list(DIMS[: len(datasets)])))
        for name, datasets in parts.items()
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The floor in every dimension, and the transition in the largest against the smallest."""
    errors = _errors(data["floor"])
    shares = errors.dim / errors.batch_size
    ratios = {
        dim: float(_errors(data["many"]).sel(dim=dim) / _floor(dim, EXAMPLES * dim))
        for dim in DIMS[:-1]
    }
    largest, size = DIMS[-1], BATCH_SIZES[-1]
    ratios[largest] = float(errors.sel(dim=largest, batch_size=size) / _floor(largest, size))
    slope = np.polyfit(np.log(shares).values.ravel(), np.log(errors.values).ravel(), 1)[0]
    runs = data["transition"]
    ends = [0, runs.sizes["dim"] - 1]
    equal = _over_smallest(_errors(runs).sel(spread=LARGE))
    signals = runs.spurious_signal
    last = _over_smallest(signals.sel(step=slice(SETTLED, None)).median(("seed", "step")))
    settled = np.log(data["many"].spurious_signal.sel(step=slice(SETTLED, None), spread=LARGE))
    exponents = settled.mean("step").diff("dim").squeeze("dim") / np.log(DIMS[1] / DIMS[0])
    exponent, error = mean_and_error(exponents)
    logs = np.log(signals.sel(spread=2.0))
    # Relative to the start, which is another draw in every dimension.
    growth = (logs.sel(step=60) - logs.sel(step=0)).isel(dim=ends)
    differences = growth.diff("dim").values.ravel()
    values = {f"floor_{dim}": ratio for dim, ratio in ratios.items()}
    return values | {
        "exponent": float(slope),
        "equal": float(equal),
        "learned": float(last.sel(spread=2.0)),
        "growth": float(differences[np.argmax(np.abs(differences))]),
        "rejected": float(np.abs(exponent + 0.5) / error),
    }


def _over_smallest(values: xr.DataArray) -> xr.DataArray:
    """Values in the largest dimension over those in the smallest."""
    return values.isel(dim=-1) / values.isel(dim=0)


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The settled distances at M = 6, and their predicted floor."""
    errors = _errors(data["floor"])
    return {
        "settled": errors.to_dataset(name="invariant_error"),
        "predicted floor": (_unit_floor() * (errors.dim / errors.batch_size) ** 0.5).to_dataset(
            name="invariant_error"
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The spurious signal against the step in every dimension, and the floor against d / m."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    fig, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for index, spread in enumerate(SPREADS):
        figures.trajectories(
            axes[index],
            data["transition"].sel(spread=spread),
            "spurious_signal",
            over="dim",
            logy=True,
            legend=not index,
        )
        axes[index].set_title(f"heterogeneity $M = {spread:g}$, $m = {EXAMPLES}\\,d$")
    _draw_floor(axes[2], _errors(data["floor"]))
    return fig


def _draw_floor(ax: Axes, errors: xr.DataArray) -> None:
    from causal_sgd import figures

    dims, sizes = errors.dim, errors.batch_size
    for index, dim in enumerate(dims.values):
        ax.loglog(
            dim / sizes,
            errors.sel(dim=dim),
            "osD"[index],
            color=figures.COLOURS[index],
            label=f"$d$ = {dim}",
        )
    ratios = np.geomspace(dims.min() / sizes.max(), dims.max() / sizes.min(), 50)
    floor = _unit_floor() * np.sqrt(ratios)
    ax.loglog(ratios, floor, label="predicted floor", color="black", lw=1.1, ls="--")
    ax.set(xlabel="$d / m$", ylabel=r"$\|UU^\top - A^\star\|_F$", title=f"$M = {LARGE:g}$")
    ax.legend(frameon=False)


def _errors(dataset: xr.Dataset) -> xr.DataArray:
    """Distance to A*, median over seeds and settled steps, without axes of length one."""
    errors = surviving(dataset).invariant_error.sel(step=slice(SETTLED, None))
    return errors.median(("seed", "step")).squeeze()


def _floor(dim: int, batch_size: float) -> float:
    """The second-order floor; the bulk of the spare columns takes longer to grow than the runs."""
    learned = BASE.invariant_rank
    floor = second_order_floor(
        BASE.replace(dim=dim),
        np.hypot(LARGE, BASE.mean),
        learned=learned,
        rows=dim - learned,
        spare=0,
        batch_size=batch_size,
    )
    return float(floor)


def _unit_floor() -> float:
    """The floor at d / m = 1; it grows like the root of that ratio, on which alone it depends."""
    spread = np.hypot(LARGE, BASE.mean)
    return float(error_floor(BASE, spread, batch_size=1.0, dim=1.0))

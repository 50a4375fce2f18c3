"""Averaging over environments makes heterogeneity harmful; one environment a round keeps the bias.

In a round the spurious direction is multiplied by the mean of (1 + eta s_e)^K over the
participating environments. With one of them this is HeteroSGD that stays for K steps: the same
exponent per step, and the same boundary for every K. With all of them the mean is at least that of
pooled training, and grows with the heterogeneity: FedAvg not only learns the spurious signal, it
learns *more* of it than PooledSGD. With two of them the boundary moves out. One would expect the
proximal term of FedProx, which holds the environments together, to preserve the bias where one
environment participates in a round. It does not, as it limits how much a contradicting environment
forgets. The control variates of SCAFFOLD estimate the pooled gradient, and follow it even where one
environment participates; with many local steps they overshoot it. Accumulated batches are mixed
batches: the boundary grows like the square root of their number. (Population gradients in two
environments with the eigenvalues 1 +- M, learning rate 0.1.)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._frames import late
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._federated_methods import (
    BASE,
    EVERY,
    LOCAL_STEPS,
    METHODS,
    PROGRAMS,
    SMALL,
    SPREADS,
    TINY,
    boundary,
    fixed_point,
    predicted,
)
from causal_sgd.studies.sensing._scalars import deviation, local_rounds

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.figures import Diagram
    from causal_sgd.studies._cells import Cell, Options


TILE = 256  # one size, so that all methods of a program share its compilation
LARGE = float(SPREADS[10])
PROBED = tuple(float(spread) for spread in SPREADS[[3, 6, 10]])  # the exponent is measured here
PROBED_STEPS = (1, 4)
CLAIMS = {
    name: Claim(
        f"{name}: largest deviation of the measured growth rates from the linear theory, "
        + ("relative" if method.participants is None else "in standard errors"),
        0,
        1e-3 if method.participants is None else 4.5,
        "linear regime",
    )
    for name, method in METHODS.items()
} | {
    "convex": Claim(
        "FedAvg, all: smallest growth rate over that of pooled training",
        1 - 1e-6,
        np.inf,
        "convexity",
    ),
    "harm": Claim(
        "FedAvg, all, K = 8, M = 6: spurious power over the fixed point of the averaged maps",
        0.99,
        1.01,
        "scalar map",
    ),
    "more": Claim(
        "FedAvg, all, K = 8, M = 6: spurious power over PooledSGD's, over that of the fixed points",
        0.99,
        1.01,
        "scalar map",
    ),
    "kept": Claim(
        "FedAvg, one, M = 6: largest spurious power over mu at any K",
        0,
        0.05,
        "Lyapunov exponent",
    ),
    "scaffold": Claim(
        "SCAFFOLD, one, K = 1, M = 6: median spurious power over mu",
        0.999,
        1.001,
        "fixed point of the pooled gradient",
    ),
    "overshoot": Claim.finding("SCAFFOLD, one, K = 8, M = 6: median spurious power over mu"),
    "proximal": Claim(
        "FedProx, one, M = 6, K >= 2: largest deviation of the mean spurious power from that of "
        "the scalar map, in standard errors",
        0,
        4.5,
        "independent simulation of the scalar map",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Growth rates of every method from 400 runs (100 when quick) with a tiny start, and diagrams
    from 32 runs (8).
    """
    from causal_sgd.sweeps import sweep

    data = {}
    cells = {name: _cell(BASE.replace(**options), name) for name, options in PROGRAMS.items()}
    options: Options = {"key": key, "progress": progress}
    for name, method in METHODS.items():
        fixed = {} if method.along == "accumulate" else {"proximal": [method.proximal]}
        short = {**fixed, method.along: PROBED_STEPS, "spread": PROBED, "init_scale": [TINY]}
        long = {**fixed, method.along: LOCAL_STEPS, "spread": SPREADS, "init_scale": [SMALL]}
        cell = cells[method.program]
        factor = 1 if method.participants is None else 4 if quick else 16
        rates = sweep(
            cell,
            axes=short,
            seeds=max(2, 25 * factor),
            tile=TILE,
            label=f"growth, {name}",
            **options,
        )
        levels = sweep(cell, axes=long, seeds=2 * factor, tile=TILE, label=name, **options)
        frames = [step // EVERY for step in (0, method.settled, method.rounds)]
        rates = rates.squeeze([*fixed, "init_scale"], drop=True)
        data[f"growth of {name}"] = rates.isel(step=frames)
        last = late(levels.squeeze([*fixed, "init_scale"], drop=True), 0.75)
        power = (last.spurious_signal**2).mean("step") / BASE.mean
        data[name] = last[["diverged_at"]].assign(level=power).drop_vars("step", errors="ignore")
    return data


def _cell(experiment: Experiment, program: str) -> Cell:
    """The cell of a program, whose parameters are the numbers in which its methods differ."""
    base = experiment.cell()
    if program == "accumulation":
        return lambda key, *, spread, init_scale, accumulate: base(
            key, spread=spread, init_scale=init_scale, accumulate=accumulate
        )
    return lambda key, *, spread, init_scale, local_steps, proximal: base(
        key, spread=spread, init_scale=init_scale, local_steps=local_steps, proximal=proximal
    )


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The growth rates against theory, and the levels that long runs reach."""
    values = {name: _deviation(data[f"growth of {name}"], name) for name in METHODS}
    pooled = np.log1p(BASE.learning_rate * BASE.mean)
    rates = [
        predicted("FedAvg, all", SPREADS, steps)[0] / (steps * pooled) for steps in LOCAL_STEPS
    ]
    levels = {name: data[name].level.where(data[name].diverged_at < 0) for name in METHODS}
    large = {name: level.sel(spread=LARGE).mean("seed") for name, level in levels.items()}
    everyone = float(large["FedAvg, all"].sel(local_steps=8))
    scaffold = levels["SCAFFOLD, one"].sel(spread=LARGE).median("seed")
    plain = data["FedAvg, all"].level.sel(spread=0.0, local_steps=1)
    return values | {
        "convex": float(np.min(rates)),
        "harm": everyone * BASE.mean / fixed_point(LARGE, 8) ** 2,
        "more": everyone
        / float(plain.mean("seed"))
        / (fixed_point(LARGE, 8) / fixed_point(0.0, 1)) ** 2,
        "kept": float(large["FedAvg, one"].max()),
        "scaffold": float(scaffold.sel(local_steps=1)),
        "overshoot": float(scaffold.sel(local_steps=8)),
        "proximal": _proximal(levels["FedProx, one"].sel(spread=LARGE)),
    }


def _proximal(levels: xr.DataArray) -> float:
    """The deviation of FedProx with one environment from the scalar map, at K > 1."""
    deviations = []
    for steps in LOCAL_STEPS[1:]:
        expected = local_rounds(
            BASE.learning_rate,
            LARGE,
            proximal=METHODS["FedProx, one"].proximal,
            local_steps=steps,
            start=SMALL,
            rounds=BASE.steps,
            draws=4000,
            mean=BASE.mean,
        )
        measured = levels.sel(local_steps=steps).dropna("seed").values
        deviations.append(deviation(measured, expected / BASE.mean))
    return max(deviations)


def _deviation(dataset: xr.Dataset, name: str) -> float:
    """The largest deviation of a method's growth rates from theory, as its claim states it."""
    from causal_sgd.analysis import growth_rate

    method = METHODS[name]
    growth = growth_rate(dataset)
    deviations = []
    for steps in PROBED_STEPS:
        exact, error = predicted(name, PROBED, steps)
        measured = growth.sel({method.along: steps})
        if method.participants is None:
            scale = np.abs(exact)
        else:
            scale = np.hypot(measured.standard_error.values, error)
        deviations.append(np.abs(measured.rate.values - exact) / scale)
    return float(np.max(deviations))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The growth rates against theory, the curves of zero exponent, and the fixed points."""
    from causal_sgd.analysis import growth_rate

    tables = {}
    for name, method in METHODS.items():
        growth = growth_rate(data[f"growth of {name}"]).transpose(method.along, "spread")
        settings = {method.along: np.array(PROBED_STEPS)[:, None], "spread": PROBED}
        numbers = {
            "measured": growth.rate.sel({method.along: list(PROBED_STEPS)}).values,
            "standard_error": growth.standard_error.sel({method.along: list(PROBED_STEPS)}).values,
            "theory": [predicted(name, PROBED, step)[0] for step in PROBED_STEPS],
        }
        tables[f"growth rates of {name}"] = points(settings, numbers)
        if (curve := _curve(name)) is not None:
            tables[f"zero exponent of {name}"] = points(
                {method.along: curve[1]}, {"spread": curve[0]}
            )
    settings = {"local_steps": np.array(LOCAL_STEPS)[:, None], "spread": SPREADS}
    levels = [
        [fixed_point(spread, step) ** 2 / BASE.mean for spread in SPREADS] for step in LOCAL_STEPS
    ]
    return tables | {"fixed points": points(settings, {"level": levels})}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """A diagram for each method with the curve of zero exponent; the growth rates against theory;
    and the levels that averaging over all environments reaches.
    """
    from matplotlib import pyplot as plt

    names = list(METHODS)
    fig, axes = plt.subplot_mosaic(
        [[*names[:4]], [*names[4:]], ["rates", "rates", "levels", "levels"]],
        figsize=(11.0, 8.2),
        height_ratios=[1, 1, 1.25],
    )
    diagrams = [_draw_diagram(axes[name], data[name], name) for name in METHODS]
    for name in METHODS:
        axes[name].set(xlabel="spread $M$" if name in names[4:] else "", ylabel="")
    for name in ("FedAvg, one", "FedProx, one"):
        axes[name].set_ylabel("local steps $K$")
    axes["accumulation"].set_ylabel("batches per update")
    fig.colorbar(
        diagrams[-1].mesh,
        ax=[axes[name] for name in METHODS],
        label="mean $|V^\\top U|^2 / \\mu$",
        extend="max",
        pad=0.01,
    )
    _draw_rates(axes["rates"], data)
    _draw_levels(axes["levels"], data["FedAvg, all"])
    return fig


def _draw_diagram(ax: Axes, dataset: xr.Dataset, name: str) -> Diagram:
    from matplotlib.colors import Normalize

    from causal_sgd import figures

    curve = _curve(name)
    diagram = figures.phase_diagram(
        ax,
        dataset,
        "level",
        x="spread",
        y=METHODS[name].along,
        logy=True,
        norm=Normalize(0, 1.5),
        colorbar=False,
        legend=False,
        theory=None if curve is None else {"$\\lambda = 0$": curve},
    )
    ax.set_title(name)
    ax.set_yticks(LOCAL_STEPS, [str(k) for k in LOCAL_STEPS])
    ax.minorticks_off()
    return diagram


@functools.cache  # for the figure and its table
def _curve(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The curve of zero exponent, as spreads and numbers of local steps."""
    return boundary(name)


def _draw_rates(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures
    from causal_sgd.analysis import growth_rate

    for index, (name, method) in enumerate(METHODS.items()):
        growth = growth_rate(data[f"growth of {name}"])
        colour = figures.COLOURS[index] if index < len(figures.COLOURS) else "0.5"
        for steps, marker in zip(PROBED_STEPS, "os", strict=True):
            measured = growth.sel({method.along: steps})
            ax.errorbar(
                predicted(name, PROBED, steps)[0],
                measured.rate,
                2 * measured.standard_error,
                fmt=marker,
                ms=5,
                lw=0.8,
                color=colour,
                mfc="white" if steps == 1 else colour,
                label=name if steps == PROBED_STEPS[-1] else None,
            )
    low, high = ax.get_xlim()
    ax.plot([low, high], [low, high], color="0.4", lw=0.8, zorder=0)
    ax.axhline(0, color="0.3", ls=":", lw=0.8, zorder=0)
    ax.set(
        xlabel="theory: growth per round (open: $K = 1$, filled: $K = 4$)",
        ylabel="measured",
        title="linear regime",
    )
    ax.legend(frameon=False, ncols=2, fontsize="small")


def _draw_levels(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures

    dense = np.linspace(SPREADS[0], SPREADS[-1], 60)
    for index, steps in enumerate(LOCAL_STEPS):
        power = dataset.level.mean("seed").sel(local_steps=steps)
        colour = figures.COLOURS[index % len(figures.COLOURS)]
        ax.plot(SPREADS, power, "osD^"[index], color=colour, ms=4)
        levels = [fixed_point(spread, steps) ** 2 / BASE.mean for spread in dense]
        ax.plot(dense, levels, color=colour, lw=1)
        ax.annotate(
            f"$K = {steps}$",
            (dense[-1], levels[-1]),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    ax.axhline(1, color="0.3", ls=":", lw=0.8, zorder=0)
    ax.set(
        xlabel="spread $M$",
        ylabel="$|V^\\top U|^2 / \\mu$",
        title="FedAvg, all: heterogeneity is learned, not rejected",
    )

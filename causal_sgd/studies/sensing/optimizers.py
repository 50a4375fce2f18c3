"""Optimisers linear in the gradient keep the bias if slow enough; sign, Lion and Adam lose it.

HeteroSGD rejects a spurious direction because factors 1 + eta s_e multiply: the mean of their
logarithms lies below the logarithm of their mean. Momentum at equal learning rate / (1 - momentum)
has nearly the same boundary as long as the direction changes slowly compared with its memory. With
momentum 0.9 and an effective rate of 0.1 it does not, and *no* heterogeneity is rejected: the
exponent of its random 2 x 2 matrices is positive everywhere. Averages of the iterates and a warm-up
leave the boundary in place; weight decay acts like a smaller mean eigenvalue. A decaying learning
rate lets the spurious direction grow again: the sum of the exponents over the schedule decides,
which for a cosine moves the boundary out by about sqrt(4/3).

Clipping does not act near zero, so that beyond the boundary the direction still dies. Short of it,
the environments that pull up and down cancel at equal length, and the level drifts slowly to SGD's
or above. One would expect sharpness-aware steps to change little. They reject far more than SGD:
their gradient is taken where the signal is smaller by the radius if the environment wants more of
it, and larger if it wants less, a drift towards zero of radius times M that wins wherever the
signal starts below radius M / mu. One would also expect all per-coordinate methods to fail alike.
Sign follows the majority: two equally likely eigenvalues have none, and the direction wanders over
all levels that any environment wants (slowly: at rates below 0.03 it has not come far in 2000
steps). Adam with short updates ends near pooled training, and the lower, the longer its updates and
the farther apart the environments. But AdamW with a decay of 0.3 rejects at every rate and without
a transition: the normalised gradient is the ratio of mean to spread over the environments, small
where they disagree and one where they agree, so that the decay takes the spurious direction to
about (mu - u^2) / M = decay u and leaves the invariant one at 0.99.

(Population gradients, one environment a step with the eigenvalues 1 +- M, in the coordinates of the
signals, on which per-coordinate methods depend. The rate of a normalised method is the length of
its updates, as the signals have size one.)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import farthest_from_one, late
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._optimizer_cells import (
    MEAN,
    METHODS,
    NORMALISED,
    PLAIN,
    STEPS,
    optimizer_cell,
)
from causal_sgd.studies.sensing._optimizer_theory import (
    balance,
    cosine_spread,
    matrix_exponents,
    scalar_levels,
)
from causal_sgd.studies.sensing._scalars import deviation

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from causal_sgd.figures import Diagram

TILE = 256
SPREADS = np.arange(0.0, 17.0, 1.0)
RATES = np.geomspace(0.01, 0.2, 6)  # learning rate / (1 - momentum), or the length of an update
SLOW, FAST = 1, 4  # indices of the rates 0.018 and 0.11
TINY, SMALL, MIDDLE = 1e-7, 0.1, 1e-3  # starts for exponents, levels and the return after a decay
# The exponents are measured here.
PROBED = {"learning_rate": (float(RATES[SLOW]), float(RATES[FAST])), "spread": (3.0, 6.0)}
BLOWN_UP = 100.0  # far above all levels that environments want: the run has diverged
FRAMES = (0, 1, 3)  # of the growth


EXPONENT_SPREADS = np.linspace(0.5, SPREADS[-1], 24)  # of the curves of zero exponent
EXPONENTS = ("SGD", "momentum 0.5", "momentum 0.9", "Nesterov 0.9")  # methods with a theory
KEEPING = (
    "SGD",
    "momentum 0.5",
    "weight decay 0.3",
    "clipping at 0.3",
    "average over 100",
    "warm-up",
)
SCALAR_DRAWS = 256
SIMULATED = {"momentum 0.9": 16, "sign": 16, "Lion": 16, "Adam": 12, "AdamW, decay 0.3": 5}
"""The largest M at which levels are compared with scalar maps. Beyond, most runs of Adam and
AdamW end near zero and few far from it, where a mean has no normal error."""
CLAIMS = (
    {
        f"exponent of {name}": Claim(
            f"{name}: largest deviation of the measured growth rate from the Lyapunov exponent, "
            "in standard errors",
            0,
            4.5,
            "random matrix product",
        )
        for name in EXPONENTS
    }
    | {
        f"kept by {name}": Claim(
            f"{name}, rate 0.11, M = 6: median spurious power over mu",
            0,
            1e-6,
            "Lyapunov exponent, not changed near zero",
        )
        for name in KEEPING
    }
    | {
        "kept by SAM": Claim.finding(
            "SAM, radius 0.05, rate 0.11, M = 6: median spurious power over mu"
        ),
        "invariant": Claim(
            "these methods but SAM: median invariant power over the fixed point 1 - decay, "
            "farthest from 1",
            0.999,
            1.001,
            "fixed point",
        ),
        "slow": Claim(
            "momentum 0.9, rate 0.01, M = 16: median spurious power over mu",
            0,
            0.05,
            "Lyapunov exponent",
        ),
        **{
            f"level of {name}": Claim(
                f"{name}, rate 0.11, M from 1 to {largest}: largest deviation of the mean spurious "
                "power from that of the scalar map, in standard errors",
                0,
                4.5,
                "independent simulation of the scalar map",
            )
            for name, largest in SIMULATED.items()
        },
        "cosine": Claim(
            "cosine decay: M at which the direction ends where it began, "
            "over that of a vanishing sum of exponents",
            0.96,
            1.04,
            "Lyapunov exponent",
        ),
        "SAM": Claim.finding("SAM, rate 0.01, M = 4: median spurious power over that of SGD"),
        "sign": Claim(
            "sign, rate 0.11, M from 4 to 16: mean spurious power over that of a uniform law, "
            "(mu + M) / 3",
            0.7,
            1.5,
            "random walk",
        ),
        "Adam": Claim.finding(
            "Adam, rates up to 0.033, M up to 12: smallest median spurious power over mu"
        ),
        "AdamW": Claim(
            "AdamW, rate 0.01, M = 6: mean spurious power over its balance with the decay",
            0.6,
            1.5,
            "mean over deviation",
        ),
        "AdamW rejects": Claim.finding("AdamW, rate 0.11, M = 8: median spurious power over mu"),
        "AdamW learns": Claim(
            "AdamW: median invariant power over that of the scalar map, farthest from 1 over the "
            "rates",
            0.99,
            1.01,
            "independent simulation of the scalar map",
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """A diagram from 32 seeds (8 when quick) for every method, exponents from 400 seeds (100), and
    the return after a decay from 200 (100).
    """
    from causal_sgd.sweeps import sweep

    cells = {program: optimizer_cell(program) for program in ("linear", "nesterov", *NORMALISED)}

    def swept(
        name: str, axes: Mapping[str, ArrayLike], start: float, *, seeds: int, label: str
    ) -> xr.Dataset:
        program, numbers = METHODS[name]
        plain = {} if program == "sign" else {"decay": 0.0} if program in NORMALISED else PLAIN
        values = plain | numbers | {"init_scale": start}
        fixed = {number: [value] for number, value in values.items()}
        # One tile size, so that all methods of a program share its compilation.
        dataset = sweep(
            cells[program],
            axes={**fixed, **axes},
            seeds=seeds,
            key=key,
            tile=TILE,
            progress=progress,
            label=label,
        )
        return dataset.squeeze([*fixed], drop=True)

    grid = {"learning_rate": RATES, "spread": SPREADS}
    data = {
        name: _levels(swept(name, grid, SMALL, seeds=8 if quick else 32, label=name))
        for name in METHODS
    }
    for name in EXPONENTS:
        label, seeds = f"exponent, {name}", 100 if quick else 400
        runs = swept(name, PROBED, TINY, seeds=seeds, label=label)
        data[f"exponent of {name}"] = runs.isel(step=list(FRAMES))
    spreads = cosine_spread(RATES[FAST]) * np.linspace(0.85, 1.15, 7)
    axes = {"learning_rate": [RATES[FAST]], "spread": spreads}
    seeds = 100 if quick else 200
    returned = swept("cosine decay", axes, MIDDLE, seeds=seeds, label="return")
    data["return"] = returned.isel(step=[-1], learning_rate=0)
    return data


def _levels(runs: xr.Dataset) -> xr.Dataset:
    """Spurious power over mu and invariant power in the last tenth of the runs."""
    last = late(runs, 0.9)
    level = (last.spurious_signal**2).mean("step") / MEAN
    learned = (last.invariant_signal**2).mean("step")
    lost = (runs.diverged_at >= 0) | ~(level < BLOWN_UP)
    levels = runs[["diverged_at"]].where(~lost, STEPS)
    levels = levels.assign(level=level.where(~lost), learned=learned.where(~lost))
    return levels.drop_vars("step", errors="ignore")


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The exponents against theory, and levels at some points of the diagrams."""
    from causal_sgd.analysis import growth_rate, level_crossing

    values = {}
    for name in EXPONENTS:
        growth = growth_rate(data[f"exponent of {name}"]).transpose("learning_rate", "spread")
        exact, error = matrix_exponents(name, PROBED["learning_rate"], PROBED["spread"])
        error = np.hypot(growth.standard_error.values, error)
        values[f"exponent of {name}"] = float(np.max(np.abs(growth.rate.values - exact) / error))
    medians = {name: data[name].level.median("seed") for name in METHODS}
    point = {"learning_rate": FAST, "spread": 6}
    values |= {f"kept by {name}": float(medians[name].isel(point)) for name in KEEPING}
    crossing = level_crossing(data["return"], "spurious_signal", along="spread", level=MIDDLE)
    wandering = data["sign"].level.isel(learning_rate=FAST, spread=slice(4, None)).mean("seed")
    wandering = wandering / ((MEAN + SPREADS[4:]) / (3 * MEAN))
    adamw = data["AdamW, decay 0.3"]
    slowest = float(adamw.level.isel(learning_rate=0, spread=6).mean("seed"))
    sam = medians["SAM, radius 0.05"]
    learned = [
        float(data[name].learned.median("seed").isel(point))
        / (1 - METHODS[name].numbers.get("decay", 0.0))
        for name in KEEPING
    ]
    alone = [
        float(scalar_levels("AdamW, decay 0.3", np.zeros(1), rate=rate, start=SMALL, draws=1)[0, 0])
        for rate in RATES
    ]
    return values | {
        "kept by SAM": float(sam.isel(point)),
        "invariant": farthest_from_one(np.array(learned)),
        **{f"level of {name}": _against_scalars(data[name], name) for name in SIMULATED},
        "slow": float(medians["momentum 0.9"].isel(learning_rate=0, spread=-1)),
        "cosine": float(crossing) / cosine_spread(RATES[FAST]),
        "SAM": float((sam / medians["SGD"]).isel(learning_rate=0, spread=4)),
        "sign": float(wandering.mean()),
        "Adam": float(medians["Adam"].isel(learning_rate=slice(3), spread=slice(13)).min()),
        "AdamW": slowest * MEAN / balance(6.0, 0.3) ** 2,
        "AdamW rejects": float(adamw.level.isel(learning_rate=FAST, spread=8).median("seed")),
        "AdamW learns": farthest_from_one(
            (adamw.learned.median("seed").isel(spread=0) / np.array(alone)).values
        ),
    }


def _against_scalars(dataset: xr.Dataset, name: str) -> float:
    """The largest deviation of the mean level over M from the scalar map, in standard errors."""
    part = dataset.level.isel(learning_rate=FAST).sel(spread=slice(1, SIMULATED[name]))
    expected = (
        scalar_levels(name, part.spread.values, rate=RATES[FAST], start=SMALL, draws=SCALAR_DRAWS)
        / MEAN
    )
    return max(
        deviation(runs[np.isfinite(runs)], levels[levels < BLOWN_UP])
        for runs, levels in zip(part.transpose("spread", "seed").values, expected, strict=True)
    )


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The boundary of SGD, and the exponents of methods with momentum, whose zeros are drawn."""
    from causal_sgd import theory

    tables = {
        "SGD's boundary": points(
            {"learning_rate": RATES}, {"spread": theory.critical_spread(RATES, MEAN)}
        )
    }
    settings = {"learning_rate": RATES[:, None], "spread": EXPONENT_SPREADS}
    for name in EXPONENTS[1:]:
        tables[f"theory of {name}"] = points(settings, {"exponent": _exponents(name)})
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """A diagram for each method. White: SGD's boundary. Red: zero exponent of its own matrices."""
    from matplotlib import pyplot as plt

    from causal_sgd.figures import _theme

    fig, grid = plt.subplots(3, 5, figsize=(12.0, 7.4), sharex=True, sharey=True)
    panels = grid.ravel()
    diagrams = [
        _draw_diagram(ax, data[name], name) for ax, name in zip(panels, METHODS, strict=False)
    ]
    for ax in grid[2]:
        ax.set_xlabel("spread $M$")
    labels = ["effective rate", "effective rate", "length of an update"]
    for ax, label in zip(grid[:, 0], labels, strict=True):
        ax.set_ylabel(label)
    panels[-1].axis("off")
    panels[-1].plot([], [], **_theme.white_line(1.6), label="$\\lambda = 0$ of SGD")
    panels[-1].plot([], [], color="tab:red", label="$\\lambda = 0$ of its own matrices")
    panels[-1].legend(frameon=False, loc="center")
    fig.colorbar(
        diagrams[0].mesh,
        ax=list(panels),
        label="mean $|V^\\top U|^2 / \\mu$",
        extend="max",
        pad=0.01,
    )
    return fig


def _draw_diagram(ax: Axes, dataset: xr.Dataset, name: str) -> Diagram:
    from matplotlib.colors import Normalize

    from causal_sgd import figures, theory

    curve = None
    if METHODS[name].program not in NORMALISED:
        rates = np.geomspace(RATES[0], RATES[-1], 60)
        curve = {"SGD's boundary": (np.asarray(theory.critical_spread(rates, MEAN)), rates)}
    diagram = figures.phase_diagram(
        ax,
        dataset,
        "level",
        x="spread",
        y="learning_rate",
        logy=True,
        norm=Normalize(0, 1.5),
        colorbar=False,
        legend=False,
        theory=curve,
    )
    if name in EXPONENTS[1:]:
        exponents = _exponents(name)
        ax.contour(EXPONENT_SPREADS, RATES, exponents, [0.0], colors="tab:red", linewidths=1.6)
    ax.set_title(name)
    ax.set(xlabel="", ylabel="")
    return diagram


@functools.cache  # for the figure and its table
def _exponents(name: str) -> np.ndarray:
    """The exponents of a method's matrices, [RATES, EXPONENT_SPREADS]."""
    return matrix_exponents(name, RATES, EXPONENT_SPREADS)[0]

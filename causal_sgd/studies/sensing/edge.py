"""Beyond the edge of stability the learned level is biased; what is rejected does not notice.

A direction of U U' under population gradients is a cubic map with a = eta s. Every minimum has the
sharpness 2 s, so that there is no flatter one to go to. Up to a = 1, the edge, the level settles at
s. Then u^2 alternates between two values with the mean (1 + a)/(2 eta), below s, until a =
sqrt(5) - 1; beyond, periods double to chaos, and at a = 2 runs diverge. There the map is a
Chebyshev polynomial and the mean is s again: the bias is largest in between.

Under heterogeneity the edge of the invariant direction is a fourth line in the diagram of learning
rate and M, beside learned, rejected and diverged. Both directions are maps of their own: the
critical spread is the same on either side of the edge and meets it at M = sqrt(2 mu sigma* + mu^2).
For mu < 0.306 sigma* there is a region of large steps in which the spurious direction is rejected
safely while the invariant one oscillates.

Cohen et al. (2021) observe the edge and Chen and Bruna (2023) study such two-cycles; the formulas
are derived here (`theory.stability`). The fourth line is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import diverged_share, late, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _experiments

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASE = _experiments.TWO_SCALARS.replace(
    mean=0.2, spread=0.0, invariant_eigenvalue=1.0, metrics=("invariant_signal", "spurious_power")
)
LEVELS = BASE.replace(init_scale=0.3, steps=4096, record_every=1, metrics=("invariant_signal",))
FINE = np.round(np.arange(0.9, 2.0451, 0.005), 3)
LAST = 256  # steps over which a level is judged
CYCLES = (1.01, 1.1, 1.2)
DIAGRAM = BASE.replace(init_scale=0.1, steps=800, record_every=1)
RATES = np.round(np.arange(0.25, 2.11, 0.08), 2)
SPREADS = np.round(np.arange(0.0, 1.61, 0.08), 2)
MOVES = 1e-3  # of u^2 in a direction that oscillates; rounding is 1e-7
GONE = 1e-2  # of the mean spurious power
WALK = BASE.replace(init_scale=1e-6, steps=60, metrics=("spurious_power",))
SIDES = (0.9, 1.1, 1.3)  # learning rates at both sides of the edge
SHARES = np.array([0.9, 0.95, 1.0, 1.05, 1.1])  # of M_c
CUBIC = "cubic map"
CLAIMS = (
    {
        f"{end}_{rate:g}": Claim(
            f"a = {rate:g}: {end}er of the two values of u^2 over the predicted one",
            0.9999,
            1.0001,
            CUBIC,
        )
        for rate in CYCLES
        for end in ("low", "high")
    }
    | {
        # The levels are within 1e-7, and an oscillation beyond an edge grows by 1.01 and more a
        # step: to be seen in time, the grid's first point beyond is enough.
        "edge": Claim("least a of the grid (0.005) at which u^2 moves, less 1", 0.0, 0.0051, CUBIC),
        "doubling": Claim(
            "least a of the grid at which u^2 is not the same after two steps, less sqrt(5) - 1",
            0.0,
            0.0051,
            CUBIC,
        ),
        "bounded": Claim("largest a of the grid at which the run survives", 1.9949, 2.0001, CUBIC),
        "biased": Claim(
            "a = 1.01 to 1.235: mean of u^2 over (1 + a)/(2 eta), farthest from 1",
            0.9999,
            1.0001,
            CUBIC,
        ),
        "lowest": Claim.finding("least mean of u^2 over s between the edge and divergence"),
        "lowest_at": Claim.finding("the a of that mean"),
        "oscillates": Claim(
            "diagram: share of the surviving runs whose invariant direction moves iff eta > 1",
            1,
            1,
            CUBIC,
        ),
        "beyond": Claim("diagram, eta > 2: least diverged share", 1, 1, CUBIC),
        "safe": Claim(
            "diagram, beyond M_c, within the bound and 1 < eta < 2: share of diverged runs",
            0,
            0,
            "attracting interval",
        ),
    }
    | {
        f"critical_{rate:g}": Claim(
            f"eta = {rate:g}, edge at 1: spread at which the growth of the spurious direction "
            "vanishes, over the critical one",
            0.98,
            1.02,
            "Lyapunov exponent",
        )
        for rate in SIDES
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """One direction over the learning rate; a diagram of learning rate and spread with 16 seeds (4
    when quick); and the growth of a small spurious direction with 4000 (1000).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    rates = np.repeat(SIDES, len(SHARES))
    spreads = np.tile(SHARES, len(SIDES)) * _critical(rates)
    return {
        "levels": sweep(
            LEVELS.cell(), axes={"learning_rate": FINE}, seeds=1, label="levels", **options
        ),
        "diagram": sweep(
            DIAGRAM.cell(),
            axes={"learning_rate": RATES, "spread": SPREADS},
            seeds=4 if quick else 16,
            label="diagram",
            **options,
        ),
        "walk": sweep(
            WALK.cell(),
            axes={"point": zipped(learning_rate=rates, spread=spreads)},
            seeds=1000 if quick else 4000,
            label="growth",
            **options,
        ),
    }


def _critical(rates: ArrayLike) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.critical_spread(rates, BASE.mean))


def _bound(rates: ArrayLike) -> np.ndarray:
    """The largest spread at which no run of the spurious direction diverges."""
    from causal_sgd import theory

    return np.asarray(theory.divergence_bound(rates, BASE.mean))


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The values of u^2 and their edges, and both directions in the diagram."""
    from causal_sgd.theory import stability

    squares = _squares(data["levels"])
    last = squares.isel(step=slice(-LAST, None))
    values: dict[str, float] = {}
    for rate in CYCLES:
        cycle = stability.two_cycle(rate, 1.0)
        part = last.sel(learning_rate=rate)
        values[f"low_{rate:g}"] = float(part.min() / cycle.low)
        values[f"high_{rate:g}"] = float(part.max() / cycle.high)
    survives = (last < np.inf).all("step").values
    moves = (last.max("step") - last.min("step")).values > MOVES
    doubles = abs(last - last.shift(step=2)).max("step").values > MOVES
    first, second = (float(edge) for edge in stability.edges(1.0)[:2])
    mean = squares.isel(step=slice(-squares.sizes["step"] // 2, None)).mean("step").values
    cycle = np.digitize(FINE, [first, second], right=True) == 1
    ratio = last.mean("step").values[cycle] / np.asarray(stability.edge_mean(FINE[cycle], 1.0))
    lowest = int(np.nanargmin(np.where(survives, mean, np.nan)))
    moving, lost, spreads = _diagram(data["diagram"])
    alive = lost == 0
    rates = np.broadcast_to(RATES[:, None], lost.shape)
    safe = (spreads > _critical(RATES)[:, None]) & (spreads < _bound(RATES)[:, None])
    values |= {
        "edge": FINE[np.argmax(moves)] - first,
        "doubling": FINE[np.argmax(doubles)] - second,
        "bounded": FINE[survives].max(),
        "biased": float(ratio[np.argmax(np.abs(np.log(ratio)))]),
        "lowest": mean[lowest],
        "lowest_at": FINE[lowest],
        "oscillates": float(np.mean((moving == (rates > 1))[alive])),
        "beyond": float(lost[RATES > 2].min()),
        "safe": float(lost[safe & (rates > 1) & (rates < 2)].max()),
    }
    return values | {
        f"critical_{rate:g}": ratio for rate, ratio in zip(SIDES, _roots(data["walk"]), strict=True)
    }


def _squares(dataset: xr.Dataset) -> xr.DataArray:
    """U^2 of the invariant direction, [learning_rate, step]."""
    return (dataset.invariant_signal**2).squeeze("seed", drop=True)


def _diagram(dataset: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether the invariant direction moves, the diverged share, the spread; all [rate, spread].

    A direction moves in a cell if it does so in all surviving runs.
    """
    order = ("learning_rate", "spread")
    last = surviving(dataset).invariant_signal.isel(step=slice(-LAST, None)) ** 2
    width = (last.max("step") - last.min("step")).fillna(np.inf).min("seed")
    lost = diverged_share(dataset).transpose(*order).values
    return width.transpose(*order).values > MOVES, lost, np.broadcast_to(SPREADS, lost.shape)


def _roots(dataset: xr.Dataset) -> np.ndarray:
    """Spreads, over the critical one, at which the mean growth of the direction vanishes."""
    growth = np.log(final(dataset).spurious_power / WALK.init_scale**2).mean("seed").values
    roots = []
    for row in growth.reshape(len(SIDES), -1):
        both = np.roots(np.polyfit(SHARES, row, 2)).real  # the exponent is curved in the spread
        roots.append(both[np.argmin(np.abs(both - 1))])
    return np.array(roots)


def _power(dataset: xr.Dataset) -> np.ndarray:
    """The time average of the spurious power over its pooled value, [rate, spread], median run."""
    power = late(surviving(dataset).spurious_power, 0.5).mean("step") / BASE.mean
    return power.median("seed").transpose("learning_rate", "spread").values


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The mean levels, the phases of the diagram and its lines."""
    from causal_sgd.theory import stability

    squares = _squares(data["levels"])
    moving, lost, spreads = _diagram(data["diagram"])
    numbers = {"moves": moving, "diverged_share": lost, "spurious_power": _power(data["diagram"])}
    return {
        "mean levels": points(
            {"learning_rate": FINE},
            {
                "mean": late(squares, 0.5).mean("step").values,
                "theory": np.asarray(stability.edge_mean(FINE, 1.0)),
            },
        ),
        "phases": points({"learning_rate": RATES[:, None], "spread": spreads}, numbers),
        "lines": points(
            {"learning_rate": RATES},
            {"critical_spread": _critical(RATES), "divergence_bound": _bound(RATES)},
        ),
        "critical": points(
            {"learning_rate": SIDES}, {"measured_over_theory": _roots(data["walk"])}
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The values of u^2 and their mean over the learning rate, and the phases of both directions
    over learning rate and spread.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(10.5, 3.9))
    _draw_levels(axes[0], _squares(data["levels"]))
    _draw_phases(axes[1], data["diagram"])
    return fig


def _draw_levels(ax: Axes, squares: xr.DataArray) -> None:
    from causal_sgd.figures import COLOURS
    from causal_sgd.theory import stability

    shown = squares.isel(step=slice(-120, None))
    rates = np.repeat(FINE, shown.sizes["step"])
    values = shown.transpose("learning_rate", "step").values
    ax.plot(rates, values.ravel(), ",", color="0.45", rasterized=True)
    mean = late(squares, 0.5).mean("step").values
    ax.plot(FINE, mean, color=COLOURS[1], lw=1.3, label="time average")
    dense = np.linspace(0.9, 1.236, 200)
    cycle = stability.two_cycle(dense, 1.0)
    dashed = {"color": "black", "ls": (0, (4, 3)), "lw": 1.0}
    ax.plot(dense, np.stack(cycle).T, **dashed)
    ax.plot(dense, np.asarray(stability.edge_mean(dense, 1.0)), label="theory", **dashed)
    for edge in stability.edges(1.0):
        ax.axvline(float(edge), color="0.3", ls=":", lw=0.9)
    ax.set(
        xlim=(0.9, 2.03),
        xlabel=r"$a = \eta s$",
        ylabel="$u^2 / s$",
        title="one direction beyond the edge",
    )
    ax.legend(frameon=False, loc="upper left")


def _draw_phases(ax: Axes, dataset: xr.Dataset) -> None:
    from matplotlib.colors import ListedColormap

    moving, lost, _ = _diagram(dataset)
    rejected = _power(dataset) < GONE
    phase = np.where(lost > 0, 4, 2 * moving + rejected)
    colours = ListedColormap(["#c6dbef", "#3182bd", "#fdd0a2", "#e6550d", "0.35"])
    ax.pcolormesh(
        RATES,
        SPREADS,
        phase.T,
        cmap=colours,
        vmin=-0.5,
        vmax=4.5,
        shading="nearest",
        rasterized=True,
    )
    dense = np.linspace(RATES[0], RATES[-1], 200)
    ax.plot(dense, _critical(dense), color="black", lw=1.4)
    ax.plot(dense, _bound(dense), color="black", lw=1.2, ls=(0, (4, 2)))
    for edge, style in ((1.0, "-."), (2.0, ":")):
        ax.axvline(edge, color="black", lw=1.2, ls=style)
    for x, y, text, colour in (
        (0.6, 0.3, "learned", "black"),
        (0.6, 1.12, "rejected", "white"),
        (1.5, 0.2, "learned,\ninvariant moves", "black"),
        (1.13, 0.75, "rejected,\nmoves", "black"),
        (1.6, 1.2, "diverged", "white"),
    ):
        ax.text(x, y, text, color=colour, fontsize=8, ha="center", va="center")
    ax.set(
        xlim=(RATES[0], RATES[-1]),
        ylim=(SPREADS[0], SPREADS[-1]),
        xlabel=r"learning rate $\eta$, in $1/\sigma^\star$",
        ylabel="heterogeneity $M$",
        title=f"$\\mu = {BASE.mean:g}$: solid $M_c$, dashed bound, dash-dotted edge",
    )

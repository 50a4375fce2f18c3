"""Depth removes the transition: with three factors or more the spurious signal only fades.

One would expect a product of L factors to have a critical spread of its own. It has none. Near zero
only L = 2 multiplies, by 1 + eta s / 2 per step, and a Lyapunov exponent decides. For L > 2 the
steps vanish with the weight w itself, w^(2 - L) performs a random walk with drift towards learning
whenever mu > 0, and zero repels at every heterogeneity. M decides the level at which the spurious
signal fluctuates: its density has a closed form at all depths (`theory.deep_spurious_quantile`),
and its median falls smoothly, for large M like M^(-2L/(L - 2)). Beyond the critical spread of two
factors most of it is gone all the same. For odd L > 2 only a large step forgets: one that throws
the weight across zero, where it creeps back and never returns. This happens beyond a spread that
depends on the single largest step (`theory.crossing_spread`) and lies close to divergence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options, averaged, compare_over
from causal_sgd.studies._drawing import mark
from causal_sgd.studies._frames import diverged_share, late, surviving
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Snapshot, Trace

# A factor gets half of the gradient of U in U U': twice the learning rate of other studies.
BASE = Experiment(
    model="deep",
    measurement="population",
    basis="canonical",
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    learning_rate=0.01,
    init_scale=0.5,
    steps=8000,
    record_every=500,
    metrics=("spurious_power",),
)
DEPTHS = (2, 3, 4)
CRITICAL = (4 * BASE.mean / BASE.learning_rate + BASE.mean**2) ** 0.5  # of two factors
SPREADS = np.array([4.0, 8.0, 12.0, 16.0, 20.0, 24.0])
BEYOND = 24.0
# eta M^2 / 2 = 0.72 mu: noise that moves the median by half, in steps that are still small.
LEVEL = BASE.replace(spread=12.0, record_every=50)
LEVEL_SEEDS = 1024
TWO = BASE.replace(depth=2, learning_rate=0.2, init_scale=0.1, steps=10_000, record_every=20)
BELOW = np.array([0.8, 0.85, 0.9, 0.95])
THROWN = BASE.replace(depth=3, learning_rate=0.1, steps=3000, record_every=None)
THROWN_SPREADS = np.arange(2.0, 7.25, 0.5)
FIRST_SPREADS = np.arange(4.8, 5.5, 0.02)  # around the crossing, in steps of 0.4 %
GONE = 1e-3  # of the mean spurious signal
CLAIMS = {
    "two": Claim(
        "L = 2: measured boundary over the critical spread at eta / 2",
        0.97,
        1.03,
        "Lyapunov exponent",
    ),
    # Three standard errors of 0.8 %, known from simulations of the scalar map, and 1 % for steps of
    # eta mu = 0.01, as the density is the limit of small ones.
    "level_3": Claim(
        "L = 3, M = 12: median level over the predicted one", 0.967, 1.033, "stationary density"
    ),
    "level_4": Claim(
        "L = 4, M = 12: median level over the predicted one", 0.967, 1.033, "stationary density"
    ),
    "forgets_2": Claim(
        f"L = 2, M = {BEYOND:g} = 1.2 M_c: median level", 0, GONE, "Lyapunov exponent"
    ),
    "keeps_3": Claim(
        f"L = 3, M = {BEYOND:g}: share of frames with a level above {GONE:g}",
        0.9,
        1,
        "stationary density",
    ),
    # No step can cross below; beyond, a tenth of the runs of 3000 steps do already at 0.1 %. The
    # upper end is the step of the spreads and this.
    "crosses": Claim(
        "L = 3, large steps: least spread at which a run crosses zero over the predicted one",
        1,
        1.006,
        "one step",
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Population gradients: depths 2 to 4 over M with 128 seeds (32 when quick), the levels at M =
    12 with 1024, the boundary for L = 2 with 256 (64), and large steps for L = 3 with 128 (32).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    seeds = 32 if quick else 128
    depths = {depth: BASE.replace(depth=depth).cell() for depth in DEPTHS}
    return {
        "levels": compare_over("depth", depths, axes={"spread": SPREADS}, seeds=seeds, **options),
        "level": compare_over(
            "depth",
            {depth: LEVEL.replace(depth=depth).cell() for depth in DEPTHS[1:]},
            seeds=LEVEL_SEEDS,
            **options,
        ),
        "two": sweep(
            averaged(TWO.cell()),
            axes={"spread": BELOW * _critical_of_two()},
            seeds=64 if quick else 256,
            label="L = 2",
            **options,
        ),
        "thrown": sweep(
            THROWN.cell(),
            axes={"spread": THROWN_SPREADS},
            seeds=seeds,
            label="large steps",
            **options,
        ),
        "signed": sweep(
            _signed(),
            axes={"spread": FIRST_SPREADS},
            seeds=seeds,
            label="the first to cross",
            **options,
        ),
    }


def _signed() -> Cell:
    """A cell of large steps that records the spurious level with its sign."""

    def cell(key: Key, *, spread: Array) -> Trace:
        import optax

        from causal_sgd.sensing import measurements, models, worlds
        from causal_sgd.training import run, samplers, sgd

        def level(snapshot: Snapshot) -> Array:
            direction = snapshot.world.spurious_basis[:, 0]
            return direction @ snapshot.estimate @ direction

        algorithm = sgd(
            world=worlds.two_point(
                dim=THROWN.dim,
                invariant_rank=THROWN.invariant_rank,
                spurious_rank=THROWN.spurious_rank,
                mean=THROWN.mean,
                spread=spread,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=THROWN.batch_size),
            measurement=measurements.population(),
            model=models.deep(dim=THROWN.dim, depth=3, init_scale=THROWN.init_scale),
            optimizer=optax.sgd(THROWN.learning_rate),
        )
        return run(key, algorithm=algorithm, metrics={"level": level}, num_steps=THROWN.steps)

    return cell


def _critical_of_two() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(TWO.learning_rate / 2, TWO.mean))


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundary of two factors, the levels of more, and the shares thrown across zero."""
    from causal_sgd import theory
    from causal_sgd.analysis import order_parameter_boundary

    levels = _levels(data["levels"])
    values = {}
    settled = late(surviving(data["level"]).spurious_power, 1 / 8)
    for depth in DEPTHS[1:]:
        values[f"level_{depth}"] = float(settled.sel(depth=depth).median()) / float(
            theory.deep_spurious_quantile(depth, LEVEL.learning_rate, LEVEL.mean, LEVEL.spread)
        )
    crossed = (final(data["signed"]).level < 0).any("seed").values
    return values | {
        "two": order_parameter_boundary(data["two"]).value / _critical_of_two(),
        "forgets_2": float(levels.sel(depth=2, spread=BEYOND).median()),
        "keeps_3": float((levels.sel(depth=3, spread=BEYOND) > GONE).mean()),
        "crosses": float(FIRST_SPREADS[np.argmax(crossed)]) / _crossing(),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The quartiles of the levels with the stationary law, and the shares of forgetting runs."""
    from causal_sgd import theory

    levels = _levels(data["levels"])
    low, middle, high = (
        levels.quantile(share, ("seed", "step")).transpose("depth", "spread").values
        for share in (0.25, 0.5, 0.75)
    )
    law = [
        theory.deep_spurious_quantile(depth, BASE.learning_rate, BASE.mean, SPREADS)
        for depth in DEPTHS
    ]
    numbers = {"level": middle, "quartile_1": low, "quartile_3": high, "theory": law}
    thrown = {
        "forgotten_share": _forgotten(data["thrown"]),
        "diverged_share": diverged_share(data["thrown"]),
    }
    return {
        "settled": points({"depth": np.array(DEPTHS)[:, None], "spread": SPREADS}, numbers),
        "large steps": points({"spread": THROWN_SPREADS}, thrown),
        "theory": points({}, {"critical_spread": CRITICAL, "crossing_spread": _crossing()}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The median spurious level against M with the stationary law, and the shares of runs that
    large steps make forget or diverge at L = 3.

    Beyond M = 21 steps can cross zero at L = 4, which takes some runs below the law.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.5))
    _draw_levels(axes[0], _levels(data["levels"]))
    _draw_thrown(axes[1], data["thrown"])
    return fig


def _draw_levels(ax: Axes, levels: xr.DataArray) -> None:
    from causal_sgd import figures, theory

    dense = np.linspace(SPREADS[0], SPREADS[-1], 81)
    for index, depth in enumerate(DEPTHS):
        part, colour = levels.sel(depth=depth), figures.COLOURS[index]
        low, middle, high = (
            part.quantile(share, ("seed", "step")).values for share in (0.25, 0.5, 0.75)
        )
        ax.errorbar(
            SPREADS,
            middle,
            [middle - low, high - middle],
            fmt="osD"[index],
            color=colour,
            lw=0.8,
            capsize=2,
            label=f"$L = {depth}$",
        )
        law = np.asarray(theory.deep_spurious_quantile(depth, BASE.learning_rate, BASE.mean, dense))
        ax.plot(dense, np.where(law > 0, law, np.nan), color=colour, lw=1.1, ls="--")
    ax.plot([], [], color="black", lw=1.1, ls="--", label="stationary law")
    mark(ax, CRITICAL)
    ax.set(
        yscale="log",
        ylim=(1e-4, 2),
        xlabel="heterogeneity $M$",
        ylabel="spurious level, median and quartiles",
        title="$M_c$ of two factors (dotted) decides for $L = 2$ only",
    )
    ax.legend(frameon=False)


def _draw_thrown(ax: Axes, dataset: xr.Dataset) -> None:
    from causal_sgd import figures

    colour = figures.COLOURS[1]
    ax.plot(THROWN_SPREADS, _forgotten(dataset), "o-", color=colour, label="forget or diverge")
    ax.plot(THROWN_SPREADS, diverged_share(dataset), "s--", color="0.4", label="diverge")
    mark(ax, _crossing(), label="a step can cross zero")
    ax.set(
        xlabel="heterogeneity $M$",
        ylabel="share of runs",
        ylim=(-0.03, 1.03),
        title=f"$L = 3$, $\\eta = {THROWN.learning_rate:g}$: large steps",
    )
    ax.legend(frameon=False)


def _levels(dataset: xr.Dataset) -> xr.DataArray:
    """The levels w^L of the surviving runs in the second half."""
    return late(surviving(dataset).spurious_power.isel(step=slice(1, None)), 0.5)


def _forgotten(dataset: xr.Dataset) -> xr.DataArray:
    """The share of runs that end without a spurious level or that diverged."""
    remains = (final(dataset).spurious_power >= GONE) & (dataset.diverged_at < 0)
    return 1 - remains.mean("seed")


def _crossing() -> float:
    """The spread beyond which a step can cross zero at L = 3."""
    from causal_sgd import theory

    return float(theory.crossing_spread(3, THROWN.learning_rate, THROWN.mean))

"""Depth takes the transition away: with three factors and more the spurious signal fades, and only large steps forget it.

One would expect a product of L factors to have a critical spread of its own; it has not. Near zero only L = 2 multiplies, by
1 + eta s / 2 a step, and a Lyapunov exponent decides. For L > 2 the steps die out with the weight w itself, w^(2 - L) moves by
a random walk with drift towards learning whenever mu > 0, and zero repels at every heterogeneity. What M decides is the level
at which the spurious signal fluctuates: its density is known in closed form for all depths (`theory.depth`), and its median
falls smoothly, for large M like M^(-2L/(L - 2)). Beyond the critical spread of two factors most of it is gone all the same. What
does forget, for odd L > 2, is a step that throws the weight across zero, where it creeps back and never returns: beyond
eta M (mu + M)^(1 - 2/L) = 1, which is a matter of the single largest step and close to divergence.
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

# Each factor gets half of the gradient that U of U U' gets: twice the learning rate of the other studies.
BASE = Experiment(
    model="deep", measurement="population", basis="canonical", dim=2, invariant_rank=1, spurious_rank=1,
    learning_rate=0.01, init_scale=0.5, steps=8000, record_every=500, metrics=("spurious_power",),
)  # fmt: skip
DEPTHS = (2, 3, 4)
CRITICAL = (4 * BASE.mean / BASE.learning_rate + BASE.mean**2) ** 0.5  # of two factors
SPREADS = np.array([4.0, 8.0, 12.0, 16.0, 20.0, 24.0])
BEYOND = 24.0
TWO = BASE.replace(depth=2, learning_rate=0.2, init_scale=0.1, steps=10_000, record_every=20)
BELOW = np.array([0.8, 0.85, 0.9, 0.95])
THROWN = BASE.replace(depth=3, learning_rate=0.1, steps=3000, record_every=None)
THROWN_SPREADS = np.arange(2.0, 7.25, 0.5)
GONE = 1e-3  # of the mean spurious signal
CLAIMS = {
    "two": Claim("L = 2: measured boundary over the critical spread at eta / 2", 0.97, 1.03, "Lyapunov exponent"),
    "level_3": Claim("L = 3: median level at M_c of two factors over the predicted one", 0.7, 1.3, "stationary density"),
    "level_4": Claim("L = 4: median level at 0.8 M_c over the predicted one", 0.75, 1.25, "stationary density"),
    "forgets_2": Claim(f"L = 2, M = {BEYOND:g} = 1.2 M_c: median level", 0, GONE, "Lyapunov exponent"),
    "keeps_3": Claim(f"L = 3, M = {BEYOND:g}: share of frames with a level above {GONE:g}", 0.9, 1, "stationary density"),
    "below": Claim("L = 3, large steps: largest share of runs that forget below 0.85 of the crossing", 0, 0.05, "one step"),
    "above": Claim("L = 3, large steps: least share of runs that forget or diverge beyond 1.1 of it", 0.9, 1, "one step"),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Population gradients: depths 2 to 4 over M, 128 seeds (32 when quick); the boundary for L = 2; large steps for L = 3."""
    from causal_sgd import theory
    from causal_sgd.sweeps import compare, sweep
    from causal_sgd.training import time_average

    two = TWO.cell()

    def averaged(key: Any, *, spread: Any) -> Any:
        return time_average(two(key, spread=spread), after=0.2)

    options: dict[str, Any] = {"key": key, "progress": progress}
    levels = compare(
        {str(depth): BASE.replace(depth=depth).cell() for depth in DEPTHS}, axes={"spread": SPREADS},
        seeds=32 if quick else 128, **options,
    )  # fmt: skip
    critical = float(theory.critical_spread(TWO.learning_rate / 2, TWO.mean))
    return {
        "levels": levels.assign_coords(variant=list(DEPTHS)).rename(variant="depth"),
        "two": sweep(
            averaged,
            axes={"spread": BELOW * critical},
            seeds=64 if quick else 256,
            label="L = 2",
            **options,
        ),
        "thrown": sweep(
            THROWN.cell(),
            axes={"spread": THROWN_SPREADS},
            seeds=32 if quick else 128,
            label="large steps",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundary of two factors, the levels of more, and who is thrown across zero."""
    from causal_sgd import theory
    from causal_sgd.analysis import order_parameter_boundary

    levels = _late(data["levels"])
    found = {}
    for depth, spread in ((3, 20.0), (4, 16.0)):
        measured = float(levels.sel(depth=depth, spread=spread).median())
        found[f"level_{depth}"] = measured / float(
            theory.deep_spurious_quantile(depth, BASE.learning_rate, BASE.mean, spread)
        )
    crossing = float(theory.crossing_spread(3, THROWN.learning_rate, THROWN.mean))
    share = _forgotten(data["thrown"])
    return found | {
        "two": order_parameter_boundary(data["two"]).value
        / float(theory.critical_spread(TWO.learning_rate / 2, TWO.mean)),
        "forgets_2": float(levels.sel(depth=2, spread=BEYOND).median()),
        "keeps_3": float((levels.sel(depth=3, spread=BEYOND) > GONE).mean()),
        "below": float(share.where(share.spread < 0.85 * crossing).max()),
        "above": float(share.where(share.spread > 1.1 * crossing).min()),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The median spurious level against M with the stationary law, and who forgets by large steps at L = 3.

    Beyond M = 21 steps can cross zero at L = 4, which takes some runs below the law.
    """
    from matplotlib import pyplot as plt

    from causal_sgd import figures, theory

    drawing, axes = plt.subplots(1, 2, figsize=(8.4, 3.5))
    levels = _late(data["levels"])
    fine = np.linspace(SPREADS[0], SPREADS[-1], 81)
    for index, depth in enumerate(DEPTHS):
        part, colour = levels.sel(depth=depth), figures.COLOURS[index]
        low, middle, high = (
            part.quantile(share, ("seed", "step")).values for share in (0.25, 0.5, 0.75)
        )
        axes[0].errorbar(
            SPREADS, middle, [middle - low, high - middle], fmt="osD"[index], color=colour, lw=0.8, capsize=2,
            label=f"$L = {depth}$",
        )  # fmt: skip
        law = np.asarray(theory.deep_spurious_quantile(depth, BASE.learning_rate, BASE.mean, fine))
        axes[0].plot(fine, np.where(law > 0, law, np.nan), color=colour, lw=1.1, ls="--")
    axes[0].plot([], [], color="black", lw=1.1, ls="--", label="stationary law")
    axes[0].axvline(CRITICAL, color="0.3", ls=":", lw=1)
    axes[0].set(
        yscale="log", ylim=(1e-4, 2), xlabel="heterogeneity $M$", ylabel="spurious level, median and quartiles",
        title="$M_c$ of two factors (dotted) decides for $L = 2$ only",
    )  # fmt: skip
    axes[0].legend(frameon=False)
    thrown = data["thrown"]
    axes[1].plot(
        THROWN_SPREADS,
        _forgotten(thrown),
        "o-",
        color=figures.COLOURS[1],
        label="forget or diverge",
    )
    lost = (thrown.diverged_at >= 0).mean("seed")
    axes[1].plot(THROWN_SPREADS, lost, "s--", color="0.4", label="diverge")
    crossing = float(theory.crossing_spread(3, THROWN.learning_rate, THROWN.mean))
    axes[1].axvline(crossing, color="0.3", ls=":", lw=1, label="a step can cross zero")
    axes[1].set(
        xlabel="heterogeneity $M$", ylabel="share of runs", ylim=(-0.03, 1.03),
        title=f"$L = 3$, $\\eta = {THROWN.learning_rate:g}$: large steps",
    )  # fmt: skip
    axes[1].legend(frameon=False)
    return drawing


def _late(dataset: xr.Dataset) -> xr.DataArray:
    """The levels w^L in the frames of the second half, without runs that diverged."""
    power = dataset.spurious_power.where(dataset.diverged_at < 0)
    return power.isel(step=slice(1 + dataset.sizes["step"] // 2, None))


def _forgotten(dataset: xr.Dataset) -> xr.DataArray:
    """The share of runs whose spurious level is gone at the end, or that diverged."""
    kept = (final(dataset).spurious_power >= GONE) & (dataset.diverged_at < 0)
    return 1 - kept.mean("seed")

"""The order of the environments does not move the transition, but shapes it; long blocks undo it.

Independent draws, a fixed cycle, a new order in every pass, blocks and a sticky chain share the
mean of log|1 + eta s|, and the time average of u^2 vanishes at the same critical spread in all (one
direction, population gradients). But the transition is intermittent only where the order is random
over long times. In a cycle log|u| is periodic: below the transition u never leaves its level, the
median is of the order of the mean, and finite runs show a sharp boundary. A sticky chain is more
intermittent than independent draws: the variance of log|u| grows (1 + stay)/(1 - stay) times as
fast.

One would expect that blocks, which share the boundary, reject as well. With batches they do not:
noise keeps the direction above a floor of about eta M/sqrt(2 m), and a block of L steps in an
environment that favours it multiplies this by (1 + eta (mu + M - sigma*))^L. Beyond L of about
log(1/floor)/log(1 + eta (mu + M - sigma*)), some ten steps here, every such block learns the
spurious signal completely, however far M is above M_c; more examples help only logarithmically.
Sticky orders suffer earlier, from their longest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._drawing import line_to_zero, mark
from causal_sgd.studies._frames import late, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing import _experiments
from causal_sgd.studies.sensing._predictions import critical_spread

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

RATE, MEAN = 0.1, 1.0
POPULATION = _experiments.TWO_SCALARS.replace(
    learning_rate=RATE,
    mean=MEAN,
    init_scale=0.1,
    stay=0.5,
    block_length=10,
    steps=20_000,
    record_every=47,
)
ORDERS = {
    "independent": "hetero",
    "shuffled": "shuffled",
    "sticky": "sticky",
    "cyclic": "cyclic",
    "blocks": "block",
}
PERIODIC = ("cyclic", "blocks")
SHARES = np.array([0.8, 0.85, 0.9, 0.95])  # of the critical spread
AFTER = 0.2  # of the run: the transient
FINITE = POPULATION.replace(
    dim=6,
    measurement="gaussian-law",
    model="factored",
    batch_size=16_000,
    steps=4000,
    record_every=7,
)
BEYOND = 1.3  # times the critical spread
LENGTHS = np.array([1, 2, 3, 5, 8, 12, 20, 30])
CHAINS, CHAIN_STEPS = 1024, 100
CHAIN = POPULATION.replace(
    sampler="sticky",
    init_scale=1e-3,
    steps=CHAIN_STEPS,
    record_every=1,
    metrics=("spurious_signal",),
)
# Three standard errors. A step changes the environment with the probability (1 - stay) / 2,
# whatever came before, and the correlation is 1 - 2 of the measured share.
STAY_MARGIN = float(
    3 * (1 - CHAIN.stay**2) ** 0.5 / (CHAIN.stay * (CHAINS * (CHAIN_STEPS - 1)) ** 0.5)
)
CLAIMS = {
    f"boundary_{order}": Claim(
        f"{order}: measured over predicted boundary",
        1 - tolerance,
        1 + tolerance,
        "the same Lyapunov exponent",
    )
    for order, tolerance in zip(ORDERS, (0.03, 0.02, 0.06, 0.02, 0.02), strict=True)
} | {
    "cycle": Claim(
        "cyclic, M = 0.95 M_c: mean of u^2 over its first order in lambda",
        0.9,
        1.1,
        "perturbation theory",
    ),
    "steady": Claim(
        "cyclic, M = 0.95 M_c: smallest u^2 over that of the orbit of period two",
        0.999,
        1.001,
        "scalar map",
    ),
    "stay": Claim(
        "sticky: correlation of the environments of successive steps over the probability to stay",
        1 - STAY_MARGIN,
        1 + STAY_MARGIN,
        "Markov chain",
    ),
    "bursts": Claim(
        "independent, M = 0.95 M_c: median of u^2 over its mean", 0, 0.01, "on-off intermittency"
    ),
    "short": Claim(
        "batch 16,000, M = 1.3 M_c, blocks of 1: mean of |V'U|^2 over mu", 0, 0.05, "rejected"
    ),
    "long": Claim.finding("batch 16,000, M = 1.3 M_c, blocks of 30: mean of |V'U|^2 over mu"),
    "length": Claim.finding(
        "batch 16,000: length of blocks at which the mean of |V'U|^2 crosses mu/4 "
        "over log(1/floor)/log(factor)"
    ),
    "sticky": Claim.finding(
        "batch 16,000, mean stay of 8: mean of |V'U|^2 of the sticky order over that of blocks"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Each order below the boundary, with 192 seeds (48 when quick) where it is random, blocks and
    sticky chains over the mean stay, with 24 seeds (8), and 1024 sticky chains (128).
    """
    from causal_sgd.sweeps import compare, sweep

    options: Options = {"key": key, "progress": progress}
    critical = critical_spread(POPULATION)
    axes = {"spread": SHARES * critical}
    cells = {name: POPULATION.replace(sampler=order).cell() for name, order in ORDERS.items()}
    random = {name: cell for name, cell in cells.items() if name not in PERIODIC}
    periodic = {name: cells[name] for name in PERIODIC}
    beyond = FINITE.replace(spread=BEYOND * critical, sampler="block")
    seeds = 8 if quick else 24
    return {
        "random": compare(random, axes=axes, seeds=48 if quick else 192, **options),
        "periodic": compare(periodic, axes=axes, seeds=2, **options),
        "blocks": sweep(
            beyond.cell(), axes={"block_length": LENGTHS}, seeds=seeds, label="blocks", **options
        ),
        # Half of the redraws choose the same of the two environments again.
        "stays": sweep(
            beyond.replace(sampler="sticky").cell(),
            axes={"stay": 1 - 2 / LENGTHS[1:]},
            seeds=seeds,
            label="stays",
            **options,
        ),
        "chain": sweep(
            CHAIN.cell(),
            axes={"spread": [critical]},
            seeds=128 if quick else CHAINS,
            label="sticky chains",
            **options,
        ),
        "noiseless": sweep(
            beyond.replace(measurement="population").cell(),
            axes={"block_length": LENGTHS},
            seeds=1,
            label="blocks, population",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundaries, the intermittency of each order, and the effect of long stays."""
    from causal_sgd.analysis import order_parameter_boundary

    values, critical = {}, critical_spread(POPULATION)
    for name in ORDERS:
        powers = _powers(data, name)
        average = powers.mean("step").to_dataset(name="power")
        average = average.assign(diverged_at=powers.diverged_at)
        bound = order_parameter_boundary(average, metric="power", resamples=9)
        values[f"boundary_{name}"] = bound.value / critical
    cyclic, independent = (
        _powers(data, name).isel(spread=-1).values for name in ("cyclic", "independent")
    )
    blocks, stays = _mean(data["blocks"]), _mean(data["stays"])
    crossing = np.interp(np.log(MEAN / 4), np.log(blocks), np.log(LENGTHS))
    eight = list(LENGTHS).index(8)
    return values | {
        "cycle": cyclic.mean() / _cycle(SHARES[-1]),
        "steady": float(cyclic.min()) / _orbit(SHARES[-1]).min(),
        "stay": _correlation(data["chain"]) / CHAIN.stay,
        "bursts": float(np.median(independent) / independent.mean()),
        "short": blocks[0] / MEAN,
        "long": blocks[-1] / MEAN,
        "length": float(np.exp(crossing)) / _longest(),
        "sticky": stays[eight - 1] / blocks[eight],
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Means and medians of u^2 below the boundary, means beyond it, and the length of blocks."""
    tables = {"theory": points({}, {"longest_block": _longest()})}
    for name in ORDERS:
        powers = _powers(data, name).transpose("spread", ...).values.reshape(len(SHARES), -1)
        tables[f"{name}, after the transient"] = points(
            {"share_of_critical": SHARES},
            {"mean_power": powers.mean(1), "median_power": np.median(powers, 1)},
        )
    for name, lengths in (("blocks", LENGTHS), ("stays", LENGTHS[1:]), ("noiseless", LENGTHS)):
        tables[f"{name}, mean"] = points({"mean_stay": lengths}, {"power": _mean(data[name])})
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean and median of u^2 below the boundary, and the mean beyond it against the mean stay."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    _draw_orders(axes[0], axes[1], data)
    _draw_stays(axes[2], data)
    return fig


def _draw_orders(left: Axes, right: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    squares = SHARES**2
    for ax, title in ((left, "mean over time: one boundary"), (right, "median over time")):
        mark(ax, 1)
        ax.set(xlabel="$(M/M_c)^2$", ylabel=r"$u^2$", title=title)
    for name, colour, marker in zip(ORDERS, COLOURS, "osD^v", strict=False):
        powers = _powers(data, name)
        means = powers.mean(["step", "seed"]).values
        left.plot(squares, means, marker, color=colour, label=name)
        line_to_zero(left, squares, means, color=colour)
        medians = np.median(powers.transpose("spread", ...).values.reshape(len(SHARES), -1), axis=1)
        medians = np.where(medians > 0, medians, np.nan)
        right.semilogy(squares, medians, marker + "-", color=colour, label=name)
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=1e-18)
    left.legend(frameon=False)


def _draw_stays(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    batch = "$m = 16\\,000$"
    ax.loglog(LENGTHS, _mean(data["blocks"]), "v-", color=COLOURS[4], label=f"blocks, {batch}")
    ax.loglog(LENGTHS[1:], _mean(data["stays"]), "D-", color=COLOURS[2], label=f"sticky, {batch}")
    ax.axvline(_longest(), color="0.3", ls=(0, (4, 3)), lw=1)
    ax.annotate("theory", (_longest(), 1.2e-3), (4, 0), textcoords="offset points", fontsize=8)
    most = float(np.nanmax(_mean(data["noiseless"])))
    ax.plot([], [], " ", label=f"population: below {most:.0e}" if most > 0 else "population: 0")
    ax.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    ax.minorticks_off()
    ax.set(xlabel="mean stay in an environment, steps", ylabel=r"mean $|V^\top U|^2$")
    ax.set_ylim(top=100)
    ax.set_title(f"$M = {BEYOND:g}\\,M_c$: long stays learn anew")
    ax.legend(frameon=False, loc="upper left")


def _correlation(dataset: xr.Dataset) -> float:
    """The correlation of the environments of successive steps, which grow or shrink |u|."""
    logs = np.log(dataset.spurious_signal.squeeze("spread").transpose("seed", "step").values)
    grown = np.diff(logs) > 0
    return 1 - 2 * float(np.mean(grown[:, 1:] != grown[:, :-1]))


def _orbit(share: float) -> np.ndarray:
    """The two values of u^2 to which the map settles in a cycle, at a share of M_c."""
    spread, u = share * critical_spread(POPULATION), POPULATION.init_scale
    powers = np.zeros(2)
    for step in range(POPULATION.steps):
        sign = 1 if step % 2 else -1
        u *= 1 + RATE * (MEAN + sign * spread - u * u)
        powers[step % 2] = u * u
    return powers


def _powers(data: Mapping[str, xr.Dataset], name: str) -> xr.DataArray:
    """u^2 [spread, seed, step] of an order after the transient, with coordinate `diverged_at`."""
    part = data["periodic" if name in PERIODIC else "random"].sel(variant=name)
    return late(part.spurious_power.assign_coords(diverged_at=part.diverged_at), AFTER)


def _mean(dataset: xr.Dataset) -> np.ndarray:
    """The mean of |V'U|^2 after the transient over time and seeds."""
    return late(surviving(dataset).spurious_power, AFTER).mean(["step", "seed"]).values


def _cycle(share: float) -> float:
    """The mean of u^2 in the cycle of two environments, to first order in lambda.

    Over a cycle sum log|1 + eta s - eta u^2| = 0; at the transition u is multiplied by f, then by
    1/f.
    """
    from causal_sgd import theory

    critical = critical_spread(POPULATION)
    factor = 1 + RATE * (MEAN + critical)
    drift = float(theory.lyapunov_two_point(RATE, MEAN, share * critical))
    return drift / RATE * (1 + factor**2) / (1 / factor + factor**3)


def _longest() -> float:
    """The length of blocks in which the noise grows to the size of the signals."""
    spread = BEYOND * critical_spread(POPULATION)
    floor = RATE * spread / np.sqrt(2 * FINITE.batch_size)
    return float(-np.log(floor) / np.log(1 + RATE * (MEAN + spread - FINITE.invariant_eigenvalue)))

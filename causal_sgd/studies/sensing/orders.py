"""The order of the environments does not move the transition, but decides what it looks like, and long blocks undo it in practice.

Independent draws, a fixed cycle, a new order in every pass, blocks and a sticky chain share the mean of log|1 + eta s|, and the
time average of u^2 falls to zero at the same critical spread in all (one direction, population gradients). But only where the
order is random over long times is the transition intermittent: in a cycle log|u| repeats itself, so that below the transition
u never leaves its level, the median is of the order of the mean, and finite runs show a sharp boundary. A sticky chain is more
intermittent than independent draws: the variance of log|u| grows (1 + stay)/(1 - stay) times as fast.

One would expect that blocks, sharing the boundary, reject as well. With batches they do not: noise keeps the direction
above a floor of about eta M/sqrt(2 m), and a block of L steps in an environment that favours it multiplies this by
(1 + eta (mu + M - sigma*))^L. Beyond L of about log(1/floor)/log(1 + eta (mu + M - sigma*)) - some ten steps here - every such
block learns the spurious signal completely, however far M is above M_c; more examples help only logarithmically. Sticky
orders suffer earlier, from their longest stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

RATE, MEAN = 0.1, 1.0
POPULATION = Experiment(
    dim=2, invariant_rank=1, spurious_rank=1, measurement="population", model="diagonal", basis="canonical",
    learning_rate=RATE, mean=MEAN, init_scale=0.1, stay=0.5, block_length=10, steps=20_000, record_every=47,
    metrics=("spurious_power",),
)  # fmt: skip
ORDERS = {
    "independent": "hetero",
    "shuffled": "shuffled",
    "sticky": "sticky",
    "cyclic": "cyclic",
    "blocks": "block",
}
PERIODIC = ("cyclic", "blocks")
SHARES = np.array([0.8, 0.85, 0.9, 0.95])  # of the critical spread
AFTER = 0.2
FINITE = POPULATION.replace(
    dim=6,
    measurement="gaussian-law",
    model="factored",
    batch_size=16_000,
    steps=4000,
    record_every=7,
)
BEYOND = 1.3  # critical spreads
LENGTHS = np.array([1, 2, 3, 5, 8, 12, 20, 30])
CLAIMS = {
    f"boundary_{order}": Claim(
        f"{order}: measured boundary over the curve", 1 - tolerance, 1 + tolerance, "the same Lyapunov exponent"
    )
    for order, tolerance in zip(ORDERS, (0.03, 0.02, 0.06, 0.02, 0.02), strict=True)
} | {
    "cycle": Claim("cyclic, M = 0.95 M_c: mean of u^2 over its first order in lambda", 0.9, 1.1, "perturbation theory"),
    "steady": Claim("cyclic, M = 0.95 M_c: median of u^2 over its mean", 0.3, 3, "this study: no intermittency"),
    "bursts": Claim("independent, M = 0.95 M_c: median of u^2 over its mean", 0, 0.01, "on-off intermittency"),
    "short": Claim("batch 16,000, M = 1.3 M_c, blocks of 1: mean of |V'U|^2 over mu", 0, 0.05, "rejected"),
    "long": Claim("batch 16,000, M = 1.3 M_c, blocks of 30: mean of |V'U|^2 over mu", 1, np.inf, "this study: learned anew"),
    "length": Claim(
        "batch 16,000: length of blocks at which the mean of |V'U|^2 crosses mu/4 over log(1/floor)/log(factor)", 0.6,
        1.4, "this study",
    ),
    "sticky": Claim(
        "batch 16,000, mean stay of 8: mean of |V'U|^2 of the sticky order over that of blocks", 2, np.inf, "this study"
    ),
}  # fmt: skip


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Each order below the boundary, 192 seeds (48 when quick) where it is random, and over the length of stays, 24 (8)."""
    from causal_sgd.sweeps import compare, sweep

    options: dict[str, Any] = {"key": key, "progress": progress}
    spreads = SHARES * _critical()
    cells = {name: POPULATION.replace(sampler=order).cell() for name, order in ORDERS.items()}
    random = {name: cell for name, cell in cells.items() if name not in PERIODIC}
    periodic = {name: cells[name] for name in PERIODIC}
    beyond = FINITE.replace(spread=BEYOND * _critical())
    seeds = 8 if quick else 24
    return {
        "random": compare(random, axes={"spread": spreads}, seeds=48 if quick else 192, **options),
        "periodic": compare(periodic, axes={"spread": spreads}, seeds=2, **options),
        "blocks": sweep(
            beyond.replace(sampler="block").cell(), axes={"block_length": LENGTHS}, seeds=seeds, label="blocks", **options
        ),
        # two environments: a stay ends with half of the probability to draw anew
        "stays": sweep(
            beyond.replace(sampler="sticky").cell(), axes={"stay": 1 - 2 / LENGTHS[1:]}, seeds=seeds, label="stays",
            **options,
        ),
        "noiseless": sweep(
            beyond.replace(sampler="block", measurement="population").cell(), axes={"block_length": LENGTHS}, seeds=1,
            label="blocks, population", **options,
        ),
    }  # fmt: skip


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The boundaries, how intermittent each order is, and what stays of finite length do at a finite batch."""
    from causal_sgd.analysis import order_parameter_boundary

    found = {}
    for name in ORDERS:
        powers = _order(data, name)
        averaged = (
            powers.mean("step").to_dataset(name="power").assign(diverged_at=powers.diverged_at)
        )
        found[f"boundary_{name}"] = (
            order_parameter_boundary(averaged, metric="power", resamples=9).value / _critical()
        )
    cyclic, independent = (
        _order(data, name).isel(spread=-1).values for name in ("cyclic", "independent")
    )
    blocks, stays = _mean(data["blocks"]), _mean(data["stays"])
    crossing = np.interp(np.log(MEAN / 4), np.log(blocks), np.log(LENGTHS))
    place = list(LENGTHS).index(8)
    return found | {
        "cycle": cyclic.mean() / _cycle(SHARES[-1]),
        "steady": float(np.median(cyclic) / cyclic.mean()),
        "bursts": float(np.median(independent) / independent.mean()),
        "short": blocks[0] / MEAN,
        "long": blocks[-1] / MEAN,
        "length": float(np.exp(crossing)) / _longest(),
        "sticky": stays[place - 1] / blocks[place],
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean and median below the boundary, and what is left beyond it over the length of stays."""
    from matplotlib import pyplot as plt

    from causal_sgd.figures import COLOURS

    drawing, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.6))
    for panel, title in ((left, "mean over time: one boundary"), (middle, "median over time")):
        panel.axvline(1, color="0.3", ls=":", lw=1)
        panel.set(xlabel="$(M/M_c)^2$", ylabel=r"$u^2$", title=title)
    for name, colour, marker in zip(ORDERS, COLOURS, "osD^v", strict=False):
        powers = _order(data, name)
        means = powers.mean(["step", "seed"]).values
        slope, start = np.polyfit(SHARES**2, means, 1)
        left.plot(SHARES**2, means, marker, color=colour, label=name)
        left.plot(
            [SHARES[0] ** 2, -start / slope],
            [slope * SHARES[0] ** 2 + start, 0],
            color=colour,
            lw=0.9,
        )
        medians = np.median(powers.transpose("spread", ...).values.reshape(len(SHARES), -1), axis=1)
        middle.semilogy(
            SHARES**2,
            np.where(medians > 0, medians, np.nan),
            marker + "-",
            color=colour,
            label=name,
        )
    left.set_ylim(bottom=0)
    middle.set_ylim(bottom=1e-18)
    left.legend(frameon=False)

    right.loglog(
        LENGTHS, _mean(data["blocks"]), "v-", color=COLOURS[4], label="blocks, $m = 16\\,000$"
    )
    right.loglog(
        LENGTHS[1:], _mean(data["stays"]), "D-", color=COLOURS[2], label="sticky, $m = 16\\,000$"
    )
    right.axvline(_longest(), color="0.3", ls=(0, (4, 3)), lw=1)
    right.annotate("theory", (_longest(), 1.2e-3), (4, 0), textcoords="offset points", fontsize=8)
    most = float(np.nanmax(_mean(data["noiseless"])))
    right.plot([], [], " ", label=f"population: below {most:.0e}" if most > 0 else "population: 0")
    right.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
    right.minorticks_off()
    right.set(xlabel="mean stay in an environment, steps", ylabel=r"mean $|V^\top U|^2$")
    right.set_ylim(top=100)
    right.set_title(f"$M = {BEYOND:g}\\,M_c$: long stays learn anew")
    right.legend(frameon=False, loc="upper left")
    return drawing


def _critical() -> float:
    from causal_sgd import theory

    return float(theory.critical_spread(RATE, MEAN))


def _after(values: xr.DataArray) -> xr.DataArray:
    return values.isel(step=slice(int(AFTER * values.sizes["step"]), None))


def _order(data: Mapping[str, xr.Dataset], name: str) -> xr.DataArray:
    """u^2 [spread, seed, step] of one order after the transient, with the coordinate `diverged_at`."""
    part = data["periodic" if name in PERIODIC else "random"].sel(variant=name)
    return _after(part.spurious_power.assign_coords(diverged_at=part.diverged_at))


def _mean(dataset: xr.Dataset) -> np.ndarray:
    """The mean of |V'U|^2 after the transient over time and seeds."""
    return (
        _after(dataset.spurious_power.where(dataset.diverged_at < 0)).mean(["step", "seed"]).values
    )


def _cycle(share: float) -> float:
    """The mean of u^2 in the cycle of two environments, to first order in lambda.

    Over a cycle sum log|1 + eta s - eta u^2| = 0, and at the transition u is multiplied by f and then by 1/f.
    """
    from causal_sgd import theory

    factor = 1 + RATE * (MEAN + _critical())
    drift = float(theory.lyapunov_two_point(RATE, MEAN, share * _critical()))
    return drift / RATE * (1 + factor**2) / (1 / factor + factor**3)


def _longest() -> float:
    """The length of blocks in which the noise grows to the size of the signals."""
    spread = BEYOND * _critical()
    floor = RATE * spread / np.sqrt(2 * FINITE.batch_size)
    return float(-np.log(floor) / np.log(1 + RATE * (MEAN + spread - FINITE.invariant_eigenvalue)))

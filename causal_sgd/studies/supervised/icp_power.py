"""The tests of ICP have the predicted power, and select what is not causal in at most 5 % of runs.

Invariant causal prediction accepts the sets of inputs on which the residuals of pooled least
squares look alike in all environments, and selects what all accepted sets share. How often a set is
rejected follows from the moments of the population: an F test of the variances and Welch's t test
of the means, with the noise of the estimated coefficients. With two environments, where both
comparisons are the same, the prediction holds to within 0.03 for every set, number of examples and
size of the interventions. With more, the tests depend on each other, and the shares lie between the
largest probability of a single test and their sum.

All parents are found only when the last set without them is rejected. With two environments that is
the empty set: the shifts of both parents nearly cancel in the label, and it takes an order of
magnitude more examples than the other sets. The causal set itself is rejected in up to 7 % of the
runs from three environments on, since the p-values of E comparisons are corrected for E - 1. What
is not causal is selected less often, as a set with it must be accepted in the same run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.analysis import final
from causal_sgd.studies import Claim
from causal_sgd.studies._tables import points

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Cell, Options
    from causal_sgd.supervised import worlds
    from causal_sgd.types import Array, Key, Trace

LEVEL = 0.05
# Inputs 1 and 2 are the parents of the label, input 3 is its child.
WEIGHTS = np.array(
    [[0, 0.5, 0.5, 1.0], [0, 0, 0, -0.7], [0, 0, 0, 0], [0, 0, 0.8, 0]]
)  # node i on node j; the label is the last node
CAUSAL = np.array([True, True, False])
PARENTS = 3  # the number of the set of both
SETS = (np.arange(8)[:, None] >> np.arange(3)) % 2 == 1  # set n holds input k where n has bit k
COUNTS = (100, 400, 1600, 6400, 25_600)
SHIFTS = (0.1, 0.3, 1.0)
QUICK_COUNTS, QUICK_SHIFTS = (400, 6400), (0.1, 0.3)
SHOWN = 0.3  # the shift of the sets in the figure
TOLERANCE = 0.03
THEORY = "laws of F and of Welch's t with estimated coefficients"
UNION = f"{THEORY}; union bound"
SEEDS = {2: 4000, 3: 2000, 5: 1000}
LAW = "Peters, Buehlmann and Meinshausen 2016"
CLAIMS = {
    "rejected_2": Claim(
        "E = 2: share of runs that reject a set, largest deviation from theory over all sets, "
        "examples and shifts",
        0,
        TOLERANCE,
        THEORY,
    ),
    **{
        f"rejected_{size}": Claim(
            f"E = {size}: the same, outside the bounds of theory", 0, TOLERANCE, UNION
        )
        for size in (3, 5)
    },
    "recovered": Claim(
        "share of runs that select exactly the parents: largest distance to the bounds of theory, "
        "over all E, examples and shifts",
        0,
        TOLERANCE,
        f"{UNION} over sets",
    ),
    "level": Claim(
        "share of runs that select the child, less three standard errors: largest over the same",
        -1,
        LEVEL,
        f"level of the tests ({LAW})",
    ),
    "level_random": Claim(
        "random models with five inputs: share of runs that select any input that is no parent, "
        "less three standard errors, largest over the examples",
        -1,
        LEVEL,
        f"level of the tests ({LAW})",
    ),
    "dependence": Claim.finding(
        "E = 3: largest excess of theory with independent tests over the share of rejecting runs"
    ),
    "causal_3": Claim.finding("E = 3, smallest shift: share of runs that reject the causal set"),
    "found": Claim.finding("random models, largest n: share of the parents that is selected"),
}


class Predicted(NamedTuple):
    """What theory says for each number of examples and shift."""

    rejected: np.ndarray  # [n, shift, set, 3]: bound, estimate, bound
    recovered: np.ndarray  # [n, shift, 2]: bounds


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """All sets of three inputs in 2, 3 and 5 environments, 100 to 25,600 examples of each, shifts
    of three sizes, 4000 seeds for two environments, 2000 for three and 1000 for five; and 1000
    random models of five inputs in three environments. When quick, two numbers of examples and two
    shifts with the same seeds, as shares of fewer would not decide the claims, and 250 models.
    """
    from causal_sgd.supervised import worlds
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    counts, shifts = (QUICK_COUNTS, QUICK_SHIFTS) if quick else (COUNTS, SHIFTS)
    axes = {"num_examples": np.array(counts), "shift": np.array(shifts)}
    data = {
        f"environments_{size}": sweep(
            _tests(functools.partial(_world, size)),
            axes=axes,
            seeds=seeds,
            label=f"tests of all sets, {size} environments",
            **options,
        )
        for size, seeds in SEEDS.items()
    }
    data["random"] = sweep(
        _tests(lambda shift: worlds.sem(shift=shift)),
        axes=axes | {"shift": np.array([1.0])},
        seeds=250 if quick else 1000,
        label="random models",
        **options,
    )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The shares of runs that reject each set or select each input, against theory."""
    values, outside, levels = {}, [], []
    for size in SEEDS:
        rejected = _share(~_accepted(data, size))[0]
        theory = _theory(data, size)
        low, estimate, high = np.moveaxis(theory.rejected, -1, 0)
        bounds = (estimate, estimate) if size == 2 else (low, high)
        values[f"rejected_{size}"] = _outside(rejected, *bounds)
        exact = _share(_exact(data, size))[0]
        outside.append(_outside(exact, *np.moveaxis(theory.recovered, -1, 0)))
        levels.append(_least(_child(data, size)))
        if size == 3:
            values["dependence"] = float((estimate - rejected).max())
            values["causal_3"] = float(rejected[:, 0, PARENTS].mean())
    selected, causal = _random(data)
    return values | {
        "recovered": max(outside),
        "level": max(levels),
        "level_random": _least(np.any(selected & ~causal, -1)),
        "found": float((selected & causal)[-1].sum() / causal[-1].sum()),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The shares of runs that reject each set or select inputs, with the bounds of theory."""
    tables = {}
    for size in SEEDS:
        theory = _theory(data, size)
        counts, shifts = _grid(data)
        settings = {"num_examples": counts[:, None], "shift": shifts}
        low, estimate, high = np.moveaxis(theory.rejected, -1, 0)
        numbers = {
            "measured": _share(~_accepted(data, size))[0],
            "theory": estimate,
            "theory_low": low,
            "theory_high": high,
        }
        sets = {name: values[..., None] for name, values in settings.items()}
        tables[f"rejected, {size} environments"] = points(sets | {"set": _labels()}, numbers)
        least, most = np.moveaxis(theory.recovered, -1, 0)
        numbers = {
            "parents_alone": _share(_exact(data, size))[0],
            "theory_low": least,
            "theory_high": most,
            "child": _share(_child(data, size))[0],
        }
        tables[f"selected, {size} environments"] = points(settings, numbers)
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """How often each set is rejected with theory, how often exactly the parents are selected with
    its bounds (bands), and how often the child is selected or the causal set rejected, against the
    number of examples.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(12.0, 4.2))
    _draw_sets(axes[0], data)
    _draw_recovered(axes[1], data)
    _draw_level(axes[2], data)
    for ax in axes:
        ax.set(xscale="log", xlabel="examples of each environment $n$")
    return fig


def _draw_sets(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    counts, shifts = _grid(data)
    shift = list(shifts).index(SHOWN)
    rejected, error = _share(~_accepted(data, 2))
    theory = _theory(data, 2).rejected[:, shift, :, 1]
    # Sets that tell the curves apart.
    for colour, marker, place in zip(figures.COLOURS, "osD^v", (0, 2, 1, 6, 3), strict=False):
        ax.plot(counts, theory[:, place], color=colour, lw=1)
        ax.errorbar(
            counts,
            rejected[:, shift, place],
            2 * error[:, shift, place],
            fmt=marker,
            ms=4,
            color=colour,
            label=_labels()[place],
        )
    ax.axhline(LEVEL, color="0.3", ls=":", lw=1)
    ax.set(
        ylabel="share of runs that reject the set",
        title=f"two environments, shift {SHOWN:g}; lines: theory",
    )
    ax.legend(
        frameon=False,
        title="set of inputs",
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        ncols=5,
    )


def _draw_recovered(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    counts, shifts = _grid(data)
    cases = [(size, SHOWN) for size in SEEDS] + [(3, shift) for shift in shifts if shift != SHOWN]
    colours = dict(zip(SEEDS, figures.COLOURS, strict=False))
    for size, shift in cases:
        index, colour = list(shifts).index(shift), colours[size]
        share, error = (values[:, index] for values in _share(_exact(data, size)))
        low, high = _theory(data, size).recovered[:, index].T
        ax.fill_between(counts, low, high, color=colour, alpha=0.12, lw=0)
        style = "o-" if shift == SHOWN else "o:" if shift < SHOWN else "o--"
        label = f"$E = {size}$, shift {shift:g}"
        ax.errorbar(counts, share, 2 * error, fmt=style, color=colour, ms=3, lw=1, label=label)
    ax.set(ylabel="share of runs", ylim=(-0.02, 1.02), title="exactly the parents; bands: theory")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _draw_level(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd import figures

    counts = _grid(data)[0]
    for colour, size in zip(figures.COLOURS, SEEDS, strict=False):
        share, error = _share(_child(data, size))
        worst = np.arange(len(counts)), share.argmax(1)
        style = {"fmt": "o-", "color": colour, "ms": 3, "lw": 1}
        label = f"child selected, $E = {size}$"
        ax.errorbar(counts, share[worst], 2 * error[worst], **style, label=label)
        rejected = _share(~_accepted(data, size))[0][:, :, PARENTS].max(1)
        ax.plot(counts, rejected, "--", color=colour, lw=1)
    selected, causal = _random(data)
    share, error = (numbers[:, 0] for numbers in _share(np.any(selected & ~causal, -1)))
    label = "random, no parent"
    ax.errorbar(counts, share, 2 * error, fmt="s-", color="0.3", ms=3, lw=1, label=label)
    ax.plot([], [], "--", color="0.3", lw=1, label="causal set rejected")
    ax.axhline(LEVEL, color="0.3", ls=":", lw=1)
    ax.set(ylabel="share of runs, largest over shifts", ylim=(0, 0.09), title="level 0.05 (dotted)")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _world(size: int, shift: float | Array) -> worlds.WorldFactory:
    """In environment e > 1 inputs are shifted by N(shift, shift^2): all three if there is only one
    such environment, else one each in turn.
    """
    from causal_sgd.supervised import worlds

    def shifted(inputs: range) -> list[worlds.Intervention]:
        return [
            worlds.Intervention("shift", node, mean=shift, variance=shift**2) for node in inputs
        ]

    others = [range(3)] if size == 2 else [range(e % 3, e % 3 + 1) for e in range(size - 1)]
    return worlds.from_equations(WEIGHTS, interventions=[[], *map(shifted, others)])


def _tests(world_of: Callable[[Array], worlds.WorldFactory]) -> Cell:
    """Which sets ICP accepts in a world of shifts of a size, and which inputs are causal."""
    import jax.numpy as jnp

    from causal_sgd import random
    from causal_sgd.supervised import estimators, measurements
    from causal_sgd.types import Trace

    def cell(key: Key, *, num_examples: Array, shift: Array) -> Trace:
        world = world_of(shift)(random.fold_in(key, 0))
        data = measurements.moments(num_examples).init(random.fold_in(key, 1), world)
        accepted = estimators.accepted_sets(data, world, level=LEVEL).accepted
        values = {"accepted": accepted[None], "causal": world.causal[None]}
        return Trace(jnp.zeros(1, jnp.int32), values, jnp.int32(-1))

    return cell


def _grid(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of examples and the shifts of a run."""
    runs = data["environments_2"]
    return runs.num_examples.values, runs["shift"].values


def _values(dataset: xr.Dataset, metric: str) -> np.ndarray:
    """A metric of truth values, [n, shift, seed, ...]."""
    values = final(dataset)[metric].transpose("num_examples", "shift", "seed", ...)
    return values.values.astype(bool)


def _accepted(data: Mapping[str, xr.Dataset], size: int) -> np.ndarray:
    """Which sets were accepted, [n, shift, seed, set]."""
    return _values(data[f"environments_{size}"], "accepted")


def _selected(dataset: xr.Dataset) -> np.ndarray:
    """The inputs that all accepted sets share, [n, shift, seed, input]."""
    accepted = _values(dataset, "accepted")[..., None]
    dim = int(np.log2(accepted.shape[-2]))
    sets = (np.arange(2**dim)[:, None] >> np.arange(dim)) % 2 == 1
    return np.asarray(np.all(sets | ~accepted, -2) & np.any(accepted, -2))


def _exact(data: Mapping[str, xr.Dataset], size: int) -> np.ndarray:
    """Whether exactly the parents are selected, [n, shift, seed]."""
    return np.asarray(np.all(_selected(data[f"environments_{size}"]) == CAUSAL, -1))


def _child(data: Mapping[str, xr.Dataset], size: int) -> np.ndarray:
    """Whether the child is selected, [n, shift, seed]."""
    return _selected(data[f"environments_{size}"])[..., -1]


def _random(data: Mapping[str, xr.Dataset]) -> tuple[np.ndarray, np.ndarray]:
    """Which inputs are selected and causal in random models, [n, shift, seed, input]."""
    return _selected(data["random"]), _values(data["random"], "causal")


def _share(events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of the seeds, the third axis, and its standard error."""
    share, count = events.mean(2), events.shape[2]
    # With one more event of either kind, so that a share of 0 or 1 has an error too.
    smoothed = (share * count + 1) / (count + 2)
    return share, np.sqrt(smoothed * (1 - smoothed) / count)


def _outside(share: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The largest distance to an interval, 0 within it."""
    return float(np.maximum(np.maximum(low - share, share - high), 0).max())


def _least(events: np.ndarray) -> float:
    """The largest share less three standard errors."""
    share, error = _share(events)
    return float((share - 3 * error).max())


def _theory(data: Mapping[str, xr.Dataset], size: int) -> Predicted:
    counts, shifts = _grid(data)
    return _predicted(size, tuple(counts.tolist()), tuple(shifts.tolist()))


@functools.cache  # for the claims, the figure and its table
def _predicted(size: int, counts: tuple[int, ...], shifts: tuple[float, ...]) -> Predicted:
    """What theory says of the world with so many environments."""
    import jax

    from causal_sgd.theory import invariance

    rejected, recovered = [], []
    for shift in shifts:
        world = _world(size, shift)(jax.random.key(0))
        second = np.asarray(world.second_moments, float)
        for count in counts:
            numbers = {"counts": float(count), "level": LEVEL}
            rejected.append([invariance.icp_rejection(second, each, **numbers) for each in SETS])
            recovered.append(invariance.icp_recovery(second, CAUSAL, float(count), level=LEVEL))
    shape = (len(shifts), len(counts))
    return Predicted(
        np.array(rejected).reshape(*shape, len(SETS), 3).swapaxes(0, 1),
        np.array(recovered).reshape(*shape, 2).swapaxes(0, 1),
    )


def _labels() -> list[str]:
    """The sets in words."""
    texts = [", ".join(str(k + 1) for k in np.flatnonzero(chosen)) for chosen in SETS]
    return [text or "none" for text in texts]

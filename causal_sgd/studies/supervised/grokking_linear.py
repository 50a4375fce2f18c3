"""Environments end the grokking of a linear model if they share inputs, and else prolong it.

Gradient descent on n examples of p inputs shrinks the error along every eigenvector of their second
moments at its own rate. Small eigenvalues hardly count in training, so that the test loss follows
late: at p/n = 0.9 a student has an accuracy of 95 % in training after 9 steps, and on new examples
after 180 (the teacher and student of Levi et al. 2023, of which we read the abstract; the formulas
are derived here, with their correction of order 1/p by Bai and Silverstein 2004). At low levels of
the loss the gap diverges at p/n = 1, as the source has it. At a given level it is finite there and
diverges at p/n = 1/(1 - level), here 1.027, where the directions without examples weigh more.

That HeteroSGD makes the gap vanish, by a floor under the training loss that the test does not show,
holds for environments with the same inputs and contradictory labels, but for another reason. The
gap vanishes at a spread just below the root of the level with batches of all environments, too: no
weights fit both labels of an input. Beyond, training never reaches the level. HeteroSGD's own noise
moves this spread from 0.99 to 0.86 of the root, and does show in the test, by half of what it is in
training. With inputs of their own the disagreement of environments acts like label noise, which is
fitted. The limits are M^2 (1 - p/n) in training and M^2 (p/n)/(1 - p/n) in the test. Above p/n =
0.382 the test's is higher, and the gap grows with the spread until it is infinite: the prediction
is reversed, for both samplers. (The laws of environments are ours. Intervals were widened by the
standard error when the number of seeds was halved, after pilots.)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _grokking as cells

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

EXAMPLES = np.array([630, 210, 126, 90, 78, 70, 68, 60])  # of one environment
OWN_EXAMPLES = np.array([70, 210])  # of two environments with own inputs
SPREADS = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.1, 1.3])  # over the root of the level
OWN_SPREADS = np.array([0.2, 0.4, 0.7, 1.3])
SINGLE = np.array([0.0, 1.0])  # all environments in a batch, or one
SAMPLERS = ("stratified", "hetero")
LATE = 160  # steps after which noise is averaged
DENSITY = "density of Marchenko and Pastur with its correction of order 1/p"
ORDER = "that law, and environments as perturbations of independent signs"
CLAIMS = {
    "training_times": Claim(
        "one environment: steps to the level in training over the law, p/n of 0.1 to 0.93, the "
        "farthest from 1",
        0.97,
        1.03,
        DENSITY,
    ),
    "test_times": Claim("the same for new examples, p/n of 0.1 to 0.7", 0.91, 1.09, DENSITY),
    "gap": Claim("p/n = 0.9: gap of both times over the law", 0.8, 1.2, DENSITY),
    "gap_near": Claim("p/n = 0.926: the same", 0.76, 1.24, DENSITY),
    "beyond": Claim(
        f"p/n = 1.05: test loss after {cells.STEPS} steps over the law", 0.86, 1.14, DENSITY
    ),
    "never": Claim(
        "p/n = 1.05, beyond 1/(1 - level): least test loss over the level",
        1,
        np.inf,
        "directions without examples",
    ),
    "accuracy": Claim(
        "p/n = 0.9: largest deviation of the share of examples within tolerance from that of "
        "normal residuals of the run's loss",
        0,
        0.03,
        "4.5 standard errors, and an order of 1/p",
    ),
    "vanishing_stratified": Claim(
        "same inputs, all environments in a batch: spread at which the gap vanishes over the law",
        0.96,
        1.04,
        DENSITY,
    ),
    "vanishing_hetero": Claim("same inputs, HeteroSGD: the same", 0.96, 1.04, DENSITY),
    "shared_training": Claim(
        "same inputs, HeteroSGD, a spread of 1.3: late training loss over the law",
        0.91,
        1.09,
        DENSITY,
    ),
    "shared_never": Claim(
        "same inputs, a spread of 1.3, both samplers: least training loss over the level",
        1,
        np.inf,
        "contradictory labels",
    ),
    "shared_reached": Claim(
        "same inputs, HeteroSGD, a spread of 1.3: least test loss over the level", 0, 1, DENSITY
    ),
    "noise_test": Claim(
        "same inputs, a spread of 1.3: what HeteroSGD adds to the late test loss, over the law",
        0.91,
        1.09,
        DENSITY,
    ),
    "noise_ratio": Claim(
        "what it adds to the late training loss over what it adds to the test loss, over the law",
        0.9,
        1.1,
        DENSITY,
    ),
    "own_limits": Claim(
        "own inputs, p/n = 0.3, all environments in a batch: late test loss over training loss, "
        "over (p/n)/(1 - p/n)^2",
        0.9,
        1.1,
        ORDER,
    ),
    "own_least": Claim(
        "own inputs, p/n = 0.9, all environments in a batch, a spread of 0.7: least test loss over "
        "the law",
        0.85,
        1.15,
        ORDER,
    ),
    "own_never": Claim(
        "own inputs, p/n = 0.9, a spread of 0.7, both samplers: least test loss over the level",
        1,
        np.inf,
        ORDER,
    ),
    "own_reached": Claim(
        "the same: least training loss over the level, larger of both samplers", 0, 1, ORDER
    ),
    "own_below": Claim(
        "own inputs, p/n = 0.3, a spread of 1.3, all environments in a batch: least training loss "
        "over the level",
        1,
        np.inf,
        ORDER,
    ),
    "own_below_reached": Claim("the same: least test loss over the level", 0, 1, ORDER),
    "own_noise": Claim(
        "own inputs, p/n = 0.3: what HeteroSGD adds to the late training loss, over the law",
        0.85,
        1.15,
        "residuals of the fit, to first order in the learning rate",
    ),
    "own_noise_far": Claim.finding(
        "own inputs, p/n = 0.9: the same; the learning rate is not small there"
    ),
    "delay": Claim.finding("p/n = 0.9: steps to the level in the test over those in training"),
    "noise_share": Claim.finding(
        "same inputs: what HeteroSGD adds to the late training loss over what it adds to the test "
        "loss"
    ),
    "moved": Claim.finding(
        "same inputs, HeteroSGD: spread at which the gap vanishes over the root of the level"
    ),
    "prolonged": Claim.finding(
        "own inputs, p/n = 0.9, HeteroSGD, a spread of 0.2: gap over that without spread"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Students of 63 inputs at the distance 1 from their teacher, at a learning rate of 0.5: 320
    steps on a quarter of the mean squared residual of all examples. One environment: eight numbers
    of examples. Two environments, which shift the teacher by opposite vectors of length M: eight
    spreads M on the same 70 inputs, four on own inputs, 70 in all, and the widest on 210, with both
    in a batch or one. Own inputs have 256 seeds (32 when quick), and the same ones 128 (16).
    Spreads are in units of the root of the level, the loss at which 95 % of squared residuals are
    below 0.1.
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    seeds, root = 16 if quick else 128, level() ** 0.5
    shared = {"spread": root * SPREADS, "single": SINGLE}
    numbers, spreads, single = np.array(_own_cases()).T
    own = zipped(num_examples=numbers.astype(int) // 2, spread=root * spreads, single=single)
    return {
        "shared": sweep(cells.shared, axes=shared, seeds=seeds, **options),
        "own": sweep(cells.own, axes={"case": own}, seeds=2 * seeds, **options),
    }


def _own_cases() -> list[tuple[float, float, float]]:
    """Numbers of examples, spreads over the root of the level, and whether batches are single."""
    few, many = OWN_EXAMPLES
    return [
        *((number, 0.0, 0.0) for number in EXAMPLES),
        *itertools.product((few,), OWN_SPREADS, SINGLE),
        *itertools.product((many,), OWN_SPREADS[-1:], SINGLE),
    ]


def of_case(
    data: Mapping[str, xr.Dataset], number: float, spread: float = 0.0, single: float = 0.0
) -> xr.Dataset:
    """The mean curves of one of these cases."""
    place = _own_cases().index((number, spread, single))
    return data["own"].isel(case=place).mean("seed")


def level() -> float:
    """The loss at which the accuracy is 95 %."""
    from scipy.special import erfinv  # the theory would start jax before the sweeps

    return cells.TOLERANCE / (2 * float(erfinv(cells.ACCURACY)) ** 2)


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Times and losses over their laws."""
    return {**_alone(data), **_shared(data), **_own(data)}


def _alone(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """What the runs of one environment show."""
    from causal_sgd.theory import linear_dynamics

    goal = level()
    found = times(data)
    laws = np.array(
        linear_dynamics.grokking_times(cells.RATE, cells.DIM / EXAMPLES, goal, dim=cells.DIM)
    )
    gaps, law_gaps = found[1] - found[0], laws[1] - laws[0]
    near, far = (list(EXAMPLES).index(number) for number in (70, 68))
    test = of_case(data, 60).test.values
    law = cells.law(data["own"].step.values, "own", 60, 0.0, "stratified")[1]
    runs = data["shared"].isel(spread=0, single=0)
    normal = linear_dynamics.accuracy(np.maximum(runs.training.values, 1e-20), cells.TOLERANCE)
    deviations = np.mean(
        runs.accuracy.values - np.asarray(normal), runs.training.get_axis_num("seed")
    )
    return {
        "training_times": farthest_from_one(found[0, :-1] / laws[0, :-1]),
        "test_times": farthest_from_one(found[1, :4] / laws[1, :4]),
        "gap": float(gaps[near] / law_gaps[near]),
        "gap_near": float(gaps[far] / law_gaps[far]),
        "beyond": float(test[-1] / law[-1]),
        "never": float(test.min() / goal),
        "accuracy": float(np.abs(deviations).max()),
        "delay": float(found[1, near] / found[0, near]),
    }


def _shared(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """What environments with the same inputs show."""
    from causal_sgd.theory import linear_dynamics

    goal, runs = level(), data["shared"]
    laws = {
        sampler: float(
            linear_dynamics.vanishing_spread(
                cells.RATE, cells.DIM / cells.EXAMPLES, goal, dim=cells.DIM, sampler=sampler
            )
        )
        for sampler in SAMPLERS
    }
    found = {sampler: vanishing(data, index) for index, sampler in enumerate(SAMPLERS)}
    whole, single = (runs.isel(spread=-1, single=index).mean("seed") for index in (0, 1))
    spread = float(runs.spread[-1])
    late = single.step.values >= LATE
    law = cells.law(single.step.values, "shared", cells.EXAMPLES, spread, "hetero")[0]
    added, law_added = _noise((whole, single), "shared", cells.EXAMPLES, spread)
    return {
        **{f"vanishing_{name}": found[name] / laws[name] for name in SAMPLERS},
        "shared_training": float(single.training.values[late].mean() / law[late].mean()),
        "shared_never": min(float(each.training.min()) for each in (whole, single)) / goal,
        "shared_reached": float(single.test.min()) / goal,
        "noise_test": added[1] / law_added[1],
        "noise_ratio": added[0] / added[1] / (law_added[0] / law_added[1]),
        "noise_share": added[0] / added[1],
        "moved": found["hetero"] / goal**0.5,
    }


def _own(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """What environments with inputs of their own show."""
    goal, (few, many) = level(), OWN_EXAMPLES
    middle, widest = OWN_SPREADS[2:]
    both = [of_case(data, few, middle, single) for single in SINGLE]
    law = cells.law(both[0].step.values, "own", few, middle * goal**0.5, "stratified")[1]
    ends = {
        number: [of_case(data, number, widest, each) for each in SINGLE] for number in (few, many)
    }
    noise = {
        number: np.divide(*_noise(runs, "own", number, widest * goal**0.5))[0]
        for number, runs in ends.items()
    }
    below, ratio = ends[many][0], cells.DIM / many
    first = of_case(data, few, OWN_SPREADS[0], 1.0)
    gap = crossing_of(first, "test") - crossing_of(first, "training")
    start = of_case(data, few)
    return {
        "own_limits": float(below.test[-1] / below.training[-1]) / (ratio / (1 - ratio) ** 2),
        "own_least": float(both[0].test.min()) / float(law.min()),
        "own_never": min(float(each.test.min()) for each in both) / goal,
        "own_reached": max(float(each.training.min()) for each in both) / goal,
        "own_below": float(below.training.min()) / goal,
        "own_below_reached": float(below.test.min()) / goal,
        "own_noise": float(noise[many]),
        "own_noise_far": float(noise[few]),
        "prolonged": gap / (crossing_of(start, "test") - crossing_of(start, "training")),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Times to the level in training and test with their laws, and the vanishing spreads."""
    from causal_sgd.theory import linear_dynamics

    found, ratios = times(data), cells.DIM / EXAMPLES
    laws = linear_dynamics.grokking_times(cells.RATE, ratios, level(), dim=cells.DIM)
    spreads = [vanishing(data, index) / level() ** 0.5 for index in range(len(SAMPLERS))]
    names = ("training", "test")
    return {
        "times": points(
            {"num_examples": EXAMPLES, "ratio": ratios},
            {name: found[place] for place, name in enumerate(names)}
            | {f"{name}_law": np.asarray(laws[place]) for place, name in enumerate(names)},
        ),
        "vanishing": points({"single": SINGLE}, {"spread": spreads}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Losses in training and on new examples at p/n = 0.9, with the law (dotted) and the level of
    95 % accuracy (dashed; top left); steps to the level against p/n, with the law, and the p/n at
    which the gap diverges (top right); steps to the level for two environments with the same inputs
    (bottom left) and with own ones (bottom right) against their spread, over the root of the level.
    Full symbols: all environments in a batch. Open symbols: HeteroSGD. Lines: laws. Symbols at the
    upper edge stand for runs that do not reach the level.
    """
    from matplotlib import pyplot as plt

    from causal_sgd.studies.supervised import _grokking_panels as panels

    fig, axes = plt.subplots(2, 2, figsize=(9.0, 6.4), layout="constrained")
    panels.draw_losses(axes[0, 0], of_case(data, cells.EXAMPLES), level())
    panels.draw_times(axes[0, 1], cells.DIM / EXAMPLES, times(data), level())
    shared = data["shared"].mean("seed")
    panels.draw_spreads(
        axes[1, 0],
        "shared",
        SPREADS,
        [[shared.isel(spread=place, single=i) for place in range(len(SPREADS))] for i in (0, 1)],
        level(),
    )
    few = OWN_EXAMPLES[0]
    own = [[of_case(data, few, spread, each) for spread in OWN_SPREADS] for each in SINGLE]
    panels.draw_spreads(axes[1, 1], "own", OWN_SPREADS, own, level())
    return fig


def crossing_of(run: xr.Dataset, name: str) -> float:
    """The steps of a mean curve to the level."""
    return cells.crossing(run.step.values, run[name].values, level())


def times(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The steps of one environment to the level in training and test, [2, numbers of examples]."""
    runs = [of_case(data, number) for number in EXAMPLES]
    return np.array([[crossing_of(run, name) for run in runs] for name in ("training", "test")])


def vanishing(data: Mapping[str, xr.Dataset], index: int) -> float:
    """The spread at which training is at the level when the test is, between those that ran."""
    goal, means = level(), data["shared"].isel(single=index).mean("seed")
    steps = means.step.values
    excess = np.array(
        [
            cells.at(steps, run.training.values, cells.crossing(steps, run.test.values, goal))
            for run in (means.isel(spread=place) for place in range(len(SPREADS)))
        ]
    )
    squares = means.spread.values**2  # in which the loss is linear
    above = np.flatnonzero(excess > goal)
    if not len(above) or not above[0]:
        return np.nan
    pair = slice(above[0] - 1, above[0] + 1)
    return float(np.interp(goal, excess[pair], squares[pair]) ** 0.5)


def _noise(
    runs: Sequence[xr.Dataset], design: str, number: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """What HeteroSGD, the second run, adds to both late losses, and the law, [2] each."""
    whole, single = runs
    steps = whole.step.values
    late = steps >= LATE
    added = [(single[name] - whole[name]).values[late].mean() for name in ("training", "test")]
    laws = [cells.law(steps, design, number, spread, each)[:, late] for each in SAMPLERS]
    return np.array(added), np.mean(laws[1] - laws[0], 1)

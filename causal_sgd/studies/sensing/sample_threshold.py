"""Small starts recover a matrix from as many examples as trace-norm minimisation, no more.

Gradient descent on U U' with k = d columns from a small start is believed to find the fitting
matrix of least trace (Gunasekar et al. 2017; Li, Ma and Zhang 2018; Stoeger and Soltanolkotabi
2021). The latter has a sharp threshold, the statistical dimension n* of the descent cone of the
trace over positive matrices (Amelunxen, Lotz, McCoy and Tropp 2014), computed here from the exact
eigenvalue density of the Gaussian orthogonal ensemble: d = 12 needs 21, 35 and 45 examples at ranks
1, 2 and 3, far fewer than the d (d + 1) / 2 = 78 unknowns. The claim, new as far as we know, is
that the descent has the same threshold, whatever alpha is, as long as it is small. A large start
loses it, but needs no more than the cone of positive matrices alone (tau = 0 in the same
formula): beyond r (r + 1) / 2 + r (d - r) + (d - r) (d - r + 1) / 4 examples no bias is needed, as
only one positive matrix fits. At r = 0 that is d (d + 1) / 4, the memorisation bound of
`finite-data`.

The early phase is that of Stoeger and Soltanolkotabi: U grows by powers of I + eta A*A(A), up to a
level that does not depend on alpha. Between the two numbers the final error is about alpha^0.44, so
that what counts as recovered matters: with a relative error of 0.1, our first choice, in place of
0.03 the thresholds are 11 % lower, some of them below 0.9 n*. (Too few examples for the isometry
under which a power is proved.) A large start stays far from A* even beyond the cone's number, where
only one matrix fits, because it gets there slowly. A third factor (Arora, Cohen, Hu and Luo 2019)
was predicted to move the threshold below n*: at alpha = 0.05 it does, to 0.88 of that of two
factors. What several environments cost: labels that contradict each other act as noise, of which
only the number n E of all examples counts, and A* is found to 40 % where the law of `finite-data`
says, at n E of order M^2 d^2 rather than n*, with 2 environments as with 8. Far below d (d + 1) / 4
in total all environments are memorised at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import late
from causal_sgd.studies._tables import points
from causal_sgd.studies._thresholds import half
from causal_sgd.studies.sensing._first_examples import contradiction_cell, recovery_cell
from causal_sgd.studies.sensing._threshold_numbers import draw_powers, early_levels

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

RANKS = (1, 2, 3)
DIMS = {12: 3000, 20: 2000}  # steps of the runs
SEEDS = {12: 24, 20: 10}
FRACTIONS = np.array([0.7, 0.84, 0.95, 1.05, 1.18, 1.4])  # of n*, where runs are
SMALL, TINY, LARGE = 1e-4, 1e-6, 0.5  # alpha
RECOVERED, LOOSE = 0.03, 0.1  # relative error: a start of 1e-4 leaves some 1e-2 (its root)
ONE = (12, 2)  # the dimension and rank of the other comparisons
WIDE = np.array([41, 71])  # examples for large starts: 1.18 of n*, and 1.4 of the cone's number
DEEP = np.array([0.45, 0.6, 0.75, 0.9, 1.05, 1.2])  # and for depth 3
DEEP_SCALE, DEEP_STEPS = 0.05, 3000
POWERS = np.geomspace(1e-4, 1e-1, 4)
EARLY_STEPS, EARLY_EXAMPLES = 250, 60
LINEAR = 0.05  # relative deviation of the largest singular value of U from linear growth
BETWEEN = 44  # examples between n* = 34.9 and the number for the cone, 50.5
CONE = "statistical dimension of the cone (Amelunxen et al. 2014)"
# HeteroSGD
SIZE, ENVIRONMENTS = 8, (2, 8)
MEAN, SPREAD, LEVEL = 0.5, 4.0, 0.4  # of |A*|, the error at which examples are compared
CONTRADICTED = np.array([0.6, 1.0, 1.5])  # of the predicted n E
MEMORISED = 8  # n E, below half of d (d + 1) / 4 = 18: contradicting labels are harder to fit
HETERO_STEPS = {2: 800, 8: 2000}
HETERO_RATE = 0.1
CLAIMS = (
    {
        f"threshold_{dim}_{rank}": Claim(
            f"d = {dim}, rank {rank}, alpha = {SMALL:g}: examples at which half of the matrices "
            "are recovered over n*",
            0.9,
            1.1,
            CONE,
        )
        for dim in DIMS
        for rank in RANKS
    }
    | {
        "smaller": Claim(
            f"d = 12, rank 2: the threshold at alpha = {TINY:g} over that at {SMALL:g}",
            0.9,
            1.1,
            "limit of small starts",
        ),
        "loose": Claim.finding(
            f"threshold where a relative error of {LOOSE:g} counts as recovered over that of "
            f"{RECOVERED:g}, mean over dimensions and ranks"
        ),
        "larger": Claim(
            f"d = 12, rank 2, alpha = {LARGE:g}, n = {WIDE[0]} (1.18 n*): share of recovered "
            "matrices",
            0,
            0.1,
            CONE,
        ),
        "cone": Claim.finding(
            f"d = 12, rank 2, alpha = {LARGE:g}, n = {WIDE[1]}, beyond the cone of positive "
            "matrices: median relative error at the end, which still falls"
        ),
        "early": Claim(
            f"d = 12, rank 2, n = {EARLY_EXAMPLES}: the level of the largest eigenvalue at "
            f"which linear growth is 5 % off, at alpha = {TINY:g} over that at {SMALL:g}",
            0.9,
            1.1,
            "the early phase is a power method (Stoeger and Soltanolkotabi 2021)",
        ),
        "power": Claim.finding(
            f"d = 12, rank 2, n = {BETWEEN}: exponent of alpha in the median relative error"
        ),
        "deep": Claim.finding("d = 12, rank 2: the threshold of depth 3 over that of depth 2"),
    }
    | {
        f"hetero_{number}": Claim(
            f"HeteroSGD, d = {SIZE}, {number} environments: n E at which the error is {LEVEL:g} "
            "|A*| over the prediction",
            0.75,  # the accuracy of the law of the error, 15 %, squared
            1.33,
            "Wigner's semicircle",
        )
        for number in ENVIRONMENTS
    }
    | {
        "memorised": Claim(
            f"HeteroSGD, d = {SIZE}, 8 environments, n E = {MEMORISED}, below d (d + 1) / 4 = 18: "
            "final over initial loss",
            0,
            1e-3,
            CONE,
        )
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Recovery over the number of examples at ranks 1 to 3, 24 seeds at d = 12 and 10 at d = 20 (8
    and 3 when quick); at rank 2 with smaller and larger starts and with depth 3; HeteroSGD with 2
    and 8 environments, 6 seeds (2).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    data, cells = {}, {}
    for dim, steps in DIMS.items():
        counts = np.concatenate([_counts(dim, rank, FRACTIONS) for rank in RANKS])
        cells[dim] = recovery_cell(dim, int(counts.max()), steps)
        pairs = zipped(rank=np.repeat(RANKS, len(FRACTIONS)), num_examples=counts)
        seeds = SEEDS[dim] // 3 if quick else SEEDS[dim]
        data[f"d = {dim}"] = sweep(
            cells[dim],
            axes={"point": pairs, "init_scale": [SMALL]},
            seeds=seeds,
            label=f"d = {dim}",
            **options,
        )
    dim, rank = ONE
    seeds = SEEDS[dim] // 3 if quick else SEEDS[dim]
    for name, scales, numbers in (
        ("tiny", [TINY], _counts(dim, rank, FRACTIONS)),
        ("large", [LARGE], WIDE),
        ("powers", POWERS, [BETWEEN]),
    ):
        data[name] = sweep(
            cells[dim],
            axes={"rank": [rank], "num_examples": numbers, "init_scale": scales},
            seeds=seeds,
            label=name,
            **options,
        )
    data["early"] = sweep(
        recovery_cell(dim, EARLY_EXAMPLES, EARLY_STEPS, record_every=2),
        axes={
            "rank": [rank],
            "num_examples": [EARLY_EXAMPLES],
            "init_scale": [TINY, SMALL],
            "feedback": [0.0, 1.0],
        },
        seeds=seeds,
        label="early phase",
        **options,
    )
    counts = _counts(dim, rank, DEEP)
    data["depth 3"] = sweep(
        recovery_cell(dim, int(counts.max()), DEEP_STEPS, depth=3),
        axes={
            "rank": [rank],
            "num_examples": counts,
            "init_scale": [DEEP_SCALE],
        },
        seeds=seeds,
        label="depth 3",
        **options,
    )
    for number, steps in HETERO_STEPS.items():
        counts = _hetero_counts(number)
        # A data set of few examples has a large curvature, against signals of up to mu + M.
        curvature = (1 + np.sqrt(SIZE * (SIZE + 1) / 2 / counts)) ** 2
        rates = np.minimum(HETERO_RATE, 1 / (curvature * (MEAN + SPREAD)))
        rates[1:] = HETERO_RATE
        data[f"{number} environments"] = sweep(
            contradiction_cell(SIZE, number, int(counts.max()), steps),
            axes={
                "point": zipped(num_examples=counts, learning_rate=rates),
                "mean": [MEAN],
                "spread": [SPREAD],
            },
            seeds=2 if quick else 6,
            label=f"{number} environments",
            **options,
        )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Thresholds over their predictions, the power of alpha, and the examples of HeteroSGD."""
    values, loose = {}, []
    for dim in DIMS:
        for rank in RANKS:
            threshold, other = (
                half(*_of_rank(data, dim, rank, error)) for error in (RECOVERED, LOOSE)
            )
            values[f"threshold_{dim}_{rank}"] = threshold / _dimension(dim, rank)
            loose.append(other / threshold)
    dim, rank = ONE
    small = values[f"threshold_{dim}_{rank}"] * _dimension(dim, rank)
    tiny, deep = (
        half(data[name].num_examples.values, *_shares(data[name])) for name in ("tiny", "depth 3")
    )
    large = data["large"].isel(rank=0, init_scale=0)
    errors = data["powers"].relative_invariant_error.isel(step=-1).median("seed").values.ravel()
    values |= {
        "smaller": tiny / small,
        "loose": float(np.mean(loose)),
        "larger": float(_shares(large)[0][0]),
        "cone": float(large.relative_invariant_error.isel(step=-1, num_examples=1).median("seed")),
        "early": float(np.divide(*np.median(early_levels(data["early"], LINEAR), 1))),
        "power": float(np.polyfit(np.log(POWERS), np.log(errors), 1)[0]),
        "deep": deep / small,
    }
    for number in ENVIRONMENTS:
        counts, error, loss = _contradiction(data, number)
        # Errors fall with n.
        log_count = np.interp(-np.log(LEVEL), -np.log(error[1:]), np.log(counts[1:]))
        values[f"hetero_{number}"] = float(np.exp(log_count)) * number / _contradicted()
        values["memorised"] = float(loss[0])  # of the last, with 8
    return values


def _counts(dim: int, rank: int, fractions: np.ndarray) -> np.ndarray:
    """Whole numbers of examples near fractions of n*."""
    return np.round(fractions * _dimension(dim, rank)).astype(int)


def _dimension(dim: int, rank: int, threshold: float | None = None) -> float:
    from causal_sgd import theory

    return float(theory.statistical_dimension(dim, rank, threshold))


def _shares(dataset: xr.Dataset, error: float = RECOVERED) -> tuple[np.ndarray, int]:
    """The share of recovered matrices for each number of examples, and the number of runs."""
    recovered = dataset.relative_invariant_error.isel(step=-1) < error
    return recovered.mean("seed").values.ravel(), dataset.sizes["seed"]


def _of_rank(
    data: Mapping[str, xr.Dataset], dim: int, rank: int, error: float = RECOVERED
) -> tuple[np.ndarray, np.ndarray, int]:
    """Examples and shares of recovered matrices of one rank, and the number of runs."""
    shares, runs = _shares(data[f"d = {dim}"].isel(init_scale=0), error)
    index = RANKS.index(rank)
    part = slice(index * len(FRACTIONS), (index + 1) * len(FRACTIONS))
    return _counts(dim, rank, FRACTIONS), shares[part], runs


def _contradicted() -> float:
    """The predicted n E at which HeteroSGD has the error LEVEL."""
    from causal_sgd import theory

    one = theory.finite_data_error(
        np.hypot(SPREAD, MEAN),
        num_examples=1,
        num_environments=1,
        dim=SIZE,
        invariant_rank=1,
        spurious_rank=1,
    )
    return float(one / LEVEL) ** 2


def _hetero_counts(number: int) -> np.ndarray:
    """Examples of each environment: memorised ones, then around the prediction."""
    return np.append(MEMORISED, np.round(CONTRADICTED * _contradicted())).astype(int) // number


def _contradiction(
    data: Mapping[str, xr.Dataset], number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples of each environment, and the settled relative error and loss over the initial."""
    dataset = data[f"{number} environments"].isel(mean=0, spread=0)
    settled = late(dataset, 0.75)
    error = settled.relative_invariant_error.median(["seed", "step"]).values
    loss = settled.batch_loss.mean(["seed", "step"]) / dataset.batch_loss.isel(step=1).mean("seed")
    return _hetero_counts(number), error, loss.values


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The shares of recovered matrices, and the predicted thresholds."""
    tables = {}
    for dim in DIMS:
        for rank in RANKS:
            counts, shares, _ = _of_rank(data, dim, rank)
            tables[f"recovered, d = {dim}, rank {rank}"] = points(
                {"num_examples": counts}, {"share": shares}
            )
    pairs = np.array([(dim, rank) for dim in DIMS for rank in RANKS])
    tables["theory"] = points(
        {"dim": pairs[:, 0], "rank": pairs[:, 1]},
        {
            "trace": [_dimension(*pair) for pair in pairs.tolist()],
            "cone": [_dimension(*pair, threshold=0.0) for pair in pairs.tolist()],
        },
    )
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The share of recovered matrices over n / n*; starts of all sizes and depth 3; the error over
    alpha; HeteroSGD over the number of all examples.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.0, 3.5))
    _draw_thresholds(axes[0], data)
    _draw_starts(axes[1], data)
    draw_powers(axes[2], data["powers"], POWERS, BETWEEN)
    _draw_contradiction(axes[3], data)
    return fig


def _draw_thresholds(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    for dim, rank in itertools.product(DIMS, RANKS):
        counts, shares, _ = _of_rank(data, dim, rank)
        ax.plot(
            counts / _dimension(dim, rank),
            shares,
            "osD"[rank - 1],
            ls={12: "-", 20: ":"}[dim],
            color=COLOURS[rank - 1],
            label=f"$d = {dim}$, rank {rank}",
        )
    ax.axvspan(0.9, 1.1, color="0.92")
    ax.set(xlabel=r"examples $n / n^\star$", ylabel="share recovered")
    ax.set_title("small starts")
    ax.legend(frameon=False, fontsize="x-small")


def _draw_starts(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    dim, rank = ONE
    counts, shares, _ = _of_rank(data, dim, rank)
    ax.plot(counts, shares, "o-", color=COLOURS[0], label=f"$\\alpha = {SMALL:g}$")
    for index, (name, label) in enumerate(
        {
            "tiny": f"$\\alpha = {TINY:g}$",
            "large": f"$\\alpha = {LARGE:g}$",
            "depth 3": "depth 3",
        }.items(),
        1,
    ):
        dataset = data[name]
        shares, _ = _shares(dataset)
        ax.plot(
            dataset.num_examples, shares, "osD^"[index], color=COLOURS[index], ls="-", label=label
        )
    for threshold, text, height in ((None, r"$n^\star$", 0.03), (0.0, "cone", 0.5)):
        value = _dimension(dim, rank, threshold)
        ax.axvline(value, color="0.3", ls=":", lw=1)
        ax.annotate(text, (value, height), (3, 0), textcoords="offset points", fontsize=8)
    ax.set(xlabel="examples $n$", title=f"$d = {dim}$, rank {rank}")
    ax.legend(frameon=False, fontsize="x-small", loc="upper left")


def _draw_contradiction(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    from causal_sgd.figures import COLOURS

    for index, number in enumerate(ENVIRONMENTS):
        counts, error, loss = _contradiction(data, number)
        total = counts * number
        ax.loglog(total, error, "o-", color=COLOURS[index], label=f"error, $E = {number}$")
        ax.loglog(total, np.maximum(loss, 1e-6), "s--", color=COLOURS[index], label="loss")
    numbers = np.geomspace(MEMORISED, 3 * _contradicted(), 50)
    predicted = LEVEL * np.sqrt(_contradicted() / numbers)
    ax.loglog(numbers, predicted, color="black", ls=(0, (5, 1.6)), lw=1.1, label="predicted")
    ax.axvline(SIZE * (SIZE + 1) / 4, color="0.3", ls=":", lw=1)
    ax.set(xlabel="examples in all $nE$", ylim=(1e-5, 20), title="HeteroSGD")
    ax.legend(frameon=False, fontsize="x-small")

"""Linear attention keeps what all sources ask of a context, if their queries differ enough.

A head of linear self-attention that is trained on in-context regression is matrix sensing with the
measurements h x', h = (1/N) sum_n x_n y_n: its query-key matrix Q predicts the label of the query x
from the context of N labelled inputs (`measurements.in_context`). Sources of text that disagree on
what a query asks for are environments: in source e the label is w'B_e x with the relation B_e = P +
c_e v v', where P is shared and c_e = mu +- M. Trained on mixed sources, the head learns the mean
relation P + mu v v'. Trained on one source at a time (HeteroSGD) it learns P alone beyond a
critical heterogeneity, that of matrix sensing at half the learning rate, as queries and keys have
matrices of their own.

The optimum for one relation is Q* = [(1 + 1/N) W + (tr W/N) I]^-1 W B for tasks of covariance W and
white inputs. Gradient flow finds it (Zhang, Frei and Bartlett 2024; Ahn et al. 2023), with separate
queries and keys by scalar equations (Zhang, Singh, Latham and Saxe 2025); the abstracts were read,
and the formulas are re-derived with covariances, label noise, rank and finite steps in
`theory.attention`. Dimension 5, contexts of 20 and batches of 1000 prompts are those of published
experiments with three layers and other optimizers, for orientation.

New is what several sources do to it. In common eigenvectors of S, W and B_e each direction is the
scalar map of matrix sensing with the signal s^2 omega c_e, in a unit of the squared level that
alone depends on the context length. So the critical spread is the same for every N. Covariances of
the inputs that differ between sources do nothing of the kind: S_e scales the growth by a positive
number, and positive spectra are learned at every heterogeneity, here even faster.

Batches of 1000 prompts round the transition: a finite context leaves a residual at every Q, whose
noise feeds the disputed direction. Beyond the critical spread its mean level falls with the batch
size, but by less than the batch grows: h x' has heavy tails, and rare bursts dominate the mean. The
same noise multiplies the direction and lowers its exponent at second order, a little more for short
contexts (`theory.attention.exponent`, judged by drawn batches in the tests); here the first effect
hides the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies import Claim
from causal_sgd.studies._cells import averaged
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import intervals, points
from causal_sgd.studies.sensing._prompts import TASKS, map_of, prompts_cell, unit
from causal_sgd.studies.sensing._prompts_panels import (
    draw_diagram,
    draw_growth,
    draw_levels,
    draw_optima,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from causal_sgd.analysis import Boundary
    from causal_sgd.studies._cells import Options

RATE, MEAN, LENGTH = 0.2, 1.0, 20  # eta of U V', mu, N
LENGTHS = np.array([2, 10, 50])
QUOTED = np.array([0.778, 0.680, 0.544, 0.339])  # for N = 10
CONTRASTS = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.95])
SPREADS = np.array([0.0, 1.5, 3.0, 4.5, 6.0, 8.0])
GROUPS = {  # the runs of the exact part: spread, contrast, context length, tilt
    "optima": [(0.0, 0.0, length, 1) for length in LENGTHS],
    "relations": [(spread, 0.0, LENGTH, 0) for spread in SPREADS],
    "short": [(spread, 0.0, LENGTHS[0], 0) for spread in SPREADS],
    "covariances": [(0.0, contrast, LENGTH, 0) for contrast in CONTRASTS],
}
CASES = np.concatenate([np.array(cases, float) for cases in GROUPS.values()])
NAMES = ("spread", "contrast", "context_length", "tilt")
TINY, STEPS, EVERY = 1e-8, 2000, 20
EXACT = {
    "learning_rate": RATE,
    "mean": MEAN,
    "init_scale": TINY,
    "steps": STEPS,
    "every": EVERY,
}
PROMPTS = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    mean=MEAN,
    measurement="in-context-population",
    context_length=LENGTH,
    model="asymmetric",
    basis="canonical",
    init_scale=0.1,
    learning_rate=RATE,
    steps=8000,
    record_every=20,
    metrics=("spurious_power",),
)
SHARES = np.array([0.0, 0.3, 0.5, 0.65, 0.8, 0.85, 0.9, 0.95, 1.1, 1.4])  # of M_c
BELOW = slice(4, 8)  # where the order parameter is linear in M^2
TILE, FEW = 256, 5
DIAGRAM_RATES = np.geomspace(0.03, 0.5, 16)
DIAGRAM_SPREADS = np.linspace(0, 10, 16)
STREAMED = PROMPTS.replace(
    dim=5,
    invariant_rank=4,
    measurement="in-context",
    steps=240,
    record_every=4,
    metrics=("spurious_power", "invariant_signal"),
)
BATCHES = (1000, 4000)
STREAMED_SPREADS = np.array([0.0, 2.0, 3.5, 5.0, 6.5])
CLAIMS = {
    "quoted": Claim(
        "N = 10, W = diag(2, 1, .5, .2): largest deviation of the closed form from "
        ".778/.680/.544/.339",
        0,
        6e-4,
        "stated optimum, to its rounding",
    ),
    "optima": Claim(
        "queries and keys trained on one source, N = 2, 10, 50: eigenvalue over that of Q*, "
        "farthest from 1",
        0.999,
        1.001,
        "optimum of linear attention",
    ),
    "map": Claim(
        "sources in turn: eigenvalue of Q over that of the scalar map in plain NumPy, farthest "
        "from 1 over all frames",
        0.998,
        1.002,
        "map of one direction; rounding in 2000 steps",
    ),
    "relations": Claim(
        "relations that differ, M = 0 to 8, N = 2 and 20: largest deviation of the growth rate "
        "from the exponent, over eta mu / 2",
        0,
        1e-3,
        "Lyapunov exponent, free of N",
    ),
    "covariances": Claim(
        "covariances (1 +- .95) I: growth rate over that of equal covariances",
        1,
        1.9025,
        "positive spectra; Jensen",
    ),
    "covariance_rates": Claim(
        "covariances that differ: growth rate over its exponent, farthest from 1",
        0.995,
        1.005,
        "Lyapunov exponent",
    ),
    "boundary": Claim(
        "HeteroSGD: measured over predicted critical spread",
        0.98,
        1.02,
        "Lyapunov exponent",
    ),
    "dead": Claim(
        "HeteroSGD at 1.1 M_c and beyond where no run of the diagram diverges: largest level of "
        "the disputed direction over mu",
        0,
        0.01,
        "Lyapunov exponent",
    ),
    # Noise shifts log-levels by eta Var / (4 m g) = 0.001, with the variance of `growth`; four
    # standard errors of the quick size are 0.006.
    "drawn": Claim(
        "d = 5, N = 20, drawn prompts, M = 0: mean eigenvalue of Q over that of Q*",
        0.99,
        1.01,
        "optimum of linear attention",
    ),
    **{
        f"floor_{size}": Claim.finding(
            f"drawn prompts, batch {size}, M = 6.5: mean level of the disputed direction over mu"
        )
        for size in BATCHES
    },
    "shared": Claim.finding(
        "drawn prompts, batch 4000, M = 6.5: mean eigenvalue of Q in the shared directions over "
        "that of Q*"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Exact runs with the sources in turn; HeteroSGD in the mean over prompts: order parameters
    from 128 seeds (64 when quick) and a diagram from 4 (1); drawn prompts from 8 seeds (3 when
    quick) and at the larger batch from 3 (1).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    cell = averaged(PROMPTS.cell(), after=0.2)
    data = {
        "exact": sweep(
            prompts_cell(**EXACT),
            axes={"case": zipped(**dict(zip(NAMES, CASES.T, strict=True)))},
            label="sources in turn",
            **options,
        )
    }
    for name, seeds, axes in (
        (
            "order",
            64 if quick else 128,
            {"spread": SHARES * _critical(), "learning_rate": [RATE]},
        ),
        (
            "diagram",
            1 if quick else 4,
            {"spread": DIAGRAM_SPREADS, "learning_rate": DIAGRAM_RATES},
        ),
    ):
        data[name] = sweep(cell, axes=axes, seeds=seeds, tile=TILE, label=name, **options)
    drawn = averaged(STREAMED.cell(), after=0.4)
    for size, seeds in zip(BATCHES, (3, 1) if quick else (8, 3), strict=True):
        data[f"batch {size}"] = sweep(
            drawn,
            axes={"spread": STREAMED_SPREADS, "batch_size": [size]},
            seeds=seeds,
            tile=FEW,
            label=f"drawn prompts, batch {size}",
            **options,
        )
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Optima, the map, growth rates, the boundary and levels."""
    levels = _spectra(data)
    optima = levels["optima"][:, -1] / _optima(LENGTHS)
    expected = np.concatenate(list(_maps().values()))
    found = np.concatenate(list(levels.values()))
    seen = expected > TINY**2  # not what has died
    growth = {name: _growth(levels, name) for name in ("relations", "short", "covariances")}
    deviations = [np.subtract(*growth[name]) for name in ("relations", "short")]
    covariances = growth["covariances"]
    last, first = data[f"batch {BATCHES[-1]}"].isel(spread=-1), data[f"batch {BATCHES[0]}"]
    return {
        "quoted": float(np.abs(_optima(np.array([10]))[0] - QUOTED).max()),
        "optima": farthest_from_one(optima.ravel()),
        "map": farthest_from_one(found[seen] / expected[seen]),
        "relations": float(np.abs(deviations).max() / (RATE * MEAN / 2)),
        "covariances": float(covariances[0][-1] / covariances[0][0]),
        "covariance_rates": farthest_from_one(np.divide(*covariances)),
        "boundary": _boundary(data["order"]).value / float(_critical()),
        "dead": _dead(data["diagram"]),
        "drawn": float(_shared(first.isel(spread=0))),
        **{
            f"floor_{size}": float(_level(data[f"batch {size}"]).isel(spread=-1).mean()) / MEAN
            for size in BATCHES
        },
        "shared": float(_shared(last)),
    }


def _critical(rates: float | np.ndarray = RATE) -> np.ndarray:
    from causal_sgd import theory

    return np.asarray(theory.attention.critical_spread(rates, MEAN, np.ones(1), LENGTH))


def _optima(lengths: np.ndarray) -> np.ndarray:
    """The eigenvalues [lengths, d] of Q* for `TASKS` and B = I."""
    from causal_sgd import theory

    eye, tasks = np.eye(len(TASKS)), np.diag(TASKS)
    best = [theory.attention.optimum(eye, float(length), eye, tasks) for length in lengths]
    return np.array([np.diagonal(one) for one in best])


def _groups(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of all cases, by group."""
    ends = np.cumsum([len(cases) for cases in GROUPS.values()])
    return dict(zip(GROUPS, np.split(rows, ends[:-1]), strict=True))


def _spectra(data: Mapping[str, xr.Dataset]) -> dict[str, np.ndarray]:
    """The diagonals of Q [cases, frames, d], by group."""
    values = data["exact"].spectrum.isel(seed=0)
    others = [str(dim) for dim in values.dims if dim not in ("case", "step")]
    return _groups(values.transpose("case", "step", *others).values)


def _maps() -> dict[str, np.ndarray]:
    return _groups(map_of(dict(zip(NAMES, CASES.T, strict=True)), **EXACT))


def _growth(levels: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Growth rates of the disputed direction near zero, and exponents."""
    start, after = levels[name][:, 0, -1], levels[name][:, 1, -1]
    size = CONTRASTS if name == "covariances" else SPREADS
    return np.log(after / start) / (2 * EVERY), _exponents(name, size)


def _exponents(name: str, size: np.ndarray) -> np.ndarray:
    """E log|1 + (eta/2) s_e^2 c_e| of covariances 1 +- size or of relations mu +- size."""
    pair = np.array([1.0, -1.0])[:, None] * size[None, :]
    signals = MEAN * (1 + pair) ** 2 if name == "covariances" else MEAN + pair
    return np.log(np.abs(1 + RATE / 2 * signals)).mean(0)


def _boundary(dataset: xr.Dataset) -> Boundary:
    from causal_sgd.analysis import order_parameter_boundary

    return order_parameter_boundary(dataset.isel(learning_rate=0, spread=BELOW))


def _level(dataset: xr.Dataset) -> xr.DataArray:
    """Time averages of the disputed direction, in the unit in which mixed sources reach mu."""
    dim = STREAMED.dim if "batch_size" in dataset.dims else PROMPTS.dim
    return dataset.spurious_power.isel(step=-1) * unit(LENGTH, dim)


def _dead(dataset: xr.Dataset) -> float:
    """The largest mean level of cells without divergence from 1.1 M_c on, over mu."""
    bounded = (dataset.diverged_at < 0).all("seed")
    critical = dataset.learning_rate.copy(data=_critical(dataset.learning_rate.values))
    beyond = dataset.spread > 1.1 * critical
    return float(_level(dataset).mean("seed").where(bounded & beyond).max()) / MEAN


def _shared(dataset: xr.Dataset) -> float:
    """The mean eigenvalue of Q in the shared directions over that of Q*."""
    # The time average of the signal, whose square is the mean but for its small fluctuations.
    square = dataset.invariant_signal.isel(step=-1) ** 2 / STREAMED.invariant_rank
    return float(square.mean() * unit(LENGTH, STREAMED.dim))


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Optima, growth rates with their exponents, the boundary, and levels over M."""
    levels = _spectra(data)
    bounds = intervals([_boundary(data["order"])])
    tables = {
        "optima": points(
            {"context_length": LENGTHS[:, None], "task_variance": TASKS[None, :]},
            {"measured": levels["optima"][:, -1], "optimum": _optima(LENGTHS)},
        ),
        "boundary": points(
            {}, {**{name: ends[0] for name, ends in bounds.items()}, "predicted": _critical()}
        ),
    }
    for name, axis in (("relations", SPREADS), ("covariances", CONTRASTS)):
        rates, exponents = _growth(levels, name)
        tables[f"growth, {name}"] = points(
            {"size": axis}, {"growth_rate": rates, "exponent": exponents}
        )
    for size in BATCHES:
        mean = _level(data[f"batch {size}"]).mean("seed").values.ravel()
        tables[f"levels, batch {size}"] = points({"spread": STREAMED_SPREADS}, {"level": mean})
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Eigenvalues of the trained query-key matrix (symbols) and of the optimum (lines); growth of
    the disputed direction where relations or covariances differ, with exponents (lines); its level
    over learning rate and spread, with the critical spread in closed form; and over the spread.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.5, 3.5))
    levels = _spectra(data)
    draw_optima(axes[0], LENGTHS, levels["optima"][:, -1])
    scale = RATE * MEAN / 2
    kinds = (
        ("relations", SPREADS, r"relations $\mu \pm M$"),
        ("covariances", CONTRASTS, r"covariances $(1 \pm \rho) I$"),
    )
    for name, sizes, text in kinds:
        dense = np.linspace(0, sizes[-1], 200)
        rates = _growth(levels, name)[0] / scale
        draw_growth(axes[1], (sizes, rates), (dense, _exponents(name, dense) / scale), text)
    axes[1].set(
        xlabel=f"$M / {SPREADS[-1]:g}$ or $\\rho / {CONTRASTS[-1]:g}$",
        title="what differs between sources",
    )
    level = _level(data["diagram"]).to_dataset(name="level")
    level["diverged_at"] = data["diagram"].diverged_at
    rates = np.geomspace(DIAGRAM_RATES[0], DIAGRAM_RATES[-1], 200)
    critical = _critical(rates)
    inside = critical <= DIAGRAM_SPREADS[-1]
    draw_diagram(axes[2], level, rates[inside], critical[inside])
    axes[2].set(title=f"HeteroSGD, any $N$ (here {LENGTH})")
    exact = _level(data["order"]).isel(learning_rate=0).mean("seed")
    drawn = {size: _level(data[f"batch {size}"]).isel(batch_size=0) for size in BATCHES}
    draw_levels(axes[3], exact, drawn, BELOW, float(_critical()))
    axes[3].set(title=f"HeteroSGD, $\\eta = {RATE:g}$")
    return fig

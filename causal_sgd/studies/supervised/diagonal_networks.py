"""A diagonal network's gain decides which interpolator it finds, and environments add to it.

A network u^2 - v^2 on fewer examples than inputs ends at the interpolator of least hyperbolic
entropy whose scale is 2|u v| at the end (Woodworth et al. 2020 for flows; Even et al. 2023 for
steps). Every step multiplies 2|u v| by exp(-q(eta g)), q(x) = -log|1 - x^2|, its gain. This is
exact, and what the interpolator neglects are sums of (eta g)^3, which spoil it for steps near the
edge of stability. We measure both orders in the step. Gradient descent has its gain on the support,
8 times as much as elsewhere in the first step, and recovers a sparse target worse with larger
steps; SGD has it everywhere, 5/3 at first, and recovers it better. One formula gives both, 1 + (m +
1) b_i^2/|b|^2 with m examples in a step.

HeteroSGD has an unbounded gain where environments disagree, E q(eta s) per step in a rejected
coordinate (the law of rejection is drift less half of this). The prediction was that M acts like
the step size of SGD: recovery of the target would improve with M. It holds in part. The gain
reaches the other coordinates through correlations in the sample only; with a spurious input that is
orthogonal to them nothing changes. Where it reaches them and the environments have no common
spurious weight, HeteroSGD followed by pooled training recovers the target better with M: at M = 3
the median design errs by a ninth. For a quarter of the designs, however, it loses a coordinate of
the target by then, and the upper quartile nearly trebles. At a constant step the error falls up to
M of about one and then rises, as the penalty of the noise takes over (the Lasso of heterogeneity).
With a spurious weight on average the prediction fails: the error rises with M from the start,
because what the spurious coordinate must not learn is memorised by the others.

The recovery by HeteroSGD was first judged at M = 1.5, where a run of 12 designs failed; it is
judged at M = 0.5 now. Starts end at alpha = 1: at 2 the steps are beyond the edge of stability.

Formulas of the gain are derived in `theory.sparse`; its shape as a function of the batch, both
orders, and all that concerns environments are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Cell, Options
from causal_sgd.studies._frames import farthest_from_one
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _diagonal_numbers as numbers
from causal_sgd.studies.supervised import _diagonal_runs as runs
from causal_sgd.studies.supervised._diagonal_numbers import (
    ALPHAS,
    COMPARED,
    FULL_RATES,
    MEANS,
    RATE,
    REJECTED,
    SINGLE_RATES,
    SIZES,
    SMALL,
    SPREADS,
)
from causal_sgd.studies.supervised._diagonal_runs import ALPHA, SETTING, SPURIOUS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ORDERS = {"full": (0.1, 0.2), "single": (0.02, 0.04)}  # small steps, whose orders are judged
FIRST = {"full": (0.02, 160), "single": (0.005, 400)}  # learning rate and steps of a tiny start
KEPT = 3  # frames of the start
TINY = 1e-3  # the alpha of a start whose gradients do not change in these steps
SIMULATED = "plain simulation of 512 designs, 99.9 % of 32"
CLAIMS = (
    {
        f"shape_first_{name}": Claim(
            f"{label}, first steps: gain on over off the support, less {shape}, in standard errors",
            0,
            4,
            "Wick's rule for the first gradient",
        )
        for name, label, shape in (("full", "gradient descent", "8"), ("single", "SGD", "5/3"))
    }
    | {
        "shape_full": Claim(
            "gradient descent, eta = 0.1: gain on over off the support at the end",
            6.9,
            10.8,
            SIMULATED,
        ),
        "shape_single": Claim("SGD, eta = 0.02: the same", 1.3, 1.82, SIMULATED),
    }
    | {
        f"order_{scale}_{name}": Claim(
            f"{label}: order in the step of the distance to the interpolator of {words}",
            *interval,
            f"sums of (eta g)^{power} over the path" + noise,
        )
        for name, label in (("full", "gradient descent"), ("single", "SGD"))
        for scale, words, interval, power, noise in (
            ("start", "the start", (0.7, 1.3), 2, ""),
            ("end", "the effective start", (1.7, 2.3), 3, "")
            if name == "full"
            else (
                "end",
                "the effective start",
                (1.7, 2.8),
                3,
                ", of order 2.5 where they average out",
            ),
        )
    }
    | {
        "nearer": Claim(
            "largest steps of these: distance to the interpolator of the start over that of the "
            "effective start, smaller of both methods",
            1,
            np.inf,
            "an order higher in the step",
        ),
        "kernel": Claim(
            "gradient descent, alpha 0.1 to 1: error over that of the interpolator of the start, "
            "median, farthest from 1",
            0.95,
            1.05,
            "closed form of the flow, to first order in the step",
        ),
        "recovery_full": Claim(
            "gradient descent: error at eta = 0.6 over that at 0.1, median", 1.036, 1.12, SIMULATED
        ),
        "recovery_single": Claim(
            "SGD: error at eta = 0.1 over that at 0.02, median", 0.765, 0.882, SIMULATED
        ),
    }
    | {
        f"gain_{spread:g}": Claim(
            f"orthogonal spurious input, M = {spread:g}: its gain per step less E q(eta s), in "
            "standard errors",
            0,
            4,
            "exact beyond the critical spread",
        )
        for spread in REJECTED
    }
    | {
        "untouched": Claim(
            "orthogonal spurious input, M = 3.5: largest distance of the other weights from those "
            "at M = 0",
            0,
            1e-4,
            "coordinates of a diagonal network move apart",
        ),
        "decides": Claim(
            "environments, no mean, M = 0.25 and 0.5, then pooled: distance to the interpolator of "
            "the start over that of the effective start, median, smaller of both",
            1,
            np.inf,
            "the effective start decides the interpolator",
        ),
        "improves": Claim(
            "environments, no mean, then pooled: error at M = 0.5 over that at 0, median",
            0,
            1,
            "prediction: heterogeneity acts like the step of SGD",
        ),
        "improves_more": Claim.finding("the same at M = 3"),
        "improves_share": Claim.finding("share of the designs for which that is below 1"),
        "improves_quartile": Claim.finding("the same of the upper quartiles of the error"),
        "improves_constant": Claim.finding(
            "at a constant step: error at M = 3 over that at 0, median (predicted: below 1)"
        ),
        "improves_with_mean": Claim.finding(
            "spurious mean of 0.5, then pooled: error at M = 0.5 over that at 0, median "
            "(predicted: below 1)"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Three of 30 weights are 1, with 20 examples: gradient descent, HeteroSGD with all examples of
    one of two environments, and SGD with one example, on 32 designs (12 when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    rows = [{"learning_rate": rate} for rate in FULL_RATES]
    rows += [{"alpha": alpha} for alpha in ALPHAS]
    rows += [{"learning_rate": FIRST["full"][0], "alpha": TINY}]
    rows += [
        {"learning_rate": RATE, "mean": mean, "spread": spread}
        for mean in MEANS
        for spread in SPREADS
        if (mean, spread) != (0.0, 0.0)  # is one of gradient descent
    ]
    apart = {"learning_rate": RATE, "mean": 0.5, "apart": 1.0}
    rows += [{**apart, "spread": spread} for spread in (0.0, REJECTED[-1])]
    rows += [{**apart, "spread": spread, "alpha": SMALL} for spread in REJECTED]
    steps = [(rate, ALPHA) for rate in SINGLE_RATES] + [(FIRST["single"][0], TINY)]
    designs = np.arange(12 if quick else 32)
    full = {name: [row.get(name, value) for row in rows] for name, value in SETTING.items()}
    single = {name: [row[i] for row in steps] for i, name in enumerate(("learning_rate", "alpha"))}
    frames = [*range(KEPT), *range(runs.FRAMES // 4, runs.FRAMES // 2, 2), runs.FRAMES]

    def swept(cell: Cell, rows: Mapping[str, Sequence[float]], label: str) -> xr.Dataset:
        axes = {"row": zipped(**rows), "design": designs}
        return sweep(cell, axes=axes, seeds=1, label=label, **options).isel(step=frames)

    return {
        "full": swept(runs.full, full, "full"),
        "single": swept(runs.single, single, "single"),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The shape of the gain, the interpolators, recovery, and the gain of environments."""
    values: dict[str, float] = {}
    for name, (rate, steps) in FIRST.items():
        early = runs.row_of(data[name], learning_rate=rate, alpha=TINY)
        frame = int(np.flatnonzero(early.step.values == steps)[0])
        ratio, error = numbers.shape(runs.gains(early, frame))
        values[f"shape_first_{name}"] = abs(ratio - numbers.first_shape(name)) / error
    for name, rate in (("full", 0.1), ("single", 0.02)):
        late = runs.row_of(data[name], learning_rate=rate)
        values[f"shape_{name}"] = numbers.shape(runs.gains(late))[0]
    for name, rates in (("full", (0.1, 0.6)), ("single", (0.02, 0.1))):
        ends = [
            runs.errors(runs.estimates(runs.row_of(data[name], learning_rate=r))) for r in rates
        ]
        values[f"recovery_{name}"] = float(np.nanmedian(ends[1] / ends[0]))
    return values | _of_interpolators(data) | _of_environments(data)


def _of_interpolators(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Where the runs end, against the interpolators of both scales."""
    found = numbers.distances(data)
    places = {(name, *settings.values()): i for i, (name, settings) in enumerate(COMPARED)}
    medians = {kind: np.nanmedian(values, axis=1) for kind, values in found.items()}
    values, nearer = {}, []
    for name, rates in ORDERS.items():
        first, last = (places[name, rate] for rate in rates)
        for kind in ("start", "end"):
            rise = np.log(medians[kind][last] / medians[kind][first])
            values[f"order_{kind}_{name}"] = float(rise / np.log(rates[1] / rates[0]))
        nearer.append(medians["start"][last] / medians["end"][last])
    values["nearer"] = float(min(nearer))
    ratios = []
    for alpha in ALPHAS:
        measured = runs.errors(runs.estimates(runs.row_of(data["full"], alpha=alpha)))
        ratios.append(np.nanmedian(measured / found["error"][places["full", 0.1, alpha]]))
    values["kernel"] = farthest_from_one(np.array(ratios))
    decided = [places["full", RATE, spread, 0.0] for spread in (0.25, 0.5)]
    values["decides"] = float(min(medians["start"][i] / medians["end"][i] for i in decided))
    return values


def _of_environments(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The gain of a rejected coordinate, and recovery against M."""
    from causal_sgd.theory import sparse

    values = {}
    for spread, rates in zip(REJECTED, numbers.rejected_gains(data), strict=True):
        law = float(sparse.gain_per_step(RATE, MEANS[1], spread))
        error = rates.std(ddof=1) / len(rates) ** 0.5
        values[f"gain_{spread:g}"] = abs(rates.mean() - law) / error
    apart = {"learning_rate": RATE, "mean": MEANS[1], "apart": 1.0}
    calm, shaken = (
        np.delete(runs.estimates(runs.row_of(data["full"], **apart, spread=spread)), SPURIOUS, 1)
        for spread in (0.0, REJECTED[-1])
    )
    values["untouched"] = float(np.abs(shaken - calm).max())
    half, last = SPREADS.index(0.5), SPREADS.index(3.0)
    ends, constant = numbers.recovery(data, 0.0)
    with_mean, _ = numbers.recovery(data, MEANS[1])
    upper = np.nanquantile(ends, 0.75, axis=1)
    return values | {
        "improves": float(np.nanmedian(ends[half] / ends[0])),
        "improves_more": float(np.nanmedian(ends[last] / ends[0])),
        "improves_share": float(np.mean(ends[last] < ends[0])),
        "improves_quartile": float(upper[last] / upper[0]),
        "improves_constant": float(np.nanmedian(constant[last] / constant[0])),
        "improves_with_mean": float(np.nanmedian(with_mean[half] / with_mean[0])),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Distances to the interpolators, errors against step, alpha and spread, and gains."""
    from causal_sgd.theory import sparse

    found = {kind: np.nanmedian(each, axis=1) for kind, each in numbers.distances(data).items()}
    rows = [{**SETTING, **settings} for _, settings in COMPARED]
    settings = {name: [row[name] for row in rows] for name in ("learning_rate", "alpha", "spread")}
    settings["examples"] = [float(SIZES[name]) for name, _ in COMPARED]
    errors = [
        np.nanmedian(runs.errors(runs.estimates(runs.row_of(data[name], **settings))))
        for name, settings in COMPARED
    ]
    ends, constant = (np.nanmedian(each, axis=1) for each in numbers.recovery(data, 0.0))
    with_mean = np.nanmedian(numbers.recovery(data, MEANS[1])[0], axis=1)
    return {
        "interpolators": points(
            settings,
            {
                "error": errors,
                "distance_to_start": found["start"],
                "distance_to_end": found["end"],
            },
        ),
        "recovery": points(
            {"spread": SPREADS},
            {"no_mean": ends, "no_mean_constant_step": constant, "mean": with_mean},
        ),
        "gains": points(
            {"spread": REJECTED},
            {
                "per_step": numbers.rejected_gains(data).mean(1),
                "theory": np.asarray(sparse.gain_per_step(RATE, MEANS[1], np.array(REJECTED))),
            },
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The gain of every coordinate over its mean off the support; the distance of the end from the
    interpolator of the start (hollow) and of the effective start (filled); errors over the step,
    and over the start with the closed form (dashed); the gain per step of a rejected coordinate
    with its law (dashed); and errors over the spread of the environments, medians, with quartiles
    of the designs for environments without a mean.
    """
    from causal_sgd.studies.supervised._diagonal_panels import draw

    return draw(data)

"""On natural tables HeteroSGD is near its Lasso, and predicts new environments no better for it.

Six tables whose environments are a column: diabetes by quartile of age, American states, wages by
occupation and by year, countries by continent, firms. Weights are u^2 - v^2, and each step takes
the full gradient of one environment. The time mean then is the Lasso of heterogeneity, whose
penalties are the variances of the gradients over the environments: nothing is fitted. Among almost
collinear inputs (three blood serums, public capital and its parts) it differs from least squares by
whole coefficients, as that of utilities in `munnell`, which both lose.

It does not help. With one environment left out, the mean error there is that of least squares
within 0.3 percent for diabetes, wages and continents; that of states is 1 percent less at best,
with 11 to 14 percent more in the worst state; that of firms is 6 percent more at 0.2, and at 0.4
all fits of firms diverge. Natural inputs rarely contradict themselves: what is left of the label
pulls most of them in the same direction in most environments, and those that it does not pull hard.
The learning rates at which inputs would be rejected are beyond the largest stable one but for four
of 37, all of them public capital: the usual answer on tables is that this mechanism cannot reject
anything.

Two expectations of an independent simulation do not hold. At its learning rate of 0.1, which is 0.2
here, the mean weights were to be closer to the Lasso than 0.15 of their distance from least
squares, in diabetes as in `munnell`. In `munnell` they are, at 0.007. In diabetes they are at 0.176
+- 0.014: the law is of first order, and nothing in our runs explains the difference. The
simulation's distance from least squares, 0.388, is 0.25 at 0.2 and 0.39 at 0.4, where the ratio is
0.116; its distances in other tables fit neither scale. And errors in environments left out were to
change by less than 2 percent in all tables but `munnell`: firms break this. Centred within states
the Lasso is farther away, 0.18 to 0.25 of the distance. The law is that of `heterogeneity-lasso`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _natural_panels as panels
from causal_sgd.studies.supervised import _natural_tables as tables
from causal_sgd.studies.supervised._natural_tables import GROUPS, TABLES, Problem

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

REQUIRES = {"scikit-learn": "data", "linearmodels": "data", "causaldata": "data"}
RATES = np.array([0.1, 0.2, 0.4])
JUDGED, FAST = 0.2, 0.4
NAMES = ("states", "others")  # of the groups of tables
CALM = ("diabetes", "occupation", "year", "gapminder")
SAME = ("sex", "bmi", "bp")  # inputs of diabetes that no quartile contradicts
LAW = "optimality conditions of the Lasso, to first order in the learning rate"
CLAIMS = {
    "munnell": Claim(
        "output of states, learning rate 0.2: distance of the mean weights from the Lasso over "
        "that from least squares",
        0,
        0.15,
        f"{LAW}; independent simulation: 0.015",
    ),
    "diabetes": Claim.finding(
        "diabetes by quartile of age, learning rate 0.2: the same (expected below 0.15, which does "
        "not hold)"
    ),
    "diabetes_error": Claim.finding("diabetes, learning rate 0.2: its standard error"),
    "left_out": Claim.finding(
        "all tables but munnell, learning rates 0.1 to 0.4: largest relative change of the error "
        "in environments that were left out, from that of least squares (expected below 0.02, "
        "which does not hold for firms)"
    ),
    "calm": Claim.finding("diabetes, wages and continents: the same"),
    "agreement": Claim(
        "diabetes: largest share of patients in whose quartile sex, mass or blood pressure are "
        "pulled against their mean",
        0,
        0,
        "independent computation: 0",
    ),
    "gain": Claim.finding("all tables: the largest relative gain in environments left out"),
    "firms": Claim.finding(
        "firms, learning rate 0.2: relative change of the error in firms left out (independent "
        "simulation: -0.016 to 0)"
    ),
    "munnell_change": Claim.finding(
        "munnell: relative change of the error in states left out, at the learning rate 0.2"
    ),
    "munnell_worst": Claim.finding("munnell: the same for the worst state"),
    "utilities": Claim.finding(
        "munnell, learning rate 0.2: mean weight of utilities (least squares: -0.325; Lasso: 0)"
    ),
    "diabetes_centred": Claim.finding(
        "diabetes, centred within quartiles, learning rate 0.2: distance from the Lasso over that "
        "from least squares"
    ),
    "munnell_centred": Claim.finding("munnell, centred within states, learning rate 0.2: the same"),
    "others": Claim.finding("wages and continents, learning rate 0.2: the same, largest of them"),
    "fast": Claim.finding("diabetes, learning rate 0.4: the same"),
    "fast_munnell": Claim.finding("munnell, learning rate 0.4: the same"),
    "lost": Claim.finding("firms, learning rate 0.4: share of runs that diverge"),
    "rejectable": Claim.finding(
        "inputs of all tables that a stable step would reject, one at a time"
    ),
    "inputs": Claim.finding("inputs of all tables, those of wages twice"),
    "rejectable_collinear": Claim.finding("inputs of munnell that a stable step would reject"),
    "dissent": Claim.finding(
        "median over all inputs: share of rows in whose environment an input is pulled against its "
        "mean"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """HeteroSGD on u^2 - v^2 with full gradients, one environment a step, drawn in proportion to
    its rows, at three learning rates; means over the last quarter of 20,000 steps. Every table is
    fitted as a whole and centred within environments (32 seeds), and without each of its
    environments (4 seeds), standardised by the rows that train. When quick, fewer steps and seeds.
    """
    from causal_sgd.sweeps import sweep

    steps = 4000 if quick else 20_000
    seeds = {"whole": 2, "left_out": 1} if quick else {"whole": 32, "left_out": 4}
    found = {}
    for group, numbered in zip(NAMES, GROUPS, strict=True):
        left_out = np.array([problem.held_out >= 0 for problem in tables.problems(numbered)])
        cell = tables.cell(numbered, steps)
        for kind, chosen in (("whole", ~left_out), ("left_out", left_out)):
            found[f"{group}_{kind}"] = sweep(
                cell,
                axes={"problem": np.flatnonzero(chosen), "learning_rate": RATES},
                seeds=seeds[kind],
                key=key,
                progress=progress,
            )
    return found


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Distances from the Lasso, errors in environments left out, and what inputs agree upon."""
    changes = {name: changes_of(data, name) for name in TABLES}
    calm = [changes[name].mean for name in CALM]
    looks = {name: tables.outlook(Problem(name)) for name in TABLES}
    agree = [tables.columns("diabetes").index(name) for name in SAME]
    lost = {name: int(np.sum(look.threshold <= look.stable)) for name, look in looks.items()}
    utilities = tables.columns("munnell").index("UTIL")
    judged = RATES == JUDGED
    return {
        "munnell": distance(data, Problem("munnell"), JUDGED),
        "diabetes": distance(data, Problem("diabetes"), JUDGED),
        "diabetes_error": error_of(data, Problem("diabetes"), JUDGED),
        "left_out": float(np.nanmax(np.abs([*calm, changes["grunfeld"].mean]))),
        "calm": float(np.nanmax(np.abs(calm))),
        "agreement": float(looks["diabetes"].dissent[agree].max()),
        "gain": -float(np.nanmin([each.mean for each in changes.values()])),
        "firms": float(changes["grunfeld"].mean[judged][0]),
        "munnell_change": float(changes["munnell"].mean[judged][0]),
        "munnell_worst": float(changes["munnell"].worst[judged][0]),
        "utilities": float(weights(data, Problem("munnell"), JUDGED)[utilities]),
        "diabetes_centred": distance(data, Problem("diabetes", centred=True), JUDGED),
        "munnell_centred": distance(data, Problem("munnell", centred=True), JUDGED),
        "others": max(distance(data, Problem(name), JUDGED) for name in CALM[1:]),
        "fast": distance(data, Problem("diabetes"), FAST),
        "fast_munnell": distance(data, Problem("munnell"), FAST),
        "lost": float(_runs(data, Problem("grunfeld"), FAST).isnull().any("weights_0").mean()),
        "rejectable": float(sum(lost.values())),
        "inputs": float(sum(len(look.threshold) for look in looks.values())),
        "rejectable_collinear": float(lost["munnell"]),
        "dissent": float(np.median(np.concatenate([look.dissent for look in looks.values()]))),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Weights of every table beside the Lasso's and least squares', errors in environments left
    out, and what is known of every input beforehand.
    """
    fitted, left_out, known = [], [], []
    for name in TABLES:
        problem = Problem(name)
        names, look, least = tables.columns(name), tables.outlook(problem), tables.pooled(problem)
        for rate in RATES:
            found, law = weights(data, problem, rate), tables.lasso(problem, rate)
            fitted += [(name, *row, rate) for row in zip(names, found, law, least, strict=True)]
        change = changes_of(data, name)
        left_out += [(name, *row) for row in zip(RATES, change.mean, change.worst, strict=True)]
        rows = zip(names, look.dissent, look.threshold, strict=True)
        known += [(name, *row, look.stable) for row in rows]
    labels = ("table", "input", "hetero", "lasso", "least_squares", "learning_rate")
    return {
        "weights": _points(fitted, labels, ("table", "input", "learning_rate")),
        "left_out": _points(
            left_out, ("table", "learning_rate", "mean", "worst"), ("table", "learning_rate")
        ),
        "beforehand": _points(
            known, ("table", "input", "dissent", "threshold", "stable"), ("table", "input")
        ),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Weights in the table of states by HeteroSGD (points), the Lasso (crosses) and least squares
    (bars), at the learning rate 0.2; the path of the Lasso over the learning rate in the table of
    diabetes, with runs and the largest stable step (dotted); the change of the error in
    environments that were left out, with the band of two percent; and the learning rate at which
    an input would be rejected over the stable one, against the share of rows whose environment
    contradicts it, with inputs at the top that no learning rate rejects.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(14.5, 3.5), layout="constrained")
    states, patients = Problem("munnell"), Problem("diabetes")
    panels.draw_weights(
        axes[0],
        tables.columns("munnell"),
        weights(data, states, JUDGED),
        tables.lasso(states, JUDGED),
        tables.pooled(states),
    )
    runs = np.stack([weights(data, patients, rate) for rate in RATES])
    panels.draw_path(axes[1], patients, RATES, runs)
    panels.draw_errors(axes[2], RATES, {name: changes_of(data, name).mean for name in TABLES})
    panels.draw_outlooks(axes[3], {name: tables.outlook(Problem(name)) for name in TABLES})
    return fig


def weights(data: Mapping[str, xr.Dataset], problem: Problem, rate: float) -> np.ndarray:
    """The mean weights [p] of the runs of a problem that did not diverge; NaN without any."""
    found = _runs(data, problem, rate).mean("seed").values
    return found[: len(tables.columns(problem.table))]


def _runs(data: Mapping[str, xr.Dataset], problem: Problem, rate: float) -> xr.DataArray:
    """The weights of the runs of a problem; NaN of those that diverged."""
    (place,) = (place for place, group in enumerate(GROUPS) if problem.table in group)
    kind = "whole" if problem.held_out < 0 else "left_out"
    number = tables.problems(GROUPS[place]).index(problem)
    dataset = data[f"{NAMES[place]}_{kind}"]
    runs = dataset.sel(problem=number, learning_rate=rate).isel(step=-1)
    return runs.weights.where(runs.diverged_at < 0)


def distance(data: Mapping[str, xr.Dataset], problem: Problem, rate: float) -> float:
    """The distance of the mean weights from the Lasso over that from least squares, in l1."""
    found = weights(data, problem, rate)
    law, least = tables.lasso(problem, rate), tables.pooled(problem)
    return float(np.abs(found - law).sum() / np.abs(found - least).sum())


def error_of(data: Mapping[str, xr.Dataset], problem: Problem, rate: float) -> float:
    """The summed standard errors of the mean weights, over the distance from least squares."""
    runs = _runs(data, problem, rate)
    errors = runs.std("seed", ddof=1) / np.sqrt(runs.notnull().sum("seed"))
    least = tables.pooled(problem)
    moved = np.abs(weights(data, problem, rate) - least).sum()
    return float(errors.values[: len(least)].sum() / moved)


def changes_of(data: Mapping[str, xr.Dataset], name: str) -> panels.Changes:
    """Relative changes of the errors in environments left out, from those of least squares."""
    (group,) = (group for group in GROUPS if name in group)
    left_out = [p for p in tables.problems(group) if p.table == name and p.held_out >= 0]
    least = np.array([tables.held_out_error(p, tables.pooled(p)) for p in left_out])
    found = np.array(
        [[tables.held_out_error(p, weights(data, p, rate)) for p in left_out] for rate in RATES]
    )
    return panels.Changes(found.mean(1) / least.mean() - 1, found.max(1) / least.max() - 1)


def _points(
    rows: list[tuple[object, ...]], names: tuple[str, ...], settings: tuple[str, ...]
) -> xr.Dataset:
    """Rows as a dataset of points."""
    values = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    numbers = {name: each for name, each in values.items() if name not in settings}
    return points({name: values[name] for name in settings}, numbers)

"""Beyond interpolation weights of groups fade like 1/log t; a balanced subsample keeps its gain.

One hundred examples have a core signal, a spurious one that is reversed in a fifth of them, and
noise in d directions (after Wald et al. 2023). At d/n = 0.1, where no run on all data is free of
training error, balanced weights (RWG), V-REx, IRMv1, GroupDRO and HeteroSGD on a linear model take
0.10 to 0.13 from the worst group's error of 0.36; 0.16 is the least possible. Beyond d/n = 0.22 the
examples are separable. All methods that keep them then share one limit, the largest margin, whose
error passes 1/2: like that of least squares it follows from a comparison of Gaussian processes.
Weights c_g of the groups shift their margins by log c_g, which is small beside log t.

The statement that gains over ERM vanish (to below 0.02, say) once the training error is 0 holds in
this limit only. At d/n = 10 RWG gains 0.1 when the training error becomes 0, and 0.03 after 1000
steps, as V-REx and HeteroSGD do; IRMv1 gains 0.025 and GroupDRO 0.016. By the law RWG falls below
0.02 after 20,000 steps. SUBG keeps its gain at any d/n, of 0.17 at 10, at the cost of the variance
of fewer examples.

In the toy of balancing (Idrissi et al. 2022) the first step of RWG is right, and five steps later
its worst group is wrong; SUBG stays right. (The laws of several groups and of time are ours.)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _overfitting_methods as methods
from causal_sgd.studies.supervised._overfitting_theory import Law

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.sweeps._grid import Zipped

DIMS = np.array([10, 15, 20, 30, 50, 100, 200, 500, 1000])
FITTED = DIMS[4:]  # beyond the threshold of separability
FEWEST, MOST = 10, 1000
WEIGHTED = {  # balanced groups, subsampled, one group at a time, GroupDRO
    "ERM": (0, 0, 0, 0),
    "RWG": (1, 0, 0, 0),
    "SUBG": (1, 1, 0, 0),
    "HeteroSGD": (1, 0, 1, 0),
    "GroupDRO": (1, 0, 0, 1),
}
PENALISED = {"V-REx": (methods.WEIGHT, 0), "IRMv1": (0, methods.WEIGHT)}
METHODS = (*WEIGHTED, *PENALISED)
TOY = {name: WEIGHTED[name][:2] for name in ("ERM", "RWG", "SUBG")}
SCALES = np.array([2.0, 4.0])  # of the noise of the toy
GAINING = ("RWG", "V-REx", "IRMv1", "GroupDRO", "HeteroSGD")
MARKERS = dict(zip(METHODS, ("o", "s", "D", "^", "v", "P", "*"), strict=True))
LAW = "comparison of Gaussian processes, n to infinity at fixed d/n"
SIDES = "both sides of the threshold"
TIME = "margins log(steps x weight / dual variable) of separable examples"
CLAIMS = {
    "squares_under": Claim("least squares, d/n = 1/2: worst error over the law", 0.95, 1.05, LAW),
    "squares_over": Claim("least norm, d/n = 2: worst error over the law", 0.95, 1.05, LAW),
    "squares_far": Claim("least norm, d/n = 10: worst error over the law", 0.97, 1.03, LAW),
    "weights": Claim(
        "least norm, d > n: largest change of a worst error by balanced weights of the groups",
        0,
        0.002,
        "exact solutions do not depend on weights",
    ),
    "margin_under": Claim("largest margin, d/n = 1/2: worst error over the law", 0.95, 1.05, LAW),
    "margin_over": Claim("largest margin, d/n = 2: worst error over the law", 0.95, 1.05, LAW),
    "margin_far": Claim("largest margin, d/n = 10: worst error over the law", 0.97, 1.03, LAW),
    "margin_subsampled": Claim(
        "largest margin of a balanced subsample, d/n = 10: mean error of the groups over the law",
        0.97,
        1.03,
        LAW,
    ),
    "interpolation": Claim(
        "ERM, d/n of 1/2 and more: least share of runs with training error 0", 1, 1, SIDES
    ),
    "no_interpolation": Claim("ERM, d/n = 0.1: the same share", 0, 0, SIDES),
    "erm": Claim(
        f"ERM, d/n = 10, {methods.STEPS} steps: worst error over the law", 0.97, 1.03, TIME
    ),
    "gain": Claim(
        f"RWG, d/n = 10, {methods.STEPS} steps: gain over ERM in the worst error, over the law",
        0.85,
        1.15,
        TIME,
    ),
    "subg": Claim(
        "SUBG, d/n = 10: mean error of the groups over that law",
        0.95,
        1.05,
        LAW,
    ),
    "floor": Claim(
        "least worst error of any method, run and step, over that of the core signal alone",
        1,
        np.inf,
        "minimax error of two groups",
    ),
    "toy_first": Claim(
        "toy, RWG: worst error after one step, larger of both noises",
        0,
        0.01,
        "balanced gradients have no spurious part",
    ),
    "toy_rwg": Claim(
        f"toy, RWG: worst error after {methods.TOY_STEPS} steps, smaller of both noises",
        0.9,
        1,
        "the largest margin errs on all of the minority",
    ),
    "toy_subg": Claim(
        "toy, SUBG: the same, larger of both noises", 0, 0.05, "the largest margin errs on none"
    ),
    **{
        f"far_{name.lower().replace('-', '')}": Claim.finding(
            f"{name}, d/n = 10, {methods.STEPS} steps: gain over ERM in the worst error"
        )
        for name in GAINING
    },
    **{
        f"few_{name.lower().replace('-', '')}": Claim.finding(
            f"{name}, d/n = 0.1: gain over ERM in the worst error"
        )
        for name in GAINING
    },
    "subg_worst": Claim.finding(
        "SUBG, d/n = 10: worst error over the law; the larger of two errors is above their mean"
    ),
    "first": Claim.finding(
        "RWG, d/n = 10: gain over ERM at the first recorded step at which neither errs in training"
    ),
    "waiting": Claim.finding("d/n = 10: steps after which the law of RWG's gain is below 0.02"),
    "toy_steps": Claim.finding("toy, RWG, noise 2: steps until the worst error is above 1/2"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Seven methods on the same 100 examples, 20 of the minority: 1000 full-batch steps from zero
    at nine numbers of inputs from 10 to 1000 (12 seeds, 2 when quick); least norm and largest
    margin of 128 data sets (32 when quick) at the last five of them; and the toy of balancing with
    500 examples of 602 inputs, half the source's numbers (2 seeds, 1 when quick). Noise is drawn in
    the directions that it spans, so that all numbers of inputs are one program.
    """
    from causal_sgd.sweeps import sweep

    options: Options = {"key": key, "progress": progress}
    dims, seeds = {"dim": DIMS}, 2 if quick else 12
    weighted = _axis(("balanced", "subsampled", "single", "robust"), WEIGHTED)
    penalised = _axis(("vrex", "irmv1"), PENALISED)
    toy = {**_axis(("balanced", "subsampled"), TOY), "noise": SCALES}
    return {
        "weighted": sweep(methods.weighted, axes=weighted | dims, seeds=seeds, **options),
        "penalised": sweep(methods.penalised, axes=penalised | dims, seeds=seeds, **options),
        "fits": sweep(methods.fits, axes={"dim": FITTED}, seeds=32 if quick else 128, **options),
        "toy": sweep(methods.balancing, axes=toy, seeds=1 if quick else 2, **options),
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Errors over their laws, gains over ERM, and the toy."""
    final = {name: _errors(data, name)[:, -1] for name in METHODS}
    gains = {name: final["ERM"] - final[name] for name in METHODS}
    few, far = _row(FEWEST), _row(MOST)
    laws = {name: _after(name, methods.STEPS) for name in ("ERM", "RWG")}
    exact = _interpolation(data, "ERM")[:, -1]
    flags = ("least_norm", "least_norm_balanced")
    one, other = (_fitted(data, name)[FITTED > methods.EXAMPLES] for name in flags)
    subsample = _margin_error("margin_subsampled", MOST)
    least = min(float(_errors(data, name).min()) for name in METHODS)
    rwg, subg = (_toy(data, name).mean(-1) for name in ("RWG", "SUBG"))
    return {
        "squares_under": _over_law(data, "least_norm", 50),
        "squares_over": _over_law(data, "least_norm", 200),
        "squares_far": _over_law(data, "least_norm", MOST),
        "weights": float(np.abs(one - other).max()),
        "margin_under": _over_law(data, "margin", 50),
        "margin_over": _over_law(data, "margin", 200),
        "margin_far": _over_law(data, "margin", MOST),
        "margin_subsampled": _over_law(data, "margin_subsampled", MOST),
        "interpolation": float(exact[DIMS >= 50].min()),
        "no_interpolation": float(exact[few]),
        "erm": float(final["ERM"][far].mean()) / laws["ERM"],
        "gain": float(gains["RWG"][far].mean()) / (laws["ERM"] - laws["RWG"]),
        "subg": float(_runs(data, "test_error", "SUBG")[far, -1].mean()) / subsample,
        "floor": least / _floor(),
        "toy_first": float(rwg[:, 1].max()),
        "toy_rwg": float(rwg[:, -1].min()),
        "toy_subg": float(subg[:, -1].max()),
        **{_short("far", name): float(gains[name][far].mean()) for name in GAINING},
        **{_short("few", name): float(gains[name][few].mean()) for name in GAINING},
        "subg_worst": float(final["SUBG"][far].mean()) / _margin_error("margin_subsampled", MOST),
        "first": _first_gain(data, "RWG", far),
        "waiting": _waiting(0.02),
        "toy_steps": float(np.argmax(rwg[0] > 0.5)),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The laws: errors of the largest margin, of all data and of a subsample, and of least norm;
    and the gain of RWG at d/n = 10 over time.
    """
    ratios, steps = _grid(), _steps(data)[1:]
    curves = {name: _curve(name) for name in ("margin", "margin_subsampled", "least_norm")}
    gains = [_after("ERM", step) - _after("RWG", step) for step in steps]
    return {
        "errors": points({"ratio": ratios}, curves),
        "gain": points({"step": steps}, {"law": gains}),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean error of the worst group after training against inputs per example (left): full symbols
    where all runs have training error 0, empty ones where none has, and crosses between; lines are
    the laws of the largest margin, of all data (solid) and of a balanced subsample (dashed), dotted
    the threshold of separability and the least possible error. The gain over ERM at d/n = 10 over
    time, means over seeds, with the law of RWG (black, middle). The toy of balancing at a noise of
    2 (solid) and 4 (dashed, right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(10.2, 3.5), layout="constrained")
    _draw_errors(axes[0], data)
    _draw_gains(axes[1], data)
    _draw_toy(axes[2], data)
    return fig


def _law(*, balanced: bool = False) -> Law:
    """Of all data, or of a sample with as many examples of the majority as of the minority."""
    signals = np.array([[methods.CORE, shift * methods.SPURIOUS] for shift in (1, -1)])
    share = 0.5 if balanced else methods.FEW / methods.EXAMPLES
    return Law(signals, np.array([1 - share, share]), np.ones(2))


@functools.cache
def _margin_error(name: str, dim: float) -> float:
    """The law of the worst error of a fit."""
    balanced = name == "margin_subsampled"
    law = _law(balanced=balanced)
    ratio = dim / (2 * methods.FEW if balanced else methods.EXAMPLES)
    weights = law.least_norm(ratio) if name == "least_norm" else law.margin(ratio)
    return max(law.error(weights, each) for each in law.signals)


def _after(name: str, steps: float) -> float:
    """The law of the worst error of ERM or RWG at d/n = 10 after so many steps."""
    law, ratio = _law(), MOST / methods.EXAMPLES
    factors = np.ones(2) if name == "ERM" else 0.5 / law.shares
    weights = law.after(ratio, steps * float(methods.learning_rate(MOST)), factors)
    return max(law.error(weights, each) for each in law.signals)


def _floor() -> float:
    """The least worst error of any weights."""
    from scipy.special import ndtr

    return float(ndtr(-methods.CORE))


def _waiting(gain: float) -> float:
    """The steps after which the law of RWG's gain falls below a number."""
    logs = np.linspace(1, 20, 400)
    gains = [_after("ERM", 10**log) - _after("RWG", 10**log) for log in logs]
    return float(10 ** logs[np.argmax(np.array(gains) < gain)])


def _axis(names: Sequence[str], rows: Mapping[str, Sequence[float]]) -> dict[str, Zipped]:
    """The axis of methods that one program runs, by their numbers."""
    from causal_sgd.sweeps import zipped

    columns = np.array(list(rows.values()), float).T
    return {"method": zipped(**dict(zip(names, columns, strict=True)))}


def _row(dim: int) -> int:
    return int(np.flatnonzero(dim == DIMS)[0])


def _steps(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    return data["weighted"].step.values


def _runs(data: Mapping[str, xr.Dataset], metric: str, name: str) -> np.ndarray:
    """A metric of a method, [dims, frames, seeds]."""
    kind, names = ("weighted", WEIGHTED) if name in WEIGHTED else ("penalised", PENALISED)
    runs = data[kind].isel(method=list(names).index(name))
    return runs[metric].transpose("dim", "step", "seed").values


def _errors(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Worst errors of a method after the start, [dims, frames, seeds]."""
    return _runs(data, "worst_test_error", name)[:, 1:]


def _interpolation(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Shares of the runs with training error 0, [dims, frames]."""
    return (_runs(data, "training_error", name)[:, 1:] == 0).mean(-1)


def _first_gain(data: Mapping[str, xr.Dataset], name: str, row: int) -> float:
    """The mean gain over ERM at the first recorded step without training error in both."""
    exact = np.stack([_runs(data, "training_error", each)[row, 1:] == 0 for each in ("ERM", name)])
    frames = np.argmax(exact.all(0), 0)
    gains = _errors(data, "ERM")[row] - _errors(data, name)[row]
    return float(np.mean(np.take_along_axis(gains, frames[None], 0)))


def _fitted(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """A number of the fits, [dims, seeds]."""
    return data["fits"][name].isel(step=-1).transpose("dim", "seed").values


def _over_law(data: Mapping[str, xr.Dataset], name: str, dim: int) -> float:
    (row,) = np.flatnonzero(dim == FITTED)
    return float(_fitted(data, name)[row].mean()) / _margin_error(name, dim)


def _toy(data: Mapping[str, xr.Dataset], name: str) -> np.ndarray:
    """Worst errors of the toy, [noises, frames, seeds]."""
    runs = data["toy"].isel(method=list(TOY).index(name)).worst_test_error
    return runs.transpose("noise", "step", "seed").values


def _short(prefix: str, name: str) -> str:
    return f"{prefix}_{name.lower().replace('-', '')}"


def _grid() -> np.ndarray:
    return np.geomspace(0.1, 10, 25)


def _curve(name: str) -> np.ndarray:
    """The law of a fit on the grid; NaN below the threshold of a margin."""
    balanced = name == "margin_subsampled"
    least = 0.0
    if name != "least_norm":
        size = 2 * methods.FEW if balanced else methods.EXAMPLES
        least = 1.02 * _law(balanced=balanced).threshold() * size / methods.EXAMPLES
    errors = [
        _margin_error(name, ratio * methods.EXAMPLES)
        if ratio > least and (ratio != 1 or name != "least_norm")
        else np.nan
        for ratio in _grid()
    ]
    return np.array(errors)


def _draw_errors(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    ratios, grid = DIMS / methods.EXAMPLES, _grid()
    ax.plot(grid, _curve("margin"), color="0.5", lw=1)
    ax.plot(grid, _curve("margin_subsampled"), color="0.5", lw=1, ls="--")
    ax.axvline(_law().threshold(), color="0.6", ls=":", lw=1)
    ax.axhline(_floor(), color="0.6", ls=":", lw=1)
    for index, name in enumerate(METHODS):
        errors, shares = _errors(data, name)[:, -1].mean(-1), _interpolation(data, name)[:, -1]
        color, marker = f"C{index}", MARKERS[name]
        ax.plot(ratios, errors, color=color, lw=0.6)
        for kept, fill in ((shares == 1, color), (shares == 0, "white")):
            ax.plot(
                ratios[kept], errors[kept], marker, ms=4, color=color, mfc=fill, mew=0.8, zorder=3
            )
        between = (shares > 0) & (shares < 1)
        ax.plot(ratios[between], errors[between], "x", ms=4, color=color, zorder=3)
        ax.plot([], [], marker, ms=4, color=color, label=name)
    ax.set_xscale("log")
    ax.set_xlabel("inputs per example $d/n$")
    ax.set_title("error of the worst group")
    ax.legend(frameon=False, fontsize=7, ncols=2)


def _draw_gains(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    steps, row = _steps(data)[1:], _row(MOST)
    erm = _errors(data, "ERM")[row]
    for index, name in enumerate(METHODS):
        if name in ("ERM", "SUBG"):
            continue
        gains = (erm - _errors(data, name)[row]).mean(-1)
        ax.plot(steps, gains, color=f"C{index}", lw=1, label=name)
    law = [_after("ERM", step) - _after("RWG", step) for step in steps]
    ax.plot(steps, law, color="0.2", lw=1.5, ls=":", label=r"law, $\log c\,/\log t$")
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("step $t$")
    ax.set_title("gain over ERM, $d/n = 10$")
    ax.legend(frameon=False, fontsize=7)


def _draw_toy(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    steps = data["toy"].step.values[1:]
    for name in TOY:
        color = f"C{METHODS.index(name)}"
        for runs, line, scale in zip(_toy(data, name), ("-", "--"), SCALES, strict=True):
            label = f"{name}, noise {scale:g}"
            ax.plot(steps, runs[1:].mean(-1), line, color=color, lw=1.2, label=label)
    ax.set_xscale("log")
    ax.set_xlabel("step $t$")
    ax.set_title("toy of balancing, worst group")
    ax.legend(frameon=False, fontsize=7)

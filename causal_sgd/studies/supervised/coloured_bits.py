"""Penalties of invariance reject the colour; inferred environments do, where they are found.

The coloured digits of Arjovsky et al. 2019 without images are two bits: one is the label but for a
quarter of the examples everywhere, and the colour is the label but for a fifth and a tenth of them
in training, and for nine tenths in the test. The sign of a prediction is that of the bit with the
larger weight, so that its test error is 1/4 or 9/10. V-REx keeps the log-odds of the bit at every
weight of its penalty and changes sides at a weight in closed form; IRMv1 does so a little earlier.
The penalty of BIRM, as its source draws it, has the mean that theory says.

EIIL never sees the environments. It splits the examples exactly by whether their colour agrees with
the label, which has little to do with the environments, and rejects the colour like the others.
HeteroSGD keeps it, since the colour agrees with the label in both environments.

In the logit example of ZIN (Lin et al. 2022) environments are the halves of the time. ZIN recovers
them in three of four runs on halves of 500 examples and in nine of ten on halves of 2500, and then
errs as IRMv1 on the true environments does. In the other runs its network puts all examples on one
side. Here it has five times its source's step sizes and a fifth of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _coloured_bits_methods as methods
from causal_sgd.studies.supervised import _coloured_bits_theory as theory
from causal_sgd.studies.supervised._contradiction_methods import apart

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATH = np.array([1, 3, 8, 18, 23, 30, 38, 48, 60, 150, 500, 2e3, 1e4, 1e5])  # weights
MOST = 1e12  # examples that stand for the population
EXAMPLES = np.array([1e2, 3e2, 1e3, 3e3, 1e4, 3e4, MOST])
DENSE = np.geomspace(1, 1e5, 101)
LAWS = ("V-REx", "IRMv1")
PENALISED = ("IRMv1", "V-REx", "BIRM", "EIIL")
SCALES = np.array([0.1, 1.2])  # deviations of BIRM's scales
HALVES = {500: 40, 2500: 24}  # examples of each half of the time -> seeds
LONGEST = max(HALVES)
AGREEMENTS = (0.999, 0.8, 0.2, 0.001)  # of the spurious bit and the label in the test
RECOVERED = 0.9  # agreement of the splits from which environments count as recovered
COLORS = dict(zip(methods.DIGITS, ("0.3", "C3", "C0", "C1", "C2", "C4", "C5"), strict=True))
EXACT = "masses of the atoms, exact"
CLAIMS = {
    "bit": Claim("test error of the causal bit alone", 0.2499, 0.2501, "alpha, exact"),
    "erm": Claim(
        "test error of ERM, which is that of the colour",
        0.8999,
        0.9001,
        "the colour has the larger log-odds",
    ),
    "erm_weights": Claim(
        "ERM: weights of both bits over their log-odds, farthest from 1",
        0.99,
        1.01,
        "independent bits",
    ),
    "vrex_bit": Claim(
        "V-REx: weight of the bit over its log-odds, farthest from 1 at all weights of the penalty",
        0.99,
        1.01,
        "its gradient is that of the mean loss with another mean of beta_e",
    ),
    "vrex_path": Claim(
        "V-REx: largest distance of a weight from the minimum of the objective",
        0,
        0.01,
        "root of one equation",
    ),
    "irmv1_path": Claim("IRMv1: the same", 0, 0.01, "roots of two equations"),
    "vrex_switch": Claim(
        "V-REx: weight of the penalty at which the error falls, over (alpha - b)/(2 Var(beta_e) "
        "dR_e/dbeta_e), b the mean of beta_e",
        0.98,
        1.02,
        "the other mean is alpha",
    ),
    "irmv1_switch": Claim(
        "IRMv1: weight of the penalty at which the error falls, over theory",
        0.98,
        1.02,
        "roots of two equations",
    ),
    "errors": Claim(
        "population, weight 10^4: largest test error of IRMv1, V-REx, BIRM and EIIL",
        0.2499,
        0.2501,
        "alpha, exact",
    ),
    "birm_squared": Claim(
        "squared loss: mean penalty of BIRM with sampled scales over its closed form, farthest "
        "from 1",
        0.99,
        1.01,
        "D^2 + deviation^2 (second derivative)^2",
    ),
    "birm_logistic": Claim(
        "logistic loss: the same over its integral", 0.99, 1.01, "masses of the atoms"
    ),
    "eiil_colour": Claim(
        "EIIL, population: share of examples split by whether the colour agrees with the label",
        0.9999,
        1,
        "signs of the derivatives at ERM's weights",
    ),
    "eiil_truth": Claim(
        "EIIL, population: share of examples split by their environment",
        theory.SPLIT - 1e-4,
        theory.SPLIT + 1e-4,
        EXACT,
    ),
    "examples": Claim(
        "IRMv1, V-REx, BIRM and EIIL on 100 to 30,000 examples: least increase of the share of "
        "runs with the error of the bit from one number of examples to the next, in standard "
        "errors",
        -3,
        np.inf,
        "consistency",
    ),
    "hetero": Claim.finding("population: test error of HeteroSGD"),
    "irmv1_few": Claim.finding("100 examples: share of runs of IRMv1 with the error of the bit"),
    "birm_few": Claim.finding("the same of BIRM"),
    "eiil_few": Claim.finding("the same of EIIL"),
    "recovered_500": Claim.finding(
        "ZIN, halves of 500 examples: share of runs in which 90 % of the examples are split by "
        "their environment"
    ),
    "recovered_2500": Claim.finding("the same for halves of 2500 examples"),
    "agreement_500": Claim.finding(
        "ZIN, halves of 500: median share of examples split by their environment"
    ),
    "agreement_2500": Claim.finding("the same for halves of 2500"),
    "zin_worst": Claim.finding(
        "ZIN, halves of 2500: median error at an agreement of 0.001 in the test"
    ),
    "known_worst": Claim.finding("the same of IRMv1 on the true environments"),
    "zin_gap": Claim.finding(
        "halves of 2500, runs with recovered environments: median error of ZIN less that of IRMv1 "
        "on the true ones, farthest from 0 of all agreements"
    ),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Two bits: seven methods on the same data sets of 100 to 30,000 examples of each environment,
    and on 10^12 for the population there at 14 weights of the penalties, 3000 steps of 32 seeds (16
    when quick); and a million sampled scales of BIRM at fixed weights. Logit example: ZIN on halves
    of 500 examples (40 seeds) and 2500 (24), and IRMv1 on the true environments on the larger ones,
    1000 steps without and 1000 with the penalty (200 and 200 steps of 4 seeds when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    weight = {"weight": np.array([methods.WEIGHT])}
    start = 200 if quick else 1000
    places = {
        "num_examples": np.append(EXAMPLES[:-1], np.full(len(PATH), MOST)),
        "weight": np.append(np.full(len(EXAMPLES) - 1, methods.WEIGHT), PATH),
    }
    return {
        "bits": apart(
            sweep(
                methods.sampled(),
                axes={"place": zipped(**places)},
                seeds=16 if quick else 32,
                **options,
            )
        ),
        "scales": sweep(
            methods.graded(),
            axes={
                "first": np.array([theory.BIT]),
                "second": np.array([0.0, theory.COLOUR]),
                "deviation": SCALES,
            },
            seeds=8,
            **options,
        ),
        **{
            f"halves of {half}": sweep(
                methods.inferred(half, start, known=half == LONGEST),
                axes=weight,
                seeds=4 if quick else seeds,
                **options,
            )
            for half, seeds in HALVES.items()
        },
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Errors and weights on the population, consistency, BIRM's scales, and inferred splits."""
    exact = {name: _of(data, name).isel(place=-1) for name in methods.DIGITS}
    erm = np.array([exact["ERM"]["first"] / theory.BIT, exact["ERM"].second / theory.COLOUR])
    distances = {name: np.abs(_path(data, name) - _law(name, PATH)).max() for name in LAWS}
    few = {name: _share(data, name)[0][0] for name in PENALISED}
    increases = []
    for name in PENALISED:
        shares, errors = (values[:-1] for values in _share(data, name))
        increases.append(np.diff(shares) / np.maximum(np.hypot(errors[1:], errors[:-1]), 1e-12))
    gap = _gap(data)
    return {
        "bit": float(exact["causal bit"].error.max()),
        "erm": float(exact["ERM"].error.min()),
        "erm_weights": _farthest(erm),
        "vrex_bit": _farthest(_path(data, "V-REx")[:, 0] / theory.BIT),
        "vrex_path": float(distances["V-REx"]),
        "irmv1_path": float(distances["IRMv1"]),
        "vrex_switch": _switch(_path(data, "V-REx")) / theory.vrex_switch(),
        "irmv1_switch": _switch(_path(data, "IRMv1")) / theory.irmv1_switch(),
        "errors": max(float(exact[name].error.max()) for name in PENALISED),
        **{f"birm_{loss}": _farthest(_scale_ratios(data, loss)) for loss in methods.SHAPES},
        "eiil_colour": float(exact["EIIL"].of_colour.min()),
        "eiil_truth": float(exact["EIIL"].of_truth.max()),
        "examples": float(np.min(increases)),
        "hetero": float(exact["HeteroSGD"].error.mean()),
        "irmv1_few": float(few["IRMv1"]),
        "birm_few": float(few["BIRM"]),
        "eiil_few": float(few["EIIL"]),
        **{f"recovered_{half}": float(_recovered(data, half).mean()) for half in HALVES},
        **{f"agreement_{half}": float(np.median(_agreement(data, half))) for half in HALVES},
        "zin_worst": float(np.median(_errors(data, "ZIN")[:, -1])),
        "known_worst": float(np.median(_errors(data, "IRMv1")[:, -1])),
        "zin_gap": float(gap[np.argmax(np.abs(gap))]),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The weights of both bits with theory, the shares of runs with the error of the bit, and the
    median errors in the logit example with halves of 2500.
    """
    weights = {
        f"{name}_{place}{kind}": values[:, index]
        for name in LAWS
        for index, place in enumerate(("first", "second"))
        for kind, values in (("", _path(data, name)), ("_theory", _law(name, PATH)))
    }
    shares = {name: _share(data, name)[0] for name in methods.DIGITS}
    medians = {name: np.median(_errors(data, name), 0) for name in ("ERM", "IRMv1", "ZIN")}
    medians["ZIN_recovered"] = np.median(_errors(data, "ZIN")[_counted(data)], 0)
    return {
        "weights": points({"weight": PATH}, weights),
        "shares": points({"num_examples": EXAMPLES}, shares),
        "logit": points({"agreement": np.array(AGREEMENTS)}, medians),
    }


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """The weights of both bits by V-REx and IRMv1 on the population (points) with theory (lines)
    and the weights of the penalty at which the error falls (dotted, left); the share of runs with
    the error of the bit on n examples, of both bits with two standard errors (middle; the last
    points are the population); and the error of ZIN where the spurious bit disagrees with the label
    against how well its split agrees with the environments (right).
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3), layout="constrained")
    _draw_path(axes[0], data)
    _draw_shares(axes[1], data)
    _draw_splits(axes[2], data)
    return fig


def _of(data: Mapping[str, xr.Dataset], method: str) -> xr.Dataset:
    """The ends of the runs of a method on two bits, at the weight 10^4 by numbers of examples."""
    ends = data["bits"].sel(variant=method).isel(step=-1)
    return ends.isel(place=ends.weight.values == methods.WEIGHT)


def _path(data: Mapping[str, xr.Dataset], method: str) -> np.ndarray:
    """The weights (w1, w2) on the population at the weights of the penalty, [n, 2]."""
    ends = data["bits"].sel(variant=method).isel(step=-1, seed=0)
    ends = ends.isel(place=ends.num_examples.values == MOST)
    return np.stack([ends["first"].values, ends["second"].values], -1)


def _law(method: str, weights: np.ndarray) -> np.ndarray:
    """The minimum of the objective at weights of the penalty, [n, 2]."""
    return {"V-REx": theory.vrex, "IRMv1": theory.irmv1}[method](weights)


def _switch(weights: np.ndarray) -> float:
    """The weight of the penalty at which w1 = w2, between the last point before and the first."""
    excess = weights[:, 1] - weights[:, 0]
    after = int(np.argmax(excess < 0))
    if not after:
        return np.nan
    near = slice(after - 1, after + 1)
    return float(np.exp(np.interp(0, -excess[near], np.log(PATH[near]))))


def _farthest(ratios: np.ndarray) -> float:
    """The number that is farthest from 1."""
    flat = np.ravel(ratios)
    return float(flat[np.argmax(np.abs(flat - 1))])


def _share(data: Mapping[str, xr.Dataset], method: str) -> tuple[np.ndarray, np.ndarray]:
    """The share of seeds with the error of the bit at each number of examples, and its error."""
    error = _of(data, method).error.transpose("place", "seed").values
    share = (np.abs(error - theory.ALPHA) < 1e-3).mean(1)
    return share, np.sqrt(share * (1 - share) / error.shape[1])


def _scale_ratios(data: Mapping[str, xr.Dataset], loss: str) -> np.ndarray:
    """The mean of the sampled penalties over theory, [weights, deviations]."""
    scales = data["scales"].isel(step=-1, first=0)
    found = scales[f"{loss}: penalty"].mean("seed").transpose("second", "deviation").values
    law = [
        [theory.birm(np.array([theory.BIT, second]), deviation, loss) for deviation in SCALES]
        for second in scales["second"].values
    ]
    return found / np.array(law)


def _agreement(data: Mapping[str, xr.Dataset], half: int) -> np.ndarray:
    """The share of examples that ZIN splits by their environment, [seeds]."""
    return data[f"halves of {half}"]["ZIN: agreement"].isel(step=-1, weight=0).values


def _recovered(data: Mapping[str, xr.Dataset], half: int) -> np.ndarray:
    return _agreement(data, half) > RECOVERED


def _counted(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The runs with recovered environments, halves of 2500; all if there is none."""
    recovered = _recovered(data, LONGEST)
    return recovered if recovered.any() else ~recovered


def _errors(data: Mapping[str, xr.Dataset], method: str, half: int = LONGEST) -> np.ndarray:
    """The errors in the logit example at all agreements in the test, [seeds, tests].

    ERM is ZIN's model before it sees a penalty.
    """
    name, frame = ("ZIN", 1) if method == "ERM" else (method, -1)
    runs = data[f"halves of {half}"][f"{name}: errors"]
    return runs.isel(step=frame, weight=0).transpose("seed", ...).values


def _gap(data: Mapping[str, xr.Dataset]) -> np.ndarray:
    """The difference of median errors of ZIN and IRMv1 in runs with recovered environments."""
    runs = _counted(data)
    inferred, known = (np.median(_errors(data, name)[runs], 0) for name in ("ZIN", "IRMv1"))
    return inferred - known


def _draw_path(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    switches = {"V-REx": theory.vrex_switch(), "IRMv1": theory.irmv1_switch()}
    for name in LAWS:
        found = _path(data, name)
        dense = _law(name, DENSE)
        for index, style in enumerate(("-", "--")):
            ax.plot(DENSE, dense[:, index], color=COLORS[name], ls=style, lw=1)
            ax.plot(PATH, found[:, index], "os"[index], ms=3, color=COLORS[name])
        ax.axvline(switches[name], color=COLORS[name], ls=":", lw=1)
        ax.plot([], [], color=COLORS[name], label=name)
    ax.text(1.2, 0.86, "bit", fontsize=8)
    ax.text(1.2, 1.8, "colour", fontsize=8)
    ax.set(xscale="log", ylim=(-0.1, 2.0), xlabel="weight of the penalty")
    ax.set_title("weights of bit (-) and colour (- -)")
    ax.legend(frameon=False, fontsize=8)


def _draw_shares(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    place = np.append(EXAMPLES[:-1], EXAMPLES[-2] * 10).astype(float)
    for index, name in enumerate(methods.DIGITS):
        share, error = _share(data, name)
        ax.errorbar(
            place * 1.04 ** (index - 3),
            share,
            2 * error,
            color=COLORS[name],
            marker="o",
            ms=3,
            lw=1,
            label=name,
        )
    ax.set(xscale="log", ylim=(-0.04, 1.06), xlabel="examples of each environment")
    ax.set_xticks([100, 1000, 10_000, place[-1]], ["$10^2$", "$10^3$", "$10^4$", r"$\infty$"])
    ax.set_title("share of runs with error 1/4")
    ax.legend(frameon=False, fontsize=7)


def _draw_splits(ax: Axes, data: Mapping[str, xr.Dataset]) -> None:
    for half, face, color in zip(HALVES, ("none", "C4"), ("0.4", "C4"), strict=True):
        ax.plot(
            _agreement(data, half),
            _errors(data, "ZIN", half)[:, -1],
            "o",
            ms=4,
            mfc=face,
            mec=color,
            ls="",
            label=f"ZIN, halves of {half}",
        )
    for name, color in (("ERM", "C3"), ("IRMv1", "C0")):
        label = {"ERM": "ERM", "IRMv1": "IRMv1, true split"}[name]
        ax.axhline(np.median(_errors(data, name)[:, -1]), color=color, lw=1, label=label)
    ax.set(xlabel="agreement of the split", ylim=(0, 1), xlim=(0.48, 1.02))
    ax.set_title("error where the spurious bit disagrees")
    ax.legend(frameon=False, fontsize=7, loc="center", bbox_to_anchor=(0.5, 0.52))

"""In the chain of invariant risk minimisation only explicit methods find the causal inputs.

Five causal inputs x, their effect y, whose sum is the label, and five effects z of y, in two
environments of scale 0.2 and 2. Eight settings: with or without a hidden cause of all; noise that
differs between the environments in z (homoscedastic y) or in y (heteroscedastic y); inputs as they
are or rotated. The error is the mean of (w - w*)^2 over causal inputs and over the others.

A method fails where its assumption does. ICP needs a label whose noise has one variance: where it
differs no set is accepted and nothing is selected, but at n = 100 it often selects effects of the
label. V-REx asks for equal risks, which the causal predictor has only there, too; where the noise
of y differs it is farther from it than least squares. EILLS asks for residuals uncorrelated with
the inputs: it selects exactly the causal inputs from n = 1000 in all settings that are not rotated.
With a hidden cause their own regression is biased, and an error of 0.001 remains at any n.

ICP and EILLS search subsets, and no subset is right for rotated inputs. Equal risks do not depend
on rotation, and V-REx is the best there if the noise of y does not differ. IRMv1 is two equations
for ten weights in two environments. Which solution training finds depends on the coordinates:
without a hidden cause and rotation its error goes to zero with homoscedastic y, rotated it stays.
IRM with a head of ten numbers trains for 4000 steps here, 100,000 in its source, and its errors are
those of short training.

HeteroSGD ends at pooled least squares at every n: z is correlated with the noise of y by an amount
that differs between the environments but has one sign, so that nothing is contradicted. Rotated
inputs need negative weights, which u^2 does not have, and it is worse.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._frames import mean_and_error, surviving
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised import _chain_methods as methods
from causal_sgd.studies.supervised._contradiction_methods import apart

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.studies._cells import Options

SETTINGS = np.array(list(itertools.product((0, 1), repeat=3)))  # hidden, hetero, scramble
HOMOSCEDASTIC, HETEROSCEDASTIC = 0, 2  # without hidden cause, not rotated
STRAIGHT = (0, 2, 4, 6)
SIZES = np.array([1e2, 1e3, 1e4, 1e6])
IRM_SIZES = np.array([1e3, 1e6])
SHARES = np.array([0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])  # of the risk in IRM, those of its source
ERRORS = ("causal_error", "noncausal_error")
LEVEL = 0.05
SEEDS = 200
METHODS = ("ERM", "ICP", "EILLS", "IRM", "IRMv1", "V-REx", "HeteroSGD")
CLAIMS = {
    "erm": Claim(
        "ERM at n = 10^6: mean errors less those of the population's pooled least squares, in "
        "standard errors, farthest from 0 of the 16",
        -4,
        4,
        "closed form from the mixing",
    ),
    "icp_level": Claim(
        "ICP, homoscedastic label: largest share over n of data sets with a selected input that is "
        "not causal",
        0,
        LEVEL + 3 * (LEVEL * (1 - LEVEL) / SEEDS) ** 0.5,
        "level of the tests, and 3 standard errors of 200 data sets",
    ),
    "icp_empty": Claim(
        "ICP, heteroscedastic label, n from 1000: largest mean number of selected causal inputs",
        0,
        0,
        "the causal set is not invariant",
    ),
    "icp_small": Claim.finding(
        "ICP, heteroscedastic label, n = 100: mean number of selected inputs that are not causal"
    ),
    "eills": Claim.finding("EILLS, not rotated, n from 1000: largest error of non-causal inputs"),
    "vrex_homo": Claim.finding("V-REx, homoscedastic label, n = 10^6: error of non-causal inputs"),
    "vrex_hetero": Claim.finding(
        "V-REx, heteroscedastic label, n = 10^6: error of non-causal inputs"
    ),
    "irmv1_hetero": Claim.finding("IRMv1 there: the same"),
    "irm_hetero": Claim.finding("IRM with a head of ten numbers there: the same"),
    "hetero_homo": Claim.finding(
        "HeteroSGD, homoscedastic label, n = 10^6: error of non-causal inputs over that of ERM"
    ),
    "hetero_hetero": Claim.finding("HeteroSGD, heteroscedastic label: the same"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """Estimators on 200 data sets of each setting and n, 4000 full-batch steps of IRMv1 and V-REx
    and 8000 steps of HeteroSGD on 8 of them, and 4000 steps of IRM on 4 of them at two n, with the
    weight of least risk in the third environment (fewer data sets when quick).
    """
    from causal_sgd.sweeps import sweep, zipped

    options: Options = {"key": key, "progress": progress}
    names = ("hidden", "hetero", "scramble")
    setting = zipped(**dict(zip(names, SETTINGS.T, strict=True)))
    axes = {"setting": setting, "examples": SIZES}
    seeds = (20, 2, 1) if quick else (SEEDS, 8, 4)
    grid = axes | {"examples": IRM_SIZES, "share": SHARES}
    data = {
        "estimators": apart(
            sweep(methods.fitted(), axes=axes, seeds=seeds[0], label="estimators", **options)
        ),
        "objectives": apart(
            sweep(methods.trained(), axes=axes, seeds=seeds[1], label="objectives", **options)
        ),
        "HeteroSGD": sweep(methods.hetero, axes=axes, seeds=seeds[1], label="HeteroSGD", **options),
        "IRM": sweep(methods.irm, axes=grid, seeds=seeds[2], label="IRM", **options),
    }
    return {name: dataset.isel(step=[-1]) for name, dataset in data.items()}


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """ERM against the population, what ICP selects, and the errors of non-causal inputs."""
    icp = data["estimators"].sel(variant="ICP").isel(step=-1)
    wrong = (icp.noncausal_selected.isel(setting=HOMOSCEDASTIC) > 0).mean("seed")
    hetero = icp.isel(setting=HETEROSCEDASTIC).mean("seed")
    large = slice(1000, None)

    def error(name: str, setting: int) -> float:
        return float(_runs(data, name).noncausal_error.isel(setting=setting, examples=-1).mean())

    return {
        "erm": _deviation(data),
        "icp_level": float(wrong.max()),
        "icp_empty": float(hetero.causal_selected.sel(examples=large).max()),
        "icp_small": float(hetero.noncausal_selected.isel(examples=0)),
        "eills": float(
            _runs(data, "EILLS")
            .noncausal_error.isel(setting=list(STRAIGHT))
            .sel(examples=large)
            .mean("seed")
            .max()
        ),
        "vrex_homo": error("V-REx", HOMOSCEDASTIC),
        "vrex_hetero": error("V-REx", HETEROSCEDASTIC),
        "irmv1_hetero": error("IRMv1", HETEROSCEDASTIC),
        "irm_hetero": error("IRM", HETEROSCEDASTIC),
        "hetero_homo": error("HeteroSGD", HOMOSCEDASTIC) / error("ERM", HOMOSCEDASTIC),
        "hetero_hetero": error("HeteroSGD", HETEROSCEDASTIC) / error("ERM", HETEROSCEDASTIC),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Mean squared error over all inputs, its standard error, by method, setting and n."""
    tables = {}
    for name in METHODS:
        runs = _runs(data, name)
        mean, error = mean_and_error(_total(runs))
        hidden, hetero, scramble = SETTINGS.T[:, :, None]
        axes = {
            "hidden": hidden,
            "hetero": hetero,
            "scramble": scramble,
            "examples": runs.examples.values[None, :],
        }
        tables[f"error of {name}"] = points(axes, {"mean": mean, "error": error})
    return tables


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean squared error of the ten weights by the number n of examples of each environment, in
    the eight settings. Means over data sets; bars are two standard errors. Dashed: predicting 0.
    The error of ICP is that of predicting 0 where it returns no input.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 4, figsize=(9.6, 5.0), sharex=True, sharey=True)
    for setting, (hidden, hetero, scramble) in enumerate(SETTINGS):
        ax = axes[scramble, 2 * hidden + hetero]
        _draw(ax, data, setting)
        if not scramble:
            cause = "hidden cause" if hidden else "no hidden cause"
            noise = "noise of $y$ differs" if hetero else "noise of $z$ differs"
            ax.set_title(f"{cause},\n{noise}", fontsize=9)
    for row, name in zip(axes, ("inputs as they are", "rotated inputs"), strict=True):
        row[0].set_ylabel(f"{name}\nmean squared error")
    for ax in axes[1]:
        ax.set_xlabel("$n$ per environment")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(METHODS), frameon=False)
    return fig


def _runs(data: Mapping[str, xr.Dataset], name: str) -> xr.Dataset:
    """The final errors [setting, examples, seed] of a method, of IRM at its selected weight."""
    if name in methods.ESTIMATORS:
        return data["estimators"].sel(variant=name).isel(step=-1)
    if name in ("IRMv1", "V-REx"):
        return surviving(data["objectives"].sel(variant=name).isel(step=-1))
    runs = surviving(data[name].isel(step=-1))
    if name == "IRM":
        return runs.isel(share=runs.test_risk.fillna(np.inf).argmin("share"))
    return runs


def _deviation(data: Mapping[str, xr.Dataset]) -> float:
    """The largest mean difference of the errors of ERM from the population's, over its error."""
    runs = data["estimators"].isel(step=-1, examples=-1)
    scores = []
    for name in ERRORS:
        mean, error = mean_and_error(
            runs[name].sel(variant="ERM", drop=True)
            - runs[name].sel(variant="population", drop=True)
        )
        scores.append(mean / error)
    flat = np.ravel(scores)
    return float(flat[np.argmax(np.abs(flat))])


def _total(runs: xr.Dataset) -> xr.DataArray:
    """The mean squared error over causal and other inputs, of which there are as many."""
    both = (runs.causal_error + runs.noncausal_error) / 2
    return both.transpose("setting", "examples", "seed")


def _draw(ax: Axes, data: Mapping[str, xr.Dataset], setting: int) -> None:
    ax.axhline(0.5, color="0.6", lw=1, ls="--")
    markers = "osD*^vX"
    for index, (name, marker) in enumerate(zip(METHODS, markers, strict=True)):
        runs = _total(_runs(data, name).isel(setting=[setting]))
        mean, error = mean_and_error(runs)
        ax.errorbar(
            runs.examples.values,
            mean[0],
            2 * error[0],
            color=f"C{index}",
            marker=marker,
            ms=8 if name in ("IRM", "ERM") else 4,
            ls="" if name == "IRM" else "-",
            lw=1,
            label=name,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1e-6, 3)

"""The invariance unit tests, and how many environments their methods need.

Aubin et al. (2021) train ERM, IRMv1, ANDMask and IGA on six examples, beside an oracle that trains
on the test. Here every run trains on the population, by exact moments or quadrature, with the first
hyperparameters of the source; `benchmarks/unit_tests.py` has all of them and more seeds.

In the third example the median error of IRMv1 falls by half only once there are more environments
than spurious inputs, d_e: up to E = d_e another predictor satisfies its constraint and has a lower
risk. With these few hyperparameters ERM and IGA fall at the same place, so that the test does not
tell them apart. With all twenty, IRMv1 falls more steeply: its mean error is 0.067 at E = 7, and
that of ERM 0.276. ANDMask needs fewer environments, and its error stays at that of the oracle.
ANDMask depends on the coordinates, and a rotation of the inputs ruins it. In the second example the
background alone has a known error, and ERM does slightly better after 10,000 steps.

Four methods are added. V-REx and GroupDRO have the learning rates and decays of ERM and weights in
the ranges of DomainBed. In the regression they start at zero and descend by plain gradients, and a
rotation changes nothing. Their errors there exceed that of ERM, since the label's noise differs
between environments and equal risks are no sign of invariance. In the third example they fall where
ERM does; with nine environments GroupDRO reaches the oracle.
EILLS, with gamma = 20 as in its demo, needs squared loss. It finds the causes of the regression
exactly, and not in rotated inputs.

HeteroSGD, with the weights u^2 - v^2 and the best of three step sizes, does not pass. A spurious
input of the regression is the label and noise, so that its covariance with the residual has the
same sign in all environments, and no step size rejects it. In all examples HeteroSGD ends about
where gradient descent in all environments at once does. That both solve the second example at large
steps is no rejection: these weights grow fast, and then the small invariant inputs separate it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._unit_tests import (
    DIM_CAUSAL,
    METHODS,
    WEIGHTED,
    Choice,
    cell,
    choose,
    hyperparameters,
    weighted,
)
from causal_sgd.studies.supervised._unit_tests_added import GAMMA, searched, squares

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ENVIRONMENTS = np.arange(2, 11)
SPURIOUS = 5  # d_e
STEPS = 10_000
TRAINED = (*METHODS[:-1], *WEIGHTED[1:])  # all but the oracle
BANDS = ("IRMv1", "ANDMask")
SWITCH = np.array([0.0, 1.0])
SQUARES = {  # example -> environments, and step sizes of HeteroSGD
    "Example1": (3, np.array([0.01, 0.03, 0.1])),
    "Example2": (3, np.array([0.1, 0.3, 1.0])),
    "Example3": (10, np.array([0.1, 0.3, 1.0])),
}
SCALES = np.array([0.1, 1.5, 2.0])
AGREEMENTS = np.array([0.95, 0.97, 0.99])
COWS = np.array([0.3, 0.5, 0.7])
SMALLEST = 0.012673659338734126  # Phi(-sqrt 5), the error of the margin from the invariant inputs
CLAIMS = {
    "oracle_regression": Claim(
        "Example1: error of Oracle over 5 mean e^2", 0.985, 1.015, "variance of the residual, exact"
    ),
    "oracle_margin": Claim(
        "Example3, E = 3: error of Oracle over Phi(-sqrt 5)", 0.92, 1.08, "Bayes error, exact"
    ),
    "background": Claim(
        "Example2: error of a classifier that sees the background alone, less its law",
        -0.002,
        0.002,
        "law of the groups, exact",
    ),
    "needed": Claim(
        "Example3: least E at which the median error of IRMv1 is below half of that at E = 2",
        SPURIOUS,
        SPURIOUS + 3,
        "the certificate exists if and only if E <= d_e = 5",
    ),
    "coordinates": Claim(
        "Example1: change of the error of ANDMask by a rotation, in standard errors",
        3.0,
        np.inf,
        "its mask is one of coordinates",
    ),
    "equivariance": Claim(
        "Example1: largest relative change of an error of V-REx or GroupDRO by a rotation",
        -np.inf,
        1e-4,
        "gradient descent from zero is equivariant under rotations",
    ),
    "eills": Claim.finding("Example1: error of EILLS over that of Oracle"),
    "eills_rotated": Claim.finding("Example1s: error of EILLS over that of Oracle"),
    "erm": Claim.finding("Example1: error of ERM over that of Oracle"),
    "vrex": Claim.finding("Example1: error of V-REx over that of Oracle"),
    "group_dro": Claim.finding("Example1: error of GroupDRO over that of Oracle"),
    "hetero": Claim.finding(
        "Example1: least error of HeteroSGD at any step size over that of Oracle"
    ),
    "squares": Claim.finding(
        "Example1: the same of all environments at once, with the same weights"
    ),
    "hetero_spurious": Claim.finding(
        "Example1: spurious weights of HeteroSGD over those of all environments at once, the least "
        "over step sizes and data seeds"
    ),
    "hetero_cows": Claim.finding("Example2: least error of HeteroSGD at any step size"),
    "squares_cows": Claim.finding(
        "Example2: the same of all environments at once, with the same weights"
    ),
    "hetero_margin": Claim.finding(
        "Example3, E = 10: median error of HeteroSGD, the least at any step size"
    ),
    "squares_margin": Claim.finding(
        "Example3, E = 10: the same of all environments at once, with the same weights"
    ),
    "erm_background": Claim.finding("Example2: error of ERM less the same law"),
    "vrex_background": Claim.finding("Example2: error of V-REx less the same law"),
    "group_dro_background": Claim.finding("Example2: error of GroupDRO less the same law"),
    "erm_needed": Claim.finding("Example3: the same least E of ERM"),
    "andmask_many": Claim.finding("Example3, E = 10: median error of ANDMask"),
    "irmv1_many": Claim.finding("Example3, E = 10: median error of IRMv1"),
    "vrex_many": Claim.finding("Example3, E = 10: median error of V-REx"),
    "group_dro_many": Claim.finding("Example3, E = 10: median error of GroupDRO"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """10,000 steps of ten data seeds (300 of two when quick): the methods on the third example with
    2 to 10 environments at the first two hyperparameters of the source, and some on the others at
    three (two). HeteroSGD trains the weights u^2 - v^2 in one environment a step, at three
    step sizes, beside gradient descent in all environments at once.
    """
    from causal_sgd.sweeps import sweep

    seeds, hyper, steps = (2, 2, 300) if quick else (10, 3, STEPS)
    options: Options = {"key": key, "progress": progress}
    trained = functools.partial(_trained, seeds=seeds, hyper=hyper, steps=steps, options=options)
    found = {
        "margin": trained("Example3", TRAINED, hyper=2, environments=ENVIRONMENTS.astype(float)),
        "margin_oracle": trained("Example3", ("Oracle",)),
        "regression": trained("Example1", ("ANDMask", "Oracle", *WEIGHTED), scramble=SWITCH),
        "cows": trained("Example2", WEIGHTED, scramble=SWITCH),
        "sets": sweep(
            searched,
            axes={"gamma": np.array([GAMMA]), "scramble": SWITCH},
            seeds=seeds,
            label="Example1, EILLS",
            **options,
        ),
    }
    for example, (environments, rates) in SQUARES.items():
        found[f"squares_{example}"] = sweep(
            functools.partial(squares, example=example, steps=steps, environments=environments),
            axes={"rate": rates, "hetero": SWITCH},
            seeds=seeds,
            label=f"{example}, HeteroSGD",
            **options,
        ).isel(step=[-1])
    return found


def _trained(
    example: str,
    methods: tuple[str, ...],
    *,
    seeds: int,
    hyper: int,
    steps: int,
    options: Options,
    **axes: np.ndarray,
) -> xr.Dataset:
    """The last frames of methods with programs of their own, and of `WEIGHTED`, which share one."""
    import xarray as xr

    from causal_sgd.sweeps import sweep, zipped

    most = int(np.max(axes.get("environments", 3)))

    def swept(method: str, numbers: Mapping[str, np.ndarray]) -> xr.Dataset:
        data = sweep(
            functools.partial(
                cell, example=example, method=method, steps=steps, most_environments=most
            ),
            axes={**axes, "hyper": zipped(**numbers)},
            seeds=seeds,
            label=f"{example}, {method}",
            **options,
        )
        return data.isel(step=-1).reset_coords(drop=True)

    alone = [method for method in methods if method not in WEIGHTED]
    parts = {method: swept(method, hyperparameters(method, hyper)) for method in alone}
    if len(alone) < len(methods):
        every = swept("weighted", weighted(hyper))
        for place, method in enumerate(WEIGHTED):
            parts[method] = every.isel(hyper=slice(place * hyper, (place + 1) * hyper))
    named = [parts[method].expand_dims(variant=[method]) for method in methods]
    return xr.concat(named, "variant")


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Errors of the oracle beside exact ones, the number of environments that IRMv1 needs, and what
    rotations change.
    """
    medians = {method: _of_environments(data, method)[1] for method in TRAINED}
    plain, turned = (_chosen(data["regression"], "ANDMask", scramble) for scramble in (0, 1))
    change = turned.errors - plain.errors
    error = change.std(ddof=1) / np.sqrt(len(change))
    oracle = float(_chosen(data["regression"], "Oracle", 0).errors.mean())
    margin = float(choose(data["margin_oracle"].isel(variant=0)).errors.mean())
    over, background = (
        {name: float(_chosen(data[example], name, 0).errors.mean()) for name in WEIGHTED}
        for example in ("regression", "cows")
    )
    sets = data["sets"].error.isel(step=-1, gamma=0).mean("seed").values / oracle
    return {
        "oracle_regression": oracle / (DIM_CAUSAL * float(np.mean(SCALES**2))),
        "oracle_margin": margin / SMALLEST,
        "background": _sees_background() - _background(),
        "needed": _needed(medians["IRMv1"]),
        "coordinates": float(abs(change.mean()) / error),
        "equivariance": _equivariance(data["regression"]),
        "eills": sets[0],
        "eills_rotated": sets[1],
        "erm": over["ERM"] / oracle,
        "vrex": over["V-REx"] / oracle,
        "group_dro": over["GroupDRO"] / oracle,
        "erm_background": background["ERM"] - _background(),
        "vrex_background": background["V-REx"] - _background(),
        "group_dro_background": background["GroupDRO"] - _background(),
        "erm_needed": _needed(medians["ERM"]),
        "andmask_many": medians["ANDMask"][-1],
        "irmv1_many": medians["IRMv1"][-1],
        "vrex_many": medians["V-REx"][-1],
        "group_dro_many": medians["GroupDRO"][-1],
        **_of_squares(data, oracle),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Mean and median errors over the data seeds on the third example."""
    numbers = {}
    for method in TRAINED:
        numbers[f"{method}_mean"], numbers[f"{method}_median"], _, _ = _of_environments(
            data, method
        )
    return {"errors of the third example": points({"environments": ENVIRONMENTS}, numbers)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Error on the third example against the number of environments: medians over the data seeds,
    with bands from the 10 % to the 90 % quantile for IRMv1 and ANDMask, at the hyperparameters
    that held-out data choose.
    The dotted line is E = d_e, up to which IRMv1 has a better predictor than the invariant one, and
    the dashed line the error of Oracle at E = 3.
    """
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    for method in TRAINED:
        _, median, low, high = _of_environments(data, method)
        (line,) = ax.plot(ENVIRONMENTS, median, "o-", ms=3.5, label=method)
        if method in BANDS:
            ax.fill_between(ENVIRONMENTS, low, high, color=line.get_color(), alpha=0.12, lw=0)
    smallest = float(np.median(choose(data["margin_oracle"].isel(variant=0)).errors))
    ax.axhline(smallest, color="0.3", ls="--", lw=1, label="Oracle")
    ax.axvline(SPURIOUS, color="0.4", ls=":", lw=1)
    ax.annotate(
        "E = d$_e$", (SPURIOUS, 0.03), xytext=(4, 0), textcoords="offset points", color="0.3"
    )
    ax.set(xlabel="number of environments E", ylabel="test error, Example3", ylim=(0, 0.6))
    ax.set_xticks(ENVIRONMENTS)
    ax.legend(ncols=2, loc="upper right")
    return fig


def _equivariance(regression: xr.Dataset) -> float:
    """The largest relative change by a rotation; infinite if it makes a run diverge, or none."""
    errors = regression.error.sel(variant=list(WEIGHTED[1:])).transpose("scramble", ...).values
    plain, turned = errors.reshape(2, -1)
    finite = np.isfinite(plain)
    if (finite != np.isfinite(turned)).any() or not finite.any():
        return np.inf
    return float(np.max(np.abs(turned / plain - 1)[finite]))


def _of_squares(data: Mapping[str, xr.Dataset], oracle: float) -> dict[str, float]:
    """Errors with the weights u^2 - v^2, at the step size where they are least in the test."""
    least = {}
    for example, average in (("Example1", np.mean), ("Example2", np.mean), ("Example3", np.median)):
        runs = data[f"squares_{example}"].error.isel(step=-1).transpose("hetero", "rate", "seed")
        values = np.where(np.isfinite(runs.values), runs.values, np.inf)
        least[example] = average(values, -1).min(-1)
    spurious = data["squares_Example1"].spurious.isel(step=-1).transpose("hetero", ...).values
    return {
        "hetero": least["Example1"][1] / oracle,
        "squares": least["Example1"][0] / oracle,
        "hetero_spurious": float(np.nanmin(spurious[1] / spurious[0])),
        "hetero_cows": least["Example2"][1],
        "squares_cows": least["Example2"][0],
        "hetero_margin": least["Example3"][1],
        "squares_margin": least["Example3"][0],
    }


def _needed(medians: np.ndarray) -> float:
    """The least E at which the error is below half of that at E = 2; infinite for none."""
    few = np.flatnonzero(medians < medians[0] / 2)
    return float(ENVIRONMENTS[few[0]]) if len(few) else np.inf


def _chosen(data: xr.Dataset, method: str, scramble: int) -> Choice:
    return choose(data.sel(variant=method).isel(scramble=scramble))


def _of_environments(data: Mapping[str, xr.Dataset], method: str) -> tuple[np.ndarray, ...]:
    """Mean, median, and 10 % and 90 % quantile of the errors at each number of environments."""
    of_method = data["margin"].sel(variant=method)
    errors = np.array(
        [choose(of_method.isel(environments=place)).errors for place in range(len(ENVIRONMENTS))]
    )
    return errors.mean(1), *np.quantile(errors, [0.5, 0.1, 0.9], axis=1)


def _sees_background() -> float:
    """The error of the sum of the spurious inputs in the environments of the test."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import worlds

    world = worlds.unit_test_cows(dim_spurious=SPURIOUS)(jax.random.key(0))
    assert isinstance(world, worlds.MixtureWorld)
    weights = jnp.concatenate([jnp.zeros(DIM_CAUSAL), jnp.ones(SPURIOUS)])
    return float(jnp.mean(world.test_error_rates(weights)))


def _background() -> float:
    """The error of a classifier that sees the background alone, in the test."""
    agree = AGREEMENTS * COWS + (1 - AGREEMENTS) * (1 - COWS)
    return float(np.mean(COWS * (1 - agree) + (1 - COWS) * agree))

"""The invariance unit tests, and how many environments their methods need.

Aubin et al. (2021) train ERM, IRMv1, ANDMask and IGA on six examples, beside an oracle that trains
on the test. Here every run trains on the population, by exact moments or quadrature, with the first
hyperparameters of the source; `benchmarks/unit_tests.py` has all of them and more seeds.

In the third example the median error of IRMv1 falls by half only once there are more environments
than spurious inputs, d_e: up to E = d_e another predictor satisfies its constraint and has a lower
risk. But ERM and IGA fall at the same place, so that the test does not tell them apart; ANDMask
needs fewer environments, and its error stays at that of the oracle.
ANDMask depends on the coordinates, and a rotation of the inputs ruins it. In the second example the
background alone has a known error, and ERM does slightly better after 10,000 steps.
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
    Choice,
    cell,
    choose,
    hyperparameters,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

ENVIRONMENTS = np.arange(2, 11)
SPURIOUS = 5  # d_e
STEPS = 10_000
OTHERS = {"regression": ("Example1", ("ANDMask", "Oracle")), "cows": ("Example2", ("ERM",))}
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
    "erm_background": Claim.finding("Example2: error of ERM less the same law"),
    "erm_needed": Claim.finding("Example3: the same least E of ERM"),
    "andmask_many": Claim.finding("Example3, E = 10: median error of ANDMask"),
    "irmv1_many": Claim.finding("Example3, E = 10: median error of IRMv1"),
}


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """10,000 steps of ten data seeds at the first four hyperparameters of the source (300 steps of
    two seeds at two when quick): all methods on the third example with 2 to 10 environments, and
    some on the others.
    """
    seeds, hyper, steps = (2, 2, 300) if quick else (10, 4, STEPS)
    options: Options = {"key": key, "progress": progress}

    def swept(example: str, method: str, **axes: np.ndarray) -> xr.Dataset:
        from causal_sgd.sweeps import sweep, zipped

        most = int(np.max(axes.get("environments", 3)))
        data = sweep(
            functools.partial(
                cell, example=example, method=method, steps=steps, most_environments=most
            ),
            axes={**axes, "hyper": zipped(**hyperparameters(method, hyper))},
            seeds=seeds,
            label=f"{example}, {method}",
            **options,
        )
        return data.isel(step=-1).expand_dims(variant=[method]).reset_coords(drop=True)

    def joined(example: str, methods: tuple[str, ...], **axes: np.ndarray) -> xr.Dataset:
        import xarray as xr

        return xr.concat([swept(example, method, **axes) for method in methods], "variant")

    return {
        "margin": joined("Example3", METHODS, environments=ENVIRONMENTS.astype(float)),
        **{
            name: joined(example, methods, scramble=np.array([0.0, 1.0]))
            for name, (example, methods) in OTHERS.items()
        },
    }


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """Errors of the oracle beside exact ones, and the number of environments that IRMv1 needs."""
    medians = {method: _of_environments(data, method)[1] for method in METHODS}
    plain, turned = (_chosen(data["regression"], "ANDMask", scramble) for scramble in (0, 1))
    change = turned.errors - plain.errors
    error = change.std(ddof=1) / np.sqrt(len(change))
    oracle = _chosen(data["regression"], "Oracle", 0).errors.mean()
    margin = _of_environments(data, "Oracle")[0][ENVIRONMENTS == 3][0]
    return {
        "oracle_regression": float(oracle / (DIM_CAUSAL * np.mean(SCALES**2))),
        "oracle_margin": float(margin / SMALLEST),
        "background": _sees_background() - _background(),
        "erm_background": float(_chosen(data["cows"], "ERM", 0).errors.mean() - _background()),
        "needed": _needed(medians["IRMv1"]),
        "erm_needed": _needed(medians["ERM"]),
        "coordinates": float(abs(change.mean()) / error),
        "andmask_many": float(medians["ANDMask"][-1]),
        "irmv1_many": float(medians["IRMv1"][-1]),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Mean and median errors over the data seeds on the third example."""
    numbers = {}
    for method in METHODS:
        numbers[f"{method}_mean"], numbers[f"{method}_median"], _, _ = _of_environments(
            data, method
        )
    return {"errors of the third example": points({"environments": ENVIRONMENTS}, numbers)}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Error on the third example against the number of environments: medians over the data seeds,
    with bands from the 10 % to the 90 % quantile, at the hyperparameters that held-out data choose.
    The dotted line is E = d_e, up to which IRMv1 has a better predictor than the invariant one.
    """
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(5.2, 3.6))
    for method in METHODS:
        _, median, low, high = _of_environments(data, method)
        (line,) = ax.plot(ENVIRONMENTS, median, "o-", ms=3.5, label=method)
        ax.fill_between(ENVIRONMENTS, low, high, color=line.get_color(), alpha=0.12, lw=0)
    ax.axvline(SPURIOUS, color="0.4", ls=":", lw=1)
    ax.annotate(
        "E = d$_e$", (SPURIOUS, 0.02), xytext=(4, 0), textcoords="offset points", color="0.3"
    )
    ax.set(xlabel="number of environments E", ylabel="test error, Example3", ylim=(0, 0.6))
    ax.set_xticks(ENVIRONMENTS)
    ax.legend(ncols=2, loc="upper right")
    return fig


def _needed(medians: np.ndarray) -> float:
    """The least E at which the error is below half of that at E = 2; NaN for none."""
    few = np.flatnonzero(medians < medians[0] / 2)
    return float(ENVIRONMENTS[few[0]]) if len(few) else np.nan


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

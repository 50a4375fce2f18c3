"""With enough data every method arrives, but only some arrive at the invariant predictor.

Moments of n examples are drawn by their exact law, so one program runs from n = 10^2 to 10^9 at the
cost of one. The squared error of consistent methods falls like 1/n: least squares on the causes,
EILLS and FAIR beyond their thresholds. That of the others stops at the bias of their population
solution: pooled least squares and anchor regression wherever the spurious part is predictive, and
V-REx and IRMv1 at a finite weight. ICP finds all causes of the chain in all but the share of the
data sets that its level allows, at any n. In the chain the label has the same noise everywhere.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies import Claim
from causal_sgd.studies._cells import Options
from causal_sgd.studies._tables import points
from causal_sgd.studies.supervised._fits import joined

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from causal_sgd.types import Array, Estimator, Key, Metric, Objective, Snapshot, Trace

COUNTS = 10 ** np.arange(2, 10)
LARGE = COUNTS >= 10**4  # where slopes are fitted
MEAN, SPREAD = 0.5, 0.3  # of the contradiction world, whose biases keep their sign
GAMMA = 20.0  # beyond all thresholds, which lie below 6
WEIGHTS = {"V-REx": 100.0, "IRMv1": 40.0}
CONSISTENT = {
    "contradiction": ("oracle", "EILLS", "FAIR"),
    "chain": ("oracle", "EILLS", "FAIR"),
    "sem": ("oracle",),
}
BIASED = {
    "contradiction": ("pooled", "anchor"),
    "chain": ("pooled", "anchor"),
    "sem": ("pooled", "anchor"),
}
METHODS = ("oracle", "EILLS", "FAIR", "pooled", "anchor", "V-REx", "IRMv1")
CLAIMS = (
    {
        f"slope_{world}": Claim(
            f"{world}: exponent of n in the mean error of {', '.join(names)}, n from 10^4 to "
            "10^9: farthest from -1",
            -1.05,
            -0.95,
            "consistency: errors fall like 1/n",
        )
        for world, names in CONSISTENT.items()
    }
    | {
        f"plateau_{world}": Claim(
            f"{world}: error of {' and '.join(names)} at n = 10^9 over that of the population: "
            "farthest from 1",
            0.99,
            1.01,
            "the population's solution",
        )
        for world, names in BIASED.items()
    }
    | {
        name.lower().replace("-", ""): Claim(
            f"contradiction: error of {name} with weight {weight:g} at n = 10^9 over that of its "
            "formula",
            0.99,
            1.01,
            "minimum in the contradiction world",
        )
        for name, weight in WEIGHTS.items()
    }
    | {
        # Three standard errors of 256 data sets below 1 - 0.05.
        "icp": Claim(
            "chain: share of data sets of 10^9 in which ICP selects all causes",
            0.909,
            1,
            "level 0.05 and power 1",
        ),
        "icp_few": Claim.finding("chain: share of data sets of 100 in which ICP selects no cause"),
        "crossing": Claim.finding(
            "contradiction: examples at which the mean error of EILLS falls below that of V-REx"
        ),
    }
)


def run(
    *, quick: bool = False, key: int = 0, progress: bool | None = None
) -> dict[str, xr.Dataset]:
    """All estimators on the same draws of 256 seeds (64 when quick) in each world, and V-REx and
    IRMv1 in the contradiction world.
    """
    from causal_sgd.sweeps import compare, sweep

    options: Options = {"key": key, "progress": progress}
    axes, seeds = {"num_examples": COUNTS}, 64 if quick else 256
    data = {
        world: sweep(functools.partial(_fits, name=world), axes=axes, seeds=seeds, **options)
        for world in CONSISTENT
    }
    trained = {name: functools.partial(_trained, name=name) for name in WEIGHTS}
    data["trained"] = compare(trained, axes=axes, seeds=seeds // 4, **options)
    return data


def measure(data: Mapping[str, xr.Dataset]) -> dict[str, float]:
    """The slopes of consistent methods, and the errors of biased ones over their limits."""
    measured = {}
    for world, names in CONSISTENT.items():
        slopes = np.array([_slope(data, world, name) for name in names])
        measured[f"slope_{world}"] = float(slopes[np.argmax(np.abs(slopes + 1))])
    for world, names in BIASED.items():
        last = data[world].isel(step=-1, num_examples=-1)
        ratios = [
            float(last[f"error {name}"].mean() / last[f"limit {name}"].mean()) for name in names
        ]
        measured[f"plateau_{world}"] = ratios[int(np.argmax(np.abs(np.array(ratios) - 1)))]
    for name in WEIGHTS:
        error = data["trained"].estimation_error.sel(variant=name).isel(step=-1, num_examples=-1)
        measured[name.lower().replace("-", "")] = float(error.mean()) / _formula(name)
    selected = data["chain"]["icp_causes"].isel(step=-1)
    eills = _errors(data, "contradiction", "EILLS")
    return measured | {
        "icp": float((selected.isel(num_examples=-1) == 5).mean()),
        "icp_few": float((selected.isel(num_examples=0) == 0).mean()),
        "crossing": float(np.exp(np.interp(-np.log(_formula("V-REx")), -np.log(eills), _logs()))),
    }


def table(data: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """The errors that the formulas give at large n."""
    rows = [
        (world, name, float(data[world][f"limit {name}"].isel(step=-1, num_examples=-1).mean()))
        for world, names in BIASED.items()
        for name in names
    ] + [("contradiction", name, _formula(name)) for name in WEIGHTS]
    worlds, methods, limits = (list(column) for column in zip(*rows, strict=True))
    return {"population": points({"world": worlds, "method": methods}, {"limit": limits})}


def figure(data: Mapping[str, xr.Dataset]) -> Figure:
    """Mean squared errors against the examples of each environment in three worlds; dotted lines
    are the populations' solutions, and the grey line falls like 1/n.
    """
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.5), layout="constrained", sharey=True)
    for ax, world in zip(axes, CONSISTENT, strict=True):
        _draw(ax, data, world)
    axes[0].set_ylabel("mean squared error")
    handles = {
        label: line
        for ax in axes
        for line, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(list(handles.values()), list(handles), loc="outside right center", frameon=False)
    return fig


def _fits(key: Key, *, num_examples: int | Array, name: str) -> Trace:
    """All estimators on one draw."""
    from causal_sgd import training
    from causal_sgd.supervised import estimators, measurements

    intercept = name == "sem"
    fits: dict[str, Estimator] = {
        "oracle": estimators.oracle(intercept=intercept),
        "pooled": estimators.pooled(intercept=intercept),
        "anchor": estimators.anchor(10.0, intercept=intercept),
    }
    if name != "sem":
        fits |= {"EILLS": estimators.eills(GAMMA), "FAIR": estimators.fair(GAMMA)}
    watched: dict[str, Metric] = {f"error {label}": _error(label) for label in fits}
    watched |= {f"limit {label}": _limit(fits[label]) for label in BIASED[name]}
    if name == "chain":
        fits["ICP"] = estimators.icp()
        watched["icp_causes"] = _causes
    algorithm = training.algorithms.fitted(
        world=_world(name), measurement=measurements.moments(num_examples), estimator=joined(fits)
    )
    return training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)


def _world(name: str) -> Callable:
    from causal_sgd.supervised import worlds

    if name == "contradiction":
        return worlds.contradiction(mean=MEAN, spread=SPREAD)
    return worlds.chain(hetero=False) if name == "chain" else worlds.sem()


def _error(name: str) -> Metric:
    """|w - w*|^2 of an estimator on the run's data."""
    import jax.numpy as jnp

    def error(snapshot: Snapshot) -> Array:
        return jnp.sum((snapshot.params.named[name].estimate - snapshot.world.target) ** 2)

    return error


def _limit(estimator: Estimator) -> Metric:
    """|w - w*|^2 of an estimator on the population."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised import measurements

    def limit(snapshot: Snapshot) -> Array:
        world = snapshot.world
        data = measurements.moments().init(jax.random.key(0), world)
        return jnp.sum((estimator(data, world).estimate - world.target) ** 2)

    return limit


def _causes(snapshot: Snapshot) -> Array:
    """The number of causal inputs that ICP selects."""
    import jax.numpy as jnp

    return jnp.sum(snapshot.params.named["ICP"].support & snapshot.world.causal).astype(float)


def _trained(key: Key, *, num_examples: int | Array, name: str) -> Trace:
    """Full-batch training from pooled least squares in the contradiction world."""
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, metrics, models

    objectives = training.objectives
    made: dict[str, Callable[..., Objective]] = {
        "V-REx": objectives.vrex,
        "IRMv1": objectives.irmv1,
    }
    start = {"weights": jnp.array([1.0, MEAN / 4])}
    algorithm = training.algorithms.penalised(
        world=_world("contradiction"),
        sampler=training.samplers.stratified(batch_size=2),
        measurement=measurements.moments(num_examples),
        model=dataclasses.replace(models.linear(dim=2), init=lambda _: start),
        objective=made[name](weight=WEIGHTS[name]),
        optimizer=optax.sgd(0.03),
    )
    return training.run(
        key, algorithm=algorithm, metrics=[metrics.estimation_error], num_steps=2000
    )


def _formula(name: str) -> float:
    """The squared error of the population's solution in the contradiction world."""
    from causal_sgd.theory.invariance import contradiction

    formula = {"V-REx": contradiction.vrex, "IRMv1": contradiction.irmv1}[name]
    invariant, spurious = map(float, formula(MEAN, SPREAD, weight=WEIGHTS[name]))
    return (invariant - 1) ** 2 + spurious**2


def _errors(data: Mapping[str, xr.Dataset], world: str, name: str) -> np.ndarray:
    return data[world][f"error {name}"].isel(step=-1).mean("seed").values


def _logs() -> np.ndarray:
    return np.log(COUNTS)


def _slope(data: Mapping[str, xr.Dataset], world: str, name: str) -> float:
    return float(np.polyfit(_logs()[LARGE], np.log(_errors(data, world, name)[LARGE]), 1)[0])


def _draw(ax: Axes, data: Mapping[str, xr.Dataset], world: str) -> None:
    colors = {name: index for index, name in enumerate(METHODS)}
    for name in (*CONSISTENT[world], *BIASED[world]):
        color = f"C{colors[name]}"
        line = "-" if name in CONSISTENT[world] else "--"
        width = 4 if name in ("oracle", "pooled") else 1.5  # others may lie upon them
        ax.plot(COUNTS, _errors(data, world, name), line, color=color, lw=width, label=name)
        if name in BIASED[world]:
            limit = data[world][f"limit {name}"].isel(step=-1, num_examples=-1).mean()
            ax.axhline(float(limit), color=color, ls=":", lw=1)
    if world == "contradiction":
        for name in WEIGHTS:
            errors = data["trained"].estimation_error.sel(variant=name).isel(step=-1).mean("seed")
            ax.plot(COUNTS, errors, "--", color=f"C{colors[name]}", label=name)
            ax.axhline(_formula(name), color=f"C{colors[name]}", ls=":", lw=1)
    ax.plot(COUNTS, 30 / COUNTS, color="0.6", lw=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("examples of each environment")
    ax.set_title(world)

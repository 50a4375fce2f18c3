"""The methods of the study `contradiction` as cells of sweeps, on the same draws."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from causal_sgd.studies.supervised._fits import joined

if TYPE_CHECKING:
    import optax
    import xarray as xr
    from jax.typing import ArrayLike

    from causal_sgd.studies._cells import Cell
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Estimator, Key, Objective, Snapshot, Trace

__all__ = [
    "EILLS",
    "FAIR",
    "FISHR",
    "PENALTY",
    "VARIANCE",
    "apart",
    "fitted",
    "hetero",
    "together",
    "trained",
]

VARIANCE = 4.0  # V of the spurious input
PENALTY = 400.0  # of V-REx and IRMv1; 100 on the scale of their sources
FISHR = 100.0
IGA = 4.0  # 1 on the scale of its source; larger ones would amplify the noise of the data sets
EILLS, FAIR = 20.0, 36.0  # gamma of the sources
ESTIMATORS = ("ERM", "anchor", "Dantzig", "EILLS", "FAIR", "ICP")
OBJECTIVES = ("V-REx", "IRMv1", "Fishr", "GroupDRO", "ANDMask", "IGA", "CORAL")
MODELS = ("u^2", "u^2 - v^2", "linear", "two layers")
STEPS = 4000
BETWEEN = ": "
WARM = 400  # steps before the penalty of IRMv1


def fitted() -> Cell:
    """Estimators in closed form on one data set; see `apart`.

    The cell takes mean, spread, examples, and a factor of the weights of EILLS and FAIR.
    """
    return _fitted


def trained() -> Cell:
    """Descent along objectives of both environments, on the same data set.

    The cell takes mean, spread, examples and angle.
    """
    import optax

    from causal_sgd.training import objectives

    settling = optax.adam(optax.cosine_decay_schedule(0.02, STEPS))
    # From zero the full penalty would keep the weights of IRMv1 near zero, where it vanishes, too.
    irmv1 = objectives.annealed(objectives.irmv1, start=WARM, before=0.0, after=PENALTY)
    named: dict[str, tuple[Callable[[Array], Objective], optax.GradientTransformation]] = {
        "V-REx": (lambda spread: objectives.vrex(weight=PENALTY), settling),
        "IRMv1": (lambda spread: irmv1, settling),
        "Fishr": (lambda spread: objectives.fishr(weight=FISHR, decay=0.0), settling),
        # The risks differ in proportion to the spread, so that the weights turn at one speed.
        "GroupDRO": (lambda spread: objectives.group_dro(rate=0.5 / spread), optax.sgd(0.1)),
        # A step may pass the point from which the signs disagree by its own length.
        "ANDMask": (lambda spread: objectives.andmask(threshold=1.0), optax.sgd(0.005)),
        "IGA": (lambda spread: objectives.iga(weight=IGA), settling),
        "CORAL": (lambda spread: objectives.coral(weight=1.0), settling),
    }
    return together(
        {
            name: functools.partial(_trained, objective=objective, optimizer=optimizer)
            for name, (objective, optimizer) in named.items()
        }
    )


def hetero(*, steps: int, every: int, after: float, only: Collection[str] = MODELS) -> Cell:
    """HeteroSGD on several models, with gradients of the population.

    The cell takes mean, spread, learning_rate and angle, and records means over the time after a
    share of the run.
    """
    from causal_sgd.supervised import models

    named = {
        "u^2": models.hadamard(dim=2),
        "u^2 - v^2": models.hadamard(dim=2, signed=True),
        "linear": models.linear(dim=2),
        "two layers": models.linear_network(dim=2, hidden=4, init_scale=0.3),
    }
    return together(
        {
            name: functools.partial(_hetero, model=model, steps=steps, every=every, after=after)
            for name, model in named.items()
            if name in only
        }
    )


def together(cells: Mapping[str, Cell]) -> Cell:
    """One cell that runs several from the same key, as one program; see `apart`."""

    def cell(key: Key, **numbers: ArrayLike) -> Trace:
        import jax.numpy as jnp

        from causal_sgd.types import Trace

        traces = {name: each(key, **numbers) for name, each in cells.items()}
        values: dict[str, Array] = {}
        for name, trace in traces.items():
            lost = jnp.broadcast_to(trace.diverged_at, trace.step.shape)
            own = {**trace.metrics, "diverged_at": lost}
            values |= {f"{name}{BETWEEN}{metric}": array for metric, array in own.items()}
        step = next(iter(traces.values())).step
        return Trace(step, values, jnp.full((), -1, jnp.int32))

    return cell


def apart(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset of a cell of `together` as that of `compare`, with the names along `variant`."""
    import xarray as xr

    named: dict[str, dict[str, xr.DataArray]] = {}
    for both, values in dataset.drop_vars("diverged_at").data_vars.items():
        name, _, metric = str(both).partition(BETWEEN)
        named.setdefault(name, {})[metric] = values
    parts = [
        xr.Dataset(values).assign(diverged_at=values["diverged_at"].isel(step=-1, drop=True))
        for values in named.values()
    ]
    stacked = xr.concat(parts, xr.Variable("variant", list(named)))
    return stacked.assign_attrs(dataset.attrs)


def invariant(snapshot: Snapshot) -> Array:
    """w1, the weight of the invariant input; []."""
    return _original(snapshot)[0]


def spurious(snapshot: Snapshot) -> Array:
    """w2, the weight of the spurious input; []."""
    return _original(snapshot)[1]


def squared_error(snapshot: Snapshot) -> Array:
    """|w - w*|^2; []."""
    from causal_sgd.supervised import metrics

    return metrics.estimation_error(snapshot)


WEIGHTS = {"invariant_weight": invariant, "spurious_weight": spurious}


def _original(snapshot: Snapshot) -> Array:
    from causal_sgd import linalg

    return linalg.product(snapshot.world.unscramble, snapshot.estimate[:, None])[:, 0]


def _world(mean: Array, spread: Array, angle: float | Array = 0.0) -> WorldFactory:
    from causal_sgd.supervised import worlds

    return worlds.contradiction(mean=mean, spread=spread, variance=VARIANCE, angle=angle)


def _fitted(key: Key, *, mean: Array, spread: Array, examples: Array, factor: Array) -> Trace:
    from causal_sgd.supervised import estimators, measurements
    from causal_sgd.training import algorithms, run

    named: dict[str, Estimator] = {
        "ERM": estimators.pooled(),
        "anchor": estimators.anchor(10.0),
        "Dantzig": estimators.causal_dantzig(),
        "EILLS": estimators.eills(EILLS * factor),
        "FAIR": estimators.fair(FAIR * factor),
        # The label has one distribution in all environments, so that the empty set is invariant.
        "ICP": estimators.icp(empty=False),
    }
    algorithm = algorithms.fitted(
        world=_world(mean, spread),
        measurement=measurements.moments(examples),
        estimator=joined(named),
    )
    metrics = {
        f"{name}{BETWEEN}{metric}": functools.partial(_number, name=name, number=number)
        for name in named
        for metric, number in FITS.items()
    }
    return run(key, algorithm=algorithm, metrics=metrics, num_steps=1)


def _number(snapshot: Snapshot, *, name: str, number: Callable[[Array], Array]) -> Array:
    return number(snapshot.params.named[name].estimate)


def _lost(weights: Array) -> Array:
    import jax.numpy as jnp

    return jnp.where(jnp.isfinite(weights).all(), -1, 1)


FITS: Mapping[str, Callable[[Array], Array]] = {
    "invariant_weight": operator.itemgetter(0),
    "spurious_weight": operator.itemgetter(1),
    "diverged_at": _lost,
}


def _trained(
    key: Key,
    *,
    mean: Array,
    spread: Array,
    examples: Array,
    angle: Array,
    objective: Callable[[Array], Objective],
    optimizer: optax.GradientTransformation,
) -> Trace:
    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import algorithms, run, samplers

    algorithm = algorithms.penalised(
        world=_world(mean, spread, angle),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.moments(examples),
        model=models.linear(dim=2),
        objective=objective(spread),
        optimizer=optimizer,
    )
    return run(key, algorithm=algorithm, metrics=WEIGHTS, num_steps=STEPS)


def _hetero(
    key: Key,
    *,
    mean: Array,
    spread: Array,
    learning_rate: Array,
    angle: Array,
    model: VectorModel,
    steps: int,
    every: int,
    after: float,
) -> Trace:
    import optax

    from causal_sgd.supervised import measurements
    from causal_sgd.training import run, samplers, sgd, time_average

    algorithm = sgd(
        world=_world(mean, spread, angle),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.moments(),
        model=model,
        optimizer=optax.sgd(learning_rate),
    )
    recorded = {**WEIGHTS, "estimation_error": squared_error}
    trace = run(key, algorithm=algorithm, metrics=recorded, num_steps=steps, record_every=every)
    return time_average(trace, after=after)

"""The methods of the study `chain-sem` as cells of sweeps, on the same draws."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from causal_sgd.studies.supervised._contradiction_methods import BETWEEN, together
from causal_sgd.studies.supervised._fits import joined

if TYPE_CHECKING:
    import optax

    from causal_sgd.studies._cells import Cell
    from causal_sgd.supervised._moments import MomentData
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import LinearWorld, SupervisedWorld
    from causal_sgd.types import Array, Estimator, Fit, Key, Objective, Snapshot, Trace

__all__ = ["ESTIMATORS", "PENALTY", "fitted", "hetero", "irm", "trained"]

PENALTY = 400.0  # of V-REx and IRMv1; 100 on the scale of their sources
EILLS = 20.0  # gamma of the source
ESTIMATORS = ("ERM", "ICP", "EILLS")
STEPS = 4000
WARM = 800  # steps before the penalty of IRMv1
RATE = 0.02
HETERO_STEPS = 8000
HETERO_RATE = 0.003


def fitted() -> Cell:
    """Estimators in closed form, and pooled least squares on the population; see `apart`.

    All cells take hidden, hetero and scramble (0 or 1) and examples.
    """
    return _fitted


def trained() -> Cell:
    """V-REx and IRMv1 by full batches of the same data."""
    import optax

    from causal_sgd.training import objectives

    settling = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    # From zero the full penalty would keep the weights of IRMv1 near zero, where it vanishes, too.
    named = {
        "IRMv1": objectives.annealed(objectives.irmv1, start=WARM, before=0.0, after=PENALTY),
        "V-REx": objectives.vrex(weight=PENALTY),
    }
    return together(
        {
            name: functools.partial(_trained, objective=objective, optimizer=settling)
            for name, objective in named.items()
        }
    )


def irm(key: Key, *, share: Array, **numbers: Array) -> Trace:
    """IRM with a head of ten numbers, at one share of the risk in the loss of its source."""
    import optax

    from causal_sgd.supervised import models
    from causal_sgd.training import objectives

    return _trained(
        key,
        **numbers,
        # A source's a R + b |D|^2 is 4 a R' + 16 b |D'|^2 in the losses of the house.
        objective=objectives.irm(weight=16 * (1 - share), risk_weight=4 * share),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.01, STEPS)),
        model=models.featurised(dim=10),
    )


def hetero(key: Key, **numbers: Array) -> Trace:
    """HeteroSGD with weights u^2, the mean over the second half of the run."""
    import optax

    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import run, samplers, sgd, time_average

    world, examples = _split(numbers)
    algorithm = sgd(
        world=world,
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.moments(examples),
        model=models.hadamard(dim=10, init_scale=0.3),
        optimizer=optax.sgd(HETERO_RATE),
    )
    trace = run(
        key, algorithm=algorithm, metrics=_errors(), num_steps=HETERO_STEPS, record_every=20
    )
    return time_average(trace, after=0.5)


def _split(numbers: Mapping[str, Array]) -> tuple[Callable[[Key], LinearWorld], Array]:
    switches = {name: value for name, value in numbers.items() if name != "examples"}
    return functools.partial(_world, **switches), numbers["examples"]


def _world(key: Key, *, hidden: Array, hetero: Array, scramble: Array) -> LinearWorld:
    """The chain of traced switches: one of four mixings, rotated by I if it is not scrambled."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.supervised.worlds import _placement, chain

    def one(hides: bool, differs: bool) -> LinearWorld:
        world = cast("LinearWorld", chain(hidden=hides, hetero=differs)(key))
        if hides:
            return world

        def padded(mixing: Array) -> Array:  # with noises without effect
            return jnp.pad(mixing, ((0, 0), (0, 0), (0, 5)))

        return world._replace(mixing=padded(world.mixing), test_mixing=padded(world.test_mixing))

    every = [one(*switches) for switches in itertools.product((False, True), repeat=2)]
    index = jnp.asarray(2 * hidden + hetero, int)
    world = jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *every)
    turn = chain(scramble=True)(key).unscramble
    return _placement.rotated(world, jnp.where(scramble, turn, world.unscramble))


def _fitted(key: Key, **numbers: Array) -> Trace:
    from causal_sgd.supervised import estimators, measurements
    from causal_sgd.training import algorithms, run

    named: dict[str, Estimator] = {
        "ERM": estimators.pooled(),
        "ICP": estimators.icp(),
        "EILLS": estimators.eills(EILLS, refit=True),
        "population": _population,
    }
    world, examples = _split(numbers)
    algorithm = algorithms.fitted(
        world=world, measurement=measurements.moments(examples), estimator=joined(named)
    )
    metrics = {
        f"{name}{BETWEEN}{metric}": functools.partial(_number, name=name, number=number)
        for name in named
        for metric, number in FITS.items()
    }
    return run(key, algorithm=algorithm, metrics=metrics, num_steps=1)


def _population(data: MomentData, world: SupervisedWorld) -> Fit:
    """Pooled least squares on the moments of the world."""
    import jax.numpy as jnp

    from causal_sgd import linalg
    from causal_sgd.types import Fit

    del data
    mean = jnp.mean(world.second_moments, 0)
    weights = linalg.solve(mean[:-2, :-2], mean[:-2, -2:-1])[:, 0]
    none = jnp.full_like(weights, jnp.nan)
    return Fit(weights, jnp.ones(len(weights), bool), none, none, jnp.full((), -1))


def _number(snapshot: Snapshot, *, name: str, number: Callable[[Snapshot, Fit], Array]) -> Array:
    return number(snapshot, snapshot.params.named[name])


def _error(snapshot: Snapshot, fit: Fit, *, causal: bool) -> Array:
    import jax.numpy as jnp

    from causal_sgd import linalg

    world = snapshot.world
    errors = linalg.product(world.unscramble, (fit.estimate - world.target)[:, None])[:, 0]
    chosen = world.causal == causal
    return jnp.sum(jnp.where(chosen, errors**2, 0)) / jnp.sum(chosen)


def _selected(snapshot: Snapshot, fit: Fit, *, causal: bool) -> Array:
    import jax.numpy as jnp

    return jnp.sum(fit.support & (snapshot.world.causal == causal)).astype(float)


def _lost(snapshot: Snapshot, fit: Fit) -> Array:
    import jax.numpy as jnp

    return jnp.where(jnp.isfinite(fit.estimate).all(), -1, 1)


FITS: Mapping[str, Callable[[Snapshot, Fit], Array]] = {
    "causal_error": functools.partial(_error, causal=True),
    "noncausal_error": functools.partial(_error, causal=False),
    "causal_selected": functools.partial(_selected, causal=True),
    "noncausal_selected": functools.partial(_selected, causal=False),
    "diverged_at": _lost,
}


def _trained(
    key: Key,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    model: VectorModel | None = None,
    **numbers: Array,
) -> Trace:
    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import algorithms, run, samplers

    world, examples = _split(numbers)
    algorithm = algorithms.penalised(
        world=world,
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.moments(examples),
        model=models.linear(dim=10) if model is None else model,
        objective=objective,
        optimizer=optimizer,
    )
    return run(key, algorithm=algorithm, metrics=_errors(), num_steps=STEPS)


def _errors() -> dict[str, Callable[[Snapshot], Array]]:
    from causal_sgd.supervised import metrics

    return {
        "causal_error": metrics.causal_error,
        "noncausal_error": metrics.noncausal_error,
        "test_risk": metrics.test_risk,
    }

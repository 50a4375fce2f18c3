"""Training on two bits under logistic loss, and on inferred environments, as cells of sweeps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from causal_sgd.studies.supervised._contradiction_methods import together

if TYPE_CHECKING:
    from causal_sgd.studies._cells import Cell
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import (
        Algorithm,
        Array,
        Key,
        Measured,
        Measurement,
        Metric,
        Objective,
        Params,
        Snapshot,
        State,
        Trace,
    )

__all__ = [
    "DIGITS",
    "FLIPS",
    "GRADED",
    "SHAPES",
    "WEIGHT",
    "graded",
    "inferred",
    "sampled",
]

FLIPS = {"invariant_flip": 0.25, "spurious_flips": (0.2, 0.1), "test_flips": (0.9,)}
DIGITS = ("causal bit", "ERM", "IRMv1", "V-REx", "BIRM", "EIIL", "HeteroSGD")
WEIGHT = 1e4  # of the penalties, as in the source of ZIN
PER_EXAMPLE = 1200.0  # deviation of BIRM's scales times all examples, as in its source
DRAWS = 10
STEPS, RATE = 3000, 0.2  # the minimum is in a narrow valley
SHAPES = ("squared", "logistic")
GRADED = 1000  # scales in a step of the sampled objective


def sampled() -> Cell:
    """All methods on the same data set; the cell takes examples and the weight of penalties."""
    cells: dict[str, Cell] = {
        name: functools.partial(_penalised, method=name)
        for name in ("causal bit", "ERM", "IRMv1", "V-REx", "BIRM")
    }
    return together({**cells, "EIIL": _eiil, "HeteroSGD": _hetero})


def inferred(half: int, start: int, *, known: bool) -> Cell:
    """ZIN, and IRMv1 on the true environments, in the logit world; the cell takes a weight.

    Args:
        half: examples of each environment, which are the halves of the time.
        start: updates without the penalty, and with it; both methods are those of least loss in
            the first part.
        known: whether IRMv1 is trained.
    """
    cells = {"ZIN": _zin, "IRMv1": _known} if known else {"ZIN": _zin}
    return together(
        {name: functools.partial(cell, half=half, start=start) for name, cell in cells.items()}
    )


def graded() -> Cell:
    """BIRM's penalty at given weights, sampled in 64 steps, for both losses.

    The cell takes the weights of the bits and the deviation.
    """
    return together({name: functools.partial(_graded, loss=name) for name in SHAPES})


def _digits() -> WorldFactory:
    from causal_sgd.supervised import worlds

    return worlds.two_bit(**FLIPS)


def _weights() -> dict[str, Metric]:
    from causal_sgd.supervised import metrics

    return {
        "first": lambda snapshot: snapshot.estimate[0],
        "second": lambda snapshot: snapshot.estimate[1],
        "error": metrics.test_error,
    }


def _penalised(
    key: Key,
    *,
    weight: float | Array,
    method: str,
    num_examples: int | Array,
) -> Trace:
    import optax

    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import algorithms, samplers

    algorithm = algorithms.penalised(
        world=_digits(),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.counts(num_examples=num_examples),
        model=_seeing(models.linear(dim=2), second=method != "causal bit"),
        objective=_objective(method, weight, num_examples),
        optimizer=optax.adam(optax.cosine_decay_schedule(RATE, STEPS, 1e-3)),
    )
    return _run(key, algorithm, _weights())


def _run(key: Key, algorithm: Algorithm, metrics: dict[str, Metric]) -> Trace:
    from causal_sgd.training import run

    return run(key, algorithm=algorithm, metrics=metrics, num_steps=STEPS)


def _seeing(model: VectorModel, *, second: bool) -> VectorModel:
    """The model, or one that does not see the second input."""
    import jax.numpy as jnp

    if second:
        return model
    return dataclasses.replace(
        model, estimate=lambda params: params["weights"] * (jnp.arange(2) == 0)
    )


def _objective(method: str, weight: float | Array, num_examples: int | Array) -> Objective:
    """The mean loss with a penalty that rises from 1 to its weight in the middle half of a run.

    Both weights are divided by their sum, so that the steps do not grow.
    """
    from causal_sgd.training import objectives

    if method in ("causal bit", "ERM"):
        return objectives.mean()
    deviation = PER_EXAMPLE / (2 * num_examples)
    makers: dict[str, Callable[..., Objective]] = {
        "IRMv1": objectives.irmv1,
        "V-REx": objectives.vrex,
        "BIRM": functools.partial(objectives.birm, deviation=deviation, draws=DRAWS),
    }
    make = makers[method]

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        now = weight ** ((step / STEPS - 0.2) / 0.5).clip(0, 1)
        objective = make(weight=now / (1 + now), risk_weight=1 / (1 + now))
        return objective.gradient(step, state, examples, params)

    return make(weight=1.0)._replace(gradient=gradient)


def _eiil(key: Key, *, weight: float | Array, num_examples: int | Array) -> Trace:
    import optax

    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import algorithms

    algorithm = algorithms.zin(
        world=_digits(),
        measurement=measurements.counts(num_examples=num_examples),
        model=models.linear(dim=2),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.02, STEPS, 1e-3)),
        split_optimizer=optax.adam(0.02),
        auxiliary="free",
        weight=weight,
        start=STEPS // 2,
    )
    return _run(key, algorithm, {**_weights(), "of_colour": _of_colour, "of_truth": _of_truth})


def _of_colour(snapshot: Snapshot) -> Array:
    """The share of examples that are split by whether the colour agrees with the label."""
    world = snapshot.world
    return _agreement(snapshot, (world.inputs[:, 1] == world.labels)[None])


def _of_truth(snapshot: Snapshot) -> Array:
    """The share of examples that are split by their environment."""
    import jax.numpy as jnp

    return _agreement(snapshot, (jnp.arange(2) == 0)[:, None])


def _agreement(snapshot: Snapshot, first: Array) -> Array:
    """The share of examples on whose sides two splits agree, up to a swap; [].

    Args:
        snapshot: of a run that infers environments.
        first: whether examples are on the first side of the other split, [E or 1, n or 1].
    """
    import jax.numpy as jnp

    measurement = snapshot.measurement
    assert measurement is not None
    assert measurement.risks is not None
    assert measurement.risks.each is not None
    assert snapshot.split is not None
    weights = measurement.risks.each(snapshot.data, snapshot.model, snapshot.world)[1]
    share = jnp.sum(weights * ((snapshot.split > 0.5) == first))
    return jnp.maximum(share, 1 - share)


def _hetero(key: Key, *, weight: float | Array, num_examples: int | Array) -> Trace:
    import optax

    from causal_sgd.supervised import measurements, models
    from causal_sgd.training import samplers, sgd

    del weight
    algorithm = sgd(
        world=_digits(),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.counts(num_examples=num_examples),
        model=models.hadamard(dim=2, signed=True, init_scale=0.1),
        optimizer=optax.sgd(0.3),
    )
    return _run(key, algorithm, _weights())


def _logit(half: int) -> tuple[WorldFactory, Measurement, VectorModel]:
    """The world of ZIN, rows of both halves of its time, and a linear model."""
    from causal_sgd.supervised import losses, measurements, models, worlds

    return (
        worlds.zin_logit(target="logistic"),
        measurements.examples(half, loss=losses.logistic, full=True),
        models.linear(dim=10, init="uniform"),
    )


def _zin(key: Key, *, weight: float | Array, half: int, start: int) -> Trace:
    """ZIN at five times the step sizes of its source, in a fifth of its steps at full size."""
    import optax

    from causal_sgd.supervised import metrics
    from causal_sgd.training import algorithms, run

    world, measurement, model = _logit(half)
    algorithm = algorithms.zin(
        world=world,
        measurement=measurement,
        model=model,
        optimizer=_adam(),
        split_optimizer=optax.adam(5e-3),
        weight=weight,
        start=start,
    )
    watched = {"errors": metrics.test_errors, "agreement": _of_truth}
    return run(key, algorithm=algorithm, metrics=watched, num_steps=2 * start, record_every=start)


def _known(key: Key, *, weight: float | Array, half: int, start: int) -> Trace:
    """IRMv1 on the true environments, with ZIN's objective of the true split."""
    from causal_sgd.supervised import metrics
    from causal_sgd.training import algorithms, objectives, run, samplers

    world, measurement, model = _logit(half)
    # ZIN's derivatives are those of sums over all examples, and its penalty is a sum.
    after = {"weight": weight / 2 / (1 + weight), "risk_weight": 1 / (1 + weight)}
    algorithm = algorithms.penalised(
        world=world,
        sampler=samplers.stratified(batch_size=2),
        measurement=measurement,
        model=model,
        objective=objectives.annealed(
            objectives.irmv1, start=start, before={"weight": 0.0, "risk_weight": 1.0}, after=after
        ),
        optimizer=_adam(),
    )
    watched = {"errors": metrics.test_errors}
    return run(key, algorithm=algorithm, metrics=watched, num_steps=2 * start, record_every=start)


def _adam():
    import optax

    return optax.chain(optax.add_decayed_weights(1e-3), optax.adam(0.025))


def _graded(
    key: Key, *, first: float | Array, second: float | Array, deviation: float | Array, loss: str
) -> Trace:
    """BIRM's penalty alone, of a model that stays; the mean over 64 steps."""
    import jax.numpy as jnp
    import optax

    from causal_sgd.supervised import losses, measurements, metrics, models
    from causal_sgd.training import algorithms, objectives, run, samplers, time_average

    def init(key: Key) -> Params:
        del key
        return {"weights": jnp.stack([jnp.asarray(first, float), jnp.asarray(second, float)])}

    algorithm = algorithms.penalised(
        world=_digits(),
        sampler=samplers.stratified(batch_size=2),
        measurement=measurements.counts(getattr(losses, loss)),
        model=dataclasses.replace(models.linear(dim=2), init=init),
        objective=objectives.birm(weight=1.0, risk_weight=0.0, deviation=deviation, draws=GRADED),
        optimizer=optax.sgd(0.0),
    )
    trace = run(
        key,
        algorithm=algorithm,
        metrics={"penalty": metrics.batch_loss},
        num_steps=64,
        record_every=1,
    )
    return time_average(trace, after=0)

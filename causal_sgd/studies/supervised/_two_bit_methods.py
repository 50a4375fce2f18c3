"""Training in the world of two bits, on the population and on samples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Measured, Metric, Objective, Params, State, Trace

__all__ = ["EQUAL", "GAMMA", "INVARIANT", "SLOW", "eills", "hetero", "path", "sampled", "world"]

# Starts: equal weights of the bits, the invariant predictor, and equal ones with a weight of the
# penalty that rises from 1.
EQUAL, INVARIANT, SLOW = range(3)
FIRST_WEIGHT, LAST_WEIGHT = 1e3, 1e6
GAMMA = 20.0
RATE = 0.3  # of HeteroSGD


def world(flip: float | Array, mean: float | Array, apart: float | Array) -> WorldFactory:
    import jax.numpy as jnp

    from causal_sgd.supervised import worlds

    flips = jnp.stack([jnp.asarray(mean - apart, float), jnp.asarray(mean + apart, float)])
    return worlds.two_bit(invariant_flip=flip, spurious_flips=flips)


def _weights() -> dict[str, Metric]:
    from causal_sgd.supervised import metrics

    return {
        "first": lambda snapshot: snapshot.estimate[0],
        "second": lambda snapshot: snapshot.estimate[1],
        "training_risk": metrics.training_risk,
    }


def path(
    key: Key,
    *,
    flip: float | Array,
    mean: float | Array,
    apart: float | Array,
    start: int | Array,
    method: str,
    num_examples: int | Array | None = None,
    steps: int,
) -> Trace:
    """Training while the weight of the penalty rises."""
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements

    algorithm = training.algorithms.penalised(
        world=world(flip, mean, apart),
        sampler=training.samplers.stratified(batch_size=2),
        measurement=measurements.moments(num_examples),
        model=_started(flip, start),
        objective=_rising(method, start, steps),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.01, steps, 1e-3)),
    )
    return training.run(
        key, algorithm=algorithm, metrics=_weights(), num_steps=steps, record_every=steps
    )


def sampled(
    key: Key, *, num_examples: int | Array, start: int | Array, **place: float | Array
) -> Trace:
    """IRMv1 on a data set."""
    return path(key, num_examples=num_examples, start=start, method="irmv1", steps=4000, **place)


def _started(flip: float | Array, start: int | Array) -> VectorModel:
    import jax.numpy as jnp

    from causal_sgd.supervised import models

    def init(key: Key) -> Params:
        del key
        invariant = jnp.stack([1 - 2 * jnp.asarray(flip, float), jnp.zeros(())])
        return {"weights": jnp.where(start == INVARIANT, invariant, 0.5).astype(invariant.dtype)}

    return dataclasses.replace(models.linear(dim=2), init=init)


def _rising(method: str, start: int | Array, steps: int) -> Objective:
    """An objective whose weight rises to 10^6 in the first 7 tenths of a run.

    Both weights are divided by their sum, so that the steps do not grow.
    """
    import jax.numpy as jnp

    from causal_sgd.training import objectives

    if method == "group_dro":
        return objectives.group_dro(rate=0.01)
    make = getattr(objectives, method)

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        first = jnp.where(start == SLOW, 1.0, FIRST_WEIGHT)
        weight = first * (LAST_WEIGHT / first) ** (step / (0.7 * steps)).clip(0, 1)
        objective = make(weight=weight / (1 + weight), risk_weight=1 / (1 + weight))
        return objective.gradient(step, state, examples, params)

    return make(weight=1.0)._replace(gradient=gradient)


def eills(key: Key, *, flip: float | Array, mean: float | Array, apart: float | Array) -> Trace:
    from causal_sgd import training
    from causal_sgd.supervised import estimators, measurements, metrics

    algorithm = training.algorithms.fitted(
        world=world(flip, mean, apart),
        measurement=measurements.moments(),
        estimator=estimators.eills(GAMMA),
    )
    return training.run(key, algorithm=algorithm, metrics=[metrics.exact_support], num_steps=1)


def hetero(key: Key, *, flip: float | Array, mean: float | Array, apart: float | Array) -> Trace:
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, models

    algorithm = training.sgd(
        world=world(flip, mean, apart),
        sampler=training.samplers.hetero(batch_size=1),
        measurement=measurements.moments(),
        model=models.hadamard(dim=2, init_scale=0.3),
        optimizer=optax.sgd(RATE),
    )
    return training.run(
        key, algorithm=algorithm, metrics=_weights(), num_steps=4000, record_every=40
    )

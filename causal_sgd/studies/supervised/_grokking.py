"""The cells of the study of grokking, and the times that its curves show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised._whole import whole

if TYPE_CHECKING:
    from causal_sgd.supervised.models import VectorModel
    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Measurement, Metric, Snapshot, Trace

DIM = 63
RATE = 0.5
ACCURACY, TOLERANCE = 0.95, 0.1
EXAMPLES = 70  # of the shared design, DIM / 0.9
STEPS, EVERY = 320, 2


def shared(key: Key, *, spread: float | Array, single: float | Array) -> Trace:
    """Two environments on one design; all of it in every step, or one environment's labels."""
    from causal_sgd.supervised import measurements, worlds

    centre, weights = _weights(spread)
    world = worlds.fixed_design(weights, num_examples=EXAMPLES, test_weights=centre)
    watched = {"training": _training, "test": _test, "accuracy": _accuracy}
    return _trained(key, world, measurements.moments(), single, watched)


def own(
    key: Key, *, num_examples: int | Array, spread: float | Array, single: float | Array
) -> Trace:
    """Two environments with examples of their own, so many each; at spread 0 they are one."""
    from causal_sgd.supervised import measurements, worlds

    centre, weights = _weights(spread)
    world = worlds.regression(weights, test_weights=centre)
    measurement = measurements.moments(num_examples)
    watched = {"training": _training, "test": _test}
    return _trained(key, world, measurement, single, watched)


def crossing(steps: np.ndarray, losses: np.ndarray, level: float) -> float:
    """The first time at which a curve [frames] is at a level, inf for never.

    The curve is taken for a power law between two frames.
    """
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return np.inf
    last = int(below[0])
    if not last or not steps[last - 1]:
        return float(steps[last])
    pair = slice(last - 1, last + 1)
    logs, (start, end) = np.log(losses[pair] / level), np.log(steps[pair])
    return float(np.exp(start + (end - start) * logs[0] / (logs[0] - logs[1])))


def at(steps: np.ndarray, losses: np.ndarray, time: float) -> float:
    """A curve [frames] at a time, by the logarithm of the loss."""
    return float(np.exp(np.interp(time, steps, np.log(losses))))


def law(steps: np.ndarray, design: str, number: int, spread: float, sampler: str) -> np.ndarray:
    """Both losses by the law, [2, steps]."""
    from causal_sgd.theory import linear_dynamics

    found = linear_dynamics.losses(
        steps, RATE, DIM / number, spread, dim=DIM, design=design, sampler=sampler
    )
    return np.array(found, float)


def _weights(spread: float | Array) -> tuple[Array, Array]:
    """The teacher's weights [1, p], zero, and those of both environments [2, p]."""
    import jax.numpy as jnp

    direction = jnp.full(DIM, DIM**-0.5)
    return jnp.zeros((1, DIM)), spread * jnp.stack([direction, -direction])


def _student() -> VectorModel:
    """Weights that start in a random direction at the distance 1 from the teacher's."""
    import jax.numpy as jnp

    from causal_sgd.supervised import models

    normal = models.linear(dim=DIM, init_scale=1.0)

    def start(key: Key) -> Mapping[str, Array]:
        weights = normal.init(key)["weights"]
        return {"weights": weights / jnp.linalg.norm(weights)}

    return dataclasses.replace(normal, init=start)


def _test(snapshot: Snapshot) -> Array:
    """The risk of new examples of the teacher; []."""
    return (snapshot.estimate**2).sum()


def _training(snapshot: Snapshot) -> Array:
    """The risk of the examples, averaged over environments; []."""
    return 4 * snapshot.risks(snapshot.params).mean()


def _accuracy(snapshot: Snapshot) -> Array:
    """The share of the examples of all environments with squared residuals within tolerance; []."""
    world = snapshot.world
    residuals = snapshot.model.predictions(snapshot.params, world.inputs)[None] - world.labels
    return (residuals**2 <= TOLERANCE).mean()


def _trained(
    key: Key,
    world: WorldFactory,
    measurement: Measurement,
    single: float | Array,
    watched: Mapping[str, Metric],
) -> Trace:
    import optax

    from causal_sgd import training

    algorithm = training.sgd(
        world=world,
        sampler=whole(single=single)._replace(checked=True),
        measurement=measurement,
        model=_student(),
        optimizer=optax.sgd(RATE),
    )
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=STEPS, record_every=EVERY
    )

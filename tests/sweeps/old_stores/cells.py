"""The sweeps of the old stores, as the revisions that made them and today's tests call them.

Every revision named here must be able to import this module. A store of a plain function without
`config` records its source, so `descent` must not be edited.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd.experiment import Experiment
from causal_sgd.types import Trace

FIRST, LAST = "fce7200", "e549fec"
SEEDS = (3, 5)  # of the two requests that made a store
MORE_SEEDS = 6


class Call(NamedTuple):
    """The sweep of a store, and a larger one that contains it."""

    revision: str  # of the package that made the store
    format_version: int
    cell: Any
    config: dict[str, object] | None
    tile: int
    axes: dict[str, list[float]]
    more: dict[str, list[float]]  # the axes of the larger sweep
    missing: tuple[int, ...] = ()  # units that are not done


def descent(key: jax.Array, *, rate: Any, offset: Any) -> Trace:
    """Noisy gradient descent on two parabolas, whose results have several types and shapes."""
    noise = jax.random.normal(key, (6, 2))

    def step(position: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        return position - rate * (position - offset - 0.1 * noise), position

    _, positions = jax.lax.scan(step, jnp.ones(2), noise)
    far = jnp.abs(positions).max(axis=1) > 10
    metrics = {
        "distance": jnp.abs(positions - offset).sum(axis=1),
        "position": positions,
        "far": far,
        "cells": jnp.floor(positions[:, 0] / 2 + 0.25).astype(jnp.int32),
    }
    diverged_at = jnp.where(far.any(), jnp.argmax(far), -1).astype(jnp.int32)
    return Trace(jnp.arange(6, dtype=jnp.int32), metrics, diverged_at)


EXPERIMENT = Experiment(
    dim=4,
    invariant_rank=1,
    spurious_rank=1,
    steps=6,
    record_every=2,
    measurement="population",
    model="diagonal",
    basis="canonical",
    init_scale=0.1,
    metrics=("spurious_signal",),
)


def sensing(key: jax.Array, *, spread: Any) -> Trace:
    """Matrix sensing, described by `config`: an experiment's own description gains fields."""
    return EXPERIMENT.cell()(key, spread=spread)


def regression(key: jax.Array, *, rate: Any) -> Trace:
    """Gradient descent of least squares on examples that all runs of a seed share."""
    from causal_sgd import random  # the first revision has none

    inputs = random.shareable(jax.random.normal(key, (30, 3)))

    def step(weights: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return weights - rate * (inputs @ (weights - 1) @ inputs) / 30, weights

    _, weights = jax.lax.scan(step, jnp.zeros(3), length=4)
    return Trace(jnp.arange(4, dtype=jnp.int32), {"weights": weights}, jnp.int32(-1))


SPREADS = {"spread": [1.0, 3.0]}, {"spread": [1.0, 2.0, 3.0]}
RATES = {"rate": [0.1, 0.4]}, {"rate": [0.1, 0.2, 0.4]}
POINTS = {"rate": [0.5, 2.5], "offset": [2, 3]}, {"rate": [0.25, 0.5, 2.5], "offset": [2, 3]}

CALLS = {
    "descent": Call(FIRST, 1, descent, None, 5, *POINTS),
    "sensing": Call(FIRST, 1, sensing, {"system": "sensing"}, 4, *SPREADS),
    "killed": Call(LAST, 1, sensing, {"system": "sensing"}, 4, *SPREADS, missing=(1,)),
    "regression": Call(LAST, 2, regression, {"system": "regression"}, 4, *RATES),
    # Some fields of this experiment have other names today.
    "renamed": Call(FIRST, 1, EXPERIMENT.cell(), None, 4, *SPREADS),
}

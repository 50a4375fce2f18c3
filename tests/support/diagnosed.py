"""Snapshots of models that were not trained, for diagnoses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd.types import Snapshot


def snapshot_of(params: Any, world: Any, measurement: Any, model: Any) -> Snapshot:
    """A snapshot before the first step."""
    drawn = world(jax.random.key(0))
    data = measurement.init(jax.random.key(1), drawn)
    step = jnp.zeros((), jnp.int32)
    return Snapshot(step, params, drawn, jnp.zeros(()), model, measurement, data)

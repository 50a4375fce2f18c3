"""A small algorithm to sweep over, and the compilations of this process."""

from __future__ import annotations

from typing import Any

import jax.monitoring
import jax.numpy as jnp
import optax
import xarray as xr

from causal_sgd.sensing import measurements, metrics, models, worlds
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Algorithm, Trace

COMPILATIONS: list[str] = []
FACTOR = 1.0  # a variable of a module that workers import


jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILATIONS.append(event) if "backend_compile" in event else None
)


def build(
    *,
    spread: Any = 3.0,
    learning_rate: Any = 0.1,
    law: bool = False,
    sampler: str = "hetero",
    basis: str = "canonical",
) -> Algorithm:
    return sgd(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, spread=spread, basis=basis
        ),
        sampler=getattr(samplers, sampler)(batch_size=50),
        measurement=measurements.gaussian_law(noise=0.1) if law else measurements.population(),
        model=models.factored(dim=4, rank=2, init_scale=0.1),
        optimizer=optax.sgd(learning_rate),
    )


WATCHED = {
    "spurious": metrics.spurious_signal,
    "values": metrics.singular_values,
    "loss": metrics.batch_loss,
}


def trace_of(value: Any, name: str = "u") -> Trace:
    """A run of one step that records a number at its end; it compiles in no time."""
    frames = jnp.stack([jnp.zeros(()), jnp.asarray(value, jnp.float32)])
    return Trace(jnp.arange(2), {name: frames}, jnp.asarray(-1))


def same_bits(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Equal variables and coordinates, NaN equal to NaN; attributes aside."""
    return one.equals(other)

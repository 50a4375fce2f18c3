"""A small data set of random measurements in a world of four environments."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sensing import World, measurements, worlds
from causal_sgd.sensing.measurements import designs
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.types import Measurement

DIM, ENVIRONMENTS, EXAMPLES = 5, 4, 11
WIDTH = DIM * (DIM + 1) // 2
READ_OUT = MatrixModel(init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params)
STEP = jnp.zeros((), jnp.int32)


@functools.cache
def world() -> World:
    factory = worlds.two_point(dim=DIM, invariant_rank=2, spurious_rank=2, mean=1.0, spread=2.0)
    with jax.ensure_compile_time_eval():  # it may be asked for first within a trace
        return jax.jit(factory)(jax.random.key(0))


@functools.cache
def estimate() -> np.ndarray:
    rng = np.random.default_rng(1)
    factor = rng.normal(size=(DIM, DIM))
    return np.asarray(factor @ factor.T, np.float32)


@functools.cache
def dense_design() -> np.ndarray:
    """Matrices that are not symmetric, [E, n, d, d]."""
    return (
        np.random.default_rng(2).normal(size=(ENVIRONMENTS, EXAMPLES, DIM, DIM)).astype(np.float32)
    )


@functools.cache
def full(noise: float = 0.0, packed: bool = False) -> Measurement:
    dense = dense_design()
    return measurements.fixed_design(
        design=designs.pack(jnp.asarray(dense)) if packed else dense, noise=noise, full=True
    )


def keys(number: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), number)

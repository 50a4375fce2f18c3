"""What the measurements share: products of small stacks of matrices, and the way back to the parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd.types import Array, Key, Model, Params, World

FEW = 8

__all__ = ["combine", "dense_invariant", "pull_back", "safe_inverse", "sandwich"]


def dense_invariant(key: Key, world: World) -> Array:
    """Measurements keep A* dense [d, d] beside the run, since every step subtracts it."""
    return world.invariant


def pull_back(model: Model, params: Params, matrix: Array) -> Params:
    """The gradient with respect to the parameters of a loss whose gradient in estimate space is `matrix` / 2."""
    if model.pullback is not None:
        return model.pullback(params, matrix / 2)
    return jax.vjp(model.estimate, params)[1](matrix / 2)[0]


def combine(weights: Array, matrices: Array) -> Array:
    """sum_e weights_e matrices_e for weights [B] and matrices [B, n, n]."""
    return jnp.tensordot(weights, matrices, 1, precision="highest")


def sandwich(outer: Array, inner: Array) -> Array:
    """Outer @ inner @ outer' for outer [n, m] and inner [m, m].

    For few columns the second product is a sum of outer products of vectors, which the compiler makes one with what
    follows: on a CPU a quarter of the time of a product whose result goes through memory.
    """
    across = jnp.matmul(inner, outer.T, precision="highest")
    if not 0 < outer.shape[1] <= FEW < outer.shape[0]:
        return jnp.matmul(outer, across, precision="highest")
    total = outer[:, 0][:, None] * across[0][None, :]
    for column in range(1, outer.shape[1]):
        total = total + outer[:, column][:, None] * across[column][None, :]
    return total


def safe_inverse(norm: Array) -> Array:
    """1 / norm, and 0 where the norm is 0: a direction that does not exist takes no part."""
    return jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)

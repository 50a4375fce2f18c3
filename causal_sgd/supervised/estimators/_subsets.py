"""Quantities of all 2^p subsets of the inputs, with masks and no dynamic shapes.

Subset number n holds input k where bit k of n is set. The subsets are the leaves of a tree: at
level k every node has a matrix in which the inputs of its subset among the first k are eliminated,
and whose other rows are those that are still to come. Subsets with a common beginning share the
work, so that the cost is of the order of 2^p small numbers, rather than of 2^p factorisations.
The axis of the subsets is the last one. Runs of a sweep are treated one after the other, which
keeps the matrices of one tree in the cache.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array

__all__ = [
    "EXHAUSTIVE",
    "check_exhaustive",
    "corners",
    "masked_corners",
    "masked_solutions",
    "membership",
    "pooled_residuals",
    "sweeps",
]

EXHAUSTIVE = 15  # inputs up to which all subsets are visited


def check_exhaustive(name: str, dim: int, hint: str = "") -> None:
    """Refuse more inputs than all subsets can be visited of.

    Raises:
        ValueError: that names the method and the number of inputs.
    """
    if dim > EXHAUSTIVE:
        raise ValueError(
            f"{name} visits all 2^p subsets of the inputs, for p up to {EXHAUSTIVE}, got p = {dim}"
            f"{hint}"
        )


def membership(dim: int) -> np.ndarray:
    """Which inputs each subset holds, [p, 2^p] bool."""
    return (np.arange(2**dim)[None, :] >> np.arange(dim)[:, None]) & 1 == 1


def corners(matrices: Array, size: int = 1, forced: int = 0) -> Array:
    """The Schur complement of the last row after the blocks of each subset are eliminated.

    Args:
        matrices: [K, m * size + 1, m * size + 1], symmetric, with a block of rows for each of the
            m = forced + p inputs and one last row. Pivots may have either sign: a matrix that is
            positive on some rows and negative on the others has a factorisation in any order
            (Vanderbei 1995).
        size: rows of a block.
        forced: the number of blocks at the front that belong to every subset.

    Returns:
        [K, 2^p].
    """

    @jax.custom_batching.sequential_vmap
    def leaves(matrices: Array) -> Array:
        state = matrices[..., None]
        for block in range((matrices.shape[-1] - 1) // size):
            without = state[:, size:, size:]
            for _ in range(size):
                state = _eliminated(state)
            if block >= forced:
                state = jnp.concatenate([without, state], -1)
        return state[:, 0, 0]

    return leaves(matrices)


def pooled_residuals(second: Array, weights: Array) -> Array:
    """Moments of the residuals of pooled least squares on each subset, in each environment.

    At every node the other variables are replaced by their residuals on the subset, in all
    environments with the same coefficients, so that moments of residuals are never differences of
    large numbers.

    Args:
        second: moments [E, q, q] of (x, y, 1).
        weights: of the environments in the pooled moments, [E].

    Returns:
        Second moments and means of the residuals, [2, E, 2^p].
    """

    @jax.custom_batching.sequential_vmap
    def leaves(second: Array, weights: Array) -> Array:
        state = second[..., None]
        while state.shape[1] > 2:
            pooled = jnp.sum(weights[:, None, None] * state[:, 0], 0)  # first row, [m, N]
            inputs = jnp.arange(1, state.shape[1]) < state.shape[1] - 1
            slopes = jnp.where(inputs[:, None], pooled[1:] / pooled[:1], 0)  # the constant has none
            first, rest = state[:, 0], state[:, 1:, 1:]
            crossed = slopes[None, :, None] * first[:, None, 1:]
            both = slopes[:, None] * slopes[None, :]
            new = rest - crossed - jnp.swapaxes(crossed, 1, 2)
            new += both[None] * first[:, 0][:, None, None]
            state = jnp.concatenate([rest, jax.lax.optimization_barrier(new)], -1)
        return jnp.stack([state[:, 0, 0], state[:, 0, 1]])

    return leaves(second, weights)


def sweeps(matrices: Array) -> Array:
    """The matrices after the sweep operator was applied to the inputs of each subset.

    For moments of (x, y) and the subset S, the swept matrix holds the coefficients of y in the last
    column of the rows in S, the inverse of the moments of x_S in their block, with the sign turned,
    and the mean squared residual in the corner (the sweep operator of Beaton 1964).

    Args:
        matrices: [K, p + 1, p + 1].

    Returns:
        [K, p + 1, p + 1, 2^p].
    """

    @jax.custom_batching.sequential_vmap
    def leaves(matrices: Array) -> Array:
        state = matrices[..., None]
        for index in range(matrices.shape[-1] - 1):
            row = state[:, index]
            pivot = row[:, index]
            new = _rank_one(state, row, row, pivot)
            here = (jnp.arange(matrices.shape[-1]) == index)[None, :, None]
            edge = jnp.where(here, -1, row) / pivot[:, None]
            new = jnp.where(here[:, :, None], edge[:, None], new)
            new = jnp.where(here[:, None], edge[:, :, None], new)
            state = jnp.concatenate([state, jax.lax.optimization_barrier(new)], -1)
        return state

    return leaves(matrices)


def masked_corners(matrices: Array, masks: Array) -> Array:
    """The Schur complement of the last row after the rows of each mask are eliminated.

    Args:
        matrices: [m + 1, m + 1, N], positive definite.
        masks: [m, N] bool.

    Returns:
        [N].
    """

    def eliminate(index: Array, state: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(state, index, 0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, index, 0, keepdims=False)
        mask = jax.lax.dynamic_index_in_dim(masks, index, 0, keepdims=False)
        inverse = jnp.where(mask, 1 / jnp.where(mask, pivot, 1), 0)
        return state - row[:, None] * (row * inverse[None, :])[None]

    return jax.lax.fori_loop(0, masks.shape[0], eliminate, matrices)[-1, -1]


def masked_solutions(matrices: Array, masks: Array) -> Array:
    """The solutions of A_SS w = b_S for the rows S of each mask; zero outside.

    Args:
        matrices: [m + 1, m + 1, N], positive definite: A, and b in the last row and column.
        masks: [m, N] bool.

    Returns:
        [m, N].
    """
    places = jnp.arange(matrices.shape[0])

    def eliminate(index: Array, state: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(state, index, 0, keepdims=False)
        column = jax.lax.dynamic_index_in_dim(state, index, 1, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(row, index, 0, keepdims=False)
        mask = jax.lax.dynamic_index_in_dim(masks, index, 0, keepdims=False)
        scaled = row / jnp.where(mask, pivot, 1)[None, :]
        here = (places == index)[:, None, None]
        new = jnp.where(here, scaled[None], state - column[:, None] * scaled[None])
        return jnp.where(mask[None, None, :], new, state)

    solved = jax.lax.fori_loop(0, masks.shape[0], eliminate, matrices)
    return jnp.where(masks, solved[:-1, -1], 0)


def _eliminated(state: Array) -> Array:
    """The Schur complement [K, m - 1, m - 1, N] of the first row."""
    row = state[:, 0, 1:]
    # Without the barrier the compiler computes earlier pivots again within each later one.
    return jax.lax.optimization_barrier(_rank_one(state[:, 1:, 1:], row, row, state[:, 0, 0]))


def _rank_one(state: Array, left: Array, right: Array, pivot: Array) -> Array:
    return state - left[:, :, None] * (right * (1 / pivot)[:, None])[:, None]

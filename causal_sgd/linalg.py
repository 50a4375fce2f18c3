"""Matrix factorisations that are safe inside sweeps: under `vmap` they treat one matrix after the other.

A batched LAPACK kernel of jaxlib shares its batch out to XLA's thread pool and waits inside that very pool, so two of
them at a time (two devices, or two metrics of one program) may wait for ever. One matrix at a time never enters the
pool, and costs nothing here, where the cores are busy with other runs anyway. `orthonormal` needs no LAPACK at all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array

__all__ = ["eigh", "left_singular", "orthonormal", "product", "qr", "singular_values"]


def product(left: Array | np.ndarray, right: Array | np.ndarray) -> Array:
    """The matrix product in full precision, [..., n, m] @ [..., m, k]; accelerators round it otherwise."""
    return jnp.matmul(left, right, precision="highest")


@jax.custom_batching.sequential_vmap
def qr(matrix: Array) -> tuple[Array, Array]:
    """The reduced QR factorisation of a matrix [n, m]: [n, min(n, m)] and [min(n, m), m]."""
    orthogonal, triangle = jnp.linalg.qr(matrix)
    return orthogonal, triangle


@jax.custom_batching.sequential_vmap
def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues [n], in ascending order, and eigenvectors [n, n] of a symmetric matrix [n, n]."""
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@jax.custom_batching.sequential_vmap
def left_singular(matrix: Array) -> tuple[Array, Array]:
    """Left singular vectors [n, min(n, m)] and singular values [min(n, m)] of a matrix [n, m], largest first."""
    vectors, values, _ = jnp.linalg.svd(matrix, full_matrices=False)
    return vectors, values


@jax.custom_batching.sequential_vmap
def singular_values(matrix: Array) -> Array:
    """Singular values of a matrix [n, m], largest first; [min(n, m)]."""
    return jnp.linalg.svd(matrix, compute_uv=False)


def orthonormal(matrix: Array, *, tolerance: float | None = None) -> Array:
    """An orthonormal basis of the leading columns of a matrix [n, m], column by column; zero where one adds nothing.

    Gram-Schmidt, every column twice, which keeps the columns orthogonal to rounding whatever their condition ("twice is
    enough": Giraud, Langou, Rozloznik 2005). A column is judged by its own size, so minute ones count as much as large
    ones. What lies within rounding of the span of those before it is left out: a zero takes part in no product, where an
    arbitrary direction would have to be made orthogonal. Plain products only: it maps over runs, on a GPU too, and at
    [10000, 26] takes the time of as many normals.

    Args:
        matrix: [n, m]; m may exceed n.
        tolerance: the share of a column's norm that must lie outside the span of those before it, for it to add a
            direction; None for rounding.

    Returns:
        [n, m]: column j is a unit vector or zero, and columns 0 to j span the same as those of `matrix`, up to rounding.
    """
    least = 4 * jnp.finfo(matrix.dtype).eps if tolerance is None else tolerance
    peaks = jnp.max(jnp.abs(matrix), 0)  # squares of minute numbers would underflow
    rows = (matrix / jnp.where(peaks > 0, peaks, 1)[None, :]).T

    def remove(basis: Array, vector: Array) -> Array:
        inside = product(basis, vector)
        return vector - product(inside, basis)

    def add(index: Array, basis: Array) -> Array:
        column = jax.lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)
        once = remove(basis, column)
        twice = remove(basis, once)
        before, between, after = jnp.sum(jnp.stack([column, once, twice]) ** 2, 1)
        # a second pass that takes much away again shows that only rounding was left (Kahan and Parlett)
        new = (between > least**2 * before) & (after > between / 4)
        unit = jnp.where(new, twice / jnp.sqrt(jnp.where(new, after, 1)), 0)
        return jax.lax.dynamic_update_index_in_dim(basis, unit, index, 0)

    return jax.lax.fori_loop(0, rows.shape[0], add, jnp.zeros_like(rows)).T

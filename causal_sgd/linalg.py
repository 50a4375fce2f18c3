"""Matrix factorisations that are safe inside sweeps: under `vmap` they treat one matrix after the other.

A batched LAPACK kernel of jaxlib shares its batch out to XLA's thread pool and waits inside that very pool, so two of
them at a time (two devices, or two metrics of one program) may wait for ever. One matrix at a time never enters the
pool, and costs nothing here, where the cores are busy with other runs anyway.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd.types import Array

__all__ = ["eigh", "left_singular", "qr", "singular_values"]


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

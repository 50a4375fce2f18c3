"""Triangular factors of Wishart matrices (Bartlett 1933)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from causal_sgd.random._normal import CHI_SQUARE_NORMALS, CHI_SQUARE_WORDS, chi_square
from causal_sgd.types import Array


def bartlett_normals(size: int) -> int:
    """Normal numbers that `bartlett` takes."""
    return size * (size + CHI_SQUARE_NORMALS)


def bartlett_words(size: int) -> int:
    """Random words that `bartlett` takes."""
    return size * CHI_SQUARE_WORDS


def bartlett(normals: Array, words: Array, degrees: float | Array, size: int) -> Array:
    """The triangle K of a QR factorisation of a matrix [n, k] of iid N(0, 1) entries.

    K'K has the Wishart distribution of n degrees of freedom. The squares of the diagonal are
    independent chi-squares of n, n - 1, ..., n - k + 1 degrees; entries above it are N(0, 1).

    Args:
        normals: normal numbers [bartlett_normals(k)].
        words: random 32-bit words [bartlett_words(k)].
        degrees: n >= k, a whole number; may be traced, and no cost depends on it.
        size: k.

    Returns:
        K [k, k], upper triangular with a positive diagonal.
    """
    square = size * size
    above = normals[:square].reshape(size, size) * np.triu(np.ones((size, size), normals.dtype), 1)
    squares = chi_square(
        normals[square:].reshape(size, CHI_SQUARE_NORMALS),
        words.reshape(size, CHI_SQUARE_WORDS),
        jnp.asarray(degrees, normals.dtype) - np.arange(size, dtype=normals.dtype),
    )
    return above + jnp.eye(size, dtype=normals.dtype) * jnp.sqrt(squares)[:, None]

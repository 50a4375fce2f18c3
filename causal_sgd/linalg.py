"""Matrix products and factorisations that are safe inside sweeps.

Under `vmap` the factorisations treat one matrix after the other. A batched LAPACK kernel of jaxlib
distributes its batch over XLA's thread pool and waits inside that pool, so two of them at a time
(two devices, or two metrics of one program) may deadlock. One matrix at a time never enters the
pool. This costs nothing here, since other runs keep the cores busy. `orthonormal`, `triangle` and
`solve_positive` need no LAPACK.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import _room
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "broadcast_unmapped",
    "eigh",
    "left_singular",
    "orthonormal",
    "product",
    "qr",
    "singular_values",
    "solve",
    "solve_positive",
    "triangle",
]


UNROLLED = 8  # columns up to which `triangle` and `solve_positive` are written out


def product(left: Array | np.ndarray, right: Array | np.ndarray) -> Array:
    """The matrix product [..., n, m] @ [..., m, k] in full precision.

    Accelerators would otherwise round the factors.
    """
    return jnp.matmul(left, right, precision="highest")


@jax.custom_batching.sequential_vmap
def qr(matrix: Array) -> tuple[Array, Array]:
    """The reduced QR factorisation of a matrix [n, m]: [n, min(n, m)] and [min(n, m), m]."""
    orthogonal, triangle = jnp.linalg.qr(matrix)
    return orthogonal, triangle


@jax.custom_batching.sequential_vmap
def eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues [n], ascending, and eigenvectors [n, n] of a symmetric matrix [n, n]."""
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@jax.custom_batching.sequential_vmap
def left_singular(matrix: Array) -> tuple[Array, Array]:
    """Left singular vectors [n, min(n, m)] and singular values of [n, m], largest first."""
    vectors, values, _ = jnp.linalg.svd(matrix, full_matrices=False)
    return vectors, values


@jax.custom_batching.sequential_vmap
def singular_values(matrix: Array) -> Array:
    """Singular values [min(n, m)] of a matrix [n, m], largest first."""
    return jnp.linalg.svd(matrix, compute_uv=False)


@jax.custom_batching.sequential_vmap
def solve(matrix: Array, right: Array) -> Array:
    """The solution [n, k] of a square system [n, n] with right-hand sides [n, k]."""
    return jnp.linalg.solve(matrix, right)


def solve_positive(matrix: Array, right: Array) -> Array:
    """The solution of a small system with a symmetric positive definite matrix, with no LAPACK.

    Elimination of each row from all others (Gauss-Jordan), which needs no pivots for such a matrix.
    Only plain products are used, so all runs of a sweep are solved together.

    Args:
        matrix: [k, k], symmetric and positive definite.
        right: [k, n], the right-hand sides.

    Returns:
        [k, n]; not finite if the matrix is singular.
    """
    size = matrix.shape[0]

    # The sides are kept apart, so that no index of a column ever reaches the right-hand sides.
    def eliminate(index: int | Array, sides: tuple[Array, Array]) -> tuple[Array, Array]:
        column = jax.lax.dynamic_index_in_dim(sides[0], index, 1, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(column, index, 0, keepdims=False)
        kept = jnp.where(jnp.arange(size) == index, 0, column)

        def without(table: Array) -> Array:
            row = jax.lax.dynamic_index_in_dim(table, index, 0, keepdims=False) / pivot
            table = table - kept[:, None] * row[None, :]
            return jax.lax.dynamic_update_index_in_dim(table, row, index, 0)

        return without(sides[0]), without(sides[1])

    sides = matrix, right
    if size <= UNROLLED:
        for index in range(size):
            sides = eliminate(index, sides)
    else:
        sides = jax.lax.fori_loop(0, size, eliminate, sides)
    return sides[1]


def orthonormal(matrix: Array, *, tolerance: float | None = None) -> Array:
    """An orthonormal basis of the leading columns of a matrix, column by column.

    Gram-Schmidt, each column twice, which keeps the columns orthogonal to rounding whatever their
    condition number ("twice is enough": Giraud, Langou, Rozloznik 2005). Each column is compared
    with its own norm, so tiny columns count as much as large ones. A column that lies within
    rounding of the span of its predecessors becomes zero: a zero contributes to no product, whereas
    an arbitrary direction would have to be made orthogonal. Only plain products are used, so the
    function maps over runs, on a GPU too. At [10000, 26] it takes the time of as many normals.

    Args:
        matrix: [n, m]; m may exceed n, and either may be 0.
        tolerance: the fraction of a column's norm that must lie outside the span of its
            predecessors for it to add a direction; None for rounding.

    Returns:
        [n, m]: column j is a unit vector or zero, and columns 0 to j span the same space as those
        of `matrix`, up to rounding.
    """
    if 0 in matrix.shape:  # the maximum over no rows is undefined
        return matrix
    least = 4 * jnp.finfo(matrix.dtype).eps if tolerance is None else tolerance
    peaks = jnp.max(jnp.abs(matrix), 0)  # scaling by them keeps squares of tiny numbers normal
    # Transposed, so that a step reads and writes one contiguous row.
    rows = (matrix / jnp.where(peaks > 0, peaks, 1)[None, :]).T

    # Classical Gram-Schmidt projects on all rows in two products; the modified one would be a loop.
    def remove(basis: Array, vector: Array) -> Array:
        inside = product(basis, vector)
        return vector - product(inside, basis)

    # Rows of `basis` that are not reached yet are zero, so projecting on all of them is harmless.
    def add(index: Array, basis: Array) -> Array:
        column = jax.lax.dynamic_index_in_dim(rows, index, 0, keepdims=False)
        once = remove(basis, column)
        twice = remove(basis, once)
        # Squared norms of the column and of what each pass leaves of it.
        before, between, after = jnp.sum(jnp.stack([column, once, twice]) ** 2, 1)
        # A second pass that again removes much shows that only rounding was left (Kahan, Parlett).
        new = (between > least**2 * before) & (after > between / 4)
        unit = jnp.where(new, twice / jnp.sqrt(jnp.where(new, after, 1)), 0)
        return jax.lax.dynamic_update_index_in_dim(basis, unit, index, 0)

    return jax.lax.fori_loop(0, rows.shape[0], add, jnp.zeros_like(rows)).T


def triangle(matrix: Array) -> Array:
    """The triangle R of a QR factorisation, with R'R = matrix' matrix and no LAPACK.

    Modified Gram-Schmidt, whose triangle is that of a matrix within rounding, column by column
    (Bjoerck 1967): no Gram matrix is formed, so tiny directions keep their digits.

    Args:
        matrix: [n, m]; m may exceed n, and columns may be zero or dependent.

    Returns:
        R [m, m], upper triangular with a diagonal of at least 0.
    """
    columns = matrix.shape[1]
    if 0 in matrix.shape:  # the maximum over no rows is undefined
        return jnp.zeros((columns, columns), matrix.dtype)
    peaks = jnp.max(jnp.abs(matrix), 0)  # scaling by them keeps squares of tiny numbers normal
    scaled = matrix / jnp.where(peaks > 0, peaks, 1)[None, :]
    if columns <= UNROLLED:
        return _unrolled_triangle(scaled) * peaks[None, :]

    def add(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        rest, rows = carry
        column = jax.lax.dynamic_index_in_dim(rest, index, 1, keepdims=False)
        norm, unit = _norm_and_unit(column)
        # Columns up to this one are done; their products are rounding.
        row = jnp.where(jnp.arange(columns) > index, product(unit, rest), 0)
        rest = rest - unit[:, None] * row[None, :]
        row = jnp.where(jnp.arange(columns) == index, norm, row)
        return rest, jax.lax.dynamic_update_index_in_dim(rows, row, index, 0)

    carry = scaled, jnp.zeros((columns, columns), matrix.dtype)
    return jax.lax.fori_loop(0, columns, add, carry)[1] * peaks[None, :]


def _unrolled_triangle(rest: Array) -> Array:
    """`triangle` of a scaled matrix with few columns, written out for the compiler to fuse."""
    columns, rows = rest.shape[1], []
    for index in range(columns):
        norm, unit = _norm_and_unit(rest[:, 0])
        row = jnp.sum(unit[:, None] * rest[:, 1:], 0)
        rest = rest[:, 1:] - unit[:, None] * row[None, :]
        rows.append(jnp.concatenate([jnp.zeros(index, row.dtype), norm[None], row]))
    return jnp.stack(rows)


def _norm_and_unit(vector: Array) -> tuple[Array, Array]:
    """The norm [] of a vector [n] and its direction, zero for a zero vector."""
    norm = jnp.sqrt(jnp.sum(vector**2))
    return norm, jnp.where(norm > 0, vector / jnp.where(norm > 0, norm, 1), 0)


def broadcast_unmapped(runs: int, mapped: Sequence[bool], arrays: Sequence[Array]) -> list[Array]:
    """For rules of `custom_vmap`: the arrays, each with a leading axis of runs.

    Args:
        runs: number of runs.
        mapped: for each array, whether it has that axis already.
        arrays: the arguments of the rule.
    """
    return [
        array if is_mapped else jnp.broadcast_to(array, (runs, *array.shape))
        for array, is_mapped in zip(arrays, mapped, strict=True)
    ]

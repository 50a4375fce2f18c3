"""Designs: the measurement matrices of finite data sets, and what makes them good ones.

Symmetric residuals see only the symmetric part of a measurement matrix, so a design holds its
p = d (d + 1) / 2 coordinates (`pack`). For Gaussian measurements they are iid N(0, 1). This halves
the memory and the work of d^2. Models whose estimate is not symmetric need all p = d^2 entries.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from causal_sgd import _room, checks, linalg, random
from causal_sgd.sensing.measurements._algebra import pack, packed_dim, unpack
from causal_sgd.types import Array, Key

_room(__name__)
__all__ = [
    "coherence",
    "coordinates",
    "flatten",
    "pack",
    "restricted_isometry",
    "shared_design",
    "square",
    "unpack",
]


def shared_design(
    key: Key,
    *,
    dim: int,
    num_environments: int,
    num_examples: int,
    symmetric: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """Gaussian measurements for `fixed_design(design=...)`, shared by all runs of a sweep.

    Args:
        key: a separate key, not that of a run.
        dim: d.
        num_environments: E.
        num_examples: n, examples of each environment.
        symmetric: True for the packed coordinates of symmetric parts, False for whole matrices.
        dtype: of the numbers.

    Returns:
        The design [E, n, p] in packed coordinates, p = d (d + 1) / 2, or [E, n, d, d].

    Raises:
        ValueError: if a size is not a whole number of at least 1.
    """
    checks.integer("dim", dim)
    checks.integer("num_environments", num_environments)
    checks.integer("num_examples", num_examples)
    shape = num_environments, num_examples, *((dim * (dim + 1) // 2,) if symmetric else (dim, dim))
    return random.normals(key, shape, dtype)


def restricted_isometry(
    key: Key, design: np.ndarray | Array, *, rank: int, starts: int = 16, iterations: int = 50
) -> Array:
    """A lower bound on the restricted isometry constant of the measurements of each environment.

    The constant delta_r is the largest |(1/n) sum_i <X_i, M>^2 / |M|_F^2 - 1| over symmetric M of
    rank at most r, which is hard to compute. Two truncated power iterations, M <- the best rank-r
    part of H M or of (c - H) M with H the second moments of the design, climb from random starts to
    local maxima and minima of that ratio. The values are attained, so the constant is at least as
    large; it may be larger.

    Args:
        key: draws the starts.
        design: [E, n, p] packed or [E, n, d, d] dense, as for `fixed_design`.
        rank: r >= 1, the largest rank of M.
        starts: random starts of each iteration.
        iterations: steps of each.

    Returns:
        The bounds [E], about 2 sqrt(2 d r / n) or somewhat less for Gaussian measurements with
        n >> d r.

    Raises:
        ValueError: if an argument is out of range.
    """
    measured = coordinates(design)
    dim = packed_dim(measured.shape[2])
    checks.integer("rank", rank, maximum=dim)
    checks.integer("starts", starts)
    checks.integer("iterations", iterations)

    def truncate(packed: Array) -> Array:
        values, vectors = linalg.eigh(unpack(packed))
        leading = values * (jnp.argsort(jnp.argsort(-jnp.abs(values))) < rank)
        return _unit(pack(linalg.product(vectors * leading[None, :], vectors.T)))

    def one(environment: tuple[Array, Key]) -> Array:
        rows, own_key = environment

        def moments(matrices: Array) -> Array:
            """H M for M [k, p]."""
            inner = linalg.product(matrices, rows.T)
            return linalg.product(inner, rows) / rows.shape[0]

        def ratio(matrices: Array) -> Array:
            return jnp.mean(linalg.product(matrices, rows.T) ** 2, 1)

        begin = jax.vmap(truncate)(jax.random.normal(own_key, (starts, rows.shape[1]), rows.dtype))
        top = jax.lax.fori_loop(0, iterations, lambda _, m: _unit(moments(m)), begin)
        # Above the largest eigenvalue of H, so that c - H is positive and the second iteration
        # climbs too.
        shift = 1.1 * jnp.max(ratio(top))
        high = jax.lax.fori_loop(0, iterations, lambda _, m: jax.vmap(truncate)(moments(m)), begin)
        low = jax.lax.fori_loop(
            0, iterations, lambda _, m: jax.vmap(truncate)(shift * m - moments(m)), begin
        )
        return jnp.max(jnp.abs(ratio(jnp.concatenate([high, low])) - 1))

    return jax.lax.map(one, (measured, jax.random.split(key, measured.shape[0])))


def flatten(matrices: Array) -> Array:
    """All entries [..., d^2] of matrices [..., d, d]."""
    return matrices.reshape(*matrices.shape[:-2], -1)


def square(entries: Array) -> Array:
    """The matrices [..., d, d] with entries [..., d^2]: the inverse of `flatten`."""
    dim = math.isqrt(entries.shape[-1])
    return entries.reshape(*entries.shape[:-1], dim, dim)


def coordinates(design: np.ndarray | Array, symmetric: bool = True) -> Array:
    """A design [E, n, p] or [E, n, d, d] as [E, n, p].

    Args:
        design: any real numbers.
        symmetric: whether dense matrices are packed; packed ones are refused otherwise.

    Raises:
        ValueError: if the shape is wrong or a number is not finite.
    """
    checks.flags(symmetric=symmetric)
    shape = tuple(np.shape(design))
    dense = len(shape) == 4 and shape[2] == shape[3]
    if not (dense or (symmetric and len(shape) == 3 and packed_dim(shape[2]))) or 0 in shape:
        packed = "[E, n, d (d + 1) / 2] or " if symmetric else ""
        raise ValueError(f"design must have shape {packed}[E, n, d, d], got {list(shape)}")
    checks.number("design", design, scalar=False, double=True)
    entries = checks.concrete(design)
    if entries is not None:  # an entry far below the largest one may become zero
        checks.representable("design", float(np.abs(entries).max()))
        design = entries.astype(np.float32) if entries.dtype.kind in "iu" else design
    array = jnp.asarray(design)
    array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
    if not symmetric:
        return flatten(array)
    return pack(array) if dense else array


def _unit(vectors: Array) -> Array:
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def coherence(basis: Array) -> Array:
    """The coherence (d / r) max_i |e_i' B|^2 of a subspace (Candes and Recht 2009); [].

    Args:
        basis: B [d, r] with orthonormal columns.

    Returns:
        From 1, if all coordinates contribute equally, to d / r, if the subspace contains a
        coordinate axis.
    """
    dim, rank = basis.shape
    return dim / rank * jnp.max(jnp.sum(basis**2, 1))

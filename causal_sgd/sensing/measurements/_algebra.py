"""What the measurements share: small products, packed symmetric matrices, gradients, slabs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg
from causal_sgd.sensing.models import MatrixModel, ReducedModel
from causal_sgd.sensing.worlds import ReducedWorld, World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, PyTree

Designs = Array | tuple[Array, ...]  # [E, n, p], or E arrays [n, p]

# Limits of `fused_sandwich` from timings on a CPU: up to FEW columns its second product is a sum of
# outer products; up to VERY_FEW columns and FEW_ROWS rows so is the first.
FEW, VERY_FEW, FEW_ROWS = 8, 4, 64
SLAB = 2**16  # random numbers that a run holds at once
FEW_SLABS = 4  # up to which a loop takes less time than its compilation

Carry = TypeVar("Carry", bound=PyTree)


def dense_invariant(key: Key, world: World) -> Array:
    """The data of most measurements: the dense A* [d, d], which every step subtracts."""
    return world.invariant


def pull_back(model: MatrixModel, params: Params, matrix: Array) -> Params:
    """The gradient with respect to the parameters of a loss with a known gradient of the estimate.

    Args:
        model: of the estimate.
        params: of the model.
        matrix: twice the gradient with respect to the estimate, [d, d].

    Raises:
        ValueError: for a model whose predictions are not those of its estimate.
    """
    require_estimate(model)
    # Losses have a factor 1/4, so the gradient is half of G = (1/m) sum_i r_i X_i.
    if model.pullback is not None:
        return model.pullback(params, matrix / 2)
    return jax.vjp(model.estimate, params)[1](matrix / 2)[0]


def require_estimate(model: MatrixModel) -> None:
    """Raise ValueError for a model whose predictions are not those of its estimate."""
    if model.predict is not None:
        raise ValueError(
            "model must predict by its estimate for this measurement, got one with its own "
            "predictions (such as relu); measurements.examples trains it"
        )


def require_reduced_world(model: MatrixModel, world: World) -> None:
    """Raise ValueError for order parameters in a world whose signals are not in the first rows."""
    if not isinstance(model, ReducedModel):
        return
    size, rows = world.bases.shape[1], world.bases.shape[0]
    if not isinstance(world, ReducedWorld) or rows != model.rows:
        raise ValueError(
            f"world must be worlds.reduced(..., rows={model.rows}) for models.order_parameters, so "
            f"that its signals lie in the first rows, got a {type(world).__name__} with {rows} rows"
        )
    if model.frame < size:
        raise ValueError(
            f"frame must be at least r1 + r2 = {size}, the columns of U* and V, got {model.frame}"
        )


def diagonal_of(basis: Array, cores: Array) -> Array:
    """The diagonals [B, d] of basis @ core_e @ basis' for basis [d, r] and cores [B, r, r]."""
    # Entry j is sum_b (basis core)_jb basis_jb: nothing [d, d] is formed.
    return jnp.sum(linalg.product(basis[None], cores) * basis[None], 2)


def owners(counts: Array, first: Array | int, many: int) -> tuple[Array, Array]:
    """For a range of examples of a batch, the environment that each belongs to.

    The examples of a batch are ordered by environment.

    Args:
        counts: examples [B] of each environment of the batch.
        first: the index [] of the first example of the range; may be negative.
        many: n, the length of the range.

    Returns:
        For each example, the position of its environment within the batch [n] (that of the nearest
        example beyond the ends of the batch), and whether it belongs to the batch [n].
    """
    last = jnp.cumsum(counts)
    example = (first + jnp.arange(many)).astype(last.dtype)
    # The number of environments that end before the example, so those without examples own none.
    owner = jnp.minimum(jnp.sum(last[None, :] <= example[:, None], 1), counts.shape[0] - 1)
    return owner, (example >= 0) & (example < last[-1])


def of_owners(values: Array, owner: Array) -> Array:
    """For each example, the value of its environment: values [n, B] and positions [n] to [n]."""
    # A sum over the few environments, which is vectorised; a gather would not be.
    environments = jnp.arange(values.shape[1])[None, :]
    return jnp.sum(jnp.where(owner[:, None] == environments, values, 0), 1)


def checked_slab(slab_size: int | None, numbers: int, most: int = SLAB) -> int:
    """The examples that a run draws at once.

    Args:
        slab_size: the user's choice; None for as many as take 2^16 numbers.
        numbers: that one example takes.
        most: the largest default.

    Raises:
        ValueError: if `slab_size` is not a whole number of at least 1.
    """
    if slab_size is None:
        return max(1, min(most, SLAB // numbers))
    return checks.integer("slab_size", slab_size)


def over_slabs(
    add_slab: Callable[[Array, Carry], Carry],
    zero: Carry,
    batch: Batch,
    slab: int,
    first: Array | int,
) -> Carry:
    """The result of a loop over the slabs that hold the examples `first`, ... of a batch.

    Args:
        add_slab: (index of a slab [], carry) -> carry.
        zero: the first carry.
        batch: whose examples have the numbers `first`, `first` + 1, ...
        slab: examples in a slab.
        first: [].
    """
    bounds = first // slab, (first + jnp.sum(batch.counts) + slab - 1) // slab
    if not checks.is_tracing() and int(bounds[1]) - int(bounds[0]) <= FEW_SLABS:
        # By hand, a loop of jax would be compiled in every call.
        for index in range(int(bounds[0]), int(bounds[1])):
            zero = add_slab(jnp.asarray(index), zero)
        return zero
    return jax.lax.fori_loop(*bounds, add_slab, zero)


def batch_size(batch: Batch) -> Array:
    """The number of examples [], or 1 for a client without examples, to divide by."""
    return jnp.maximum(jnp.sum(batch.counts), 1)


def measure_spans(
    init: Callable[[Key, World], PyTree], of_span: Callable[..., tuple[Params, Array]]
) -> Measurement:
    """A measurement that draws example after example, numbered through the batch.

    Args:
        init: (key, world) -> data.
        of_span: the function `gradient` of a measurement, for a batch whose examples have the
            numbers `first`, `first` + 1, ... instead of 0, 1, ..., with `first` [] as the last
            argument.
    """

    def gradient(
        key: Key,
        step: Array,
        data: PyTree,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        return of_span(key, step, data, model, params, world, batch, 0)

    def client(
        key: Key,
        step: Array,
        data: PyTree,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        position: Array,
    ) -> tuple[Params, Array]:
        counts = batch.counts
        own = Batch(batch.environments[position][None], counts[position][None])
        first = (jnp.cumsum(counts) - counts)[position]
        return of_span(key, step, data, model, params, world, own, first)

    # Messages name a measurement after the function that made it.
    gradient.__qualname__ = of_span.__qualname__
    return Measurement(init, gradient, differentiates_loss=True, client=client)


def combine(weights: Array, matrices: Array) -> Array:
    """sum_e weights_e matrices_e for weights [B] and matrices [B, n, n]."""
    return jnp.tensordot(weights, matrices, 1, precision="highest")


def fused_sandwich(outer: Array, inner: Array) -> Array:
    """Outer @ inner @ outer' for outer [n, m] and inner [m, m].

    For few columns the second product is a sum of outer products of vectors, which the compiler
    fuses with what follows: on a CPU this takes a quarter of the time of a product whose result
    goes through memory. For very few columns and few rows so is the first product, although it is
    then recomputed for every row: launching a product takes longer.
    """
    rows, columns = outer.shape
    if not 0 < columns <= FEW < rows:
        return linalg.product(outer, linalg.product(inner, outer.T))
    if columns <= VERY_FEW and rows <= FEW_ROWS:
        # The m rows of inner @ outer', [n] each.
        across = [_sum([inner[i, j] * outer[:, j] for j in range(columns)]) for i in range(columns)]
    else:
        across = linalg.product(inner, outer.T)
    return _sum([outer[:, i][:, None] * across[i][None, :] for i in range(columns)])


def _sum(terms: list[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def inner_product(left: Array, right: Array) -> Array:
    """<left, right> of matrices [n, m]; []."""
    # Column sums first: a loop over both axes at once is not vectorised on a CPU.
    return jnp.sum(jnp.sum(left * right, 0))


def safe_inverse(norm: Array) -> Array:
    """1 / norm, and 0 where the norm is 0, so that a zero vector has no direction."""
    return safe_ratio(jnp.ones_like(norm), norm)


def safe_ratio(number: Array, norm: Array) -> Array:
    """Number / norm, and 0 where the norm is 0."""
    # The inner selection keeps 0 / 0 away, whose NaN derivatives would see through the outer one.
    return jnp.where(norm > 0, number / jnp.where(norm > 0, norm, 1), 0)


def pack(matrices: Array) -> Array:
    """The coordinates [..., p], p = d (d + 1) / 2, of the symmetric parts of matrices [..., d, d].

    The upper triangle row by row, with entries off the diagonal scaled by sqrt(2):
    <X, M> = pack(X) . pack(M) for any X and symmetric M, and iid N(0, 1) entries of X become iid
    N(0, 1) coordinates.
    """
    place, mirror, scale, _ = _triangle(matrices.shape[-1])
    # On the diagonal a place is its own mirror, so half of the sum is right there too.
    flat = matrices.reshape(*matrices.shape[:-2], -1)
    return (flat[..., place] + flat[..., mirror]) * _along_last(scale / 2, flat)


def unpack(coordinates: Array) -> Array:
    """The symmetric matrices [..., d, d] with coordinates [..., p]: the inverse of `pack`."""
    dim = packed_dim(coordinates.shape[-1])
    _, _, scale, inverse = _triangle(dim)
    scaled = coordinates * _along_last(1 / scale, coordinates)
    return scaled[..., inverse].reshape(*coordinates.shape[:-1], dim, dim)


def packed_dim(size: int) -> int:
    """The d with d (d + 1) / 2 = size, or 0 if there is none."""
    # In whole numbers: the square root of a large float could round to the next d.
    dim = (math.isqrt(8 * size + 1) - 1) // 2
    return dim if dim * (dim + 1) // 2 == size else 0


def _along_last(vector: np.ndarray, array: Array) -> Array:
    return jnp.asarray(vector.reshape((1,) * (array.ndim - 1) + vector.shape), array.dtype)


def _triangle(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The index arrays of `pack` and `unpack`.

    Returns:
        Flat indices [p] of the upper triangle and of its mirror image, the scale [p] of each
        coordinate, and for each entry of a matrix the index of its coordinate [d^2].
    """
    row, column = np.triu_indices(dim)
    inverse = np.zeros((dim, dim), np.int32)
    inverse[row, column] = inverse[column, row] = np.arange(len(row))
    scale = np.where(row == column, 1.0, np.sqrt(2.0)).reshape(-1)
    return row * dim + column, column * dim + row, scale, inverse.reshape(-1)

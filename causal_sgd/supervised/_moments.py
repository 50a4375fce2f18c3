"""Second moments of inputs and labels: all that squared loss of a linear prediction sees.

The moments of an environment are S = E z z' with z = (x, y, 1), [q, q], q = p + 2: the last row
holds the means and a one. A linear prediction scale (x'w + b) + shift has the residual z'v with
v = (scale w, -1, scale b + shift), and the loss v'Sv / 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from causal_sgd import linalg
from causal_sgd.types import Array

__all__ = [
    "MomentData",
    "Moments",
    "Parts",
    "Rows",
    "TableData",
    "augmented",
    "parts",
    "quadratic",
    "residual",
    "used_rows",
    "weighted_moments",
]


class Moments(NamedTuple):
    """Moments of several environments."""

    second: Array  # [E, q, q] S_e
    counts: Array  # [E] examples of each; infinity for the population


class Rows(NamedTuple):
    """Examples of several environments; rows beyond the number of an environment are padding."""

    inputs: Array  # [E, n, p], or [1, n, p] where all environments share them
    labels: Array  # [E, n]
    counts: Array  # [E] examples of each, at most n


def used_rows(rows: Rows) -> Array:
    """1 for the examples of each environment and 0 for padding, [E, n]."""
    size, dtype = rows.labels.shape[1], rows.labels.dtype
    return (jnp.arange(size)[None] < rows.counts[:, None]).astype(dtype)


def weighted_moments(rows: Rows, used: Array) -> Array:
    """The moments [E, q, q] of weighted examples; zero for an environment without any.

    Args:
        rows: the examples.
        used: how often each is one, [E, n].
    """
    inputs = jnp.broadcast_to(rows.inputs, (*rows.labels.shape, rows.inputs.shape[-1]))
    columns = [inputs, rows.labels[..., None], jnp.ones_like(rows.labels)[..., None]]
    z = jnp.concatenate(columns, -1)
    total = linalg.product(jnp.swapaxes(z * used[..., None], -1, -2), z)
    return total / jnp.maximum(jnp.sum(used, 1), 1)[:, None, None]


class MomentData(NamedTuple):
    """The data of measurements that keep moments."""

    training: Moments | None  # None where every step draws its own examples
    validation: Moments | None = None  # of examples that nothing trains on
    rows: Rows | None = None  # the examples themselves, where they are kept
    validation_rows: Rows | None = None  # under other losses, those that nothing trains on


class TableData(NamedTuple):
    """The data of `measurements.counts`: those of moments, and the shares of the atoms."""

    training: Moments | None  # None where every step draws its own examples
    validation: Moments | None = None
    rows: None = None
    shares: Array | None = None  # [E, A] of the data set, or of the population
    validation_shares: Array | None = None  # [E, A]


class Parts(NamedTuple):
    """The blocks of moments [..., q, q]."""

    inputs: Array  # [..., p, p] E x x'
    cross: Array  # [..., p]    E x y
    labels: Array  # [...]       E y^2
    input_means: Array  # [..., p]    E x
    label_means: Array  # [...]       E y


def parts(second: Array) -> Parts:
    """Take moments [..., q, q] apart."""
    dim = second.shape[-1] - 2
    return Parts(
        second[..., :dim, :dim],
        second[..., :dim, dim],
        second[..., dim, dim],
        second[..., :dim, -1],
        second[..., dim, -1],
    )


def augmented(covariance: Array, means: Array) -> Array:
    """The moments [..., q, q] of z = (x, y, 1) from those of (x, y).

    Args:
        covariance: of (x, y), [..., p + 1, p + 1].
        means: of (x, y), [..., p + 1].
    """
    second = covariance + means[..., :, None] * means[..., None, :]
    top = jnp.concatenate([second, means[..., :, None]], -1)
    last = jnp.concatenate([means, jnp.ones_like(means[..., :1])], -1)
    return jnp.concatenate([top, last[..., None, :]], -2)


def residual(
    weights: Array,
    intercept: float | Array = 0.0,
    scale: float | Array = 1.0,
    shift: float | Array = 0.0,
) -> Array:
    """The vector v [q] with residual z'v of the prediction scale (x'w + b) + shift.

    Args:
        weights: w [p].
        intercept: b [].
        scale: factor of the prediction, [].
        shift: added to it, [].
    """
    last = jnp.stack([-jnp.ones((), weights.dtype), scale * intercept + shift + 0 * weights[0]])
    return jnp.concatenate([scale * weights, last])


@jax.custom_jvp
def quadratic(second: Array, vector: Array) -> Array:
    """V'Sv for symmetric moments [..., q, q]; [...]. It differentiates by one product with S."""
    return _along(_applied(second, vector), vector)


def _quadratic_derivative(
    primals: tuple[Array, Array], tangents: tuple[Array | SymbolicZero, Array | SymbolicZero]
) -> tuple[Array, Array]:
    (second, vector), (slope, direction) = primals, tangents
    applied = _applied(second, vector)
    value = _along(applied, vector)
    change = jnp.zeros_like(value)
    if not isinstance(direction, SymbolicZero):
        change = change + 2 * _along(applied, direction)
    if not isinstance(slope, SymbolicZero):
        change = change + quadratic(slope, vector)
    return value, change


quadratic.defjvp(_quadratic_derivative, symbolic_zeros=True)


def _applied(second: Array, vector: Array) -> Array:
    return linalg.product(second, vector[:, None])[..., 0]


def _along(applied: Array, vector: Array) -> Array:
    return jnp.sum(applied * vector.reshape((1,) * (applied.ndim - 1) + (-1,)), -1)

"""Second moments of inputs and labels: all that squared loss of a linear prediction sees.

The moments of an environment are S = E z z' with z = (x, y, 1), [q, q], q = p + 2: the last row
holds the means and a one. A linear prediction scale (x'w + b) + shift has the residual z'v with
v = (scale w, -1, scale b + shift), and the loss v'Sv / 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.types import Array

__all__ = ["MomentData", "Moments", "Parts", "augmented", "parts", "quadratic", "residual"]


class Moments(NamedTuple):
    """Moments of several environments."""

    second: Array  # [E, q, q] S_e
    counts: Array  # [E] examples of each; infinity for the population


class MomentData(NamedTuple):
    """The data of measurements that keep moments."""

    training: Moments
    validation: Moments | None = None  # of examples that nothing trains on


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


def quadratic(second: Array, vector: Array) -> Array:
    """V'Sv for moments [..., q, q]; [...]."""
    return linalg.product(linalg.product(second, vector[:, None])[..., 0], vector[:, None])[..., 0]

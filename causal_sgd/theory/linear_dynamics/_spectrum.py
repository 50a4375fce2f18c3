"""Eigenvalues of the second moments of normal inputs, as points and weights."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["Spectrum", "spectrum"]

# The angle from the lower edge is pi/(1 + e^-z). Trapezoids in z converge geometrically, and small
# angles, which decide late times, are resolved down to 1e-7.
NODES = 256
LOW, HIGH = -17.0, 7.0


class Spectrum(NamedTuple):
    """Points and weights: a mean over eigenvalues is the sum of weights times values."""

    eigenvalues: Array  # [..., K]; the last one is zero
    weights: Array  # [..., K], add up to one


@checked_jit
def spectrum(ratio: ArrayLike, dim: ArrayLike | None = None) -> Spectrum:
    """The eigenvalues of sum_i x_i x_i'/n for n examples of p = ratio n normal inputs.

    With nu = (1 - r)^2 + 4 r sin^2(phi/2), r = sqrt(ratio), the law of Marchenko and Pastur is
    (2/pi) sin^2(phi) dphi/nu on [0, pi], with zeros of the weight 1 - 1/ratio beyond ratio 1. At a
    finite p the expected weights differ to first order by (1/p) [1/4 at both ends - dphi/(2 pi)]
    (Bai and Silverstein 2004), so that some are negative.

    Accuracy: relative 1e-5 in single precision, for means of functions that are smooth in nu, such
    as exp(-t nu) up to t of 1e11, and ratios from 1e-2 to 1e2. The remainder of a finite p is of
    the order of 1/p^2 for functions that change little between neighbouring eigenvalues.

    Args:
        ratio: p/n [...].
        dim: p [...]; None for the limit as p grows.

    Raises:
        ValueError: if an argument is out of range.

    >>> found = spectrum(0.25)
    >>> print(f"{(found.weights / found.eigenvalues)[:-1].sum():.4f}")  # 1/(1 - ratio)
    1.3333
    """
    aspect, size = broadcast(ratio, 1.0 if dim is None else dim)
    z = np.linspace(LOW, HIGH, NODES)
    below, above = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))  # angle/pi, and its complement
    spacing = np.pi * below * above * (z[1] - z[0])
    sines = np.sin(np.pi * np.minimum(below, above)) ** 2
    halves = 4 * np.sin(np.pi * below / 2) ** 2
    root = jnp.sqrt(aspect)[..., None]
    edge = ((1 - aspect[..., None]) / (1 + root)) ** 2
    shape = (1,) * aspect.ndim + (-1,)
    values = edge + root * jnp.asarray(halves.reshape(shape), aspect.dtype)
    measure = jnp.asarray((2 / np.pi * sines * spacing).reshape(shape), aspect.dtype)
    weights = measure / values
    if dim is not None:
        first = -spacing / (2 * np.pi)
        first[[0, -1]] += 0.25
        weights += jnp.asarray(first.reshape(shape), aspect.dtype) / size[..., None]
    zeros = jnp.maximum(1 - 1 / aspect, 0)[..., None]
    return Spectrum(
        jnp.concatenate([values, jnp.zeros_like(zeros)], -1),
        jnp.concatenate([weights, zeros], -1),
    )

"""Gradient descent on a majority and a minority that share one input: an exact map of numbers.

The majority has y x = Z (1, 1, 0) and the minority y x = Z (1, 0, 1), with Z uniform between the
least margin gamma of the group and a largest one K, as in `worlds.minority_groups`. All gradients
lie in the plane of these two vectors. With the slopes a and b of the losses of both groups,

    a = (1 - eps) E Z l'(Z (w0 + w1)),  b = eps E Z l'(Z (w0 + w2)),

l' the size of the loss's derivative and eps the minority's share, gradient descent is
w <- w + eta (a + b, a, b): three numbers, exactly. The means over Z are taken by Gauss-Legendre
quadrature. The error of a group is E sigma(-margin), the probability that a label drawn from the
predicted ones is wrong. With z = eta times the steps, both errors tend to multiples of 1/z if
gamma_min < 2 gamma_maj, and the multiple of the minority's is large like 1/eps; else the minority
is no support vector and its error falls faster, like z^-alpha, alpha = gamma_min/(2 gamma_maj).
(The setting is one of groups with a margin, the derivation is ours.)
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import _room, checks
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.types import Array

_room(__name__)
__all__ = ["asymptotic_errors", "descend", "errors", "step"]

_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_LOSSES = ("logistic", "exponential")
EQUAL = np.ones(2)
"""Least margins of both groups where none are given."""


def step(
    weights: ArrayLike,
    learning_rate: ArrayLike,
    *,
    minority_share: ArrayLike,
    margins: ArrayLike = EQUAL,
    largest: ArrayLike = 4.0,
    family: str = "logistic",
) -> Array:
    """One step of gradient descent on the mean loss of both groups, [..., 3].

    Accuracy: the quadrature is exact to rounding for margins w0 + w1 and w0 + w2 times K - gamma
    up to 60.

    Args:
        weights: (w0, w1, w2) [..., 3] of the shared input and of those of majority and minority.
        learning_rate: eta [...], above 0.
        minority_share: eps [...], between 0 and 1; one half for groups that are balanced.
        margins: the least margins gamma of majority and minority, [..., 2], above 0.
        largest: K [...], above both.
        family: of the loss, "logistic" or "exponential".
    """
    _check(minority_share, margins, family)
    check(weights=weights, largest=largest, learning_rate=learning_rate)
    _check_last("weights", weights, 3)
    return _step(weights, learning_rate, minority_share, margins, largest, family)


def descend(
    learning_rate: ArrayLike,
    num_steps: int,
    *,
    minority_share: ArrayLike,
    margins: ArrayLike = EQUAL,
    largest: ArrayLike = 4.0,
    family: str = "logistic",
) -> Array:
    """The weights after that many steps of gradient descent from zero, [..., 3].

    Accuracy: 1e-5 in single precision for 20,000 steps with the logistic loss.

    Args:
        learning_rate: eta [...], above 0.
        num_steps: not traced.
        minority_share: eps [...].
        margins: gamma of majority and minority, [..., 2].
        largest: K [...].
        family: of the loss.

    >>> weights = descend(1.0, 1000, minority_share=0.1)
    >>> print([f"{weight:.3f}" for weight in weights])
    ['3.119', '2.284', '0.835']
    """
    _check(minority_share, margins, family)
    check(largest=largest, learning_rate=learning_rate)
    checks.integer("num_steps", num_steps, minimum=0)
    return _descend(learning_rate, num_steps, minority_share, margins, largest, family)


def errors(
    weights: ArrayLike,
    *,
    margins: ArrayLike = EQUAL,
    largest: ArrayLike = 4.0,
) -> Array:
    """E sigma(-margin) of majority and minority, [..., 2].

    Accuracy: relative 1e-5 in single precision, in the range of `step`.

    Args:
        weights: (w0, w1, w2) [..., 3].
        margins: gamma of majority and minority, [..., 2].
        largest: K [...].
    """
    _check(0.5, margins, "logistic")
    check(weights=weights, largest=largest)
    _check_last("weights", weights, 3)
    return _errors(weights, margins, largest)


def asymptotic_errors(
    time: ArrayLike,
    *,
    minority_share: ArrayLike,
    margins: ArrayLike = EQUAL,
) -> Array:
    """The leading term in 1/z of the errors of majority and minority, [..., 2].

    Margins grow like log z/gamma, so that 2 a + b = 1/(gamma_maj z) and a + 2 b = 1/(gamma_min z).
    With gamma_maj = 1 = gamma_min both a and b are 1/(3 z). The approach is logarithmic: at
    z = 2e4 the minority's error is a third smaller.

    Accuracy: that of a leading term.

    Args:
        time: z [...], eta times the steps.
        minority_share: eps [...].
        margins: gamma of majority and minority, [..., 2].

    Returns:
        0 for a group that is no support vector, whose error falls faster.

    >>> print([f"{error:.2e}" for error in asymptotic_errors(2e4, minority_share=0.1)])
    ['1.85e-05', '1.67e-04']
    """
    _check(minority_share, margins, "logistic")
    check(time=time)
    return _asymptotic(time, minority_share, margins)


@jax.jit
def _asymptotic(time: ArrayLike, minority_share: ArrayLike, margins: ArrayLike) -> Array:
    gamma = jnp.asarray(margins, float)
    z, share, major, minor = broadcast(time, minority_share, gamma[..., 0], gamma[..., 1])
    first, second = (2 / major - 1 / minor) / 3, (2 / minor - 1 / major) / 3
    # Where only one group supports the margin, its own inequality is tight: 2 a = 1/gamma z.
    first = jnp.where(second <= 0, 1 / (2 * major), first)
    second = jnp.where(first <= 0, 1 / (2 * minor), second)
    slopes = jnp.stack([jnp.maximum(first, 0), jnp.maximum(second, 0)], -1) / z[..., None]
    shares = jnp.stack([(1 - share) * major, share * minor], -1)
    return slopes / shares


@jax.jit
def _errors(weights: ArrayLike, margins: ArrayLike, largest: ArrayLike) -> Array:
    _, products, shares = _losses(weights, margins, largest)
    return jnp.sum(shares * jax.nn.sigmoid(-products), -1)


@functools.partial(jax.jit, static_argnums=5)
def _step(
    weights: ArrayLike,
    learning_rate: ArrayLike,
    minority_share: ArrayLike,
    margins: ArrayLike,
    largest: ArrayLike,
    family: str,
) -> Array:
    move = _move(weights, learning_rate, minority_share, margins, largest, family)
    w = jnp.asarray(weights, float)
    shape = jnp.broadcast_shapes(w.shape, move.shape)
    return jnp.broadcast_to(w, shape) + jnp.broadcast_to(move, shape)


def _move(
    weights: ArrayLike,
    learning_rate: ArrayLike,
    minority_share: ArrayLike,
    margins: ArrayLike,
    largest: ArrayLike,
    family: str,
) -> Array:
    z, products, shares = _losses(weights, margins, largest)
    slopes = jax.nn.sigmoid(-products) if family == "logistic" else jnp.exp(-products)
    means = jnp.sum(shares * z * slopes, -1)
    share, major, minor = broadcast(minority_share, means[..., 0], means[..., 1])
    first, second = (1 - share) * major, share * minor
    rate, first, second = broadcast(learning_rate, first, second)
    return rate[..., None] * jnp.stack([first + second, first, second], -1)


def _losses(
    weights: ArrayLike, margins: ArrayLike, largest: ArrayLike
) -> tuple[Array, Array, Array]:
    """Values of Z, margins of the examples and weights of the quadrature, [..., 2, nodes]."""
    w, least = jnp.asarray(weights, float), jnp.asarray(margins, float)
    both = jnp.stack([w[..., 0] + w[..., 1], w[..., 0] + w[..., 2]], -1)
    top = jnp.asarray(largest, float)[..., None]
    both, least, top = broadcast(both, least, top)
    nodes = jnp.asarray((_POINTS + 1) / 2, both.dtype).reshape((1,) * both.ndim + (-1,))
    z = least[..., None] + (top - least)[..., None] * nodes
    shares = jnp.asarray(_WEIGHTS / 2, both.dtype).reshape(nodes.shape)
    return z, z * both[..., None], shares


@functools.partial(jax.jit, static_argnums=(1, 5))
def _descend(
    learning_rate: ArrayLike,
    num_steps: int,
    minority_share: ArrayLike,
    margins: ArrayLike,
    largest: ArrayLike,
    family: str,
) -> Array:
    rate, share, top, least = broadcast(
        learning_rate, minority_share, largest, jnp.asarray(margins, float)[..., 0]
    )

    # Moves become as small as the rounding of the weights, whose lost digits are kept (Kahan 1965).
    def advance(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        weights, lost = carry
        move = _move(weights, rate, share, margins, top, family) - lost
        moved = weights + move
        return moved, (moved - weights) - move

    zeros = jnp.zeros((*least.shape, 3), rate.dtype)
    return jax.lax.fori_loop(0, num_steps, advance, (zeros, zeros))[0]


def _check(minority_share: ArrayLike, margins: ArrayLike, family: str) -> None:
    check(minority_share=minority_share, margins=margins)
    checks.choice("family", family, _LOSSES)
    _check_last("margins", margins, 2)


def _check_last(name: str, value: ArrayLike, size: int) -> None:
    if np.shape(value)[-1:] != (size,):
        raise ValueError(f"{name} must have the shape [..., {size}], got {list(np.shape(value))}")

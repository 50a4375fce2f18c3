"""Gradient descent on separable examples and losses with exponential tails (Soudry et al. 2018).

Examples v_n = y_n x_n with shares q_n have a mean loss sum_n q_n l(v_n'w), l(m) ~ e^-m. Let w^ be
the weights of least norm with v_n'w^ >= 1 for all n, and a_n >= 0 their dual variables,
w^ = sum_n a_n v_n. If the support vectors (a_n > 0) are a basis of the inputs, then

    w(t) = w^ log t + w~ + o(1),  v_n'w~ = log(eta q_n / a_n) on the support,

after t steps of size eta: it solves the flow w' = eta sum_n q_n exp(-v_n'w) v_n to leading order.
What is missing falls like t^-r, with r the smallest of 1, of v_n'w^ - 1 off the support, and of the
eigenvalues of sum_n a_n v_n v_n'. Hence the direction approaches w^ like 1/log t, and t times the
loss tends to |w^|^2/eta, since the dual variables add up to |w^|^2. With steps of a fixed length
the direction approaches it like 1/t. The shares enter w~ only: for a linear model it does not
matter in the limit how often an environment is drawn, nor whether environments contradict each
other.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import _room, checks, linalg
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.types import Array

_room(__name__)
__all__ = ["Separator", "direction_gap", "fixed_length_gap", "scaled_loss", "separator"]

_SWEEPS = 2000
_ACTIVE = 1e-3  # of the largest dual variable


class Separator(NamedTuple):
    """The weights of largest margin, and the next order of gradient descent's approach to them."""

    direction: Array  # [p] w^
    duals: Array  # [n] a_n, zero off the support
    offset: Array  # [p] w~, within the span of the support vectors


def separator(points: ArrayLike, shares: ArrayLike, learning_rate: ArrayLike) -> Separator:
    """The limit of gradient descent on separable examples.

    The dual problem, the minimum of |sum a_n v_n|^2/2 - sum a_n, is solved by coordinate descent,
    whose active set then gives w^ and w~ as solutions of linear systems.

    Accuracy: 1e-4 in single precision where no dual variable of the support is below 1e-3 of the
    largest one, and the support vectors are linearly independent and well conditioned. With fewer
    than p of them w~ has another part, which depends on all examples and on the start.

    Args:
        points: v_n = y_n x_n, [n, p], with at least one w of v_n'w > 0 for all n.
        shares: q_n [n], above 0.
        learning_rate: eta, [].

    >>> found = separator(np.array([[1.0, 5.0], [1.0, -3.0]]), np.full(2, 0.5), 0.1)
    >>> print([f"{weight:.3f}" for weight in found.direction], f"{found.offset[1]:.4f}")
    ['1.000', '0.000'] 0.0639
    """
    check(points=points, shares=shares, learning_rate=learning_rate)
    shape = np.shape(points)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"points must have the shape [n, p], got {list(shape)}")
    if np.shape(shares) != shape[:1]:
        raise ValueError(
            f"shares must have the shape [{shape[0]}] for points of shape {list(shape)}, got "
            f"{list(np.shape(shares))}"
        )
    check(learning_rate=learning_rate)
    if np.ndim(learning_rate):
        raise ValueError(
            f"learning_rate must have the shape [], got {list(np.shape(learning_rate))}"
        )
    return _separator(points, shares, learning_rate)


@jax.jit
def _separator(points: ArrayLike, shares: ArrayLike, learning_rate: ArrayLike) -> Separator:
    v = jnp.asarray(points, float)
    q = jnp.asarray(shares, v.dtype)
    gram = linalg.product(v, v.T)
    diagonal = jnp.maximum(jnp.diagonal(gram), 1e-30)

    def update(index: Array, duals: Array) -> Array:
        excess = 1 - jnp.sum(gram[index] * duals)
        return duals.at[index].set(jnp.maximum(duals[index] + excess / diagonal[index], 0))

    def sweep(_: int, duals: Array) -> Array:
        return jax.lax.fori_loop(0, len(v), update, duals)

    duals = jax.lax.fori_loop(0, _SWEEPS, sweep, jnp.zeros(len(v), v.dtype))
    active = duals > _ACTIVE * jnp.max(duals)
    # The constraints of the support are tight: its Gram matrix determines the duals, and w~.
    both = active[:, None] & active[None, :]
    matrix = jnp.where(both, gram, jnp.eye(len(v), dtype=v.dtype))
    duals = _solve(matrix, active.astype(v.dtype))
    logs = jnp.where(active, jnp.log(learning_rate * q / jnp.where(active, duals, 1)), 0)
    return Separator(_combined(duals, v), duals, _combined(_solve(matrix, logs), v))


def _solve(matrix: Array, right: Array) -> Array:
    return linalg.solve(matrix, right[:, None])[:, 0]


def _combined(factors: Array, points: Array) -> Array:
    return linalg.product(factors[None], points)[0]


def direction_gap(found: Separator, num_steps: ArrayLike) -> Array:
    """The distance of w/|w| from w^/|w^| after t steps, [...]; times log t it tends to a constant.

    It is that of w^ log t + w~.

    Args:
        found: see `separator`.
        num_steps: t [...], above 1.
    """
    _check_separator(found)
    check(num_steps=num_steps)
    t = jnp.asarray(num_steps, float)[..., None]
    shape = (*t.shape[:-1], *found.direction.shape)
    limit = jnp.broadcast_to(found.direction, shape)
    w = limit * jnp.log(t) + jnp.broadcast_to(found.offset, shape)
    return _norm(w / _norm(w)[..., None] - limit / _norm(limit)[..., None])


def fixed_length_gap(found: Separator, num_steps: ArrayLike, length: ArrayLike) -> Array:
    """The leading term in 1/t of the same distance with steps of a fixed length, [...].

    Each step adds length w^/|w^| in the limit, and the part of w~ across w^ is the same.

    Args:
        found: see `separator`; its learning rate does not matter.
        num_steps: t [...].
        length: of a step, [...], above 0.
    """
    _check_separator(found)
    check(num_steps=num_steps, length=length)
    t, size = broadcast(num_steps, length)
    direction, offset = found.direction, found.offset
    along = jnp.sum(direction * offset) / jnp.sum(direction**2)
    return _norm(offset - along * direction) / (size * t)


def scaled_loss(found: Separator, learning_rate: ArrayLike) -> Array:
    """The limit |w^|^2/eta of t times the loss, [...].

    Args:
        found: see `separator`.
        learning_rate: eta [...].
    """
    _check_separator(found)
    check(learning_rate=learning_rate)
    (rate,) = broadcast(learning_rate)
    return jnp.sum(found.direction**2) / rate


def _check_separator(found: Separator) -> None:
    checks.instance("found", found, Separator, "a result of separator")


def _norm(vector: Array) -> Array:
    return jnp.sqrt(jnp.sum(vector**2, -1))

"""Products of random matrices: exponents, their errors, and where they change sign."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import linalg, random
from causal_sgd.types import Array, Key

__all__ = ["exponents_of", "orthonormalised", "rejecting_steps", "start_frame", "with_errors"]

LOWEST = -10.0  # stands for the exponent of a factor that is exactly zero, in an interpolation


def start_frame(key: Key, size: int, directions: int) -> Array:
    """A generic orthonormal frame [k, m]: axes may span invariant subspaces in a wrong order."""
    if size == 1:
        return jnp.ones((1, 1), jnp.result_type(float))
    return linalg.orthonormal(random.normals(key, (size, directions), jnp.result_type(float)))


def orthonormalised(matrix: Array) -> tuple[Array, Array]:
    """The frame Q [k, m] of a QR factorisation, and the logarithms [m] of the diagonal of R."""
    if matrix.shape[1] == 1:
        length = jnp.sqrt(jnp.sum(matrix**2))
        # A factor of zero is kept at minus infinity by a frame of zero.
        return matrix / jnp.where(length > 0, length, 1), jnp.log(length)[None]
    frame = linalg.orthonormal(matrix)
    return frame, jnp.log(jnp.abs(jnp.sum(frame * matrix, 0)))


def exponents_of(
    matrices: Array, rate: Array, frame: Array, cap: float | None = None
) -> tuple[Array, Array]:
    """The logarithms [T, m] of the growth under I - rate H_t, and the last frame [k, m].

    Args:
        matrices: H_t [T, k, k].
        rate: [].
        frame: [k, m], orthonormal.
        cap: the largest relative change of each coordinate, by its own curvature; None for none.
    """
    if frame.shape[0] == 1:  # the factors themselves
        change = rate * matrices[:, :, 0]
        change = change if cap is None else jnp.clip(change, -cap, cap)
        return jnp.log(jnp.abs(1 - change)), frame

    def step(frame: Array, matrix: Array) -> tuple[Array, Array]:
        if cap is not None:
            change = jnp.clip(rate * jnp.diagonal(matrix), -cap, cap)
            return orthonormalised(frame * (1 - change)[:, None])
        return orthonormalised(frame - rate * linalg.product(matrix, frame))

    frame, logs = jax.lax.scan(step, frame, matrices)
    return logs, frame


def with_errors(logs: Array, num_blocks: int) -> tuple[Array, Array]:
    """The means [L, m] over T steps, and their standard errors from the means of blocks.

    Args:
        logs: [L, T, m].
        num_blocks: at most T; the last steps that fill no block count in the mean alone.
    """
    length = logs.shape[1] // num_blocks
    blocks = logs[:, : length * num_blocks].reshape(
        logs.shape[0], num_blocks, length, logs.shape[2]
    )
    means = jnp.mean(blocks, 2)
    # Of a mean of minus infinity there is no error.
    finite = jnp.all(jnp.isfinite(means), 1)
    spread = jnp.std(jnp.where(finite[:, None], means, 0), 1, ddof=1)
    return jnp.mean(logs, 1), spread / num_blocks**0.5


def rejecting_steps(
    rates: Array,
    exponents: Array,
    errors: Array,
    *,
    rising: bool = False,
    ordered: bool = False,
) -> tuple[Array, Array]:
    """The first interval of learning rates in which an exponent is negative, [2], and its errors.

    Its start is 0 if the exponent is negative from the first learning rate on, and infinite if it
    never is; its end is infinite if the exponent stays negative. Between learning rates it is
    interpolated linearly, and the errors are those of the exponents over the slope.

    Args:
        rates: [L], in any order.
        exponents: [L].
        errors: [L], of the exponents.
        rising: whether only the end is wanted, which may then be where the exponent first rises
            above zero.
        ordered: whether the learning rates rise, which saves a sort.
    """
    if not ordered:
        order = jnp.argsort(rates)
        rates, exponents, errors = rates[order], exponents[order], errors[order]
    x, y, e = rates, jnp.maximum(exponents, LOWEST), errors
    negative = y < 0
    falls, rises = ~negative[:-1] & negative[1:], negative[:-1] & ~negative[1:]

    def crossing(where: Array) -> tuple[Array, Array, Array]:
        place = jnp.argmax(where) if where.shape[0] else jnp.asarray(0)
        after = jnp.minimum(place + 1, len(x) - 1)
        change = y[after] - y[place]
        slope = jnp.where(change == 0, 1, change) / jnp.where(
            x[after] > x[place], x[after] - x[place], 1
        )
        at = x[place] - y[place] / slope
        error = jnp.maximum(e[place], e[after]) / jnp.abs(slope)
        exists = jnp.any(where)
        return jnp.where(exists, at, jnp.inf), jnp.where(exists, error, 0), place

    start, start_error, place = crossing(falls)
    begins = negative[0] & ~jnp.asarray(rising)
    start, start_error = jnp.where(begins, 0, start), jnp.where(begins, 0, start_error)
    first = jnp.where(begins | rising, 0, place)
    end, end_error, _ = crossing(rises & (jnp.arange(len(rises)) >= first))
    end = jnp.where(jnp.isfinite(start) | rising, end, jnp.inf)
    return jnp.stack([start, end]), jnp.stack([start_error, end_error])

"""Checks of the arrays that sparse problems are made of."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.types import Array

__all__ = ["check_design", "check_quadratic", "over_leading_axes"]


def check_quadratic(second: ArrayLike, cross: ArrayLike) -> tuple[Array, Array]:
    """S [..., d, d] and b [..., d] as arrays.

    Raises:
        ValueError: if they hold anything but finite numbers, or do not fit.
    """
    for name, value in (("second", second), ("cross", cross)):
        checks.number(name, value, scalar=False)
    s, b = jnp.asarray(second), jnp.asarray(cross)
    if b.ndim < 1 or b.shape[-1] == 0:
        raise ValueError(f"cross must have shape [..., d] with d >= 1, got {list(b.shape)}")
    if s.ndim < 2 or s.shape[-2:] != (b.shape[-1],) * 2:
        raise ValueError(
            f"second must have shape [..., d, d] with d = {b.shape[-1]}, as cross has, got "
            f"{list(s.shape)}"
        )
    _check_leading(second=s.shape[:-2], cross=b.shape[:-1])
    return s, b


def check_design(inputs: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """X [..., n, d], n <= d, and y [..., n] as arrays.

    Raises:
        ValueError: if they hold anything but finite numbers, or do not fit.
    """
    for name, value in (("inputs", inputs), ("labels", labels)):
        checks.number(name, value, scalar=False)
    x, y = jnp.asarray(inputs), jnp.asarray(labels)
    if x.ndim < 2 or not 1 <= x.shape[-2] <= x.shape[-1]:
        raise ValueError(
            f"inputs must have shape [..., n, d] with 1 <= n <= d, got {list(x.shape)}"
        )
    if y.ndim < 1 or y.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"labels must have shape [..., n] with n = {x.shape[-2]}, as inputs has, got "
            f"{list(y.shape)}"
        )
    _check_leading(inputs=x.shape[:-2], labels=y.shape[:-1])
    return x, y


def over_leading_axes(
    function: Callable[..., Array], ranks: tuple[int, ...]
) -> Callable[..., Array]:
    """Map a function of arrays of some ranks over their leading axes, which broadcast."""

    def mapped(*arrays: Array) -> Array:
        leading = [a.shape[: a.ndim - rank] for a, rank in zip(arrays, ranks, strict=True)]
        shape = jnp.broadcast_shapes(*leading)
        full = [
            jnp.broadcast_to(a, shape + a.shape[a.ndim - rank :])
            for a, rank in zip(arrays, ranks, strict=True)
        ]
        inner = function
        for _ in shape:
            inner = jax.vmap(inner)
        return inner(*full)

    return mapped


def _check_leading(**shapes: tuple[int, ...]) -> None:
    try:
        jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        names = " and ".join(shapes)
        raise ValueError(
            f"leading axes of {names} must broadcast, got {[list(s) for s in shapes.values()]}"
        ) from None


def check_environments(
    estimate: ArrayLike | None,
    second: ArrayLike,
    cross: ArrayLike,
    probabilities: ArrayLike | None,
    label_squares: ArrayLike | None,
) -> tuple[Array, Array, Array, Array, Array | None]:
    """The arrays theta [d] (zero for None), S_e [E, d, d], b_e [E, d], shares and E y^2 [E].

    Raises:
        ValueError: if they hold anything but finite numbers, or do not fit.
    """
    given = {
        "estimate": estimate,
        "second": second,
        "cross": cross,
        "label_squares": label_squares,
    }
    for name, value in given.items():
        if value is not None:
            checks.number(name, value, scalar=False)
    s, b = jnp.asarray(second), jnp.asarray(cross)
    if b.ndim != 2 or 0 in b.shape:
        raise ValueError(f"cross must have shape [E, d], got {list(b.shape)}")
    size, dim = b.shape
    if s.shape not in ((dim, dim), (size, dim, dim)):
        raise ValueError(
            f"second must have shape [E, d, d] = {[size, dim, dim]} or [d, d], got {list(s.shape)}"
        )
    theta = jnp.zeros(dim) if estimate is None else jnp.asarray(estimate)
    if theta.shape != (dim,):
        raise ValueError(f"estimate must have shape [d] = [{dim}], got {list(theta.shape)}")
    squares = None if label_squares is None else jnp.asarray(label_squares)
    if squares is not None and squares.shape != (size,):
        raise ValueError(f"label_squares must have shape [E] = [{size}], got {list(squares.shape)}")
    if probabilities is None:
        shares = jnp.full(size, 1 / size)
    else:
        checks.probabilities("probabilities", probabilities, size)
        shares = jnp.asarray(probabilities)
    dtype = jnp.result_type(float, theta, s, b)
    s = jnp.broadcast_to(s, (size, dim, dim)).astype(dtype)
    squares = None if squares is None else squares.astype(dtype)
    return theta.astype(dtype), s, b.astype(dtype), shares.astype(dtype), squares

"""Residuals of an estimate in a frame that holds all signals; small ones keep their digits."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array

__all__ = ["Error", "dense_error", "factor_error", "sandwich", "signals", "squared_residuals"]


class Error(NamedTuple):
    """The error estimate - A*, in blocks inside and outside of a frame of n directions."""

    inside: Array  # [n, n]
    spurious_basis: Array  # [n, r2] V in the frame
    outside: Array  # [] the squared norm of the error outside the frame


def signals(world: World, frame: Array) -> tuple[Array, Array]:
    """Return A* [n, n] and V [n, r2] in a frame [d, n] that holds them."""
    invariant_basis = linalg.product(frame.T, world.invariant_basis)
    spurious_basis = linalg.product(frame.T, world.spurious_basis)
    weighted = invariant_basis * world.invariant_spectrum[None, :]
    return linalg.product(weighted, invariant_basis.T), spurious_basis


def factor_error(
    factor: Array, world: World, frame: Array, scale: float | Array | None = None
) -> Error:
    """Return the error of the estimate U U', without forming it.

    The four blocks of U U' - A* inside and outside of the frame are measured one by one: squares
    add up and nothing cancels.

    Args:
        factor: U [d, k].
        world: of the signals.
        frame: orthonormal, spans U* and V, [d, n] with n = r1 + r2.
        scale: factor of the estimate; None for 1.
    """
    invariant, spurious_basis = signals(world, frame)
    inside = linalg.product(frame.T, factor)
    outside = factor - linalg.product(frame, inside)
    rest = 2 * jnp.sum(linalg.product(outside, inside.T) ** 2) + jnp.sum(
        linalg.product(outside.T, outside) ** 2
    )
    estimate = linalg.product(inside, inside.T)
    if scale is not None:
        estimate, rest = scale * estimate, scale**2 * rest
    return Error(estimate - invariant, spurious_basis, rest)


def dense_error(estimate: Array, world: World) -> Error:
    """Return the error of an estimate [d, d]; the frame is that of all d directions."""
    return Error(estimate - world.invariant, world.spurious_basis, jnp.zeros(()))


def squared_residuals(error: Error, cores: Array) -> Array:
    """Return |estimate - A* - V C_e V'|^2 for cores [E, r2, r2]; [E]."""
    basis = error.spurious_basis
    # The residuals of the environments differ only within the span of V (.) V'.
    block = sandwich(basis.T, error.inside)
    shared = jnp.sum((error.inside - sandwich(basis, block)) ** 2) + error.outside
    return shared + jnp.sum((block[None] - cores) ** 2, (1, 2))


def sandwich(outer: Array, inner: Array) -> Array:
    """Return outer @ inner @ outer' for outer [n, m] and inner [m, m]."""
    return linalg.product(linalg.product(outer, inner), outer.T)

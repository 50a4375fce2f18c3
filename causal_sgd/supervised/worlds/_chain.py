"""The chain x -> y -> z of vectors, the sum of y being the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import (
    Numbers,
    Placement,
    array,
    check_placement,
    place,
)
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["chain", "stacked"]


def chain(
    *,
    dim: int = 5,
    scales: Numbers = (0.2, 2.0, 5.0),
    training: Sequence[int] = (0, 1),
    hidden: bool = False,
    hetero: bool = True,
    ones: bool = True,
    **placement: Unpack[Placement],
) -> WorldFactory:
    """The chain of Arjovsky et al. (2019), with a hidden cause if wanted.

    In the environment of scale e, with standard normal vectors N of length d: h = e N,
    x = h W_hx + e N, y = x W_xy + h W_hy + s N, z = y W_yz + h W_hz + t N, with (s, t) = (e, 1) if
    `hetero` and (1, e) if not. The inputs are (x, z), p = 2 d, and the label is the sum of y. Then
    w* = (row sums of W_xy, 0).

    Args:
        dim: d, the number of causal inputs and of others.
        scales: e of all environments; may be traced.
        training: which of them are the environments of the world; the others are its test.
        hidden: whether h acts on all: W_hx, W_hy and W_hz are N / (2 d). If not, W_hx = I and
            W_hy = W_hz = 0, so that x has the variance 2 e^2.
        hetero: whether the noise of y differs between environments, rather than that of z.
        ones: whether W_xy = W_yz = I; if not they are N / (2 d).
        **placement: see `Placement`.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range, or `training` does not name environments.
    """
    checks.integer("dim", dim)
    checks.flags(hidden=hidden, hetero=hetero, ones=ones)
    values = array("scales", scales, ("E",), above=0)
    chosen = _chosen(training, len(values))
    rest = [index for index in range(len(values)) if index not in chosen]
    check_placement(placement, len(chosen), 2 * dim)

    def world(key: Key) -> LinearWorld:
        numbers = random.normals(random.fold_in(key, 0), (5, dim, dim), jnp.result_type(float))
        numbers = numbers / (2 * dim)
        on_y, on_z = (jnp.eye(dim),) * 2 if ones else numbers[:2]
        causes = numbers[2:] if hidden else None

        def mixing(scale: Array) -> Array:
            return _chain_mixing(scale, on_y, on_z, causes, hetero=hetero)

        every = jax.vmap(mixing)(values)
        target = jnp.concatenate([jnp.sum(on_y, 1), jnp.zeros(dim)])
        causal = jnp.arange(2 * dim) < dim
        return place(
            random.fold_in(key, 1),
            every[jnp.array(chosen)],
            target,
            causal,
            placement,
            every[jnp.array(rest, int)],
        )

    return world


def _chain_mixing(
    scale: Array, on_y: Array, on_z: Array, causes: Array | None, *, hetero: bool
) -> Array:
    """The mixing [2 d + 1, k] of one environment; its noises are those of (h,) x, y and z."""
    of_y, of_z = (scale, 1.0) if hetero else (1.0, scale)
    if causes is None:
        # h and the noise of x only enter as their sum.
        own_x, own_y, own_z = _noises(3, len(on_y))
        x = 2**0.5 * scale * own_x
        y = linalg.product(x, on_y) + of_y * own_y
        z = linalg.product(y, on_z) + of_z * own_z
    else:
        own_h, own_x, own_y, own_z = _noises(4, len(on_y))
        from_h = linalg.product(scale * own_h[None], causes)
        x = from_h[0] + scale * own_x
        y = linalg.product(x, on_y) + from_h[1] + of_y * own_y
        z = linalg.product(y, on_z) + from_h[2] + of_z * own_z
    return stacked(x, z, y)


def _noises(number: int, size: int) -> Array:
    """Coefficients [number, k, size] of the noises, k = number * size, of as many vectors."""
    unit = jnp.eye(number * size)
    return jnp.stack(jnp.split(unit, number, axis=1))


def stacked(x: Array, z: Array, y: Array) -> Array:
    """The mixing [p + 1, k] from the coefficients of the noises, [k, ...], of the vectors."""
    return jnp.concatenate([x, z, jnp.sum(y, 1)[:, None]], 1).T


def _chosen(training: Sequence[int], size: int) -> list[int]:
    allowed = f"different numbers of environments from 0 to {size - 1}, at least one"
    try:
        chosen = [checks.integer("training", each, minimum=0) for each in training]
    except (TypeError, ValueError):
        chosen = []
    if not chosen or len(set(chosen)) < len(chosen) or max(chosen) >= size:
        raise ValueError(f"training must be {allowed}, got {training!r}")
    return chosen

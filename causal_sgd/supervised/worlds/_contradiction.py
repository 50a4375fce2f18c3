"""The canonical worlds of invariant and spurious inputs, in which methods have closed forms."""

from __future__ import annotations

from typing import Unpack

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import (
    Numbers,
    Placement,
    array,
    check_placement,
    place,
    rotated,
    rotation,
)
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["anticausal", "contradiction"]


def contradiction(
    *,
    mean: float | Array = 0.5,
    spread: float | Array = 1.0,
    variance: float | Array = 4.0,
    noise: float | Array = 1.0,
    noise_spread: float | Array = 0.0,
    biases: Numbers | None = None,
    scales: Numbers | None = None,
    angle: float | Array = 0.0,
    dim_invariant: int = 1,
    dim_spurious: int = 1,
    **placement: Unpack[Placement],
) -> WorldFactory:
    """Invariant inputs, and spurious ones whose correlation with the label's noise varies.

    With one input of each kind: x1 ~ N(0, scale_e^2), y = x1 + sigma_e eps and
    x2 = (b_e / sigma_e) eps + sqrt(V - (b_e / sigma_e)^2) N, so that E x2 (y - x1) = b_e and
    E x x' = diag(scale_e^2, V) in every environment. Of more invariant inputs the label is the sum
    plus noise. d spurious inputs share the noise, eps = (eps_1 + ... + eps_d) / sqrt(d), and x2_j
    has the part b_e sqrt(d) / sigma_e of eps_j: E x x' stays diagonal, and every bias is b_e.

    Args:
        mean: of the biases b_e, mu; may be traced.
        spread: M, b_e = mu + M and mu - M; may be traced.
        variance: V of the spurious inputs; may be traced.
        noise: sigma, the standard deviation of the label's noise; may be traced.
        noise_spread: h in [0, 1), sigma_e = sigma (1 + h) in the first, third, ... environment
            and sigma (1 - h) in the others; may be traced.
        biases: b_e of any environments [E], in place of mean and spread; may be traced.
        scales: standard deviations of the invariant inputs in every environment, [E]; 1 by default.
            May be traced.
        angle: in radians, from -pi/2 to pi/2, by which the coordinates are rotated in the plane of
            the first invariant and the first spurious input, of the second ones, and so on: the
            original (x1, x2) are seen as (cos x1 - sin x2, sin x1 + cos x2). May be traced.
        dim_invariant: number of invariant inputs.
        dim_spurious: number d of spurious inputs.
        **placement: see `Placement`; scrambling comes after `angle`.

    Returns:
        A world factory; without scrambling its world does not depend on the key.

    Raises:
        ValueError: if a number is out of range, or some |b_e| > sigma_e sqrt(V / d).
    """
    checks.number("variance", variance, above=0)
    values, noises, scale = _environments(
        "biases", biases, mean, spread, noise, noise_spread, scales, dim_invariant
    )
    checks.integer("dim_spurious", dim_spurious)
    checks.angle("angle", angle)
    check_placement(placement, len(values), dim_invariant + dim_spurious)
    _check_biases(values, variance, noises, dim_spurious)

    def world(key: Key) -> LinearWorld:
        loading = values * dim_spurious**0.5 / noises
        rest = jnp.sqrt(variance - loading**2)
        # The noises: of the invariant inputs, the parts of eps, and of the spurious inputs.
        on_noise, own = _stack(dim_spurious, loading), _stack(dim_spurious, rest)
        label_noise = jnp.broadcast_to(
            (noises / dim_spurious**0.5)[:, None, None], (len(values), 1, dim_spurious)
        )
        mixing = _mixing(scale, dim_invariant, on_noise, own, label_noise)
        return _placed(key, mixing, dim_invariant, angle, placement)

    return world


def anticausal(
    *,
    mean: float | Array = 0.5,
    spread: float | Array = 1.0,
    noise: float | Array = 1.0,
    noise_spread: float | Array = 0.0,
    spurious_noise: float | Array = 1.0,
    slopes: Numbers | None = None,
    scales: Numbers | None = None,
    angle: float | Array = 0.0,
    dim_invariant: int = 1,
    dim_spurious: int = 1,
    **placement: Unpack[Placement],
) -> WorldFactory:
    """Invariant inputs, and spurious ones that the label causes with varying strength.

    x1 ~ N(0, scale_e^2), y = x1 + sigma_e eps and x2 = s_e y + tau N, so that
    b_e = E x2 (y - x1) = s_e sigma_e^2 and Var x2 = s_e^2 (scale_e^2 + sigma_e^2) + tau^2. With
    more inputs the label is the sum of the invariant ones plus noise, and every spurious one is a
    child of the label with a noise of its own.

    Args:
        mean: of the slopes s_e, mu; may be traced.
        spread: M, s_e = mu + M and mu - M; may be traced.
        noise: sigma, the standard deviation of the label's noise; may be traced.
        noise_spread: h in [0, 1), sigma_e = sigma (1 + h) in the first, third, ... environment
            and sigma (1 - h) in the others; may be traced.
        spurious_noise: tau; may be traced.
        slopes: s_e of any environments [E], in place of mean and spread; may be traced.
        scales: standard deviations of the invariant inputs in every environment, [E]; 1 by default.
            May be traced.
        angle: see `contradiction`.
        dim_invariant: number of invariant inputs.
        dim_spurious: number of spurious inputs.
        **placement: see `Placement`; scrambling comes after `angle`.

    Returns:
        A world factory; without scrambling its world does not depend on the key.

    Raises:
        ValueError: if a number is out of range.
    """
    values, noises, scale = _environments(
        "slopes", slopes, mean, spread, noise, noise_spread, scales, dim_invariant
    )
    checks.number("spurious_noise", spurious_noise, above=0)
    checks.integer("dim_spurious", dim_spurious)
    checks.angle("angle", angle)
    check_placement(placement, len(values), dim_invariant + dim_spurious)

    def world(key: Key) -> LinearWorld:
        size = len(values)
        ones = jnp.ones((1, dim_spurious, 1))
        on_noise = (values * noises)[:, None, None] * ones
        on_inputs = (values * scale)[:, None, None] * jnp.ones((1, dim_spurious, dim_invariant))
        own = _stack(dim_spurious, jnp.broadcast_to(jnp.asarray(spurious_noise, float), (size,)))
        mixing = _mixing(
            scale, dim_invariant, on_noise, own, noises[:, None, None], on_inputs=on_inputs
        )
        return _placed(key, mixing, dim_invariant, angle, placement)

    return world


def _environments(
    name: str,
    values: Numbers | None,
    mean: float | Array,
    spread: float | Array,
    noise: float | Array,
    noise_spread: float | Array,
    scales: Numbers | None,
    dim_invariant: int,
) -> tuple[Array, Array, Array]:
    """What varies, the noises and the scales of the environments, [E] each, all checked."""
    checks.number("mean", mean)
    checks.number("spread", spread, minimum=0)
    checks.number("noise", noise, above=0)
    checks.number("noise_spread", noise_spread, minimum=0, maximum=1)
    checks.integer("dim_invariant", dim_invariant)
    if checks.concrete(noise_spread) == 1:
        raise ValueError("noise_spread must be below 1, so that every environment has noise, got 1")
    if values is None:
        both = jnp.stack([jnp.asarray(mean + spread, float), jnp.asarray(mean - spread, float)])
    else:
        both = array(name, values, ("E",))
    size = len(both)
    noises = noise * (1 + noise_spread * (1 - 2 * (jnp.arange(size) % 2)).astype(float))
    each = jnp.ones(size) if scales is None else array("scales", scales, (size,), above=0)
    return both, noises, each


def _stack(size: int, values: Array) -> Array:
    """Multiples [E, size, size] of the identity."""
    return values[:, None, None] * jnp.eye(size)[None]


def _mixing(
    scale: Array,
    dim_invariant: int,
    on_noise: Array,
    own: Array,
    label_noise: Array,
    on_inputs: Array | None = None,
) -> Array:
    """The mixing [E, p + 1, k] of noises of the invariant inputs, of the label, and of the others.

    Args:
        scale: of the invariant inputs, [E].
        dim_invariant: their number.
        on_noise: of the spurious inputs on the label's noises, [E, d, l].
        own: of the spurious inputs on their own noises, [E, d, d].
        label_noise: of the label on its noises, [E, 1, l].
        on_inputs: of the spurious inputs on the noises of the invariant ones, [E, d, dim]; None for
            not at all.
    """
    first = _stack(dim_invariant, scale)
    (size, _, parts), spurious = label_noise.shape, own.shape[-1]
    if on_inputs is None:
        on_inputs = jnp.zeros((size, spurious, dim_invariant))
    rows = [
        [first, jnp.zeros((size, dim_invariant, parts + spurious))],
        [on_inputs, on_noise, own],
        [jnp.sum(first, 1, keepdims=True), label_noise, jnp.zeros((size, 1, spurious))],
    ]
    return jnp.concatenate([jnp.concatenate(row, 2) for row in rows], 1)


def _placed(
    key: Key, mixing: Array, dim_invariant: int, angle: float | Array, placement: Placement
) -> LinearWorld:
    dim = mixing.shape[1] - 1
    causal = jnp.arange(dim) < dim_invariant
    upright: Placement = {**placement, "scramble": False}
    world = place(key, mixing, causal.astype(float), causal, upright)
    if not checks.is_zero(angle):
        world = rotated(world, _plane_rotations(dim_invariant, dim, angle))
    if placement.get("scramble", False):
        world = rotated(world, rotation(key, dim))
    return world


def _plane_rotations(dim_invariant: int, dim: int, angle: float | Array) -> Array:
    """Q [p, p] with Q'x = (cos x1 - sin x2, sin x1 + cos x2) in every plane of a pair."""
    pairs = min(dim_invariant, dim - dim_invariant)
    paired = np.zeros(dim, bool)
    paired[:pairs] = paired[dim_invariant : dim_invariant + pairs] = True
    turn = np.zeros((dim, dim))
    first = np.arange(pairs)
    turn[first, dim_invariant + first] = 1
    turn = turn - turn.T
    cosine, sine = jnp.cos(jnp.asarray(angle, float)), jnp.sin(jnp.asarray(angle, float))
    return jnp.diag(jnp.where(paired, cosine, 1)) + sine * jnp.asarray(turn, float)


def _check_biases(values: Array, variance: float | Array, noises: Array, dim_spurious: int) -> None:
    biases, most = (
        checks.concrete(values),
        checks.concrete(noises * (variance / dim_spurious) ** 0.5),
    )
    if biases is not None and most is not None and (abs(biases) > most * (1 + 1e-6)).any():
        raise ValueError(
            "biases must be at most noise * sqrt(variance / dim_spurious) = "
            f"{most.round(6).tolist()} in size, got {biases.tolist()}"
        )

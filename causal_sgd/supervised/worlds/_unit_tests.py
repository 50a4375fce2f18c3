"""The invariance unit tests of Aubin et al. (2021): three examples, each scrambled or not.

All three may be drawn with room for more spurious inputs than they use, so that one program serves
many sizes: `used_spurious` is then a traced number, and the inputs beyond it are zero. Likewise an
environment whose probability is zero does not occur. What is drawn for an environment or an input
does not depend on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Unpack

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._chain import stacked
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._mixture import MixtureWorld
from causal_sgd.supervised.worlds._placement import (
    Numbers,
    Placement,
    array,
    check_placement,
    place,
    weights_of,
)
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["unit_test_cows", "unit_test_margin", "unit_test_regression"]

SCALES = (0.1, 1.5, 2.0)
BACKGROUNDS = (0.95, 0.97, 0.99)
FOREGROUNDS = (0.3, 0.5, 0.7)
WEAK = 0.01  # size of the invariant inputs of the cows
NOISE = 1 / math.sqrt(10)  # of an input of the cows, in units of its mean
MARGIN = 0.1  # size and noise of the inputs of the margin


def unit_test_regression(
    *,
    dim_causal: int = 5,
    dim_spurious: int = 5,
    used_spurious: int | Array | None = None,
    scales: Numbers | None = None,
    num_environments: int | None = None,
    **placement: Unpack[Placement],
) -> WorldFactory:
    """Example 1 of the invariance unit tests (Aubin et al. 2021), and 1s if scrambled.

    In the environment of scale e: x = e N, y = x W_xy + e N, z = y W_yz + N with W_xy = N / d_c of
    shape [d_c, d_c] and W_yz = N / d_s of shape [d_c, d_s]. The inputs are (x, z) and the label is
    the sum of y, so w* = (row sums of W_xy, 0), and its risk is d_c e^2. In the environments of the
    test, which have the same scales, z is independent of (x, y) with the same distribution.

    Args:
        dim_causal: d_c.
        dim_spurious: d_s, at least 0.
        used_spurious: how many spurious inputs are not zero; may be traced. None for all.
        scales: e of every environment; may be traced. None for 0.1, 1.5 and 2, and 10^U(-2, 1) for
            environments beyond the third, drawn with the world.
        num_environments: E where `scales` is None; 3 by default.
        **placement: see `Placement`.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range, or scales and num_environments are both given.
    """
    dim = _dim(dim_causal, dim_spurious, used_spurious)
    if scales is not None and num_environments is not None:
        raise ValueError(
            f"num_environments must be None where scales are given, got {num_environments!r}"
        )
    given = None if scales is None else array("scales", scales, ("E",), above=0)
    size = _size(num_environments) if given is None else len(given)
    check_placement(placement, size, dim)

    def world(key: Key) -> LinearWorld:
        kind = jnp.result_type(float)
        first, second = random.fold_in(key, jnp.arange(2))
        on_y = random.normals(first, (dim_causal, dim_causal), kind) / dim_causal
        used = _used(dim_spurious, used_spurious)
        drawn = _normals(second, jnp.arange(dim_spurious), dim_causal)
        on_z = drawn.T * used[None] / jnp.maximum(jnp.sum(used), 1)
        values = given
        if values is None:
            values = _continued(random.fold_in(key, 2), SCALES, size, lambda u: 10 ** (3 * u - 2))

        def mixing(scale: Array) -> tuple[Array, Array]:
            return _mixing(scale, on_y, on_z, used)

        every, tests = jax.vmap(mixing)(values)
        target = jnp.concatenate([jnp.sum(on_y, 1), jnp.zeros(dim_spurious)])
        causal = jnp.arange(dim) < dim_causal
        own = random.fold_in(key, 3)
        turn = _rotation(own, dim, dim_causal + jnp.sum(used))
        return place(own, every, target, causal, placement, tests, turn)

    return world


def unit_test_cows(
    *,
    dim_causal: int = 5,
    dim_spurious: int = 5,
    used_spurious: int | Array | None = None,
    backgrounds: Numbers | None = None,
    foregrounds: Numbers | None = None,
    num_environments: int | None = None,
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Example 2 of the invariance unit tests (Aubin et al. 2021): cows, camels and backgrounds.

    The label y is +1 (a cow) with probability s_e and -1 otherwise, and the background b agrees
    with it with probability p_e. The inputs are x = 0.01 (y 1 + N / sqrt(10)) and z = b 1 +
    N / sqrt(10). (The source's label is the sign of the sum of x, which is y up to 7 standard
    deviations.) In the environments of the test b is independent of y, with the same distribution.
    w* holds the logit weights of x, 2 mean / variance.

    Args:
        dim_causal: number of the inputs x.
        dim_spurious: number of the inputs z, at least 0.
        used_spurious: how many spurious inputs are not zero; may be traced. None for all.
        backgrounds: p_e of every environment, in [0, 1]; may be traced. None for 0.95, 0.97 and
            0.99, and U(0.9, 1) for environments beyond the third, drawn with the world.
        foregrounds: s_e of every environment, in [0, 1]; may be traced. None for 0.3, 0.5 and 0.7,
            and U(0.3, 0.7) beyond the third.
        num_environments: E where neither is given; 3 by default.
        scramble: whether the inputs are rotated by a random rotation of the key (Example 2s).
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range, or the numbers of environments differ.
    """
    dim = _dim(dim_causal, dim_spurious, used_spurious)
    size = _size(num_environments)
    given: dict[str, Array | None] = {}
    for name, value in (("backgrounds", backgrounds), ("foregrounds", foregrounds)):
        given[name] = None
        if value is not None:
            shape = ("E",) if num_environments is None else (size,)
            given[name] = array(name, value, shape, minimum=0, maximum=1)
    sizes = {len(value) for value in given.values() if value is not None} or {size}
    if len(sizes) > 1:
        raise ValueError(
            "foregrounds must have a number for each of the backgrounds, got "
            f"{sorted(sizes)} numbers"
        )
    size = sizes.pop()
    _check_options(scramble, probabilities, size)

    def world(key: Key) -> MixtureWorld:
        agree, share = given["backgrounds"], given["foregrounds"]
        if agree is None:
            own = random.fold_in(key, 0)
            agree = _continued(own, BACKGROUNDS, size, lambda u: 0.9 + 0.1 * u)
        if share is None:
            own = random.fold_in(key, 1)
            share = _continued(own, FOREGROUNDS, size, lambda u: 0.3 + 0.4 * u)
        background = share * agree + (1 - share) * (1 - agree)
        used = _used(dim_spurious, used_spurious)
        signs = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])  # (y, b)
        means = jnp.concatenate(
            [
                jnp.broadcast_to(WEAK * signs[:, :1], (4, dim_causal)),
                signs[:, 1:] * used[None],
            ],
            1,
        )
        noise = jnp.concatenate([jnp.full(dim_causal, WEAK * NOISE), NOISE * used])

        def shares(cow: Array, other: Array, others: Array) -> Array:
            """The shares [E, 4] where b = 1 has these probabilities with y = 1 and y = -1."""
            parts = [cow * other, cow * (1 - other), (1 - cow) * (1 - others), (1 - cow) * others]
            return jnp.stack(parts, 1)

        return _mixture(
            random.fold_in(key, 2),
            weights=shares(share, agree, 1 - agree),
            means=means[None],
            labels=signs[:, 0],
            test_weights=shares(share, background, background),
            test_means=means[None],
            test_labels=signs[:, 0],
            noise=noise,
            target=jnp.where(jnp.arange(dim) < dim_causal, 2 / (WEAK * NOISE**2), 0),
            causal=jnp.arange(dim) < dim_causal,
            scramble=scramble,
            probabilities=weights_of(probabilities, size),
        )

    return world


def unit_test_margin(
    *,
    dim_causal: int = 5,
    dim_spurious: int = 5,
    used_spurious: int | Array | None = None,
    num_environments: int = 3,
    spurious_means: Numbers | None = None,
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Example 3 of the invariance unit tests (Aubin et al. 2021): small margins.

    The label y is +1 or -1 with probability 1/2. The inputs are x = -0.1 y 1 + 0.1 N and
    z = -y c_e + 0.1 N with c_e ~ N(0, I) of every environment. In the environments of the test z is
    independent of y, with the same distribution. w* holds the logit weights of x, 2 mean /
    variance.

    Args:
        dim_causal: number of the inputs x.
        dim_spurious: number of the inputs z, at least 0.
        used_spurious: how many spurious inputs are not zero; may be traced. None for all.
        num_environments: E.
        spurious_means: c_e of every environment, [E, dim_spurious], in place of drawn ones; may be
            traced.
        scramble: whether the inputs are rotated by a random rotation of the key (Example 3s).
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range.
    """
    dim = _dim(dim_causal, dim_spurious, used_spurious)
    size = _size(num_environments)
    given = None
    if spurious_means is not None:
        given = array("spurious_means", spurious_means, ("E", dim_spurious))
        size = len(given)
    _check_options(scramble, probabilities, size)

    def world(key: Key) -> MixtureWorld:
        used = _used(dim_spurious, used_spurious)
        centers = given
        if centers is None:
            places = jnp.arange(size)[:, None] * 1000 + jnp.arange(dim_spurious)[None]
            drawn = _normals(random.fold_in(key, 0), places.ravel(), 1)
            centers = drawn.reshape(size, dim_spurious)
        centers = centers * used[None]
        invariant = jnp.full((size, dim_causal), MARGIN)
        agreeing = jnp.concatenate([invariant, centers], 1)
        opposed = jnp.concatenate([invariant, -centers], 1)
        return _mixture(
            random.fold_in(key, 1),
            weights=jnp.full((size, 2), 0.5),
            means=jnp.stack([agreeing, -agreeing], 1),
            labels=jnp.array([-1.0, 1.0]),
            test_weights=jnp.full((size, 4), 0.25),
            test_means=jnp.stack([agreeing, opposed, -agreeing, -opposed], 1),
            test_labels=jnp.array([-1.0, -1.0, 1.0, 1.0]),
            noise=MARGIN * jnp.concatenate([jnp.ones(dim_causal), used]),
            target=jnp.where(jnp.arange(dim) < dim_causal, -2 / MARGIN, 0),
            causal=jnp.arange(dim) < dim_causal,
            scramble=scramble,
            probabilities=weights_of(probabilities, size),
        )

    return world


def _dim(dim_causal: int, dim_spurious: int, used_spurious: int | Array | None) -> int:
    """The number of inputs p, with all arguments checked."""
    checks.integer("dim_causal", dim_causal)
    checks.integer("dim_spurious", dim_spurious, minimum=0, maximum=999)
    if used_spurious is not None:
        checks.whole("used_spurious", used_spurious, minimum=0, maximum=dim_spurious)
    return dim_causal + dim_spurious


def _size(num_environments: int | None) -> int:
    return 3 if num_environments is None else checks.integer("num_environments", num_environments)


def _check_options(scramble: bool, probabilities: Numbers | None, size: int) -> None:
    checks.flags(scramble=scramble)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)


def _used(dim_spurious: int, used_spurious: int | Array | None) -> Array:
    """1 for the spurious inputs that are used, and 0 for others, [dim_spurious]."""
    limit = dim_spurious if used_spurious is None else used_spurious
    return (jnp.arange(dim_spurious) < limit).astype(float)


def _normals(key: Key, places: Array, count: int) -> Array:
    """Standard normal numbers [n, count], each row from a key of its own place [n]."""
    kind = jnp.result_type(float)
    if not len(places):
        return jnp.zeros((0, count), kind)
    return jax.vmap(lambda key: random.normals(key, count, kind))(random.fold_in(key, places))


def _continued(
    key: Key, first: tuple[float, ...], size: int, drawn: Callable[[Array], Array]
) -> Array:
    """The source's numbers of the first three environments, and drawn ones beyond; [E]."""
    uniform = random.uniforms(random.bits(key, size), jnp.result_type(float))
    known = jnp.array(first)[:size]
    return jnp.concatenate([known, drawn(uniform[len(known) :])])


def _mixing(scale: Array, on_y: Array, on_z: Array, used: Array) -> tuple[Array, Array]:
    """The mixing [p + 1, k] of an environment and [p + 1, k'] of its test."""
    causal, spurious = on_z.shape
    # The test has an independent copy of the noises of x and y for z alone.
    unit = jnp.eye(4 * causal + spurious)
    parts = jnp.split(unit, [causal * place for place in (1, 2, 3, 4)], axis=1)
    x, other_x = scale * parts[0], scale * parts[2]
    y = linalg.product(x, on_y) + scale * parts[1]
    other_y = linalg.product(other_x, on_y) + scale * parts[3]
    own = parts[4] * used[None]
    z, other_z = linalg.product(y, on_z) + own, linalg.product(other_y, on_z) + own
    kept = jnp.concatenate([jnp.arange(2 * causal), 4 * causal + jnp.arange(spurious)])
    return stacked(x, z, y)[:, kept], stacked(x, other_z, y)


def _rotation(key: Key, dim: int, used: Array) -> Array:
    """A Haar distributed rotation of the first inputs that leaves the unused ones alone, [p, p]."""
    numbers = jnp.arange(dim)
    places = numbers[:, None] * 1000 + numbers[None]
    keys = random.fold_in(key, places.ravel())
    drawn = jax.vmap(lambda key: random.normals(key, 1, jnp.result_type(float)))(keys)
    turns = (numbers[:, None] < used) & (numbers[None] < used)
    return linalg.orthonormal(jnp.where(turns, drawn.reshape(dim, dim), jnp.eye(dim)))


def _mixture(
    key: Key,
    *,
    means: Array,
    test_means: Array,
    noise: Array,
    target: Array,
    scramble: bool,
    **own: Array,
) -> MixtureWorld:
    """A mixture of groups with independent inputs, scrambled if wanted.

    Args:
        key: of the rotation.
        means: [E, G, p] in the original coordinates, or [1, G, p].
        test_means: [T, G', p], or [1, G', p].
        noise: standard deviations of the inputs within a group, [p].
        target: w* [p].
        scramble: whether the inputs are rotated.
        **own: the other fields.
    """
    dim = target.shape[0]
    turn = _rotation(key, dim, jnp.sum(noise > 0)) if scramble else jnp.eye(dim)
    return MixtureWorld(
        means=linalg.product(means, turn),
        test_means=linalg.product(test_means, turn),
        root=turn.T * noise[None],
        target=linalg.product(turn.T, target[:, None])[:, 0],
        unscramble=turn,
        test_root=None,
        rows=None,
        **own,
    )

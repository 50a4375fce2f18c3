"""Exact draws of counts: binomials, multinomials and subsets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg
from causal_sgd.random._bits import bits, uniforms
from causal_sgd.types import Array, Key


# Compiled once a shape. Op by op, outside of any program, a loop is compiled in every call.
@jax.jit
def multinomial(key: Key, total: Array, probabilities: Array) -> Array:
    """Multinomial counts by halving the cells: log2(E) rounds of simultaneous binomials.

    `jax.random.multinomial` visits the cells one after the other, with binomials that take ten
    times as long as the rest of a step.

    Args:
        key: one key; stream i of its words serves round i.
        total: number of trials [], a whole float; may be traced.
        probabilities: of the cells [E], summing to one; may be traced.

    Returns:
        Counts [E] as floats, which sum to `total`.
    """
    size = probabilities.shape[0]
    levels = (size - 1).bit_length()
    if not levels:
        return jnp.full(1, total, probabilities.dtype)
    # The weights of a binary tree over the cells, padded to a power of two; leaves first.
    weights = [jnp.pad(probabilities, (0, 2**levels - size))]
    for _ in range(levels):
        weights.append(weights[-1].reshape(-1, 2).sum(1))
    width = 2**levels // 2
    shares = []  # of the left child of each node, root first; all levels padded to one width
    for children, parents in zip(weights[-2::-1], weights[:0:-1], strict=True):
        share = children[::2] / jnp.where(parents > 0, parents, 1)
        shares.append(jnp.pad(share, (0, width - share.shape[0])))

    def split(counts: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        index, share = level
        uniform = uniforms(bits(key, width * BINOMIAL_UNIFORMS, index), probabilities.dtype)
        left = binomial(uniform.reshape(width, BINOMIAL_UNIFORMS), counts[:width], share)
        return jnp.stack([left, counts[:width] - left], 1).reshape(-1), None

    # Counts past the current level are zero and stay zero. A scan compiles the binomial once.
    counts = jnp.zeros(2**levels, probabilities.dtype).at[0].set(total)
    counts, _ = jax.lax.scan(split, counts, (jnp.arange(levels), jnp.stack(shares)))
    return counts[:size]


BINOMIAL_TERMS = 48
BINOMIAL_CANDIDATES = 16
BINOMIAL_UNIFORMS = 1 + 2 * BINOMIAL_CANDIDATES
"""Uniform numbers that a binomial takes."""


@jax.custom_batching.custom_vmap
def binomial(uniform: Array, number: Array, share: Array) -> Array:
    """Binomial draws without a loop.

    Where the mean of the rarer outcome is at least 10: transformed rejection (BTRS of Hoermann
    1993). A candidate is accepted with a probability of at least 0.69 (the least, at 20 trials and
    p = 1/2); 16 are tested at once and the first accepted one is taken. (All fail in fewer than one
    of 10^8 draws; the mode is then taken.) Below a mean of 10: inversion of the first 48 terms; all
    further terms have a probability of 1e-16. A branch that no draw needs, in this run or those
    mapped with it, is skipped; results do not change.

    Args:
        uniform: numbers in [0, 1), [..., BINOMIAL_UNIFORMS].
        number: numbers of trials, whole floats [...].
        share: probabilities of success [...].

    Returns:
        Numbers of successes [...], whole floats.
    """
    p = jnp.minimum(share, 1 - share)
    mean = number * p
    many, few = mean >= 10, (mean > 0) & (mean < 10)

    def invert() -> Array:
        return _few_successes(uniform[..., 0], jnp.where(few, number, 1), jnp.where(few, p, 0.5))

    def reject() -> Array:
        u, v = jnp.split(uniform[..., 1:], 2, axis=-1)
        return _many_successes(
            u, v, jnp.where(many, number, 100)[..., None], jnp.where(many, p, 0.5)[..., None]
        )

    none = functools.partial(jnp.zeros_like, mean)
    small = jax.lax.cond(jnp.any(few), invert, none)
    large = jax.lax.cond(jnp.any(many), reject, none)
    rarer = jnp.where(many, large, jnp.where(few, small, 0))
    return jnp.where(share > 0.5, number - rarer, rarer)


@binomial.def_vmap
def _binomials_of_runs(runs: int, mapped: Sequence[bool], *arguments: Array) -> tuple[Array, bool]:
    """All runs in one call, so that its branches stay branches: `vmap` would evaluate both."""
    return binomial(*linalg.broadcast_unmapped(runs, mapped, arguments)), True


def _few_successes(uniform: Array, number: Array, share: Array) -> Array:
    """Binomial draws [...] by inversion, for means below 10 and shares of at most 1/2.

    Args:
        uniform: numbers in [0, 1), [...].
        number: numbers of trials [...].
        share: probabilities of success [...].
    """
    k = jnp.arange(1, BINOMIAL_TERMS, dtype=share.dtype).reshape((1,) * number.ndim + (-1,))
    # P(k) / P(k - 1); beyond the number of trials a tiny positive ratio, whose logarithm is finite
    ratios = jnp.maximum(number[..., None] - k + 1, 1e-30) / k * (share / (1 - share))[..., None]
    # Sums by products with a triangle: a cumulative sum is a dozen small kernels, each with a
    # start of its own.
    up_to, before = (
        np.triu(np.ones((BINOMIAL_TERMS,) * 2), place).astype(share.dtype) for place in (0, 1)
    )
    terms = jnp.exp(linalg.product(jnp.log(ratios), before[:-1]))  # P(k) / P(0)
    chances = linalg.product(terms, up_to)
    # The level is divided by P(0) = (1 - share)^number, in place of a product for each term.
    level = uniform * jnp.exp(-number * jnp.log1p(-share))
    return jnp.minimum(jnp.sum((chances <= level[..., None]).astype(share.dtype), -1), number)


def _many_successes(u: Array, v: Array, number: Array, share: Array) -> Array:
    """Binomial draws [...] by rejection of c candidates, for means >= 10 and shares <= 1/2.

    Args:
        u: uniform numbers in [0, 1), [..., c].
        v: uniform numbers in [0, 1), [..., c].
        number: numbers of trials [..., 1].
        share: probabilities of success [..., 1].
    """
    # The constants of the hat are Hoermann's, algorithm BTRS, step 0.
    spread = jnp.sqrt(number * share * (1 - share))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * share
    u, v = u + (2**-24 - 0.5), v + 2**-24  # the middles of the cells: v is never 0
    us = jnp.maximum(0.5 - jnp.abs(u), jnp.finfo(share.dtype).eps)
    x = jnp.floor((2 * a / us + b) * u + number * share + 0.5)
    k = jnp.clip(x, 0, number)
    rarity, size = _rarity(k, number, share)
    # Hoermann compares with the probability of the mode. One percent above that of the normal
    # law, 1 / sqrt(2 pi n p q), is a bound for all n and p that occur here, which is as exact.
    height = 1.01 * v * (2.83 + 5.1 / b) / (a / us**2 + b) * jnp.sqrt(size / number)
    excess = jnp.where(k == x, jnp.log(height) + rarity, 1)  # candidates out of range are rejected
    first = jnp.floor((number + 1) * share)[..., 0]  # the mode, if all candidates are rejected
    for place in range(u.shape[-1] - 1, -1, -1):
        first = jnp.where(excess[..., place] <= 0, x[..., place], first)
    return first


def _rarity(k: Array, number: Array, share: Array) -> tuple[Array, Array]:
    """Numbers r and s: k successes have the probability exp(-r) / sqrt(s) up to a factor free of k.

    By Stirling's log x! = x log x - x + log(2 pi x) / 2 + 1 / (12 x) - 1 / (360 x^3). The terms
    x log x combine to x log(x / m) with the means m, whose rounding error is 1e-7 times the
    distance from the mean instead of 1e-7 times x.
    """
    rarity, size = 0, 1
    above = k - number * share
    for x, mean, excess in ((k, number * share, above), (number - k, number * (1 - share), -above)):
        inverse = 1 / jnp.maximum(x, 1)
        rarity += x * jnp.log1p(jnp.maximum(excess / mean, -1 + 1e-7))
        rarity += jnp.where(x > 0, (1 / 12 - inverse**2 / 360) * inverse, 0)
        size *= jnp.where(x > 0, x, 1 / (2 * math.pi))
    return rarity, size


def subset(key: Key, size: int, count: Array, among: Array | None = None) -> Array:
    """A uniformly distributed subset of `count` of `size` elements, or of the first `among`.

    It holds the elements with the `count` smallest of iid 32-bit numbers. Bisection finds the
    threshold, since sorting takes longer than the products of a step. Elements equal to the
    threshold are taken in order, so the count is always exact.

    Args:
        key: one key.
        size: number of elements.
        count: elements to take [], a whole number that may be traced; all for larger ones.
        among: number of elements that may be taken [], at least `count`; None for all.

    Returns:
        A mask [size].
    """
    return (_subset if checks.is_tracing() else _compiled_subset)(key, size, count, among)


def _subset(key: Key, size: int, count: Array, among: Array | None) -> Array:
    numbers = bits(key, size)
    if among is not None:  # the others come last
        others = jax.lax.iota(jnp.int32, size) >= among
        numbers = jnp.where(others, np.uint32(2**32 - 1), numbers >> 1)

    def largest(fits: Callable[[Array], Array], num_bits: int) -> Array:
        """The largest number of `num_bits` bits that fits, for a condition that is decreasing."""

        def halve(index: Array, lower: Array) -> Array:
            candidate = lower | (jnp.uint32(1) << (num_bits - 1 - index).astype(jnp.uint32))
            return jnp.where(fits(candidate), candidate, lower)

        return jax.lax.fori_loop(0, num_bits, halve, jnp.zeros((), jnp.uint32))

    def number_of(mask: Array) -> Array:
        return jnp.sum(mask, dtype=jnp.int32)

    # Fewer than `count` numbers lie below the threshold (none for a count of 0), so the rest is
    # taken from those equal to it.
    threshold = largest(lambda number: number_of(numbers < number) < count, 32)
    below, level = numbers < threshold, numbers == threshold
    missing = count - number_of(below)
    place = jax.lax.iota(jnp.uint32, size)
    last = largest(lambda number: number_of(level & (place < number)) < missing, size.bit_length())
    return below | (level & (place <= last) & (missing > 0))


# By hand. Within a program, a function that is jitted would only be one more call.
_compiled_subset = jax.jit(_subset, static_argnums=1)


PLACES_UNROLLED = 8


def places(key: Key, most: int, count: int | Array, among: int | Array) -> Array:
    """The elements of a uniformly distributed subset, without a pass over those not in it.

    Floyd's algorithm (Bentley and Floyd 1987): step i takes a random one of the first `among` -
    `count` + i + 1 elements, or the last of these if it was taken before.

    Args:
        key: one key.
        most: as many as may be asked for, static.
        count: elements to take [], a whole number that may be traced, at most `most` and `among`.
        among: number of elements [].

    Returns:
        Different whole numbers below `among`, [most] int32; 0 at the places from `count` on.
    """
    words = bits(key, most)
    order = jnp.arange(most)
    first = jnp.asarray(among, jnp.int32) - jnp.asarray(count, jnp.int32)

    def add(index: int | Array, taken: Array) -> Array:
        last = jnp.maximum(first + index, 0).astype(jnp.int32)
        place = (words[index] % (last + 1).astype(jnp.uint32)).astype(jnp.int32)
        place = jnp.where(jnp.any(taken == place), last, place)
        return jnp.where(order == index, place, taken)

    taken = jnp.full(most, -1, jnp.int32)
    if most <= PLACES_UNROLLED:
        for index in range(most):
            taken = add(index, taken)
    else:
        taken = jax.lax.fori_loop(0, most, add, taken)
    return jnp.where(order < count, taken, 0)

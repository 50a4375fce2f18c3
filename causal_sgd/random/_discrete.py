"""Exact random numbers of things: binomials, multinomials, subsets."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import linalg
from causal_sgd.random._bits import bits, uniforms
from causal_sgd.types import Array, Key

__all__ = ["BINOMIAL_UNIFORMS", "binomial", "multinomial", "subset"]


def multinomial(key: Key, total: Array, probabilities: Array) -> Array:
    """Multinomial counts [E] as floats of a total [] (may be traced), by halving the environments: log2 E rounds of binomials side by side.

    `jax.random.multinomial` goes through the environments one after the other, with binomials that take ten times as
    long as the rest of a step.
    """
    size = probabilities.shape[0]
    levels = (size - 1).bit_length()
    if not levels:
        return jnp.full(1, total, probabilities.dtype)
    weights = [
        jnp.pad(probabilities, (0, 2**levels - size))
    ]  # of the leaves, then of their pairs, up to the root
    for _ in range(levels):
        weights.append(weights[-1].reshape(-1, 2).sum(1))
    width = 2**levels // 2
    shares = []  # of the left child in each node of a level, from the root down, padded to one width
    for children, parents in zip(weights[-2::-1], weights[:0:-1], strict=True):
        share = children[::2] / jnp.where(parents > 0, parents, 1)
        shares.append(jnp.pad(share, (0, width - share.shape[0])))

    def split(counts: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        index, share = level
        uniform = uniforms(bits(key, width * BINOMIAL_UNIFORMS, index), probabilities.dtype)
        left = binomial(uniform.reshape(width, BINOMIAL_UNIFORMS), counts[:width], share)
        return jnp.stack([left, counts[:width] - left], 1).reshape(-1), None

    counts = jnp.zeros(2**levels, probabilities.dtype).at[0].set(total)
    # a scan, so that the binomial is compiled once
    counts, _ = jax.lax.scan(split, counts, (jnp.arange(levels), jnp.stack(shares)))
    return counts[:size]


BINOMIAL_TERMS = 48
BINOMIAL_CANDIDATES = 16
BINOMIAL_UNIFORMS = 1 + 2 * BINOMIAL_CANDIDATES
"""How many uniform numbers a binomial takes."""


@jax.custom_batching.custom_vmap
def binomial(uniform: Array, number: Array, share: Array) -> Array:
    """Binomial draws [...] as floats for numbers of trials [...] and probabilities [...], without a loop.

    Transformed rejection (BTRS of Hoermann 1993) where the mean of the rarer outcome is at least 10: a candidate is
    accepted with a probability of at least 0.7, and of 16 at once the first accepted one is taken. (All fail in fewer than
    one of 10^8 draws; the mode is then taken.) Inversion of the first 48 terms below that, where all terms beyond have a
    probability of 1e-16. A way that no draw needs, nor any of the runs beside it, is left out, which changes no draw.

    Args:
        uniform: numbers in [0, 1), [..., BINOMIAL_UNIFORMS].
        number: of trials, whole floats, [...].
        share: the probability, [...].
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
    """All runs in one call, so that its branches stay branches: `vmap` would take both."""
    whole = (
        argument if is_mapped else jnp.broadcast_to(argument, (runs, *argument.shape))
        for argument, is_mapped in zip(arguments, mapped, strict=True)
    )
    return binomial(*whole), True


def _few_successes(uniform: Array, number: Array, share: Array) -> Array:
    """Binomial draws [...] by inversion of uniform numbers [...] in [0, 1), for means below 10 and shares of at most 1/2."""
    k = jnp.arange(1, BINOMIAL_TERMS, dtype=share.dtype).reshape((1,) * number.ndim + (-1,))
    ratios = jnp.maximum(number[..., None] - k + 1, 1e-30) / k * (share / (1 - share))[..., None]
    # Sums by products with a triangle: a cumulative sum is a dozen small kernels, each with a start of its own.
    up_to, before = (
        np.triu(np.ones((BINOMIAL_TERMS,) * 2), place).astype(share.dtype) for place in (0, 1)
    )
    terms = jnp.exp(
        linalg.product(jnp.log(ratios), before[:-1])
    )  # over that of 0, (1 - share)^number
    chances = linalg.product(terms, up_to)
    level = uniform * jnp.exp(-number * jnp.log1p(-share))
    return jnp.minimum(jnp.sum((chances <= level[..., None]).astype(share.dtype), -1), number)


def _many_successes(u: Array, v: Array, number: Array, share: Array) -> Array:
    """Binomial draws [...] by rejection of c candidates, for means of at least 10 and shares of at most 1/2.

    Args:
        u: uniform numbers in [0, 1), [..., c].
        v: uniform numbers in [0, 1), [..., c].
        number: of trials, [..., 1].
        share: the probability, [..., 1].
    """
    spread = jnp.sqrt(number * share * (1 - share))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * share
    u, v = u + (2**-24 - 0.5), v + 2**-24  # the middles of the cells: v is never 0
    us = jnp.maximum(0.5 - jnp.abs(u), jnp.finfo(share.dtype).eps)
    x = jnp.floor((2 * a / us + b) * u + number * share + 0.5)
    k = jnp.clip(x, 0, number)
    rarity, size = _rarity(k, number, share)
    # Hoermann compares with the probability of the mode. One percent above that of the normal law, 1 / sqrt(2 pi n p q), it
    # has a bound for all n and p that come here, which is as exact.
    height = 1.01 * v * (2.83 + 5.1 / b) / (a / us**2 + b) * jnp.sqrt(size / number)
    excess = jnp.where(k == x, jnp.log(height) + rarity, 1)
    first = jnp.floor((number + 1) * share)[..., 0]
    for place in range(u.shape[-1] - 1, -1, -1):
        first = jnp.where(excess[..., place] <= 0, x[..., place], first)
    return first


def _rarity(k: Array, number: Array, share: Array) -> tuple[Array, Array]:
    """Numbers r and s: k successes have a probability of exp(-r) / sqrt(s), up to a factor that is free of k.

    From Stirling's log x! = x log x - x + log(2 pi x) / 2 + 1 / 12 x - 1 / 360 x^3, with what is left of all x log x written as
    x log(x / m) for the means m: an error of 1e-7 times the distance from the mean, where x log x would have 1e-7 times x.
    """
    rarity, size = 0, 1
    above = k - number * share
    for x, mean, excess in ((k, number * share, above), (number - k, number * (1 - share), -above)):
        inverse = 1 / jnp.maximum(x, 1)
        rarity += x * jnp.log1p(jnp.maximum(excess / mean, -1 + 1e-7))
        rarity += jnp.where(x > 0, (1 / 12 - inverse**2 / 360) * inverse, 0)
        size *= jnp.where(x > 0, x, 1 / (2 * math.pi))
    return rarity, size


def subset(key: Key, size: int, count: Array) -> Array:
    """A uniformly drawn subset of `count` [] of so many things, as a mask [size]; all of them for larger counts.

    Those with the `count` smallest of iid 32-bit numbers; the threshold comes from bisection, as sorting takes longer
    than the products of a step. Equal numbers at the threshold are taken in order, so the count is always exact.
    """
    numbers = bits(key, size)

    def largest(fits: Callable[[Array], Array], num_bits: int) -> Array:
        """The largest whole number of so many bits that fits, where those that do lie below those that do not."""

        def halve(index: Array, known: Array) -> Array:
            candidate = known | (jnp.uint32(1) << (num_bits - 1 - index).astype(jnp.uint32))
            return jnp.where(fits(candidate), candidate, known)

        return jax.lax.fori_loop(0, num_bits, halve, jnp.zeros((), jnp.uint32))

    def number_of(mask: Array) -> Array:
        return jnp.sum(mask, dtype=jnp.int32)

    threshold = largest(lambda number: number_of(numbers < number) < count, 32)
    below, level = numbers < threshold, numbers == threshold
    missing = count - number_of(below)
    place = jax.lax.iota(jnp.uint32, size)
    last = largest(lambda number: number_of(level & (place < number)) < missing, size.bit_length())
    return below | (level & (place <= last) & (missing > 0))

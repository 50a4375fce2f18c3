"""Exact random draws with traced parameters that stay cheap inside a scanned and vmapped step.

jax.random has them all but the GOE; its loops are what they cost. `jax.random.multinomial` takes longer than the rest of
a step, and `jax.random.gamma` takes over a second to compile and, vmapped over some numbers of lanes at shapes of 5e7,
never came to an end on a CPU. Its bits come from a loop over rounds of Threefry too, on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array, Key

__all__ = ["binomial", "bits", "chi_square", "goe", "multinomial", "normal", "subset"]


def bits(key: Key, shape: tuple[int, ...]) -> Array:
    """`jax.random.bits(key, shape)`, the same uint32 numbers, at several times its speed on a CPU.

    On a CPU jax compiles Threefry-2x32 as a loop over its rounds, which sends the whole array through memory in each of
    them. Written out, all 20 rounds are one fused loop over the numbers. Other generators are left to jax.
    """
    size = math.prod(shape)
    threefry = str(jax.random.key_impl(key)) == "threefry2x32" and jax.config.values["jax_threefry_partitionable"]
    if not threefry or size >= 2**32:
        return jax.random.bits(key, shape)
    words = jax.random.key_data(key)
    keys = words[0], words[1], words[0] ^ words[1] ^ np.uint32(0x1BD11BDA)
    low = keys[1] + jax.lax.iota(jnp.uint32, size)
    high = jnp.broadcast_to(keys[0], low.shape)
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(turn)) | (low >> np.uint32(32 - turn)))
        high = high + keys[(group + 1) % 3]
        low = low + (keys[(group + 2) % 3] + np.uint32(group + 1))
    return (high ^ low).reshape(shape)


def normal(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
    """`jax.random.normal(key, shape, dtype)`, the same numbers; in single precision at the speed of `bits`."""
    if dtype != jnp.float32:
        return jax.random.normal(key, shape, dtype)
    low = np.nextafter(np.float32(-1), np.float32(0))
    unit = jax.lax.bitcast_convert_type((bits(key, shape) >> np.uint32(9)) | np.uint32(0x3F800000), jnp.float32) - 1
    uniform = jnp.maximum(low, unit * (np.float32(1) - low) + low)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def subset(key: Key, size: int, count: Array) -> Array:
    """A uniformly drawn subset of `count` [] of so many things, as a mask [size]; all of them for larger counts.

    Those with the `count` smallest of iid 32-bit numbers; the threshold comes from bisection, as sorting takes longer
    than the products of a step. Equal numbers at the threshold are taken in order, so the count is always exact.
    """
    numbers = bits(key, (size,))

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


def chi_square(key: Key, degrees: Array) -> Array:
    """Chi-square draws [n] for whole, traced degrees of freedom [n], which are floats; 0 where there are none.

    2 Gamma(degrees / 2) by the rejection method of Marsaglia and Tsang (2000), whose candidates are accepted with a
    probability of at least 0.96: of six at once the first accepted one is taken, so there is no loop. (All six fail in
    fewer than one of 10^8 draws; the first one is then taken all the same.)
    """
    candidates = 6
    dtype = degrees.dtype
    shape = (degrees.shape[0], candidates)
    normal_key, uniform_key, lift_key = jax.random.split(key, 3)
    alpha = degrees / 2
    lifted = alpha < 1.5  # Gamma(a) = Gamma(a + 1) U^(1/a), where candidates would be refused more often
    d = jnp.where(lifted, alpha + 1, alpha)[:, None] - 1 / 3
    x = jax.random.normal(normal_key, shape, dtype)
    t = x / jnp.sqrt(9 * d)
    # Accept if log U < x^2 / 2 + d (1 - v + log v) with v = (1 + t)^3, that is 3 d (log(1 + t) - t + t^2/2 - t^3/3): its
    # terms cancel for large d, where the rest of the series is what remains.
    t_safe = jnp.maximum(t, -0.99)
    series = -(t**4) * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t / 7)))
    bound = 3 * d * jnp.where(jnp.abs(t) < 0.05, series, jnp.log1p(t_safe) - t_safe + t_safe**2 / 2 - t_safe**3 / 3)
    uniform = jax.random.uniform(uniform_key, shape, dtype, minval=jnp.finfo(dtype).tiny)
    accepted = (t > -0.99) & (jnp.log(uniform) < bound)
    first = jnp.take_along_axis(t_safe, jnp.argmax(accepted, 1)[:, None], 1)
    gamma = (d * (1 + first) ** 3)[:, 0]
    lift = jax.random.uniform(lift_key, alpha.shape, dtype, minval=jnp.finfo(dtype).tiny)
    some = alpha > 0
    return jnp.where(some, 2 * gamma * jnp.where(lifted, lift ** (1 / jnp.where(some, alpha, 1)), 1), 0)


def goe(key: Key, dim: int, dtype: Any) -> Array:
    """A GOE matrix [d, d]: N(0, 1) on the diagonal, N(0, 1/2) off it, from d (d + 1) / 2 normals and one gather."""
    row, column = np.meshgrid(np.arange(dim), np.arange(dim), indexing="ij")
    high, low = np.maximum(row, column), np.minimum(row, column)
    place = jnp.asarray(high * (high + 1) // 2 + low, jnp.int32)
    scale = jnp.asarray(np.where(row == column, 1.0, np.sqrt(0.5)), dtype)
    normals = jax.random.normal(key, (dim * (dim + 1) // 2,), dtype)
    return normals[place] * scale


def multinomial(key: Key, total: Array, probabilities: Array) -> Array:
    """Multinomial counts [E] as floats of a total [] (may be traced), by halving the environments: log2 E rounds of binomials side by side.

    `jax.random.multinomial` goes through the environments one after the other, with binomials that take ten times as
    long as the rest of a step.
    """
    size = probabilities.shape[0]
    levels = (size - 1).bit_length()
    weights = [jnp.pad(probabilities, (0, 2**levels - size))]  # of the leaves, then of their pairs, up to the root
    for _ in range(levels):
        weights.append(weights[-1].reshape(-1, 2).sum(1))
    width = max(2**levels // 2, 1)
    shares = []  # of the left child in each node of a level, from the root down, padded to one width
    for children, parents in zip(weights[-2::-1], weights[:0:-1], strict=True):
        share = children[::2] / jnp.where(parents > 0, parents, 1)
        shares.append(jnp.pad(share, (0, width - share.shape[0])))

    def split(counts: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        index, share = level
        left = binomial(jax.random.fold_in(key, index), counts[:width], share)
        return jnp.stack([left, counts[:width] - left], 1).reshape(-1)[: counts.shape[0]], None

    counts = jnp.zeros(2**levels, probabilities.dtype).at[0].set(total)
    if levels:  # a scan, so that the binomial is compiled once
        counts, _ = jax.lax.scan(split, counts, (jnp.arange(levels), jnp.stack(shares)))
    return counts[:size]


def binomial(key: Key, number: Array, share: Array) -> Array:
    """Binomial draws [n] as floats for numbers of trials [n] and probabilities [n].

    Transformed rejection (BTRS of Hoermann 1993) where the mean of the rarer outcome is at least 10, a few candidates
    at a time so that the loop hardly ever turns twice; inversion of the first 64 terms below that, where all terms
    beyond have a probability of 1e-28.
    """
    candidates = 6
    p = jnp.minimum(share, 1 - share)
    small_key, large_key = jax.random.split(key)
    large = number * p >= 10

    # inversion; log pmf(k) = log C(n, k) + k log p + (n - k) log q, as a running sum
    n, safe = jnp.where(large, 1, number)[:, None], jnp.where(large | (p <= 0), 0.5, p)[:, None]
    k = jnp.arange(1, 64, dtype=p.dtype)[None, :]
    ratio = jnp.log(jnp.maximum(n - k + 1, 0) / k) + jnp.log(safe / (1 - safe))
    start = n * jnp.log1p(-safe)
    terms = jnp.exp(jnp.concatenate([start, start + jnp.cumsum(ratio, 1)], 1))
    uniform = jax.random.uniform(small_key, p.shape, p.dtype)[:, None]
    small = jnp.minimum(jnp.sum(jnp.cumsum(terms, 1) <= uniform, 1).astype(p.dtype), jnp.where(large, 1, number))
    small = jnp.where(p <= 0, 0, small)

    # rejection
    n, p1 = jnp.where(large, number, 100)[:, None], jnp.where(large, p, 0.5)[:, None]
    spread = jnp.sqrt(n * p1 * (1 - p1))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p1
    mode = jnp.floor((n + 1) * p1)
    odds = p1 / (1 - p1)

    def tail(x: Array) -> Array:  # of Stirling's series for log x!
        inverse = 1 / (x + 1)
        return (1 / 12 - (1 / 360 - inverse**2 / 1260) * inverse**2) * inverse

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, chosen, done = state
        u_key, v_key = jax.random.split(jax.random.fold_in(large_key, turn))
        shape = (p.shape[0], candidates)
        u = jax.random.uniform(u_key, shape, p.dtype) - 0.5
        v = jax.random.uniform(v_key, shape, p.dtype, minval=jnp.finfo(p.dtype).tiny)
        us = jnp.maximum(0.5 - jnp.abs(u), jnp.finfo(p.dtype).eps)
        x = jnp.floor((2 * a / us + b) * u + n * p1 + 0.5)
        inside = (x >= 0) & (x <= n)
        y = jnp.clip(x, 0, n)
        bound = (
            (mode + 0.5) * jnp.log((mode + 1) / (odds * (n - mode + 1)))
            + (n + 1) * jnp.log((n - mode + 1) / (n - y + 1))
            + (y + 0.5) * jnp.log(odds * (n - y + 1) / (y + 1))
            + (tail(mode) + tail(n - mode) - tail(y) - tail(n - y))
        )
        height = jnp.log(v * (2.83 + 5.1 / b) * spread / (a / us**2 + b))
        accepted = inside & (((us >= 0.07) & (v <= 0.92 - 4.2 / b)) | (height <= bound))
        first = jnp.take_along_axis(y, jnp.argmax(accepted, 1)[:, None], 1)[:, 0]
        return turn + 1, jnp.where(done, chosen, first), done | jnp.any(accepted, 1)

    begin = jnp.zeros((), jnp.int32), jnp.zeros_like(p), ~large
    # a turn fails with a probability below 1e-3: the limit is only a guard, so that nothing can turn for ever
    _, drawn, _ = jax.lax.while_loop(lambda state: (state[0] < 64) & ~jnp.all(state[2]), propose, begin)
    rarer = jnp.where(large, drawn, small)
    return jnp.where(share > 0.5, number - rarer, rarer)

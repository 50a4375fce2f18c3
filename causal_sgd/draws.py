"""Exact random draws with traced parameters that stay cheap inside a scanned and vmapped step.

jax.random has them all but the GOE; its loops are what they cost. `jax.random.multinomial` takes longer than the rest of
a step, and `jax.random.gamma` takes over a second to compile and, vmapped over some numbers of lanes at shapes of 5e7,
never came to an end on a CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array, Key

__all__ = [
    "BINOMIAL_UNIFORMS", "CHI_SQUARE_NORMALS", "CHI_SQUARE_WORDS", "binomial", "bits", "chi_square", "fold_in", "goe", "half_goe", "half_goe_size",
    "multinomial", "normals", "subset", "uniforms",
]  # fmt: skip


def bits(key: Key, count: int, stream: int | Array = 0) -> Array:
    """Random 32-bit words [count] of one of the streams of a key.

    For Threefry keys these are both words of every block with counter (i, stream), in one unrolled pass. `jax.random.bits`
    keeps one word of two and, on a CPU, takes the rounds in a loop of its own: four times the time of this, and for a few
    words the loop is all that one waits for. The generator is the same (Salmon et al. 2011). Keys of other generators
    go to `jax.random.bits`.
    """
    if not _is_threefry(key):
        return jax.random.bits(jax.random.fold_in(key, stream), (count,), jnp.uint32)
    first, second = jax.random.key_data(key)
    counters = jax.lax.iota(jnp.uint32, (count + 1) // 2)
    words = _threefry(first, second, counters, jnp.full_like(counters, stream))
    return jnp.concatenate(words)[:count]


def fold_in(key: Key, data: int | Array) -> Key:
    """The key of `jax.random.fold_in`, bit for bit, without the loop that it runs on a CPU for Threefry keys."""
    if not _is_threefry(key):
        return jax.random.fold_in(key, data)
    first, second = jax.random.key_data(key)
    words = jnp.stack(_threefry(first, second, jnp.zeros((), jnp.uint32), jnp.asarray(data).astype(jnp.uint32)))
    return jax.random.wrap_key_data(words, impl="threefry2x32") if _is_typed(key) else words


def _is_typed(key: Key) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _is_threefry(key: Key) -> bool:
    return str(jax.random.key_impl(key)) == "threefry2x32"


@jax.jit  # half of the tracing of a run would else be these rounds, written out once for every stream
def _threefry(first: Array, second: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds of two words of key [] and two of counters [n]."""
    keys = first, second, first ^ second ^ np.uint32(0x1BD11BDA)
    x, y = x + keys[0], y + keys[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = x ^ (y << np.uint32(rotation) | y >> np.uint32(32 - rotation))
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def uniforms(words: Array, dtype: Any) -> Array:
    """Uniform numbers in [0, 1), multiples of 2^-23, from 32-bit words."""
    return jnp.right_shift(words, np.uint32(9)).astype(dtype) * 2**-23


# sqrt(2) erfinv(x) / x = P(w) / Q(w) with w = -log(1 - x^2) up to that of the smallest tail, 2^-33: lowest powers first, made
# by `tests/test_draws.py::quantile_coefficients`, right to 1.2e-7. All are positive, so nothing cancels.
QUANTILE = (
    (1.25331428e00, 4.52393879e-01, 8.98299413e-02, 1.18749749e-02, 9.99410308e-04, 2.92883696e-05),
    (1.00000000e00, 9.91614698e-02, 3.26706951e-02, 2.27980967e-03, 1.69785408e-04, 1.00841581e-06),
)


def normals(words: Array, dtype: Any) -> Array:
    """Standard normal numbers from 32-bit words, by inversion: one bit is the sign, 31 make the probability of the tail.

    `jax.random.normal` inverts too, but of 23 bits, which ends its tails at 5.3 where these end at 6.3, and by `erf_inv`,
    which takes twice the time. In single precision a number is right to 2e-6.
    """
    tail = (jnp.right_shift(words, np.uint32(1)).astype(jnp.int32).astype(dtype) + 0.5) * 2**-32
    if dtype != jnp.float32:
        return jax.lax.erf_inv(1 - 2 * tail) * math.sqrt(2) * jnp.where(words & 1, -1, 1).astype(dtype)
    # The quotient comes last, as XLA computes what comes after its last costly operation once more for every use on a CPU.
    w = -jnp.log(4 * tail * (1 - tail))
    over, under = (functools.reduce(lambda value, c: value * w + np.float32(c), part[::-1]) for part in QUANTILE)
    signed = jax.lax.bitcast_convert_type(1 - 2 * tail, jnp.uint32) ^ (words << np.uint32(31))
    return jax.lax.bitcast_convert_type(signed, jnp.float32) * over / under


CHI_SQUARE_NORMALS = 6
CHI_SQUARE_WORDS = CHI_SQUARE_NORMALS + 1
"""How many normals and how many random words a chi-square takes."""


def chi_square(candidates: Array, words: Array, degrees: Array) -> Array:
    """Chi-square draws [n] for whole, traced degrees of freedom [n], which are floats; 0 where there are none.

    2 Gamma(degrees / 2) by the rejection method of Marsaglia and Tsang (2000), whose candidates are accepted with a
    probability of at least 0.96: of six at once the first accepted one is taken, so there is no loop. (All six fail in
    fewer than one of 10^8 draws; the first one is then taken all the same.)

    Args:
        candidates: normals [n, CHI_SQUARE_NORMALS].
        words: random 32-bit words [n, CHI_SQUARE_WORDS].
        degrees: [n].
    """
    dtype = degrees.dtype
    alpha = degrees / 2
    lifted = alpha < 1.5  # Gamma(a) = Gamma(a + 1) U^(1/a), where candidates would be refused more often
    d = jnp.where(lifted, alpha + 1, alpha)[:, None] - 1 / 3
    t = candidates / jnp.sqrt(9 * d)
    # Accept if log U < x^2 / 2 + d (1 - v + log v) with v = (1 + t)^3, that is 3 d (log(1 + t) - t + t^2/2 - t^3/3): its
    # terms cancel for large d, where the rest of the series is what remains.
    t_safe = jnp.maximum(t, -0.99)
    series = -(t**4) * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t / 7)))
    bound = 3 * d * jnp.where(jnp.abs(t) < 0.05, series, jnp.log1p(t_safe) - t_safe + t_safe**2 / 2 - t_safe**3 / 3)
    half_cell = np.asarray(2**-24, dtype)
    uniform = uniforms(words[:, :-1], dtype) + half_cell
    accepted = (t > -0.99) & (jnp.log(uniform) < bound)
    first = t_safe[:, 0]
    for place in range(CHI_SQUARE_NORMALS - 1, -1, -1):  # takes half the time of an argmax, which is not vectorised
        first = jnp.where(accepted[:, place], t_safe[:, place], first)
    gamma = d[:, 0] * (1 + first) ** 3
    lift = uniforms(words[:, -1], dtype) + half_cell
    some = alpha > 0
    return jnp.where(some, 2 * gamma * jnp.where(lifted, lift ** (1 / jnp.where(some, alpha, 1)), 1), 0)


def half_goe_size(dim: int) -> int:
    """How many normals `half_goe` takes: d (d + 1) / 2 and the few that make a rectangle of them, d / 2 or d."""
    return dim * (dim // 2 + 1 + dim % 2)


def half_goe(normals: Array, dim: int) -> Array:
    """A matrix H [d, d] with zeros in one of each two mirrored places, such that H + H' is a GOE matrix.

    A GOE matrix has N(0, 1) on the diagonal and N(0, 1/2) off it, and for symmetric R <H + H', R> = 2 <H, R>. Nothing is
    gathered: the normals are rows of [d, h], h = d / 2 + 1, padded to d + 1 and read as rows of d. Row i so begins on the
    diagonal, and what passes the right edge goes on at the left one a row below: the differences j - i of the places are 0
    to h - 1 and h - d - 1 to -2, each of 0 to d - 1 once up to sign. (For odd d, one column more; half of it is masked.)

    Args:
        normals: [half_goe_size(dim)].
        dim: d.
    """
    width = half_goe_size(dim) // dim
    scale = np.full((dim, width), np.sqrt(0.5))
    scale[:, 0] = 0.5
    if dim % 2:
        scale[dim - width + 1 :, -1] = 0
    table = normals.reshape(dim, width) * scale.astype(normals.dtype)
    return jnp.pad(table, ((0, 0), (0, dim + 1 - width))).reshape(-1)[: dim * dim].reshape(dim, dim)


def goe(normals: Array, dim: int) -> Array:
    """A GOE matrix [d, d]: N(0, 1) on the diagonal, N(0, 1/2) off it; see `half_goe`."""
    half = half_goe(normals, dim)
    return half + half.T


def multinomial(key: Key, total: Array, probabilities: Array) -> Array:
    """Multinomial counts [E] as floats of a total [] (may be traced), by halving the environments: log2 E rounds of binomials side by side.

    `jax.random.multinomial` goes through the environments one after the other, with binomials that take ten times as
    long as the rest of a step.
    """
    size = probabilities.shape[0]
    levels = (size - 1).bit_length()
    if not levels:
        return jnp.full(1, total, probabilities.dtype)
    weights = [jnp.pad(probabilities, (0, 2**levels - size))]  # of the leaves, then of their pairs, up to the root
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
        return _many_successes(u, v, jnp.where(many, number, 100)[..., None], jnp.where(many, p, 0.5)[..., None])

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
    up_to, before = (np.triu(np.ones((BINOMIAL_TERMS,) * 2), place).astype(share.dtype) for place in (0, 1))
    terms = jnp.exp(jnp.matmul(jnp.log(ratios), before[:-1], precision="highest"))  # over that of 0, (1 - share)^number
    chances = jnp.matmul(terms, up_to, precision="highest")
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

"""Exact random draws with traced parameters that stay cheap inside a scanned and vmapped step.

jax.random has them all but the GOE; its loops are what they cost. `jax.random.multinomial` takes longer than the rest of
a step, and `jax.random.gamma` takes over a second to compile and, vmapped over some numbers of lanes at shapes of 5e7,
never came to an end on a CPU.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array, Key

__all__ = [
    "CHI_SQUARE_NORMALS", "CHI_SQUARE_WORDS", "binomial", "bits", "chi_square", "fold_in", "goe", "half_goe", "half_goe_size",
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
        left = binomial(fold_in(key, index), counts[:width], share)
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
    large = number * p >= 10

    # inversion; log pmf(k) = log C(n, k) + k log p + (n - k) log q, as a running sum
    n, safe = jnp.where(large, 1, number)[:, None], jnp.where(large | (p <= 0), 0.5, p)[:, None]
    k = jnp.arange(1, 64, dtype=p.dtype)[None, :]
    ratio = jnp.log(jnp.maximum(n - k + 1, 0) / k) + jnp.log(safe / (1 - safe))
    start = n * jnp.log1p(-safe)
    terms = jnp.exp(jnp.concatenate([start, start + jnp.cumsum(ratio, 1)], 1))
    uniform = uniforms(bits(key, p.shape[0]), p.dtype)[:, None]
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
        words = bits(key, 2 * p.shape[0] * candidates, 1 + turn).reshape(2, p.shape[0], candidates)
        u, v = uniforms(words, p.dtype) + 2**-24  # the middles of the cells: v is never 0
        u = u - 0.5
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

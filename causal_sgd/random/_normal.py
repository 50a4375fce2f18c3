"""Exact normal numbers, and chi-squares and Gaussian ensembles of matrices made from them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from causal_sgd import checks, linalg
from causal_sgd.random._bits import bits, is_threefry, threefry, uniforms
from causal_sgd.types import Array, Key, PyTree

# Numbers in the widest registers. The remainder of a loop is computed one by one, ten times slower.
VECTOR = 16


def normals(key: Key, shape: int | tuple[int, ...], dtype: DTypeLike, stream: int = 0) -> Array:
    """Standard normal numbers of one stream of a key, two of every block (Box and Muller 1958).

    The first word of a block gives the radius, the second the angle. All 2^64 blocks are equally
    likely, and the formula is accurate to 1.1e-6 in single precision; so is the distribution. No
    number exceeds 6.8 in absolute value. A pair takes little more time than one number of
    `jax.random.normal`, which inverts the distribution function.

    Args:
        key: one key, of any generator.
        shape: of the result, filled row by row from one sequence; a number n stands for (n,).
        dtype: float32 or float64; both use the same words.
        stream: index of the stream.

    Returns:
        Normal numbers [*shape].
    """
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    # The padded number of pairs decides the order of the numbers, hence its place in the region.
    size = -(-count // (2 * VECTOR)) * 2 * VECTOR
    return normal_regions(key, [size], dtype, stream)[0][0][:count].reshape(shape)


def normal_regions(
    key: Key,
    sizes: Sequence[int],
    dtype: DTypeLike,
    stream: int = 0,
    *,
    own_sizes: Sequence[int] = (),
    own_streams: Array | None = None,
) -> tuple[list[Array], list[Array]]:
    """Standard normal numbers in regions of a stream and of further streams, drawn in one pass.

    For Threefry keys a region depends on nothing but the key, its stream, and the sizes up to its
    own: what else is drawn does not shift it. See `normals` for the numbers.

    Args:
        key: one key, of any generator.
        sizes: numbers in each region of `stream`.
        dtype: float32 or float64; both use the same words.
        stream: index of the stream.
        own_sizes: numbers in each region of each of `own_streams`.
        own_streams: indices of other streams [B], below 2^32; may be traced; None for none.

    Returns:
        The regions of `stream`, [n] each, and those of all `own_streams`, [B, n] each.
    """
    halves, own_halves = ([-(-size // 2) for size in group] for group in (sizes, own_sizes))
    if own_streams is None:
        own_streams, own_halves = jnp.zeros(0, jnp.uint32), []
    width, own_width = sum(halves), sum(own_halves)
    number = own_streams.shape[0]
    if is_threefry(key):
        draw = functools.partial(
            _pairs, size=_padded(width), width=own_width, stream=stream, dtype=dtype
        )
        pairs, own = evaluated_once(draw, jax.random.key_data(key), own_streams.astype(jnp.uint32))
    else:
        x, y = bits(key, 2 * _padded(width), stream).reshape(2, -1)
        pairs, own = _box_muller(x, y, dtype), jnp.zeros(0, jnp.result_type(dtype, jnp.complex64))
        if number:
            words = bits(key, 2 * own_width, own_streams).reshape(number, 2, own_width)
            own = _box_muller(words[:, 0], words[:, 1], dtype).reshape(-1)
    own = own[: number * own_width].reshape(number, own_width)
    return _unpaired(pairs, halves, sizes), _unpaired(own, own_halves, own_sizes)


def _padded(pairs: int) -> int:
    return -(-pairs // VECTOR) * VECTOR


def _unpaired(pairs: Array, halves: Sequence[int], sizes: Sequence[int]) -> list[Array]:
    """The real and then the imaginary parts of each region of complex numbers [..., *]."""
    ends = np.cumsum([0, *halves])
    regions = [pairs[..., start:end] for start, end in itertools.pairwise(ends)]
    return [
        jnp.concatenate([region.real, region.imag], -1)[..., :size]
        for region, size in zip(regions, sizes, strict=False)
    ]


def evaluated_once(function: Callable[..., PyTree], words: Array, *others: Array) -> PyTree:
    """function(words, *others), of which on CPUs every output is evaluated once.

    XLA's CPU compiler duplicates what it considers cheap into every consumer, and evaluates each
    half of a pair separately; both repeat all rounds of Threefry, or all of a chi-square. It does
    not duplicate what lies in a branch. The condition always holds, but the compiler cannot see
    that. Compilers for other devices need no such help, and there a condition would be a
    synchronisation.

    Args:
        function: of arrays to arrays.
        words: random words or words of keys, uint32.
        others: the other arguments.
    """
    if not checks.is_tracing():
        return function(words, *others)  # by hand the branch would be compiled in every call
    out = jax.eval_shape(function, words, *others)

    def never(*arguments: Array) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), out)

    def branch(words: Array, *others: Array) -> PyTree:
        holds = (words.reshape(-1)[0] | np.uint32(1)) != 0
        return jax.lax.cond(holds, function, never, words, *others)

    @jax.custom_batching.custom_vmap
    def call(*arguments: Array) -> PyTree:
        return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)

    @call.def_vmap
    def _runs(runs: int, mapped: Sequence[bool], *arguments: Array) -> tuple[PyTree, PyTree]:
        """All runs under one condition: `vmap` of the condition would evaluate both branches."""
        whole = linalg.broadcast_unmapped(runs, mapped, arguments)
        return evaluated_once(jax.vmap(function), *whole), jax.tree.map(lambda _: True, out)

    return call(words, *others)


@functools.partial(jax.jit, static_argnames=("size", "width", "stream", "dtype"))
def _pairs(
    words: Array, own_streams: Array, *, size: int, width: int, stream: int, dtype: DTypeLike
) -> tuple[Array, Array]:
    """Pairs of normals as complex numbers.

    Args:
        words: of the key, [2].
        own_streams: indices of other streams [B], uint32.
        size: pairs of `stream`.
        width: pairs of each of `own_streams`.
        stream: index of the stream.
        dtype: of the numbers.

    Returns:
        Pairs [size] of `stream` and [B * width], padded, of the other streams in turn.
    """
    count = own_streams.shape[0] * width
    shape, padding = (own_streams.shape[0], width), (0, _padded(count) - count)
    own = (
        jax.lax.broadcasted_iota(jnp.uint32, shape, 1),
        jnp.broadcast_to(own_streams[:, None], shape),
    )
    blocks = (
        (jax.lax.iota(jnp.uint32, size), jnp.full(size, stream, jnp.uint32)),
        tuple(jnp.pad(counters.reshape(-1), padding) for counters in own),
    )

    def pairs(x: Array, y: Array) -> Array:
        x, y = threefry(words[0], words[1], x, y)
        return _box_muller(x, y, dtype)

    return pairs(*blocks[0]), pairs(*blocks[1])


# Coefficients of log(1 + f) / f in powers of f for |f| <= 1/3, and of sin(x) / x and cos(x) in
# powers of x^2 for |x| <= pi / 4, lowest powers first, accurate to 1e-7. They interpolate at
# Chebyshev points; the function `coefficients` of the tests computes them again.
LOGARITHM = (
    1.00000000e00, -4.99999334e-01, 3.33332726e-01, -2.50079317e-01, 2.00072340e-01,
    -1.64145204e-01, 1.40558127e-01, -1.53942718e-01, 1.37483091e-01,
)  # fmt: skip
SINE = (9.99999997e-01, -1.66666507e-01, 8.33203579e-03, -1.95039043e-04)
COSINE = (9.99999972e-01, -4.99998564e-01, 4.16550149e-02, -1.35857793e-03)


def _box_muller(x: Array, y: Array, dtype: DTypeLike) -> Array:
    """Pairs of standard normal numbers as complex numbers, for pairs of random 32-bit words.

    The radius is sqrt(-2 log u) with u = (x + 1/2) / 2^32. The low 30 bits of y are an angle of up
    to pi / 4 on either side of the first axis, its sign bit reflects the pair to the negative half
    of that axis, and bit 30 swaps the axes.
    """
    # The shift drops the two highest bits; as a signed number the rest is in [-2^31, 2^31).
    signed = jax.lax.bitcast_convert_type(y, jnp.int32)
    angle = (signed << 2).astype(dtype) * (math.pi / 4 * 2**-31)
    if dtype == jnp.float32:
        radius, square = _radius(jax.lax.bitcast_convert_type(x, jnp.int32)), angle * angle
        sine, cosine = angle * _polynomial(SINE, square), _polynomial(COSINE, square)
    else:
        radius = jnp.sqrt(-2 * jnp.log((x.astype(dtype) + 0.5) * 2**-32))
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
    cosine = jnp.where(signed < 0, -cosine, cosine)
    swapped = (signed & np.int32(2**30)) != 0
    return jax.lax.complex(
        radius * jnp.where(swapped, sine, cosine), radius * jnp.where(swapped, cosine, sine)
    )


def _radius(x: Array) -> Array:
    """sqrt(-2 log u), where x is 2^32 u - 1/2 up to a multiple of 2^32; float32.

    u is written as 2^e (1 + f) with |f| <= 1/3. Near 1, u has lost digits that 1 - u still has;
    there f is -(1 - u).
    """
    upper = x < 0  # u > 1/2
    tail = ((x ^ (x >> 31)).astype(jnp.float32) + 0.5) * 2**-32  # the smaller of u and 1 - u
    number = jax.lax.bitcast_convert_type(jnp.where(upper, 1 - tail, tail), jnp.int32)
    # Subtracting the bits of 2/3 makes the mantissa carry, so that 1 + f is in [2/3, 4/3).
    exponent = (number - np.float32(2 / 3).view(np.int32)) >> 23
    f = jax.lax.bitcast_convert_type(number - (exponent << 23), jnp.float32) - 1
    f = jnp.where(upper & (exponent == 0), -tail, f)
    return jnp.sqrt(
        -2 * (exponent.astype(jnp.float32) * math.log(2) + f * _polynomial(LOGARITHM, f))
    )


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """The polynomial with these coefficients, lowest power first, by Horner's rule."""
    return functools.reduce(
        lambda value, c: value * x + c, coefficients[-2::-1], jnp.full_like(x, coefficients[-1])
    )


CHI_SQUARE_NORMALS = 6
"""Normal numbers that a chi-square takes, one for each candidate."""
CHI_SQUARE_WORDS = CHI_SQUARE_NORMALS + 1
"""Random words that a chi-square takes."""


def chi_square(candidates: Array, words: Array, degrees: Array) -> Array:
    """Chi-square draws for whole, traced degrees of freedom; 0 for none.

    2 Gamma(degrees / 2) by the rejection method of Marsaglia and Tsang (2000), which accepts a
    candidate with a probability of at least 0.96. Six are tested at once and the first accepted
    one is taken, so there is no loop. (All six fail in fewer than one of 10^8 draws; the first
    one is then taken regardless.)

    Args:
        candidates: normal numbers [n, CHI_SQUARE_NORMALS].
        words: random 32-bit words [n, CHI_SQUARE_WORDS].
        degrees: degrees of freedom [n], whole floats.

    Returns:
        Draws [n].
    """
    dtype = degrees.dtype
    alpha = degrees / 2
    # Small shapes are lifted by Gamma(a) = Gamma(a + 1) U^(1/a), as the method would reject often.
    lifted = alpha < 1.5
    d = jnp.where(lifted, alpha + 1, alpha)[:, None] - 1 / 3
    t = candidates / jnp.sqrt(9 * d)
    # Accept if log U < x^2 / 2 + d (1 - v + log v) with v = (1 + t)^3. The right-hand side is
    # 3 d (log(1 + t) - t + t^2 / 2 - t^3 / 3), whose terms cancel for large d, that is for small
    # t: there the remainder of the series is summed.
    t_safe = jnp.maximum(t, -0.99)
    series = -(t**4) * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t / 7)))
    direct = jnp.log1p(t_safe) - t_safe + t_safe**2 / 2 - t_safe**3 / 3
    bound = 3 * d * jnp.where(jnp.abs(t) < 0.05, series, direct)
    half_cell = np.asarray(2**-24, dtype)
    uniform = uniforms(words[:, :-1], dtype) + half_cell
    accepted = (t > -0.99) & (jnp.log(uniform) < bound)
    # Backwards, so that the first accepted candidate is written last. An argmax takes twice as
    # long, as it is not vectorised.
    first = t_safe[:, 0]
    for place in range(CHI_SQUARE_NORMALS - 1, -1, -1):
        first = jnp.where(accepted[:, place], t_safe[:, place], first)
    gamma = d[:, 0] * (1 + first) ** 3
    lift = uniforms(words[:, -1], dtype) + half_cell
    some = alpha > 0
    scale = jnp.where(lifted, lift ** (1 / jnp.where(some, alpha, 1)), 1)
    return jnp.where(some, 2 * gamma * scale, 0)


def goe_summand_size(dim: int) -> int:
    """Normal numbers that `goe_summand` takes: d (d + 1) / 2, padded by d // 2 or d."""
    return dim * _width(dim)


def _width(dim: int) -> int:
    return dim // 2 + 1 + dim % 2


def goe_summand(normals: Array, dim: int) -> Array:
    """A matrix H with zeros in one of each two mirrored places, such that H + H' is a GOE matrix.

    A GOE matrix has N(0, 1) on the diagonal and N(0, 1/2) off it. For symmetric R,
    <H + H', R> = 2 <H, R>. The layout needs no gather: the normals are rows of [d, h] with
    h = d // 2 + 1, padded to a length of d + 1 and read as rows of length d. Row i then begins on
    the diagonal, and what passes the right edge continues at the left edge one row below. The
    differences j - i of the places are 0 to h - 1 and h - d - 1 to -2, so that each absolute value
    from 0 to d - 1 occurs exactly once. (For odd d there is one more column, half of it masked.)

    Args:
        normals: normal numbers [goe_summand_size(dim)].
        dim: d; may be 0.

    Returns:
        H [d, d].
    """
    width = _width(dim)
    scale = np.full((dim, width), np.sqrt(0.5))
    scale[:, 0] = 0.5  # the diagonal is doubled by H + H'
    if dim % 2:
        scale[dim - width + 1 :, -1] = 0
    table = normals.reshape(dim, width) * scale.astype(normals.dtype)
    return jnp.pad(table, ((0, 0), (0, dim + 1 - width))).reshape(-1)[: dim * dim].reshape(dim, dim)


def goe(normals: Array, dim: int) -> Array:
    """A GOE matrix [d, d]: N(0, 1) on the diagonal, N(0, 1/2) off it.

    Args:
        normals: normal numbers [goe_summand_size(dim)].
        dim: d; may be 0.
    """
    half = goe_summand(normals, dim)
    return half + half.T

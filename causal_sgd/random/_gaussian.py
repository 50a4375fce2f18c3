"""Exact normal numbers, and what is made of them: chi-squares and Gaussian ensembles of matrices."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.random._bits import is_threefry, threefry, uniforms
from causal_sgd.types import Array, Key

__all__ = [
    "CHI_SQUARE_NORMALS", "CHI_SQUARE_WORDS", "chi_square", "goe", "goe_summand", "goe_summand_size", "normals",
]  # fmt: skip

VECTOR = 16  # numbers in the widest registers: what a loop leaves over goes one by one, at ten times the price


def normals(key: Key, shape: int | tuple[int, ...], dtype: Any, stream: int = 0) -> Array:
    """Standard normal numbers [*shape] of one of the streams of a key, two of every block (Box and Muller 1958).

    A block's first word makes the radius, its second one the angle. All 2^64 of them are equally likely and the formula is
    right to 1e-6 in single precision, so that is what the distribution is exact to; no number exceeds 6.8. A pair takes
    little more time than one number by inversion, as `jax.random.normal` makes it.

    Args:
        key: of any generator.
        shape: of the array, row by row from one sequence; a number n for [n].
        dtype: float32 or float64; the words are the same.
        stream: of the key.
    """
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    half = -(-count // (2 * VECTOR)) * VECTOR
    if is_threefry(key):
        first, second = jax.random.key_data(key)
        pairs = _in_one_go(
            functools.partial(_pairs, half=half, stream=stream, dtype=dtype), first, second
        )
    else:
        x, y = jax.random.bits(jax.random.fold_in(key, stream), (2, half), jnp.uint32)
        pairs = _box_muller(x, y, dtype)
    return jnp.concatenate([pairs.real, pairs.imag])[:count].reshape(shape)


def _in_one_go(function: Callable[[Array, Array], Array], first: Array, second: Array) -> Array:
    """function(first, second) of two words of keys [...], of which compilers for CPUs make one loop that runs once.

    They compute what is cheap again wherever it is used, and each half of a pair on its own, which takes all the
    rounds of Threefry every time; numbers in a branch are computed there. The condition always holds, which compilers do
    not see. Others see to it by themselves, and would wait for the condition.
    """
    out = jax.eval_shape(function, first, second)

    def never(first: Array, second: Array) -> Array:
        return jnp.zeros(out.shape, out.dtype)

    def branch(first: Array, second: Array) -> Array:
        holds = (first.reshape(-1)[0] | np.uint32(1)) != 0
        return jax.lax.cond(holds, function, never, first, second)

    @jax.custom_batching.custom_vmap
    def call(first: Array, second: Array) -> Array:
        return jax.lax.platform_dependent(first, second, cpu=branch, default=function)

    @call.def_vmap
    def _runs(runs: int, mapped: Sequence[bool], *words: Array) -> tuple[Array, bool]:
        """All runs in one call: the branch of a single condition, where `vmap` would compute both and choose."""
        every = (
            word if is_mapped else jnp.broadcast_to(word, (runs, *word.shape))
            for word, is_mapped in zip(words, mapped, strict=True)
        )
        return _in_one_go(function, *every), True

    return call(first, second)


@functools.partial(jax.jit, static_argnames=("half", "stream", "dtype"))
def _pairs(first: Array, second: Array, *, half: int, stream: int, dtype: Any) -> Array:
    """Pairs of normals as complex numbers [..., half] for two words of keys [...]."""
    shape = (*first.shape, half)
    counters = jax.lax.broadcasted_iota(jnp.uint32, shape, first.ndim)
    x, y = threefry(
        first[..., None], second[..., None], counters, jnp.full(shape, stream, jnp.uint32)
    )
    return _box_muller(x, y, dtype)


# log(1 + f) / f for |f| <= 1/3, sin(x) / x and cos(x) in powers of x^2 for |x| <= pi / 4: the lowest powers first, made by
# `tests/test_draws.py::coefficients`, right to 1e-7.
LOGARITHM = (
    1.00000000e00, -4.99999334e-01, 3.33332726e-01, -2.50079317e-01, 2.00072340e-01,
    -1.64145204e-01, 1.40558127e-01, -1.53942718e-01, 1.37483091e-01,
)  # fmt: skip
SINE = (9.99999997e-01, -1.66666507e-01, 8.33203579e-03, -1.95039043e-04)
COSINE = (9.99999972e-01, -4.99998564e-01, 4.16550149e-02, -1.35857793e-03)


def _box_muller(x: Array, y: Array, dtype: Any) -> Array:
    """Pairs of standard normal numbers as complex numbers, for pairs of random 32-bit words.

    The radius is sqrt(-2 log u) with u = (x + 1/2) / 2^32. Of y, 30 bits are an angle around that of the first axis, up to
    pi / 4 on either side, one turns it to the other side and one to the other axis.
    """
    signed = jax.lax.bitcast_convert_type(y, jnp.int32)
    angle = (signed << 2).astype(dtype) * (math.pi / 4 * 2**-31)
    if dtype == jnp.float32:
        radius, square = _radius(jax.lax.bitcast_convert_type(x, jnp.int32)), angle * angle
        sine, cosine = angle * _polynomial(SINE, square), _polynomial(COSINE, square)
    else:
        radius = jnp.sqrt(-2 * jnp.log((x.astype(dtype) + 0.5) * 2**-32))
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
    cosine = jnp.where(signed < 0, -cosine, cosine)
    other = (signed & np.int32(2**30)) != 0
    return jax.lax.complex(
        radius * jnp.where(other, sine, cosine), radius * jnp.where(other, cosine, sine)
    )


def _radius(x: Array) -> Array:
    """sqrt(-2 log u), where x is 2^32 u - 1/2 up to a multiple of 2^32; float32.

    u is 2^e (1 + f) with |f| <= 1/3. Close to 1 it has lost digits that 1 - u has, which then is -f.
    """
    upper = x < 0  # u > 1/2
    tail = ((x ^ (x >> 31)).astype(jnp.float32) + 0.5) * 2**-32  # the smaller one of u and 1 - u
    number = jax.lax.bitcast_convert_type(jnp.where(upper, 1 - tail, tail), jnp.int32)
    exponent = (number - np.float32(2 / 3).view(np.int32)) >> 23
    f = jax.lax.bitcast_convert_type(number - (exponent << 23), jnp.float32) - 1
    f = jnp.where(upper & (exponent == 0), -tail, f)
    return jnp.sqrt(
        -2 * (exponent.astype(jnp.float32) * math.log(2) + f * _polynomial(LOGARITHM, f))
    )


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    return functools.reduce(
        lambda value, c: value * x + c, coefficients[-2::-1], jnp.full_like(x, coefficients[-1])
    )


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
    lifted = (
        alpha < 1.5
    )  # Gamma(a) = Gamma(a + 1) U^(1/a), where candidates would be refused more often
    d = jnp.where(lifted, alpha + 1, alpha)[:, None] - 1 / 3
    t = candidates / jnp.sqrt(9 * d)
    # Accept if log U < x^2 / 2 + d (1 - v + log v) with v = (1 + t)^3, that is 3 d (log(1 + t) - t + t^2/2 - t^3/3): its
    # terms cancel for large d, where the rest of the series is what remains.
    t_safe = jnp.maximum(t, -0.99)
    series = -(t**4) * (1 / 4 - t * (1 / 5 - t * (1 / 6 - t / 7)))
    bound = (
        3
        * d
        * jnp.where(
            jnp.abs(t) < 0.05, series, jnp.log1p(t_safe) - t_safe + t_safe**2 / 2 - t_safe**3 / 3
        )
    )
    half_cell = np.asarray(2**-24, dtype)
    uniform = uniforms(words[:, :-1], dtype) + half_cell
    accepted = (t > -0.99) & (jnp.log(uniform) < bound)
    first = t_safe[:, 0]
    for place in range(
        CHI_SQUARE_NORMALS - 1, -1, -1
    ):  # takes half the time of an argmax, which is not vectorised
        first = jnp.where(accepted[:, place], t_safe[:, place], first)
    gamma = d[:, 0] * (1 + first) ** 3
    lift = uniforms(words[:, -1], dtype) + half_cell
    some = alpha > 0
    return jnp.where(
        some, 2 * gamma * jnp.where(lifted, lift ** (1 / jnp.where(some, alpha, 1)), 1), 0
    )


def goe_summand_size(dim: int) -> int:
    """How many normals `goe_summand` takes: d (d + 1) / 2 and the few that make a rectangle of them, d / 2 or d."""
    return dim * (dim // 2 + 1 + dim % 2)


def goe_summand(normals: Array, dim: int) -> Array:
    """A matrix H [d, d] with zeros in one of each two mirrored places, such that H + H' is a GOE matrix.

    A GOE matrix has N(0, 1) on the diagonal and N(0, 1/2) off it, and for symmetric R <H + H', R> = 2 <H, R>. Nothing is
    gathered: the normals are rows of [d, h], h = d / 2 + 1, padded to d + 1 and read as rows of d. Row i so begins on the
    diagonal, and what passes the right edge goes on at the left one a row below: the differences j - i of the places are 0
    to h - 1 and h - d - 1 to -2, each of 0 to d - 1 once up to sign. (For odd d, one column more; half of it is masked.)

    Args:
        normals: [goe_summand_size(dim)].
        dim: d.
    """
    width = goe_summand_size(dim) // dim
    scale = np.full((dim, width), np.sqrt(0.5))
    scale[:, 0] = 0.5
    if dim % 2:
        scale[dim - width + 1 :, -1] = 0
    table = normals.reshape(dim, width) * scale.astype(normals.dtype)
    return jnp.pad(table, ((0, 0), (0, dim + 1 - width))).reshape(-1)[: dim * dim].reshape(dim, dim)


def goe(normals: Array, dim: int) -> Array:
    """A GOE matrix [d, d]: N(0, 1) on the diagonal, N(0, 1/2) off it; see `goe_summand`."""
    half = goe_summand(normals, dim)
    return half + half.T

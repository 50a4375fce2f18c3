"""Random words and keys: the blocks of Threefry (Salmon et al. 2011), unrolled."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from causal_sgd.types import Array, Key


def bits(key: Key, count: int, stream: int | Array = 0) -> Array:
    """Random 32-bit words [..., count] of streams [...] of a key.

    For Threefry keys these are the first words of the blocks with counters (i, stream), in one
    unrolled pass. On a CPU `jax.random.bits` runs the rounds in a loop, which for a few words is
    the whole cost. (It uses both words of a block. This function discards the second: the compiler
    evaluates each output separately, so both would take two passes.) Keys of other generators are
    passed on to `jax.random.bits`.

    Args:
        key: one key, of any generator.
        count: number of words. For Threefry keys the first words do not depend on it.
        stream: indices of the streams [...], below 2^32; may be traced.

    Returns:
        uint32 words [..., count].
    """
    if not is_threefry(key):
        draw = functools.partial(jax.random.bits, shape=(count,), dtype=jnp.uint32)
        for _ in range(jnp.ndim(stream)):
            draw = jax.vmap(draw)
        return draw(fold_in(key, stream))
    streams = jnp.asarray(stream).astype(jnp.uint32)
    first, second = jax.random.key_data(key)
    shape = (*streams.shape, count)
    counters = jax.lax.broadcasted_iota(jnp.uint32, shape, len(shape) - 1)
    return threefry(first, second, counters, jnp.broadcast_to(streams[..., None], shape))[0]


def fold_in(key: Key, data: int | Array) -> Key:
    """The keys [...] of `jax.random.fold_in` for numbers [...], bit for bit, without its loop.

    The loop runs on CPUs only; keys of generators other than Threefry still take it.

    Args:
        key: one key, typed or raw, of any generator.
        data: whole numbers [...] to fold in, below 2^32; may be traced.

    Returns:
        Keys [...] of the same kind as `key`.
    """
    if not is_threefry(key):
        fold = jax.random.fold_in
        for _ in range(jnp.ndim(data)):
            fold = jax.vmap(fold, (None, 0))
        return fold(key, data)
    first, second = jax.random.key_data(key)
    numbers = jnp.asarray(data).astype(jnp.uint32)
    # `jax.random.fold_in` encrypts the block (0, data), the seed words of `data`.
    words = jnp.stack(threefry(first, second, jnp.zeros_like(numbers), numbers), -1)
    return jax.random.wrap_key_data(words, impl="threefry2x32") if _is_typed(key) else words


def integers(keys: Key, places: Array, size: int) -> Array:
    """Whole numbers in [0, size), uniformly distributed, at places of the sequences of keys.

    As in `jax.random.randint`, two words are reduced to the range, so that all numbers are equally
    likely up to a fraction size / 2^32, or size^2 / 2^64 for sizes up to 2^16.

    Args:
        keys: keys [n] of any generator.
        places: whole numbers [n], at least 0.
        size: at least 1.

    Returns:
        int32 numbers [n].
    """
    if is_threefry(keys):
        data, numbers = jax.random.key_data(keys), places.astype(jnp.uint32)
        x, y = threefry(data[..., 0], data[..., 1], numbers, jnp.zeros_like(numbers))
    else:
        x, y = jax.vmap(lambda key, place: bits(jax.random.fold_in(key, place), 2))(keys, places).T
    span = np.uint32(size)
    return ((x % span * np.uint32(2**32 % size) + y % span) % span).astype(jnp.int32)


def _is_typed(key: Key) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def is_threefry(key: Key) -> bool:
    """Whether a key belongs to Threefry, jax's default generator."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


# jit traces the rounds once a shape; written out for every stream they would be half of the tracing
# of a run.
@jax.jit
def threefry(first: Array, second: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds.

    Args:
        first: first words of the keys, uint32 [...].
        second: second words of the keys, uint32 [...].
        x: first words of the counters, uint32 [...].
        y: second words of the counters, uint32 [...].

    Returns:
        The two words of each block, uint32 [...].
    """
    # The third word of the key schedule is a parity word with the constant of the Skein hash
    # function.
    keys = first, second, first ^ second ^ np.uint32(0x1BD11BDA)
    x, y = x + keys[0], y + keys[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = x ^ (y << np.uint32(rotation) | y >> np.uint32(32 - rotation))
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def uniforms(words: Array, dtype: DTypeLike) -> Array:
    """Uniform numbers in [0, 1), multiples of 2^-23, from 32-bit words of the same shape."""
    # 23 bits are exact in float32, so that no number rounds up to 1.
    return jnp.right_shift(words, np.uint32(9)).astype(dtype) * 2**-23

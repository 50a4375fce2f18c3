"""Random words and keys: the blocks of Threefry (Salmon et al. 2011), written out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.types import Array, Key

__all__ = ["bits", "fold_in", "is_threefry", "threefry", "uniforms"]


def bits(key: Key, count: int, stream: int | Array = 0) -> Array:
    """Random 32-bit words [count] of one of the streams of a key.

    For Threefry keys the first words of the blocks with counters (i, stream), in one unrolled pass. On a CPU
    `jax.random.bits` takes the rounds in a loop of its own, which for a few words is all that one waits for. (It combines
    both words of a block, where this leaves one out; both together would be two passes, as the compiler makes each output
    on its own.) Keys of other generators go to `jax.random.bits`.
    """
    if not is_threefry(key):
        return jax.random.bits(jax.random.fold_in(key, stream), (count,), jnp.uint32)
    first, second = jax.random.key_data(key)
    counters = jax.lax.iota(jnp.uint32, count)
    return threefry(first, second, counters, jnp.full_like(counters, stream))[0]


def fold_in(key: Key, data: int | Array) -> Key:
    """The keys [...] of `jax.random.fold_in` for numbers [...], bit for bit, without its loop on a CPU for Threefry keys."""
    if not is_threefry(key):
        fold = jax.random.fold_in
        for _ in range(jnp.ndim(data)):
            fold = jax.vmap(fold, (None, 0))
        return fold(key, data)
    first, second = jax.random.key_data(key)
    numbers = jnp.asarray(data).astype(jnp.uint32)
    words = jnp.stack(threefry(first, second, jnp.zeros_like(numbers), numbers), -1)
    return jax.random.wrap_key_data(words, impl="threefry2x32") if _is_typed(key) else words


def _is_typed(key: Key) -> bool:
    return jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def is_threefry(key: Key) -> bool:
    """Whether a key is one of Threefry's."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


@jax.jit  # half of the tracing of a run would else be these rounds, written out once for every stream
def threefry(first: Array, second: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds: blocks of two words [...] of two words of key and two of counters [...]."""
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

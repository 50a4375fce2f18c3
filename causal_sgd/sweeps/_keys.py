"""The root key of a sweep, and its encoding as text for stores, datasets and workers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import LARGEST_SEED
from causal_sgd.types import Key

__all__ = ["decode_key", "encode_key", "root_key"]


def root_key(key: int | Key) -> Key:
    """Return a typed key unchanged, or make one from an integer.

    Raises:
        ValueError: for anything else, and for integers above 2^32 - 1.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        # jax would drop higher bits silently.
        return jax.random.key(checks.integer("key", key, minimum=0, maximum=LARGEST_SEED))
    if not (
        isinstance(key, jax.Array)
        and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        and key.ndim == 0
    ):
        raise ValueError(
            f"key must be a whole number or one typed key (jax.random.key), got {key!r}"
        )
    return key


def encode_key(root: Key) -> dict[str, str]:
    """Encode a key as its words in decimal and the name of its PRNG implementation."""
    words = np.asarray(jax.random.key_data(root)).ravel()
    return {
        "key": " ".join(str(word) for word in words),
        "key_implementation": str(jax.random.key_impl(root)),
    }


def decode_key(key: str, key_implementation: str) -> Key:
    """Invert `encode_key`."""
    words = jnp.asarray(np.array(key.split(), np.uint32))
    return jax.random.wrap_key_data(words, impl=key_implementation)

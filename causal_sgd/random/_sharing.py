"""What all runs of one key draw alike: its mark, and words that are computed once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from causal_sgd.types import Array

SHAREABLE = "shareable"
"""The name that marked numbers bear in a traced program."""


def shareable(numbers: Any) -> Any:
    """Mark large numbers that a run draws from its key and keeps, such as examples.

    A sweep then computes runs of one seed together and holds these numbers once for all of them,
    unless they depend on an axis. The mark computes nothing.

    Args:
        numbers: a pytree of arrays.

    Returns:
        The same numbers.
    """
    return jax.tree.map(lambda leaf: checkpoint_name(leaf, SHAREABLE), numbers)


def held(words: Array) -> Array:
    """The same random words or keys, which on CPUs are computed once, before all their uses.

    XLA's CPU compiler repeats the rounds of Threefry within every use of them. If several keys are
    used in one loop over runs that share them, LLVM compiles for minutes: its vectoriser asks of an
    operation whether all lanes agree, and for that of both its operands, each time anew. Nothing
    moves past a condition, even one that always holds. A barrier alone is removed too early, but it
    hides that the condition holds. Compilers for other devices need no such help.

    Args:
        words: uint32 words, or keys of any generator, typed or raw.
    """
    typed = jnp.issubdtype(words.dtype, jax.dtypes.prng_key)
    data = jax.random.key_data(words) if typed else words
    same = jax.lax.platform_dependent(data, cpu=_before, default=lambda data: data)
    return jax.random.wrap_key_data(same, impl=jax.random.key_impl(words)) if typed else same


def _before(data: Array) -> Array:
    holds = jax.lax.optimization_barrier(jnp.array(True))
    return jax.lax.cond(holds, lambda data: data, jnp.zeros_like, data)

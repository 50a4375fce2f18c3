"""All examples in every step, with weights that may be traced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.types import Array, Key, Sampler

__all__ = ["whole"]


def whole(total: int = 1000, *, single: float | Array = 0.0) -> Sampler:
    """Every environment in every step with its share, to one part in `total`, or a single one.

    Args:
        total: the number of examples in the shares.
        single: 1 for one environment in each step, drawn with the shares (HeteroSGD); may be
            traced.
    """
    import jax.numpy as jnp

    from causal_sgd import random
    from causal_sgd.types import Batch, Sampler

    def draw(key: Key, step: Array, state: Array) -> tuple[Batch, Array]:
        del step
        shares = jnp.round(total * state)
        level = random.uniforms(random.bits(key, 1), state.dtype)
        chosen = jnp.sum(level >= jnp.cumsum(state)[:-1])
        alone = jnp.where(jnp.arange(len(state)) == chosen, total, 0)
        counts = jnp.where(jnp.asarray(single) > 0, alone, shares).astype(jnp.int32)
        return Batch(jnp.arange(len(state), dtype=jnp.int32), counts), state

    return Sampler(lambda key, probabilities: probabilities, draw, total)

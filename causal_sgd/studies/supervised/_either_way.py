"""A sampler that is pooled or of one environment, by a traced switch: both in one program."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from causal_sgd.types import Array, Batch, Key, Sampler, State

__all__ = ["either_way"]


def either_way(pooled: bool | Array, *, batch_size: int) -> Sampler:
    """All environments of positive probability in equal shares, or one that is drawn.

    Args:
        pooled: whether all of them are in every batch; may be traced.
        batch_size: m.
    """
    import jax.numpy as jnp

    from causal_sgd.training import samplers
    from causal_sgd.types import Batch, Sampler

    together, alone = (
        samplers.stratified(batch_size=batch_size),
        samplers.hetero(batch_size=batch_size),
    )

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        batch, _ = together.draw(key, step, state)
        one, _ = alone.draw(key, step, state)
        single = jnp.where(batch.environments == one.environments, batch_size, 0)
        return Batch(batch.environments, jnp.where(pooled, batch.counts, single)), state

    return Sampler(together.init, draw, batch_size, checked=True)

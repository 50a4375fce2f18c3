"""Words and keys that are computed once, before their uses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import random, run, sweep
from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Snapshot, Trace


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_the_same(impl: str) -> None:
    keys = jax.random.split(jax.random.key(3, impl=impl), 4)
    for function in (random.held, jax.jit(random.held), jax.jit(jax.vmap(random.held))):
        again = function(keys)
        assert again.dtype == keys.dtype
        assert np.array_equal(jax.random.key_data(again), jax.random.key_data(keys))
    words = jax.random.key_data(keys)
    assert np.array_equal(jax.jit(random.held)(words), words)


def test_the_rounds_are_not_repeated_in_every_use() -> None:
    def used(seed: jax.Array, *, held: bool) -> jax.Array:
        words = random.bits(jax.random.key(seed), 50)
        numbers = random.uniforms(random.held(words) if held else words, jnp.float32)
        return jnp.stack([jnp.sort(jnp.cos(numbers)), jnp.cumsum(numbers), numbers[::-1] * 3])

    def rotations(*, held: bool) -> int:
        lowered = jax.jit(used, static_argnames="held").lower(1, held=held)
        return str(lowered.compile().as_text()).count(" shift-left(")

    assert 0 < rotations(held=True) <= rotations(held=False) / 2


def test_runs_of_a_seed_with_fresh_examples_of_several_environments_compile() -> None:
    """Without `held` this takes minutes: 64 examples of each are drawn in one loop over runs."""
    images = np.random.default_rng(0).uniform(size=(30, 3)), np.arange(30) % 10

    def cell(key: jax.Array, *, rate: float | jax.Array) -> Trace:
        algorithm = sgd(
            world=worlds.coloured_digits(images=images),
            sampler=samplers.stratified(batch_size=128),
            measurement=measurements.examples(fresh=64, loss=losses.logistic),
            model=models.hadamard(dim=4, signed=True),
            optimizer=optax.sgd(rate),
        )
        return run(key, algorithm=algorithm, metrics={"last": _last}, num_steps=3)

    together = sweep(cell, axes={"rate": [0.1, 0.2, 0.3, 0.4]}, seeds=[5], progress=False)
    assert len(np.unique(together["last"].isel(step=-1))) == 4


def _last(snapshot: Snapshot) -> jax.Array:
    return snapshot.estimate[-1]

"""The peer in plain JAX. It imports jax when called, since scripts choose jax's devices first."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from .problems import DrawnProblem, PeerResult, count_runs


def jax_drawn(
    problem: DrawnProblem,
    *,
    seeds: Sequence[int],
    slab_bytes: int = 2**22,
    prng_impl: str = "threefry2x32",
) -> PeerResult:
    """Simulates many runs at once with plain `jit(vmap(scan))` over drawn measurements.

    Slabs bound the memory. The peer runs on jax's default device with jax's default precision
    (TensorFloat-32 on recent GPUs). A run depends on its own seed only, up to rounding.

    Args:
        problem: What to simulate.
        seeds: One integer per run, not negative and below 2**32.
        slab_bytes: Measurements are drawn and used in slabs of about this size, over all runs.
        prng_impl: JAX's bit generator. The default is also JAX's and `causal_sgd`'s.

    Raises:
        ValueError: If there are no seeds.
    """
    import jax
    import jax.numpy as jnp

    runs, dim, steps, warmup = count_runs(seeds), problem.dim, problem.steps, problem.warmup
    slab, full, rest = problem.slabs(runs, slab_bytes)

    def add_slab(gradient: jax.Array, key: jax.Array, residual: jax.Array, size: int) -> jax.Array:
        sensing = jax.random.normal(key, (size, dim**2), jnp.float32)
        return gradient + (sensing @ residual) @ sensing

    def step(factor: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        env_key, *keys = jax.random.split(key, 3)
        signs = jax.random.rademacher(env_key, (problem.spurious_rank,), jnp.float32)
        signal = jnp.zeros(dim, jnp.float32).at[problem.invariant].set(1)
        signal = signal.at[problem.spurious].set(problem.mean + problem.spread * signs)
        residual = (factor @ factor.T - jnp.diag(signal)).reshape(-1)

        def body(gradient: jax.Array, slab_key: jax.Array) -> tuple[jax.Array, None]:
            return add_slab(gradient, slab_key, residual, slab), None

        slab_keys = jax.random.split(keys[0], full)
        gradient, _ = jax.lax.scan(body, jnp.zeros(dim**2, jnp.float32), slab_keys)
        if rest:
            gradient = add_slab(gradient, keys[1], residual, rest)
        square = gradient.reshape(dim, dim)
        return factor - problem.rate * (square + square.T) @ factor, None

    advance = jax.jit(jax.vmap(lambda factor, keys: jax.lax.scan(step, factor, keys)[0]))

    @jax.jit
    def prepare(seeds: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        root = jax.vmap(partial(jax.random.key, impl=prng_impl))(seeds)
        keys = jax.vmap(lambda key: jax.random.split(key, steps))(root)
        factor = jnp.tile(
            problem.init_scale * jnp.eye(dim, problem.rank, dtype=jnp.float32), (runs, 1, 1)
        )
        return factor, jnp.split(keys, steps // warmup, axis=1)

    # Calls of equal length: one compilation, and the first call is the warm-up. The others are
    # dispatched asynchronously, so the device never waits for Python.
    factor, chunks = jax.block_until_ready(prepare(jnp.asarray(np.array(seeds, np.uint32))))
    factor = jax.block_until_ready(advance(factor, chunks[0]))
    start = time.perf_counter()
    for keys in chunks[1:]:
        factor = advance(factor, keys)
    factor = jax.block_until_ready(factor)
    elapsed = time.perf_counter() - start
    return PeerResult(np.asarray(factor), elapsed / (steps - warmup))

"""Which environments feed a step: the counts per environment. The sampler is the experiment.

HeteroSGD draws every batch from one environment (`hetero`, and in other orders `cyclic`, `shuffled`, `block`,
`sticky`); PooledSGD spreads every batch over all of them (`pooled`, `stratified`); `mixed` lies between. Whatever is
random here comes from the run's own stream for the order of the environments, so no other draw depends on the choice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.types import Array, Key, Sampler, State

__all__ = ["block", "cyclic", "hetero", "mixed", "pooled", "shuffled", "sticky", "stratified"]

LARGEST_BATCH = 2**30  # counts are int32; so large a batch is `population` for all that floats can tell


def hetero(*, batch_size: int | Array) -> Sampler:
    """HeteroSGD: every batch from one environment, drawn independently with the environments' probabilities.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        return _one_hot(_choose(key, state), state, batch_size), state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size, max_environments=1)


def cyclic(*, batch_size: int | Array) -> Sampler:
    """Every batch from one environment, in the fixed order 0, 1, ..., E-1, 0, ... (probabilities are not used).

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    return block(batch_size=batch_size, length=1)


def block(*, batch_size: int | Array, length: int | Array) -> Sampler:
    """`length` steps in one environment, then in the next, in the fixed order (probabilities are not used).

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
        length: steps spent in an environment before the next, at least 1; may be traced.
    """
    _check_batch_size(batch_size)
    checks.number("length", length, minimum=1)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        environment = (step // jnp.asarray(length, step.dtype)) % state.shape[0]
        return _one_hot(environment, state, batch_size), state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size, max_environments=1)


def shuffled(*, batch_size: int | Array) -> Sampler:
    """Every environment once per pass, one batch each, in an order drawn anew for every pass.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def init(key: Key, probabilities: Array) -> State:
        return jnp.zeros(probabilities.shape[0], jnp.int32)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        position = step % state.shape[0]
        order = jnp.where(position == 0, jax.random.permutation(key, state.shape[0]), state)
        return _one_hot(order[position], state, batch_size), order

    return Sampler(init, draw, batch_size, max_environments=1)


def sticky(*, batch_size: int | Array, stay: float | Array) -> Sampler:
    """A Markov chain: stay in the environment with probability `stay`, else draw one with the probabilities.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
        stay: in [0, 1); 0 is `hetero`. The stationary distribution is the environments' probabilities for any value.
    """
    _check_batch_size(batch_size)
    checks.number("stay", stay, minimum=0, maximum=1)
    concrete = checks.concrete(stay)
    if concrete is not None and concrete == 1:
        raise ValueError("stay must be below 1: at 1 the chain would never leave its first environment")

    def init(key: Key, probabilities: Array) -> State:
        return probabilities, _choose(key, probabilities)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        probabilities, current = state
        stay_key, next_key = jax.random.split(key)
        stays = jax.random.uniform(stay_key) < stay
        current = jnp.where(stays, current, _choose(next_key, probabilities))
        return _one_hot(current, probabilities, batch_size), (probabilities, current)

    return Sampler(init, draw, batch_size, max_environments=1)


def mixed(*, batch_size: int | Array, environments_per_batch: int) -> Sampler:
    """A batch shared equally by k environments that are drawn independently, with replacement.

    k = 1 is `hetero`; the variance of a batch's spurious signal falls like 1/k, so the critical heterogeneity
    grows like sqrt(k).

    Args:
        batch_size: m >= k, examples per batch; what k does not divide goes to the first draws; may be traced.
        environments_per_batch: k >= 1, static.
    """
    k = checks.integer("environments_per_batch", environments_per_batch)
    _check_batch_size(batch_size, minimum=k)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(k))
        environments = jax.vmap(_choose, (0, None))(keys, state)
        shares = _equal_shares(batch_size, k)
        return jnp.zeros(state.shape[0], jnp.int32).at[environments].add(shares), state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size, max_environments=k)


def pooled(*, batch_size: int | Array) -> Sampler:
    """PooledSGD: every example from an environment of its own draw, so counts are multinomial.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        counts = _multinomial(key, jnp.asarray(batch_size, state.dtype), state).astype(jnp.int32)
        # Binomials are floats, which skip whole numbers above 2^24: the largest count makes up what the sum is off by.
        missing = jnp.asarray(batch_size, jnp.int32) - jnp.sum(counts)
        return counts + _one_hot(jnp.argmax(counts), state, missing), state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size)


def stratified(*, batch_size: int | Array) -> Sampler:
    """Every batch holds every environment in equal shares (probabilities are not used).

    Args:
        batch_size: m >= 1, examples per batch; what E does not divide goes to environments that rotate with the step;
            may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        size = state.shape[0]
        shares = _equal_shares(batch_size, size)
        first = (step % size) * (jnp.asarray(batch_size, jnp.int32) % size) % size  # nobody is favoured for long
        return shares[(jnp.arange(size) - first) % size], state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size)


def _check_batch_size(batch_size: Any, minimum: int = 1) -> None:
    checks.number("batch_size", batch_size, minimum=minimum, maximum=LARGEST_BATCH)
    value = checks.concrete(batch_size)
    if value is not None and value != round(float(value)):
        raise ValueError(f"batch_size must be a whole number, got {batch_size}")


def _choose(key: Key, probabilities: Array) -> Array:
    """One environment drawn with the probabilities, by inversion (one uniform number, no logarithms)."""
    cumulative = jnp.cumsum(probabilities)
    uniform = jax.random.uniform(key, dtype=cumulative.dtype) * cumulative[-1]
    chosen = jnp.sum(cumulative <= uniform, dtype=jnp.int32)
    return jnp.minimum(chosen, probabilities.shape[0] - 1)


def _one_hot(environment: Array, state: Array, batch_size: int | Array) -> Array:
    size = state.shape[0]
    return jnp.where(jnp.arange(size) == environment, jnp.asarray(batch_size, jnp.int32), 0)


def _equal_shares(batch_size: int | Array, parts: int) -> Array:
    whole = jnp.asarray(batch_size, jnp.int32)
    return whole // parts + (jnp.arange(parts) < whole % parts)


def _multinomial(key: Key, total: Array, probabilities: Array) -> Array:
    """Multinomial counts [E] as floats, by halving the environments: log2 E rounds of binomials side by side.

    `jax.random.multinomial` goes through the environments one after the other, with binomials that take ten times as
    long as the rest of a step.
    """
    size = probabilities.shape[0]
    levels = (size - 1).bit_length()
    weights = [jnp.pad(probabilities, (0, 2**levels - size))]  # of the leaves, then of their pairs, up to the root
    for _ in range(levels):
        weights.append(weights[-1].reshape(-1, 2).sum(1))
    width = max(2**levels // 2, 1)
    shares = []  # of the left child in each node of a level, from the root down, padded to one width
    for children, parents in zip(weights[-2::-1], weights[:0:-1], strict=True):
        share = children[::2] / jnp.where(parents > 0, parents, 1)
        shares.append(jnp.pad(share, (0, width - share.shape[0])))

    def split(counts: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        index, share = level
        left = _binomial(jax.random.fold_in(key, index), counts[:width], share)
        return jnp.stack([left, counts[:width] - left], 1).reshape(-1)[: counts.shape[0]], None

    counts = jnp.zeros(2**levels, probabilities.dtype).at[0].set(total)
    if levels:  # a scan, so that the binomial is compiled once
        counts, _ = jax.lax.scan(split, counts, (jnp.arange(levels), jnp.stack(shares)))
    return counts[:size]


def _binomial(key: Key, number: Array, share: Array) -> Array:
    """Binomial draws [n] as floats for numbers of trials [n] and probabilities [n].

    Transformed rejection (BTRS of Hoermann 1993) where the mean of the rarer outcome is at least 10, a few candidates
    at a time so that the loop hardly ever turns twice; inversion of the first 64 terms below that, where all terms
    beyond have a probability of 1e-28.
    """
    candidates = 6
    p = jnp.minimum(share, 1 - share)
    small_key, large_key = jax.random.split(key)
    large = number * p >= 10

    # inversion; log pmf(k) = log C(n, k) + k log p + (n - k) log q, as a running sum
    n, safe = jnp.where(large, 1, number)[:, None], jnp.where(large | (p <= 0), 0.5, p)[:, None]
    k = jnp.arange(1, 64, dtype=p.dtype)[None, :]
    ratio = jnp.log(jnp.maximum(n - k + 1, 0) / k) + jnp.log(safe / (1 - safe))
    start = n * jnp.log1p(-safe)
    terms = jnp.exp(jnp.concatenate([start, start + jnp.cumsum(ratio, 1)], 1))
    uniform = jax.random.uniform(small_key, p.shape, p.dtype)[:, None]
    small = jnp.minimum(jnp.sum(jnp.cumsum(terms, 1) <= uniform, 1).astype(p.dtype), jnp.where(large, 1, number))
    small = jnp.where(p <= 0, 0, small)

    # rejection
    n, p1 = jnp.where(large, number, 100)[:, None], jnp.where(large, p, 0.5)[:, None]
    spread = jnp.sqrt(n * p1 * (1 - p1))
    b = 1.15 + 2.53 * spread
    a = -0.0873 + 0.0248 * b + 0.01 * p1
    mode = jnp.floor((n + 1) * p1)
    odds = p1 / (1 - p1)

    def tail(x: Array) -> Array:  # of Stirling's series for log x!
        inverse = 1 / (x + 1)
        return (1 / 12 - (1 / 360 - inverse**2 / 1260) * inverse**2) * inverse

    def propose(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        turn, chosen, done = state
        u_key, v_key = jax.random.split(jax.random.fold_in(large_key, turn))
        shape = (p.shape[0], candidates)
        u = jax.random.uniform(u_key, shape, p.dtype) - 0.5
        v = jax.random.uniform(v_key, shape, p.dtype, minval=jnp.finfo(p.dtype).tiny)
        us = jnp.maximum(0.5 - jnp.abs(u), jnp.finfo(p.dtype).eps)
        x = jnp.floor((2 * a / us + b) * u + n * p1 + 0.5)
        inside = (x >= 0) & (x <= n)
        y = jnp.clip(x, 0, n)
        bound = (
            (mode + 0.5) * jnp.log((mode + 1) / (odds * (n - mode + 1)))
            + (n + 1) * jnp.log((n - mode + 1) / (n - y + 1))
            + (y + 0.5) * jnp.log(odds * (n - y + 1) / (y + 1))
            + (tail(mode) + tail(n - mode) - tail(y) - tail(n - y))
        )
        height = jnp.log(v * (2.83 + 5.1 / b) * spread / (a / us**2 + b))
        accepted = inside & (((us >= 0.07) & (v <= 0.92 - 4.2 / b)) | (height <= bound))
        first = jnp.take_along_axis(y, jnp.argmax(accepted, 1)[:, None], 1)[:, 0]
        return turn + 1, jnp.where(done, chosen, first), done | jnp.any(accepted, 1)

    begin = jnp.zeros((), jnp.int32), jnp.zeros_like(p), ~large
    _, drawn, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, begin)
    rarer = jnp.where(large, drawn, small)
    return jnp.where(share > 0.5, number - rarer, rarer)

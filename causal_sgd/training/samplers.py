"""Which environments feed a step, and with how many examples. The sampler is the experiment.

HeteroSGD draws every batch from one environment (`hetero`, and in other orders `cyclic`, `block`,
`shuffled`, `sticky`); PooledSGD spreads every batch over all of them (`pooled`, `stratified`);
`mixed` lies between. All randomness here comes from the run's own stream for the order of the
environments, so no other draw depends on the choice.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import _room, checks, random
from causal_sgd.types import Array, Batch, Key, Sampler, State

_room(__name__)
__all__ = ["block", "cyclic", "hetero", "mixed", "pooled", "shuffled", "sticky", "stratified"]

# Counts are int32, and no float can tell a larger batch from `population`.
LARGEST_BATCH = 2**30


def hetero(*, batch_size: int | Array) -> Sampler:
    """HeteroSGD: every batch from one environment, drawn independently with the probabilities.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        return _pure(_choose(key, state, 1)[0], batch_size), state

    return Sampler(_probabilities, draw, batch_size, checked=True)


def cyclic(*, batch_size: int | Array) -> Sampler:
    """Every batch from one environment, in the fixed order 0, 1, ..., E-1, 0, ...

    Probabilities are not used.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    return block(batch_size=batch_size, length=1)


def block(*, batch_size: int | Array, length: int | Array) -> Sampler:
    """`length` steps in one environment, then in the next, in the fixed order.

    Probabilities are not used.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
        length: steps spent in an environment before the next, at least 1; may be traced.
    """
    _check_batch_size(batch_size)
    checks.whole("length", length, maximum=LARGEST_BATCH)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        environment = (step // jnp.asarray(length, step.dtype)) % state.shape[0]
        return _pure(environment, batch_size), state

    return Sampler(_probabilities, draw, batch_size, checked=True)


def shuffled(*, batch_size: int | Array) -> Sampler:
    """Every environment once per pass, one batch each, in an order drawn anew for every pass.

    Probabilities are not used.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def init(key: Key, probabilities: Array) -> State:
        return jnp.zeros(probabilities.shape[0], jnp.int32)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        position = step % state.shape[0]
        shuffle = jnp.argsort(random.bits(key, state.shape[0])).astype(jnp.int32)
        order = jnp.where(position == 0, shuffle, state)
        return _pure(order[position], batch_size), order

    return Sampler(init, draw, batch_size, checked=True)


def sticky(*, batch_size: int | Array, stay: float | Array) -> Sampler:
    """A Markov chain: stay in the environment with probability `stay`, else draw one.

    The stationary distribution is the environments' probabilities for any `stay`.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
        stay: in [0, 1); 0 is `hetero`; may be traced.
    """
    _check_batch_size(batch_size)
    checks.number("stay", stay, minimum=0, maximum=1)
    concrete = checks.concrete(stay)
    if concrete is not None and concrete == 1:
        raise ValueError(
            "stay must be below 1: at 1 the chain would never leave its first environment"
        )

    def init(key: Key, probabilities: Array) -> State:
        return probabilities, _choose(key, probabilities, 1)[0]

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        probabilities, current = state
        stays = random.uniforms(random.bits(key, 1, stream=1), probabilities.dtype)[0] < stay
        current = jnp.where(stays, current, _choose(key, probabilities, 1)[0])
        return _pure(current, batch_size), (probabilities, current)

    return Sampler(init, draw, batch_size, checked=True)


def mixed(*, batch_size: int | Array, environments_per_batch: int) -> Sampler:
    """A batch shared equally by k environments that are drawn independently, with replacement.

    k = 1 is `hetero`. The variance of a batch's spurious signal falls like 1/k, so the critical
    heterogeneity grows like sqrt(k).

    Args:
        batch_size: m >= k, examples per batch; the remainder of m / k goes to the first draws; may
            be traced.
        environments_per_batch: k >= 1, static.
    """
    k = checks.integer("environments_per_batch", environments_per_batch)
    _check_batch_size(batch_size, minimum=k)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        environments = _choose(key, state, k)
        if k == 1:
            return _pure(environments[0], batch_size), state
        shares = _equal_shares(batch_size, k)
        # Equal draws merge into one environment; others, without examples, take their places.
        counts = jnp.zeros(state.shape[0], jnp.int32).at[environments].add(shares)
        if k >= state.shape[0]:
            return _of_all(counts), state
        largest = jax.lax.top_k(counts, k)[1]
        return Batch(largest, counts[largest]), state

    return Sampler(_probabilities, draw, batch_size, checked=True)


def pooled(*, batch_size: int | Array) -> Sampler:
    """PooledSGD: each example's environment is drawn independently, so counts are multinomial.

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        counts = random.multinomial(key, jnp.asarray(batch_size, state.dtype), state).astype(
            jnp.int32
        )
        # Binomials are floats, which skip integers above 2^24; the largest count takes the rest.
        missing = jnp.asarray(batch_size, jnp.int32) - jnp.sum(counts, dtype=jnp.int32)
        largest = jnp.arange(state.shape[0]) == jnp.argmax(counts)
        return _of_all(counts + jnp.where(largest, missing, 0)), state

    return Sampler(_probabilities, draw, batch_size, checked=True)


def stratified(*, batch_size: int | Array) -> Sampler:
    """Every batch holds every environment of positive probability in equal shares.

    Other probabilities are not used.

    Args:
        batch_size: m >= 1, examples per batch; the remainder of m / E goes to environments that
            rotate with the step; may be traced.
    """
    _check_batch_size(batch_size)

    def draw(key: Key, step: Array, state: State) -> tuple[Batch, State]:
        present = state > 0
        size = jnp.sum(present, dtype=jnp.int32)
        number = jnp.asarray(batch_size, jnp.int32)
        # Over E steps the remainder visits all environments alike.
        first = (jnp.asarray(step, jnp.int32) % size) * (number % size) % size
        place = (jnp.cumsum(present, dtype=first.dtype) - 1 - first) % size
        counts = number // size + (place < number % size).astype(jnp.int32)
        return _of_all(jnp.where(present, counts, 0)), state

    return Sampler(_probabilities, draw, batch_size, checked=True)


def _check_batch_size(batch_size: int | Array, minimum: int = 1) -> None:
    checks.whole("batch_size", batch_size, minimum=minimum, maximum=LARGEST_BATCH)


def _probabilities(key: Key, probabilities: Array) -> State:
    """The state of a sampler that needs nothing but the probabilities [E], or their number."""
    return probabilities


def _choose(key: Key, probabilities: Array, number: int) -> Array:
    """Draw environments [number] independently with the probabilities, by inversion.

    One uniform each, no logarithms. The first ones do not depend on their number.
    """
    cumulative = jnp.cumsum(probabilities)
    levels = random.uniforms(random.bits(key, number), cumulative.dtype) * cumulative[-1]
    chosen = jnp.sum(cumulative[None, :] <= levels[:, None], 1, dtype=jnp.int32)
    return jnp.minimum(chosen, probabilities.shape[0] - 1)


def _pure(environment: Array, batch_size: int | Array) -> Batch:
    """The batch of one environment []; B = 1."""
    return Batch(environment.astype(jnp.int32)[None], jnp.asarray(batch_size, jnp.int32)[None])


def _of_all(counts: Array) -> Batch:
    """The batch of all environments with these counts [E]; B = E."""
    return Batch(jnp.arange(counts.shape[0], dtype=jnp.int32), counts)


def _equal_shares(batch_size: int | Array, parts: int) -> Array:
    whole = jnp.asarray(batch_size, jnp.int32)
    gets_one_more = jnp.arange(parts, dtype=jnp.int32) < whole % parts
    return whole // parts + gets_one_more.astype(jnp.int32)

"""Which environments feed a step: the counts per environment. The sampler is the experiment.

HeteroSGD draws every batch from one environment (`hetero`, and in other orders `cyclic`, `shuffled`, `block`,
`sticky`); PooledSGD spreads every batch over all of them (`pooled`, `stratified`); `mixed` lies between. Whatever is
random here comes from the run's own stream for the order of the environments, so no other draw depends on the choice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.types import Array, Key, Sampler, State

__all__ = ["block", "cyclic", "hetero", "mixed", "pooled", "shuffled", "sticky", "stratified"]

LARGEST_BATCH = (
    2**30
)  # counts are int32; so large a batch is `population` for all that floats can tell


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
    checks.whole("length", length, maximum=LARGEST_BATCH)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        environment = (step // jnp.asarray(length, step.dtype)) % state.shape[0]
        return _one_hot(environment, state, batch_size), state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size, max_environments=1)


def shuffled(*, batch_size: int | Array) -> Sampler:
    """Every environment once per pass, one batch each, in an order drawn anew for every pass (probabilities are not used).

    Args:
        batch_size: m >= 1, examples per batch; may be traced.
    """
    _check_batch_size(batch_size)

    def init(key: Key, probabilities: Array) -> State:
        return jnp.zeros(probabilities.shape[0], jnp.int32)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        position = step % state.shape[0]
        order = jnp.where(position == 0, jnp.argsort(random.bits(key, state.shape[0])), state)
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
        raise ValueError(
            "stay must be below 1: at 1 the chain would never leave its first environment"
        )

    def init(key: Key, probabilities: Array) -> State:
        return probabilities, _choose(key, probabilities)

    def draw(key: Key, step: Array, state: State) -> tuple[Array, State]:
        probabilities, current = state
        stays = random.uniforms(random.bits(key, 1, stream=1), probabilities.dtype)[0] < stay
        current = jnp.where(stays, current, _choose(key, probabilities))
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
        keys = random.fold_in(key, jnp.arange(k))
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
        counts = random.multinomial(key, jnp.asarray(batch_size, state.dtype), state).astype(
            jnp.int32
        )
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
        first = (
            (step % size) * (jnp.asarray(batch_size, jnp.int32) % size) % size
        )  # nobody is favoured for long
        return shares[(jnp.arange(size) - first) % size], state

    return Sampler(lambda key, probabilities: probabilities, draw, batch_size)


def _check_batch_size(batch_size: Any, minimum: int = 1) -> None:
    checks.whole("batch_size", batch_size, minimum=minimum, maximum=LARGEST_BATCH)


def _choose(key: Key, probabilities: Array) -> Array:
    """One environment drawn with the probabilities, by inversion (one uniform number, no logarithms)."""
    cumulative = jnp.cumsum(probabilities)
    uniform = random.uniforms(random.bits(key, 1), cumulative.dtype)[0] * cumulative[-1]
    chosen = jnp.sum(cumulative <= uniform, dtype=jnp.int32)
    return jnp.minimum(chosen, probabilities.shape[0] - 1)


def _one_hot(environment: Array, state: Array, batch_size: int | Array) -> Array:
    size = state.shape[0]
    return jnp.where(jnp.arange(size) == environment, jnp.asarray(batch_size, jnp.int32), 0)


def _equal_shares(batch_size: int | Array, parts: int) -> Array:
    whole = jnp.asarray(batch_size, jnp.int32)
    return whole // parts + (jnp.arange(parts) < whole % parts)

"""Optax transformations that optax has not: sharpness-aware steps by one batch, and averages of the iterates.

Everything else is optax, unwrapped: `optax.clip_by_global_norm`, `optax.MultiSteps`, schedules, `optax.contrib`. All numbers
may be traced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from causal_sgd import checks
from causal_sgd.types import Array, Params

__all__ = ["averaged", "moving_average", "sam", "tail_average"]


class AverageState(NamedTuple):
    """State of the averages."""

    updates: Array  # [] int32, so far
    average: Params


def sam(
    optimizer: optax.GradientTransformation, *, radius: float | Array
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al. 2021) by `optax.contrib.sam`, both gradients by the same batch.

    The gradient is taken at params + radius * gradient / |gradient|, and the update is made from params: two gradients a
    step. To be clipped or accumulated gradients belong inside: sam(chain(clip, ...)).

    Args:
        optimizer: of the update.
        radius: rho >= 0, in the units of the parameters; 0 is the optimizer itself.

    Returns:
        A transformation that needs `grad_fn`, which all algorithms give it.
    """
    checks.transformation("optimizer", optimizer)
    checks.number("radius", radius, minimum=0)
    # optax.contrib.normalize divides zero by zero where the gradient vanishes.
    ascent = optax.chain(optax.normalize_by_update_norm(radius, eps=1e-12), optax.scale(-1.0))
    inner = optax.contrib.sam(optimizer, ascent, opaque_mode=True)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: Any = None, **others: Any
    ) -> Any:
        del others  # which the one of optax refuses
        return inner.update(updates, state, params, grad_fn=grad_fn)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def moving_average(*, decay: float | Array) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters, for `averaged`; the last of a chain; the updates are unchanged.

    The weights of the iterates sum to one (the average is corrected for its start at zero).

    Args:
        decay: of the weights, in [0, 1); the average is over about the last 1 / (1 - decay) updates.
    """
    checks.number("decay", decay, minimum=0, maximum=1)
    known = checks.concrete(decay)
    if known is not None and known == 1:
        raise ValueError("decay must be below 1: at 1 no iterate would have a weight")

    def weight(count: Array) -> Array:
        # of the newest iterate: (1 - decay) / (1 - decay^count) makes the weights of all sum to one
        return (1 - decay) / (1 - jnp.asarray(decay, jnp.result_type(float)) ** count)

    return _average(weight)


def tail_average(*, start: int | Array) -> optax.GradientTransformation:
    """Keeps the mean of the parameters after `start` updates, for `averaged`; the last of a chain; the updates are unchanged.

    Polyak and Ruppert's averaging, or stochastic weight averaging (Izmailov et al. 2018) of every iterate. Up to `start`
    the average is the newest iterate.

    Args:
        start: updates that are left out, at least 0.
    """
    checks.number("start", start, minimum=0)
    return _average(lambda count: 1 / jnp.maximum(count - start, 1))


def averaged(state: optax.OptState, params: Params) -> Params:
    """The average that `moving_average` or `tail_average` keeps, as the `evaluate` of an algorithm.

    Args:
        state: of the optimizer that one of them is in.
        params: what it is an average of, and what is there before the first update.

    Raises:
        KeyError: if there is no average, or more than one.
    """
    del params
    found = optax.tree.get(state, "AverageState")
    if found is None:
        raise KeyError(
            "the optimizer keeps no average: put moving_average or tail_average last in its chain"
        )
    return found.average


def _average(weight: Any) -> optax.GradientTransformation:
    """Keeps average + weight(count) (params - average), count = 1 at the first update."""

    def init(params: Any) -> AverageState:
        return AverageState(jnp.zeros((), jnp.int32), params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AverageState]:
        count = jnp.asarray(optax.safe_increment(state.updates))
        share = weight(count)
        newest = optax.apply_updates(params, updates)
        average = jax.tree.map(
            lambda old, new: (old + share * (new - old)).astype(old.dtype), state.average, newest
        )
        return updates, AverageState(count, average)

    return optax.GradientTransformation(init, update)

"""When the losses reach a level, and where the gap of both times vanishes or diverges."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory.linear_dynamics._losses import check_kinds, combined, log_factor, parts
from causal_sgd.types import Array

__all__ = ["GrokkingTimes", "critical_ratio", "grokking_times", "late_gap", "vanishing_spread"]

DECADES = (-2.0, 12.0)  # of eta t, within which grokking times are looked for
POINTS = 180


class GrokkingTimes(NamedTuple):
    """Steps, not rounded, after which the losses first reach a level, each [...]; inf for never."""

    training: Array
    test: Array


@checked_jit
def grokking_times(
    learning_rate: ArrayLike,
    ratio: ArrayLike,
    level: ArrayLike,
    spread: ArrayLike = 0.0,
    *,
    dim: ArrayLike | None = None,
    design: str = "shared",
    sampler: str = "stratified",
) -> GrokkingTimes:
    """When training and test losses reach a level; the gap of grokking is the difference.

    Without spread the test loss reaches a level iff ratio < 1/(1 - level), `critical_ratio`. Up to
    there the gap is finite, also at ratio 1, where the losses fall like

        training = (4 pi)^(-1/2) (eta t)^(-3/2),  test = (pi eta t)^(-1/2).

    Accuracy: relative 1e-4 in single precision, for times from 0.01 to 1e12 over the learning rate;
    earlier ones are 0, and later ones inf. A loss that stays below the level for less than a fifth
    of the time it took to reach it may be overlooked.

    Args:
        learning_rate: eta [...].
        ratio: p/n [...].
        level: of both losses, [...], above zero.
        spread: M [...].
        dim: p [...] of a spectrum of finite size; None for the limit.
        design: one of `DESIGNS`.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: if an argument is out of range.

    >>> training, test = grokking_times(0.8, 0.9, 0.01)
    >>> print(f"{training:.1f} {test:.1f}")
    11.2 224.2
    """
    check_kinds(design, sampler)
    given = broadcast(learning_rate, ratio, level, spread)
    eta, aspect, goal, width = (jnp.stack([value, value]) for value in given)  # of both losses

    def excess(log_time: Array) -> Array:
        """Both losses over the level, [2, ...], at a time of each, [2, ...]."""
        time = jnp.exp(log_time) / eta
        found = combined(parts(time, eta, aspect, dim, design, sampler), width)
        return jnp.stack([found.training[0], found.test[1]]) - goal

    first, last = (math.log(10) * end for end in DECADES)
    logs = jnp.linspace(first, last, POINTS, dtype=eta.dtype)
    never = jnp.full_like(eta, jnp.inf)

    def look(found: Array, log_time: Array) -> tuple[Array, None]:
        reached = excess(jnp.full_like(found, log_time)) < 0
        return jnp.where(reached & jnp.isinf(found), log_time, found), None

    found, _ = jax.lax.scan(look, never, logs)
    high = jnp.where(jnp.isinf(found), logs[-1], found)
    times = jnp.exp(bisect(excess, high - logs[1] + logs[0], high)) / eta
    times = jnp.where(jnp.isinf(found), jnp.inf, jnp.where(found == logs[0], 0, times))
    return GrokkingTimes(*times)


@checked_jit
def late_gap(learning_rate: ArrayLike, ratio: ArrayLike) -> Array:
    """The gap of the grokking times at low levels, [...]: log(1/nu)/(-2 log|1 - eta nu/2|).

    Late losses are those of the end nu of the spectrum that fades last, so that the training loss
    is nu times the test loss. It is the lower end, (1 - sqrt(ratio))^2, for learning rates up to
    2/(1 + ratio). As the ratio tends to 1 the gap then diverges like

        (8/eta) log(2/(1 - ratio))/(1 - ratio)^2.

    For larger ones it is the upper end, and training is the later one to reach a low level.

    Accuracy: relative 1e-5 in single precision but for ratios within 1e-3 of 1.

    Args:
        learning_rate: eta [...], below 4/(1 + sqrt(ratio))^2.
        ratio: p/n [...]; inf at 1, and NaN beyond, where low levels are not reached.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{late_gap(0.8, 0.9):.0f}")
    2818
    """
    eta, aspect = broadcast(learning_rate, ratio)
    root = jnp.sqrt(aspect)
    low, high = ((1 - aspect) / (1 + root)) ** 2, (1 + root) ** 2
    last = jnp.where(eta <= 2 / (1 + aspect), low, high)
    gap = jnp.log(last) / (2 * log_factor(eta, last))
    return jnp.where(aspect < 1, gap, jnp.where(aspect == 1, jnp.inf, jnp.nan))


@checked_jit
def critical_ratio(level: ArrayLike) -> Array:
    """The ratio 1/(1 - level) [...] at which the grokking gap diverges, for one environment.

    Beyond it the examples leave a larger share 1 - 1/ratio of the error untouched than the level.

    Accuracy: a rounding.

    Args:
        level: of the losses, [...], above zero; inf from 1 on, which holds at the start.

    Raises:
        ValueError: if an argument is out of range.
    """
    (goal,) = broadcast(level)
    return jnp.where(goal < 1, 1 / (1 - jnp.minimum(goal, 1)), jnp.inf)


@checked_jit
def vanishing_spread(
    learning_rate: ArrayLike,
    ratio: ArrayLike,
    level: ArrayLike,
    *,
    dim: ArrayLike | None = None,
    sampler: str = "stratified",
) -> Array:
    """The spread [...] of environments on a shared design at which the gap of grokking vanishes.

    From there on training is the later one, and from a spread of sqrt(level) on it does not reach
    the level. With batches of all environments the square of the spread is the level less the
    training loss of one environment at the time at which the test loss reaches the level. NaN
    where the test loss never does.

    Accuracy: relative 1e-4 in single precision, and absolute 1e-4.

    Args:
        learning_rate: eta [...].
        ratio: p/n [...].
        level: of the losses, [...], above zero.
        dim: p [...] of a spectrum of finite size; None for the limit.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{vanishing_spread(0.8, 0.9, 0.01):.4f}")
    0.0996
    """
    check_kinds("shared", sampler)
    eta, aspect, goal = broadcast(learning_rate, ratio, level)

    def common(log_time: Array) -> tuple[Array, Array]:
        """The square of the spread of equal losses, and how far these are above the level."""
        found = parts(jnp.exp(log_time) / eta, eta, aspect, dim, "shared", sampler)
        (own, spread), (own_test, spread_test) = found
        square = (own_test - own) / (spread - spread_test)
        return square, own_test + square * spread_test - goal

    ends = (jnp.full_like(eta, math.log(10) * end) for end in DECADES)
    square, above = common(bisect(lambda log_time: common(log_time)[1], *ends))
    return jnp.where(above < goal, jnp.sqrt(jnp.maximum(square, 0)), jnp.nan)

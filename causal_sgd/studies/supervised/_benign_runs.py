"""Runs of two redundant features, and the numbers that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.supervised._either_way import either_way

if TYPE_CHECKING:
    import xarray as xr

    from causal_sgd.supervised.worlds import WorldFactory
    from causal_sgd.types import Array, Key, Trace

WEAK, LIKE = 0.2, 0.5  # sizes of the weak feature; that of the strong one is 1
SPREADS, SIZE_SPREAD = (0.25, 0.5, 1.0), 0.5  # of labels, and of sizes of the strong feature
EQUAL = {WEAK: 0, LIKE: 1}  # size of the weak feature -> world with one environment
DIFFERENT = {0.25: 2, 0.5: 3, 1.0: 4}  # spread of the labels -> world of two environments
CONTROL = 5  # the world of two environments whose strong feature differs in size
MEMBERS = ((0,), (1,), (2, 3), (4, 5), (6, 7), (8, 9))  # environments of these worlds
START, TINY = 0.1, 1e-25  # of both weights: to the end, and for a weak one that stays small
STARTS = START * np.geomspace(1, 2, 8)
STEPS, EVERY = 4000, 20
SETTLED, WATCHED = 100, 100  # steps before the growth of a weak feature is measured, and while
RATES = np.round(np.arange(0.1, 1.951, 0.05), 2)
GROWTH = np.round(np.arange(1.02, 1.981, 0.02), 2)
LABELS = ((0.1, 1.0), (0.2, 0.5), (0.4, 0.25), (0.4, 0.5))  # learning rate and spread of labels
RATE_OF_SIZES = 0.4  # learning rate of the control
LEARNED = 16  # time, steps times learning rate, by which the strong feature is learned


def one_of(index: int | Array) -> WorldFactory:
    """One of the worlds, by number, as the environments of all of them with probabilities."""
    import jax.numpy as jnp

    from causal_sgd.supervised import worlds

    sizes = [(1, WEAK), (1, LIKE)] + [(1, WEAK)] * (2 * len(SPREADS)) + [(1 + SIZE_SPREAD, WEAK)]
    sizes = np.array([*sizes, (1 - SIZE_SPREAD, WEAK)])
    labels = np.array([1, 1, *(1 + sign * spread for spread in SPREADS for sign in (1, -1)), 1, 1])
    moments = (
        sizes[:, :, None] * sizes[:, None, :],
        sizes * labels[:, None],
        labels**2,
        np.zeros((len(sizes), 3)),
    )
    shares = np.array([[e in members for e in range(len(sizes))] for members in MEMBERS], float)
    shares /= shares.sum(1, keepdims=True)
    probabilities = jnp.asarray(shares, float)[jnp.asarray(index, int)]
    return worlds.from_moments(moments, target=(0.0, 1 / WEAK), probabilities=probabilities)


def growth(
    key: Key, *, learning_rate: float | Array, world: int | Array, start: float | Array
) -> Trace:
    """Pooled training while the weak feature is small."""
    return _trained(key, True, learning_rate, world, start, SETTLED + WATCHED, WATCHED)


def to_the_end(
    key: Key,
    *,
    learning_rate: float | Array,
    world: int | Array,
    start: float | Array,
    pooled: bool | Array,
) -> Trace:
    """Pooled training or HeteroSGD, in one program."""
    return _trained(key, pooled, learning_rate, world, start, STEPS, EVERY)


def _trained(
    key: Key,
    pooled: bool | Array,
    learning_rate: float | Array,
    world: int | Array,
    start: float | Array,
    steps: int,
    every: int,
) -> Trace:
    import jax.numpy as jnp
    import optax

    from causal_sgd import training
    from causal_sgd.supervised import measurements, models

    algorithm = training.sgd(
        world=one_of(world),
        sampler=either_way(pooled, batch_size=2),
        measurement=measurements.moments(),
        model=models.hadamard(dim=2, init_scale=start),
        optimizer=optax.sgd(learning_rate),
    )
    watched = {
        "strong": lambda snapshot: snapshot.estimate[0],
        "weak": lambda snapshot: snapshot.estimate[1],
        "log_weak": lambda snapshot: jnp.log(jnp.abs(snapshot.params["positive"][1])),
    }
    return training.run(
        key, algorithm=algorithm, metrics=watched, num_steps=steps, record_every=every
    )


def exponents(data: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """The growth of the weak feature per step, mean over starts, [learning_rate, world]."""
    logs = data["growth"].log_weak.isel(seed=0)
    return ((logs.isel(step=2) - logs.isel(step=1)) / WATCHED).mean("start")


def _row(dataset: xr.Dataset, rate: float, world: int) -> xr.Dataset:
    """The runs of one learning rate and world."""
    (place,) = np.flatnonzero((dataset.learning_rate == rate) & (dataset.world == world))
    return dataset.isel(row=int(place))


def features(dataset: xr.Dataset, rate: float, world: int) -> tuple[np.ndarray, np.ndarray]:
    """What each feature adds to the prediction, v s^2 and u w^2, in the first start, [seeds, F]."""
    runs = _row(dataset, rate, world).isel(start=0)
    strong, weak = (runs[name].transpose("seed", "step").values for name in ("strong", "weak"))
    return strong, WEAK * weak


def shares(dataset: xr.Dataset, rate: float, world: int) -> np.ndarray:
    """The strong feature's share in the first start, [seeds, frames]; see `share_at`."""
    strong, weak = features(dataset, rate, world)
    with np.errstate(divide="ignore"):
        return share_at(np.log(strong) / 2 - np.log(weak / WEAK) / (2 * WEAK))


def share_at(kept: np.ndarray) -> np.ndarray:
    """The strong feature's share at the minimum to which the gradient flow would lead, [...].

    It is v s^2 where log|s|/v - log|w|/u is that of the run, `kept`, and v s^2 + u w^2 = 1. The
    noise of the last steps is not in it.
    """
    middle = np.zeros(kept.shape)
    low, high = middle - 100, middle + 100
    for _ in range(60):  # bisection for the logarithm of the weak share over the strong one
        middle = (low + high) / 2
        share = -np.logaddexp(0, middle)
        above = share / 2 - (middle + share - np.log(WEAK)) / (2 * WEAK) > kept
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return 1 / (1 + np.exp(middle))


def left(data: Mapping[str, xr.Dataset], rate: float) -> np.ndarray:
    """What the weak feature leaves to the strong one at the end, [starts]."""
    runs = _row(data["pooled"], rate, EQUAL[WEAK]).isel(seed=0, step=-1)
    return 1 - WEAK * runs.weak.values


def late_residuals(data: Mapping[str, xr.Dataset], rate: float) -> np.ndarray:
    """The mean absolute residual over the last quarter of the frames, [starts]."""
    runs = _row(data["pooled"], rate, EQUAL[WEAK]).isel(seed=0)
    late = runs.isel(step=slice(3 * runs.sizes["step"] // 4, None))
    return np.abs(1 - late.strong - WEAK * late.weak).mean("step").values


def learned(steps: np.ndarray, rate: float) -> int:
    """The frame by which the strong feature is learned."""
    return int(np.argmin(np.abs(steps * rate - LEARNED)))


def time(share: float | np.ndarray, start: float, rate: float, spread: float) -> np.ndarray:
    """Steps from one share of the strong feature to another, by theory."""
    from causal_sgd.theory import stability

    return np.asarray(stability.share_time(share, start, rate, spread, 1.0, WEAK))

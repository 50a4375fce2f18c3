"""Rows of a user's data that are held out for validation."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Moments, used_rows, weighted_moments
from causal_sgd.supervised.worlds._columns import Columns
from causal_sgd.supervised.worlds._data import DataWorld
from causal_sgd.types import Array, Key

__all__ = ["split", "training_rows"]

ROUNDING = 1e-12  # 0.29 * 100 is below 29 in floating point


def training_rows(share: float | None, data: Columns) -> np.ndarray:
    """How many rows of every environment train where a share is held out, [E].

    Args:
        share: above 0 and below 1; None for all rows to train. The number that is held out is
            rounded down.
        data: the rows.

    Raises:
        ValueError: if the share is out of range, or an environment, which is named, has too few
            rows to hold one out.
    """
    counts = np.bincount(data.owners, minlength=len(data.environments))
    if share is None:
        return counts
    checks.number("validation_share", share, above=0)
    if checks.concrete(share) is None or not share < 1:
        raise ValueError(
            f"validation_share must be a static number above 0 and below 1, got {share}"
        )
    held = np.minimum(np.floor(counts * float(share) * (1 + ROUNDING)).astype(int), counts - 1)
    if (held < 1).any():
        place = int(np.argmax(held < 1))
        raise ValueError(
            "validation_share must hold out at least one row of every environment and leave one, "
            f"got {share:g} with {counts[place]} rows of {data.environments[place]!r}"
        )
    return counts - held


def split(
    key: Key, world: DataWorld, owners: np.ndarray, trains: np.ndarray, *, standardise: bool
) -> DataWorld:
    """The world of random rows of every environment, which holds the moments of the others.

    Args:
        key: of the split.
        world: with all rows.
        owners: the environment of each of its rows, [N], sorted.
        trains: the number of training rows of every environment, [E].
        standardise: whether the training rows are to have means of zero and inputs of variance
            one. An input that is constant in them keeps its scale.
    """
    places = jnp.arange(len(owners), dtype=jnp.int32)
    bits = random.bits(key, len(owners))
    # Sorted by environment and then by bits: a random order within every environment.
    _, _, order = jax.lax.sort((jnp.asarray(owners, jnp.int32), bits, places), num_keys=2)
    counts = np.bincount(owners, minlength=len(trains))
    chosen = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = chosen < np.repeat(trains, counts)
    if standardise:
        world = _standardised(world, order[np.flatnonzero(chosen)])
    held = _taken(world, order[np.flatnonzero(~chosen)], counts - trains)
    training = _taken(world, order[np.flatnonzero(chosen)], trains)
    moments = None if held.second is None else Moments(held.second, held.counts)
    return dataclasses.replace(training, validation=moments, validation_rows=held.rows)


def _taken(world: DataWorld, rows: Array, counts: np.ndarray) -> DataWorld:
    """The world of some rows [n], sorted by environment, of which there are `counts` [E]."""
    taken = dataclasses.replace(
        world,
        inputs=world.inputs[rows],
        labels=world.labels[rows],
        starts=jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        counts=jnp.asarray(counts, world.counts.dtype),
        most=int(counts.max()),
    )
    if world.second is None:
        return taken
    second = weighted_moments(taken.rows, used_rows(taken.rows))
    return dataclasses.replace(taken, second=second)


def _standardised(world: DataWorld, rows: Array) -> DataWorld:
    """The world in units in which some rows have means of zero and inputs of variance one."""
    inputs = world.inputs[rows]
    spread = jnp.where(jnp.ptp(inputs, 0) > 0, jnp.std(inputs, 0), 1)
    scale = jnp.append(spread, jnp.ones((), spread.dtype))
    center = jnp.append(jnp.mean(inputs, 0), jnp.mean(world.labels[rows]))
    # z = (x, y, 1) becomes T z.
    turn = jnp.diag(jnp.append(1 / scale, jnp.ones((), scale.dtype)))
    turn = turn.at[:-1, -1].set(-center / scale)
    tests, rows_of_tests = world.tests, world.test_rows
    if tests is not None:
        tests = linalg.product(linalg.product(turn[None], tests), turn.T[None])
    if rows_of_tests is not None:
        rows_of_tests = rows_of_tests._replace(
            inputs=(rows_of_tests.inputs - center[None, None, :-1]) / scale[None, None, :-1],
            labels=rows_of_tests.labels - center[-1],
        )
    return dataclasses.replace(
        world,
        inputs=(world.inputs - center[None, :-1]) / scale[None, :-1],
        labels=world.labels - center[-1],
        tests=tests,
        test_rows=rows_of_tests,
        center=world.center + world.scale * center,
        scale=world.scale * scale,
    )

"""The world of a user's own arrays with environments."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._columns import Columns, read
from causal_sgd.supervised.worlds._data import DataWorld
from causal_sgd.supervised.worlds._known import known_inputs, known_weights
from causal_sgd.supervised.worlds._placement import Numbers
from causal_sgd.supervised.worlds._validation import split, training_rows
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Key

__all__ = ["from_arrays"]

FAR = 100.0
"""Means beyond this many standard deviations cost single precision too many digits."""


def from_arrays(
    x: Any,
    y: Any,
    environment: Any,
    *,
    columns: Sequence[str] | None = None,
    tests: Sequence[Hashable] = (),
    validation_share: float | None = None,
    standardise: bool = False,
    target: Numbers | None = None,
    causal: Sequence[str | int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """The world of a user's own data, whose population is the rows.

    A measurement of moments without a number of examples has the moments of the rows and their
    numbers, and `measurements.examples` without one the rows themselves, so that estimators and
    their tests see the data as they are.

    Args:
        x: inputs [N, p]: an array, a data frame, or an array or dataset of xarray.
        y: labels [N], or the name of a column of x.
        environment: names of the environments, [N] of any kind, or the name of a column of x.
        columns: names of the inputs: those to take where x has names, else names for all of them.
        tests: names of environments that are held out: only `test_moments` knows them.
        validation_share: share of the rows of every environment that is held out for the metric
            `validation_risk`, above 0 and below 1; static. The rows are random ones of the world's
            key, and their number is rounded down; nothing trains on them. None for none.
        standardise: whether to subtract the mean of all training rows from inputs and label and to
            divide the inputs by their standard deviation; weights are then per standard deviation.
        target: w* [p], in the units of the (standardised) inputs, where it is known.
        causal: names or places of the inputs that the label depends on, where they are known; none
            by default.
        probabilities: [E], how often each environment is drawn, in the sorted order of their names;
            None for in proportion to their training rows.

    Returns:
        A world factory; its world depends on the key only with a share for validation, which then
        differs from seed to seed. `world.columns` and `world.environments` hold the names.

    Raises:
        ValueError: if an array has a wrong shape or an entry that is no finite number, which is
            named with its row and column, if a name is unknown, or if an environment has too few
            rows to hold one out.

    Warns:
        UserWarning: if an environment has fewer training rows than there are inputs, or if means
            are so far from zero that single precision loses the variances.
    """
    checks.flags(standardise=standardise)
    data = read(x, y, environment, columns)
    data, held_out = _held_out(data, tests)
    dim = data.inputs.shape[1]
    values, moved, scale = _standardised(data, standardise)
    counts = np.bincount(data.owners, minlength=len(data.environments))
    trains = training_rows(validation_share, data)
    _warn(data, trains, values)
    order = np.argsort(data.owners, kind="stable")
    z = np.column_stack([values, np.ones(len(values))])
    second = np.stack([_empirical(z[data.owners == e]) for e in range(len(counts))])
    outside = [_empirical((part - moved) / scale, ones=True) for part in held_out]
    weights = known_weights(target, dim)
    mask = known_inputs(causal, data.names, dim)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(counts))
    shares = trains / trains.sum() if probabilities is None else probabilities

    def world(key: Key) -> DataWorld:
        kind = jnp.result_type(float)
        whole = DataWorld(
            inputs=jnp.asarray(values[order, :-1], kind),
            labels=jnp.asarray(values[order, -1], kind),
            starts=jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
            counts=jnp.asarray(counts, kind),
            second=jnp.asarray(second, kind),
            tests=jnp.asarray(np.reshape(outside, (-1, dim + 2, dim + 2)), kind),
            probabilities=jnp.asarray(shares, kind),
            target=jnp.asarray(weights, kind),
            causal=jnp.asarray(mask),
            center=jnp.asarray(moved, kind),
            scale=jnp.asarray(scale, kind),
            columns=data.names,
            environments=data.environments,
            most=int(counts.max()),
        )
        if validation_share is None:
            return whole
        return split(key, whole, data.owners[order], trains, standardise=standardise)

    return world


def _held_out(data: Columns, tests: Sequence[Hashable]) -> tuple[Columns, list[np.ndarray]]:
    """The data without the environments of the test, and (x, y) of each of these, [n, p + 1]."""
    checks.instance("tests", tests, (list, tuple), "a list of names of environments")
    for name in tests:
        if name not in data.environments:
            raise ValueError(f"tests must name environments, {data.environments}, got {name!r}")
    both = np.column_stack([data.inputs, data.labels])
    outside = [both[data.owners == data.environments.index(name)] for name in tests]
    kept = [place for place, name in enumerate(data.environments) if name not in tests]
    if not kept:
        raise ValueError("tests must leave at least one environment to train on, got all of them")
    rows = np.isin(data.owners, kept)
    return (
        data._replace(
            inputs=data.inputs[rows],
            labels=data.labels[rows],
            owners=np.searchsorted(kept, data.owners[rows]),
            environments=tuple(data.environments[place] for place in kept),
        ),
        outside,
    )


def _standardised(data: Columns, wanted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y) [N, p + 1], standardised if wanted, with what was subtracted and divided by."""
    values = np.column_stack([data.inputs, data.labels])
    center, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
    if wanted:
        center, spread = values.mean(0), values.std(0)
        constant = np.flatnonzero(~(spread[:-1] > 0))
        if len(constant):
            name = constant[0] if data.names is None else repr(data.names[constant[0]])
            raise ValueError(
                f"x must have no constant column where it is standardised, got column {name}"
            )
        scale[:-1] = spread[:-1]
    return (values - center) / scale, center, scale


def _warn(data: Columns, counts: np.ndarray, values: np.ndarray) -> None:
    dim = data.inputs.shape[1]
    small = [
        f"{name!r} ({count})"
        for name, count in zip(data.environments, counts, strict=True)
        if count < dim
    ]
    if small:
        warnings.warn(
            f"environments with fewer training rows than the {dim} inputs: {', '.join(small)}; "
            "regressions within such an environment have no unique solution",
            stacklevel=3,
        )
    far = np.flatnonzero(np.abs(values.mean(0)) > FAR * values.std(0))
    if len(far) and checks.floating() == np.float32:
        names = [*(data.names or map(str, range(dim))), "the label"]
        warnings.warn(
            f"the mean of {names[far[0]]} is more than {FAR:g} times its standard deviation, which "
            "single precision cannot resolve; pass standardise=True or enable x64",
            stacklevel=3,
        )


def _empirical(z: np.ndarray, *, ones: bool = False) -> np.ndarray:
    """The moments [q, q] of rows."""
    if ones:
        z = np.column_stack([z, np.ones(len(z))])
    return z.T @ z / len(z)

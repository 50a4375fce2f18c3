"""The world of a user's own arrays with environments."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised._moments import Rows
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
MOST_INPUTS = 2000
"""With more inputs, moments [q, q] are computed where they are asked for."""
MOST_CLASSES = 1000
"""Labels with more different values are no classes."""


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
    their tests see the data as they are. Any model trains on them by `measurements.examples`, under
    any loss; labels are numbers, -1 and 1, or classes 0, 1, ...

    Args:
        x: inputs [N, p]: an array, a data frame, or an array or dataset of xarray. Images
            [N, height, width, ...] are flattened, the last axis fastest.
        y: labels [N], or the name of a column of x.
        environment: names of the environments, [N] of any kind, or the name of a column of x.
        columns: names of the inputs: those to take where x has names, else names for all of them.
        tests: names of environments that are held out: only metrics of the test see their rows.
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
    outside = [(part - moved) / scale for part in held_out]
    small = dim <= MOST_INPUTS
    second = _stacked([values[data.owners == e] for e in range(len(counts))]) if small else None
    second_of_tests = np.reshape(_stacked(outside), (-1, dim + 2, dim + 2)) if small else None
    padded = _padded(outside)
    moves = standardise and validation_share is not None  # every split moves the labels anew
    classes = None if moves else _classes([values, *outside])
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
            second=None if second is None else jnp.asarray(second, kind),
            tests=None if second_of_tests is None else jnp.asarray(second_of_tests, kind),
            probabilities=jnp.asarray(shares, kind),
            target=jnp.asarray(weights, kind),
            causal=jnp.asarray(mask),
            center=jnp.asarray(moved, kind),
            scale=jnp.asarray(scale, kind),
            columns=data.names,
            environments=data.environments,
            most=int(counts.max()),
            test_rows=None if padded is None else Rows(*(jnp.asarray(a, kind) for a in padded)),
            test_environments=tuple(tests),
            classes=classes,
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
    if small and not data.images:  # nobody regresses on pixels
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


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """The moments [K, q, q] of several lots of rows (x, y), [n, p + 1] each."""
    rows = [np.column_stack([part, np.ones(len(part))]) for part in parts]
    return np.array([z.T @ z / len(z) for z in rows])


def _padded(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Inputs [T, n, p], labels [T, n] and numbers of rows [T]; None for no rows."""
    if not parts:
        return None
    counts = np.array([len(part) for part in parts])
    # Padding repeats the last row, at which every model has a finite value.
    rows = np.stack([part[np.minimum(np.arange(counts.max()), len(part) - 1)] for part in parts])
    return rows[..., :-1], rows[..., -1], counts


def _classes(parts: list[np.ndarray]) -> tuple[float, ...] | None:
    """The different labels of all rows (x, y), sorted; None for more than `MOST_CLASSES`."""
    found = np.unique(np.concatenate([part[:, -1] for part in parts]))
    return None if len(found) > MOST_CLASSES else tuple(found.tolist())

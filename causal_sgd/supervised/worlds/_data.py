"""Worlds of a user: arrays with environments, or their moments."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, random
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.worlds._columns import Columns, read
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import Numbers, array, weights_of
from causal_sgd.supervised.worlds._sampled import drawn_moments
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["DataWorld", "from_arrays", "from_moments"]

PARTS = ("xx", "xy", "yy", "means")
FAR = 100.0
"""Means beyond this many standard deviations cost single precision too many digits."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "inputs",
        "labels",
        "starts",
        "counts",
        "second",
        "tests",
        "probabilities",
        "target",
        "causal",
        "center",
        "scale",
    ],
    meta_fields=["columns", "environments", "most"],
)
@dataclasses.dataclass(frozen=True)
class DataWorld:
    """A user's rows, sorted by environment; drawn examples are rows with replacement.

    Attributes:
        inputs: [N, p].
        labels: [N].
        starts: the first row of each environment, [E] int32.
        counts: the number of its rows, [E].
        second: its moments, [E, q, q].
        tests: the moments of environments that were held out, [T, q, q].
        probabilities: how often each environment is drawn, [E].
        target: w* [p]; NaN where it is unknown.
        causal: [p] bool.
        center: what was subtracted from inputs and label, [p + 1].
        scale: by what they were divided afterwards, [p + 1].
        columns: names of the inputs; None where unknown.
        environments: names of the environments.
        most: the number of rows of the largest environment.
    """

    inputs: Array
    labels: Array
    starts: Array
    counts: Array
    second: Array
    tests: Array
    probabilities: Array
    target: Array
    causal: Array
    center: Array
    scale: Array
    columns: tuple[str, ...] | None
    environments: tuple[Hashable, ...]
    most: int

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def unscramble(self) -> Array:
        """The identity [p, p]."""
        return jnp.eye(self.target.shape[0], dtype=self.inputs.dtype)

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment: nothing is known."""
        return False

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) over the rows of every environment, [E, q, q]."""
        return self.second

    @property
    def test_moments(self) -> Array:
        """The moments over the rows of the environments that were held out, [T, q, q]."""
        return self.tests

    @property
    def rows(self) -> Rows:
        """The rows of every environment, padded to the largest: the data set of a measurement."""
        last = self.counts.astype(jnp.int32)[:, None] - 1
        rows = self.starts[:, None] + jnp.minimum(jnp.arange(self.most)[None], last)
        return Rows(self.inputs[rows], self.labels[rows], self.counts)

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of rows drawn with replacement, [B, q, q].

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: rows to draw, [B], at most 10^9; may be traced.

        Raises:
            ValueError: if a concrete number is not finite or too large.
        """
        return drawn_moments(self.draw_examples, key, environments, counts, self.target)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Rows of one environment with replacement: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        count = self.counts[environment].astype(jnp.uint32)
        row = random.bits(key, size) % jnp.full(size, count)
        rows = self.starts[environment] + row.astype(jnp.int32)
        return self.inputs[rows], self.labels[rows]

    def check(self) -> None:
        """Refuse probabilities that do not fit.

        Raises:
            ValueError: if they do not.
        """
        checks.probabilities("world.probabilities", self.probabilities, len(self.environments))


def from_arrays(
    x: Any,
    y: Any,
    environment: Any,
    *,
    columns: Sequence[str] | None = None,
    tests: Sequence[Hashable] = (),
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
        standardise: whether to subtract the mean of all rows from inputs and label and to divide
            the inputs by their standard deviation; weights are then per standard deviation.
        target: w* [p], in the units of the (standardised) inputs, where it is known.
        causal: names or places of the inputs that the label depends on, where they are known; none
            by default.
        probabilities: [E], how often each environment is drawn, in the sorted order of their names;
            None for in proportion to their rows.

    Returns:
        A world factory; its world does not depend on the key. `world.columns` and
        `world.environments` hold the names.

    Raises:
        ValueError: if an array has a wrong shape or an entry that is no finite number, which is
            named with its row and column, or if a name is unknown.

    Warns:
        UserWarning: if an environment has fewer rows than there are inputs, or if means are so far
            from zero that single precision loses the variances.
    """
    checks.flags(standardise=standardise)
    data = read(x, y, environment, columns)
    data, held_out = _held_out(data, tests)
    dim = data.inputs.shape[1]
    values, moved, scale = _standardised(data, standardise)
    counts = np.bincount(data.owners, minlength=len(data.environments))
    _warn(data, counts, values)
    order = np.argsort(data.owners, kind="stable")
    z = np.column_stack([values, np.ones(len(values))])
    second = np.stack([_empirical(z[data.owners == e]) for e in range(len(counts))])
    outside = [_empirical((part - moved) / scale, ones=True) for part in held_out]
    weights = _target(target, dim)
    mask = _causal(causal, data.names, dim)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(counts))
    shares = counts / counts.sum() if probabilities is None else probabilities

    def world(key: Key) -> DataWorld:
        del key
        kind = jnp.result_type(float)
        return DataWorld(
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

    return world


def from_moments(
    second: np.ndarray | Array | tuple[Any, Any, Any, Any],
    counts: Numbers | None = None,
    *,
    target: Numbers | None = None,
    causal: Sequence[int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """The world with given moments in every environment; what is drawn from it is Gaussian.

    Args:
        second: S_e = E z z' of z = (x, y, 1), [E, q, q]; or (xx, xy, yy, means) with E x x'
            [E, p, p], E x y [E, p], E y^2 [E] and the means of (x, y) [E, p + 1].
        counts: of how many examples they are the moments, [E]; None for a population.
        target: w* [p], where it is known.
        causal: places of the inputs that the label depends on, where they are known.
        probabilities: [E], how often each environment is drawn; None for in proportion to the
            counts, or equally often.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if a shape is wrong, or the moments of an environment, which is named, are not
            symmetric, have no 1 at the end or are not positive semidefinite.
    """
    values = _given_moments(second)
    size, dim = values.shape[0], values.shape[-1] - 2
    roots = np.stack([_root(moments, index) for index, moments in enumerate(values)])
    means = values[:, :-1, -1]
    rows = None
    if counts is not None:
        rows = array("counts", counts, (size,), minimum=1)
    weights, mask = _target(target, dim), _causal(causal, None, dim)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)

    def world(key: Key) -> LinearWorld:
        del key
        mixing = jnp.asarray(roots, float)
        shares = weights_of(probabilities, size)
        if probabilities is None and rows is not None:
            shares = rows / jnp.sum(rows)
        return LinearWorld(
            mixing=mixing,
            means=jnp.asarray(means, float),
            target=jnp.asarray(weights, float),
            causal=jnp.asarray(mask),
            unscramble=jnp.eye(dim),
            test_mixing=mixing[:0],
            test_means=jnp.zeros((0, dim + 1)),
            probabilities=shares,
            counts=rows,
        )

    return world


def _target(target: Numbers | None, dim: int) -> Array:
    """The weights w* [p]; NaN where it is unknown."""
    if target is None:
        with jax.debug_nans(False):  # these are meant
            return jnp.full(dim, jnp.nan)
    return array("target", target, (dim,))


def _causal(
    causal: Sequence[str | int] | None, names: tuple[str, ...] | None, dim: int
) -> np.ndarray:
    mask = np.zeros(dim, bool)
    given = () if causal is None else causal
    checks.instance("causal", given, (list, tuple), "a list of names or places of inputs")
    for each in given:
        if isinstance(each, str):
            if names is None:
                raise ValueError(f"causal must hold numbers of columns without names, got {each!r}")
            mask[names.index(checks.choice("causal", each, names))] = True
        else:
            mask[checks.integer("causal", each, minimum=0, maximum=dim - 1)] = True
    return mask


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
            f"environments with fewer rows than the {dim} inputs: {', '.join(small)}; regressions "
            "within such an environment have no unique solution",
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


def _given_moments(second: Any) -> np.ndarray:
    """Moments [E, q, q] in double precision, of the right shape and finite."""
    if isinstance(second, tuple):
        if len(second) != 4:
            raise ValueError(f"second must be (xx, xy, yy, means), got {len(second)} arrays")
        xx, xy, yy, means = (
            _concrete(name, part) for name, part in zip(PARTS, second, strict=True)
        )
        if xx.ndim != 3 or not xx.shape[0] or xx.shape[1] != xx.shape[2]:
            raise ValueError(f"xx must have shape [E, p, p], got {list(xx.shape)}")
        size, dim = xx.shape[:2]
        shapes = ((size, dim), (size,), (size, dim + 1))
        for name, part, shape in zip(PARTS[1:], (xy, yy, means), shapes, strict=True):
            if part.shape != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, got {list(part.shape)}")
        values = np.ones((size, dim + 2, dim + 2))
        values[:, :dim, :dim] = xx
        values[:, :dim, dim] = values[:, dim, :dim] = xy
        values[:, dim, dim] = yy
        values[:, :-1, -1] = values[:, -1, :-1] = means
        return values
    values = _concrete("second", second)
    square = values.ndim == 3 and values.shape[1] == values.shape[2] >= 3
    if not square or not values.shape[0]:
        raise ValueError(
            f"second must have shape [E, q, q] with E >= 1 and q >= 3, got {list(values.shape)}"
        )
    return values


def _concrete(name: str, value: Any) -> np.ndarray:
    found = checks.concrete(value)
    if found is None:
        raise ValueError(f"{name} must be a concrete array, got a traced one")
    checks.number(name, found, scalar=False, double=True)
    return found.astype(np.float64)


def _root(second: np.ndarray, index: int) -> np.ndarray:
    """A root [p + 1, p + 1] of the covariance of (x, y), from moments [q, q]."""
    place = f"in environment {index}"
    size = np.abs(second).max()
    if np.abs(second - second.T).max() > 1e-5 * size:
        raise ValueError(f"second must be symmetric, got a matrix {place} that is not")
    if abs(second[-1, -1] - 1) > 1e-5:
        raise ValueError(
            f"second must have a 1 at the end of its diagonal, the moment of the constant, got "
            f"{second[-1, -1]:g} {place}"
        )
    mean = second[:-1, -1]
    covariance = (second[:-1, :-1] + second[:-1, :-1].T) / 2 - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-6 * size:
        raise ValueError(
            f"second must be positive semidefinite, got a covariance with the eigenvalue "
            f"{values[0]:g} {place}"
        )
    return vectors * np.sqrt(np.maximum(values, 0))

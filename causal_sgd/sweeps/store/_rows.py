"""The runs of a store and their rows; a run is identified by its seed and parameter values."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from causal_sgd import checks
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._units import filled_up

__all__ = ["Table", "merged"]

FEW = 16  # runs, each of which is looked for in all rows
SPARSE = 4  # codes per row up to which an array of all codes finds the rows


class Table:
    """The rows of a store: runs in whole tiles, in the order in which they were requested."""

    def __init__(self, columns: Columns, filled: np.ndarray) -> None:
        """Take the input of every row.

        Args:
            columns: the seeds [rows] and the values [rows] of each parameter, by sorted names.
            filled: whether a row holds a run, [rows]; the others are padding.
        """
        self.columns, self.filled = columns, filled

    @classmethod
    def empty(cls, parameters: Mapping[str, str]) -> Table:
        """A table without rows, for parameters of these types."""
        kinds = (np.uint32, *(parameters[name] for name in sorted(parameters)))
        return cls(tuple(np.zeros(0, kind) for kind in kinds), np.zeros(0, bool))

    @classmethod
    def make(
        cls,
        requests: Sequence[Grid],
        parameters: Mapping[str, str],
        tile: int,
        by_seed: bool = False,
    ) -> Table:
        """The table of consecutive requests."""
        table = cls.empty(parameters)
        for grid in requests:
            table = table.extended(grid, tile, by_seed=by_seed)
        return table

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.filled)

    def rows(self, grid: Grid) -> np.ndarray:
        """The row of every run of a grid, in its flat order; -1 for absent runs."""
        checks.instance("grid", grid, Grid, "the grid of a sweep")
        positions = self._positions(grid)
        if grid.size <= FEW:
            flat = [np.broadcast_to(values, grid.shape).ravel() for values in positions]
            return np.array([self._row(run) for run in zip(*flat, strict=True)])
        rows = self._in_order(grid, positions)
        return self._index.find(positions) if rows is None else rows

    def _row(self, run: Sequence[np.generic]) -> int:
        """The row of one run; -1 if it is absent."""
        equal = self.filled.copy()
        for column, value in zip(self.columns, run, strict=True):
            equal &= column == value
        return int(equal.argmax()) if equal.any() else -1

    def _in_order(self, grid: Grid, positions: Sequence[np.ndarray]) -> np.ndarray | None:
        """The rows of a grid if they lie one after the other, as those of its first request do."""
        first = self._row([values.flat[0] for values in positions])
        rows = slice(first, first + grid.size)
        if first < 0 or rows.stop > self.size or not self.filled[rows].all():
            return None
        for column, values in zip(self.columns, positions, strict=True):
            if not (column[rows].reshape(grid.shape) == values).all():
                return None
        return np.arange(rows.start, rows.stop)

    def columns_of(self, grid: Grid) -> Columns:
        """The input of every run of a grid, with the types of this table."""
        return self._typed(grid, np.arange(grid.size))

    def _typed(self, grid: Grid, flat: np.ndarray) -> Columns:
        runs = grid.runs(flat, np.float64)
        return tuple(
            column.astype(own.dtype) for column, own in zip(runs, self.columns, strict=True)
        )

    def extended(self, grid: Grid, tile: int, *, by_seed: bool = False) -> Table:
        """Append the new runs of a grid, in whole tiles of one seed each or any."""
        new = np.flatnonzero(self.rows(grid) < 0)
        if not len(new):
            return self
        _, first = np.unique(_keys(self._typed(grid, new)), return_index=True)
        new = new[np.sort(first)]
        columns = self._typed(grid, new)
        places, filled = filled_up(columns[0] if by_seed else np.zeros(len(new), int), tile)
        added = tuple(column[places] for column in columns)
        return self.joined(added, filled)

    def joined(self, columns: Columns, filled: np.ndarray) -> Table:
        """The table with further rows."""
        joined = tuple(np.concatenate(pair) for pair in zip(self.columns, columns, strict=True))
        return Table(joined, np.concatenate([self.filled, filled]))

    def number_of_runs(self, rows: np.ndarray) -> int:
        """The number of different runs in some rows, given as a mask [rows]."""
        return len(np.unique(_keys(tuple(column[rows] for column in self.columns))))

    @functools.cached_property
    def _index(self) -> _Index:
        return _Index([column[self.filled] for column in self.columns], np.flatnonzero(self.filled))

    def _positions(self, grid: Grid) -> list[np.ndarray]:
        """The input of the runs of a grid column by column, each in a shape that broadcasts."""
        ndim = len(grid.shape)

        def along(axis: int, values: np.ndarray) -> np.ndarray:
            return values.reshape([-1 if place == axis else 1 for place in range(ndim)])

        columns = {
            name: along(axis, values)
            for axis, parameters in enumerate(grid.axes.values())
            for name, values in parameters.items()
        }
        positions = [along(ndim - 1, grid.seeds), *(columns[name] for name in grid.names)]
        if len(positions) != len(self.columns):
            raise ValueError(f"grid must have {len(self.columns) - 1} parameters, got {grid.names}")
        return [value.astype(own.dtype) for value, own in zip(positions, self.columns, strict=True)]


class _Index:
    """Finds the row of a run: each value of a column has a number, and each run a code of them."""

    def __init__(self, columns: Sequence[np.ndarray], rows: np.ndarray) -> None:
        import pandas as pd  # hashing is several times as fast as sorting

        codes = np.zeros(len(rows), np.int64)
        self._values: list[pd.Index] = []
        for column in columns:
            numbers, values = pd.factorize(_unsigned_zero(column))
            codes *= max(len(values), 1)
            codes += numbers
            self._values.append(pd.Index(values))
        # Products beyond 64 bits would need billions of different values.
        size = math.prod(len(values) for values in self._values)
        if size <= SPARSE * len(rows):
            self._rows = np.full(size + 1, -1)  # the last place is for absent runs
            self._rows[codes[::-1]] = rows[::-1]  # of equal runs the first one counts
            self._codes = None
        else:
            order = np.argsort(codes, kind="stable")
            self._codes, self._rows = codes[order], np.append(rows[order], -1)

    def find(self, positions: Sequence[np.ndarray]) -> np.ndarray:
        """The rows of runs, given by columns that broadcast to their shape; -1 for absent runs."""
        codes, absent = np.zeros((), np.int64), np.zeros((), bool)
        for values, known in zip(positions, self._values, strict=True):
            numbers = known.get_indexer(_unsigned_zero(values.ravel())).reshape(values.shape)
            codes = codes * max(len(known), 1) + np.maximum(numbers, 0)
            absent = absent | (numbers < 0)
        shape = np.broadcast_shapes(*(values.shape for values in positions))
        codes = np.broadcast_to(np.where(absent, -1, codes), shape).ravel()
        if self._codes is None:
            return self._rows[codes]
        place = np.searchsorted(self._codes, codes)
        inside = np.minimum(place, len(self._codes) - 1)
        return self._rows[np.where(self._codes[inside] == codes, inside, -1)]


def _unsigned_zero(column: np.ndarray) -> np.ndarray:
    """The values with 0 in place of -0."""
    return column + column.dtype.type(0)


def _keys(columns: Columns) -> np.ndarray:
    """Each run as bytes, equal if and only if all numbers are equal."""
    plain = [np.ascontiguousarray(_unsigned_zero(column)) for column in columns]
    words = np.concatenate(
        [column.view(np.uint8).reshape(len(column), column.itemsize) for column in plain], axis=1
    )
    return np.ascontiguousarray(words).view(np.dtype((np.void, words.shape[1]))).reshape(len(words))


def merged(requests: Sequence[Grid], grid: Grid, kinds: Mapping[str, npt.DTypeLike]) -> list[Grid]:
    """Requests that ask for the same runs as these and one more, in as few grids as is easy.

    Two grids become one where they differ in the values of one axis, or in the seeds, only.

    Args:
        requests: so far.
        grid: the new one.
        kinds: parameter -> its type in programs; values that are equal in it are one value.
    """
    others = list(requests)
    for index, other in enumerate(others):
        joined = _union(other, grid, kinds)
        if joined is not None:
            del others[index]
            # The union may fit a third one.
            return merged(others, joined, kinds) if joined is not other else [*requests]
    return [*others, grid]


def _union(one: Grid, two: Grid, kinds: Mapping[str, npt.DTypeLike]) -> Grid | None:
    """One grid of the runs of two; None if that would have others, too."""
    if {dim: set(axis) for dim, axis in one.axes.items()} != {
        dim: set(axis) for dim, axis in two.axes.items()
    }:
        return None
    parts = [
        (set(_points(first, kinds)), set(_points(second, kinds)))
        for first, second in (
            ({"seed": one.seeds}, {"seed": two.seeds}),
            *(
                (axis, {name: two.axes[dim][name] for name in axis})
                for dim, axis in one.axes.items()
            ),
        )
    ]
    if all(first >= second for first, second in parts):
        return one
    nested = all(first <= second for first, second in parts)
    if not nested and sum(first != second for first, second in parts) > 1:
        return None
    return Grid.hull([one, two], kinds)


def _points(
    axis: Mapping[str, np.ndarray], kinds: Mapping[str, npt.DTypeLike]
) -> list[tuple[float, ...]]:
    """The points of an axis as programs see them."""
    columns = (
        _unsigned_zero(values.astype(kinds.get(name, np.int64))).tolist()
        for name, values in axis.items()
    )
    return list(zip(*columns, strict=True))

"""The runs of a store and their rows; a run is identified by its seed and parameter values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from causal_sgd import checks
from causal_sgd.sweeps._grid import Columns, Grid
from causal_sgd.sweeps._units import filled_up

__all__ = ["Table"]


class Table(NamedTuple):
    """The rows of a store: runs in the order of the requests, in whole units."""

    columns: Columns
    filled: np.ndarray  # [rows], False for padding
    keys: np.ndarray  # [rows], each run as bytes

    @classmethod
    def make(
        cls,
        requests: Sequence[Grid],
        parameters: Mapping[str, str],
        tile: int,
        by_seed: bool = False,
    ) -> Table:
        """The table of consecutive requests."""
        kinds = (np.uint32, *(parameters[name] for name in sorted(parameters)))
        columns = tuple(np.zeros(0, kind) for kind in kinds)
        table = cls(columns, np.zeros(0, bool), _keys(columns))
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
        stored = np.flatnonzero(self.filled)
        wanted = _keys(self.columns_of(grid))
        keys = np.concatenate([self.keys[stored], wanted])
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        index = first[inverse[len(stored) :]]
        return np.append(stored, -1)[np.minimum(index, len(stored))]  # an absent run comes later

    def columns_of(self, grid: Grid) -> Columns:
        """The input of every run of a grid, with the types of this table."""
        runs = grid.runs(np.arange(grid.size), np.float64)
        return tuple(
            column.astype(own.dtype) for column, own in zip(runs, self.columns, strict=True)
        )

    def extended(self, grid: Grid, tile: int, *, by_seed: bool = False) -> Table:
        """Append the new runs of a grid, in whole units of `tile` rows, each of one seed or any."""
        columns = self.columns_of(grid)
        new = np.flatnonzero(self.rows(grid) < 0)
        _, first = np.unique(_keys(columns)[new], return_index=True)
        new = new[np.sort(first)]
        if not len(new):
            return self
        seeds = columns[0][new]
        places, filled = filled_up(seeds if by_seed else np.zeros_like(seeds), tile)
        added = tuple(column[new[places]] for column in columns)
        joined = tuple(np.concatenate(pair) for pair in zip(self.columns, added, strict=True))
        return Table(joined, np.concatenate([self.filled, filled]), _keys(joined))


def _keys(columns: Columns) -> np.ndarray:
    """Each run as bytes, equal if and only if all numbers are equal; so -0 becomes 0."""
    plain = [np.ascontiguousarray(column + column.dtype.type(0)) for column in columns]
    words = np.concatenate(
        [column.view(np.uint8).reshape(len(column), column.itemsize) for column in plain], axis=1
    )
    return np.ascontiguousarray(words).view(np.dtype((np.void, words.shape[1]))).reshape(len(words))

"""Which runs a store holds, and in which rows: every run is known by its seed and parameter values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from causal_sgd.sweeps._grid import Columns, Grid

__all__ = ["Table"]


class Table(NamedTuple):
    """The rows of a store: runs in the order in which they were asked for, in whole units."""

    columns: Columns
    filled: np.ndarray  # [rows], False for rows that only fill up a unit
    keys: np.ndarray  # [rows], every run as bytes

    @classmethod
    def make(cls, requests: Sequence[Grid], parameters: Mapping[str, str], tile: int) -> Table:
        """The table that some requests, one after another, make."""
        kinds = (np.uint32, *(parameters[name] for name in sorted(parameters)))
        columns = tuple(np.zeros(0, kind) for kind in kinds)
        table = cls(columns, np.zeros(0, bool), _keys(columns))
        for grid in requests:
            table = table.extended(grid, tile)
        return table

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.filled)

    def rows(self, grid: Grid) -> np.ndarray:
        """The row of every run of a grid in its flat order; -1 for those that are not there."""
        wanted = _keys(self.columns_of(grid))
        everyone = np.concatenate([self.keys[self.filled], wanted])
        _, first, inverse = np.unique(everyone, return_index=True, return_inverse=True)
        place = first[inverse[len(everyone) - len(wanted) :]]
        known = np.flatnonzero(self.filled)
        return np.where(place < len(known), np.append(known, -1)[np.minimum(place, len(known))], -1)

    def columns_of(self, grid: Grid) -> Columns:
        """The input of every run of a grid, in the types of this table."""
        runs = grid.runs(np.arange(grid.size), np.float64)
        return tuple(
            column.astype(own.dtype) for column, own in zip(runs, self.columns, strict=True)
        )

    def extended(self, grid: Grid, tile: int) -> Table:
        """With the runs of a grid that are new, in whole units of `tile` rows."""
        columns = self.columns_of(grid)
        new = np.flatnonzero(self.rows(grid) < 0)
        _, first = np.unique(_keys(columns)[new], return_index=True)
        new = new[np.sort(first)]
        if not len(new):
            return self
        padding = -len(new) % tile
        taken = np.append(new, np.full(padding, new[-1]))
        added = tuple(column[taken] for column in columns)
        filled = np.arange(len(taken)) < len(new)
        joined = tuple(np.concatenate(pair) for pair in zip(self.columns, added, strict=True))
        return Table(joined, np.concatenate([self.filled, filled]), _keys(joined))


def _keys(columns: Columns) -> np.ndarray:
    """Every run as bytes: equal where all its numbers are, -0 and 0 too."""
    plain = [np.ascontiguousarray(column + column.dtype.type(0)) for column in columns]
    words = np.concatenate(
        [column.view(np.uint8).reshape(len(column), column.itemsize) for column in plain], axis=1
    )
    return np.ascontiguousarray(words).view(np.dtype((np.void, words.shape[1]))).reshape(len(words))

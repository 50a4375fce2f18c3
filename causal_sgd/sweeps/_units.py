"""Which runs of a grid make up which tile. Imports no jax, for stored results."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from causal_sgd.sweeps._grid import Columns, Grid

__all__ = ["Units", "filled_up", "of_one_seed"]


class Units(NamedTuple):
    """The runs of a grid in units of one tile, whose input is padded to whole tiles.

    Units follow the flat order of the grid; where the runs of a unit have one seed, seed by seed.
    """

    grid: Grid
    tile: int
    by_seed: bool  # whether the runs of a unit have one seed

    @property
    def number(self) -> int:
        """The number of units."""
        seeds, points = self._parts()
        return seeds * -(-points // self.tile)

    def runs(self, unit: int) -> np.ndarray:
        """The indices of the runs of a unit in the flat order, without padding."""
        seeds, points = self._parts()
        seed, place = divmod(unit, -(-points // self.tile))
        first = place * self.tile
        return np.arange(first, min(first + self.tile, points)) * seeds + seed

    def columns(self, unit: int, real: npt.DTypeLike) -> Columns:
        """The input of a unit; copies of its last run pad it."""
        runs = self.runs(unit)
        padded = np.pad(runs, (0, self.tile - len(runs)), mode="edge")
        columns = self.grid.runs(padded, real)
        return of_one_seed(columns) if self.by_seed else columns

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values [units] of the units as those of their runs, [runs]."""
        seeds, points = self._parts()
        return np.repeat(values.reshape(seeds, -1), self.tile, 1)[:, :points].T.ravel()

    def _parts(self) -> tuple[int, int]:
        """The number of parts that share no unit, and of the runs of each."""
        seeds = self.grid.shape[-1] if self.by_seed else 1
        return seeds, self.grid.size // seeds


def of_one_seed(columns: Columns) -> Columns:
    """The input of runs of one seed with this seed as one number."""
    seeds, *values = columns
    return (seeds[0], *values)


def filled_up(groups: np.ndarray, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay runs out in whole tiles of one group each; copies of its last run pad a group.

    Args:
        groups: of each run, [n].
        tile: runs per tile.

    Returns:
        The place among the n runs of each row, by group and in their order, and whether the row is
        no padding; whole tiles of rows.
    """
    order = np.argsort(groups, kind="stable")
    _, first, count = np.unique(groups[order], return_index=True, return_counts=True)
    rows = -(-count // tile) * tile
    group = np.repeat(np.arange(len(count)), rows)
    place = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    taken = order[first[group] + np.minimum(place, count[group] - 1)]
    return taken, place < count[group]

"""`causal-sgd report`: what a table of one's own says about rejection, without training."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import tyro

from causal_sgd.cli.computation import start

if TYPE_CHECKING:
    from causal_sgd.experiment._supervised._files import Data

__all__ = ["Report"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Say of every feature of a table whether environments contradict it, and which step rejects
    it in a linear model. Nothing is trained.

    For example: causal-sgd report wages.csv --label-column wage --environment-column year
    """

    path: tyro.conf.Positional[Path]
    """A .csv file with a column for each input, the label and the environment, or an .npz file with
    the arrays x, y and environment."""
    label_column: str = "y"
    """Column of the label (.csv)."""
    environment_column: str = "environment"
    """Column of the environment (.csv)."""
    columns: tuple[str, ...] | None = None
    """Columns of the inputs; all others by default (.csv)."""
    batch_size: float | None = None
    """Examples of an environment in a step; all of them by default."""
    within: bool = False
    """Subtract the means of every environment."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> int:
        """Read the table and print the report."""
        from causal_sgd.experiment._supervised._files import read_data

        if not self.path.is_file():
            raise ValueError(f"PATH must be a file, got {self.path}, which does not exist")
        try:
            data = cast("Data", read_data(self.path).parts["data"])
        except ValueError as error:
            raise ValueError(str(error).replace("data_file", "PATH", 1)) from None
        start()
        from causal_sgd.experiment import diagnosis
        from causal_sgd.supervised import worlds

        given = data.y is None
        world = worlds.from_arrays(
            data.x,
            self.label_column if given else data.y,
            self.environment_column if given else data.environment,
            columns=None if self.columns is None else list(self.columns),
        )
        found = diagnosis.report(world, batch_size=self.batch_size, within=self.within)
        print(json.dumps(_plain(dataclasses.asdict(found))) if self.json else found)
        return 0


def _plain(value: object) -> object:
    """What JSON can hold; null for numbers that are not finite."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value

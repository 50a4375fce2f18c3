"""The arrays of a store that only other readers need: coordinates, steps and status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from causal_sgd.sweeps._grid import Columns
from causal_sgd.sweeps.store._arrays import Array
from causal_sgd.sweeps.store._header import Header
from causal_sgd.sweeps.store._journal import FIELDS

__all__ = ["coordinates", "status_array"]

EXPORTED_ROWS, EXPORTED_UNITS = 2**13, 2**10  # in a chunk of a coordinate, of `status`


def status_array(names: Sequence[str]) -> Array:
    """The array of the last records of all units, for other readers."""
    fields = [*FIELDS, *(f"crc32c of {name}" for name in names)]
    inner, dims = (len(fields),), ("unit", "field")
    kind = np.dtype(np.uint32)
    return Array("status", kind, inner, EXPORTED_UNITS, dims, attributes={"fields": fields})


def coordinates(
    header: Header,
    columns: Columns,
    filled: np.ndarray,
    rows: int = EXPORTED_ROWS,
    separator: str = ".",
) -> list[tuple[Array, np.ndarray]]:
    """The arrays of seeds, parameters and steps with their values; the seed of padding is -1.

    Args:
        header: of the store.
        columns: the input of every row.
        filled: whether a row holds a run, [rows].
        rows: in a chunk.
        separator: of the parts of a chunk's name.
    """
    seeds, *values = columns
    named = {"seed": np.where(filled, seeds.astype(np.int64), -1)}
    named |= dict(zip(sorted(header["parameters"]), values, strict=True))
    arrays = [
        (Array(name, column.dtype, (), rows, ("run",), separator), column)
        for name, column in named.items()
    ]
    metrics = header["configuration"]["metrics"]
    frames = next(
        cast("list[int]", metrics[name][1])[0]
        for name in header["variables"]
        if name != "diverged_at"
    )
    steps = np.full(frames, -1) if header["steps"] is None else np.asarray(header["steps"])
    step = Array("step", np.dtype(np.int32), (), max(len(steps), 1), ("step",), separator)
    return [*arrays, (step, steps.astype(np.int32))]

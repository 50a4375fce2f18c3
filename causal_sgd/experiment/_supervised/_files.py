"""A user's own data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from causal_sgd.experiment._system import File

__all__ = ["Data", "read_data"]

ARRAYS = ("x", "y", "environment")


class Data(NamedTuple):
    """What a file holds, as `worlds.from_arrays` takes it."""

    x: Any  # inputs [N, p], or a table with all columns
    y: Any  # labels [N]; None where they are a column of x
    environment: Any  # names [N]; None where they are a column of x


def read_data(path: Path) -> File:
    """Read a file of examples once for all that is known of it. Does not start jax.

    Args:
        path: an .npz file with the arrays x [N, p], y [N] and environment [N], or a .csv file with
            a column for each input, the label and the environment. Nothing is unpickled.

    Raises:
        ValueError: if it is missing or of another kind.
    """
    if path.suffix not in (".npz", ".csv"):
        raise ValueError(f"data_file must end in .npz or .csv, got {path}")
    try:
        sum_ = hashlib.sha256(path.read_bytes())
        held = _arrays(path) if path.suffix == ".npz" else pd.read_csv(path)
    except Exception as error:  # of a damaged file any, such as NotImplementedError or MemoryError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        kind = "an .npz archive of plain arrays" if path.suffix == ".npz" else "a table"
        raise ValueError(f"data_file must be {kind}, got {path} ({reason})") from None
    if isinstance(held, Mapping):
        if set(held) != set(ARRAYS):
            raise ValueError(
                f"data_file must hold the arrays x, y and environment, got {sorted(held)} in {path}"
            )
        data = Data(*(held[name] for name in ARRAYS))
    else:
        data = Data(held, None, None)
    return File({"data": data}, {}, f"sha256:{sum_.hexdigest()}")


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an archive by their names."""
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, Mapping):
            raise ValueError("one array")
        return dict(archive)

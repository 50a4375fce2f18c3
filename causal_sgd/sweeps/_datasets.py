"""The labelled dataset that a sweep returns. Imports no jax."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from causal_sgd.figures import _accessor  # noqa: F401  # registers `dataset.sgd`
from causal_sgd.sweeps._grid import Grid

if TYPE_CHECKING:
    from xarray.core.indexing import ExplicitlyIndexedNDArrayMixin

__all__ = ["labelled", "nullable", "with_nan"]


def labelled(
    grid: Grid,
    variables: Mapping[str, np.ndarray | ExplicitlyIndexedNDArrayMixin],
    steps: np.ndarray,
    attributes: Mapping[str, str | int],
) -> xr.Dataset:
    """Label the results of a sweep.

    Args:
        grid: the runs.
        variables: metric -> [*axes, seed, step, ...], and `diverged_at` [*axes, seed].
        steps: the recorded steps, [F].
        attributes: the attributes of the dataset.
    """
    dims = (*grid.axes, "seed")
    coordinates: dict[str, np.ndarray | tuple[str, np.ndarray]] = {
        "seed": grid.seeds,
        "step": steps,
    }
    for dim, parameters in grid.axes.items():
        coordinates |= {name: (dim, values) for name, values in parameters.items()}
    named = {}
    for name, values in variables.items():
        inner = tuple(f"{name}_{index}" for index in range(values.ndim - len(dims) - 1))
        named[name] = (dims if name == "diverged_at" else (*dims, "step", *inner), values)
    return xr.Dataset(named, coordinates, dict(attributes))


def nullable(kind: np.dtype) -> np.dtype:
    """The type for a metric of this type where runs are missing: one that has NaN.

    Booleans become 0 and 1, and whole numbers up to 2^53 keep their values.
    """
    if kind.kind in "fc":
        return kind
    small = kind.kind == "b" or kind.itemsize <= 2
    return np.dtype(np.float32 if small else np.float64)


def with_nan(name: str, values: np.ndarray) -> np.ndarray:
    """The values of a metric in their `nullable` type.

    Warns:
        UserWarning: if whole numbers are rounded.
    """
    widened = values.astype(nullable(values.dtype), copy=False)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        limit = 2**53
        if ((values > limit) | (values < (-limit if values.dtype.kind == "i" else 0))).any():
            warnings.warn(
                f"metric {name!r} has whole numbers beyond 2^53; they are rounded as long as runs "
                "are missing",
                stacklevel=2,
            )
    return widened

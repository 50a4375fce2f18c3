"""Numbers that figures derive from the results, as datasets for the table of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr

    from causal_sgd.analysis import Boundary

__all__ = ["intervals", "points"]


def points(
    settings: Mapping[str, npt.ArrayLike], numbers: Mapping[str, npt.ArrayLike]
) -> xr.Dataset:
    """Numbers at settings, both of shapes that broadcast against each other."""
    import xarray as xr

    arrays = np.broadcast_arrays(*map(np.asarray, (*settings.values(), *numbers.values())))
    dims = ("point",) if arrays[0].ndim else ()
    flat = [(dims, array.ravel() if dims else array) for array in arrays]
    coordinates = dict(zip(settings, flat, strict=False))
    return xr.Dataset(dict(zip(numbers, flat[len(settings) :], strict=True)), coordinates)


def intervals(bounds: Sequence[Boundary]) -> dict[str, np.ndarray]:
    """Measured boundaries [n] with the ends of their intervals."""
    return dict(zip(("measured", "low", "high"), np.array(bounds, float).T, strict=True))

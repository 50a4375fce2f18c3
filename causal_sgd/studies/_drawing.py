"""Lines that the figures of several studies share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    Points: TypeAlias = np.ndarray | xr.DataArray

__all__ = ["line_to_zero", "mark"]


def line_to_zero(ax: Axes, x: Points, y: Points, **options: Any) -> None:
    """Draw the line fitted to points [n] from the first of them to its root."""
    start = float(np.asarray(x)[0])
    slope, intercept = np.polyfit(x, y, 1)
    look: dict[str, Any] = {"lw": 0.9} | options
    ax.plot([start, -intercept / slope], [slope * start + intercept, 0], **look)


def mark(ax: Axes, x: float, **options: Any) -> None:
    """Draw a dotted vertical line at a predicted value."""
    look: dict[str, Any] = {"color": "0.3", "ls": ":", "lw": 1} | options
    ax.axvline(x, **look)

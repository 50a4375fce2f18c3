"""Lines that the figures of several studies share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType, LineStyleType

    Points: TypeAlias = np.ndarray | xr.DataArray

__all__ = ["Line", "Symbols", "line_to_zero", "mark"]


class Line(TypedDict):
    """The style of several lines, by matplotlib's names."""

    color: ColorType
    ls: LineStyleType
    lw: float


class Symbols(TypedDict, total=False):
    """The style of several sets of symbols, by matplotlib's names."""

    color: ColorType
    marker: str
    ms: float
    mfc: ColorType
    mew: float


def line_to_zero(ax: Axes, x: Points, y: Points, *, color: ColorType, lw: float = 0.9) -> None:
    """Draw the line fitted to points [n] from the first of them to its root."""
    start = float(np.asarray(x)[0])
    slope, intercept = np.polyfit(x, y, 1)
    ax.plot([start, -intercept / slope], [slope * start + intercept, 0], color=color, lw=lw)


def mark(ax: Axes, x: float, *, color: ColorType = "0.3", label: str | None = None) -> None:
    """Draw a dotted vertical line at a predicted value."""
    ax.axvline(x, color=color, ls=":", lw=1, label=label)

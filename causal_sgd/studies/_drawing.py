"""Lines that the figures of several studies share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

__all__ = ["line_to_zero", "mark"]


def line_to_zero(ax: Axes, x: ArrayLike, y: ArrayLike, **look: Any) -> None:
    """Draw the line fitted to points [n] from the first of them to its root."""
    start = float(np.asarray(x)[0])
    slope, intercept = np.polyfit(x, y, 1)
    ax.plot([start, -intercept / slope], [slope * start + intercept, 0], **{"lw": 0.9} | look)


def mark(ax: Axes, x: float, **look: Any) -> None:
    """Draw a dotted vertical line at a predicted value."""
    ax.axvline(x, **{"color": "0.3", "ls": ":", "lw": 1} | look)

"""The elements of figures: bands, notes, log scales, theory curves, hatched cells, legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.figures import _theme
from causal_sgd.figures._theme import Properties

__all__ = [
    "Curve",
    "arrays",
    "band",
    "boundary_band",
    "cells",
    "curves",
    "hatched_spans",
    "legend_below",
    "legend_right",
    "note",
    "outlines",
    "set_scale",
]

Curve: TypeAlias = Callable[[np.ndarray], ArrayLike] | tuple[ArrayLike, ArrayLike]
"""y(x), or the arrays (x, y)."""


def band(ax: Axes, x: np.ndarray, series: xr.Dataset, properties: Properties) -> PolyCollection:
    """The band between the quantiles of a summary, in the colour of its line."""
    low, high = series["low"].values, series["high"].values
    return ax.fill_between(x, low, high, color=properties["color"], alpha=0.18, lw=0, zorder=1)


def boundary_band(ax: Axes, bounds: xr.Dataset, x: str, y: str) -> tuple[PolyCollection, Line2D]:
    """A measured boundary as a line in its band, clipped at the limits of the axes.

    Args:
        ax: axes with their final limits.
        bounds: `value`, `low` and `high` of one of the axes over the other.
        x: name of the axis on x.
        y: name of the axis on y.
    """
    missing = {"value", "low", "high"} - set(bounds.data_vars)
    dims = [] if missing else [str(dim) for dim in bounds["value"].dims]
    if len(dims) != 1 or dims[0] not in (x, y):
        raise ValueError(
            f"band must have value, low and high over {x!r} or over {y!r} alone, got {bounds.sizes}"
        )
    over_y = dims[0] == y  # the boundary is a value on x for each y
    positions = np.asarray(bounds[dims[0]].values, float)
    limits = ax.get_xlim() if over_y else ax.get_ylim()
    valid = np.isfinite(bounds["value"].values)
    low, high = (np.clip(bounds[end].values, *limits) for end in ("low", "high"))
    fill = ax.fill_betweenx if over_y else ax.fill_between
    properties: Properties = {"facecolor": "white", "alpha": 0.45, "linewidth": 0, "zorder": 2.2}
    polygons = fill(positions, low, high, where=valid, **properties)
    values = np.where(valid, bounds["value"].values, np.nan)
    points = (values, positions) if over_y else (positions, values)
    properties = {"color": "black", "zorder": 2.6} | _theme.outlined_line(1.3, "white")
    (line,) = ax.plot(*points, label="measured", **properties)
    return polygons, line


def note(
    ax: Axes,
    text: str,
    point: tuple[float, float],
    coords: str | tuple[str, str],
    offset: tuple[float, float],
    *,
    ha: Literal["left", "center", "right"] = "left",
    va: Literal["baseline", "center", "top"] = "baseline",
    fontsize: str | float | None = None,
) -> None:
    """A text at an offset in points from a point, which may lie outside the axes."""
    ax.annotate(
        text,
        point,
        xytext=offset,
        xycoords=coords,
        textcoords="offset points",
        color="0.2",
        fontsize=mpl.rcParams["legend.fontsize"] if fontsize is None else fontsize,
        ha=ha,
        va=va,
    )


def check(ax: Axes, label: str | None) -> None:
    """Refuse what is no axes of a figure, and a label that is no text."""
    checks.instance("ax", ax, Axes, "the axes of a figure, such as plt.subplots() returns")
    if label is not None:
        checks.instance("label", label, str, "text or None")


def set_scale(ax: Axes, which: str, log: bool) -> None:
    """Make an axis logarithmic if `log`; over few decades, label 1, 2 and 5 as plain numbers."""
    if not log:
        return
    ax.set(**{f"{which}scale": "log"})
    low, high = getattr(ax, f"get_{which}lim")()
    if high < 300 * low:
        axis = getattr(ax, f"{which}axis")
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def arrays(argument: str, values: Iterable[ArrayLike], counts: tuple[int, ...]) -> list[np.ndarray]:
    """Convert values to float arrays of one shape (n,); their number must be in `counts`."""
    try:
        converted = [np.asarray(array, float) for array in values]
    except (TypeError, ValueError):
        raise ValueError(
            f"{argument} must be a function or arrays of numbers, got {values!r}"
        ) from None
    shapes = [array.shape for array in converted]
    if len(converted) not in counts or len(set(shapes)) > 1 or converted[0].ndim != 1:
        number = " or ".join(map(str, counts))
        raise ValueError(
            f"{argument} must be {number} arrays of one shape (n,), got shapes {shapes}"
        )
    return converted


def curves(
    ax: Axes,
    theory: Curve | Mapping[str, Curve] | None,
    x: np.ndarray,
    log: bool,
    *,
    outlined: bool,
) -> list[Line2D]:
    """Theory curves over the range of `x`: black, or white with an outline for coloured cells."""
    named: Mapping[str, Curve] = {}
    if theory is not None:
        named = theory if isinstance(theory, Mapping) else {"theory": theory}
    dense = (np.geomspace if log else np.linspace)(x[0], x[-1], 201)
    properties = _theme.white_line(1.6) if outlined else {"color": "black", "linewidth": 1.1}
    first = 0 if outlined else 1  # on white, the solid line is that of the data
    lines = []
    for index, (label, curve) in enumerate(named.items(), first):
        values = (dense, curve(dense)) if callable(curve) else curve
        points = arrays(f"theory {label!r}", values, (2,))
        dash = _theme.DASHES[index % len(_theme.DASHES)]
        lines += ax.plot(*points, label=label, linestyle=dash, zorder=2.5, **properties)
    return lines


def hatched_spans(
    ax: Axes, edges: np.ndarray, lost: Sequence[np.ndarray], lines: Sequence[Line2D]
) -> list[Patch]:
    """Hatch lost cells: over the full height for one line, in strips above the data for several.

    Args:
        ax: axes with their final scales.
        edges: [n + 1] of the cells on x.
        lost: for each line, [n] cells without a value.
        lines: the lines; their markers label the strips.
    """
    single = len(lines) == 1
    rows = np.cumsum([cells.any() for cells in lost])  # the strip of each line, from 1
    height = 1.0 if single else 0.06
    if not single and rows[-1]:
        _raise_top(ax, height * rows[-1])
    spans: list[Patch] = []
    for line, cells, row in zip(lines, lost, rows, strict=True):
        top = 1 - height * (row - 1)
        changes = np.flatnonzero(np.diff(np.concatenate([[False], cells, [False]]).astype(int)))
        for first, last in changes.reshape(-1, 2):
            left, right = float(edges[first]), float(edges[last])
            spans.append(
                ax.axvspan(left, right, ymin=top - height, ymax=top, zorder=0.5, **_theme.DIVERGED)
            )
            if not single:
                middle = np.sqrt(left * right) if ax.get_xscale() == "log" else (left + right) / 2
                marker: Properties = {"marker": line.get_marker(), "color": line.get_color()}
                transform = ax.get_xaxis_transform()
                ax.plot([middle], [top - height / 2], transform=transform, mfc="white", **marker)
    return spans


def _raise_top(ax: Axes, fraction: float) -> None:
    """Raise the upper limit of y, so that this fraction of the axes is free above the data."""
    transform = ax.yaxis.get_transform()
    low, high = transform.transform(np.array(ax.get_ylim()))
    top = low + (high - low) / max(1 - fraction, 0.3)
    ax.set_ylim(top=transform.inverted().transform(np.array([top]))[0])


def cells(
    ax: Axes, edges: Sequence[np.ndarray], selected: np.ndarray, properties: Properties
) -> PolyCollection | None:
    """Rectangles over the selected cells [y, x], in row-major order; None if there are none."""
    if not selected.any():
        return None
    x, y = edges
    rows, columns = np.nonzero(selected)
    left, right, low, high = x[columns], x[columns + 1], y[rows], y[rows + 1]
    corners = np.stack([left, low, right, low, right, high, left, high], axis=-1).reshape(-1, 4, 2)
    polygons = PolyCollection(list(corners), antialiased=False, **properties)
    ax.add_collection(polygons, autolim=False)
    return polygons


def outlines(ax: Axes, edges: Sequence[np.ndarray], owner: np.ndarray) -> LineCollection:
    """The outlines of merged cells: lines between neighbours [y, x] that have different owners."""
    x, y = edges
    rows, columns = np.nonzero(owner[:, 1:] != owner[:, :-1])
    vertical = np.stack([x[columns + 1], y[rows], x[columns + 1], y[rows + 1]], -1)
    rows, columns = np.nonzero(owner[1:] != owner[:-1])
    horizontal = np.stack([x[columns], y[rows + 1], x[columns + 1], y[rows + 1]], -1)
    segments = np.concatenate([vertical, horizontal]).reshape(-1, 2, 2)
    lines = LineCollection(list(segments), colors="white", linewidths=0.35, alpha=0.55, zorder=1.2)
    ax.add_collection(lines, autolim=False)
    return lines


def legend_below(ax: Axes, handles: Sequence[Artist]) -> Legend | None:
    """A legend below the axes, in as many columns as fit their width; None without handles."""
    legend = None
    position: Properties = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0),
        "borderaxespad": 4.2,  # in font sizes: below the tick labels and the axis label
        "frameon": False,
    }
    for columns in range(min(len(handles), 4), 0, -1):
        legend = ax.legend(
            handles=handles, ncols=columns, handlelength=2.6, columnspacing=1.2, **position
        )
        if legend.get_window_extent().width <= 1.15 * ax.get_window_extent().width:
            break
    return legend


def legend_right(ax: Axes, handles: Sequence[Artist]) -> Legend | None:
    """A legend in one column to the right of the axes; None without handles."""
    position: Properties = {
        "loc": "center left",
        "bbox_to_anchor": (1.02, 0.5),
        "borderaxespad": 0,
        "frameon": False,
    }
    return ax.legend(handles=handles, handlelength=2.6, **position) if handles else None

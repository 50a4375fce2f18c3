"""The pieces figures are drawn from: bands, notes, log scales, theory curves, hatched cells, legends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

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

from causal_sgd.figures import _theme
from causal_sgd.figures._theme import Look

__all__ = [
    "Curve", "arrays", "band", "boundary_band", "cells", "curves", "hatched_spans", "legend_below", "note", "outlines", "scale",
]  # fmt: skip

Curve: TypeAlias = Callable[[np.ndarray], ArrayLike] | tuple[ArrayLike, ArrayLike]


def band(ax: Axes, x: np.ndarray, series: xr.Dataset, look: Look) -> PolyCollection:
    """The band between the quantiles of a summary."""
    low, high = series["low"].values, series["high"].values
    return ax.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0, zorder=1)


def boundary_band(ax: Axes, bounds: xr.Dataset, x: str, y: str) -> tuple[PolyCollection, Line2D]:
    """A measured boundary as a line in its band, clipped at the limits of the axes.

    Args:
        ax: with its final limits.
        bounds: `value`, `low` and `high` of one of the axes over the other.
        x: name of the axis on x.
        y: name of the axis on y.
    """
    wrong = {"value", "low", "high"} - set(bounds.data_vars)
    dims = [str(dim) for dim in bounds["value"].dims] if not wrong else []
    if wrong or len(dims) != 1 or dims[0] not in (x, y):
        raise ValueError(
            f"band must have value, low and high over {x!r} or over {y!r} alone, got {bounds.sizes}"
        )
    upright = dims[0] == y  # the crossing is a place on the axis x
    place = np.asarray(bounds[dims[0]].values, float)
    limits = ax.get_xlim() if upright else ax.get_ylim()
    known = np.isfinite(bounds["value"].values)
    low, high = (np.clip(bounds[end].values, *limits) for end in ("low", "high"))
    fill = ax.fill_betweenx if upright else ax.fill_between
    look: Look = {"facecolor": "white", "alpha": 0.45, "linewidth": 0, "zorder": 2.2}
    drawn = fill(place, low, high, where=known, **look)
    middle = np.where(known, bounds["value"].values, np.nan)
    rim = _theme.rim(1.3, "white")
    (line,) = ax.plot(
        *((middle, place) if upright else (place, middle)),
        color="black",
        label="measured",
        zorder=2.6,
        **rim,
    )
    return drawn, line


def note(
    ax: Axes, text: str, place: Any, coords: Any, offset: tuple[float, float], **look: Any
) -> None:
    """A text `offset` points from a place, which may lie outside the axes."""
    look = {"color": "0.2", "fontsize": mpl.rcParams["legend.fontsize"]} | look
    ax.annotate(text, place, xytext=offset, xycoords=coords, textcoords="offset points", **look)


def scale(ax: Axes, which: str, log: bool) -> None:
    """Make an axis logarithmic if asked; over few decades, label 1, 2 and 5 of each with plain numbers."""
    if not log:
        return
    ax.set(**{f"{which}scale": "log"})
    low, high = getattr(ax, f"get_{which}lim")()
    if high < 300 * low:
        axis = getattr(ax, f"{which}axis")
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def arrays(argument: str, values: Iterable[Any], counts: tuple[int, ...]) -> list[np.ndarray]:
    """Float arrays of one shape (n,), as many as one of `counts`, else ValueError."""
    try:
        found = [np.asarray(array, float) for array in values]
    except (TypeError, ValueError):
        raise ValueError(
            f"{argument} must be a function or arrays of numbers, got {values!r}"
        ) from None
    shapes = [array.shape for array in found]
    if len(found) not in counts or len(set(shapes)) > 1 or found[0].ndim != 1:
        number = " or ".join(map(str, counts))
        raise ValueError(
            f"{argument} must be {number} arrays of one shape (n,), got shapes {shapes}"
        )
    return found


def curves(ax: Axes, theory: Any, x: np.ndarray, log: bool, *, outlined: bool) -> list[Line2D]:
    """Lines of theory over the range of `x`, black or, to lie on colours, `outlined`."""
    lines = []
    several = (
        theory if isinstance(theory, Mapping) else {} if theory is None else {"theory": theory}
    )
    dense = (np.geomspace if log else np.linspace)(x[0], x[-1], 201)
    look: Look = (
        {"color": "white"} | _theme.outline(1.6)
        if outlined
        else {"color": "black", "linewidth": 1.1}
    )
    for index, (label, curve) in enumerate(several.items()):
        pair = arrays(
            f"theory {label!r}", (dense, curve(dense)) if callable(curve) else curve, (2,)
        )
        dash = _theme.DASHES[
            (index + (not outlined)) % len(_theme.DASHES)
        ]  # the first solid line is the data's
        lines += ax.plot(*pair, label=label, linestyle=dash, zorder=2.5, **look)
    return lines


def hatched_spans(
    ax: Axes, edges: np.ndarray, lost: Sequence[np.ndarray], lines: Sequence[Line2D]
) -> list[Patch]:
    """Hatch the cells that are lost: the full height for one line, else a strip for each line on top."""
    alone = len(lines) == 1
    rows = np.cumsum([where.any() for where in lost])
    height = 1.0 if alone else 0.06
    if not alone and rows[-1]:  # lift the top, so that the strips lie above the data
        transform = ax.yaxis.get_transform()
        low, high = transform.transform(np.array(ax.get_ylim()))
        top = low + (high - low) / max(1 - height * rows[-1], 0.3)
        ax.set_ylim(top=transform.inverted().transform(np.array([top]))[0])
    spans: list[Patch] = []
    for line, where, row in zip(lines, lost, rows, strict=True):
        top = 1 - height * (row - 1)
        changes = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
        for first, last in changes.reshape(-1, 2):
            left, right = float(edges[first]), float(edges[last])
            spans.append(
                ax.axvspan(left, right, ymin=top - height, ymax=top, zorder=0.5, **_theme.DIVERGED)
            )
            if not alone:
                middle = np.sqrt(left * right) if ax.get_xscale() == "log" else (left + right) / 2
                look: Look = {
                    "marker": line.get_marker(),
                    "color": line.get_color(),
                    "mfc": "white",
                }
                ax.plot([middle], [top - height / 2], transform=ax.get_xaxis_transform(), **look)
    return spans


def cells(
    ax: Axes, edges: Sequence[np.ndarray], where: np.ndarray, look: Look
) -> PolyCollection | None:
    """Rectangles over the cells [y, x] chosen by `where`, in row-major order."""
    if not where.any():
        return None
    rows, columns = np.nonzero(where)
    left, right, low, high = (
        edges[0][columns],
        edges[0][columns + 1],
        edges[1][rows],
        edges[1][rows + 1],
    )
    corners = np.stack([left, low, right, low, right, high, left, high], axis=-1).reshape(-1, 4, 2)
    drawn = PolyCollection(list(corners), antialiased=False, **look)
    ax.add_collection(drawn, autolim=False)
    return drawn


def outlines(ax: Axes, edges: Sequence[np.ndarray], owner: np.ndarray) -> LineCollection:
    """The rims of larger cells: lines between neighbouring cells [y, x] that belong to different ones."""
    x, y = edges
    rows, columns = np.nonzero(owner[:, 1:] != owner[:, :-1])
    upright = np.stack([x[columns + 1], y[rows], x[columns + 1], y[rows + 1]], -1)
    rows, columns = np.nonzero(owner[1:] != owner[:-1])
    level = np.stack([x[columns], y[rows + 1], x[columns + 1], y[rows + 1]], -1)
    segments = np.concatenate([upright, level]).reshape(-1, 2, 2)
    drawn = LineCollection(list(segments), colors="white", linewidths=0.35, alpha=0.55, zorder=1.2)
    ax.add_collection(drawn, autolim=False)
    return drawn


def legend_below(ax: Axes, handles: Sequence[Artist]) -> Legend | None:
    """A legend below the axes (the distance in font sizes), in as many columns as fit their width."""
    legend = None
    place: Look = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, 0),
        "borderaxespad": 4.2,
        "frameon": False,
    }
    for columns in range(min(len(handles), 4), 0, -1):
        legend = ax.legend(
            handles=handles, ncols=columns, handlelength=2.6, columnspacing=1.2, **place
        )
        if legend.get_window_extent().width <= 1.15 * ax.get_window_extent().width:
            break
    return legend


def legend_right(ax: Axes, handles: Sequence[Artist]) -> Legend | None:
    """A legend in one column to the right of the axes."""
    place: Look = {
        "loc": "center left",
        "bbox_to_anchor": (1.02, 0.5),
        "borderaxespad": 0,
        "frameon": False,
    }
    return ax.legend(handles=handles, handlelength=2.6, **place) if handles else None

"""The three figures of a sweep, and the artists that each returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.contour import QuadContourSet
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.analysis import metric_names
from causal_sgd.figures import _elements, _tables, _theme
from causal_sgd.figures._elements import Curve
from causal_sgd.figures._theme import Look

__all__ = ["Diagram", "FinalValue", "Trajectories", "final_value", "phase_diagram", "trajectories"]


class Trajectories(NamedTuple):
    """The artists of `trajectories`: lines and bands by metric, within a metric by the values of `over`."""

    lines: list[Line2D]
    bands: list[PolyCollection]
    references: list[Line2D]
    legend: Legend | None


class FinalValue(NamedTuple):
    """The artists of `final_value`: one line, band and `partial` (open markers) per value of `over`."""

    lines: list[Line2D]
    bands: list[PolyCollection]
    partial: list[Line2D]
    spans: list[Patch]
    curves: list[Line2D]
    marks: list[Line2D]
    legend: Legend | None


class Diagram(NamedTuple):
    """The artists of `phase_diagram`; None for what the data or the caller gave no cause to draw."""

    mesh: QuadMesh
    hatch: PolyCollection | None
    curves: list[Line2D]
    colorbar: Colorbar | None
    missing: PolyCollection | None
    partial: Line2D | None
    contour: QuadContourSet | None
    boundary: Line2D | None
    legend: Legend | None
    band: PolyCollection | None = None
    curve: Line2D | None = None
    undecided: PolyCollection | None = None
    outlines: LineCollection | None = None


def trajectories(
    ax: Axes,
    dataset: xr.Dataset,
    metrics: str | Sequence[str] | None = None,
    *,
    over: str | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
    reference: Mapping[str, float] | None = None,
    logy: bool = False,
    label: str | None = None,
    legend: bool | Literal["below", "right"] = True,
) -> Trajectories:
    """Draw medians over seeds against the step, with quantile bands.

    A run that diverges later is left out from the first step on, so no line jumps when a run drops out;
    labels say what fraction diverged.

    Args:
        ax: where to draw.
        dataset: with metrics of dims ([over,] seed, step) in any order; other dims must have length one.
        metrics: names of the metrics; all by default.
        over: a dim with one colour for each of its values, such as "variant" or "spread".
        quantiles: lower and upper probability of the bands.
        reference: label -> level of dotted horizontal lines.
        logy: whether y is logarithmic.
        label: of the y axis; by default the metric's, if there is only one.
        legend: whether to draw a legend where there is something to tell apart, and where; True for below.
    """
    names = (
        metric_names(dataset)
        if metrics is None
        else [metrics]
        if isinstance(metrics, str)
        else list(metrics)
    )
    if not names:
        raise ValueError("metrics must name at least one metric of the dataset, got none")
    lines, bands = [], []
    colour_key, dash_key = [], []
    for index, metric in enumerate(names):
        table = _tables.summarise(dataset, metric, quantiles, step=True, over=over)
        for key, (words, series, look) in enumerate(_theme.series(table, over)):
            if over is None:
                look = _theme.line_look(index, _theme.COLOURS[index % len(_theme.COLOURS)])
                words = _theme.name_of(dataset, metric)
            elif len(names) > 1:
                look["linestyle"] = _theme.DASHES[index % len(_theme.DASHES)]
            fraction = float(series.diverged_fraction)
            words += f" ({_theme.percent(fraction)} diverged)" if fraction > 0 else ""
            every = (
                0.04 * (1 + (key if over else index) % 4),
                0.17,
            )  # staggered, in diagonals of the axes
            if not np.isfinite(series["median"]).any():
                every = None  # matplotlib cannot space markers along nothing
            bands.append(_elements.band(ax, series.step.values, series, look))
            lines += ax.plot(series.step, series["median"], label=words, markevery=every, **look)
            if index == 0:
                colour_key.append(Line2D([], [], label=words, **look))
                colour_key[-1].set_linestyle("-")
        dash = _theme.DASHES[index % len(_theme.DASHES)]
        dash_key.append(
            Line2D([], [], color="0.3", linestyle=dash, label=_theme.name_of(dataset, metric))
        )
    _elements.scale(ax, "y", logy)
    ax.margins(x=0)
    references = []
    for words, level in (reference or {}).items():
        references.append(ax.axhline(level, color="0.3", linestyle=":", linewidth=1, zorder=1.5))
        _elements.note(ax, words, (1, level), ("axes fraction", "data"), (4, 0), va="center")
    ax.set_xlabel("step")
    if label is None:
        label = _theme.name_of(dataset, names[0]) if len(names) == 1 else ""
    ax.set_ylabel(label)
    handles = lines if over is None or len(names) == 1 else colour_key + dash_key
    told = legend and (len(lines) > 1 or "diverged" in str(lines[0].get_label()))
    place = _elements.legend_right if legend == "right" else _elements.legend_below
    return Trajectories(lines, bands, references, place(ax, handles if told else []))


def final_value(
    ax: Axes,
    dataset: xr.Dataset,
    metric: str,
    *,
    along: str,
    over: str | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
    theory: Curve | Mapping[str, Curve] | None = None,
    logx: bool | None = None,
    logy: bool = False,
    mark: float | Mapping[str, float] | None = None,
    label: str | None = None,
    legend: bool = True,
) -> FinalValue:
    """Draw the median final value over seeds against one axis of the sweep, with quantile bands.

    Where some seeds diverged, the marker is open and the fraction stands above it; where more than half did,
    there is no line but a hatched span: of full height for a single line, for several a strip on top with the
    line's marker.

    Args:
        ax: where to draw.
        dataset: with the metric of dims (along, [over,] seed[, step]) in any order.
        metric: name of the metric.
        along: name of the numeric axis on x.
        over: a dim with one colour for each of its values.
        quantiles: lower and upper probability of the bands.
        theory: y(x) or (x, y), which is labelled "theory"; or label -> either.
        logx: whether x is logarithmic; by default when `along` is spaced geometrically.
        logy: whether y is logarithmic.
        mark: x of a vertical line, or label -> x, such as the critical spread.
        label: of the y axis; by default the metric's.
        legend: whether to draw a legend where there is something to tell apart.
    """
    table = _tables.summarise(dataset, metric, quantiles, along=along, over=over).sortby(along)
    x = _tables.numeric("along", table[along])
    logx = _tables.is_geometric(x) if logx is None else logx
    edges = _tables.edges("along", x, logx)
    lines, bands, partial, lost = [], [], [], []
    for words, series, look in _theme.series(table, over):
        shown = series.where(series.diverged_fraction <= 0.5)
        bands.append(_elements.band(ax, x, shown, look))
        lines += ax.plot(x, shown["median"], label=words or "median over seeds", **look)
        some = shown.where(shown.diverged_fraction > 0)
        partial += ax.plot(
            x, some["median"], **look | {"linestyle": "", "mfc": "white", "zorder": 3}
        )
        for point in zip(x, some["median"].values, some.diverged_fraction.values, strict=True):
            if np.isfinite(point[1]):
                _elements.note(
                    ax,
                    _theme.percent(point[2]),
                    point[:2],
                    "data",
                    (0, 6),
                    ha="center",
                    fontsize="x-small",
                )
        lost.append(series.diverged_fraction.values > 0.5)
    curves = _elements.curves(ax, theory, x, logx, outlined=False)
    _elements.scale(ax, "x", logx)
    _elements.scale(ax, "y", logy)
    spans = _elements.hatched_spans(ax, edges, lost, lines)
    marks = []
    for words, place in (
        mark if isinstance(mark, Mapping) else {} if mark is None else {"": mark}
    ).items():
        marks.append(
            ax.axvline(place, color="0.3", linestyle=(0, (6, 2, 1, 2)), linewidth=1, zorder=1.5)
        )
        _elements.note(ax, words, (place, 1), ("data", "axes fraction"), (0, 3), ha="center")
    ax.set_xlabel(_theme.name_of(dataset, along))
    ax.set_ylabel(label or _theme.name_of(dataset, metric))
    handles: list[Artist] = [*lines, *curves]
    if any(np.isfinite(np.asarray(points.get_ydata(), float)).any() for points in partial):
        open_marker: Look = {"marker": "o", "mfc": "white", "linestyle": "", "color": "0.3"}
        handles.append(Line2D([], [], label="some diverged", **open_marker))
    handles += [Patch(label="most diverged", **_theme.DIVERGED)] if spans else []
    told = legend and len(handles) > 1
    return FinalValue(
        lines,
        bands,
        partial,
        spans,
        curves,
        marks,
        _elements.legend_below(ax, handles if told else []),
    )


def phase_diagram(
    ax: Axes,
    dataset: xr.Dataset,
    metric: str,
    *,
    x: str,
    y: str,
    theory: Curve | Mapping[str, Curve] | None = None,
    boundary: tuple[ArrayLike, ...] | None = None,
    band: xr.Dataset | None = None,
    undecided: xr.DataArray | None = None,
    merge: bool = False,
    level: float | None = None,
    diverged: float = 0.5,
    logx: bool | None = None,
    logy: bool | None = None,
    cmap: str = "cividis",
    norm: Normalize | str | None = None,
    colorbar: bool = True,
    label: str | None = None,
    legend: bool = True,
) -> Diagram:
    """Draw the median final value over seeds against two axes of the sweep, as coloured cells.

    Cells with a diverged fraction of at least `diverged` are the third phase, hatched grey; those with a
    smaller one carry a cross; cells without any run are dotted. Cell edges lie midway between coordinates,
    geometrically on a log axis.

    Args:
        ax: where to draw; its limits become those of the cells.
        dataset: with the metric of dims (x, y, seed[, step]) in any order.
        metric: name of the metric.
        x: name of the numeric axis on x.
        y: name of the numeric axis on y.
        theory: y(x) or (x, y), which is labelled "theory"; or label -> either.
        boundary: the measured one, (x, y) or (x, y, x_low, x_high), arrays of one shape [n].
        band: the measured one as a curve in its band: `value`, `low` and `high` of one axis over the other, as
            `phase.rejection_boundary` returns them.
        undecided: of dims (x, y), true for cells to hatch because their runs do not say on which side they lie.
        merge: draw a cell that was not run as a part of the nearest one that was, with outlines: a refined diagram.
        level: of the median, where a contour is drawn.
        diverged: the least fraction of diverged seeds, above 0, at which a cell is hatched.
        logx: whether x is logarithmic; by default when its coordinate is spaced geometrically.
        logy: the same for y.
        cmap: a colour map, monotone in lightness.
        norm: of the colours, such as "log", or a `Normalize` that several panels share.
        colorbar: whether to draw one.
        label: of the colour bar; by default the metric's.
        legend: whether to draw one where there is something to explain.
    """
    checks.number("diverged", diverged, above=0, maximum=1)
    if level is not None:
        checks.number("level", level)
    table = _tables.summarise(dataset, metric, (0.5, 0.5), x=x, y=y).sortby([x, y]).transpose(y, x)
    xs, ys = _tables.numeric("x", table[x]), _tables.numeric("y", table[y])
    logx, logy = (
        _tables.is_geometric(c) if log is None else log for c, log in ((xs, logx), (ys, logy))
    )
    edges = _tables.edges("x", xs, logx), _tables.edges("y", ys, logy)
    fraction = table.diverged_fraction.values
    third = fraction >= diverged
    run = np.isfinite(fraction)
    owner = _tables.nearest(run if merge else np.ones_like(run))
    median = np.ma.masked_invalid(np.where(third, np.nan, table["median"].values))
    empty = np.ma.getmaskarray(median)
    mesh = ax.pcolormesh(*edges, median.ravel()[owner], cmap=cmap, norm=norm, rasterized=True)
    hatch = _elements.cells(ax, edges, third.ravel()[owner], _theme.DIVERGED)
    missing = _elements.cells(ax, edges, (empty & ~third).ravel()[owner], _theme.MISSING)
    open_ = None
    if undecided is not None:
        where = undecided.reindex_like(table["median"]).transpose(y, x).values.astype(bool)
        open_ = _elements.cells(ax, edges, (where & ~third).ravel()[owner], _theme.UNDECIDED)
    rims = _elements.outlines(ax, edges, owner) if merge and not run.all() else None
    ax.set(
        xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]], autoscale_on=False
    )  # whatever the curves do
    _elements.scale(ax, "x", logx)
    _elements.scale(ax, "y", logy)

    curves = _elements.curves(ax, theory, xs, logx, outlined=True)
    handles: list[Artist] = [*curves]
    contour = points = partial = None
    if level is not None and min(median.shape) > 1 and median.min() <= level <= median.max():
        contour = ax.contour(
            xs, ys, median, [level], colors="white", linestyles=":", linewidths=1.4
        )
        contour.set_path_effects(_theme.outline(1.4)["path_effects"])
        handles.append(
            Line2D(
                [],
                [],
                color="white",
                linestyle=":",
                label=f"median {level:g}",
                **_theme.outline(1.4),
            )
        )
    if boundary is not None:
        middle, height, *ends = _elements.arrays("boundary", boundary, (2, 4))
        if ends:
            rim = _theme.outline(1.2)["path_effects"]
            ax.hlines(
                height,
                ends[0],
                ends[1],
                colors="white",
                linewidth=1.2,
                zorder=2.8,
                path_effects=rim,
            )
        look: Look = {
            "color": "black",
            "marker": "o",
            "markersize": 4.5,
            "mfc": "white",
            "linestyle": "",
        }
        (points,) = ax.plot(middle, height, label="measured", zorder=2.9, **look)
        handles.append(points)
    filled = line = None
    if band is not None:
        filled, line = _elements.boundary_band(ax, band, x, y)
        handles.append(line)
    some = (fraction > 0) & ~empty
    if some.any():
        rows, columns = np.nonzero(some)
        look = {"color": "white", "marker": "x", "markersize": 4, "linestyle": ""} | _theme.outline(
            1
        )
        (partial,) = ax.plot(xs[columns], ys[rows], label="some diverged", **look)
        handles.append(partial)
    handles += [Patch(label=rf"$\geq$ {diverged:.0%} diverged", **_theme.DIVERGED)] if hatch else []
    handles += [Patch(label="not run", **_theme.MISSING)] if missing else []
    look = _theme.UNDECIDED | {"facecolor": "0.5"}
    handles += [Patch(label="undecided", **look)] if open_ else []
    ax.set_xlabel(_theme.name_of(dataset, x))
    ax.set_ylabel(_theme.name_of(dataset, y))
    ax.spines[:].set_visible(True)
    name = label or _theme.name_of(dataset, metric)
    bar = ax.figure.colorbar(mesh, ax=ax, label=name, pad=0.02) if colorbar else None
    box = _elements.legend_below(ax, handles if legend else [])
    return Diagram(
        mesh, hatch, curves, bar, missing, partial, contour, points, box, filled, line, open_, rims
    )

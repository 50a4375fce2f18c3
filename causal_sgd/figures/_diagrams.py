"""The phase diagram of a sweep: final values over two axes, with boundaries and diverged cells."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import NamedTuple, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.contour import QuadContourSet
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.figures import _elements, _tables, _theme
from causal_sgd.figures._elements import Curve
from causal_sgd.figures._theme import Properties

__all__ = ["Diagram", "phase_diagram"]


class Diagram(NamedTuple):
    """The artists of `phase_diagram`; None for those without data or not requested."""

    mesh: QuadMesh
    hatch: PolyCollection | None  # diverged cells
    curves: list[Line2D]  # theory
    colorbar: Colorbar | None
    missing: PolyCollection | None  # cells without runs
    partial: Line2D | None  # crosses on cells with some diverged seeds
    contour: QuadContourSet | None
    boundary: Line2D | None  # points of the measured boundary
    legend: Legend | None
    band: PolyCollection | None = None  # band of the measured boundary
    curve: Line2D | None = None  # line of the measured boundary
    undecided: PolyCollection | None = None
    outlines: LineCollection | None = None  # outlines of merged cells


class _Grid(NamedTuple):
    """The table behind a diagram."""

    xs: np.ndarray  # [nx]
    ys: np.ndarray  # [ny]
    logx: bool
    logy: bool
    edges: tuple[np.ndarray, np.ndarray]  # [nx + 1], [ny + 1]
    median: np.ma.MaskedArray  # [ny, nx], masked where most seeds diverged or none ran
    fraction: np.ndarray  # [ny, nx] diverged among completed runs, NaN where there are none
    lost: np.ndarray  # [ny, nx] whether the diverged fraction reaches the threshold
    owner: np.ndarray  # [ny, nx] flat index of the cell that each cell is drawn as


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
    cmap: str | Colormap = "cividis",
    norm: Normalize | str | None = None,
    colorbar: bool = True,
    label: str | None = None,
    legend: bool = True,
) -> Diagram:
    """Draw the median final value over seeds against two axes of the sweep, as coloured cells.

    Cells with a diverged fraction of at least `diverged` are the third phase, hatched grey. Cells
    with a smaller positive fraction have a cross, cells without runs are dotted. Cell edges lie
    midway between coordinates, geometrically on a log axis.

    Args:
        ax: the axes to draw on; their limits become those of the cells.
        dataset: the metric with dims (x, y, seed[, step]) in any order.
        metric: name of the metric.
        x: name of the numeric axis on x.
        y: name of the numeric axis on y.
        theory: y(x) or (x, y), labelled "theory"; or label -> either.
        boundary: points of the measured boundary, (x, y) or (x, y, x_low, x_high), arrays of shape
            [n].
        band: the measured boundary as a curve with a band: `value`, `low` and `high` of one axis
            over the other, as returned by `analysis.rejection_boundary`.
        undecided: boolean with dims (x, y); true cells are hatched, because their runs do not
            determine the side of the boundary.
        merge: whether to draw a cell without runs as part of the nearest cell with runs, with
            outlines, for refined diagrams.
        level: value of the median at which a contour is drawn.
        diverged: the least diverged fraction, above 0, at which a cell is hatched.
        logx: whether x is logarithmic; by default if its coordinate is geometrically spaced.
        logy: the same for y.
        cmap: a colour map, monotone in lightness.
        norm: scaling of the colours, such as "log" or a `Normalize`. By default all diagrams of a
            metric in a figure share one linear scale, from the least to the largest median;
            `Normalize()` gives one a scale of its own.
        colorbar: whether to draw a colour bar.
        label: label of the colour bar; by default that of the metric.
        legend: whether to draw a legend if there is anything to explain.
    """
    _elements.check(ax, label)
    checks.number("diverged", diverged, above=0, maximum=1)
    checks.flags(merge=merge, colorbar=colorbar, legend=legend)
    given = {name: log for name, log in (("logx", logx), ("logy", logy)) if log is not None}
    checks.flags(**given)
    kinds = (
        ("cmap", cmap, (str, Colormap), "a colour map or its name"),
        ("norm", norm, (str, Normalize, type(None)), "a scaling of colours or its name"),
        ("band", band, (xr.Dataset, type(None)), "a dataset of value, low and high"),
        ("undecided", undecided, (xr.DataArray, type(None)), f"an array with dims {x!r} and {y!r}"),
    )
    for argument, value, kind, allowed in kinds:
        checks.instance(argument, value, kind, allowed)
    if level is not None:
        checks.number("level", level, double=True)
    table = _tables.summarise(dataset, metric, (0.5, 0.5), x=x, y=y).sortby([x, y]).transpose(y, x)
    grid = _grid(table, x, y, logx, logy, diverged, merge)
    values = grid.median.ravel()[grid.owner]
    scale = _shared_scale(ax, metric, values) if norm is None else norm
    mesh = ax.pcolormesh(*grid.edges, values, cmap=cmap, norm=scale, rasterized=True)
    if norm is None:
        _SHARED[mesh] = metric
    hatch, missing, open_cells, outlines = _draw_marked_cells(ax, table, grid, undecided, merge)
    _set_axes(ax, dataset, grid, x, y)

    curves = _elements.curves(ax, theory, grid.xs, grid.logx, outlined=True)
    contour, sample = (None, None) if level is None else _draw_contour(ax, grid, level)
    points = None if boundary is None else _draw_boundary(ax, boundary)
    polygons, line = (None, None) if band is None else _elements.boundary_band(ax, band, x, y)
    partial = _draw_crosses(ax, grid)
    lines = [handle for handle in (*curves, sample, points, line, partial) if handle is not None]
    patches = _cell_handles(hatch, missing, open_cells, diverged)
    name = label or _theme.label_of(dataset, metric)
    bar = ax.figure.colorbar(mesh, ax=ax, label=name, pad=0.02) if colorbar else None
    return Diagram(
        mesh=mesh,
        hatch=hatch,
        curves=curves,
        colorbar=bar,
        missing=missing,
        partial=partial,
        contour=contour,
        boundary=points,
        legend=_elements.legend_below(ax, [*lines, *patches] if legend else []),
        band=polygons,
        curve=line,
        undecided=open_cells,
        outlines=outlines,
    )


_SHARED: weakref.WeakKeyDictionary[QuadMesh, str] = weakref.WeakKeyDictionary()
"""The metrics of the diagrams that share the scale of their figure."""


def _shared_scale(ax: Axes, metric: str, values: np.ma.MaskedArray) -> Normalize:
    """The scale of the diagrams of a metric in a figure, extended to new values."""
    root = ax.figure.figure or ax.figure  # of a subfigure, the figure
    drawn = [artist for other in root.axes for artist in other.collections]
    peers = [mesh for mesh in drawn if isinstance(mesh, QuadMesh) and _SHARED.get(mesh) == metric]
    scale = cast("Normalize", peers[0].norm) if peers else Normalize()
    arrays = [np.ma.ravel(np.ma.asarray(mesh.get_array())) for mesh in peers]
    shown = np.ma.concatenate([*arrays, values.ravel()])
    if shown.count():
        scale.vmin, scale.vmax = float(shown.min()), float(shown.max())
    return scale


def _grid(
    table: xr.Dataset,
    x: str,
    y: str,
    logx: bool | None,
    logy: bool | None,
    threshold: float,
    merge: bool,
) -> _Grid:
    """The numbers of a diagram from the summary of its cells, dims (y, x)."""
    xs, ys = _tables.numeric("x", table[x]), _tables.numeric("y", table[y])
    logx = _tables.is_geometric(xs) if logx is None else logx
    logy = _tables.is_geometric(ys) if logy is None else logy
    fraction = table.diverged_fraction.values
    lost = fraction >= threshold
    return _Grid(
        xs=xs,
        ys=ys,
        logx=logx,
        logy=logy,
        edges=(_tables.edges("x", xs, logx), _tables.edges("y", ys, logy)),
        median=np.ma.masked_invalid(np.where(lost, np.nan, table["median"].values)),
        fraction=fraction,
        lost=lost,
        owner=_tables.nearest(np.isfinite(fraction) if merge else np.ones_like(lost)),
    )


def _draw_marked_cells(
    ax: Axes, table: xr.Dataset, grid: _Grid, undecided: xr.DataArray | None, merge: bool
) -> tuple[
    PolyCollection | None, PolyCollection | None, PolyCollection | None, LineCollection | None
]:
    """Hatch diverged, missing and undecided cells, and outline merged ones."""

    def draw(selected: np.ndarray, properties: Properties) -> PolyCollection | None:
        return _elements.cells(ax, grid.edges, selected.ravel()[grid.owner], properties)

    empty = np.ma.getmaskarray(grid.median)
    hatch = draw(grid.lost, _theme.DIVERGED)
    missing = draw(empty & ~grid.lost, _theme.MISSING)
    open_cells = None
    if undecided is not None:
        aligned = undecided.reindex_like(table["median"]).transpose(*table["median"].dims)
        open_cells = draw(aligned.values.astype(bool) & ~grid.lost, _theme.UNDECIDED)
    complete = np.isfinite(grid.fraction).all()
    outlines = _elements.outlines(ax, grid.edges, grid.owner) if merge and not complete else None
    return hatch, missing, open_cells, outlines


def _set_axes(ax: Axes, dataset: xr.Dataset, grid: _Grid, x: str, y: str) -> None:
    """Fix the limits to those of the cells, whatever is drawn later; set scales and labels."""
    ax.set(xlim=grid.edges[0][[0, -1]], ylim=grid.edges[1][[0, -1]], autoscale_on=False)
    _elements.set_scale(ax, "x", grid.logx)
    _elements.set_scale(ax, "y", grid.logy)
    ax.set_xlabel(_theme.label_of(dataset, x))
    ax.set_ylabel(_theme.label_of(dataset, y))
    ax.spines[:].set_visible(True)


def _cell_handles(
    hatch: PolyCollection | None,
    missing: PolyCollection | None,
    open_cells: PolyCollection | None,
    threshold: float,
) -> list[Patch]:
    """The legend entries of the marked cells."""
    # The hatch of undecided cells is white, invisible on paper.
    grey: Properties = _theme.UNDECIDED | {"facecolor": "0.5"}
    marks = (
        (hatch, rf"$\geq$ {threshold:.0%} diverged", _theme.DIVERGED),
        (missing, "not run", _theme.MISSING),
        (open_cells, "undecided", grey),
    )
    return [Patch(label=label, **properties) for cells, label, properties in marks if cells]


def _draw_contour(
    ax: Axes, grid: _Grid, level: float
) -> tuple[QuadContourSet, Line2D] | tuple[None, None]:
    """The contour of the median at a level and its legend entry; None without a crossing."""
    median = grid.median
    if min(median.shape) < 2 or not median.min() <= level <= median.max():
        return None, None
    style = _theme.white_line(1.4)
    contour = ax.contour(
        grid.xs, grid.ys, median, [level], colors="white", linestyles=":", linewidths=1.4
    )
    contour.set_path_effects(style["path_effects"])
    return contour, Line2D([], [], linestyle=":", label=f"median {level:g}", **style)


def _draw_boundary(ax: Axes, boundary: tuple[ArrayLike, ...]) -> Line2D:
    """The points of a measured boundary, with their intervals on x if there are any."""
    centres, heights, *ends = _elements.arrays("boundary", boundary, (2, 4))
    if ends:
        effects = _theme.white_line(1.2)["path_effects"]
        bar: Properties = {"colors": "white", "linewidth": 1.2, "path_effects": effects}
        ax.hlines(heights, ends[0], ends[1], zorder=2.8, **bar)
    marker: Properties = {"marker": "o", "markersize": 4.5, "mfc": "white", "linestyle": ""}
    (points,) = ax.plot(centres, heights, label="measured", color="black", zorder=2.9, **marker)
    return points


def _draw_crosses(ax: Axes, grid: _Grid) -> Line2D | None:
    """Crosses on the cells in which some seeds diverged, but fewer than the threshold."""
    some = (grid.fraction > 0) & ~np.ma.getmaskarray(grid.median)
    if not some.any():
        return None
    rows, columns = np.nonzero(some)
    marker: Properties = {"marker": "x", "markersize": 4, "linestyle": ""} | _theme.white_line(1)
    (crosses,) = ax.plot(grid.xs[columns], grid.ys[rows], label="some diverged", **marker)
    return crosses

"""Figures of sweeps: an `xarray.Dataset` and a matplotlib `Axes` in, artists out.

Nothing here imports jax or pyplot or changes the global rcParams; make and save figures inside
`with style():` for the look of the package. Nothing is told by colour alone: lines differ in dash and marker,
colour maps are monotone in lightness, cells without a value are hatched. Legends stand below the axes, so
they never hide data.

Datasets are those of a sweep: metrics with dims (*axes, seed, step), or without `step` once reduced to final
values, and `diverged_at` (*axes, seed), -1 for never (or left out, if no run diverged). A diverged run counts
in the diverged fraction and in nothing else. A value that is not finite although its run did not diverge is
missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import matplotlib as mpl
import numpy as np
import xarray as xr
from cycler import cycler
from matplotlib import patheffects, ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.contour import QuadContourSet
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.results import metric_names, summary

__all__ = [
    "Diagram",
    "FinalValue",
    "Trajectories",
    "final_value",
    "phase_diagram",
    "style",
    "trajectories",
]

Curve: TypeAlias = Callable[[np.ndarray], ArrayLike] | tuple[ArrayLike, ArrayLike]
Look: TypeAlias = dict[str, Any]

NAMES: Mapping[str, str] = {
    "batch_loss": "batch loss",
    "batch_size": "batch size $m$",
    "complement_signal": r"complement $\|U_\perp^\top U\|_F$",
    "dim": "dimension $d$",
    "init_scale": r"initial scale $\alpha$",
    "invariant_error": r"$\|UU^\top - A^\star\|_F$",
    "invariant_signal": r"invariant signal $\|U_\star^\top U\|_F$",
    "learning_rate": r"learning rate $\eta$",
    "mean": r"spurious mean $\mu$",
    "momentum": r"momentum $\beta$",
    "label_noise": r"label noise $\sigma_y$",
    "pooled_error": r"$\|UU^\top - A^\star - \bar A\|_F$",
    "relative_invariant_error": r"$\|UU^\top - A^\star\|_F \,/\, \|A^\star\|_F$",
    "relative_pooled_error": r"relative distance to $A^\star + \bar A$",
    "spread": "heterogeneity $M$",
    "spurious_power": r"$\|V^\top U\|_F^2$",
    "spurious_signal": r"spurious signal $\|V^\top U\|_F$",
}
# Okabe and Ito's colours without yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1)), (0, (6, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX<"
DIVERGED: Look = {"facecolor": "0.86", "edgecolor": "0.25", "hatch": "/////", "linewidth": 0}
MISSING: Look = {"facecolor": "0.97", "edgecolor": "0.6", "hatch": "....", "linewidth": 0}
STYLE: Look = {
    "figure.constrained_layout.use": True,
    "figure.figsize": (4.2, 3.3),
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlepad": 13,  # leaves room for the labels of marks
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler("color", COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # letters stay letters, which journals ask for
    "savefig.dpi": 300,
}


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


@contextmanager
def style() -> Iterator[None]:
    """Give figures that are made and saved inside the `with` block the look of the package."""
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        yield


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
    legend: bool = True,
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
        legend: whether to draw a legend where there is something to tell apart.
    """
    names = (
        metric_names(dataset) if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
    )
    if not names:
        raise ValueError("metrics must name at least one metric of the dataset, got none")
    lines, bands = [], []
    colour_key, dash_key = [], []
    for index, metric in enumerate(names):
        table = _table(dataset, metric, quantiles, step=True, over=over)
        for key, (words, series, look) in enumerate(_series(table, over)):
            if over is None:
                look = _look(index, COLOURS[index % len(COLOURS)])
                words = _name(dataset, metric)
            elif len(names) > 1:
                look["linestyle"] = DASHES[index % len(DASHES)]
            fraction = float(series.diverged_fraction)
            words += f" ({_percent(fraction)} diverged)" if fraction > 0 else ""
            every = (0.04 * (1 + (key if over else index) % 4), 0.17)  # staggered, in diagonals of the axes
            bands.append(_band(ax, series.step.values, series, look))
            lines += ax.plot(series.step, series["median"], label=words, markevery=every, **look)
            if index == 0:
                colour_key.append(Line2D([], [], label=words, **look))
                colour_key[-1].set_linestyle("-")
        dash = DASHES[index % len(DASHES)]
        dash_key.append(Line2D([], [], color="0.3", linestyle=dash, label=_name(dataset, metric)))
    _scale(ax, "y", logy)
    ax.margins(x=0)
    references = []
    for words, level in (reference or {}).items():
        references.append(ax.axhline(level, color="0.3", linestyle=":", linewidth=1, zorder=1.5))
        _note(ax, words, (1, level), ("axes fraction", "data"), (4, 0), va="center")
    ax.set_xlabel("step")
    ax.set_ylabel(label or (_name(dataset, names[0]) if len(names) == 1 else ""))
    handles = lines if over is None or len(names) == 1 else colour_key + dash_key
    told = legend and (len(lines) > 1 or "diverged" in str(lines[0].get_label()))
    return Trajectories(lines, bands, references, _legend(ax, handles if told else []))


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
    table = _table(dataset, metric, quantiles, along=along, over=over).sortby(along)
    x = _values("along", table[along])
    logx = _geometric(x) if logx is None else logx
    edges = _edges("along", x, logx)
    lines, bands, partial, lost = [], [], [], []
    for words, series, look in _series(table, over):
        shown = series.where(series.diverged_fraction <= 0.5)
        bands.append(_band(ax, x, shown, look))
        lines += ax.plot(x, shown["median"], label=words or "median over seeds", **look)
        some = shown.where(shown.diverged_fraction > 0)
        partial += ax.plot(x, some["median"], **look | {"linestyle": "", "mfc": "white", "zorder": 3})
        for point in zip(x, some["median"].values, some.diverged_fraction.values, strict=True):
            if np.isfinite(point[1]):
                _note(ax, _percent(point[2]), point[:2], "data", (0, 6), ha="center", fontsize="x-small")
        lost.append(series.diverged_fraction.values > 0.5)
    curves = _curves(ax, theory, x, logx, outlined=False)
    _scale(ax, "x", logx)
    _scale(ax, "y", logy)
    spans = _spans(ax, edges, lost, lines)
    marks = []
    for words, place in (mark if isinstance(mark, Mapping) else {} if mark is None else {"": mark}).items():
        marks.append(ax.axvline(place, color="0.3", linestyle=(0, (6, 2, 1, 2)), linewidth=1, zorder=1.5))
        _note(ax, words, (place, 1), ("data", "axes fraction"), (0, 3), ha="center")
    ax.set_xlabel(_name(dataset, along))
    ax.set_ylabel(label or _name(dataset, metric))
    handles: list[Artist] = [*lines, *curves]
    if any(np.isfinite(np.asarray(points.get_ydata(), float)).any() for points in partial):
        open_marker: Look = {"marker": "o", "mfc": "white", "linestyle": "", "color": "0.3"}
        handles.append(Line2D([], [], label="some diverged", **open_marker))
    handles += [Patch(label="most diverged", **DIVERGED)] if spans else []
    told = legend and len(handles) > 1
    return FinalValue(lines, bands, partial, spans, curves, marks, _legend(ax, handles if told else []))


def phase_diagram(
    ax: Axes,
    dataset: xr.Dataset,
    metric: str,
    *,
    x: str,
    y: str,
    theory: Curve | Mapping[str, Curve] | None = None,
    boundary: tuple[ArrayLike, ...] | None = None,
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
    if not 0 < diverged <= 1:
        raise ValueError(f"diverged must be a fraction above 0 and at most 1, got {diverged}")
    table = _table(dataset, metric, (0.5, 0.5), x=x, y=y).sortby([x, y]).transpose(y, x)
    xs, ys = _values("x", table[x]), _values("y", table[y])
    logx, logy = (_geometric(c) if log is None else log for c, log in ((xs, logx), (ys, logy)))
    edges = _edges("x", xs, logx), _edges("y", ys, logy)
    fraction = table.diverged_fraction.values
    third = fraction >= diverged
    median = np.ma.masked_invalid(np.where(third, np.nan, table["median"].values))
    empty = np.ma.getmaskarray(median)
    mesh = ax.pcolormesh(*edges, median, cmap=cmap, norm=norm, rasterized=True)
    hatch = _cells(ax, edges, third, DIVERGED)
    missing = _cells(ax, edges, empty & ~third, MISSING)
    ax.set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]], autoscale_on=False)  # whatever the curves do
    _scale(ax, "x", logx)
    _scale(ax, "y", logy)

    curves = _curves(ax, theory, xs, logx, outlined=True)
    handles: list[Artist] = [*curves]
    contour = points = partial = None
    if level is not None and min(median.shape) > 1 and median.min() <= level <= median.max():
        contour = ax.contour(xs, ys, median, [level], colors="white", linestyles=":", linewidths=1.4)
        contour.set_path_effects(_outline(1.4)["path_effects"])
        handles.append(
            Line2D([], [], color="white", linestyle=":", label=f"median {level:g}", **_outline(1.4))
        )
    if boundary is not None:
        middle, height, *ends = _arrays("boundary", boundary, (2, 4))
        if ends:
            rim = _outline(1.2)["path_effects"]
            ax.hlines(height, ends[0], ends[1], colors="white", linewidth=1.2, zorder=2.8, path_effects=rim)
        look: Look = {"color": "black", "marker": "o", "markersize": 4.5, "mfc": "white", "linestyle": ""}
        (points,) = ax.plot(middle, height, label="measured", zorder=2.9, **look)
        handles.append(points)
    some = (fraction > 0) & ~empty
    if some.any():
        rows, columns = np.nonzero(some)
        look = {"color": "white", "marker": "x", "markersize": 4, "linestyle": ""} | _outline(1)
        (partial,) = ax.plot(xs[columns], ys[rows], label="some diverged", **look)
        handles.append(partial)
    handles += [Patch(label=rf"$\geq$ {diverged:.0%} diverged", **DIVERGED)] if hatch else []
    handles += [Patch(label="not run", **MISSING)] if missing else []
    ax.set_xlabel(_name(dataset, x))
    ax.set_ylabel(_name(dataset, y))
    ax.spines[:].set_visible(True)
    name = label or _name(dataset, metric)
    bar = ax.figure.colorbar(mesh, ax=ax, label=name, pad=0.02) if colorbar else None
    box = _legend(ax, handles if legend else [])
    return Diagram(mesh, hatch, curves, bar, missing, partial, contour, points, box)


def _name(dataset: xr.Dataset, name: str) -> str:
    """How a metric or an axis is called in a figure."""
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return NAMES.get(name) or attributes.get("long_name") or name.replace("_", " ")


def _table(
    dataset: xr.Dataset,
    metric: str,
    quantiles: tuple[float, float],
    *,
    step: bool = False,
    **axes: str | None,
) -> xr.Dataset:
    """The summary (at the last step unless `step`) over exactly the given axes: argument's name -> axis."""
    checks.choice("metric", metric, metric_names(dataset))
    chosen = dataset[[metric, *({"diverged_at"} & set(dataset.data_vars))]]
    if step and "step" not in chosen[metric].dims:
        raise ValueError(f"metric {metric!r} must have the dimension 'step', got {chosen[metric].dims}")
    if not step and "step" in chosen.dims:
        chosen = chosen.isel(step=-1)
    free = [str(dim) for dim in chosen[metric].dims if dim not in ("seed", "step")]
    used = [checks.choice(argument, axis, free) for argument, axis in axes.items() if axis is not None]
    if len(set(used)) < len(used):
        raise ValueError(f"{' and '.join(axes)} must be different axes, got {used[0]!r} for both")
    for dim, size in list(chosen.sizes.items()):
        if dim in (*used, "seed", "step"):
            continue
        if size > 1:
            # The dict, because .sel(method=...) means something else to xarray.
            pick = f".sel({{{dim!r}: {chosen[dim].values.tolist()[0]!r}}})"
            way = f" or pass over={dim!r}" if axes.get("over", "none offered") is None else ""
            raise ValueError(
                f"dataset must have no dimension that the figure does not use, but {metric!r} has {dim!r} "
                f"with {size} values; choose one of them, as in dataset{pick}{way}"
            )
        chosen = chosen.isel({dim: 0}, drop=True)
    return summary(chosen, metric, quantiles)


def _values(argument: str, coordinate: xr.DataArray) -> np.ndarray:
    values = coordinate.values
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or len(set(values)) < len(values):
        raise ValueError(
            f"{argument} must be an axis of distinct finite numbers, got {coordinate.name}={values}"
        )
    return values.astype(float)


def _geometric(values: np.ndarray) -> bool:
    """Whether sorted coordinates are spaced evenly in their logarithm rather than in themselves."""
    if len(values) < 3 or values[0] <= 0 or values[-1] < 3 * values[0]:
        return False
    plain, logarithmic = (np.std(gaps) / np.mean(gaps) for gaps in (np.diff(values), np.diff(np.log(values))))
    return bool(logarithmic < 0.5 * plain)


def _edges(argument: str, centres: np.ndarray, log: bool) -> np.ndarray:
    """The n + 1 edges of n sorted cells: midpoints (geometric if `log`), the outer ones by reflection."""
    if log and centres[0] <= 0:
        raise ValueError(f"{argument} must have values above 0 for a logarithmic axis, got {centres[0]:g}")
    places = np.log(centres) if log else centres
    gaps = np.diff(places) / 2 if len(places) > 1 else np.array([0.5])
    edges = np.append(places - np.append(gaps[:1], gaps)[: len(places)], places[-1] + gaps[-1])
    return np.exp(edges) if log else edges


def _percent(fraction: float) -> str:
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"


def _look(index: int, colour: Any) -> Look:
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markeredgewidth": 0.8}


def _series(table: xr.Dataset, over: str | None) -> Iterator[tuple[str, xr.Dataset, Look]]:
    """One (label, summary, look) per value of `over`; numbers get an ordered colour map."""
    if over is None:
        yield "", table, _look(0, COLOURS[0])
        return
    values, name = table[over].values, _name(table, over)
    symbol = re.search(r"\$.*\$", name)
    for index, value in enumerate(values):
        words, colour = str(value), COLOURS[index % len(COLOURS)]
        if values.dtype.kind in "iuf":
            words = f"{symbol.group() if symbol else name} = {value:g}"
            colour = mpl.colormaps["viridis"](0.75 * index / max(len(values) - 1, 1))
        yield words, table.isel({over: index}), _look(index, colour)


def _band(ax: Axes, x: np.ndarray, series: xr.Dataset, look: Look) -> PolyCollection:
    low, high = series["low"].values, series["high"].values
    return ax.fill_between(x, low, high, color=look["color"], alpha=0.18, linewidth=0, zorder=1)


def _note(ax: Axes, text: str, place: Any, coords: Any, offset: tuple[float, float], **look: Any) -> None:
    """A text `offset` points from a place, which may lie outside the axes."""
    look = {"color": "0.2", "fontsize": mpl.rcParams["legend.fontsize"]} | look
    ax.annotate(text, place, xytext=offset, xycoords=coords, textcoords="offset points", **look)


def _scale(ax: Axes, which: str, log: bool) -> None:
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


def _outline(width: float) -> Look:
    """White with a black rim shows on every colour of a map."""
    rim = [patheffects.Stroke(linewidth=width + 1.6, foreground="black"), patheffects.Normal()]
    return {"linewidth": width, "markeredgewidth": width, "path_effects": rim}


def _arrays(argument: str, values: Iterable[Any], counts: tuple[int, ...]) -> list[np.ndarray]:
    arrays = [np.asarray(array, float) for array in values]
    shapes = [array.shape for array in arrays]
    if len(arrays) not in counts or len(set(shapes)) > 1 or arrays[0].ndim != 1:
        number = " or ".join(map(str, counts))
        raise ValueError(f"{argument} must be {number} arrays of one shape (n,), got shapes {shapes}")
    return arrays


def _curves(ax: Axes, theory: Any, x: np.ndarray, log: bool, *, outlined: bool) -> list[Line2D]:
    lines = []
    several = theory if isinstance(theory, Mapping) else {} if theory is None else {"theory": theory}
    dense = (np.geomspace if log else np.linspace)(x[0], x[-1], 201)
    look: Look = {"color": "white"} | _outline(1.6) if outlined else {"color": "black", "linewidth": 1.1}
    for index, (label, curve) in enumerate(several.items()):
        pair = _arrays(f"theory {label!r}", (dense, curve(dense)) if callable(curve) else curve, (2,))
        dash = DASHES[(index + (not outlined)) % len(DASHES)]  # the first solid line is the data's
        lines += ax.plot(*pair, label=label, linestyle=dash, zorder=2.5, **look)
    return lines


def _spans(ax: Axes, edges: np.ndarray, lost: Sequence[np.ndarray], lines: Sequence[Line2D]) -> list[Patch]:
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
            spans.append(ax.axvspan(left, right, ymin=top - height, ymax=top, zorder=0.5, **DIVERGED))
            if not alone:
                middle = np.sqrt(left * right) if ax.get_xscale() == "log" else (left + right) / 2
                look: Look = {"marker": line.get_marker(), "color": line.get_color(), "mfc": "white"}
                ax.plot([middle], [top - height / 2], transform=ax.get_xaxis_transform(), **look)
    return spans


def _cells(ax: Axes, edges: Sequence[np.ndarray], where: np.ndarray, look: Look) -> PolyCollection | None:
    """Rectangles over the cells [y, x] chosen by `where`, in row-major order."""
    if not where.any():
        return None
    rows, columns = np.nonzero(where)
    left, right, low, high = edges[0][columns], edges[0][columns + 1], edges[1][rows], edges[1][rows + 1]
    corners = np.stack([left, low, right, low, right, high, left, high], axis=-1).reshape(-1, 4, 2)
    cells = PolyCollection(list(corners), antialiased=False, **look)
    ax.add_collection(cells, autolim=False)
    return cells


def _legend(ax: Axes, handles: Sequence[Artist]) -> Legend | None:
    """A legend below the axes (the distance in font sizes), in as many columns as fit their width."""
    legend = None
    place: Look = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.2, "frameon": False}
    for columns in range(min(len(handles), 4), 0, -1):
        legend = ax.legend(handles=handles, ncols=columns, handlelength=2.6, columnspacing=1.2, **place)
        if legend.get_window_extent().width <= 1.15 * ax.get_window_extent().width:
            break
    return legend

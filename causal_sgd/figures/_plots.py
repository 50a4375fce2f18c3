"""Line plots of a sweep: trajectories and final values over one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from causal_sgd import checks
from causal_sgd.analysis import metric_names
from causal_sgd.figures import _elements, _tables, _theme
from causal_sgd.figures._elements import Curve
from causal_sgd.figures._theme import Properties

__all__ = ["FinalValue", "Trajectories", "final_value", "trajectories"]

THEORY: Properties = {"color": "black", "linestyle": _theme.DASHES[1], "linewidth": 1.1}


class Trajectories(NamedTuple):
    """The artists of `trajectories`: lines and bands by metric, then by the values of `over`."""

    lines: list[Line2D]
    bands: list[PolyCollection]
    references: list[Line2D]
    curves: list[Line2D]  # medians of the theory, dashed, by metric, then by the values of `over`
    edges: list[Line2D]  # quantiles of the theory, low and high per curve, over several sequences
    legend: Legend | None


class FinalValue(NamedTuple):
    """The artists of `final_value`; one line, band and set of open markers per value of `over`."""

    lines: list[Line2D]
    bands: list[PolyCollection]
    partial: list[Line2D]  # open markers where some seeds diverged
    spans: list[Patch]
    curves: list[Line2D]
    marks: list[Line2D]
    legend: Legend | None


def trajectories(
    ax: Axes,
    dataset: xr.Dataset,
    metrics: str | Sequence[str] | None = None,
    *,
    over: str | None = None,
    quantiles: tuple[float, float] = (0.1, 0.9),
    theory: xr.Dataset | None = None,
    reference: Mapping[str, float] | None = None,
    logy: bool = False,
    label: str | None = None,
    legend: bool | Literal["below", "right"] = True,
) -> Trajectories:
    """Draw medians over seeds against the step, with quantile bands.

    A run that diverges is excluded from the first step on, so that lines do not jump when it drops
    out; labels state the diverged fraction.

    Args:
        ax: the axes to draw on.
        dataset: metrics with dims ([over,] seed, step) in any order; other dims must have length
            one.
        metrics: names of the metrics; all by default.
        over: a dim with one colour for each of its values, such as "variant" or "spread".
        quantiles: lower and upper probability of the bands.
        theory: some of the metrics with dims ([over,] [seed,] step), such as those of
            `theory.limits`: one dashed line for each line of the data, or one for all without
            `over`. If it has several sequences of environments along `seed`, the line is their
            median, and thin lines are their quantiles. Steps and sequences may be others than those
            of the data; sequences that diverge are left out.
        reference: label -> level of dotted horizontal lines.
        logy: whether y is logarithmic.
        label: label of the y axis; by default that of the metric if there is only one.
        legend: whether to draw a legend if there is more than one entry or some runs diverged, and
            where; True for below.
    """
    _elements.check(ax, label)
    checks.flags(logy=logy)
    if reference is not None:
        checks.instance("reference", reference, Mapping, "a mapping of labels to levels")
        for level in reference.values():
            checks.number("reference", level, double=True)
    if isinstance(legend, str):
        checks.choice("legend", legend, ("below", "right"))
    else:
        checks.flags(legend=legend)
    names = _names(dataset, metrics)
    lines, bands = [], []
    colour_handles, dash_handles = [], []
    for index, metric in enumerate(names):
        table = _tables.summarise(dataset, metric, quantiles, step=True, over=over)
        dash = _theme.DASHES[index % len(_theme.DASHES)]
        for key, (text, series, properties) in enumerate(_theme.series(table, over)):
            if over is None:
                colour = _theme.COLOURS[index % len(_theme.COLOURS)]
                properties = _theme.line_properties(index, colour)
                text = _theme.label_of(dataset, metric)
            elif len(names) > 1:
                properties["linestyle"] = dash
            fraction = float(series.diverged_fraction)
            text += f" ({_theme.percent(fraction)} diverged)" if fraction > 0 else ""
            # Staggered markers, at fractions of the diagonal; matplotlib cannot space them along
            # NaN.
            spacing = 0.04 * (1 + (key if over else index) % 4), 0.17
            markevery = spacing if np.isfinite(series["median"]).any() else None
            bands.append(_elements.band(ax, series.step.values, series, properties))
            lines += ax.plot(
                series.step, series["median"], label=text, markevery=markevery, **properties
            )
            if index == 0:
                solid: Properties = properties | {"linestyle": "-"}
                colour_handles.append(Line2D([], [], label=text, **solid))
        text = _theme.label_of(dataset, metric)
        dash_handles.append(Line2D([], [], color="0.3", linestyle=dash, label=text))
    curves, edges = [], []
    if theory is not None:
        _check_theory(theory, dataset, names, over)
        curves, edges = _theory_lines(ax, theory, names, quantiles, over, lines, dataset)
    _elements.set_scale(ax, "y", logy)
    ax.margins(x=0)
    references = []
    for text, level in (reference or {}).items():
        references.append(ax.axhline(level, color="0.3", linestyle=":", linewidth=1, zorder=1.5))
        _elements.note(ax, text, (1, level), ("axes fraction", "data"), (4, 0), va="center")
    ax.set_xlabel("step")
    if label is None:
        label = _theme.label_of(dataset, names[0]) if len(names) == 1 else ""
    ax.set_ylabel(label)
    # One entry per line, or with both keys one per colour and one per dash; one for all theory.
    handles = lines if over is None or len(names) == 1 else colour_handles + dash_handles
    handles = handles + [Line2D([], [], label="theory", **THEORY) for _ in curves[:1]]
    informative = len(handles) > 1 or "diverged" in str(lines[0].get_label())
    draw_legend = _elements.legend_right if legend == "right" else _elements.legend_below
    box = draw_legend(ax, handles if legend and informative else [])
    return Trajectories(lines, bands, references, curves, edges, box)


def _check_theory(
    theory: xr.Dataset, dataset: xr.Dataset, names: Sequence[str], over: str | None
) -> None:
    checks.instance("theory", theory, xr.Dataset, "a dataset of metrics against the step")
    if not set(names) & set(metric_names(theory)):
        raise ValueError(
            f"theory must have at least one of the metrics {', '.join(names)}, got "
            f"{', '.join(metric_names(theory)) or 'none'}"
        )
    if over is not None and over in theory.dims:
        extra = set(theory[over].values.tolist()) - set(dataset[over].values.tolist())
        if extra:
            raise ValueError(
                f"theory must have only values of {over!r} that the dataset has, got also "
                f"{', '.join(map(str, sorted(extra, key=str)))}"
            )


def _theory_lines(
    ax: Axes,
    theory: xr.Dataset,
    names: Sequence[str],
    quantiles: tuple[float, float],
    over: str | None,
    lines: Sequence[Line2D],
    dataset: xr.Dataset,
) -> tuple[list[Line2D], list[Line2D]]:
    """The dashed curves and their edges, in darker shades of the `lines` of the data.

    Args:
        ax: the axes to draw on.
        theory: the dataset of the curves.
        names: of the metrics.
        quantiles: of the edges.
        over: the dim of the lines, or None.
        lines: of the data, by metric, then by the values of `over`.
        dataset: the data.
    """
    curves, edges = [], []
    for index, metric in enumerate(names):
        if metric not in theory.data_vars:
            continue
        table = _sequences(theory, metric)
        along = over if over in table[metric].dims else None
        summary = _tables.summarise(table, metric, quantiles, step=True, over=along)
        for _, series, _ in _theme.series(summary, along):
            properties: Properties = {**THEORY, "zorder": 2.5}
            if along is None and over is None:
                properties["color"] = _theme.shade(lines[index].get_color())
            elif along is not None:
                values = dataset[along].values.tolist()
                line = lines[values.index(series[along].values.item())]
                properties["color"] = _theme.shade(line.get_color())
            curves += ax.plot(series.step, series["median"], label="theory", **properties)
            for end in ("low", "high") if table.sizes["seed"] > 1 else ():
                thin: Properties = properties | {"linewidth": 0.6}
                edges += ax.plot(series.step, series[end], **thin)
    return curves, edges


def _sequences(theory: xr.Dataset, metric: str) -> xr.Dataset:
    """A metric of a theory with a dim `seed`, without the sequences that diverge."""
    values = theory[metric]
    values = values if "seed" in values.dims else values.expand_dims("seed")
    if "step" in values.dims:
        # As in the data, a run that diverges counts nowhere, not even before.
        values = values.where((abs(values) < np.inf).all("step"))
    return xr.Dataset({metric: values})


def _names(dataset: xr.Dataset, metrics: str | Sequence[str] | None) -> list[str]:
    if metrics is None:
        names = metric_names(dataset)
    else:
        try:
            names = [metrics] if isinstance(metrics, str) else list(metrics)
        except TypeError:
            raise ValueError(
                f"metrics must be the name of a metric or a list of names, got {metrics!r:.60}"
            ) from None
    if not names:
        raise ValueError("metrics must name at least one metric of the dataset, got none")
    return names


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

    Where some seeds diverged the marker is open, with the fraction above it. Where more than half
    diverged the line is replaced by a hatched span: of full height for a single line, for several a
    strip at the top with the marker of the line.

    Args:
        ax: the axes to draw on.
        dataset: the metric with dims (along, [over,] seed[, step]) in any order.
        metric: name of the metric.
        along: name of the numeric axis on x.
        over: a dim with one colour for each of its values.
        quantiles: lower and upper probability of the bands.
        theory: y(x) or (x, y), labelled "theory"; or label -> either.
        logx: whether x is logarithmic; by default if `along` is geometrically spaced.
        logy: whether y is logarithmic.
        mark: x of a vertical line, or label -> x, such as the critical spread.
        label: label of the y axis; by default that of the metric.
        legend: whether to draw a legend if there is more than one entry.
    """
    _elements.check(ax, label)
    checks.flags(logy=logy, legend=legend, logx=False if logx is None else logx)
    table = _tables.summarise(dataset, metric, quantiles, along=along, over=over).sortby(along)
    x = _tables.numeric("along", table[along])
    logx = _tables.is_geometric(x) if logx is None else logx
    edges = _tables.edges("along", x, logx)
    lines, bands, partial, lost = [], [], [], []
    for text, series, properties in _theme.series(table, over):
        visible = series.where(series.diverged_fraction <= 0.5)
        bands.append(_elements.band(ax, x, visible, properties))
        lines += ax.plot(x, visible["median"], label=text or "median over seeds", **properties)
        partial.append(_partly_diverged(ax, x, visible, properties))
        lost.append(series.diverged_fraction.values > 0.5)
    curves = _elements.curves(ax, theory, x, logx, outlined=False)
    _elements.set_scale(ax, "x", logx)
    _elements.set_scale(ax, "y", logy)
    spans = _elements.hatched_spans(ax, edges, lost, lines)
    marks = []
    positions = {} if mark is None else mark if isinstance(mark, Mapping) else {"": mark}
    for text, position in positions.items():
        checks.number("mark", position, double=True)
        dash_dot = (0, (6, 2, 1, 2))
        marks.append(ax.axvline(position, color="0.3", ls=dash_dot, linewidth=1, zorder=1.5))
        _elements.note(ax, text, (position, 1), ("data", "axes fraction"), (0, 3), ha="center")
    ax.set_xlabel(_theme.label_of(dataset, along))
    ax.set_ylabel(label or _theme.label_of(dataset, metric))
    handles: list[Artist] = [*lines, *curves]
    if any(np.isfinite(np.asarray(points.get_ydata(), float)).any() for points in partial):
        open_marker: Properties = {"marker": "o", "mfc": "white", "linestyle": "", "color": "0.3"}
        handles.append(Line2D([], [], label="some diverged", **open_marker))
    handles += [Patch(label="most diverged", **_theme.DIVERGED)] if spans else []
    box = _elements.legend_below(ax, handles if legend and len(handles) > 1 else [])
    return FinalValue(lines, bands, partial, spans, curves, marks, box)


def _partly_diverged(ax: Axes, x: np.ndarray, series: xr.Dataset, properties: Properties) -> Line2D:
    """Open markers where some seeds diverged, with the fraction above each."""
    some = series.where(series.diverged_fraction > 0)
    open_marker: Properties = {"linestyle": "", "mfc": "white", "zorder": 3}
    (points,) = ax.plot(x, some["median"], **properties | open_marker)
    for position, value, fraction in zip(
        x, some["median"].values, some.diverged_fraction.values, strict=True
    ):
        if np.isfinite(value):
            text = _theme.percent(fraction)
            point = (position, value)
            _elements.note(ax, text, point, "data", (0, 6), ha="center", fontsize="x-small")
    return points

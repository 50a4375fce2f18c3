"""Curves of a cost against a size, as Markdown tables and as a figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from causal_sgd.figures import _theme


class Curve(NamedTuple):
    """A cost against a size."""

    panel: str
    label: str
    size: str  # label of the horizontal axis
    unit: str
    samples: dict[int, list[float]]  # size -> repeats
    expected: float | None = None  # slope
    fitted_from: int = 0  # smallest size in the fit

    @property
    def medians(self) -> list[float]:
        """The median of each size."""
        return [statistics.median(values) for values in self.samples.values()]

    @property
    def slope(self) -> float:
        """Slope of the medians in log-log scale; NaN with fewer than two positive medians."""
        pairs = [
            (x, y)
            for x, y in zip(self.samples, self.medians, strict=True)
            if x >= self.fitted_from and y > 0
        ]
        if len(pairs) < 2:
            return math.nan
        sizes, costs = np.log(np.array(pairs, float).T)
        return float(np.polyfit(sizes, costs, 1)[0])


def report(curves: Sequence[Curve]) -> str:
    """The numbers and the slopes as Markdown tables."""
    lines = ["| curve | of | at | median | least to most | unit |", "|---|---|---|---|---|---|"]
    for curve in curves:
        for size, median in zip(curve.samples, curve.medians, strict=True):
            values = curve.samples[size]
            spread = f"{min(values):.3g} to {max(values):.3g}"
            cells = [curve.panel, curve.label, f"{size:,}", f"{median:.3g}", spread, curve.unit]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| curve | of | slope | fitted from | expected |", "|---|---|---|---|---|"]
    for curve in curves:
        expected = {None: "", 0: "0 (flat)", 1: "1 (linear)"}[curve.expected]
        first = max(curve.fitted_from, min(curve.samples))
        slope = f"{round(curve.slope, 2) + 0.0:.2f}"
        lines.append(f"| {curve.panel} | {curve.label} | {slope} | {first:,} | {expected} |")
    return "\n".join(lines)


def draw(curves: Sequence[Curve], out: Path) -> list[Path]:
    """Draw one panel per group of curves, and save .png and .pdf."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(curve.panel, []).append(curve)
    with _theme.style():
        columns = 3
        rows = math.ceil(len(panels) / columns)
        figure, grid = plt.subplots(rows, columns, figsize=(7.4, 2.35 * rows), squeeze=False)
        for axes, (name, group) in zip(grid.flat, panels.items(), strict=False):
            _panel(axes, name, group)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        paths = [out.with_suffix(suffix) for suffix in (".png", ".pdf")]
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            figure.savefig(path)
        plt.close(figure)
    return paths


def _panel(axes: Axes, name: str, group: Sequence[Curve]) -> None:
    from matplotlib import ticker

    positive: list[float] = []
    for index, curve in enumerate(group):
        sizes, medians = np.array(list(curve.samples), float), np.array(curve.medians)
        least, most = (
            np.array([side(values) for values in curve.samples.values()]) for side in (min, max)
        )
        positive += [value for value in (*least, *most) if value > 0]
        slope = f"{round(curve.slope, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
        words = f"slope {slope}" if len(group) == 1 else f"{curve.label} ({slope})"
        bars = np.maximum([medians - least, most - medians], 0)
        look = _theme.line_properties(index, _theme.COLOURS[index])
        shown = np.where(medians > 0, medians, np.nan)  # a log axis cannot show negative noise
        axes.errorbar(sizes, shown, bars, label=words, elinewidth=0.8, capsize=1.5, **look)
        if curve.expected is not None and len(group) == 1:
            fitted = sizes[sizes >= curve.fitted_from]
            shape = fitted**curve.expected
            middle = np.exp(
                np.mean(np.log(np.maximum(medians[sizes >= curve.fitted_from], 1e-12) / shape))
            )
            words = "linear" if curve.expected else "flat"
            # A thick line below the curve, over the sizes of the fit.
            axes.plot(
                fitted,
                middle * shape,
                color="0.8",
                linewidth=5,
                solid_capstyle="butt",
                zorder=0,
                label=words,
            )
    axes.set(xscale="log", yscale="log", xlabel=group[0].size, ylabel=group[0].unit)
    axes.set_title(name, pad=5)
    # At least one decade, so that flat looks flat; the upper part is for the legend.
    low, high = (min(positive), max(positive)) if positive else (1.0, 1.0)
    widen = max(1.0, (10 * low / high) ** 0.5)
    low, high = low / widen / 1.2, high * widen * 1.2
    lines = len(group) + (len(group) == 1 and group[0].expected is not None)
    axes.set_ylim(low, high * (high / low) ** (0.13 * lines))
    if high / low < 300:
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.legend(
        loc="upper left",
        fontsize=7,
        frameon=False,
        handlelength=2.8,
        borderaxespad=0.2,
        labelspacing=0.3,
    )

"""How things look and what they are called: names, colours, dashes, markers and the style of figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import matplotlib as mpl
import xarray as xr
from cycler import cycler
from matplotlib import patheffects

__all__ = [
    "COLOURS", "DASHES", "DIVERGED", "MARKERS", "MISSING", "NAMES", "STYLE", "UNDECIDED", "Look", "line_look",
    "name_of", "outline", "percent", "rim", "series", "style",
]  # fmt: skip

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
    "fresh_noise": "label noise drawn anew in every step",
    "pooled_error": r"$\|UU^\top - A^\star - \bar A\|_F$",
    "relative_invariant_error": r"$\|UU^\top - A^\star\|_F \,/\, \|A^\star\|_F$",
    "relative_pooled_error": r"relative distance to $A^\star + \bar A$",
    "spread": "heterogeneity $M$",
    "spurious_power": r"$\|V^\top U\|_F^2$",
    "spurious_signal": r"spurious signal $\|V^\top U\|_F$",
}
"""What metrics and axes are called in figures, in TeX."""
# Okabe and Ito's colours without yellow, which vanishes on white paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (2.5, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
)
MARKERS = "osD^vPX<"
DIVERGED: Look = {"facecolor": "0.86", "edgecolor": "0.25", "hatch": "/////", "linewidth": 0}
MISSING: Look = {"facecolor": "0.97", "edgecolor": "0.6", "hatch": "....", "linewidth": 0}
UNDECIDED: Look = {
    "facecolor": "none",
    "edgecolor": (1, 1, 1, 0.6),
    "hatch": "\\\\\\\\",
    "linewidth": 0,
}
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
"""Matplotlib's settings for figures of one column."""


@contextmanager
def style() -> Iterator[None]:
    """Give figures that are made and saved inside the `with` block the look of the package."""
    interactive = mpl.is_interactive()
    try:
        with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
            try:
                yield
            finally:
                interactive = mpl.is_interactive()
    finally:
        # A notebook's backend begins with its first figure, maybe in the block: what it sets must last to show the next ones.
        mpl.interactive(interactive)


def name_of(dataset: xr.Dataset, name: str) -> str:
    """How a metric or an axis is called in a figure."""
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return NAMES.get(name) or attributes.get("long_name") or name.replace("_", " ")


def percent(fraction: float) -> str:
    """A fraction above 0 in words that never say 0%."""
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"


def line_look(index: int, colour: Any) -> Look:
    """The dash and marker of the line `index`, in a colour."""
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markeredgewidth": 0.8}


def series(table: xr.Dataset, over: str | None) -> Iterator[tuple[str, xr.Dataset, Look]]:
    """One (label, summary, look) per value of `over`; numbers get an ordered colour map."""
    if over is None:
        yield "", table, line_look(0, COLOURS[0])
        return
    values, name = table[over].values, name_of(table, over)
    symbol = re.search(r"\$.*\$", name)
    for index, value in enumerate(values):
        words, colour = str(value), COLOURS[index % len(COLOURS)]
        if values.dtype.kind in "iuf":
            words = f"{symbol.group() if symbol else name} = {value:g}"
            colour = mpl.colormaps["viridis"](0.75 * index / max(len(values) - 1, 1))
        yield words, table.isel({over: index}), line_look(index, colour)


def outline(width: float) -> Look:
    """White with a black rim shows on every colour of a map."""
    return rim(width, "black") | {"markeredgewidth": width}


def rim(width: float, colour: str) -> Look:
    """A line with a rim of another colour."""
    effects = [patheffects.Stroke(linewidth=width + 1.6, foreground=colour), patheffects.Normal()]
    return {"linewidth": width, "path_effects": effects}

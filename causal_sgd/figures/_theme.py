"""Names, colours, dashes, markers and rcParams of figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import matplotlib as mpl
import xarray as xr
from cycler import cycler
from matplotlib import colors, patheffects
from matplotlib.backends.registry import backend_registry

if TYPE_CHECKING:
    from matplotlib.typing import ColorType, LineStyleType

__all__ = [
    "COLOURS",
    "DASHES",
    "DIVERGED",
    "MARKERS",
    "MISSING",
    "NAMES",
    "STYLE",
    "UNDECIDED",
    "Properties",
    "label_of",
    "line_properties",
    "outlined_line",
    "percent",
    "series",
    "shade",
    "style",
    "white_line",
]

Properties: TypeAlias = dict[str, Any]
"""Keyword arguments of a matplotlib artist."""

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
    "fresh_noise": "label noise redrawn at every step",
    "pooled_error": r"$\|UU^\top - A^\star - \bar A\|_F$",
    "relative_invariant_error": r"$\|UU^\top - A^\star\|_F \,/\, \|A^\star\|_F$",
    "relative_pooled_error": r"relative distance to $A^\star + \bar A$",
    "spread": "heterogeneity $M$",
    "spurious_power": r"$\|V^\top U\|_F^2$",
    "spurious_signal": r"spurious signal $\|V^\top U\|_F$",
}
"""Labels of metrics and axes in figures, in TeX."""
# The palette of Okabe and Ito without yellow, which is hardly visible on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")
DASHES: tuple[LineStyleType, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (2.5, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
)
MARKERS = "osD^vPX<"
DIVERGED: Properties = {"facecolor": "0.86", "edgecolor": "0.25", "hatch": "/////", "linewidth": 0}
MISSING: Properties = {"facecolor": "0.97", "edgecolor": "0.6", "hatch": "....", "linewidth": 0}
UNDECIDED: Properties = {
    "facecolor": "none",
    "edgecolor": (1, 1, 1, 0.6),
    "hatch": "\\\\\\\\",
    "linewidth": 0,
}
STYLE: Properties = {
    "figure.constrained_layout.use": True,
    "figure.figsize": (4.2, 3.3),
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titlepad": 13,  # leaves space for the labels of marks
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
    "pdf.fonttype": 42,  # embeds TrueType fonts, as journals require
    "savefig.dpi": 300,
}
"""The rcParams of single-column figures."""


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of the package to figures created and saved inside the `with` block.

    Where the chosen backend is not installed, as that of a notebook that started this process, it
    is replaced by Agg.
    """
    _replace_missing_backend()
    interactive = mpl.is_interactive()
    try:
        with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
            try:
                yield
            finally:
                interactive = mpl.is_interactive()
    finally:
        # The backend of a notebook starts with its first figure, possibly inside the block. The
        # interactive mode that it sets must survive the block, or later figures are not shown.
        mpl.interactive(interactive)


def _replace_missing_backend() -> None:
    backend = dict.__getitem__(mpl.rcParams, "backend")  # `rcParams[...]` would choose one
    if isinstance(backend, str):
        try:
            backend_registry.load_backend_module(backend)
        except ImportError:
            mpl.use("Agg")


def label_of(dataset: xr.Dataset, name: str) -> str:
    """The label of a metric or an axis in a figure."""
    attributes = dataset[name].attrs if name in dataset.variables else {}
    return NAMES.get(name) or attributes.get("long_name") or name.replace("_", " ")


def percent(fraction: float) -> str:
    """A positive fraction as a percentage, never rounded to 0%."""
    return f"{fraction:.0%}" if fraction >= 0.01 else "<1%"


def line_properties(index: int, colour: str | tuple[float, ...]) -> Properties:
    """The dash and marker of the line `index`, in a colour."""
    dash, marker = DASHES[index % len(DASHES)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markeredgewidth": 0.8}


def series(table: xr.Dataset, over: str | None) -> Iterator[tuple[str, xr.Dataset, Properties]]:
    """One (label, summary, properties) per value of `over`; numbers get a sequential colour map."""
    if over is None:
        yield "", table, line_properties(0, COLOURS[0])
        return
    values, name = table[over].values, label_of(table, over)
    symbol = re.search(r"\$.*\$", name)
    for index, value in enumerate(values):
        label, colour = str(value), COLOURS[index % len(COLOURS)]
        if values.dtype.kind in "iuf":
            # Four digits, but whole numbers such as a dimension of 10000 in full.
            whole = float(value).is_integer() and abs(value) < 1e6
            shown = f"{value:.0f}" if whole else f"{value:.4g}"
            label = f"{symbol.group() if symbol else name} = {shown}"
            colour = mpl.colormaps["viridis"](0.75 * index / max(len(values) - 1, 1))
        yield label, table.isel({over: index}), line_properties(index, colour)


def shade(colour: ColorType) -> tuple[float, float, float]:
    """A darker shade of a colour, for the theory of a line."""
    red, green, blue = colors.to_rgb(colour)
    return 0.45 * red, 0.45 * green, 0.45 * blue


def white_line(width: float) -> Properties:
    """A white line with a black outline, visible on every colour of a map."""
    return {"color": "white", "markeredgewidth": width} | outlined_line(width, "black")


def outlined_line(width: float, colour: str) -> Properties:
    """A line with an outline of the given colour."""
    effects = [patheffects.Stroke(linewidth=width + 1.6, foreground=colour), patheffects.Normal()]
    return {"linewidth": width, "path_effects": effects}

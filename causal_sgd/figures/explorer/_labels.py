"""Plain text for metrics and axes, and the colours and marks of figures for the page."""

from __future__ import annotations

from typing import Any, TypedDict

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib import colors

from causal_sgd.figures import _theme
from causal_sgd.figures.explorer._packing import packed

__all__ = ["COLOUR_MAP", "DIFFERENCES", "Theme", "label", "plain_name", "theme"]

COLOUR_MAP = "cividis"
"""That of `phase_diagram`."""
DIFFERENCES = "RdBu_r"
"""The diverging colour map of differences: blue is negative, white zero, red positive."""
SYMBOLS = {
    r"\eta": "η",
    r"\alpha": "α",  # noqa: RUF001
    r"\mu": "μ",
    r"\beta": "β",
    r"\sigma_y": "σᵧ",
    r"\|": "‖",
    r"^\top": "ᵀ",
    r"^\star": "*",
    r"_\star": "*",
    r"\bar A": "Ā",
    r"U_\perp": "U⊥",
    r"\,": "",
    "_F": "",
    "^2": "²",
    "$": "",
}
"""Plain text for TeX, applied in this order."""


class Theme(TypedDict):
    """Colours, dashes and marks of figures, for the page."""

    colours: list[str]  # of lines
    dashes: list[list[float]]  # in widths of the line
    map: str  # 256 colours, [256, 3] bytes
    differences: str  # the same
    diverged: dict[str, str]  # face and edge of the hatched cells
    missing: dict[str, str]  # of the dotted cells


def theme() -> Theme:
    """The colours and marks of `causal_sgd.figures`."""
    return {
        "colours": list(_theme.COLOURS),
        "dashes": [_dash(dash) for dash in _theme.DASHES],
        "map": _colour_map(COLOUR_MAP),
        "differences": _colour_map(DIFFERENCES),
        "diverged": _mark(_theme.DIVERGED),
        "missing": _mark(_theme.MISSING),
    }


def label(dataset: xr.Dataset, name: str) -> str:
    """The label of a metric or an axis in plain text, also one of the user's own."""
    attributes = dataset[name].attrs if name in dataset.variables else {}
    own = attributes.get("long_name")
    return str(own) if own and name not in _theme.NAMES else plain_name(name)


def plain_name(name: str) -> str:
    """The label of a metric or an axis in plain text."""
    words, text = name.replace("_", " "), _theme.NAMES.get(name, "")
    for tex, symbol in SYMBOLS.items():
        text = text.replace(tex, symbol)
    if not text:
        return words
    # Labels that are a formula alone are preceded by the name of the metric.
    return text if text[0].isalpha() and text[:2].islower() else f"{words} {text}"


def _dash(dash: Any) -> list[float]:
    return [] if dash == "-" else [float(length) for length in dash[1]]


def _mark(properties: _theme.Properties) -> dict[str, str]:
    return {
        "face": colors.to_hex(properties["facecolor"]),
        "edge": colors.to_hex(properties["edgecolor"]),
    }


def _colour_map(name: str) -> str:
    return packed(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3], "u1")

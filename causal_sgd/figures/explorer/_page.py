"""The page: the template, the program and the numbers in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TypedDict, Unpack

import xarray as xr

from causal_sgd import checks
from causal_sgd.figures._files import replacing
from causal_sgd.figures.explorer._curves import Curves
from causal_sgd.figures.explorer._payload import MOST_NUMBERS, payload

__all__ = ["GENERATOR", "PROGRAM", "PageOptions", "page", "write_page"]

GENERATOR = '<meta name="generator" content="causal_sgd explorer">'
"""What distinguishes a page of the explorer from other files."""
PROGRAM = (
    "data",
    "words",
    "scales",
    "ticks",
    "state",
    "address",
    "cells",
    "canvas",
    "diagrams",
    "lines",
    "controls",
    "main",
)
"""The files of the page's program, in their order."""
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


class PageOptions(TypedDict, total=False):
    """The arguments of `page` beside the datasets."""

    title: str
    x: str | None
    y: str | None
    curves: Curves | None
    about: Mapping[str, object] | None
    merge: bool
    most_numbers: int


def page(
    datasets: Mapping[str, xr.Dataset] | xr.Dataset,
    *,
    title: str = "phase diagram",
    x: str | None = None,
    y: str | None = None,
    curves: Curves | None = None,
    about: Mapping[str, object] | None = None,
    merge: bool = False,
    most_numbers: int = MOST_NUMBERS,
) -> str:
    """A phase diagram as one self-contained HTML page that opens from a file, without a network.

    A cell shows a quantile of a metric over the seeds; the horizontal and the vertical axis may be
    any two of the sweep. The other axes are sliders, or menus if their values are names, such as
    those of methods. Two values of an axis, or two metrics, are compared side by side with one
    scale, a linked cursor and their difference. Diverged cells, those without runs and theory's
    curves look as in `phase_diagram`. Hovering over a cell shows its numbers; clicking it, or
    moving to it with the arrow keys, its trajectories with bands. The address of the page holds
    the view: a link restores it. A sweep over one axis is drawn as lines.

    Args:
        datasets: the result of `sweep` or `open_results`, or several by name over the same axes.
        title: title of the page.
        x: the horizontal axis; None for the first of numbers.
        y: the vertical axis; None for the next of numbers, and for lines if there is none.
        curves: curves to draw, a list of `Curve`; or name of a dataset -> label -> the values in
            `x` and `y`, for all values of the other axes.
        about: the configuration to display, name -> value.
        merge: whether the page begins with cells without runs drawn as part of the nearest cell
            with runs, for refined diagrams.
        most_numbers: limit on the numbers that trajectories take; beyond it frames are thinned
            evenly.

    Returns:
        The HTML.

    Raises:
        ValueError: if the datasets do not form a diagram: no axis, no completed run, no metric of
            real numbers, or different axes or metrics.
    """
    checks.instance(
        "datasets",
        datasets,
        (xr.Dataset, Mapping),
        "the dataset of a sweep, or a mapping of names to datasets",
    )
    checks.instance("title", title, str, "text")
    for name, axis in (("x", x), ("y", y)):
        checks.instance(name, axis, (str, type(None)), "the name of an axis or None")
    kinds = (Mapping, Sequence, type(None))
    checks.instance("curves", curves, kinds, "a list of curves, a mapping of names or None")
    checks.instance("about", about, (Mapping, type(None)), "a mapping of names or None")
    checks.flags(merge=merge)
    checks.integer("most_numbers", most_numbers)
    import jinja2

    named = {"": datasets} if isinstance(datasets, xr.Dataset) else datasets
    data = payload(named, x=x, y=y, curves=curves, merge=merge, most_numbers=most_numbers)
    folder = resources.files("causal_sgd.figures.explorer")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(folder.joinpath("page.html").read_text("utf-8"))
    return template.render(
        title=title,
        about=dict(about or {}),
        left_out=data["left_out"],
        generator=GENERATOR,
        # No character of a name may end or begin an element.
        data=json.dumps(data, allow_nan=False).translate(ESCAPES),
        style=folder.joinpath("page.css").read_text("utf-8"),
        program="\n".join(
            folder.joinpath("program", f"{name}.js").read_text("utf-8") for name in PROGRAM
        ),
    )


def write_page(
    path: str | Path,
    datasets: Mapping[str, xr.Dataset] | xr.Dataset,
    **options: Unpack[PageOptions],
) -> Path:
    """Write `page(datasets, **options)` to a file and return its path."""
    path = checks.path("path", path)
    text = page(datasets, **options)
    with replacing(path) as draft:
        draft.write_text(text, "utf-8")
    return path

"""The page: the template, the program, the numbers and the plotting library in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypedDict, Unpack

import xarray as xr

from causal_sgd import checks
from causal_sgd.figures._files import replacing
from causal_sgd.figures.explorer._payload import MOST_NUMBERS, Curves, payload

__all__ = ["PageOptions", "page", "write_page"]


ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


class PageOptions(TypedDict, total=False):
    """The arguments of `page` beside the datasets."""

    title: str
    x: str | None
    y: str | None
    curves: Curves | None
    about: Mapping[str, object] | None
    most_numbers: int


def page(
    datasets: Mapping[str, xr.Dataset] | xr.Dataset,
    *,
    title: str = "phase diagram",
    x: str | None = None,
    y: str | None = None,
    curves: Curves | None = None,
    about: Mapping[str, object] | None = None,
    most_numbers: int = MOST_NUMBERS,
) -> str:
    """A phase diagram as one self-contained HTML page that opens from a file, without a network.

    Every cell shows a quantile of a metric over the seeds; diverged cells are marked and theory
    curves drawn on top. Hovering over a cell shows its numbers. Clicking it, or moving to it with
    the arrow keys, shows its trajectories with bands. Menus switch between metrics, datasets
    (samplers, methods) and quantiles.

    Args:
        datasets: the result of `sweep` or `open_results`, or several by name over the same axes.
        title: title of the page.
        x: the horizontal axis; None for the first.
        y: the vertical axis; None for the first of the others.
        curves: name of a dataset -> label -> the x and y values of a theory curve.
        about: the configuration to display, name -> value.
        most_numbers: limit on the numbers that trajectories take; beyond it frames are thinned
            evenly.

    Returns:
        The HTML.

    Raises:
        ValueError: if the datasets do not form a diagram: fewer than two numeric axes, or different
            axes or metrics.
        ImportError: without the extra `explorer`.
    """
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            "the explorer needs plotly: pip install 'causal_sgd[explorer]'"
        ) from error
    checks.instance(
        "datasets",
        datasets,
        (xr.Dataset, Mapping),
        "the dataset of a sweep, or a mapping of names to datasets",
    )
    checks.instance("title", title, str, "text")
    for name, axis in (("x", x), ("y", y)):
        checks.instance(name, axis, (str, type(None)), "the name of an axis or None")
    for name, mapping in (("curves", curves), ("about", about)):
        checks.instance(name, mapping, (Mapping, type(None)), "a mapping of names or None")
    checks.integer("most_numbers", most_numbers)
    named = {"": datasets} if isinstance(datasets, xr.Dataset) else datasets
    data = payload(named, x=x, y=y, curves=curves, most_numbers=most_numbers)
    folder = resources.files("causal_sgd.figures.explorer")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(folder.joinpath("page.html").read_text("utf-8"))
    return template.render(
        title=title,
        about=dict(about or {}),
        # No character of a name may end or begin an element.
        data=json.dumps(data, allow_nan=False).translate(ESCAPES),
        plotly=get_plotlyjs(),
        style=folder.joinpath("page.css").read_text("utf-8"),
        program=folder.joinpath("page.js").read_text("utf-8"),
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

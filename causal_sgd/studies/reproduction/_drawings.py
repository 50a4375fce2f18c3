"""The figure of a study: a file to look at, which the report shows, and one for papers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from causal_sgd.studies import Study

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

__all__ = ["KINDS", "Drawing", "draw", "drawn"]

KINDS = ("png", "pdf")
"""The files of a figure, by suffix; the report shows the first."""


class Drawing(NamedTuple):
    """What the report says of a figure, whose image is a file beside it."""

    caption: str
    width: int  # CSS pixels
    height: int


def drawn(study: Study, data: Mapping[str, xr.Dataset]) -> Figure:
    """The figure of a study, which no window shows."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    with figures.style():
        fig = study.figure(data)
    plt.close(fig)
    return fig


def draw(study: Study, data: Mapping[str, xr.Dataset], path: Path) -> Drawing:
    """Write the figure of a study to `path` with .png and .pdf, and describe it for the report."""
    from matplotlib import pyplot as plt

    from causal_sgd import figures
    from causal_sgd.figures._files import replacing

    with figures.style():
        fig = study.figure(data)
        try:
            for kind in KINDS:
                with replacing(path.with_name(f"{path.name}.{kind}")) as draft:
                    fig.savefig(draft)
            width, height = (round(96 * inches) for inches in fig.get_size_inches())
        finally:
            plt.close(fig)
    return Drawing(inspect.cleandoc(study.figure.__doc__ or ""), width, height)

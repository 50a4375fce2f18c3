"""The figure of a study: files for papers, and an image for the report."""

from __future__ import annotations

import base64
import inspect
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from causal_sgd.studies import Study

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["KINDS", "Drawing", "draw"]

KINDS = ("png", "pdf")
"""The files of a figure, by suffix."""

LARGEST_SVG = 500_000  # bytes; beyond, a PNG is smaller
PIXELS_PER_INCH = 180


class Drawing(NamedTuple):
    """A figure as an image inside a page."""

    caption: str
    uri: str  # data:image/...
    width: int  # CSS pixels
    height: int


def draw(study: Study, data: Mapping[str, xr.Dataset], path: Path) -> Drawing:
    """Write the figure of a study to `path` with .png and .pdf, and return it for the report.

    The SVG carries no date and no random names: the same data give the same bytes.
    """
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from causal_sgd import figures
    from causal_sgd.figures._files import replacing

    with figures.style(), mpl.rc_context({"svg.hashsalt": path.name}):
        fig = study.figure(data)
        try:
            for kind in KINDS:
                with replacing(path.with_name(f"{path.name}.{kind}")) as draft:
                    fig.savefig(draft)
            kind, content = "svg+xml", io.BytesIO()
            metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            fig.savefig(content, format="svg", metadata=metadata)
            if content.tell() > LARGEST_SVG:
                kind, content = "png", io.BytesIO()
                fig.savefig(content, format="png", dpi=PIXELS_PER_INCH)
            width, height = (round(96 * inches) for inches in fig.get_size_inches())
        finally:
            plt.close(fig)
    uri = f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
    return Drawing(inspect.cleandoc(study.figure.__doc__ or ""), uri, width, height)

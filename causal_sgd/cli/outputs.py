"""Output of commands: files, figures, numbers as text and as JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from causal_sgd import checks
from causal_sgd.checks import Place, Url

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PLOT_SUFFIXES",
    "Plain",
    "aligned",
    "beside",
    "check_output",
    "distinct",
    "draw",
    "number",
    "plain",
    "say",
    "spread_out",
    "take",
]

Plain: TypeAlias = "float | list[Plain] | None"
"""Numbers for JSON, in which those that are not finite become null."""

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def beside(place: Place, suffix: str) -> Path:
    """The path of a file named after a store: beside it, or in this folder if that has a URL."""
    return Path(place.name if isinstance(place, Url) else place).with_suffix(suffix)


def check_output(
    option: str, place: Place | None, suffixes: Sequence[str], *, force: bool = True
) -> None:
    """Raise ValueError before the run if its output cannot be written; a store checks itself.

    Args:
        option: for messages.
        place: of the output; None for no output.
        suffixes: those allowed.
        force: whether a file that exists may be replaced.
    """
    if place is None:
        return
    if place.suffix not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {place}")
    if place.suffix == ".zarr":
        return
    path = checks.path(option, place)
    existed = path.exists()
    if path.is_file() and not force:
        raise ValueError(
            f"{option} must be a new file, got {place}, which exists; replace it with --force"
        )
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} must be a file that can be written, got {place}: {error.strerror}"
        ) from None
    if not existed:
        path.unlink()


def plain(values: float | np.ndarray) -> Plain:
    """The numbers of an array or of one value for JSON."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def number(value: float) -> str:
    """A number as text; a dash where it is not finite."""
    return f"{value:.4g}" if np.isfinite(value) else "-"


def distinct(values: np.ndarray, *, digits: int) -> list[str]:
    """Numbers as text, with more digits than these where two of them would look the same."""
    texts: list[str] = []
    for more in range(digits, 18):  # 17 digits distinguish all
        texts = [f"{value:.{more}g}" for value in values]
        if len(set(texts)) == len(values):
            break
    return texts


def aligned(rows: Sequence[Sequence[str]], *, least: tuple[int, int]) -> list[str]:
    """Rows of a table as lines, with columns that are as wide as their texts require.

    Args:
        rows: the texts, with the same number in each row.
        least: the least width of the first column and of the others.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, others = least
    widths = [max(first, widths[0]), *(max(others, width + 1) for width in widths[1:])]
    return [
        "".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)) for row in rows
    ]


def spread_out(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of some values, evenly apart, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, max(2, min(count, most))).round().astype(int))


def say(text: str) -> None:
    """Write a line to standard error, if that can be written."""
    if sys.stderr is not None:  # `print` would take standard output in place of None
        with contextlib.suppress(AttributeError, OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def take(*steps: Callable[[], object]) -> None:
    """Take all steps, so that none is lost where another one fails; then raise the first error."""
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def draw(path: Path, artist: Callable[[Axes, ModuleType], object]) -> None:
    """Write a figure with one pair of axes, which `artist(ax, figures)` draws."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from causal_sgd import figures
    from causal_sgd.figures._files import replacing

    with figures.style():
        fig, ax = plt.subplots()
        artist(ax, figures)
        with replacing(path) as draft:
            fig.savefig(draft)
        plt.close(fig)

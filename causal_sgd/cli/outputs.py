"""What commands leave: files that can be written, figures, numbers as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PLOT_SUFFIXES", "check_output", "draw", "duration", "number", "plain"]

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def check_output(option: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Find out before the run whether a file that it leaves can be written; a store says so itself."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{option} must end in {' or '.join(suffixes)}, got {path}")
    if path.suffix == ".zarr":
        return
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} must be a file that can be written, got {path}: {error.strerror}"
        ) from None
    if not existed:
        path.unlink()


def plain(values: Any) -> Any:
    """Numbers that JSON knows: what is not finite becomes null."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [plain(value) for value in values]
    return float(values) if np.isfinite(values) else None


def number(value: Any) -> str:
    """A number, or the first few of a list, as aligned text."""
    if isinstance(value, list):
        return " ".join(number(entry).strip() for entry in value[:6])
    return f"{'-':>10}" if value is None else f"{value:>10.4g}"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def draw(path: Path, artist: Any) -> None:
    """Write a figure of one pair of axes; `artist` gets them and the room of plots."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    from causal_sgd import figures

    with figures.style():
        drawing, ax = plt.subplots()
        artist(ax, figures)
        drawing.savefig(path)
        plt.close(drawing)

"""Small tables, as text for the shell and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Table", "number"]


def number(value: float) -> str:
    """A number in three digits, or a word."""
    if np.isnan(value):
        return "-"
    if np.isinf(value):
        return "never" if value > 0 else "-inf"
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}"
    return f"{value:.3g}"


class Table(NamedTuple):
    """A table with a title, and sentences below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def text(self) -> str:
        """Lines for a terminal: the first and the last column to the left, others to the right."""
        lines = [list(self.columns), *[list(row) for row in self.rows]]
        last = len(self.columns) - 1
        widths = [max(len(line[place]) for line in lines) for place in range(last + 1)]

        def cell(place: int, words: str) -> str:
            left = place in (0, last)
            return words.ljust(widths[place]) if left else words.rjust(widths[place])

        body = [
            "  ".join(cell(place, words) for place, words in enumerate(line)).rstrip()
            for line in lines
        ]
        return "\n".join([self.title, *body, *self.notes])

    def html(self) -> str:
        """The same for a notebook."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(words)}</td>" for words in row) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<br>{html.escape(note)}" for note in self.notes)
        return (
            f"<div><b>{html.escape(self.title)}</b><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table><small>{notes.removeprefix('<br>')}</small></div>"
        )

"""Formulas as MathML, which browsers draw without scripts and without a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

__all__ = ["add_renderer", "spelled_out"]


def spelled_out(tex: str) -> str:
    r"""Braces around single digits that are arguments.

    docutils reads all digits of a number as one argument; in TeX `\frac12` is a half.
    """
    tex = re.sub(r"(\\[td]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", tex)
    return re.sub(r"(\\[td]?frac|\\sqrt|[\^_])\s*(\d)(?=\d)", r"\1{\2}", tex)


def add_renderer(app: Sphinx) -> None:
    """Register the renderer under the name mathml."""
    from docutils import nodes
    from docutils.utils.math import latex2mathml

    def draw(as_block: bool) -> object:
        def visit(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
            mathml = latex2mathml.tex2mathml(spelled_out(node.astext()), as_block=as_block)
            tag = "div" if as_block else "span"
            self.body.append(self.starttag(node, tag, "", CLASS="math"))
            self.body.append(mathml)
            self.body.append(f"</{tag}>")
            raise nodes.SkipNode

        return visit

    app.add_html_math_renderer("mathml", (draw(False), None), (draw(True), None))  # pyright: ignore[reportArgumentType]

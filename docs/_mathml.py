"""Formulas as MathML, which browsers draw without scripts and without a network."""

from __future__ import annotations

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

__all__ = ["add_renderer"]


def add_renderer(app: Sphinx) -> None:
    """Register the renderer under the name mathml."""

    def draw(as_block: bool) -> object:
        def visit(self: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
            tag = "div" if as_block else "span"
            self.body.append(self.starttag(node, tag, "", CLASS="math"))
            self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=as_block))
            self.body.append(f"</{tag}>")
            raise nodes.SkipNode

        return visit

    app.add_html_math_renderer("mathml", (draw(False), None), (draw(True), None))  # pyright: ignore[reportArgumentType]

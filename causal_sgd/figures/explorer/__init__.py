"""A diagram as one page for the browser: hover, click, switch; from a file, without a network."""

from causal_sgd.figures.explorer._page import page, write_page

__all__ = ["page", "write_page"]

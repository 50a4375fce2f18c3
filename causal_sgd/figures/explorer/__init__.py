"""An interactive phase diagram as one self-contained HTML page."""

from causal_sgd.figures.explorer._page import page, write_page

__all__ = ["page", "write_page"]

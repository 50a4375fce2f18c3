"""An interactive phase diagram as one self-contained HTML page."""

from causal_sgd import _room
from causal_sgd.figures.explorer._curves import Curve
from causal_sgd.figures.explorer._page import page, write_page

_room(__name__)
__all__ = ["Curve", "page", "write_page"]

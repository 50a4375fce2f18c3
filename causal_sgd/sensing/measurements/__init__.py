"""Measurements: how examples become a gradient.

In the mean (`population`), by the exact law of the batch gradient (`gaussian_law`, `low_rank_law`),
from fresh draws (`streamed`, `rank_one`, `completion`, `examples`, `in_context`), or from a data
set (`fixed_design`).
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

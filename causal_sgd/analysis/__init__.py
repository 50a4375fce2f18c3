"""Numbers from datasets: summaries, boundaries with their uncertainty, growth, intermittency.

All functions take the dataset of a sweep or plain arrays, and none imports jax. There are two
estimators of a boundary: the order parameter extrapolated to zero, and the point at which the
fraction of rejecting seeds crosses a level. `growth_rate` measures the exponent itself, in runs
short enough to stay in the linear regime.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

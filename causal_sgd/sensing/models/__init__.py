"""Models: from parameters to the estimate that measurements see, or to a network's predictions."""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

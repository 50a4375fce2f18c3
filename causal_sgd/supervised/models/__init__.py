"""Models: parameters and the weights [p] that they stand for, or any network."""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

"""Models: parameters and the weights [p] that they stand for, or any network."""

from causal_sgd import _faces

__getattr__, __dir__, __all__ = _faces.attach(__name__, __file__)

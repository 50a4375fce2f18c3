"""An experiment by names and numbers. Importing this package does not start jax."""

from causal_sgd import _faces

__getattr__, __dir__, __all__ = _faces.attach(__name__, __file__)

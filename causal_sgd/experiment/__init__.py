"""An experiment by names and numbers. Importing this package does not start jax."""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

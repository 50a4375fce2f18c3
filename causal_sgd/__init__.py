"""How SGD over heterogeneous environments learns the invariant part and forgets the spurious one.

The public names are listed in `__init__.pyi` and loaded on first use: importing the package does
not start jax.
"""

from causal_sgd import _faces

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _faces.attach(__name__, __file__)

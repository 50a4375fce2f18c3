"""How SGD over heterogeneous environments learns the invariant part and forgets the spurious one.

The public names are listed in `__init__.pyi` and loaded on first use: importing the package does
not start jax.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

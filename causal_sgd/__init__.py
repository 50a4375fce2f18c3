"""causal_sgd: how SGD over heterogeneous environments learns the invariant and forgets the spurious.

What the package offers is listed in `__init__.pyi` and loaded on first use, so that importing the
package does not start jax.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

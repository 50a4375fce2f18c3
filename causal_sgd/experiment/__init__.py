"""An experiment by names and numbers. Importing this package does not start jax."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

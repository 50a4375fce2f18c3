"""Measurements: how examples become losses and gradients.

By their moments (`moments`), on the population or on one exact draw of a data set.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

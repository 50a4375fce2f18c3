"""Models: from parameters to the estimate that measurements see, or to a network's predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

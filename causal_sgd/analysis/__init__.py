"""Numbers from datasets: medians and bands, boundaries with their uncertainty, growth, intermittency.

Everything here takes the dataset of a sweep, or plain arrays, and imports no jax. There are two
estimators of a boundary: the order parameter extrapolated to zero, and the crossing of a level by the
fraction of seeds that reject the spurious part. `growth_rate` measures the exponent itself, in runs
that are too short to leave the linear regime.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Many runs: grids of parameters times seeds, compiled once, on every device or worker.

`sweep` and `compare` return labelled datasets; `refine` runs only the cells near a boundary;
`store` keeps results on disk. Submodules load on first use: reading a store does not start jax.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

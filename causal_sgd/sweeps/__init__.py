"""Many runs: grids of parameters times seeds, compiled once, on every device or worker.

`sweep` and `compare` return labelled datasets; `refine` runs only the cells near a boundary;
`store` keeps results on disk. Submodules load on first use: reading a store does not start jax.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

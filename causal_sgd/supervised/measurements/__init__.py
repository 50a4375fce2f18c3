"""Measurements: how examples become losses and gradients.

By moments of the population or of one data set (`moments`) or of a fresh batch in every step
(`batch_moments`), each drawn by its exact law; by the exact law of a fresh batch's gradient for
many inputs (`batch_directions`); or from examples that are really drawn or given (`examples`).
Under losses that are not squared: the population of a mixture (`quadrature`), a fresh batch of it
by one number for each example (`batch_projections`), and the atoms of a table (`counts`).
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

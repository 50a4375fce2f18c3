"""Worlds: the joint distribution of inputs and labels in every environment.

Every factory checks its arguments and returns a `WorldFactory`, a pure function of a key. Numbers
may be traced; dimensions and numbers of environments are static. Every world knows its moments, how
moments of samples are drawn, and how examples are; see `SupervisedWorld`.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

"""Estimators that fit in one step: functions of (data, world) for `algorithms.fitted`."""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

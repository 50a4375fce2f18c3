"""Estimators that fit in one step: functions of (data, world) for `algorithms.fitted`."""

from causal_sgd import _faces

__getattr__, __dir__, __all__ = _faces.attach(__name__, __file__)

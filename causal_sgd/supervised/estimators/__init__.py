"""Estimators that fit in one step: functions of (data, world) for `algorithms.fitted`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

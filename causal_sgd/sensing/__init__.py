"""System 1, matrix sensing in several environments: measurements of signals A* + A_e.

The system of [XGF], Xu, Gu and Fang (2024). `worlds` draws the signals and `nonstationary` changes
them during a run, `measurements` turns examples into gradients, `models` are trained, and `metrics`
are recorded.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

"""System 2, inputs and labels: regression in several environments.

Every environment has its own joint distribution of inputs x [p] and labels y; w* predicts y equally
well in all of them. `worlds` draws the environments and `nonstationary` changes them during a run,
`measurements` turns examples into losses, `models` are trained and `estimators` fit in one step,
and `metrics` are recorded. `data` has tables that come with other packages. Losses are mean squared
residuals over 4, as in matrix sensing.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

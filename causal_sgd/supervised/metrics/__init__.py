"""What is recorded of a run: functions of a snapshot that return a number or a small array.

Every member of `__all__` is a metric, but `reliance` and `flip_accuracy`, which make one of a
user's intervention. Errors are in the original coordinates of the inputs, and NaN
where the world does not know its target. Risks are mean squared residuals, without the factor 1/4
of the losses that are trained; training under another loss they are its values. Means over
environments are weighted by the world's probabilities. Test risks are of the population; training
risks are of the run's own data.

What depends on the chosen inputs (`support` and so on) exists for estimators only: the weights of
an iterative method are never exactly zero, and a threshold would be one more parameter. A metric of
the user's own can have one: `estimators.within(metrics.gates(snapshot) > 0.9)` refits the inputs of
open gates, by `(snapshot.data, snapshot.world)`.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

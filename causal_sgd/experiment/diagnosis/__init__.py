"""Does SGD over these environments reject this part of my model, and at what step size?

`diagnose` looks at a trained model of any kind: Lyapunov exponents of its linearised steps in a
part of its parameters, and whether the environments leave this part alone. `growth` are its numbers
as a function of a snapshot, and `exponents` and `disturbances` are their parts, for metrics of
sweeps. `report` looks at a table and trains nothing.

A diagnosis certifies the parameters at which it is made. It is no forecast of training: the weights
behind a gate, and with them its exponent, change on the way.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

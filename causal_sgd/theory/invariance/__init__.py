"""Explicit and implicit invariance in linear regression: what each method finds, and when.

Environments have moments S_e = E_e z z' of z = (x, y, 1), as in `supervised`; w* is the invariant
predictor and b_e = E_e x (y - x'w*) the biases that environments disagree on. `contradiction` has
the closed forms of all methods in the world `worlds.contradiction`, and `two_bit` those of Kamath's
world of two bits. The functions of this module take the moments of any world: the penalties from
which EILLS and FAIR choose the causal inputs, the power of ICP, and the Lyapunov exponents of
HeteroSGD with weights u^2.

Weights of penalties are those of `causal_sgd.objectives`, for losses R/4 with R the mean squared
residual: a source's R + weight pen(R) of a penalty that is quadratic in R has 4 weight here.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

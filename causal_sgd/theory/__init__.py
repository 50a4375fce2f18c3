"""Closed forms and Lyapunov exponents: where a spurious direction dies, how fast, and at what cost.

In the population dynamics a spurious direction u, with an eigenvalue s drawn independently at every
step, follows u <- (1 + eta (s - u^2)) u. Near zero log|u| is a random walk whose drift is the
Lyapunov exponent lambda = E log|1 + eta s|: the direction dies if lambda < 0 and grows to a
fluctuating level if lambda > 0 (Ziyin et al., arXiv 2303.13093; Chemnitz and Engel, arXiv
2407.20209). This gives the phase diagram of heterogeneity against learning rate (Xu, Gu and Fang,
arXiv 2403.01420). The loss is (1/4m) sum_i (<X_i, UU'> - y_i)^2.

In all functions eta is the `learning_rate` (in 1/signal, above zero), mu the `mean` and M the
`spread` of s (in units of the signal, M not negative): M is the half-distance of two equally likely
values mu +- M ("two_point"), the half-width ("uniform") or the standard deviation ("gaussian").
Write a = 1 + eta mu and b = eta M. The exponent lambda and the variance v = Var log|1 + eta s| are
per step. A formula without a derivation or a source is the definition written out. Each docstring
states the accuracy of its values and the range for which it is tested.

Numbers and arrays [...] broadcast and may be traced; a result has the common shape and the promoted
floating dtype. Concrete arguments outside their limits raise ValueError.
"""

from causal_sgd import _attach

__getattr__, __dir__, __all__ = _attach(__name__, __file__)

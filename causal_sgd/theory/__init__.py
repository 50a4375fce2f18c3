"""Closed forms and Lyapunov exponents: where a spurious direction dies, how fast, and at what cost.

A spurious direction u that meets an independent eigenvalue s at every step follows, in the population,
u <- (1 + eta (s - u^2)) u. Near zero log|u| is a random walk whose drift is the Lyapunov exponent
lambda = E log|1 + eta s|: below zero the direction dies, above zero it grows to a fluctuating level (Ziyin et
al., arXiv 2303.13093; Chemnitz & Engel, arXiv 2407.20209). Hence the phase diagram of heterogeneity against
learning rate in [XGF] (Xu, Gu, Fang, arXiv 2403.01420). The loss is (1/4m) sum_i (<X_i, UU'> - y_i)^2.

In all functions eta is the `learning_rate` (in 1/signal, above zero), mu the `mean` and M the `spread` of s
(in units of the signal, M not negative): M of mu +- M, equally likely ("two_point"), the half-width
("uniform") or the standard deviation ("gaussian"). Write a = 1 + eta mu and b = eta M. The exponent lambda
and the variance v = Var log|1 + eta s| are per step. Where no derivation or source is given, a formula is
the definition written out.

Numbers and arrays [...] broadcast and may be traced; a result has the common shape and the promoted floating
dtype. Concrete arguments outside their limits raise ValueError.

`exponents` has lambda and v of one direction and of matrix products, `boundaries` the curves of the phase
diagram and the bound on divergence, `finite_time` where runs of finite length seem to have them, `stationary` the growth
time, what is left of a direction and the error, `rotations` what becomes of exponents without a common eigenbasis, `tails`
the power laws of its quiet phases and bursts; `arguments` checks and compiles.
"""

from __future__ import annotations

from causal_sgd.theory._boundaries import (
    critical_learning_rate,
    critical_learning_rate_asymmetric,
    critical_mass,
    critical_spread,
    divergence_bound,
    is_bounded,
    least_positive_exponent,
    mixing_critical_spread,
)
from causal_sgd.theory._depth import crossing_spread, deep_spurious_quantile
from causal_sgd.theory._exponents import (
    LyapunovExponents,
    families,
    linearised,
    log_variance_environments,
    log_variance_two_point,
    lyapunov,
    lyapunov_asymmetric,
    lyapunov_environments,
    lyapunov_exponents,
    lyapunov_gaussian,
    lyapunov_log_normal,
    lyapunov_two_point,
    lyapunov_uniform,
)
from causal_sgd.theory._finite_time import (
    finite_time_critical_spread,
    finite_time_rejection,
    log_variance,
)
from causal_sgd.theory._methods import (
    federated_factors,
    lyapunov_federated,
    momentum_factors,
    scaffold_factors,
)
from causal_sgd.theory._rotations import (
    TopExponent,
    critical_spread_of,
    lyapunov_goe,
    lyapunov_haar,
    top_exponent,
)
from causal_sgd.theory._stationary import (
    BatchSettings,
    SpuriousMoments,
    complement_power,
    error_floor,
    expected_error,
    finite_data_error,
    growth_time,
    optimal_spread,
    stationary_spurious_moments,
)
from causal_sgd.theory._tails import tail_exponent

__all__ = [
    "BatchSettings",
    "LyapunovExponents",
    "SpuriousMoments",
    "TopExponent",
    "complement_power",
    "critical_learning_rate",
    "critical_learning_rate_asymmetric",
    "critical_mass",
    "critical_spread",
    "critical_spread_of",
    "crossing_spread",
    "deep_spurious_quantile",
    "divergence_bound",
    "error_floor",
    "expected_error",
    "families",
    "federated_factors",
    "finite_data_error",
    "finite_time_critical_spread",
    "finite_time_rejection",
    "growth_time",
    "is_bounded",
    "least_positive_exponent",
    "linearised",
    "log_variance",
    "log_variance_environments",
    "log_variance_two_point",
    "lyapunov",
    "lyapunov_asymmetric",
    "lyapunov_environments",
    "lyapunov_exponents",
    "lyapunov_federated",
    "lyapunov_gaussian",
    "lyapunov_goe",
    "lyapunov_haar",
    "lyapunov_log_normal",
    "lyapunov_two_point",
    "lyapunov_uniform",
    "mixing_critical_spread",
    "momentum_factors",
    "optimal_spread",
    "scaffold_factors",
    "stationary_spurious_moments",
    "tail_exponent",
    "top_exponent",
]

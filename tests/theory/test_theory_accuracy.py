"""Every public function states its accuracy and range, and keeps to it at random points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from causal_sgd import theory
from causal_sgd.theory import _incremental, _overspecified, limits
from support import oracles

CHECKS: dict[str, Callable[[np.random.Generator], oracles.Result]] = {
    "critical_learning_rate": oracles.rates,
    "critical_learning_rate_asymmetric": oracles.rates_of_two,
    "critical_learning_rate_environments": oracles.given_rates,
    "critical_mass": oracles.masses,
    "critical_spread": oracles.spreads,
    "critical_spread_environments": oracles.given_spreads,
    "critical_spread_of": oracles.roots,
    "crossing_spread": oracles.crossings,
    "damping_window": oracles.windows,
    "deep_spurious_quantile": oracles.quantiles,
    "divergence_bound": oracles.bounds,
    "federated_factors": oracles.local_steps,
    "is_bounded": oracles.bounds,
    "least_positive_exponent": oracles.positive,
    "linearised": oracles.identities,
    "log_variance": oracles.variances,
    "log_variance_environments": oracles.environments,
    "log_variance_two_point": oracles.variances,
    "lyapunov": oracles.exponents("two_point"),
    "lyapunov_asymmetric": oracles.asymmetric,
    "lyapunov_environments": oracles.environments,
    "lyapunov_exponents": oracles.products,
    "lyapunov_federated": oracles.local_steps,
    "lyapunov_gaussian": oracles.exponents("gaussian"),
    "lyapunov_goe": oracles.isotropic(haar=False),
    "lyapunov_haar": oracles.isotropic(haar=True),
    "lyapunov_log_normal": oracles.log_normal,
    "lyapunov_momentum": oracles.velocities,
    "lyapunov_two_point": oracles.exponents("two_point"),
    "lyapunov_uniform": oracles.exponents("uniform"),
    "mixing_critical_spread": oracles.mixtures,
    "momentum_critical_spread": oracles.velocity_roots,
    "momentum_factors": oracles.momenta,
    "scaffold_factors": oracles.control_variates,
    "statistical_dimension": oracles.cones,
    "tail_exponent": oracles.tails,
    "top_exponent": oracles.products,
}
# Formulas for small steps, compared with simulations in `test_theory_approximations`.
APPROXIMATIONS = {
    "complement_power",
    "error_floor",
    "expected_error",
    "finite_data_error",
    "finite_time_critical_spread",
    "finite_time_rejection",
    "growth_time",
    "optimal_spread",
    "stationary_spurious_moments",
}
# Compared over their ranges in `test_theory_overspecified` and `test_theory_incremental`.
RANK_AND_ORDER = set(_overspecified.__all__) | set(_incremental.__all__)
# The limit and its closed forms, compared in `test_theory_limits` and `test_theory_noise`.
LIMITS = set(limits.__all__) - {"NoiseLevel", "OrderParameters"}


def test_every_function_states_its_accuracy_and_is_compared() -> None:
    public = {name for name in theory.__all__ if name[0].islower()} - {
        "attention",
        "families",
        "invariance",
        "limits",
        "linear_dynamics",
        "single_index",
        "sparse",
        "stability",
    }
    assert public == set(CHECKS) | APPROXIMATIONS | RANK_AND_ORDER | LIMITS
    silent = [name for name in sorted(public) if "Accuracy:" not in getattr(theory, name).__doc__]
    assert not silent, "docstrings without a line on accuracy and range"


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=pytest.mark.long if check is oracles.cones else ())
        for check in dict.fromkeys(CHECKS.values())
    ],
    ids=lambda check: check.__name__,
)
def test_functions_are_as_accurate_as_stated(check: Callable) -> None:
    for value, exact, allowed in check(np.random.default_rng(0)):
        exact = np.asarray(exact, float)
        error = abs(np.asarray(value, float) - exact)
        assert (error <= allowed).all(), (error / np.maximum(allowed, 1e-300)).max()

"""The window of damping against the exponent of the preconditioned map in double precision."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sgd import theory


def exponent(damping: float, eta: float, mean: float, spread: float) -> float:
    """The drift of log|u| near zero, from a step of the map itself."""
    u = 1e-9
    eigenvalues = np.array([mean - spread, mean + spread])
    after = u + eta * (eigenvalues - u * u) * u / (u * u + damping)
    return float(np.log(np.abs(after / u)).mean())


@pytest.mark.parametrize(
    ("eta", "mean", "spread"), [(0.1, 1.0, 6.0), (0.02, 0.3, 2.0), (0.5, 2.0, 2.2)]
)
def test_the_exponent_changes_its_sign_at_both_ends(eta: float, mean: float, spread: float) -> None:
    low, high = map(float, theory.damping_window(eta, mean, spread))
    assert low < high
    for end, sign in ((low, 1), (high, -1)):
        for factor in (0.99, 1.01):
            outside = (factor < 1) == (sign == 1)
            assert (exponent(factor * end, eta, mean, spread) > 0) == outside
    # The upper end is the critical learning rate of plain gradients.
    critical = float(theory.critical_learning_rate(mean, spread))
    np.testing.assert_allclose(eta / high, critical, rtol=1e-5)


def test_without_a_positive_mean_the_window_has_no_upper_end() -> None:
    eta = 0.1
    for mean, spread in ((0.0, 3.0), (-0.5, 3.0), (-1.0, 0.9), (-1.0, 0.3)):
        low, high = map(float, theory.damping_window(eta, mean, spread))
        assert high == np.inf
        assert exponent(1.02 * low, eta, mean, spread) < 0 < exponent(0.98 * low, eta, mean, spread)
        for damping in np.geomspace(1.02 * low, 1e3, 50):
            assert exponent(damping, eta, mean, spread) < 0


def test_no_damping_rejects_where_all_eigenvalues_are_positive() -> None:
    for spread in (0.0, 0.5, 0.999):
        low, high = map(float, theory.damping_window(0.1, 1.0, spread))
        assert low >= high

"""Laws of deep factorisations against closed forms and simulated scalar dynamics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from causal_sgd import theory

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_two_factors_have_the_gamma_law_of_the_blowout() -> None:
    """w^2 ~ Gamma(mu / n - 1/2, n) for n = eta M^2 / 2 < 2 mu; zero beyond."""
    eta, mu, spreads = 0.02, 1.0, np.array([3.0, 6.0, 9.0])
    noise = eta * spreads**2 / 2
    for share in (0.1, 0.5, 0.9):
        expected = stats.gamma(mu / noise - 0.5, scale=noise).ppf(share)
        np.testing.assert_allclose(
            theory.deep_spurious_quantile(2, eta, mu, spreads, share), expected, rtol=0.02
        )
    assert theory.deep_spurious_quantile(2, eta, mu, 15.0) == 0
    assert theory.deep_spurious_quantile(3, eta, 0.0, 5.0) == 0
    np.testing.assert_allclose(
        theory.deep_spurious_quantile(np.array([2, 3, 4]), eta, 0.7, 0.0), 0.7, rtol=0.02
    )


@pytest.mark.parametrize("depth", [3, 4])
def test_deep_factors_fall_like_a_power_of_the_noise(depth: int) -> None:
    """For large n, w^(2 - L) is Gamma((2 L - 3) / (L - 2)) with rate 2 mu / ((L - 2) n)."""
    noise = 2 * 30.0**2 / 2
    law = stats.gamma((2 * depth - 3) / (depth - 2), scale=(depth - 2) * noise / 2)
    expected = law.ppf([0.9, 0.5]) ** (-depth / (depth - 2))
    result = theory.deep_spurious_quantile(depth, 2.0, 1.0, 30.0, np.array([0.1, 0.5]))
    np.testing.assert_allclose(result, expected, rtol=0.05)


@pytest.mark.parametrize(("depth", "spread"), [(3, 12.0), (4, 10.0)])
def test_the_scalar_dynamics_has_the_predicted_median(depth: int, spread: float) -> None:
    """Within 8 %: 2,000 runs give a standard error of 2 %, and the steps are not quite small."""
    rng, w = np.random.default_rng(0), np.full(2000, 0.5)
    for _ in range(2500):
        w = w + 0.005 * (1 + spread * rng.choice([-1, 1], w.size) - w**depth) * w ** (depth - 1)
    result = np.median(w**depth)
    assert result == pytest.approx(
        float(theory.deep_spurious_quantile(depth, 0.01, 1.0, spread)), rel=0.08
    )


@pytest.mark.parametrize("depth", [3, 5])
def test_runs_cross_zero_beyond_the_crossing_spread_and_not_below_it(depth: int) -> None:
    """The scalar dynamics from 0.5, at 0.5 % below the crossing and at 1 % above it."""
    rng, w = np.random.default_rng(0), np.full((2, 500), 0.5)
    spread = float(theory.crossing_spread(depth, 0.1, 1.0)) * np.array([[0.995], [1.01]])
    crossed = np.zeros(w.shape, bool)
    for _ in range(2000):
        signs = rng.choice([-1, 1], w.shape)
        w = w + 0.05 * (1 + spread * signs - w**depth) * w ** (depth - 1)
        crossed |= w < 0
    assert not crossed[0].any()
    assert crossed[1].mean() > 0.1

"""The tail exponent: its defining equation, its limits and a simulated Kesten process."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import theory


def test_tail_exponent_is_the_other_root_on_both_sides_of_the_transition():
    eta, mu = 0.1, 1.0
    critical = float(theory.critical_spread(eta, mu))
    spreads = critical * np.array([0.5, 0.9, 0.99, 1.01, 1.1, 1.5, 2.0])
    eigenvalues = mu + spreads[:, None] * np.array([1.0, -1.0])
    theta = np.asarray(theory.tail_exponent(eta, eigenvalues), float)
    assert (np.sign(theta) == np.sign(spreads - critical)).all()
    np.testing.assert_allclose(
        (np.abs(1 + eta * eigenvalues) ** theta[:, None]).mean(1), 1, atol=1e-5
    )
    near = spreads[2:4]
    drift, variance = (
        theory.lyapunov_two_point(eta, mu, near),
        theory.log_variance_two_point(eta, mu, near),
    )
    np.testing.assert_allclose(theta[2:4], -2 * drift / variance, rtol=0.01)


def test_tail_exponent_weights_environments_and_has_its_limits():
    factors, weights = np.array([2.0, 0.5, 0.25]), np.array([0.2, 0.3, 0.5])
    theta = float(theory.tail_exponent(0.5, (factors - 1) / 0.5, weights))
    assert weights @ factors**theta == pytest.approx(1, abs=1e-5)
    assert theta > 0
    assert theory.tail_exponent(0.1, jnp.array([-1.0, -2.0])) == np.inf
    assert theory.tail_exponent(0.1, jnp.array([1.0, 2.0])) == -np.inf
    balanced = theory.tail_exponent(0.1, jnp.array([10.0, -5.0]))  # factors 2 and 1/2
    assert balanced == pytest.approx(0, abs=1e-3)
    assert theory.tail_exponent(0.1, jnp.array([5.0, -10.0])) > 0  # a factor of 0


def test_bursts_of_a_perturbed_direction_have_the_tail_exponent():
    # Kesten: w <- f w + g with lambda < 0 has P(|w| > x) ~ x^-theta
    rng = np.random.default_rng(0)
    eta, values = 0.1, np.array([7.0, -5.0])
    w = np.zeros(20_000)
    for _ in range(300):
        w = (1 + eta * values[rng.integers(2, size=w.size)]) * w + rng.normal(size=w.size)
    shares = [(np.abs(w) > x).mean() for x in (1e2, 1e4)]
    measured = -np.log(shares[1] / shares[0]) / np.log(1e2)
    # The standard error is 0.013.
    assert measured == pytest.approx(float(theory.tail_exponent(eta, values)), abs=0.05)

"""Lyapunov exponents against quadrature, closed forms and products of matrices."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from causal_sgd import theory
from support.theory import FAMILIES

pytestmark = pytest.mark.usefixtures("quickly_compiled")

EPS = float(np.finfo(np.float32).eps)


def quadrature(family: str, eta: float, mu: float, spread: float) -> float:
    """E log|1 + eta s| by adaptive quadrature, split at the singular point."""
    a, b = 1 + eta * mu, eta * spread
    if family == "two_point":
        return (math.log(abs(a - b)) + math.log(abs(a + b))) / 2

    def integrand(t: float) -> float:
        density = 0.5 if family == "uniform" else math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return math.log(max(abs(1 + b / a * t), 1e-300)) * density

    reach = 1.0 if family == "uniform" else 13.0
    inner = [-a / b] if abs(a / b) < reach else []
    edges = sorted({-reach, *inner, 0.0, reach})
    pieces = [
        integrate.quad(integrand, low, high, limit=400, epsabs=1e-14, epsrel=1e-12)[0]
        for low, high in itertools.pairwise(edges)
    ]
    return math.log(abs(a)) + sum(pieces)


# Around the switch points of the uniform (1/2) and normal series (1/8) and the singularity (1).
RATIOS = np.array(
    [0.01, 0.1, 0.1249, 0.1251, 0.3, 0.499, 0.501, 0.7, 0.9, 0.99, 1.01, 1.3, 2.0, 10.0]
)
STEPS = [(0.001, 0.5), (0.01, 1.0), (0.1, 1.0), (0.3, 1.0), (0.1, -2.0), (0.5, -5.0)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("eta", "mu"), STEPS)
def test_exponent_matches_quadrature_in_float32(family: str, eta: float, mu: float):
    eta32, mu32 = np.float32(eta), np.float32(mu)
    spread = (RATIOS * abs(1 + eta * mu) / eta).astype(np.float32)
    level = math.log(abs(1 + float(eta32) * float(mu32)))
    exact = np.array([quadrature(family, float(eta32), float(mu32), float(s)) for s in spread])
    error = np.abs(np.asarray(theory.lyapunov(family, eta32, mu32, spread)) - exact)
    # A few roundings of the two parts log a and h(b/a): for small steps, where both are small, no
    # digits are lost to the 1 in 1 + eta s. Beyond r = 1/2 the parts are of order one. Two points
    # are sensitive to the rounding of eta M near r = 1, and the Poisson sum of the normal family
    # has an error of half a rounding of 1.
    size = np.where(RATIOS < 0.5, abs(level) + np.abs(exact - level), 1 + np.abs(exact))
    allowed = 8 * EPS * size
    if family == "two_point":
        allowed = allowed + EPS / np.abs(RATIOS - 1)
    if family == "gaussian":
        allowed = allowed + EPS / 2 * (RATIOS > 1 / 8)
    np.testing.assert_array_less(error, allowed)


@pytest.mark.parametrize("family", [*FAMILIES, "log_normal"])
def test_the_function_of_every_family_matches_quadrature(family: str):
    eta, mu, spreads = 0.1, 1.0, np.array([2.0, 5.0, 14.0])
    if family == "log_normal":
        widths = np.sqrt(np.log1p(spreads**2))
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        values = np.exp(widths[:, None] * nodes - widths[:, None] ** 2 / 2)
        exact = np.log1p(eta * values) @ weights / weights.sum()
    else:
        exact = [quadrature(family, eta, mu, spread) for spread in spreads]
    value = getattr(theory, f"lyapunov_{family}")(eta, mu, spreads)
    np.testing.assert_allclose(value, exact, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_exponent_matches_quadrature_in_float64(family: str):
    with jax.enable_x64(True):
        for eta, mu in STEPS:
            spread = RATIOS * abs(1 + eta * mu) / eta
            exact = [quadrature(family, eta, mu, s) for s in spread]
            value = theory.lyapunov(family, eta, mu, spread)
            assert value.dtype == jnp.float64
            np.testing.assert_allclose(value, exact, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_exponent_without_spread_is_that_of_the_mean(family: str):
    mean = jnp.array([1e-3, 1.0, -3.0])
    np.testing.assert_allclose(
        theory.lyapunov(family, 0.1, mean, 0.0), np.log1p(0.1 * mean), rtol=1e-6
    )
    assert theory.lyapunov(family, 0.5, -2.0, 0.0) == -jnp.inf
    # 0.1 and the product are rounded: in place of -inf a very negative number, never NaN.
    assert theory.lyapunov(family, 0.1, -10.0, 0.0) < -15
    assert math.isfinite(theory.lyapunov(family, 0.5, -2.0, 3.0))  # a = 0: centred eigenvalues


def test_exponent_at_the_singular_point():
    assert theory.lyapunov_two_point(0.5, 0.0, 2.0) == -jnp.inf
    assert theory.lyapunov_asymmetric(0.5, 5.0, 2.0) == -jnp.inf
    assert theory.log_variance_two_point(0.5, 0.0, 2.0) == jnp.inf
    assert theory.lyapunov_environments(0.5, jnp.array([-2.0, 1.0])) == -jnp.inf
    assert theory.log_variance_environments(0.5, jnp.array([-2.0, 1.0])) == jnp.inf
    weights = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(
        theory.lyapunov_environments(0.5, jnp.array([-2.0, 1.0]), weights),
        math.log(1.5),
        rtol=1e-6,
    )
    assert theory.log_variance_environments(0.5, jnp.array([-2.0, 1.0]), weights) == 0
    np.testing.assert_allclose(theory.lyapunov_uniform(0.1, 0.0, 10.0), math.log(2) - 1, rtol=1e-6)


def test_two_environments_agree_with_the_closed_forms():
    up, down = 7.0, 3.0
    values = jnp.array([up, -down])
    oracle = 0.5 * math.log(1.7 * 0.7)
    np.testing.assert_allclose(theory.lyapunov_asymmetric(0.1, up, down), oracle, rtol=1e-5)
    np.testing.assert_allclose(theory.lyapunov_two_point(0.1, 2.0, 5.0), oracle, rtol=1e-5)
    np.testing.assert_allclose(theory.lyapunov_environments(0.1, values), oracle, rtol=1e-5)
    variance = (0.5 * math.log(1.7 / 0.7)) ** 2
    np.testing.assert_allclose(theory.log_variance_two_point(0.1, 2.0, 5.0), variance, rtol=1e-5)
    np.testing.assert_allclose(theory.log_variance_environments(0.1, values), variance, rtol=1e-5)


def test_environments_broadcast_and_are_weighted():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(3, 1, 5)), np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    eta = np.array([0.1, 0.2])
    logs = np.log(np.abs(1 + eta[:, None] * values))
    mean = logs @ weights
    np.testing.assert_allclose(
        theory.lyapunov_environments(eta, values, weights), mean, rtol=1e-4, atol=1e-6
    )
    variance = ((logs - mean[..., None]) ** 2) @ weights
    np.testing.assert_allclose(
        theory.log_variance_environments(eta, values, weights), variance, rtol=1e-4
    )


def test_every_environment_positive_means_growth():
    eta = jnp.array([0.001, 0.1, 2.0])
    assert (theory.lyapunov_environments(eta, jnp.array([0.0, 1.0, 30.0])) > 0).all()
    assert (theory.lyapunov_uniform(eta, 5.0, 5.0) > 0).all()


# Statistical tests use fixed seeds and 5 standard errors: a correct program fails about once in a
# million.


def test_exponents_of_triangular_products_are_the_mean_logs_of_the_diagonals():
    rng = np.random.default_rng(1)
    matrices = np.triu(rng.normal(size=(3, 3, 3)), 1) + np.array(
        [np.diag(d) for d in rng.uniform(0.3, 2, (3, 3))]
    )
    weights = np.array([0.5, 0.3, 0.2])
    logs = np.log(matrices[:, np.arange(3), np.arange(3)]).T @ weights
    result = theory.lyapunov_exponents(matrices, weights, key=jax.random.key(0), num_steps=500)
    assert result.exponents.shape == result.standard_error.shape == (3,)
    # The frame needs some steps to align; the bias after the burn-in is of order 1/num_steps.
    deviation = np.abs(np.asarray(result.exponents) - np.sort(logs)[::-1])
    np.testing.assert_array_less(deviation, 5 * np.asarray(result.standard_error) + 2e-3)
    assert (result.standard_error > 0).all()
    assert (result.standard_error < 0.01).all()


def test_exponents_of_rotated_products():
    # M_e = D R(angle) over equally spaced angles: directions become uniform, and the mean of log|D
    # direction| over the circle is log((d1 + d2)/2). The determinant gives the other exponent.
    angles = 2 * np.pi * np.arange(64) / 64
    cosines, sines = np.cos(angles), np.sin(angles)
    rotations = np.array([[cosines, -sines], [sines, cosines]]).transpose(2, 0, 1)
    matrices = np.diag([1.5, 0.4]) @ rotations
    result = theory.lyapunov_exponents(matrices, key=jax.random.key(1), num_steps=500)
    exact = np.array([math.log(0.95), math.log(0.6) - math.log(0.95)])
    deviation = np.abs(np.asarray(result.exponents) - exact)
    np.testing.assert_array_less(deviation, 5 * np.asarray(result.standard_error) + 1e-6)


def test_linearised_adds_the_identity():
    cores = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_allclose(theory.linearised(0.1, cores), np.eye(2) + 0.1 * cores, rtol=1e-6)

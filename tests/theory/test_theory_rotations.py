"""Exponents without a common eigenbasis against quadrature, products and small steps."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from causal_sgd import theory
from causal_sgd.sensing import worlds

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_haar_exponents_have_closed_forms_for_one_and_two_directions() -> None:
    eta, mu, spread = 0.1, 1.0, np.array([0.0, 2.0, 6.0, 9.0, 20.0])
    single = np.asarray(theory.lyapunov_two_point(eta, mu, spread))
    np.testing.assert_allclose(theory.lyapunov_haar(eta, mu, spread, 1), single, atol=2e-6)
    # Jensen's formula: the mean of log|a + b exp(i phi)| is log max(a, b)
    two = single / 2 + np.log(np.maximum(1.1, 0.1 * spread)) / 2
    np.testing.assert_allclose(theory.lyapunov_haar(eta, mu, spread, 2), two, atol=2e-5)


@pytest.mark.parametrize("directions", [2, 3])
def test_goe_exponents_match_quadrature(directions: int) -> None:
    a, b = 1.02, 0.34

    def integrand(y: float, g: float) -> float:  # y^2 is the chi-square
        density = stats.norm.pdf(g) * stats.chi.pdf(y, directions - 1)
        return float(0.5 * math.log((a + b * g) ** 2 + b * b / 2 * y * y) * density)

    pieces = [
        integrate.dblquad(integrand, low, high, 0, 8, epsabs=1e-6)[0]
        for low, high in ((-7, -a / b), (-a / b, 7))
    ]
    result = float(theory.lyapunov_goe(0.02, 1.0, b / 0.02, directions))
    assert result == pytest.approx(sum(pieces), abs=1e-4)


@pytest.mark.parametrize("directions", [2, 4, 10])
def test_small_heterogeneity_helps_or_hurts_by_the_number_of_directions(directions: int) -> None:
    eta, mu, spread = 0.01, 1.0, 5.0
    shift = (eta * spread) ** 2 / 2
    base = math.log1p(eta * mu)
    haar, goe = (
        float(law(eta, mu, spread, directions)) - base
        for law in (theory.lyapunov_haar, theory.lyapunov_goe)
    )
    assert haar == pytest.approx(shift * (directions - 4) / (directions + 2), abs=0.05 * shift)
    assert goe == pytest.approx(shift * (directions - 3) / 2, abs=0.05 * shift * directions)


def test_products_of_drawn_matrices_agree_with_the_closed_forms() -> None:
    eta, spread, number = 0.05, 6.0, 3
    options = {"dim": 4, "invariant_rank": 1, "spurious_rank": number, "num_environments": 1}
    options["basis"] = "canonical"  # cores do not depend on it

    def exponent(family, spread, **more):
        def draw(key):
            world = family(**options, **more, mean=1.0, spread=spread)(key)
            core = world.spurious_cores[0]
            return jnp.eye(number) + eta * core

        return theory.top_exponent(draw, key=jax.random.key(0), num_steps=200, num_chains=32)

    result = {
        "goe": jax.jit(lambda s: exponent(worlds.goe, s))(spread),
        "haar": jax.jit(lambda s: exponent(worlds.two_point, s, balanced=False, rotation=1.0))(
            spread
        ),
    }
    for name, (value, error) in result.items():
        closed = float(getattr(theory, f"lyapunov_{name}")(eta, 1.0, spread, number))
        assert abs(float(value) - closed) < 3.3 * float(error)
        assert float(error) < 0.01


def test_critical_spreads_of_curves() -> None:
    def two_point(spread):
        return theory.lyapunov_two_point(0.05, 1.0, spread)

    assert float(theory.critical_spread_of(two_point, highest=15.0)) == pytest.approx(
        6.40, abs=0.005
    )
    assert float(theory.critical_spread_of(two_point, highest=5.0)) == np.inf
    assert float(theory.critical_spread_of(lambda s: -1 - s, highest=5.0)) == 0
    # Two points in Haar bases: more directions need more heterogeneity; in five none suffices.
    critical = [
        float(
            theory.critical_spread_of(
                lambda s, n=n: theory.lyapunov_haar(0.01, 1.0, s, n), highest=90.0
            )
        )
        for n in (1, 2, 3, 4, 5)
    ]
    assert critical[0] == pytest.approx(math.sqrt(200 + 1), rel=1e-3)
    np.testing.assert_allclose(
        np.array(critical[1:3]) / critical[0], np.sqrt([4 / 2, 5]), rtol=0.03
    )
    assert 4.5 < critical[3] / critical[0] < 5.5  # decided by higher orders alone
    assert critical[4] == np.inf


def test_the_critical_mass_makes_the_exponent_vanish() -> None:
    others, shares, eta = np.array([1.0, 3.0]), np.array([0.8, 0.2]), 0.1
    mass = float(theory.critical_mass(eta, others, -5.0, shares))
    weights = np.append((1 - mass) * shares, mass).astype(np.float32)
    assert float(
        theory.lyapunov_environments(eta, np.append(others, -5.0), weights)
    ) == pytest.approx(0, abs=1e-7)
    mean = others @ shares
    assert mass < mean / (mean + 5)  # pooled training needs more
    # The outlier agrees, is neutral, kills the direction in one step, or overshoots.
    outliers = np.array([5.0, 0.0, -10.0, -25.0])
    np.testing.assert_array_equal(
        theory.critical_mass(eta, others, outliers), [np.inf, np.inf, 0, np.inf]
    )
    assert float(theory.critical_mass(eta, np.array([-1.0]), -5.0)) == 0


def test_no_positive_spectrum_is_below_the_least_one() -> None:
    eta, mean = 0.1, 1.0
    spreads = np.array([0.5, 1.0, 3.0])
    smooth = np.asarray(theory.lyapunov_log_normal(eta, mean, spreads))
    z = np.random.default_rng(0).normal(size=400_000)
    width = np.sqrt(np.log1p(spreads**2))
    sampled = np.log1p(eta * np.exp(np.outer(z, width) - width**2 / 2))
    assert (np.abs(smooth - sampled.mean(0)) < 3.3 * sampled.std(0) / math.sqrt(len(z))).all()
    values, weights = np.array([0.0, 8.0]), np.array([0.875, 0.125])
    least = float(theory.least_positive_exponent(eta, mean, 8.0))
    assert float(theory.lyapunov_environments(eta, values, weights)) == pytest.approx(
        least, rel=1e-6
    )
    assert (least < theory.lyapunov_uniform(eta, mean, np.array([0.1, 0.5, 1.0]))).all()
    assert least > 0.628 * eta * mean


def test_the_top_exponent_of_known_products() -> None:
    few: Any = {"key": jax.random.key(0), "num_steps": 400, "num_chains": 16}
    constant = theory.top_exponent(lambda key: jnp.diag(jnp.array([0.5, 2.0])), **few)
    assert float(constant.exponent) == pytest.approx(math.log(2), rel=1e-4)
    single = theory.top_exponent(
        lambda key: jnp.exp(0.3 + 0.1 * jax.random.normal(key, (1, 1))), **few
    )
    assert float(single.exponent) == pytest.approx(0.3, abs=4 * 0.1 / 6400**0.5)

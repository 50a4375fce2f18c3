"""Environments needed and error rates of mixtures against quadrature and drawn data in NumPy."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from causal_sgd.theory.invariance import environments_needed, mixtures

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SEEDS = 1000


def drawn_means(environments: int, dim: int) -> np.ndarray:
    return np.random.default_rng(environments + 100 * dim).normal(size=(SEEDS, environments, dim))


def certificate(means: np.ndarray) -> environments_needed.Certificate:
    """Of one shape: environments that repeat others and empty inputs change nothing."""
    repeated = means[:, np.arange(5) % means.shape[1]]
    found = environments_needed.certificate(
        np.pad(repeated, ((0, 0), (0, 0), (0, 5 - means.shape[2])))
    )
    assert not found.direction[:, means.shape[2] :].any()
    return found._replace(direction=found.direction[:, : means.shape[2]])


@pytest.mark.parametrize(("environments", "dim"), [(2, 5), (4, 4), (5, 4)])
def test_a_certificate_is_the_least_norm_solution(environments: int, dim: int) -> None:
    means = drawn_means(environments, dim)
    found = certificate(means)
    assert found.exists.all() == (environments <= dim)
    assert found.exists.any() == (environments <= dim)
    if environments > dim:
        assert (found.gain == 0).all()
        return
    expected = np.linalg.pinv(means) @ np.ones(environments)
    sizes = np.linalg.norm(expected, axis=1)
    condition = np.linalg.cond(means)
    errors = np.linalg.norm(np.asarray(found.direction, float) - expected, axis=1) / sizes
    assert (errors < 1e-5 + 1e-6 * condition).all()
    good = condition < 100
    np.testing.assert_allclose(found.gain[good], sizes[good] ** -2.0, rtol=2e-4)


def test_a_certificate_is_not_moved_in_any_environment() -> None:
    """D_e, by quadrature over the drawn prediction's law in every environment, is zero."""
    means, signal = drawn_means(3, 5), np.array([0.8, 0.6, 0.3])
    found = certificate(means)
    gain, p = np.asarray(found.gain, float), np.asarray(found.direction, float)
    weights = 2 * p * gain[:, None]
    center = 2 * signal @ signal + np.einsum("sd,sed->se", weights, means)
    deviation = np.sqrt(4 * signal @ signal + (weights**2).sum(1))[:, None] * np.ones((1, 3))
    slopes = environments_needed.scale_slope(center, deviation)
    assert np.abs(slopes).max() < 1e-5
    risks = environments_needed.logistic_risk(center, deviation)
    expected = environments_needed.bayes_risk(signal @ signal + gain)
    np.testing.assert_allclose(risks, np.broadcast_to(expected[:, None], risks.shape), atol=2e-5)


@pytest.mark.parametrize(("environments", "dim"), [(2, 3), (3, 3), (3, 5), (2, 1)])
def test_the_gain_has_a_chi_square_law(environments: int, dim: int) -> None:
    if environments > dim:
        assert environments_needed.gain_distribution(0.0, environments, dim) == 1
        return
    gain = np.asarray(certificate(drawn_means(environments, dim)).gain)

    def distribution(value: np.ndarray) -> np.ndarray:
        return np.asarray(environments_needed.gain_distribution(value, environments, dim))

    assert stats.kstest(gain, distribution).statistic < 1.63 / SEEDS**0.5
    value = np.array([0.1, 1.0, 4.0])
    exact = stats.chi2.cdf(environments * value, dim - environments + 1)
    np.testing.assert_allclose(distribution(value), exact, atol=1e-5)


def normal_mean(function, mean: float, deviation: float) -> float:
    def integrand(t: float) -> float:
        return function(mean + deviation * t) * np.exp(-t * t / 2) / np.sqrt(2 * np.pi)

    return integrate.quad(integrand, -14, 14, epsabs=0, epsrel=1e-9, limit=300, points=[-5, 0])[0]


def test_risks_are_integrals() -> None:
    for s in (0.0, 1e-3, 1.0, 7.0, 60.0):
        expected = normal_mean(lambda g: np.logaddexp(0, -g), 2 * s, 2 * s**0.5)
        found = float(environments_needed.bayes_risk(s))
        assert found == pytest.approx(expected, rel=1e-5)
    for mean, deviation in ((0.5, 0.0), (-2.0, 3.0), (10.0, 20.0)):
        risk = normal_mean(lambda g: np.logaddexp(0, -g), mean, deviation)
        slope = normal_mean(lambda g: -g / (1 + np.exp(g)), mean, deviation)
        error = 2e-6 * (1 + abs(mean))
        assert abs(environments_needed.logistic_risk(mean, deviation) - risk) < error
        assert abs(environments_needed.scale_slope(mean, deviation) - slope) < error


def test_the_certificate_fails_where_the_signs_are_flipped() -> None:
    rng, size, s, g = np.random.default_rng(0), 200_000, 1.0, 1.7
    f = 2 * s + 2 * s**0.5 * rng.normal(size=size) - 2 * g + 2 * g**0.5 * rng.normal(size=size)
    expected = float(environments_needed.flipped_error(s, g))
    assert abs((f < 0).mean() - expected) < 4.5 * (expected * (1 - expected) / size) ** 0.5
    assert environments_needed.flipped_error(1.0, 1.0) == 0.5


def test_error_rates_are_those_of_drawn_examples() -> None:
    rng, size = np.random.default_rng(1), 100_000
    shares = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    means, root = rng.normal(size=(2, 3, 4)), rng.normal(size=(4, 4))
    labels, w, b = np.array([1.0, -1.0, 1.0]), rng.normal(size=(2, 4)), np.array([0.3, -0.5])
    rates = np.asarray(mixtures.error_rates(w, shares, means, root, labels, intercept=b))
    assert rates.shape == (2, 2)
    for e in range(2):
        group = rng.choice(3, size=size, p=shares[e])
        x = means[e, group] + rng.normal(size=(size, 4)) @ root.T
        wrong = np.sign(x @ w.T + b) != labels[group][:, None]
        deviation = np.sqrt(rates[:, e] * (1 - rates[:, e]) / size)
        assert (np.abs(wrong.mean(0) - rates[:, e]) < 4.5 * deviation).all()


def test_error_rates_without_spread_or_prediction() -> None:
    halves, labels = np.full((1, 2), 0.5), np.array([1.0, -1.0])
    means = np.array([[[1.0], [2.0]]])
    args = (halves, means, np.zeros((1, 1)), labels)
    assert mixtures.error_rates(np.ones(1), *args)[0] == 0.5  # the second group is wrong
    assert mixtures.error_rates(np.zeros(1), *args)[0] == 0.5


def test_the_exact_values_of_the_unit_tests() -> None:
    rng, size = np.random.default_rng(2), 200_000
    x = 0.1 + 0.1 * rng.normal(size=(size, 5))
    expected = float(mixtures.bayes_error(5.0))
    assert expected == pytest.approx(stats.norm.cdf(-np.sqrt(5)), rel=1e-5)
    wrong = (x.sum(1) < 0).mean()
    assert abs(wrong - expected) < 4.5 * (expected * (1 - expected) / size) ** 0.5
    p, s = 0.95, 0.3
    foreground = np.where(rng.random(size) < s, 1, -1)
    background = foreground * np.where(rng.random(size) < p, 1, -1)
    expected = float(mixtures.permuted_error(p, s))
    wrong = (rng.permutation(background) != foreground).mean()
    assert abs(wrong - expected) < 4.5 * (expected * (1 - expected) / size) ** 0.5


def test_they_compile() -> None:
    means = drawn_means(5, 5)
    eager = certificate(means)
    compiled = jax.jit(jax.vmap(environments_needed.certificate))(means)
    np.testing.assert_allclose(eager.gain, compiled.gain, rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="spurious_means must have the shape"):
        environments_needed.certificate(np.ones(3))
    with pytest.raises(ValueError, match="root must have the shape"):
        mixtures.error_rates(np.ones(1), *map(np.ones, ((1, 1), (1, 1, 1), 1, 1)))
    with pytest.raises(ValueError, match="agreement must be a finite number"):
        mixtures.permuted_error(1.5, 0.3)

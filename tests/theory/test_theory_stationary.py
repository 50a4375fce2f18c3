"""Growth, the stationary state and the error against simulation and reference values."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import theory
from support.cases import few
from support.theory import BATCH, FAMILIES, simulate

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_growth_time_counts_the_steps_of_the_map():
    eta, scale = 0.02, 1e-4
    for eigenvalue in (0.5, 2.0):
        u, steps = scale, 0
        # For small steps u^2 is at half its level after exactly this time.
        while u * u < eigenvalue / 2:
            u, steps = (1 + eta * (eigenvalue - u * u)) * u, steps + 1
        time = float(theory.growth_time(eigenvalue, learning_rate=eta, init_scale=scale))
        assert steps == pytest.approx(time, rel=0.01)
    assert theory.growth_time(1.0, learning_rate=0.1, init_scale=2.0) == 0


@pytest.mark.parametrize(
    ("family", "fraction", "tolerance"),
    [
        ("two_point", 0.5, 0.03),
        ("two_point", 0.85, 0.06),
        ("uniform", 0.8, 0.06),
        ("gaussian", 0.8, 0.06),
    ],
)
def test_stationary_moments_match_simulation(family: str, fraction: float, tolerance: float):
    # eta mu = 0.01: the first-order formulas are off by up to 3 %; the standard error is below 2 %.
    eta, mu, chains, steps = 0.02, 0.5, 2000, 8000
    spread = fraction * float(theory.critical_spread(eta, mu, family))
    rng = np.random.default_rng(4)
    draws = {
        "two_point": lambda: rng.choice([-1.0, 1.0], chains),
        "uniform": lambda: rng.uniform(-1, 1, chains),
        "gaussian": lambda: rng.standard_normal(chains),
    }
    start = np.full(chains, math.sqrt(mu * (1 - fraction**2)))
    _, *moments = simulate(eta, lambda _: 1 + eta * (mu + spread * draws[family]()), start, steps)
    predicted = theory.stationary_spurious_moments(eta, mu, spread, family)
    for observed, value in zip(moments, predicted, strict=True):
        assert observed.mean() == pytest.approx(float(value), rel=tolerance)


def test_stationary_moments_vanish_beyond_the_transition():
    moments = theory.stationary_spurious_moments(0.1, 1.0, jnp.array([0.0, 4.0, 5.0, 8.0]))
    assert (np.asarray(moments)[:, :2] > 0).all()
    np.testing.assert_array_equal(np.asarray(moments)[:, 2:], 0)
    # Pooled training: u^2 settles at mu, to first order in eta mu.
    np.testing.assert_allclose(moments.second[0], 1.0, rtol=0.05)


def test_error_floor_matches_reference_values():
    batch = {**BATCH, "batch_size": jnp.array([500, 1000, 2000, 4000])}
    floor = theory.error_floor(6.0, learning_rate=0.1, **batch)
    np.testing.assert_allclose(floor, [0.465, 0.329, 0.232, 0.164], atol=5.1e-4)


def test_error_floor_scales():
    base = theory.error_floor(6.0, learning_rate=0.1, **BATCH)
    shifted = theory.error_floor(
        12.0, learning_rate=0.2, invariant_eigenvalue=4.5, **{**BATCH, "dim": 120}
    )
    np.testing.assert_allclose(shifted / base, 2 * math.sqrt(2 * 4.5 * 4), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_error_joins_floor_and_remainder(family: str):
    eta, mu = 0.05, 1.0
    batch = {**BATCH, "spurious_rank": 3}
    spread = theory.critical_spread(eta, mu, family) * jnp.array([0.0, 0.7, 1.3])
    error = theory.expected_error(spread, learning_rate=eta, mean=mu, family=family, **batch)
    second, fourth = theory.stationary_spurious_moments(eta, mu, spread, family)
    variance = spread**2 / (3 if family == "uniform" else 1)
    residual = jnp.sqrt(variance + mu**2 - 2 * mu * second + fourth)
    floor = theory.error_floor(residual, learning_rate=eta, **batch)
    np.testing.assert_allclose(
        error, np.sqrt(np.asarray(floor) ** 2 + 3 * np.asarray(fourth)), rtol=1e-5
    )
    # Beyond the transition the residual has all of E s^2.
    rejected = np.hypot(np.sqrt(variance[2]), mu)
    np.testing.assert_allclose(
        error[2], theory.error_floor(rejected, learning_rate=eta, **batch), rtol=1e-5
    )


@pytest.mark.parametrize("family", few(["two_point", "gaussian"], {"two_point"}))  # as uniform
def test_optimal_spread_is_the_global_minimum(family: str):
    eta, mu = 0.02, 0.5
    # At the batch size r1 d sigma*/mu the two ends of [0, M_c] have about the same error.
    switch = 2 * 30 / mu
    sizes = switch * np.array([0.4, 0.7, 1.4, 3.0, 30.0])
    critical = float(theory.critical_spread(eta, mu, family))
    numbers = {**BATCH, "batch_size": sizes, "learning_rate": eta, "mean": mu, "family": family}
    best = np.asarray(theory.optimal_spread(**numbers))
    np.testing.assert_array_equal(best[:2], 0)
    np.testing.assert_allclose(best[2:], critical, rtol=1e-4)
    grid = np.linspace(0, 2 * critical, 401)[:, None]
    scanned = np.asarray(
        theory.expected_error(
            np.concatenate([np.broadcast_to(grid, (401, 5)), best[None]]), **numbers
        )
    )
    assert (scanned[-1] <= scanned.min(0) * (1 + 1e-4)).all()


def test_optimal_spread_without_a_transition():
    numbers = {**BATCH, "learning_rate": 0.1}
    assert theory.optimal_spread(mean=-1.0, **{**numbers, "batch_size": 1000}) == 0
    # Uniform eigenvalues have no M_c at eta mu = 0.6: a smooth minimum, off the 3 % grid.
    numbers |= {
        "batch_size": np.array([60.0, 100.0, 400.0, 1000.0]),
        "mean": 6.0,
        "family": "uniform",
    }
    best = np.asarray(theory.optimal_spread(**numbers))
    around = np.linspace(0.97, 1.03, 201)[:, None] * best
    errors = np.asarray(theory.expected_error(around, **numbers))
    np.testing.assert_allclose(errors[100], errors.min(0), rtol=5e-7)


def test_label_noise_counts_as_the_norm_of_a_residual():
    base = theory.error_floor(6.0, learning_rate=0.1, **BATCH)
    np.testing.assert_allclose(
        theory.error_floor(6.0, learning_rate=0.1, label_noise=8.0, **BATCH) / base,
        10 / 6,
        rtol=1e-5,
    )
    # A smaller batch or a larger residual gives the same gradient noise.
    settings = {"rank": 30, "learning_rate": 0.1}
    noisy = theory.complement_power(3.0, label_noise=math.sqrt(27.0), **settings, **BATCH)
    np.testing.assert_allclose(noisy, theory.complement_power(6.0, **settings, **BATCH), rtol=1e-5)
    np.testing.assert_allclose(
        noisy, theory.complement_power(3.0, **settings, **{**BATCH, "batch_size": 125}), rtol=1e-5
    )


def test_complement_power_matches_products_of_random_matrices():
    # w <- w - eta (G + w w') w for columns w [n, q], n = 24, q = 3: the dynamics without U* and V.
    n, eta, variance, chains, steps = 24, 0.1, 0.05, 24, 2500
    rng = np.random.default_rng(1)
    w = 0.05 * rng.standard_normal((chains, n, 3))
    powers = []
    for step in range(steps):
        half = rng.standard_normal((chains, n, n)) * math.sqrt(variance / 2)
        w = w - eta * ((half + half.swapaxes(1, 2)) @ w + w @ (w.swapaxes(1, 2) @ w))
        if step >= steps // 3:
            powers.append((w**2).sum((1, 2)).mean())
    settings = {
        "learning_rate": eta,
        "invariant_rank": 1,
        "spurious_rank": 1,
        "dim": n + 2,
        "batch_size": 10,
    }
    spread = math.sqrt(20 * variance)
    driven, total = (
        float(theory.complement_power(spread, rank=rank, **settings)) for rank in (1, 4)
    )
    # The standard error is about 2 %, like the next order.
    assert np.mean(powers) == pytest.approx(total - driven, rel=0.06)


def test_finite_data_error_is_the_positive_part_of_a_perturbed_signal():
    d, rank, variance = 60, 2, 1e-4
    rng = np.random.default_rng(2)
    signal = np.diag(np.arange(d) < rank).astype(float)
    half = rng.standard_normal((32, d, d)) * math.sqrt(variance / 2)
    values, vectors = np.linalg.eigh(signal + half + half.swapaxes(1, 2))
    positive = (vectors * np.maximum(values, 0)[:, None, :]) @ vectors.swapaxes(1, 2)
    squared = ((positive - signal) ** 2).sum((1, 2)).mean()
    settings = {
        "num_environments": 2,
        "dim": d,
        "invariant_rank": rank,
        "spurious_rank": 1,
        "label_noise": 8.0,
    }
    error = float(theory.finite_data_error(6.0, num_examples=100 / (4 * variance), **settings))
    assert error**2 == pytest.approx(squared, rel=0.05)


def test_complement_power_is_stationary_for_driven_and_for_spare_columns():
    """One spare column w <- w - eta (G + w w') w: its square is a product of random factors.

    Within 2 %: 20,000 runs give a standard error of 0.3 %, and second order in eta v n is 1 %.
    """
    eta, outside, level = 1.0, 24, 0.01  # eta v n
    variance = level / outside / eta
    settings = {
        "learning_rate": eta,
        "batch_size": 6.0**2 / (2 * variance),
        "dim": outside + 2,
        "invariant_rank": 1,
        "spurious_rank": 1,
        "invariant_eigenvalue": 0.5,
    }
    driven, both = (float(theory.complement_power(6.0, rank=k, **settings)) for k in (1, 2))
    noise = eta**2 * variance * 0.5 * sum((1 - eta * 0.5) ** (2 * k) for k in range(60))
    assert driven == pytest.approx(outside * noise, rel=1e-4)
    rng = np.random.default_rng(0)
    square = np.full(20_000, eta * variance * outside / 4)
    for _ in range(500):
        along = 1 - eta * square - eta * np.sqrt(2 * variance) * rng.normal(size=square.size)
        across = eta**2 * variance * rng.chisquare(outside - 1, square.size)
        square = square * (along**2 + across)
    assert both - driven == pytest.approx(square.mean(), rel=0.02)

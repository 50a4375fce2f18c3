"""Spare columns against the maps of scalars and matrices in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, special

from causal_sgd import theory

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def unbalanced(eta: float, f: float, g: float, steps: int) -> np.ndarray:
    """f g [steps + 1] of the scalar map of U V' with target zero."""
    products = [f * g]
    for _ in range(steps):
        f, g = f - eta / 2 * f * g * g, g - eta / 2 * f * g * f
        products.append(f * g)
    return np.array(products)


@pytest.mark.parametrize("eta", [0.02, 0.1])
@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
def test_spare_columns_follow_the_scalar_map(eta: float, alpha: float) -> None:
    u, levels = alpha, [alpha]
    for _ in range(3000):
        u -= eta * u**3
        levels.append(u)
    steps = np.array([1, 10, 100, 3000])
    error = theory.overspecified_error(
        steps, learning_rate=eta, rank=7, invariant_rank=3, init_scale=alpha
    )
    np.testing.assert_allclose(error, 2 * np.array(levels)[steps] ** 2, rtol=0.007)
    none = theory.overspecified_error(
        10, learning_rate=eta, rank=3, invariant_rank=np.array([3, 4]), init_scale=alpha
    )
    np.testing.assert_array_equal(none, 0)


@pytest.mark.parametrize("columns", [3, 4, 7])
def test_spare_columns_of_a_matrix_have_the_constant(columns: int) -> None:
    """|U U' - A| 2 eta t / sqrt(k - r) tends to one from any start."""
    rng = np.random.default_rng(0)
    target = np.diag([1.0, 1.0, *np.zeros(8)])
    u = 0.5 * rng.standard_normal((10, columns))
    for _ in range(16_000):
        u = u - 0.1 * (u @ u.T - target) @ u
    error = np.linalg.norm(u @ u.T - target)
    expected = theory.overspecified_error(
        16_000, learning_rate=0.1, rank=columns, invariant_rank=2, init_scale=0.5
    )
    assert error == pytest.approx(float(expected), rel=0.015)


@pytest.mark.parametrize(("f", "g"), [(0.9, 0.56), (0.7, 0.699), (0.8, 0.01), (0.3, 0.3)])
@pytest.mark.parametrize("eta", [0.05, 0.15])
def test_the_product_of_two_factors_follows_their_map(eta: float, f: float, g: float) -> None:
    products = unbalanced(eta, f, g, 600)
    steps = np.flatnonzero(products > 1e-4 * f * g)[1:]
    result = theory.unbalanced_error(
        steps, learning_rate=eta, product=f * g, imbalance=abs(f * f - g * g)
    )
    np.testing.assert_allclose(result, products[steps], rtol=0.02)


def test_without_imbalance_the_product_is_a_square() -> None:
    """At twice the learning rate it is u^2 of a spare column of U U'."""
    steps = np.array([1.0, 30.0, 1e3, 1e5])
    product = theory.unbalanced_error(steps, learning_rate=0.2, product=0.25, imbalance=0.0)
    square = theory.overspecified_error(
        steps, learning_rate=0.1, rank=2, invariant_rank=1, init_scale=0.5
    )
    np.testing.assert_allclose(product, square, rtol=0.003)
    far = theory.unbalanced_error(1e6, learning_rate=0.2, product=0.25, imbalance=1.0)
    assert far == 0


def test_two_factors_converge_at_the_rate_of_the_survivors() -> None:
    """Plain gradient descent of U V' with two spare columns, in double precision."""
    rng, eta = np.random.default_rng(1), 0.1
    target = np.diag([1.0, 1.0, *np.zeros(6)])
    f, g = 0.3 * rng.standard_normal((2, 8, 4))
    errors = []
    for _ in range(6000):
        residual = f @ g.T - target
        errors.append(np.linalg.norm(residual))
        f, g = f - eta / 2 * residual @ g, g - eta / 2 * residual.T @ f
    spare = np.concatenate([np.linalg.svd(m, compute_uv=False)[2:] for m in (f, g)])
    rate = theory.overspecified_rate(np.sort(spare)[-2:], learning_rate=eta)
    above = np.flatnonzero(np.array(errors) > 1e-9)[-1]
    window = slice(above // 2, above)
    slope = -np.polyfit(np.arange(window.start, window.stop), np.log(errors[window]), 1)[0]
    assert slope == pytest.approx(float(rate), rel=0.005)


def test_the_floor_is_the_ratio_of_two_bessel_functions() -> None:
    eta, spread = 0.2, np.array([[0.05], [0.5], [2.0]])
    imbalance = np.array([0.01, 0.3, 2.0])
    noise = eta * spread**2
    kappa = imbalance / noise
    ratio = special.kve(1, kappa) / special.kve(0, kappa)
    expected = np.sqrt(noise * imbalance / 4 * ratio)
    result = theory.unbalanced_floor(eta, spread, imbalance)
    np.testing.assert_allclose(result, expected, rtol=1e-3)
    density = lambda y, power: np.sinh(y) ** power * np.exp(-kappa[1, 1] * np.cosh(y))  # noqa: E731
    moments = [integrate.quad(density, -8, 8, args=(power,))[0] for power in (0, 2)]
    exact = imbalance[1] / 2 * np.sqrt(moments[1] / moments[0])
    assert float(result[1, 1]) == pytest.approx(exact, rel=1e-3)
    zeros = theory.unbalanced_floor(0.2, np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    np.testing.assert_array_equal(zeros, 0)


def test_the_scalar_map_fluctuates_at_the_floor() -> None:
    """4000 runs in 12 frames, whose standard error is below 0.5 %; the imbalance falls by 1 %."""
    rng, eta, spread, squares = np.random.default_rng(0), 0.1, 0.3, []
    f, g = np.full((2, 4000), [[0.8], [0.4]])
    for step in range(1, 501):
        r = f * g - spread * rng.choice([-1, 1], f.size)
        f, g = f - eta / 2 * r * g, g - eta / 2 * r * f
        if step >= 250 and step % 25 == 0:
            squares.append((f * g) ** 2)
    imbalance = np.abs(f * f - g * g).mean()
    floor = theory.unbalanced_floor(eta, spread, imbalance)
    assert np.sqrt(np.mean(squares)) == pytest.approx(float(floor), rel=0.03)


def test_heterogeneity_slows_below_the_balancing_spread_and_not_above() -> None:
    spread = float(theory.balancing_spread(0.2, 0.5))
    pooled = 0.2 * 0.5 / 2
    slow, fast = (
        -float(theory.stability.balance_exponent(0.2, 0, c * spread)) for c in (0.95, 1.05)
    )
    assert slow < pooled < fast


def test_bad_arguments_of_spare_columns_are_named() -> None:
    with pytest.raises(ValueError, match=r"spare must have a last axis of singular values"):
        theory.overspecified_rate(1.0, learning_rate=0.1)
    with pytest.raises(ValueError, match="imbalance must be a finite number at least 0, got -1"):
        theory.balancing_spread(0.1, -1.0)
    with pytest.raises(ValueError, match="product must be a finite number above 0, got 0"):
        theory.unbalanced_error(1, learning_rate=0.1, product=0, imbalance=1)
    with pytest.raises(ValueError, match="rank must be"):
        theory.overspecified_error(1, learning_rate=0.1, rank=0, invariant_rank=1, init_scale=1)

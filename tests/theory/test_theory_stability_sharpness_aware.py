"""Sharpness-aware steps against plain iterations in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate

from causal_sgd.theory import stability


def step(
    w: np.ndarray, eta: float, rho: float, gradient: Callable[..., np.ndarray], *own: np.ndarray
) -> np.ndarray:
    """One step of SAM from w [..., n]."""
    g = gradient(w, *own)
    return w - eta * gradient(w + rho * g / np.linalg.norm(g, axis=-1, keepdims=True), *own)


@pytest.mark.parametrize(("eta", "rho"), [(0.1, 0.1), (0.3, 0.02), (0.9, 0.5)])
def test_the_sharpest_direction_oscillates_at_the_edge(eta: float, rho: float) -> None:
    curvature = np.array([2.0, 1.5, 0.4])
    w = np.array([0.3, -1.0, 0.7])
    for _ in range(4000):
        w = step(w, eta, rho, lambda w: curvature * w)
    np.testing.assert_allclose(np.abs(w[0]), stability.sam_amplitude(eta, rho, 2.0), rtol=1e-5)
    assert np.abs(w[1:]).max() < 1e-12
    norm = np.linalg.norm(curvature * w)
    np.testing.assert_allclose(stability.sam_edge(eta, rho, norm), 2.0, rtol=1e-5)
    np.testing.assert_allclose(step(w, eta, rho, lambda w: curvature * w), -w, atol=1e-12)


def test_the_ends_of_the_edge_and_the_amplitude() -> None:
    assert stability.sam_edge(0.1, 0.0, 0.0) == pytest.approx(20)
    assert stability.sam_edge(0.1, 0.5, 0.0) == 0
    assert stability.sam_edge(0.1, 1e-9, 3.0) == pytest.approx(20)
    assert stability.sam_amplitude(1.0, 0.1, 2.0) == np.inf
    assert stability.sam_balance_exponent(1.0, 0.1, 2.5) == -np.inf
    assert np.isnan(stability.sam_exponent(1.0, 1.0, 1.0, 2.0))
    assert stability.sam_floor(0.1, 0.1, 0.0, 0.0) == 0


@pytest.mark.parametrize(("eta", "s"), [(0.1, 1.0), (0.3, 2.0), (0.5, 1.0)])
def test_the_third_order_of_a_factor(eta: float, s: float) -> None:
    rho = 0.01
    u, path = np.array([s**0.5 + 1e-3]), []
    for _ in range(3000):
        u = step(u, eta, rho, lambda u: (u * u - s) * u)
        path.append(u[0])
    low, high = sorted(path[-2:])
    amplitude = float(stability.sam_amplitude(eta, rho, 2 * s))
    share = 4 * rho**2 / (s * (1 - eta * s) ** 3)
    assert (high - low) / 2 / amplitude == pytest.approx(1 - share, abs=0.1 * share)
    below = 1.5 * (rho / (1 - eta * s)) ** 2 / s**0.5
    assert s**0.5 - (high + low) / 2 == pytest.approx(below, rel=0.02)


@pytest.mark.parametrize(("eta", "start"), [(0.2, 3.0), (0.5, 2.5)])
def test_the_valley_flattens(eta: float, start: float) -> None:
    """U V' with 3 columns on f = 1."""
    rho, f, path = 0.05, 1.0, []
    rng = np.random.default_rng(0)
    # u = (a, 0, 0) + w and v = (b, 0, 0) + w' with u'v = 1 and |u|^2 + |v|^2 = 2 start
    first = (start + (start**2 - f**2) ** 0.5) ** 0.5
    w = np.zeros((2, 3))
    w[:, 0] = first, f / first
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    w = (w @ rotation).ravel() + 1e-3 * rng.normal(size=6)

    def gradient(w: np.ndarray) -> np.ndarray:
        u, v = w.reshape(2, 3)
        return (u @ v - f) / 2 * np.concatenate([v, u])

    for _ in range(200):
        u, v = w.reshape(2, 3)
        exponent = float(stability.sam_balance_exponent(eta, rho, (w @ w) / 2))
        path.append((np.log(np.abs(u @ u - v @ v)), exponent))
        w = step(w, eta, rho, gradient)
    logs, exponents = np.array(path).T
    assert logs[-1] - logs[50] == pytest.approx(exponents[50:-1].sum(), rel=0.01)


@pytest.mark.parametrize(("mean", "spread"), [(0.2, 1.0), (0.2, 2.5), (1.0, 0.5), (0.5, 3.0)])
def test_a_small_direction_beside_a_learned_one(mean: float, spread: float) -> None:
    eta, rho, size = 0.1, 1e-5, 20_000
    rng = np.random.default_rng(1)

    def gradient(w: np.ndarray, s: np.ndarray) -> np.ndarray:
        return np.stack([(w[:, 0] ** 2 - 1) * w[:, 0], (w[:, 1] ** 2 - s) * w[:, 1]], 1)

    amplitude = float(stability.sam_amplitude(eta, rho, 2.0))
    w = np.tile([1 + amplitude, 1e-60], (size, 1))
    for _ in range(30):
        signs = rng.choice([-1.0, 1.0], size)
        w = step(w, eta, rho, gradient, mean + spread * signs)
    growth = np.log(np.abs(w[:, 1]) / 1e-60) / 30
    error = growth.std() / size**0.5
    expected = float(stability.sam_exponent(eta, mean, spread, 2.0))
    assert abs(growth.mean() - expected) < 4 * error + 1e-6


def test_the_exponent_is_a_mean_logarithm() -> None:
    eta, mean, spread, curvature = 0.2, 0.3, 1.7, 1.5

    def log(s: float) -> float:
        return np.log(abs(1 + eta * s - (2 - eta * curvature) * (s / curvature) ** 2))

    expected = (log(mean + spread) + log(mean - spread)) / 2
    assert float(stability.sam_exponent(eta, mean, spread, curvature)) == pytest.approx(
        expected, abs=1e-5
    )
    ends = mean - spread, mean + spread
    integral, _ = integrate.quad(log, *ends, points=(-1.18, 1.40), limit=200)
    uniform = stability.sam_exponent(eta, mean, spread, curvature, "uniform")
    assert float(uniform) == pytest.approx(integral / (2 * spread), abs=1e-4)
    with pytest.raises(ValueError, match="family must be"):
        stability.sam_exponent(eta, mean, spread, curvature, "cauchy")


@pytest.mark.parametrize(("mean", "spread"), [(0.1, 2.0), (1.0, 2.6), (1.0, 0.62)])
def test_a_direction_alone_is_held_at_its_floor(mean: float, spread: float) -> None:
    eta, rho, size = 0.004, 0.01, 4000
    rng = np.random.default_rng(2)
    # Steps of two lengths keep the walk on a lattice for long: starts are spread over it.
    v, total, frames = eta * rho * rng.uniform(0, 2, (size, 1)), [], 600
    for time in range(frames):
        signs = rng.choice([-1.0, 1.0], (size, 1))
        v = step(v, eta, rho, lambda v, s: (v * v - s) * v, mean + spread * signs)
        if time >= 100:
            total.append(np.mean(v**2))
    expected = float(stability.sam_floor(eta, rho, mean, spread))
    # The remainder is 2 eta mu and of order (eta M)^2; 2e6 draws, correlated over a few steps.
    assert np.mean(total) == pytest.approx(expected, rel=0.02)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="radius must be"):
        stability.sam_edge(0.1, -1.0, 1.0)
    with pytest.raises(ValueError, match="gradient_norm must be"):
        stability.sam_edge(0.1, 1.0, -1.0)
    with pytest.raises(ValueError, match="curvature must be"):
        stability.sam_amplitude(0.1, 1.0, 0.0)

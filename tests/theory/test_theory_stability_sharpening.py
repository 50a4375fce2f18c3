"""The end of progressive sharpening, and its loss under environments, against plain iterations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import lambertw

from causal_sgd.theory import stability


def iterate(
    u: np.ndarray, v: np.ndarray, eta: float, y: float, ratio: float, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sharpness after steps on (u^2 - eps v^2 - y)^2/4, its peak and the residual."""
    peak = np.zeros_like(u)
    for _ in range(steps):
        r = u * u - ratio * v * v - y
        u, v = u - eta * r * u, v + eta * ratio * r * v
        peak = np.maximum(peak, 2 * (u * u + ratio**2 * v * v))
    return 2 * (u * u + ratio**2 * v * v), peak, u * u - ratio * v * v - y


@pytest.mark.parametrize(("eta", "y"), [(1.0, 0.0), (0.5, 1.0)])
def test_the_oscillation_ends_below_the_edge(eta: float, y: float) -> None:
    multiples = np.array([1.0, 2.0, 5.0])
    shares = []
    for ratio in (0.04, 0.02):
        scale = ratio * (1 - eta * y) / 2
        overshoot = multiples * scale
        slow = (2 + overshoot - 2 * eta * y) / (1 + ratio)
        z = 2e-4  # of the residual in units of 1/eta
        u = np.sqrt((2 * (eta * y + z) + slow) / (2 * eta))
        v = np.sqrt(slow / (2 * eta * ratio))
        found, *_ = iterate(u, v, eta, y, ratio, int(300 / ratio))
        law = np.asarray(stability.sharpening_end(eta, y, ratio, overshoot), float)
        shares.append((2 - eta * found) / (2 - eta * law))
    assert np.all(np.abs(shares[1] - 1) < 2.2 * 0.02)
    # The remainder is linear in eps.
    np.testing.assert_allclose(2 * shares[1] - shares[0], 1, atol=0.006)


def test_a_large_overshoot_is_forgotten() -> None:
    ratio, rng = 0.05, np.random.default_rng(0)
    u, v = rng.normal(size=400) / 2**0.5, rng.normal(size=400) / ratio**0.5
    with np.errstate(over="ignore", invalid="ignore"):
        found, peak, rest = iterate(u, v, 1.0, 0.0, ratio, 6000)
    crossed = (np.abs(rest) < 1e-6) & (peak > 2) & (2 * (u * u + ratio**2 * v * v) < 2)
    assert crossed.sum() > 30
    low, middle, high = np.quantile(found[crossed], (0.25, 0.5, 0.75))
    deficit = 2 - float(stability.sharpening_end(1.0, 0.0, ratio))
    assert high - low < 0.01 * deficit
    assert (2 - middle) / deficit == pytest.approx(1 + 1.8 * ratio, abs=0.01)


def test_the_reflected_overshoot_is_a_lambert_function() -> None:
    x = np.array([1e-2, 0.1, 1.0, 3.0, 10.0, 1e3])
    ratio, y = 0.1, 0.3
    scale = ratio * (1 - y) / 2
    expected = -1 - lambertw(-(1 + x) * np.exp(-(1 + x)), 0).real
    found = np.asarray(stability.sharpening_end(1.0, y, ratio, x * scale), float)
    np.testing.assert_allclose((found - 2) / scale, expected, atol=2e-5)
    unlimited = float(stability.sharpening_end(2.0, y / 2, ratio))
    assert 2 * unlimited == pytest.approx(2 - scale)
    assert np.isnan(stability.sharpening_end(1.0, 1.2, ratio))


@pytest.mark.parametrize(("ratio", "spread", "y"), [(1.0, 0.02, 0.5), (0.2, 0.04, 0.0)])
def test_environments_flatten_in_the_predicted_time(ratio: float, spread: float, y: float) -> None:
    eta, size = 0.5, 500
    rng = np.random.default_rng(0)
    start, end = 1.5, 1.15  # eta S
    slow = (1.6 - 2 * y) / (1 + ratio)
    u = np.full(size, np.sqrt((2 * y + slow) / (2 * eta)))
    v = np.full(size, np.sqrt(slow / (2 * eta * ratio)))
    ends = [(value - 2 * y) / (1 + ratio) for value in (start, end)]
    times: list[int] = []
    for step in range(5000):
        level = np.exp(np.mean(np.log(2 * eta * ratio * v * v)))
        if level < ends[len(times)]:
            times.append(step)
            if len(times) == 2:
                break
        r = u * u - ratio * v * v - (y + spread * rng.choice([-1.0, 1.0], size)) / eta
        u, v = u - eta * r * u, v + eta * ratio * r * v
    expected = stability.flattening_time(start / eta, end / eta, eta, y / eta, ratio, spread / eta)
    assert times[1] - times[0] == pytest.approx(float(expected), rel=0.03)


def test_the_time_needs_an_order_and_a_spread() -> None:
    assert stability.flattening_time(1.6, 1.2, 1.0, 0.5, 0.1, 0.0) == np.inf
    for start, end in ((1.2, 1.6), (2.1, 1.5), (1.5, 0.9)):
        assert np.isnan(stability.flattening_time(start, end, 1.0, 0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="ratio must be"):
        stability.sharpening_end(1.0, 0.0, -0.1)
    with pytest.raises(ValueError, match="overshoot must be"):
        stability.sharpening_end(1.0, 0.0, 0.1, 0.0)

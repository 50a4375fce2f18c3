"""Times of learning against the scalar maps, quadrature and roots in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize

from causal_sgd import theory

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def arrival(depth: float, eta: float, s: float, alpha: float, share: float) -> float:
    """The fractional step at which the scalar map reaches a share of s."""
    w, before, steps = alpha, alpha, 0
    while w**depth < share * s:
        before, w, steps = w, w + eta / 2 * (s - w**depth) * w ** (depth - 1), steps + 1
    return steps - 1 + (share * s - before**depth) / (w**depth - before**depth)


def flow_time(depth: float, s: float, alpha: float, share: float) -> float:
    """eta t of gradient flow by quadrature in log z."""
    ends = np.log(alpha / s ** (1 / depth)), np.log(share) / depth
    rate = lambda x: np.exp((2 - depth) * x) / -np.expm1(depth * x)  # noqa: E731
    return 2 * s ** (2 / depth - 2) * integrate.quad(rate, *ends, limit=400)[0]


@pytest.mark.parametrize(
    ("depth", "alpha"), [(2, 1e-6), (3, 0.02), (3, 0.2), (4, 0.1), (2.5, 1e-3)]
)
def test_the_scalar_map_arrives_on_time(depth: float, alpha: float) -> None:
    eta, eigenvalues, shares = 0.2, np.array([[1.0], [1.7]]), np.array([0.1, 0.5, 0.9])
    expected = [[arrival(depth, eta, s, alpha, f) for f in shares] for (s,) in eigenvalues]
    times = theory.incremental_times(
        eigenvalues, learning_rate=eta, init_scale=alpha, depth=depth, share=shares
    )
    np.testing.assert_allclose(times, expected, rtol=2e-5, atol=0.3)


@pytest.mark.parametrize("depth", [2.0, 2.2, 3.0, 4.0, 7.0])
def test_times_of_small_steps_are_those_of_flow(depth: float) -> None:
    eta, shares = 1e-4, np.array([0.05, 0.5, 0.99, 0.999])
    times = theory.incremental_times(
        1.3, learning_rate=eta, init_scale=0.2, depth=depth, share=shares
    )
    expected = [flow_time(depth, 1.3, 0.2, share) / eta for share in shares]
    np.testing.assert_allclose(times, expected, rtol=2e-4)


def test_the_closed_forms_of_depths_two_to_four() -> None:
    """Of the module's docstring, with the constants that cancel."""
    z, start = np.array([0.3, 0.7, 0.99]), 0.1
    forms = {
        2: lambda z: np.log(z) - np.log(1 - z**2) / 2,
        3: lambda z: (
            -1 / z
            - np.log(1 - z) / 3
            + np.log(1 + z + z**2) / 6
            - np.arctan((2 * z + 1) / 3**0.5) / 3**0.5
        ),
        4: lambda z: -1 / (2 * z**2) + np.log((1 + z**2) / (1 - z**2)) / 4,
    }
    for depth, form in forms.items():
        times = theory.incremental_times(
            1.0, learning_rate=1e-3, init_scale=start, depth=depth, share=z**depth
        )
        np.testing.assert_allclose(times, 2e3 * (form(z) - form(start)), rtol=2e-3)


def test_starts_above_the_share_and_shares_of_one() -> None:
    options = {"learning_rate": 0.1, "init_scale": 0.9}
    assert theory.incremental_times(1.0, share=0.5, **options) == 0
    assert theory.incremental_times(1.0, share=1.0, **options) == np.inf
    assert theory.incremental_level(5.0, 0.5, **options) == pytest.approx(0.81)


@pytest.mark.parametrize(("depth", "alpha"), [(2, 1e-4), (3, 0.05), (4, 0.15)])
def test_levels_invert_times_and_follow_the_map(depth: int, alpha: float) -> None:
    eta, w, levels = 0.1, alpha, []
    for _ in range(1500):
        w = w + eta / 2 * (1.2 - w**depth) * w ** (depth - 1)
        levels.append(w**depth)
    steps = np.array([30, 150, 250, 400, 900, 1500])
    result = theory.incremental_level(steps, 1.2, learning_rate=eta, init_scale=alpha, depth=depth)
    np.testing.assert_allclose(result, np.array(levels)[steps - 1], rtol=0.02, atol=1e-5)
    times = theory.incremental_times(
        1.2, learning_rate=eta, init_scale=alpha, depth=depth, share=np.array(result) / 1.2
    )
    rising = np.asarray(result) < 0.99 * 1.2
    np.testing.assert_allclose(np.asarray(times)[rising], steps[rising], rtol=1e-3)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_scale_equates_two_times(depth: int) -> None:
    pairs = np.array([[1.0, 0.5, 0.9], [2.0, 1.6, 0.8], [1.0, 0.9, 0.7]])
    scales = theory.incremental_scale(pairs[:, 0], pairs[:, 1], depth=depth, share=pairs[:, 2])
    for scale, (high, low, share) in zip(scales, pairs, strict=True):

        def lead(log_alpha: float, high=high, low=low, share=share) -> float:
            alpha = np.exp(log_alpha)
            return flow_time(depth, low, alpha, 1 - share) - flow_time(depth, high, alpha, share)

        root = optimize.root_scalar(lead, bracket=(-30 / (depth - 1), np.log(0.1) / depth)).root
        assert float(scale) == pytest.approx(np.exp(root), rel=1e-3)


def test_only_two_factors_need_exponentially_small_scales() -> None:
    gaps, share = np.array([0.2, 0.1, 0.05]), np.full(3, 0.9)
    scales = {
        depth: np.asarray(
            theory.incremental_scale(np.ones(3), 1 - gaps, depth=depth, share=share), float
        )
        for depth in (2, 3, 4)
    }
    explicit = np.log(9) * (2 - gaps) - np.log(1 - gaps)
    np.testing.assert_allclose(-2 * np.log(scales[2]), explicit / gaps, rtol=1e-3)
    for depth in (3, 4):  # alpha^(2 - L) is proportional to 1 / gap up to a constant of order one
        inverse = scales[depth] ** (2 - depth) * gaps
        assert inverse.max() / inverse.min() < 1.25
    none = theory.incremental_scale(np.ones(3), np.array([1.0, 2.0, 1.5]), depth=3, share=share)
    np.testing.assert_array_equal(none, 0)


def test_growth_rates_are_equal_at_the_reversing_spread() -> None:
    eta, mu, level = 0.1, 1.5, 1.0
    spread = theory.reversing_spread(eta, mu, level)
    assert float(spread) == pytest.approx(np.sqrt(1.15**2 - 1.1**2) / 0.1, rel=1e-5)
    growth = theory.lyapunov_two_point(eta, mu, spread)
    assert float(growth) == pytest.approx(np.log(1.1), rel=1e-4)
    assert spread < theory.critical_spread(eta, mu)
    np.testing.assert_array_equal(theory.reversing_spread(eta, np.array([1.0, -1.0]), level), 0)


def test_the_share_of_invariant_directions_that_come_first() -> None:
    """20,000 random walks of the scalar map: a standard error of 0.0035."""
    rng, eta, mu, level = np.random.default_rng(0), 0.1, 1.5, 0.2
    spreads = np.array([[2.0], [3.0], [3.7], [4.5], [5.5]])
    u, w, time = np.full((5, 20_000), 1e-6), 1e-6, 0
    first = np.full(u.shape, np.inf)
    while w < level:
        time += 1
        w += eta * (1 - w * w) * w
        s = mu + spreads * (2 * rng.integers(0, 2, u.shape) - 1)
        u += eta * (s - u * u) * u
        first = np.where(np.isinf(first) & (u >= level), time, first)
    share = (first > time).mean(1) + (first == time).mean(1) / 2
    expected = theory.invariant_first(
        eta, mu, spreads[:, 0], eigenvalue=1.0, init_scale=1e-6, level=level
    )
    np.testing.assert_allclose(expected, share, atol=0.03)
    sure = theory.invariant_first(
        eta, np.array([1.5, 0.5]), 0.0, eigenvalue=1.0, init_scale=1e-6, level=level
    )
    np.testing.assert_allclose(sure, [0, 1], atol=1e-6)

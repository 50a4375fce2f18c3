"""Stopped weights, their times and errors, against integrals, differential equations and draws."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from causal_sgd.theory import single_index

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RATE, SCALE = 0.02, 0.01
OPTIONS = {"learning_rate": RATE, "init_scale": SCALE}


@pytest.mark.parametrize(
    ("link", "traced"),
    [(np.sin, jnp.sin), (np.sign, jnp.sign), (np.exp, jnp.exp), (lambda z: z**3, lambda z: z**3)],
)
def test_moments_of_links_are_integrals(link: Callable, traced: Callable) -> None:
    scales = np.array([0.5, 1.2])
    found = single_index.link_moments(traced, scales)
    for place, scale in enumerate(scales):
        terms = (
            lambda g, s=scale: link(s * g),
            lambda g, s=scale: link(s * g) * g / s,
            lambda g, s=scale: link(s * g) ** 2,
            lambda g, s=scale: link(s * g) ** 2 * g**2,
        )
        for values, term in zip(found, terms, strict=True):
            exact = sum(
                quad(lambda g, term=term: term(g) * norm.pdf(g), *ends)[0]
                for ends in ((-12, 0), (0, 12))
            )
            np.testing.assert_allclose(values[place], exact, rtol=2e-6, atol=1e-6)


def flow(signal: float, times: np.ndarray, rate: float) -> np.ndarray:
    """Weights u^2 - v^2 of the gradient flow at some times, integrated in log u and log v."""

    def slope(_: float, logs: np.ndarray) -> list[float]:
        beta = np.exp(2 * logs[0]) - np.exp(2 * logs[1])
        return [rate * (signal - beta), -rate * (signal - beta)]

    ends, start = (0, times[-1]), [np.log(SCALE)] * 2
    logs = solve_ivp(slope, ends, start, t_eval=times, rtol=1e-9, atol=1e-9).y
    return np.exp(2 * logs[0]) - np.exp(2 * logs[1])


@pytest.mark.parametrize("signal", [0.7, -0.05, 0.0003])
def test_stopped_weights_solve_their_equation(signal: float) -> None:
    """With the speed of finite steps, log(1 + eta b)/b, in place of the learning rate."""
    times = np.linspace(0, 2000, 21)
    speed = np.log1p(RATE * abs(signal)) / abs(signal)
    found = single_index.stopped_weights(times, signal, **OPTIONS)
    exact = flow(signal, times, speed)
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=2e-6 * abs(signal) + 1e-9)
    assert single_index.stopped_weights(100.0, 0.0, **OPTIONS) == 0


@pytest.mark.parametrize("signal", [0.9, 0.3, -0.1])
def test_descent_follows_the_curve_within_a_step(signal: float) -> None:
    rate = 0.1
    u = v = SCALE
    path = []
    for _ in range(1500):
        path.append(u**2 - v**2)
        beta = u**2 - v**2
        u, v = u * (1 - rate * (beta - signal)), v * (1 + rate * (beta - signal))
    curve = single_index.stopped_weights(
        np.arange(1500.0), signal, learning_rate=rate, init_scale=SCALE
    )
    assert np.abs(curve - np.array(path)).max() < rate * signal**2 / 2


def test_learning_times_invert_the_curve() -> None:
    signals, shares = np.array([0.8, 0.05, -0.2]), np.array([[0.5], [0.1], [0.9]])
    times = single_index.learning_time(signals, share=shares, **OPTIONS)
    reached = np.asarray(single_index.stopped_weights(times, signals, **OPTIONS))
    np.testing.assert_allclose(reached / signals, np.broadcast_to(shares, (3, 3)), rtol=1e-3)
    leading = np.log(np.abs(signals) / SCALE**2) / (2 * np.log1p(RATE * np.abs(signals)))
    np.testing.assert_allclose(times[0], leading, rtol=0.01)  # as the module's docstring has it
    assert np.isinf(single_index.learning_time(0.0, **OPTIONS))


def test_the_largest_noise_has_its_quantiles() -> None:
    rng = np.random.default_rng(0)
    largest = np.abs(rng.normal(size=(20_000, 50))).max(1) * np.sqrt(2.0 / 300)
    for share in (0.1, 0.5, 0.9):
        level = single_index.noise_level(50, 300, variance=2.0, share=share)
        below = (largest < float(level)).mean()
        assert abs(below - share) < 4.5 * np.sqrt(share * (1 - share) / 20_000)
    many = float(single_index.noise_level(1e6, 1.0))
    np.testing.assert_allclose(many, norm.isf((1 - 0.5**1e-6) / 2), rtol=1e-5)


def test_expected_errors_are_means_over_draws() -> None:
    rng = np.random.default_rng(1)
    signals, variances, n, k = np.array([0.6, -0.4]), np.array([1.5, 0.8]), 300, 40
    drawn = signals + rng.normal(size=(4000, 2)) * np.sqrt(variances / n)
    noise = rng.normal(size=(4000, k)) * np.sqrt(1.2 / n)
    times = np.array([0.0, 450.0, 800.0, 3000.0])
    expected = single_index.stopped_error(
        times,
        signals,
        variances=variances,
        noise_variance=1.2,
        num_noise=k,
        num_examples=n,
        **OPTIONS,
    )
    for time, mean in zip(times, np.asarray(expected), strict=True):
        of_support = np.asarray(single_index.stopped_weights(time, drawn, **OPTIONS)) - signals
        others = np.asarray(single_index.stopped_weights(time, noise, **OPTIONS))
        errors = (of_support**2).sum(1) + (others**2).sum(1)
        assert abs(errors.mean() - mean) < 4.5 * errors.std() / 4000**0.5 + 1e-4 * mean


def test_the_rejecting_learning_rate_is_the_root_of_the_exponent() -> None:
    high, low = np.array([1.5, 0.9, 0.5]), np.array([-1.0, -0.8, 0.2])
    rates = np.asarray(single_index.rejecting_learning_rate(high, low), float)
    exponent = np.log(1 + rates[:2] * high[:2]) + np.log(1 + rates[:2] * low[:2])
    np.testing.assert_allclose(exponent, 0, atol=1e-6)
    assert np.isinf(rates[2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: single_index.link_moments(3.0), "link must be a function"),  # pyright: ignore
        (lambda: single_index.link_moments(jnp.sum, np.ones(2)), "link must keep the shape"),
        (lambda: single_index.learning_time(0.5, learning_rate=-1, init_scale=1), "learning_rate"),
        (
            lambda: single_index.stopped_error(
                1.0,
                0.5,
                variances=1.0,
                noise_variance=1.0,
                num_noise=3.0,
                num_examples=10.0,
                **OPTIONS,
            ),
            r"signals and variances must have one shape \[s\]",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

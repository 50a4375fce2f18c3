"""Runs of finite length: the reflected walk against its limits and the simulated scalar map."""

from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd import theory

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def simulated(
    spread: float, *, rate: float, mean: float, steps: int, alpha: float, runs: int = 2000
) -> np.ndarray:
    """Final |u| of the two-point map."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (steps, runs))
    u = np.full(runs, alpha)
    for sign in signs:
        u = u * (1 + rate * (mean + spread * sign - u**2))
    return abs(u)


@pytest.mark.parametrize(
    ("alpha", "level", "steps"),
    [(1e-3, 0.1, 100), (1e-3, 0.1, 600), (1e-3, 0.1, 3000), (1e-9, 1e-4, 400)],
)
@pytest.mark.parametrize("spread", [3.0, 3.8, 4.4])
def test_the_share_that_rejects_is_that_of_the_simulated_map(
    alpha: float, level: float, steps: int, spread: float
) -> None:
    """The standard error is at most 0.011; the walk is accurate to about 0.05 at eta mu = 0.05."""
    rate, mean = 0.1, 0.5
    exact = float(
        np.mean(simulated(spread * 0.7, rate=rate, mean=mean, steps=steps, alpha=alpha) < level)
    )
    result = theory.finite_time_rejection(
        rate, mean, spread * 0.7, num_steps=steps, init_scale=alpha, level=level
    )
    assert float(result) == pytest.approx(exact, abs=0.06)


def test_half_of_the_free_walks_cross_the_level_where_the_drift_reaches_it() -> None:
    """A minute alpha and level keep the barrier out of reach."""
    numbers: dict[str, Any] = {"num_steps": 300.0, "init_scale": 1e-30, "level": 1e-25}
    apparent = theory.finite_time_critical_spread(0.1, 1.0, **numbers)
    drift = theory.lyapunov_two_point(0.1, 1.0, apparent)
    assert float(drift) * 300 == pytest.approx(np.log(1e5), rel=1e-3)
    same: dict[str, Any] = numbers | {"level": 1e-30}
    assert float(theory.finite_time_critical_spread(0.1, 1.0, **same)) == pytest.approx(
        float(theory.critical_spread(0.1, 1.0)), rel=1e-4
    )


def test_after_a_long_time_it_is_the_stationary_law_whatever_the_start() -> None:
    """Half of a Gamma law of shape lambda / v and scale v / eta lies below the level."""
    from scipy import stats

    rate, mean, level = 0.05, 1.0, 0.1
    spreads = [
        float(
            theory.finite_time_critical_spread(
                rate, mean, num_steps=1e7, init_scale=alpha, level=level
            )
        )
        for alpha in (1e-1, 1e-9)
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-5)
    assert spreads[0] < 0.95 * float(theory.critical_spread(rate, mean))
    shape = float(theory.lyapunov_two_point(rate, mean, spreads[0]))
    variance = float(theory.log_variance_two_point(rate, mean, spreads[0]))
    below = stats.gamma(shape / variance, scale=variance / rate).cdf(level**2)
    assert below == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name == "gaussian" else pytest.mark.slow)
        for name in theory.families
    ],
)
def test_every_family_tends_to_its_critical_spread_and_arguments_broadcast(family: str) -> None:
    rates = np.array([0.02, 0.05], np.float32)
    result = jax.jit(
        lambda alpha: theory.finite_time_critical_spread(
            rates,
            np.float32(1.0),
            num_steps=np.float32(300),
            init_scale=alpha,
            level=1e-20,
            family=family,
        )
    )(np.float32(1e-20))
    np.testing.assert_allclose(result, theory.critical_spread(rates, 1.0, family), rtol=0.01)
    critical = float(theory.critical_spread(0.05, 1.0, family))
    numbers: dict[str, Any] = {"num_steps": 500, "init_scale": 1e-3, "level": 0.1}
    rejections = [
        float(theory.finite_time_rejection(0.05, 1.0, spread, family=family, **numbers))
        for spread in np.linspace(0, 0.99, 8) * critical
    ]
    assert (np.diff(rejections) >= -1e-6).all()
    assert rejections[0] < 0.01


@pytest.mark.parametrize("family", ["uniform", "gaussian"])
def test_the_variance_of_the_logarithm_is_that_of_a_large_sample(family: str) -> None:
    rng = np.random.default_rng(0)
    draws = rng.uniform(-1, 1, 10**6) if family == "uniform" else rng.normal(size=10**6)
    spread = 0.7 * float(theory.critical_spread(0.1, 1.0, family))
    exact = np.var(np.log(abs(1 + 0.1 * (1 + spread * draws))))
    assert float(theory.log_variance(0.1, 1.0, spread, family)) == pytest.approx(exact, rel=0.04)


def test_no_spread_reaches_the_share_in_time() -> None:
    numbers: dict[str, Any] = {"init_scale": 0.5, "level": 1e-6, "num_steps": 3}
    assert np.isinf(float(theory.finite_time_critical_spread(0.1, 1.0, **numbers)))
    short: dict[str, Any] = {"init_scale": 1e-6, "level": 0.1, "num_steps": 3}
    assert float(theory.finite_time_critical_spread(0.1, 1.0, **short)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 0.0}, "level must be"),
        ({"num_steps": 0}, "num_steps must be"),
        ({"share": 1.5}, "share must be"),
        ({"init_scale": -1.0}, "init_scale must be"),
        ({"family": "unifrom"}, "did you mean 'uniform'"),
    ],
)
def test_bad_arguments_are_named(change: dict, message: str) -> None:
    numbers: dict[str, Any] = {"num_steps": 100, "init_scale": 1e-3, "level": 0.1} | change
    with pytest.raises(ValueError, match=message):
        theory.finite_time_critical_spread(0.1, 1.0, **numbers)

"""Formulas for small steps against simulations at random points, within the stated accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from causal_sgd import analysis, theory
from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import sweep
from support.theory import FAMILIES

pytestmark = pytest.mark.slow
DRIFTS = {0.01: 0.02, 0.03: 0.02, 0.1: 0.07}  # eta mu -> stated error of a probability
ERROR = {0.01: 0.03, 0.05: 0.12, 0.1: 0.27}  # eta mu -> stated relative error of a moment


def final(family: str, eta: float, mu: float, spread: float, steps: int, alpha: float):
    """Last |u| of the scalar map, and the time averages of u^2 and u^4 over its second half."""
    rng = np.random.default_rng(7)
    u, moments = np.full(4000, alpha), np.zeros(2)
    for step in range(steps):
        if family == "two_point":
            t = rng.choice([-1.0, 1.0], len(u))
        else:
            t = rng.uniform(-1, 1, len(u)) if family == "uniform" else rng.standard_normal(len(u))
        u = u * (1 + eta * (mu + spread * t) - eta * u * u)
        if step >= steps // 2:
            moments += np.mean(u**2), np.mean(u**4)
    return abs(u), moments / (steps - steps // 2)


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_of_rejection(family: str, drift: float) -> None:
    """The standard error of a simulated probability is at most 0.008."""
    rng = np.random.default_rng(1)
    for _ in range(6):
        mu = rng.uniform(0.2, 2)
        eta = drift / mu
        spread = rng.uniform(0.4, 1.05) * float(theory.critical_spread(eta, mu, family))
        steps = int(rng.uniform(3, 40) / drift)
        alpha = 10 ** rng.uniform(-9, -1) * math.sqrt(mu)
        u, _ = final(family, eta, mu, spread, steps, alpha)
        for level in np.array([0.01, 0.1, 0.3]) * math.sqrt(mu):
            if level > 2 * alpha:
                numbers = {"num_steps": steps, "init_scale": alpha, "level": level}
                value = theory.finite_time_rejection(eta, mu, spread, family=family, **numbers)
                assert float(value) == pytest.approx((u < level).mean(), abs=DRIFTS[drift] + 0.024)


@pytest.mark.parametrize("family", FAMILIES)
def test_apparent_spreads(family: str) -> None:
    rng = np.random.default_rng(2)
    for drift in (0.03, 0.1):
        numbers = {"num_steps": int(rng.uniform(10, 40) / drift), "init_scale": 1e-3, "level": 0.1}
        apparent = float(theory.finite_time_critical_spread(drift, 1.0, family=family, **numbers))
        shares = [
            (final(family, drift, 1.0, c * apparent, numbers["num_steps"], 1e-3)[0] < 0.1).mean()
            for c in (0.93, 1.07)
        ]
        assert shares[0] < 0.5 < shares[1]


@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("drift", ERROR)
def test_stationary_moments(drift: float, fraction: float) -> None:
    mu = 0.7
    spread = fraction * float(theory.critical_spread(drift / mu, mu))
    start = math.sqrt(mu * (1 - fraction**2))
    _, moments = final("two_point", drift / mu, mu, spread, int(400 / drift), start)
    exact = np.array(theory.stationary_spurious_moments(drift / mu, mu, spread))
    np.testing.assert_allclose(moments, exact, rtol=ERROR[drift] + 0.03)


def test_growth_times() -> None:
    rng = np.random.default_rng(3)
    for eta, s, alpha in np.exp(
        rng.uniform(np.log([1e-3, 0.1, 1e-9]), np.log([0.02, 2, 0.1]), (20, 3))
    ):
        u, steps = alpha * math.sqrt(s), 0
        while u * u < s / 2:
            u, steps = (1 + eta * (s - u * u)) * u, steps + 1
        time = float(theory.growth_time(s, learning_rate=eta, init_scale=alpha * math.sqrt(s)))
        assert abs(steps - time) < 1 + 0.02 * time


@pytest.mark.long
@pytest.mark.parametrize(("eta", "batch_size", "spread"), [(0.1, 2000, 6.0), (0.05, 2000, 9.0)])
def test_error_floors(eta: float, batch_size: int, spread: float) -> None:
    """Errors of HeteroSGD beyond the critical spread; statistical errors are about one per cent."""
    ranks = {"dim": 30, "invariant_rank": 2, "spurious_rank": 1}
    experiment = Experiment(
        **ranks,
        learning_rate=eta,
        batch_size=batch_size,
        spread=spread,
        model="factored",
        rank=2,
        init="gaussian",
        init_scale=0.1,
        steps=2000,
        record_every=20,
        metrics=("invariant_error",),
    )
    late = sweep(experiment.cell(), seeds=8).isel(step=slice(40, None))
    batch = {**ranks, "batch_size": batch_size, "learning_rate": eta}
    floor = float(theory.error_floor(math.hypot(spread, 1.0), **batch))
    observed = float(late.invariant_error.median())  # rare bursts dominate the mean
    assert floor < observed < 1.25 * floor
    assert float(theory.expected_error(spread, mean=1.0, **batch)) == pytest.approx(
        observed, rel=0.25
    )


@pytest.mark.long
def test_errors_of_a_finite_data_set() -> None:
    ranks = {"dim": 20, "invariant_rank": 2, "spurious_rank": 1}
    experiment = Experiment(
        **ranks,
        measurement="fixed-design",
        num_examples=1000,
        batch_size=1000,
        learning_rate=0.1,
        spread=6.0,
        init_scale=0.1,
        steps=600,
        record_every=50,
        metrics=("invariant_error",),
    )
    late = sweep(experiment.cell(), seeds=4).isel(step=slice(8, None))
    error = float(
        theory.finite_data_error(
            math.hypot(6.0, 1.0), num_examples=1000, num_environments=2, **ranks
        )
    )
    observed = analysis.summary(late, "invariant_error")["median"].mean()
    assert float(observed) == pytest.approx(error, rel=0.15)

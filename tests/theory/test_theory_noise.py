"""The closed forms of the limit against its recursion and against scans, in double precision.

The recursion varies nu with the environments, which the closed forms replace by its mean: of order
eta^2 Var(nu), up to a few per cent near the boundaries at eta = 0.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import theory
from causal_sgd.theory import limits
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RANKS = {"rank": 4, "invariant_rank": 2, "spurious_rank": 1}
WORLD = {"learning_rate": 0.1, "mean": 1.0, **RANKS}


class Averages(NamedTuple):
    """Of a long run of the limit with the spurious signal rejected."""

    invariant: float  # <|U*'U|^2>
    complement: float  # <tr B>
    error: float  # root mean square
    growth: float  # <log|1 + eta (s - b_s)|>, the exponent of a small spurious direction
    diverged: float  # share of sequences


def simulate(spread: float, rho: float, *, k: int = 4, eta=0.1, mu=1.0, noise=0.0, steps=3000):
    """The recursion in columns: each of the two units of A* with a and b, the others with b_s."""
    rng = np.random.default_rng(0)
    a, b, spare = (np.full(64, value) for value in (0.9, 0.01, 0.01))
    sums, kept, diverged = np.zeros(4), 0, np.zeros(64, bool)
    for t in range(steps):
        s = mu + spread * rng.choice([-1.0, 1.0], 64)
        whole = a * a + b
        error = 2 * ((a * a - 1) ** 2 + 2 * a * a * b + b * b) + (k - 2) * spare**2
        nu = (error + s * s + noise**2) / (2 * rho)
        if t >= steps // 3:
            growth = np.log(abs(1 + eta * (s - spare)))
            values = 2 * a * a, 2 * b + (k - 2) * spare, error, growth
            sums, kept = sums + [value.mean() for value in values], kept + 1
        a = a * (1 + eta * (1 - whole))
        b = (1 - eta * whole) ** 2 * b + eta**2 * nu * whole
        spare = (1 - eta * spare) ** 2 * spare + eta**2 * nu * spare
        diverged |= spare > 1e3
        a, b, spare = (np.where(diverged, 0, x) for x in (a, b, spare))
    invariant, complement, error, growth = sums / kept
    return Averages(invariant, complement, math.sqrt(error), growth, diverged.mean())


@pytest.mark.parametrize(
    ("spread", "rho", "noise"),
    few(
        [(6.0, 2.0, 0.0), (6.0, 5.0, 0.0), (6.0, 20.0, 0.0), (3.0, 2.0, 0.0), (6.0, 8.0, 6.0)],
        {(6.0, 2.0, 0.0), (6.0, 8.0, 6.0)},
    ),
)
def test_noise_levels_are_averages_of_the_recursion(spread: float, rho: float, noise: float):
    level = limits.noise_level(spread, batch_ratio=rho, label_noise=noise, **WORLD)
    observed = simulate(spread, rho, noise=noise)
    assert observed.invariant == pytest.approx(2 * (1 - float(level.driven)), rel=0.01)
    assert observed.complement == pytest.approx(float(level.complement), rel=0.01)
    assert observed.error == pytest.approx(float(level.error), rel=0.01)
    assert observed.diverged == 0


@pytest.mark.slow
def test_the_full_recursion_reaches_the_level() -> None:
    """From a small random start, with directions that are not aligned with the columns."""
    rng = np.random.default_rng(1)
    steps, sequences = 1200, 16
    spurious = 1 + 6 * rng.choice([-1.0, 1.0], (steps, sequences, 1))
    signals = np.concatenate([np.ones((steps, sequences, 2)), spurious], -1)
    start = limits.OrderParameters(
        0.01 * rng.standard_normal((sequences, 3, 4)),
        np.broadcast_to(1e-3 * np.eye(4), (sequences, 4, 4)),
    )
    curve = limits.limit_trajectory(
        start, signals, learning_rate=0.1, batch_ratio=5.0, record_every=10
    )
    observed = limits.order_statistics(curve, [1.0, 1.0])
    level = limits.noise_level(6.0, batch_ratio=5.0, **WORLD)
    late = {name: np.asarray(values[60:], float) for name, values in observed.items()}
    # The standard error of these means is 0.5 %.
    complement = (late["complement_signal"] ** 2).mean()
    assert complement == pytest.approx(float(level.complement), rel=0.025)
    assert (late["invariant_error"] ** 2).mean() ** 0.5 == pytest.approx(
        float(level.error), rel=0.02
    )
    assert late["spurious_signal"].max() < 1e-6


def equation(rho, eta, mu, k, r1, r2, sigma, noise, **_):
    """b_s on a grid, and the r2 M^2 that the noise equation demands for each at this rho; nu."""
    spare = np.geomspace(1e-6, 1, 20_001) / eta
    nu = spare * (2 - eta * spare) / eta
    driven = eta * nu / (2 - eta * sigma)
    lost = r1 * sigma**2 + k * spare**2
    error = np.where(spare <= sigma, 2 * r1 * sigma * driven + (k - r1) * spare**2, lost)
    return spare, 2 * rho * nu - error - r2 * mu**2 - noise**2, nu


def level_by_scan(rho, **point):
    """The least b_s at which the noise equation balances; and the least rho of any solution."""
    spare, demanded, nu = equation(rho, **point)
    excess = demanded - point["r2"] * point["spread"] ** 2
    balanced = np.flatnonzero(excess >= 0)
    least = rho - (excess / (2 * nu)).max()
    return (spare[balanced[0]] if balanced.size else math.nan), least


def critical_by_scan(rho, **point):
    """The spread at which E log|1 + eta (s - b_s)| over both eigenvalues crosses zero."""
    spare, demanded, _ = equation(rho, **point)
    if not (demanded >= 0).any():
        return math.nan
    spreads = np.sqrt(np.maximum(demanded, 0) / point["r2"])
    up, down = (1 + point["eta"] * (point["mu"] - spare + sign * spreads) for sign in (1, -1))
    with np.errstate(divide="ignore"):
        exponents = (np.log(abs(up)) + np.log(abs(down))) / 2
    first = np.flatnonzero(demanded >= 0)[0]
    if exponents[first] <= 0:
        return 0.0 if point["mu"] <= spare[first] else spreads[first]
    # The level follows the spread up to the largest one that has a level.
    stable = slice(first, np.argmax(demanded) + 1)
    negative = np.flatnonzero(exponents[stable] < 0)
    if not negative.size:
        return math.nan
    ends = slice(first + negative[0] - 1, first + negative[0] + 1)
    return math.sqrt(np.interp(0.0, -exponents[ends], spreads[ends] ** 2))


def points(number: int):
    rng = np.random.default_rng(2)
    for _ in range(number):
        eta, k, r1 = 10 ** rng.uniform(-2, -0.7), int(rng.integers(2, 60)), int(rng.integers(1, 3))
        yield {
            "spread": rng.uniform(0, 8),
            "eta": eta,
            "mu": rng.uniform(0, 2),
            "k": k,
            "r1": r1,
            "r2": int(rng.integers(1, 3)),
            "sigma": rng.uniform(0.3, 2),
            "noise": rng.uniform(0, 3),
        }


def arguments(point: dict) -> dict:
    return {
        "spread": point["spread"],
        "learning_rate": point["eta"],
        "mean": point["mu"],
        "rank": point["k"],
        "invariant_rank": point["r1"],
        "spurious_rank": point["r2"],
        "invariant_eigenvalue": point["sigma"],
        "label_noise": point["noise"],
    }


def test_levels_and_divergence_are_those_of_a_scan() -> None:
    """The saddle-node is the least ratio on the curve; a level exists exactly above it."""
    lost = 0
    for point in points(60):
        least = level_by_scan(1.0, **point)[1]
        ratio = float(limits.divergence_batch_ratio(**arguments(point)))
        assert ratio == pytest.approx(least, rel=2e-4)
        for factor in (0.98, 1.05, 1.5, 4.0):
            spare, _ = level_by_scan(factor * least, **point)
            level = limits.noise_level(batch_ratio=factor * least, **arguments(point))
            np.testing.assert_allclose(level.spare, spare, rtol=2e-3)
            assert np.isnan(level.error) == (factor < 1)
            lost += spare > point["sigma"]
    assert 10 < lost < 170


@pytest.mark.parametrize("spread", few([3.0, 6.0], {6.0}))
def test_the_invariant_signal_is_lost_below_the_retention_ratio(spread: float) -> None:
    ratio = float(limits.retention_batch_ratio(spread, **WORLD))
    assert simulate(spread, 0.94 * ratio).invariant < 1e-3
    assert simulate(spread, 1.1 * ratio).invariant > 0.1
    level = limits.noise_level(spread, batch_ratio=ratio * np.array([0.99, 1.01]), **WORLD)
    assert level.driven[0] > 1 > level.driven[1]


def test_many_spare_columns_diverge_before_the_invariant_signal_is_lost() -> None:
    many = WORLD | {"rank": 32}
    ratio = float(limits.retention_batch_ratio(3.0, **many))
    assert ratio == pytest.approx(float(limits.divergence_batch_ratio(3.0, **many)))
    # Where b would reach sigma* on the unstable branch, at 1.158, the signal is still there.
    at_unstable = simulate(3.0, 1.158, k=32)
    assert (at_unstable.diverged, at_unstable.invariant > 1) == (0, True)
    assert simulate(3.0, 0.97 * ratio, k=32).diverged == 1


@pytest.mark.parametrize("spread", few([3.0, 6.0], ()))
def test_runs_diverge_below_the_divergence_ratio(spread: float) -> None:
    ratio = float(limits.divergence_batch_ratio(spread, **WORLD))
    assert simulate(spread, 0.97 * ratio).diverged == 1
    assert simulate(spread, 1.2 * ratio).diverged == 0


def test_the_critical_spread_makes_the_exponent_of_the_level_vanish() -> None:
    kinds = {"zero": 0, "none": 0, "positive": 0}
    for index, point in enumerate(points(60)):
        rho = 0.4 + 0.5 * point["spread"]
        if index % 3 == 0:  # noise that rejects the mean alone
            point |= {"mu": 0.05 * point["mu"], "noise": 2 + point["noise"], "k": 3}
        numbers = arguments(point)
        numbers.pop("spread")
        critical = float(limits.batch_critical_spread(batch_ratio=rho, **numbers))
        exact = critical_by_scan(rho, **point)
        np.testing.assert_allclose(critical, exact, rtol=1e-3, err_msg=str(point))
        kinds["none" if math.isnan(exact) else "zero" if exact == 0 else "positive"] += 1
    assert min(kinds.values()) >= 3, kinds


@pytest.mark.parametrize("rho", few([1.0, 2.0, 5.0], ()))
def test_a_small_spurious_direction_is_neutral_at_the_critical_spread(rho: float) -> None:
    critical = float(limits.batch_critical_spread(batch_ratio=rho, **WORLD))
    slope = 0.1**2 * critical  # of the exponent in M
    # 1 % of M_c; the standard error is 0.001.
    assert abs(simulate(critical, rho, steps=4000).growth) < 0.01 * critical * slope + 3e-3
    free = float(theory.critical_spread(0.1, 1.0))
    assert simulate(free, rho, steps=4000).growth < -0.01


def test_small_steps_give_the_rule_of_sums() -> None:
    numbers = WORLD | {"learning_rate": 1e-3, "label_noise": 2.0}
    rho = np.array([0.7, 2.0, 20.0])
    critical = limits.batch_critical_spread(batch_ratio=rho, **numbers)
    rule = (2 * 1.0 / 1e-3 - (1 + 4) / (2 * rho)) / (1 + 1 / (2 * rho))
    np.testing.assert_allclose(critical, np.sqrt(rule), rtol=2e-3)


def test_all_columns_need_batches_that_grow_faster_than_the_dimension() -> None:
    numbers = WORLD | {"learning_rate": 0.03, "mean": 0.0}
    dims = np.array([1e3, 1e5, 1e7])
    few_columns = limits.divergence_batch_ratio(3.0, dim=dims, **numbers)
    np.testing.assert_allclose(
        few_columns, limits.divergence_batch_ratio(3.0, **numbers), rtol=5e-3
    )
    all_columns = limits.divergence_batch_ratio(3.0, dim=dims, **numbers | {"rank": dims})
    bulk = 0.03 * np.sqrt((dims - 3) * 9 / 32)  # eta sqrt(n N / 32), m ~ d^(3/2)
    np.testing.assert_allclose(all_columns[0], 2 * 0.03 / 1.97 + bulk[0], rtol=0.01)
    exponents = np.diff(np.log(np.asarray(all_columns, float) * dims)) / np.diff(np.log(dims))
    np.testing.assert_allclose(exponents, [1.5, 1.5], atol=0.03)


def test_the_bulk_is_that_of_the_complement_power() -> None:
    """For m/d large the level is of first order in the noise; d and n differ by r1 + r2."""
    columns = np.array([4, 40, 400])
    level = limits.noise_level(
        6.0, batch_ratio=1e4, dim=400, **WORLD | {"rank": columns, "learning_rate": 0.02}
    )
    power = theory.complement_power(
        math.hypot(6.0, 1.0),
        batch_size=4e6,
        dim=400,
        **{**RANKS, "learning_rate": 0.02, "rank": columns},
    )
    np.testing.assert_allclose(level.complement, power, rtol=0.02)
    # A bulk of n/4 columns shelters small signals, so that the batches shift nothing.
    critical = limits.batch_critical_spread(
        batch_ratio=5.0,
        dim=np.array([10**7, 16 * 10, 30]),
        **WORLD | {"rank": np.array([4, 10, 30])},
    )
    free = float(theory.critical_spread(0.1, 1.0))
    assert critical[0] == pytest.approx(
        float(limits.batch_critical_spread(batch_ratio=5.0, **WORLD)), rel=1e-4
    )
    assert critical[0] < critical[1] < critical[2]
    assert critical[2] == pytest.approx(free, rel=1e-5)


def test_the_best_error_is_that_of_small_steps_at_the_transition() -> None:
    rho = np.array([2.0, 10.0, 40.0])
    numbers = WORLD | {"learning_rate": 2e-4}
    critical = limits.batch_critical_spread(batch_ratio=rho, **numbers)
    level = limits.noise_level(critical, batch_ratio=rho, **numbers)
    best = limits.best_error(mean=1.0, batch_ratio=rho, **RANKS)
    np.testing.assert_allclose(best, level.error, rtol=2e-3)


@pytest.mark.parametrize("mean", [2.0, 3.0])
def test_the_window_of_success_closes_for_strong_means(mean: float) -> None:
    """For mu > sigma* noise that rejects the spurious signal drives out A* below this ratio."""
    edge = (mean - 1) / 2
    numbers = WORLD | {"mean": mean, "learning_rate": 1e-3}
    for rho, opens in ((0.9 * edge, False), (1.1 * edge, True)):
        critical = limits.batch_critical_spread(batch_ratio=rho, **numbers)
        assert (float(limits.retention_batch_ratio(critical, **numbers)) < rho) == opens
        error = limits.best_error(mean=mean, batch_ratio=rho, **RANKS)
        assert bool(np.isfinite(error)) == opens


@pytest.mark.parametrize("eta", [0.003, 0.01])
def test_the_annealing_window_is_the_median_time_of_return(eta: float) -> None:
    rng = np.random.default_rng(5)
    u, back = np.full(2000, 1e-4), np.full(2000, math.inf)
    window = float(
        limits.annealing_window(1e-4, learning_rate=eta, mean=1.0, spread=6.0, level=0.03)
    )
    for step in range(1, int(2.5 * window)):
        u = u * (1 + eta * (1 + 6 * rng.choice([-1.0, 1.0], 2000) - u * u))
        back = np.where((u > 0.03) & (back == math.inf), step, back)
    # First passages come before the median walk arrives, by about its variance over 2 lambda^2.
    exponent, variance = math.log(0.03 / 1e-4) / window, (6 * eta) ** 2
    early = variance / (2 * exponent**2)
    assert window - 3 * early - 20 < np.median(back) < window + 20
    assert limits.annealing_window(1e-4, learning_rate=0.1, mean=1.0, spread=6.0) == jnp.inf

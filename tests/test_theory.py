"""Theory against quadrature, brute force, explicit simulation and the published digits."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from causal_sgd import theory

FAMILIES = tuple(theory.families)
EPS = float(np.finfo(np.float32).eps)
BATCH = {"batch_size": 500, "dim": 30, "invariant_rank": 2, "spurious_rank": 1}


@pytest.fixture(autouse=True, scope="module")
def _strict_ranks():
    with jax.numpy_rank_promotion("raise"):
        yield


# ---------------------------------------------------------------------------------------------- exponents


def quadrature(family: str, eta: float, mu: float, spread: float) -> float:
    """E log|1 + eta s| by adaptive quadrature, split at the singular point."""
    a, b = 1 + eta * mu, eta * spread
    if family == "two_point":
        return (math.log(abs(a - b)) + math.log(abs(a + b))) / 2

    def integrand(t: float) -> float:
        density = 0.5 if family == "uniform" else math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return math.log(max(abs(1 + b / a * t), 1e-300)) * density

    reach = 1.0 if family == "uniform" else 13.0
    inner = [-a / b] if abs(a / b) < reach else []
    edges = sorted({-reach, *inner, 0.0, reach})
    pieces = [
        integrate.quad(integrand, low, high, limit=400, epsabs=1e-14, epsrel=1e-12)[0]
        for low, high in itertools.pairwise(edges)
    ]
    return math.log(abs(a)) + sum(pieces)


# Around the seams of the uniform (r = 1/2) and the normal series (r = 1/8) and the singular point (r = 1).
RATIOS = np.array([0.01, 0.1, 0.1249, 0.1251, 0.3, 0.499, 0.501, 0.7, 0.9, 0.99, 1.01, 1.3, 2.0, 10.0])
STEPS = [(0.001, 0.5), (0.01, 1.0), (0.1, 1.0), (0.3, 1.0), (0.1, -2.0), (0.5, -5.0)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("eta", "mu"), STEPS)
def test_exponent_matches_quadrature_in_float32(family: str, eta: float, mu: float):
    eta32, mu32 = np.float32(eta), np.float32(mu)
    spread = (RATIOS * abs(1 + eta * mu) / eta).astype(np.float32)
    level = math.log(abs(1 + float(eta32) * float(mu32)))
    exact = np.array([quadrature(family, float(eta32), float(mu32), float(s)) for s in spread])
    error = np.abs(np.asarray(theory.lyapunov(family, eta32, mu32, spread)) - exact)
    # A few roundings of the two parts log a and h(b/a): small steps, where both are small, lose no digits to
    # the 1 in 1 + eta s. Beyond r = 1/2 the parts are of order one. Two points feel the rounding of eta M
    # near r = 1, and the Poisson sum of the normal family keeps an error of half a rounding of 1.
    allowed = 8 * EPS * np.where(RATIOS < 0.5, abs(level) + np.abs(exact - level), 1 + np.abs(exact))
    if family == "two_point":
        allowed = allowed + EPS / np.abs(RATIOS - 1)
    if family == "gaussian":
        allowed = allowed + EPS / 2 * (RATIOS > 1 / 8)
    np.testing.assert_array_less(error, allowed)


@pytest.mark.parametrize("family", FAMILIES)
def test_exponent_matches_quadrature_in_float64(family: str):
    with jax.enable_x64(True):
        for eta, mu in STEPS:
            spread = RATIOS * abs(1 + eta * mu) / eta
            exact = [quadrature(family, eta, mu, s) for s in spread]
            value = theory.lyapunov(family, eta, mu, spread)
            assert value.dtype == jnp.float64
            np.testing.assert_allclose(value, exact, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_exponent_without_spread_is_that_of_the_mean(family: str):
    mean = jnp.array([1e-3, 1.0, -3.0])
    np.testing.assert_allclose(theory.lyapunov(family, 0.1, mean, 0.0), np.log1p(0.1 * mean), rtol=1e-6)
    assert theory.lyapunov(family, 0.5, -2.0, 0.0) == -jnp.inf
    assert theory.lyapunov(family, 0.1, -10.0, 0.0) < -15  # 0.1 and the product round: as good as -inf, never NaN
    assert math.isfinite(theory.lyapunov(family, 0.5, -2.0, 3.0))  # a = 0: centred eigenvalues


def test_exponent_at_the_singular_point():
    assert theory.lyapunov_two_point(0.5, 0.0, 2.0) == -jnp.inf
    assert theory.lyapunov_asymmetric(0.5, 5.0, 2.0) == -jnp.inf
    assert theory.log_variance_two_point(0.5, 0.0, 2.0) == jnp.inf
    assert theory.lyapunov_environments(0.5, jnp.array([-2.0, 1.0])) == -jnp.inf
    assert theory.log_variance_environments(0.5, jnp.array([-2.0, 1.0])) == jnp.inf
    never_met = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(
        theory.lyapunov_environments(0.5, jnp.array([-2.0, 1.0]), never_met), math.log(1.5), rtol=1e-6
    )
    assert theory.log_variance_environments(0.5, jnp.array([-2.0, 1.0]), never_met) == 0
    np.testing.assert_allclose(theory.lyapunov_uniform(0.1, 0.0, 10.0), math.log(2) - 1, rtol=1e-6)


def test_two_environments_agree_with_the_closed_forms():
    up, down = 7.0, 3.0
    values = jnp.array([up, -down])
    oracle = 0.5 * math.log(1.7 * 0.7)
    np.testing.assert_allclose(theory.lyapunov_asymmetric(0.1, up, down), oracle, rtol=1e-5)
    np.testing.assert_allclose(theory.lyapunov_two_point(0.1, 2.0, 5.0), oracle, rtol=1e-5)
    np.testing.assert_allclose(theory.lyapunov_environments(0.1, values), oracle, rtol=1e-5)
    variance = (0.5 * math.log(1.7 / 0.7)) ** 2
    np.testing.assert_allclose(theory.log_variance_two_point(0.1, 2.0, 5.0), variance, rtol=1e-5)
    np.testing.assert_allclose(theory.log_variance_environments(0.1, values), variance, rtol=1e-5)


def test_environments_broadcast_and_weigh():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(3, 1, 5)), np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    eta = np.array([0.1, 0.2])
    logs = np.log(np.abs(1 + eta[:, None] * values))
    mean = logs @ weights
    np.testing.assert_allclose(theory.lyapunov_environments(eta, values, weights), mean, rtol=1e-4, atol=1e-6)
    variance = ((logs - mean[..., None]) ** 2) @ weights
    np.testing.assert_allclose(theory.log_variance_environments(eta, values, weights), variance, rtol=1e-4)


def test_every_environment_positive_means_growth():
    eta = jnp.array([0.001, 0.1, 2.0])
    assert (theory.lyapunov_environments(eta, jnp.array([0.0, 1.0, 30.0])) > 0).all()
    assert (theory.lyapunov_uniform(eta, 5.0, 5.0) > 0).all()


# ------------------------------------------------------------------------------------------ matrix products

# Statistical tests use fixed seeds and 5 standard errors: a correct program fails about once in a million.


def test_exponents_of_triangular_products_are_the_mean_logs_of_the_diagonals():
    rng = np.random.default_rng(1)
    matrices = np.triu(rng.normal(size=(3, 3, 3)), 1) + np.array([np.diag(d) for d in rng.uniform(0.3, 2, (3, 3))])
    weights = np.array([0.5, 0.3, 0.2])
    logs = np.log(matrices[:, np.arange(3), np.arange(3)]).T @ weights
    result = theory.lyapunov_exponents(matrices, weights, key=jax.random.key(0), num_steps=500)
    assert result.exponents.shape == result.standard_error.shape == (3,)
    # The frame needs some steps to align; what the burn-in leaves of that is of the order of 1/num_steps.
    deviation = np.abs(np.asarray(result.exponents) - np.sort(logs)[::-1])
    np.testing.assert_array_less(deviation, 5 * np.asarray(result.standard_error) + 2e-3)
    assert (result.standard_error > 0).all()
    assert (result.standard_error < 0.01).all()


def test_exponents_of_rotated_products():
    # M_e = D R(angle) over equally spaced angles: directions become uniform, and the mean of log|D direction|
    # over the circle is log((d1 + d2)/2); the determinant fixes the other exponent.
    angles = 2 * np.pi * np.arange(64) / 64
    cosines, sines = np.cos(angles), np.sin(angles)
    rotations = np.array([[cosines, -sines], [sines, cosines]]).transpose(2, 0, 1)
    matrices = np.diag([1.5, 0.4]) @ rotations
    result = theory.lyapunov_exponents(matrices, key=jax.random.key(1), num_steps=500)
    exact = np.array([math.log(0.95), math.log(0.6) - math.log(0.95)])
    deviation = np.abs(np.asarray(result.exponents) - exact)
    np.testing.assert_array_less(deviation, 5 * np.asarray(result.standard_error) + 1e-6)


def test_linearised_adds_the_identity():
    cores = np.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_allclose(theory.linearised(0.1, cores), np.eye(2) + 0.1 * cores, rtol=1e-6)


# ------------------------------------------------------------------------------------------ critical curves


@pytest.mark.parametrize(
    ("eta", "mu", "digits"),
    [
        (0.01, 1.0, (14.18, 24.46, 14.03)),
        (0.05, 1.0, (6.40, 10.87, 6.02)),
        (0.1, 1.0, (4.58, 7.62, 4.12)),
        (0.1, 0.5, (3.20, 5.44, 3.01)),
    ],
)
def test_critical_spreads_have_the_known_digits(eta: float, mu: float, digits: tuple[float, ...]):
    for family, value in zip(FAMILIES, digits, strict=True):
        assert float(theory.critical_spread(eta, mu, family)) == pytest.approx(value, abs=0.0051)


@pytest.mark.parametrize("family", FAMILIES)
def test_critical_spread_is_the_smallest_root(family: str):
    eta, mu = np.array([[0.003], [0.1]]), np.array([0.5, 1.0, 2.0, 0.0, -1.0])
    critical = np.asarray(theory.critical_spread(eta, mu, family))
    assert critical.shape == (2, 5)
    np.testing.assert_array_equal(critical[:, 3:], 0)  # these means need no heterogeneity
    critical, mu = critical[:, :3], mu[:3]
    fractions = np.append(np.linspace(0, 1 - 1e-4, 400), 1 + 1e-4)[:, None, None]
    positive = np.asarray(theory.lyapunov(family, eta, mu, fractions * critical) > 0)
    assert positive[:-1].all()  # a scan meets no sign change before
    assert not positive[-1].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_critical_learning_rate_inverts_the_critical_spread(family: str):
    eta, mu = np.array([1e-4, 0.01, 0.1, 0.2]), 1.0
    # Number by number, since most tests do so and share what is compiled.
    spread = np.array([theory.critical_spread(step, mu, family) for step in eta.tolist()])
    rates = [theory.critical_learning_rate(mu, width, family) for width in spread.tolist()]
    np.testing.assert_allclose(rates, eta, rtol=1e-5)
    for mean in (0.0, -1.0):
        assert theory.critical_learning_rate(mean, float(spread[0]), family) == 0
    below = np.linspace(1e-3, 1 - 1e-3, 200)[:, None] * eta
    assert (theory.lyapunov(family, below, mu, spread) > 0).all()


@pytest.mark.parametrize(
    ("family", "most_drift", "least_ratio"), [("uniform", 0.5089, 3.3557), ("gaussian", 0.2781, 3.0470)]
)
def test_where_the_critical_curves_end(family: str, most_drift: float, least_ratio: float):
    for factor, finite in ((0.999, True), (1.001, False)):
        assert np.isfinite(theory.critical_spread(0.1, factor * most_drift / 0.1, family)) == finite
        assert np.isfinite(theory.critical_learning_rate(1.0, factor * least_ratio, family)) != finite
    ratio = least_ratio * np.array([0.999, 1.001])
    # Brute force: no learning rate makes the exponent negative at the smaller ratio, some do at the larger.
    lowest = theory.lyapunov(family, np.geomspace(1e-3, 10, 4000)[:, None], 1.0, ratio).min(0)
    np.testing.assert_array_equal(lowest < 0, [False, True])


def test_critical_learning_rate_of_positive_environments_is_infinite():
    np.testing.assert_array_equal(theory.critical_learning_rate(1.0, np.array([0.0, 0.5, 1.0])), np.inf)
    assert math.isfinite(theory.critical_learning_rate(1.0, 1.01))


def test_asymmetric_critical_learning_rate():
    up, down = np.array([7.0, 2.0, 3.0, 1.0, 0.0, 0.0]), np.array([3.0, 1.0, 3.0, 4.0, 0.0, 1.0])
    rate = np.asarray(theory.critical_learning_rate_asymmetric(up, down))
    np.testing.assert_allclose(rate, [1 / 3 - 1 / 7, 0.5, 0, 0, 0, 0], rtol=1e-6)
    assert theory.critical_learning_rate_asymmetric(2.0, 0.0) == np.inf
    assert theory.lyapunov_asymmetric(rate[:2] * 0.999, up[:2], down[:2]).min() > 0
    assert theory.lyapunov_asymmetric(rate[:2] * 1.001, up[:2], down[:2]).max() < 0
    half_sum, half_gap = (up[:2] + down[:2]) / 2, (up[:2] - down[:2]) / 2
    np.testing.assert_allclose(theory.critical_learning_rate(half_gap, half_sum), rate[:2], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_mixing_matches_the_enumeration_of_signs(count: int):
    eta, mu = 0.05, 1.0
    critical = float(theory.mixing_critical_spread(eta, mu, count))
    assert theory.mixing_critical_spread(eta, -1.0, count) == 0
    signs = np.array(list(itertools.product([-1, 1], repeat=count))).mean(1)

    def exponent(spread: float) -> float:
        return float(np.log(np.abs(1 + eta * (mu + spread * signs))).mean())

    assert exponent(critical * (1 - 1e-5)) > 0 > exponent(critical * (1 + 1e-5))


@pytest.mark.parametrize(("family", "counts"), [("two_point", (1, 4, 64)), ("uniform", (4,)), ("gaussian", (4,))])
def test_mixing_grows_like_the_root_of_the_count(family: str, counts: tuple[int, ...]):
    one = theory.critical_spread(0.001, 1.0, family)
    for count in counts:  # the correction is of order eta mu = 0.001
        ratio = theory.mixing_critical_spread(0.001, 1.0, count, family) / one
        assert float(ratio) == pytest.approx(math.sqrt(count), rel=2e-3)


# ---------------------------------------------------------------------------------- divergence and growth


def simulate(eta: float, factors, start, steps: int):
    """The last u and the time averages of u^2 and u^4 per chain, after a fifth of the steps."""
    u, second, fourth, kept = start, 0.0, 0.0, 0
    for t in range(steps):
        u = (factors(t) - eta * u * u) * u
        if t >= steps // 5:
            square = u * u
            second, fourth, kept = second + square, fourth + square * square, kept + 1
    return u, second / kept, fourth / kept


@pytest.mark.parametrize("drift", [0.02, 0.1, 0.5])
def test_divergence_bound_is_sharp(drift: float):
    eta = 0.1
    mu = drift / eta
    bound = float(theory.divergence_bound(eta, mu))
    for scale, diverges in ((0.999, False), (1.001, True)):
        low, high = mu - scale * bound, mu + scale * bound
        assert bool(theory.is_bounded(eta, low, high)) is not diverges
        # The worst sequence: one step to the highest peak, then the lowest environment for ever.
        factors = itertools.chain([1 + eta * high], itertools.repeat(1 + eta * low))
        u = math.sqrt((1 + eta * high) / (3 * eta))
        for factor in itertools.islice(factors, 5000):
            u = (factor - eta * u * u) * u
            if abs(u) > 1e6:
                break
        assert (abs(u) > 1e6) is diverges


def test_divergence_of_random_runs():
    eta, mu, chains = 0.1, 1.0, 2000
    bound = float(theory.divergence_bound(eta, mu))
    assert eta * bound == pytest.approx(0.905, abs=5e-4)
    blown = {}
    for scale in (0.995, 1.1):
        rng = np.random.default_rng(3)
        peak = math.sqrt(4 / 27 * (1 + eta * (mu + scale * bound)) ** 3 / eta)

        def factors(_: int, rng=rng, scale=scale):
            return 1 + eta * (mu + scale * bound * rng.choice([-1, 1], chains))

        with np.errstate(over="ignore", invalid="ignore"):
            last, *_ = simulate(eta, factors, rng.uniform(0, peak, chains), 1000)
        blown[scale] = np.mean(~np.isfinite(last))
    assert blown[0.995] == 0
    assert blown[1.1] > 0.1  # 23 % of such runs at eta M = 1


def test_divergence_bound_without_room():
    np.testing.assert_array_equal(theory.divergence_bound(1.0, np.array([2.0, 3.0, -2.0])), 0)
    stable = np.array([0.5, 1.9, 2.1])  # one environment: the level is kept up to eta s = 2
    np.testing.assert_array_equal(theory.is_bounded(1.0, stable, stable), [True, True, False])


def test_growth_time_counts_the_steps_of_the_map():
    eta, scale = 0.02, 1e-4
    for eigenvalue in (0.5, 2.0):
        u, steps = scale, 0
        while u * u < eigenvalue / 2:  # for small steps u^2 is at half its level after exactly this time
            u, steps = (1 + eta * (eigenvalue - u * u)) * u, steps + 1
        time = float(theory.growth_time(eigenvalue, learning_rate=eta, init_scale=scale))
        assert steps == pytest.approx(time, rel=0.01)
    assert theory.growth_time(1.0, learning_rate=0.1, init_scale=2.0) == 0


# -------------------------------------------------------------------------------- stationary state and error


@pytest.mark.parametrize(
    ("family", "fraction", "tolerance"),
    [("two_point", 0.5, 0.03), ("two_point", 0.85, 0.06), ("uniform", 0.8, 0.06), ("gaussian", 0.8, 0.06)],
)
def test_stationary_moments_match_simulation(family: str, fraction: float, tolerance: float):
    # eta mu = 0.01. The formulas are of first order, off by up to 3 % here; the standard error is below 2 %.
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


def test_error_floor_has_the_known_digits():
    batch = {**BATCH, "batch_size": jnp.array([500, 1000, 2000, 4000])}
    floor = theory.error_floor(6.0, learning_rate=0.1, **batch)
    np.testing.assert_allclose(floor, [0.465, 0.329, 0.232, 0.164], atol=5.1e-4)


def test_error_floor_scales():
    base = theory.error_floor(6.0, learning_rate=0.1, **BATCH)
    shifted = theory.error_floor(12.0, learning_rate=0.2, invariant_eigenvalue=4.5, **{**BATCH, "dim": 120})
    np.testing.assert_allclose(shifted / base, 2 * math.sqrt(2 * 4.5 * 4), rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_expected_error_joins_floor_and_remainder(family: str):
    eta, mu = 0.05, 1.0
    batch = {**BATCH, "spurious_rank": 3}
    spread = theory.critical_spread(eta, mu, family) * jnp.array([0.0, 0.7, 1.3])
    error = theory.expected_error(spread, learning_rate=eta, mean=mu, family=family, **batch)
    floor = theory.error_floor(spread / math.sqrt(3 if family == "uniform" else 1), learning_rate=eta, **batch)
    fourth = theory.stationary_spurious_moments(eta, mu, spread, family).fourth
    np.testing.assert_allclose(error, np.sqrt(np.asarray(floor) ** 2 + 3 * np.asarray(fourth)), rtol=1e-5)


@pytest.mark.parametrize("family", ["two_point", "gaussian"])  # uniform follows
def test_optimal_spread_is_the_global_minimum(family: str):
    eta, mu = 0.02, 0.5
    switch = 2 * 30 / mu  # r1 d sigma*/mu: here the two ends of [0, M_c] are about as good as each other
    sizes = switch * np.array([0.4, 0.7, 1.4, 3.0, 30.0])
    critical = float(theory.critical_spread(eta, mu, family))
    numbers = {**BATCH, "batch_size": sizes, "learning_rate": eta, "mean": mu, "family": family}
    best = np.asarray(theory.optimal_spread(**numbers))
    np.testing.assert_array_equal(best[:2], 0)
    np.testing.assert_allclose(best[2:], critical, rtol=1e-4)
    grid = np.linspace(0, 2 * critical, 401)[:, None]
    scanned = np.asarray(
        theory.expected_error(np.concatenate([np.broadcast_to(grid, (401, 5)), best[None]]), **numbers)
    )
    assert (scanned[-1] <= scanned.min(0) * (1 + 1e-4)).all()


def test_optimal_spread_without_a_transition():
    numbers = {**BATCH, "learning_rate": 0.1}
    assert theory.optimal_spread(mean=-1.0, **{**numbers, "batch_size": 1000}) == 0
    # Uniform eigenvalues have no M_c at eta mu = 0.6: the minimum is smooth, and finer than the grid of 3 %.
    numbers |= {"batch_size": np.array([60.0, 100.0, 400.0, 1000.0]), "mean": 6.0, "family": "uniform"}
    best = np.asarray(theory.optimal_spread(**numbers))
    around = np.linspace(0.97, 1.03, 201)[:, None] * best
    errors = np.asarray(theory.expected_error(around, **numbers))
    np.testing.assert_allclose(errors[100], errors.min(0), rtol=5e-7)


# ----------------------------------------------------------------------------------------------- contracts


def _best(eta, mu):
    return theory.optimal_spread(learning_rate=eta, mean=mu, **BATCH)


def _error(eta, mu, spread):
    return theory.expected_error(spread, learning_rate=eta, mean=mu, **BATCH)


def _product(eta, scale):
    matrices = theory.linearised(eta, scale * jnp.array([[[1.0, 2.0], [2.0, 0.5]], [[-1.0, 0.0], [0.0, -2.0]]]))
    return theory.lyapunov_exponents(matrices, key=jax.random.key(0), num_steps=20, num_chains=2)


def _environments(function):
    return lambda eta, mu: function(eta, mu * jnp.array([1.0, -1.0, 2.0]))


# Every function once, as a pure function of scalars, with the arguments of two calls.
CALLS = {
    "critical_learning_rate": (
        lambda *a: theory.critical_learning_rate(*a, "uniform"),
        (1.0, 8.0),
        (0.5, 9.0),
    ),
    "critical_learning_rate_asymmetric": (theory.critical_learning_rate_asymmetric, (7.0, 3.0), (5.0, 4.0)),
    "critical_spread": (lambda *a: theory.critical_spread(*a, "gaussian"), (0.1, 1.0), (0.05, 0.5)),
    "divergence_bound": (theory.divergence_bound, (0.1, 1.0), (0.05, 0.5)),
    "error_floor": (lambda s, eta: theory.error_floor(s, learning_rate=eta, **BATCH), (6.0, 0.1), (3.0, 0.2)),
    "expected_error": (_error, (0.1, 1.0, 3.0), (0.05, 0.5, 5.0)),
    "growth_time": (
        lambda s, eta: theory.growth_time(s, learning_rate=eta, init_scale=1e-3),
        (1.0, 0.1),
        (2.0, 0.2),
    ),
    "is_bounded": (theory.is_bounded, (0.1, -8.0, 10.0), (0.1, -9.0, 11.0)),
    "linearised": (lambda eta, c: theory.linearised(eta, c * jnp.eye(2)), (0.1, 3.0), (0.2, -1.0)),
    "log_variance_environments": (_environments(theory.log_variance_environments), (0.1, 3.0), (0.05, 2.0)),
    "log_variance_two_point": (theory.log_variance_two_point, (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov": (lambda *a: theory.lyapunov("two_point", *a), (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov_asymmetric": (theory.lyapunov_asymmetric, (0.1, 5.0, 3.0), (0.05, 6.0, 2.0)),
    "lyapunov_environments": (_environments(theory.lyapunov_environments), (0.1, 3.0), (0.05, 2.0)),
    "lyapunov_exponents": (_product, (0.1, 1.0), (0.05, 2.0)),
    "lyapunov_gaussian": (theory.lyapunov_gaussian, (0.1, 1.0, 4.0), (0.05, 0.5, 1.0)),
    "lyapunov_two_point": (theory.lyapunov_two_point, (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov_uniform": (theory.lyapunov_uniform, (0.1, 1.0, 4.0), (0.05, 0.5, 30.0)),
    "mixing_critical_spread": (lambda *a: theory.mixing_critical_spread(*a, 2), (0.1, 1.0), (0.05, 0.5)),
    "optimal_spread": (_best, (0.1, 1.0), (0.05, 0.1)),
    "stationary_spurious_moments": (theory.stationary_spurious_moments, (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
}


def test_every_function_is_under_contract():
    offered = {name for name in theory.__all__ if name[0].islower()} - {"families"}
    assert offered == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_eager_agrees_with_jit_of_vmap_in_one_trace(name: str):
    function, first, second = CALLS[name]
    traces = []

    @jax.jit
    @jax.vmap
    def batched(*numbers):
        traces.append(numbers)
        return function(*numbers)

    eager = jax.tree.map(lambda *leaves: np.stack(leaves), function(*first), function(*second))
    numbers = [np.array(pair, np.float32) for pair in zip(first, second, strict=True)]
    # Fused programs round differently, and a product of matrices amplifies it.
    close = {"rtol": 1e-4, "atol": 1e-6}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), eager, batched(*numbers))
    turned = batched(*(number[::-1] for number in numbers))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[::-1], b, **close), eager, turned)
    assert len(traces) == 1
    for leaf in jax.tree.leaves(eager):
        assert leaf.dtype in (np.float32, np.bool_)
        assert not np.isnan(leaf).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_of_different_rank_broadcast(family: str):
    eta, mu, spread = np.array([0.05, 0.1]), np.array([[0.5], [1.0], [1.5]]), 4.0
    value = theory.lyapunov(family, eta, mu, spread)
    assert value.shape == (3, 2)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value[1, 0], theory.lyapunov(family, 0.05, 1, 4), rtol=1e-4, atol=1e-7)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    family=st.sampled_from(FAMILIES),
    eta=st.floats(0.002, 0.1),
    mu=st.floats(0.1, 2.0),
    factor=st.floats(1.05, 2.0),
)
def test_more_step_or_less_mean_needs_less_heterogeneity(family: str, eta: float, mu: float, factor: float):
    critical = float(theory.critical_spread(eta, mu, family))
    assert float(theory.critical_spread(factor * eta, mu, family)) < critical or math.isinf(critical)
    assert float(theory.critical_spread(eta, factor * mu, family)) > critical
    # Only products matter: units of the signal cancel.
    rescaled = float(theory.critical_spread(eta / factor, factor * mu, family))
    assert rescaled == pytest.approx(factor * critical, rel=1e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    family=st.sampled_from(FAMILIES),
    eta=st.floats(0.002, 0.1),
    mu=st.floats(0.1, 2.0),
    low=st.floats(0.1, 0.9),
)
def test_exponent_falls_and_level_sinks_towards_the_transition(family: str, eta: float, mu: float, low: float):
    spread = float(theory.critical_spread(eta, mu, family)) * jnp.array([low, low + 0.05, 1.01])
    exponents = np.asarray(theory.lyapunov(family, eta, mu, spread))
    assert (np.diff(exponents) < 0).all()
    levels = np.asarray(theory.stationary_spurious_moments(eta, mu, spread, family).second)
    assert (np.diff(levels) < 0).all()
    assert levels[-1] == 0


BAD = [
    (
        lambda: theory.lyapunov_two_point(-0.1, 1, 1),
        "learning_rate must be a finite number above 0, got -0.1",
    ),
    (lambda: theory.lyapunov_uniform(0.1, 1, -2.0), "spread must be a finite number at least 0"),
    (lambda: theory.lyapunov_gaussian(0.1, math.nan, 1), "mean must be a finite number"),
    (lambda: theory.lyapunov_two_point(jnp.array([0.1, math.inf]), 1, 1), "learning_rate must be"),
    (lambda: theory.lyapunov("two_points", 0.1, 1, 1), "did you mean 'two_point'"),
    (lambda: theory.critical_spread(0.1, 1, "gausian"), "did you mean 'gaussian'"),
    (lambda: theory.critical_spread(0.0, 1), "learning_rate must be"),
    (lambda: theory.critical_learning_rate(1, 1, "unifrom"), "did you mean 'uniform'"),
    (lambda: theory.critical_learning_rate_asymmetric(1, -1), "down must be"),
    (lambda: theory.lyapunov_asymmetric(0.1, -1, 1), "up must be"),
    (lambda: theory.lyapunov_environments(0.1, 3.0), "last axis of environments"),
    (lambda: theory.lyapunov_environments(0.1, np.ones(2), np.ones(3) / 3), "shape \\(2,\\)"),
    (lambda: theory.lyapunov_environments(0.1, np.ones(2), np.ones(2)), "sum to one"),
    (lambda: theory.mixing_critical_spread(0.1, 1, 1.5), "environments_per_batch must be a whole number"),
    (lambda: theory.mixing_critical_spread(0.1, 1, 0), "environments_per_batch must be"),
    (lambda: theory.linearised(0.1, np.ones((2, 3))), "square matrices"),
    (lambda: theory.lyapunov_exponents(np.eye(2), key=jax.random.key(0)), "shape \\[E, n, n\\]"),
    (lambda: theory.lyapunov_exponents(np.eye(2)[None], key=jax.random.key(0), num_chains=1), "num_chains"),
    (lambda: theory.growth_time(-1.0, learning_rate=0.1, init_scale=1), "eigenvalue must be"),
    (lambda: theory.growth_time(1.0, learning_rate=0.1, init_scale=0), "init_scale must be"),
    (lambda: theory.error_floor(1.0, learning_rate=0.1, **{**BATCH, "batch_size": 0}), "batch_size must be"),
    (
        lambda: theory.expected_error(1.0, learning_rate=0.1, mean=1, family="two", **BATCH),
        "family must be one of",
    ),
    (lambda: theory.optimal_spread(learning_rate=0.1, mean=1, **{**BATCH, "dim": -1}), "dim must be"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()

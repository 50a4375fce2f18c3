"""Critical curves and the divergence bound against reference values, brute force and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from causal_sgd import theory
from support.theory import FAMILIES, POINTS, simulate

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.mark.parametrize(
    ("eta", "mu", "digits"),
    [
        (0.01, 1.0, (14.18, 24.46, 14.03)),
        (0.05, 1.0, (6.40, 10.87, 6.02)),
        (0.1, 1.0, (4.58, 7.62, 4.12)),
        (0.1, 0.5, (3.20, 5.44, 3.01)),
    ],
)
def test_critical_spreads_match_reference_values(eta: float, mu: float, digits: tuple[float, ...]):
    for family, value in zip(FAMILIES, digits, strict=True):
        assert float(theory.critical_spread(eta, mu, family)) == pytest.approx(value, abs=0.0051)


@pytest.mark.parametrize("family", FAMILIES)
def test_critical_spread_is_the_smallest_root(family: str):
    eta, mu = np.array([[0.003], [0.1]]), np.array([0.5, 1.0, 2.0, 0.0, -1.0])
    critical = np.asarray(theory.critical_spread(eta, mu, family))
    assert critical.shape == (2, 5)
    np.testing.assert_array_equal(critical[:, 3:], 0)  # means of at most 0 need no heterogeneity
    critical, mu = critical[:, :3], mu[:3]
    fractions = np.append(np.linspace(0, 1 - 1e-4, 400), 1 + 1e-4)[:, None, None]
    positive = np.asarray(theory.lyapunov(family, eta, mu, fractions * critical) > 0)
    assert positive[:-1].all()  # no sign change at smaller spreads
    assert not positive[-1].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_critical_learning_rate_inverts_the_critical_spread(family: str):
    eta, mu = np.array([1e-4, 0.01, 0.1, 0.2]), 1.0
    # One number at a time, like most tests, to share compiled functions.
    spread = np.array([theory.critical_spread(step, mu, family) for step in eta.tolist()])
    rates = [theory.critical_learning_rate(mu, width, family) for width in spread.tolist()]
    np.testing.assert_allclose(rates, eta, rtol=1e-5)
    for mean in (0.0, -1.0):
        assert theory.critical_learning_rate(mean, float(spread[0]), family) == 0
    below = np.linspace(1e-3, 1 - 1e-3, 200)[:, None] * eta
    assert (theory.lyapunov(family, below, mu, spread) > 0).all()


@pytest.mark.parametrize(
    ("family", "most_drift", "least_ratio"),
    [("uniform", 0.5089, 3.3557), ("gaussian", 0.2781, 3.0470)],
)
def test_where_the_critical_curves_end(family: str, most_drift: float, least_ratio: float):
    for factor, finite in ((0.999, True), (1.001, False)):
        assert np.isfinite(theory.critical_spread(0.1, factor * most_drift / 0.1, family)) == finite
        assert (
            np.isfinite(theory.critical_learning_rate(1.0, factor * least_ratio, family)) != finite
        )
    ratio = least_ratio * np.array([0.999, 1.001])
    # Brute force: the exponent is negative at some learning rate for the larger ratio only.
    lowest = theory.lyapunov(family, np.geomspace(1e-3, 10, 4000)[:, None], 1.0, ratio).min(0)
    np.testing.assert_array_equal(lowest < 0, [False, True])


def test_critical_learning_rate_of_positive_environments_is_infinite():
    np.testing.assert_array_equal(
        theory.critical_learning_rate(1.0, np.array([0.0, 0.5, 1.0])), np.inf
    )
    assert math.isfinite(theory.critical_learning_rate(1.0, 1.01))


def test_asymmetric_critical_learning_rate():
    up, down = np.array([7.0, 2.0, 3.0, 1.0, 0.0, 0.0]), np.array([3.0, 1.0, 3.0, 4.0, 0.0, 1.0])
    rate = np.asarray(theory.critical_learning_rate_asymmetric(up, down))
    np.testing.assert_allclose(rate, [1 / 3 - 1 / 7, 0.5, 0, 0, 0, 0], rtol=1e-6)
    assert theory.critical_learning_rate_asymmetric(2.0, 0.0) == np.inf
    assert theory.lyapunov_asymmetric(rate[:2] * 0.999, up[:2], down[:2]).min() > 0
    assert theory.lyapunov_asymmetric(rate[:2] * 1.001, up[:2], down[:2]).max() < 0
    half_sum, half_gap = (up[:2] + down[:2]) / 2, (up[:2] - down[:2]) / 2
    np.testing.assert_allclose(
        theory.critical_learning_rate(half_gap, half_sum), rate[:2], rtol=1e-5
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_mixing_matches_the_enumeration_of_signs(count: int):
    eta, mu = 0.05, 1.0
    critical = float(theory.mixing_critical_spread(eta, mu, count))
    assert theory.mixing_critical_spread(eta, -1.0, count) == 0
    signs = np.array(list(itertools.product([-1, 1], repeat=count))).mean(1)

    def exponent(spread: float) -> float:
        return float(np.log(np.abs(1 + eta * (mu + spread * signs))).mean())

    assert exponent(critical * (1 - 1e-5)) > 0 > exponent(critical * (1 + 1e-5))


@pytest.mark.parametrize(
    ("family", "counts"), [("two_point", (1, 4, 64)), ("uniform", (4,)), ("gaussian", (4,))]
)
def test_mixing_grows_like_the_root_of_the_count(family: str, counts: tuple[int, ...]):
    one = theory.critical_spread(0.001, 1.0, family)
    for count in counts:  # the correction is of order eta mu = 0.001
        ratio = theory.mixing_critical_spread(0.001, 1.0, count, family) / one
        assert float(ratio) == pytest.approx(math.sqrt(count), rel=2e-3)


@settings(max_examples=15)
@given(**POINTS, factor=st.floats(1.05, 2.0))
@example(family="gaussian", eta=0.09375, mu=2.0, factor=2.0)
def test_more_step_or_less_mean_needs_less_heterogeneity(
    family: str, eta: float, mu: float, factor: float
):
    critical = float(theory.critical_spread(eta, mu, family))
    # Beyond this eta mu no spread suffices.
    largest = {"two_point": math.inf, "uniform": 0.509, "gaussian": 0.278}[family]
    assume(abs(factor * eta * mu - largest) > 1e-3)  # `largest` has three digits
    larger_step = float(theory.critical_spread(factor * eta, mu, family))
    assert larger_step < critical if factor * eta * mu < largest else math.isinf(larger_step)
    assert float(theory.critical_spread(eta, factor * mu, family)) > critical
    # Only products matter: units of the signal cancel.
    rescaled = float(theory.critical_spread(eta / factor, factor * mu, family))
    assert rescaled == pytest.approx(factor * critical, rel=1e-5)


@pytest.mark.parametrize("drift", [0.02, 0.1, 0.5])
def test_divergence_bound_is_sharp(drift: float):
    eta = 0.1
    mu = drift / eta
    bound = float(theory.divergence_bound(eta, mu))
    for scale, diverges in ((0.999, False), (1.001, True)):
        low, high = mu - scale * bound, mu + scale * bound
        assert bool(theory.is_bounded(eta, low, high)) is not diverges
        # The worst sequence: one step to the highest peak, then the lowest environment forever.
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


def test_divergence_bound_beyond_stability_is_zero():
    np.testing.assert_array_equal(theory.divergence_bound(1.0, np.array([2.0, 3.0, -2.0])), 0)
    stable = np.array([0.5, 1.9, 2.1])  # one environment is stable up to eta s = 2
    np.testing.assert_array_equal(theory.is_bounded(1.0, stable, stable), [True, True, False])

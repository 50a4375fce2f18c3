"""Estimators against plain loops in NumPy on the examples themselves, and against causalicp."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import causalicp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from causal_sgd.supervised import estimators, measurements, worlds
from causal_sgd.supervised.estimators import _tails, _tests
from causal_sgd.supervised.estimators._data import sample_of
from support import estimators as loops
from support.cases import few
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZES = (50, 60, 90)


@pytest.fixture(autouse=True)
def double() -> Any:
    with jax.enable_x64(True):
        yield


def fit(estimator: Any, data: list[np.ndarray], **members: Any) -> Any:
    """A fit in one program; `members` replace those of the world."""
    world = vars(loops.as_world(data)) | members

    def program(moments: Any, world: dict[str, Any]) -> Any:
        return estimator(moments, SimpleNamespace(**world))

    return jax.jit(program)(loops.as_data(data), world)


def number(support: Any) -> int:
    return int(np.sum(2 ** np.flatnonzero(support)))


@pytest.mark.parametrize("intercept", few([False, True], {True}))
def test_least_squares_are_those_of_the_examples(intercept: bool) -> None:
    data = loops.drawn(0, dim=4, sizes=SIZES)
    cases = {
        estimators.pooled(intercept=intercept): [0, 1, 2, 3],
        estimators.oracle(intercept=intercept): [0, 1],
        estimators.without([0, 3], intercept=intercept): [1, 2],
        estimators.anchor(0.0, intercept=intercept): [0, 1, 2, 3],
    }

    def together(moments: Any, world: Any) -> list[Any]:
        return [estimator(moments, world) for estimator in cases]

    for found, chosen in zip(fit(together, data), cases.values(), strict=True):
        expected = loops.least_squares(data, chosen, intercept)
        np.testing.assert_allclose([*found.estimate, found.intercept], expected, atol=1e-10)
        assert np.flatnonzero(found.support).tolist() == chosen
        assert int(found.accepted) == -1


def test_an_oracle_of_a_scrambled_world_fits_the_original_causal_inputs() -> None:
    data = loops.drawn(1, dim=4)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    scrambled = [np.column_stack([rows[:, :4] @ rotation, rows[:, 4]]) for rows in data]
    found = fit(estimators.oracle(), scrambled, unscramble=jnp.asarray(rotation))
    expected = loops.least_squares(data, [0, 1], False)[:4]
    np.testing.assert_allclose(rotation @ found.estimate, expected, atol=1e-10)
    assert found.support.all()


@pytest.mark.parametrize("intercept", few([False, True], {True}))
def test_anchor_regression_is_that_of_the_examples(intercept: bool) -> None:
    data, strength = loops.drawn(2, dim=4, sizes=SIZES), 3.0
    rows = np.concatenate(data) - np.concatenate(data).mean(0) * int(intercept)
    labels = np.repeat(np.arange(3), SIZES)
    anchors = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    projection = anchors @ np.linalg.pinv(anchors)
    kernel = np.eye(len(rows)) + strength * projection
    x, y = rows[:, :4], rows[:, 4]
    expected = np.linalg.solve(x.T @ kernel @ x, x.T @ kernel @ y)
    found = fit(estimators.anchor(strength, intercept=intercept), data)
    np.testing.assert_allclose(found.estimate, expected, atol=1e-10)


@pytest.mark.parametrize("sizes", [(50, 90), SIZES])
def test_the_causal_dantzig_equates_moments_of_residuals(sizes: tuple[int, ...]) -> None:
    data = loops.drawn(3, dim=3, sizes=sizes)
    inner = np.stack([rows.T @ rows / len(rows) for rows in data])
    apart = inner - inner.mean(0)
    stacked, right = apart[:, :3, :3].reshape(-1, 3), apart[:, :3, 3].ravel()
    found = fit(estimators.causal_dantzig(), data)
    np.testing.assert_allclose(found.estimate, np.linalg.lstsq(stacked, right)[0], atol=1e-9)


SEARCHES = [(sizes, intercept) for sizes in ((60, 80), (40,) * 7) for intercept in (False, True)]


@pytest.mark.parametrize(("sizes", "intercept"), few(SEARCHES, SEARCHES[1:2]))
def test_searches_find_the_least_value_of_all_subsets(
    sizes: tuple[int, ...], intercept: bool
) -> None:
    penalty = 0.01
    options: dict[str, Any] = {"penalty": penalty, "intercept": intercept}

    @jax.jit
    def program(moments: Any, gamma: Any) -> Any:
        world: Any = SimpleNamespace(probabilities=jnp.full(len(sizes), 1 / len(sizes)))
        both = [estimators.eills(gamma, refit=refit, **options) for refit in (False, True)]
        return [each(moments, world) for each in (*both, estimators.fair(gamma, **options))]

    for seed, gamma in enumerate((0.0, 3.0, 30.0)):
        data = loops.drawn(seed, dim=4, sizes=sizes)
        found, refitted, fair = program(loops.as_data(data), gamma)
        values, weights = loops.eills_loop(data, gamma, penalty, intercept)
        best = int(values.argmin())
        assert number(found.support) == best
        both = [found.intercept, *found.estimate] if intercept else found.estimate
        np.testing.assert_allclose(both, weights[best], atol=1e-9)
        plain = loops.least_squares(data, np.flatnonzero(found.support).tolist(), intercept)
        np.testing.assert_allclose(refitted.estimate, plain[:-1], atol=1e-9)
        assert number(fair.support) == int(
            loops.fair_loop(data, gamma, penalty, intercept).argmin()
        )
        plain = loops.least_squares(data, np.flatnonzero(fair.support).tolist(), intercept)
        np.testing.assert_allclose(fair.estimate, plain[:-1], atol=1e-9)


@pytest.mark.slow
def test_greedy_searches_reach_the_least_value_of_easy_data() -> None:
    data = loops.drawn(0, dim=5)
    for make in (estimators.eills, estimators.fair):
        exact, greedy = (fit(make(5.0, search=search), data) for search in ("exact", "greedy"))
        np.testing.assert_array_equal(exact.support, greedy.support)
        np.testing.assert_allclose(exact.estimate, greedy.estimate, atol=1e-9)


GREEDY: list[tuple[Any, Any, float]] = [
    (estimators.eills, lambda *numbers: loops.eills_of_set(*numbers)[0], 5.0),
    (estimators.fair, loops.fair_of_set, 5.0),
]


@pytest.mark.parametrize(("make", "value", "gamma"), GREEDY, ids=["eills", "fair"])
def test_greedy_searches_of_many_inputs_end_where_a_plain_loop_does(
    make: Any, value: Any, gamma: float
) -> None:
    penalty = 0.02
    data = loops.drawn(0, dim=20, sizes=(60, 80))
    found = fit(make(gamma, penalty=penalty, search="greedy"), data)
    expected = loops.greedy_loop(lambda chosen: value(data, chosen, gamma, penalty), 20)
    assert np.flatnonzero(found.support).tolist() == expected
    assert 2 < len(expected) < 18, "neither start is an end"


def test_a_greedy_search_in_single_precision_is_not_led_astray() -> None:
    """Products of moments square their condition number, which costs it all digits here."""
    gamma, penalty = 50.0, 0.002
    data = loops.drawn(0, dim=20, sizes=(300, 400))
    with jax.enable_x64(False):
        found = fit(estimators.eills(gamma, penalty=penalty, search="greedy"), data)
    expected = loops.greedy_loop(
        lambda chosen: loops.eills_of_set(data, chosen, gamma, penalty)[0], 20
    )
    assert found.estimate.dtype == np.float32
    assert np.flatnonzero(found.support).tolist() == expected


def population(mu: float, spread: float, variance: float) -> tuple[Any, Any]:
    world = draw_world(worlds.contradiction(mean=mu, spread=spread, variance=variance))
    return measurements.moments().init(jax.random.key(1), world), world


@pytest.mark.parametrize("make", [estimators.eills, estimators.fair])
def test_invariance_wins_beyond_the_threshold_of_the_contradiction(make: Any) -> None:
    """Values of {1, 2} and {1}: EILLS switches at mu^2 / (V M^2), FAIR at mu^2 / M^2."""
    mu, spread, variance = 0.8, 0.5, 4.0
    data, world = population(mu, spread, variance)
    threshold = mu**2 / spread**2 / (variance if make is estimators.eills else 1)
    program = jax.jit(lambda gamma: make(gamma)(data, world))
    for factor, expected in ((0.99, [True, True]), (1.01, [True, False])):
        found = program(factor * threshold)
        assert found.support.tolist() == expected
        weight = 0 if factor > 1 else mu / variance
        np.testing.assert_allclose(found.estimate, [1, weight], atol=1e-9)


@pytest.mark.slow
def test_eills_finds_the_causes_of_its_demonstration() -> None:
    """At 10^6 examples; the switch of the population is at gamma = 11.1 +- .3."""
    world = draw_world(worlds.eills_demo())
    data = jax.jit(measurements.moments(10**6).init)(jax.random.key(1), world)
    program = jax.jit(lambda gamma: estimators.eills(gamma)(data, world))
    sets = {gamma: program(gamma) for gamma in (10.0, 12.2, 20.0)}
    causes = np.arange(12) < 3
    assert np.asarray(sets[10.0].support)[6:9].any()
    for gamma in (12.2, 20.0):
        assert not np.asarray(sets[gamma].support)[6:9].any()
        assert np.asarray(sets[gamma].support)[causes].all()
    np.testing.assert_allclose(sets[20.0].estimate, world.target, atol=0.01)


def peer(data: list[np.ndarray]) -> Any:
    return causalicp.fit(data, data[0].shape[1] - 1, alpha=0.05)


@pytest.mark.parametrize("count", few([8, 200], {8}, ()))
def test_icp_is_causalicp(count: int) -> None:
    programs: dict[int, Any] = {}
    for seed in range(count):
        sizes = ((60, 80), SIZES)[seed >= 8 and seed % 2]
        data = loops.drawn(seed, dim=3, sizes=sizes, shifts=0.2)

        def program(data: Any, shares: Any) -> Any:
            world: Any = SimpleNamespace(probabilities=shares)
            return estimators.icp()(data, world), estimators.accepted_sets(data, world)

        shares = jnp.full(len(data), 1 / len(data))
        traced = programs.setdefault(len(data), jax.jit(program))
        found, tests = jax.device_get(traced(loops.as_data(data), shares))
        expected = peer(data)
        accepted = [set(each) for each in loops.members(tests.sets[tests.accepted])]
        assert sorted(map(sorted, accepted)) == sorted(map(sorted, expected.accepted_sets))
        assert int(found.accepted) == len(accepted)
        assert set(np.flatnonzero(found.support)) == (expected.estimate or set())
        np.testing.assert_allclose(tests.pvalues, loops.icp_loop(data), atol=1e-6)
        for index in range(3):
            without = [p for s, p in zip(tests.sets, tests.pvalues, strict=True) if not s[index]]
            largest = max(map(float, without)) if accepted else 1
            assert abs(largest - expected.pvalues[index]) < 1e-6
        if accepted:
            ends = np.stack([found.low, found.high])
            np.testing.assert_allclose(ends, expected.conf_intervals[:, :3], atol=1e-9)
        else:
            assert np.isnan(found.low).all()
            assert not np.any(found.estimate)


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["environments", "environments_minus_one"])
def test_other_corrections_are_those_of_their_codes(correction: str) -> None:
    data = loops.drawn(5, dim=3, sizes=SIZES, shifts=0.2)
    options: dict[str, Any] = {"correction": correction, "intercept": False, "empty": False}
    world = loops.as_world(data)
    program = jax.jit(lambda moments: estimators.accepted_sets(moments, world, **options))
    tests = program(loops.as_data(data))
    np.testing.assert_allclose(tests.pvalues, loops.icp_loop(data, correction, False), atol=1e-9)
    assert not tests.accepted[0]


@pytest.mark.parametrize("intercept", few([False, True], {True}))
def test_coefficients_are_tested_as_by_a_loop(intercept: bool) -> None:
    data = loops.drawn(6, dim=3, sizes=SIZES, shifts=0.2)
    world = loops.as_world(data)

    def program(moments: Any) -> Any:
        return _tests.coefficient_tests(sample_of(moments, world), intercept)

    found = jax.jit(program)(loops.as_data(data))
    expected = loops.coefficients_loop(data, intercept)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.slow
def test_regression_invariance_chooses_the_best_accepted_set() -> None:
    data = loops.drawn(7, dim=3, sizes=(400, 500), shifts=0.2)
    found = fit(estimators.regression_invariance(0.01), data)
    variances, rows = [], np.concatenate(data)
    for chosen, pvalue in zip(loops.subsets(3), loops.coefficients_loop(data), strict=True):
        weights = loops.least_squares(data, chosen, True)
        left = rows[:, -1] - rows[:, :-1] @ weights[:-1] - weights[-1]
        free = len(rows) - len(chosen) - 1
        variances.append(left @ left / free if pvalue > 0.01 else np.inf)
    assert number(found.support) == int(np.argmin(variances))
    assert int(found.accepted) == int(np.isfinite(variances).sum())


@pytest.mark.parametrize(
    ("spread", "empty", "support", "count"),
    [
        # The label has the same law everywhere: no input is needed.
        *few(
            [
                (0.5, True, [False, False], 2),
                (0.5, False, [True, False], 1),
                (0.0, True, [False, False], 4),
            ],
            [],
        )
    ],
)
def test_icp_of_a_population_sees_every_difference_and_no_rounding(
    spread: float, empty: bool, support: list[bool], count: int
) -> None:
    found = jax.jit(estimators.icp(empty=empty))(*population(0.8, spread, 4.0))
    assert found.support.tolist() == support
    assert int(found.accepted) == count


@pytest.mark.parametrize(("kind", "tolerance"), few([("float32", 3e-5), ("float64", 1e-10)], ()))
def test_tails_are_those_of_scipy(kind: str, tolerance: float) -> None:
    with jax.enable_x64(kind == "float64"):
        generator = np.random.default_rng(0)
        first, second = 10 ** generator.uniform(0, 5.5, (2, 300))
        scale = np.sqrt(2 / first + 2 / second)
        ratio = np.clip(generator.normal(size=300) * 3 * scale, -20, 20)
        ratio, first, second = (np.asarray(each, kind) for each in (ratio, first, second))
        wide = [np.asarray(each, float) for each in (ratio, first, second)]
        below = scipy.stats.f.cdf(np.exp(wide[0]), *wide[1:])
        above = scipy.stats.f.sf(np.exp(wide[0]), *wide[1:])
        found = jax.jit(_tails.f_two_sided)(ratio, first, second)
        np.testing.assert_allclose(found, 2 * np.minimum(below, above), rtol=tolerance, atol=1e-30)
        found = jax.jit(_tails.f_upper)(ratio, first, second)
        np.testing.assert_allclose(found, above, rtol=tolerance, atol=tolerance)
        values = np.asarray(generator.normal(size=300) * 3, kind)
        expected = 2 * scipy.stats.t.sf(abs(np.asarray(values, float)), wide[1])
        found = jax.jit(_tails.t_two_sided)(values, first)
        np.testing.assert_allclose(found, expected, rtol=tolerance)

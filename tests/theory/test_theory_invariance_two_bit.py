"""IRMv1 and others in the world of two bits against sums over its eight atoms, in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from causal_sgd.theory import invariance
from causal_sgd.theory.invariance import two_bit
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FAILING = (0.1, np.array([0.2, 0.25]))
WORKING = (0.25, np.array([0.2, 0.1]))


def atoms(alpha: float, beta: float) -> list[tuple[float, np.ndarray, float]]:
    """Probability, inputs and label of every atom."""
    result = []
    for y, first, second in itertools.product((1.0, -1.0), (0, 1), (0, 1)):
        mass = (alpha if first else 1 - alpha) * (beta if second else 1 - beta) / 2
        result.append((mass, y * np.array([1.0 - 2 * first, 1.0 - 2 * second]), y))
    return result


def average(alpha: float, beta: float, function: Callable[[np.ndarray, float], Any]) -> Any:
    return sum(mass * function(x, y) for mass, x, y in atoms(alpha, beta))


def risk(w: np.ndarray, alpha: float, beta: float) -> float:
    return average(alpha, beta, lambda x, y: (x @ w - y) ** 2)


def slope(w: np.ndarray, alpha: float, beta: float) -> float:
    """D_e."""
    return average(alpha, beta, lambda x, y: 2 * (x @ w - y) * (x @ w))


def minimised(name: str, alpha: float, betas: np.ndarray, weight: float) -> np.ndarray:
    """The minimum of the objective on losses R/4, from many starts."""

    moments = [average(alpha, b, lambda x, y: np.outer((*x, y), (*x, y))) for b in betas]

    def value(w: np.ndarray) -> Any:
        r, f = np.append(w, -1), np.append(w, 0)
        losses = [r @ s @ r / 4 for s in moments]
        slopes = [r @ s @ f / 2 for s in moments]
        gradients = [(s @ r)[:2] / 2 for s in moments]
        penalty = {
            "irmv1": np.mean(np.square(slopes)),
            "vrex": np.var(losses),
            "iga": np.sum(np.var(gradients, axis=0)),
        }
        return np.mean(losses) + weight * penalty[name]

    starts = [(1 - 2 * alpha, 0.0), (0.6, 0.35), (0.6, -0.35), (0.9, 0.2)]
    options: dict[str, Any] = {"method": "BFGS", "tol": 1e-10}
    results = [optimize.minimize(value, start, **options) for start in starts]
    return min(results, key=lambda result: result.fun).x


def test_risks_are_sums_over_atoms() -> None:
    w = np.array([0.7, -0.4])
    for alpha, beta in ((0.1, 0.2), (0.3, 0.9), (0.5, 0.0)):
        found = float(two_bit.risk(w, alpha, beta))
        assert found == pytest.approx(risk(w, alpha, beta), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.14])
def test_no_environment_moves_the_scale_of_feasible_points(alpha: float) -> None:
    points = np.asarray(two_bit.feasible_points(alpha), float)
    assert len(np.unique(points.round(4), axis=0)) == 4
    for point, beta in itertools.product(points, (0.0, 0.2, 0.6, 1.0)):
        assert abs(slope(point, alpha, beta)) < 2e-6


def test_feasible_points_are_all_roots() -> None:
    """Roots of D_e in two environments from a grid of starts, on both sides of the threshold."""
    for alpha in (0.1, 0.2):

        def slopes(w: np.ndarray, alpha: float = alpha) -> list[float]:
            return [slope(w, alpha, 0.2), slope(w, alpha, 0.3)]

        roots = []
        for start in itertools.product((-0.5, 0.1, 0.5, 1.0), (-0.5, -0.2, 0.2, 0.5)):
            root, _, success, _ = optimize.fsolve(slopes, start, full_output=True)
            if success == 1 and max(map(abs, slopes(root))) < 1e-12:
                roots.append(root.round(4) + 0.0)
        points = np.asarray(two_bit.feasible_points(alpha), float)
        points = points[~np.isnan(points).any(1)]
        assert len(points) == (4 if alpha < two_bit.LARGEST_FEASIBLE_FLIP else 2)
        for root in np.unique(roots, axis=0):
            assert np.abs(points - root).max(1).min() < 2e-3


def test_the_critical_correlation_is_where_risks_cross() -> None:
    for alpha in (0.03, 0.1, 0.14):
        _, invariant, spurious, _ = np.asarray(two_bit.feasible_points(alpha), float)
        critical = float(two_bit.critical_correlation(alpha))
        for correlation in (0.99 * critical, 1.01 * critical):
            beta = (1 - correlation) / 2
            fails = risk(spurious, alpha, beta) < risk(invariant, alpha, beta)
            assert fails == (correlation > critical)
            flips = np.array([beta - 0.01, beta + 0.01])
            limit = np.asarray(two_bit.irmv1_limit(alpha, flips))
            np.testing.assert_allclose(limit, spurious if fails else invariant, atol=1e-6)
    assert np.isinf(two_bit.critical_correlation(0.2))
    mirrored = two_bit.irmv1_limit(0.1, np.array([0.8, 0.75]))
    np.testing.assert_allclose(mirrored, [0.625, -0.3307], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "world", "weight"),
    few(
        list(itertools.product(("irmv1", "vrex"), ("failing", "working"), (1.0, 40.0, 2e3))),
        {("irmv1", "failing", 2e3), ("vrex", "failing", 2e3)},
    ),
)
def test_penalties_have_these_minima(name: str, world: str, weight: float) -> None:
    alpha, betas = FAILING if world == "failing" else WORKING
    expected = minimised(name, alpha, betas, weight)
    found = getattr(two_bit, name)(alpha, betas, weight=weight)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_iga_overshoots_to_the_causal_dantzig() -> None:
    for world, weight in ((FAILING, 3.0), (FAILING, 1e3), (WORKING, 40.0)):
        found = two_bit.iga(*world, weight=weight)
        np.testing.assert_allclose(found, minimised("iga", *world, weight), atol=2e-5)
    alpha, betas = FAILING
    moments = [average(alpha, b, lambda x, y: np.outer((*x, y), (*x, y))) for b in betas]
    difference = moments[0] - moments[1]
    dantzig = np.linalg.solve(difference[:2, :2], difference[:2, 2])
    limit = two_bit.iga(alpha, betas, weight=1e8)
    np.testing.assert_allclose(limit, dantzig, atol=1e-5)
    assert float(two_bit.risk(limit, alpha, 0.2)) == pytest.approx(1 / 0.64 - 1, rel=1e-4)


def test_large_weights_lead_to_the_best_feasible_point_or_to_the_invariant_one() -> None:
    for world in (FAILING, WORKING):
        limit = np.asarray(two_bit.irmv1_limit(*world))
        np.testing.assert_allclose(two_bit.irmv1(*world, weight=1e6), limit, atol=1e-3)
        invariant = [1 - 2 * world[0], 0]
        np.testing.assert_allclose(two_bit.vrex(*world, weight=1e7), invariant, atol=1e-3)


def test_least_squares_of_an_environment() -> None:
    for alpha, beta in ((0.1, 0.2), (0.3, 0.9)):
        second = average(alpha, beta, lambda x, y: np.outer(x, x))
        cross = average(alpha, beta, lambda x, y: x * y)
        found = two_bit.least_squares(alpha, beta)
        np.testing.assert_allclose(found, np.linalg.solve(second, cross), atol=1e-6)
    for alpha in (0.0, 0.5):
        each = two_bit.least_squares(alpha, jnp.array([0.2, 0.3]))
        expected = [1, 0] if alpha == 0 else [0, 0.6]
        np.testing.assert_allclose(each[0], expected, atol=1e-6)


def test_the_exponent_is_that_of_the_residual_at_the_invariant_point() -> None:
    alpha, betas = 0.1, np.array([0.1, 0.9])
    biases = [average(alpha, b, lambda x, y: x[1] * (y - 0.8 * x[0])) for b in betas]
    for rate in (0.1, 0.7):
        expected = np.mean(np.log(np.abs(1 + rate * np.array(biases))))
        found = float(two_bit.hetero_exponent(alpha, betas, rate))
        assert found == pytest.approx(expected, abs=1e-6)
        assert found < 0 < float(two_bit.hetero_exponent(alpha, betas / 2, rate))


def test_figures_of_the_counterexample() -> None:
    alpha, betas = FAILING
    assert pytest.approx(0.146447, abs=1e-6) == two_bit.LARGEST_FEASIBLE_FLIP
    spurious = two_bit.irmv1_limit(alpha, betas)
    np.testing.assert_allclose(spurious, [0.625, 0.3307], atol=5e-5)
    risks = two_bit.risk(np.asarray(spurious), alpha, jnp.array([*betas, 0.9]))
    np.testing.assert_allclose(risks, [0.302, 0.335, 0.765], atol=5e-4)
    assert float(two_bit.risk(np.array([0.8, 0.0]), alpha, 0.2)) == pytest.approx(0.36, abs=1e-6)


def test_searches_over_sets_choose_the_first_bit_beyond_a_finite_weight() -> None:
    alpha, betas = FAILING
    second = [average(alpha, b, lambda x, y: np.outer((*x, y, 1), (*x, y, 1))) for b in betas]
    for thresholds in (invariance.eills_thresholds, invariance.fair_thresholds):
        found = thresholds(np.array(second), np.array([True, False]))
        assert 0 < found.critical < np.inf
        np.testing.assert_array_equal(found.per_set, [0, 0, 0, found.critical])


@pytest.mark.slow
def test_formulas_map_and_trace() -> None:
    flips = jnp.array([[0.2, 0.25], [0.1, 0.3]])
    alphas, weights = jnp.array([0.1, 0.2]), jnp.array([10.0, 1e3])

    def table(alpha: Any, betas: Any, weight: Any) -> list[Any]:
        methods = [two_bit.irmv1, two_bit.vrex, two_bit.iga]
        each = [method(alpha, betas, weight=weight) for method in methods]
        return [*each, two_bit.irmv1_limit(alpha, betas), two_bit.critical_correlation(alpha)]

    mapped = jax.jit(jax.vmap(table))(alphas, flips, weights)
    for one, other in zip(mapped, table(alphas, flips, weights), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)

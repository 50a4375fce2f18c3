"""Thresholds of EILLS and FAIR against a loop over sets with a root search for each, in NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from causal_sgd.theory import invariance
from causal_sgd.theory.invariance import contradiction

METHODS = {"eills": invariance.eills_thresholds, "fair": invariance.fair_thresholds}


def structural(seed: int, environments: int = 2) -> np.ndarray:
    """Moments of x1, x2 -> y -> x3, x4, with coefficients that change, and of noise x5."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(environments):
        mixing = np.zeros((7, 6))  # rows x1 ... x5, y and the constant, columns noises
        mixing[0, 0] = rng.uniform(0.5, 1.5)
        mixing[1, :2] = rng.normal(), rng.uniform(0.5, 1.5)
        mixing[5] = 1.5 * mixing[0] - mixing[1]
        mixing[5, 5] = 1
        mixing[2] = rng.uniform(0.5, 1.5) * mixing[5]
        mixing[2, 2] = 1
        mixing[3] = rng.normal() * mixing[5] + rng.normal() * mixing[0]
        mixing[3, 3] = 1
        mixing[4, 4] = 1
        second = mixing @ mixing.T
        second[6, 6] = 1
        result.append(second)
    return np.array(result)


CAUSAL = np.array([True, True, False, False, False])


def value(
    method: str, second: np.ndarray, weights: np.ndarray, chosen: list[int], gamma: float
) -> Any:
    """The least value of a set, as its definition has it."""
    dim = second.shape[1] - 2
    system, right, constant = np.zeros((len(chosen),) * 2), np.zeros(len(chosen)), 0.0
    for weight, one in zip(weights, second, strict=True):
        x, c = one[:dim, :dim][np.ix_(chosen, chosen)], one[:dim, dim][chosen]
        inverse = np.eye(len(chosen)) if method == "eills" else np.linalg.inv(x)
        system += weight * (x + gamma * x @ inverse @ x)
        right += weight * (c + gamma * x @ inverse @ c)
        constant += weight * gamma * c @ inverse @ c
    return constant / 2 - right @ np.linalg.solve(system, right) / 2


def threshold(method: str, second: np.ndarray, weights: np.ndarray, chosen: list[int]) -> Any:
    given = [int(j) for j in np.flatnonzero(CAUSAL)]

    def gap(gamma: float) -> Any:
        own = value(method, second, weights, chosen, gamma)
        return own - value(method, second, weights, given, gamma)

    if gap(0.0) > -1e-9:
        return 0.0
    return optimize.brentq(gap, 0.0, 1e8, xtol=1e-12) if gap(1e8) > 0 else np.inf


@pytest.mark.parametrize("method", METHODS)
def test_each_set_has_the_threshold_of_its_definition(method: str) -> None:
    for seed, environments in ((0, 2), (1, 3)):
        second = structural(seed, environments)
        weights = np.arange(1.0, environments + 1) / np.sum(np.arange(1.0, environments + 1))
        found = METHODS[method](second, CAUSAL, weights)
        assert found.sets.shape == (32, 5)
        for index in range(32):
            members = [j for j in range(5) if index >> j & 1]
            assert list(np.flatnonzero(found.sets[index])) == members
            expected = threshold(method, second, weights, members)
            assert found.per_set[index] == pytest.approx(expected, rel=1e-6), members
        assert found.critical == found.per_set.max()
        assert 0 < found.critical < np.inf


@pytest.mark.parametrize("method", METHODS)
def test_the_given_set_is_best_just_beyond_the_critical_weight(method: str) -> None:
    second, weights = structural(4), np.full(2, 0.5)
    critical = METHODS[method](second, CAUSAL).critical
    sets = [list(each) for n in range(6) for each in itertools.combinations(range(5), n)]

    def best(gamma: float) -> list[int]:
        values = [value(method, second, weights, each, gamma) for each in sets]
        # of sets within rounding of the least the smallest, as a penalty of the size would choose
        return min(
            (each for each, one in zip(sets, values, strict=True) if one < min(values) + 1e-10),
            key=len,
        )

    assert best(1.001 * critical) == [0, 1]
    assert best(0.999 * critical) != [0, 1]


def test_closed_forms_of_the_contradiction_world() -> None:
    for mean, spread, variance in ((0.5, 0.3, 4.0), (1.4, 0.6, 1.7)):
        second = [
            [[1, 0, 1, 0], [0, variance, b, 0], [1, b, 2, 0], [0, 0, 0, 1]]
            for b in (mean + spread, mean - spread)
        ]
        for method, thresholds in METHODS.items():
            closed = getattr(contradiction, f"{method}_threshold")(mean, spread, variance=variance)
            found = thresholds(np.array(second), [True, False])
            assert found.critical == pytest.approx(float(closed), rel=1e-5)
            assert found.per_set[2] < found.critical  # x2 alone


def test_a_larger_invariant_set_is_always_preferred() -> None:
    second = structural(0)
    for thresholds in METHODS.values():
        found = thresholds(second, [True, False, False, False, False])
        assert found.per_set[3] == found.critical == np.inf


def test_moments_in_single_precision_have_the_same_thresholds() -> None:
    second = structural(2)
    for thresholds in METHODS.values():
        exact, rounded = thresholds(second, CAUSAL), thresholds(jnp.asarray(second), CAUSAL)
        np.testing.assert_allclose(rounded.per_set, exact.per_set, rtol=1e-4, atol=1e-9)


def test_wrong_moments_are_refused_by_name() -> None:
    second = structural(0)
    cases = {
        "^second must have the shape": (second[0], CAUSAL),
        "^second must be symmetric": (second + np.triu(second), CAUSAL),
        "^second must have positive definite": (np.zeros_like(second), CAUSAL),
        "^second must be a finite number": (np.full_like(second, np.nan), CAUSAL),
        "^causal must be truth values of shape": (second, CAUSAL[:3]),
        "^p, the number of inputs of second, must be": (np.eye(18)[None], np.ones(16, bool)),
    }
    for thresholds in METHODS.values():
        for message, arguments in cases.items():
            with pytest.raises(ValueError, match=message):
                thresholds(*arguments)
        with pytest.raises(ValueError, match="^probabilities must"):
            thresholds(second, CAUSAL, [0.5, 0.6])
        with pytest.raises(ValueError, match="^second must be concrete, got a traced value"):
            jax.jit(lambda s, f=thresholds: f(s, CAUSAL).critical)(second)

"""Penalties and exponents against drawn steps, plain iteration and the Lasso itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd.theory import critical_spread, sparse
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(1)
START = RNG.bit_generator.state
SHARES = np.array([0.2, 0.5, 0.3])


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers, whichever others run."""
    RNG.bit_generator.state = START


def in_double(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result in double precision, as arrays of NumPy."""
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, function(*args, **options))


def environments(d: int, common: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S_e, b_e and E y^2 of three environments with weights of their own and label noise."""
    roots = RNG.normal(size=(3, d, 3 * d)) / np.sqrt(3 * d)
    second = roots @ roots.transpose(0, 2, 1)
    if common:
        second = second[[0, 0, 0]]
    betas = 1 + RNG.normal(size=(3, d))
    cross = np.einsum("eij,ej->ei", second, betas)
    return second, cross, np.einsum("ei,ei->e", cross, betas) + 0.3


@pytest.mark.parametrize("examples", few([1, 6], {1}))
def test_the_variances_are_those_of_drawn_batches(examples: int) -> None:
    """10^5 batches of Gaussian examples, one at a time or several."""
    second, cross, squares = environments(3)
    theta = np.array([0.5, 1.0, 0.2])
    betas = np.linalg.solve(second, cross[..., None])[..., 0]
    labels = squares - np.einsum("ei,ei->e", cross, betas)
    roots = np.linalg.cholesky(second)
    where = RNG.choice(3, 100_000, p=SHARES)
    x = np.einsum("bij,bmj->bmi", roots[where], RNG.normal(size=(len(where), examples, 3)))
    noise = np.sqrt(labels[where])[:, None] * RNG.normal(size=(len(where), examples))
    residuals = np.einsum("bmi,bi->bm", x, theta - betas[where]) - noise
    g = np.einsum("bmi,bm->bi", x, residuals) / examples
    expected = sparse.gradient_variances(
        theta, second, cross, probabilities=SHARES, batch_size=examples, label_squares=squares
    )
    squared = (g - g.mean(0)) ** 2
    errors = squared.std(0) / np.sqrt(len(g))
    assert (abs(squared.mean(0) - expected) < 4.5 * errors).all()


def test_the_exponents_are_those_of_drawn_steps() -> None:
    second, cross, _ = environments(3, common=True)
    theta = np.array([0.5, 1.0, 0.2])
    numbers: dict[str, Any] = {"probabilities": SHARES, "label_noise": 2.0, "batch_size": 4}
    found = sparse.growth_exponents(theta, second, cross, learning_rate=0.3, **numbers)
    where = RNG.choice(3, 100_000, p=SHARES)
    noise = RNG.normal(size=(len(where), 3)) * np.sqrt(4 * np.diagonal(second[0]) / 4)
    logs = np.log(abs(1 - 0.3 * ((second @ theta - cross)[where] + noise)))
    assert (abs(logs.mean(0) - found) < 4.5 * logs.std(0) / np.sqrt(len(where))).all()
    numbers["label_noise"] = 0.0
    found = sparse.growth_exponents(theta, second, cross, learning_rate=0.3, **numbers)
    exact = SHARES @ np.log(abs(1 - 0.3 * (second @ theta - cross)))
    np.testing.assert_allclose(found, exact, atol=2e-6)


@pytest.mark.slow
def test_to_first_order_the_exponents_vanish_on_the_support_alone() -> None:
    """The law itself: divided by eta they are the conditions of the Lasso as eta goes to zero."""
    second, cross, _ = environments(6, common=True)
    cross = cross * np.array([[1.0], [-2.0], [2.0]])
    for eta in (1e-2, 1e-3):
        problem = second, cross / eta**0.5
        found = in_double(sparse.heterogeneity_lasso, *problem, learning_rate=eta)
        exponents = in_double(sparse.growth_exponents, found.estimate, *problem, learning_rate=eta)
        on = found.estimate > 0
        assert 0 < on.sum() < 6
        assert found.change < 1e-12 * found.penalties.max()
        # The next order has three factors eta^(1/2) from the gradients.
        assert abs(exponents[on]).max() < 100 * eta**1.5
        assert exponents[~on].max() < -0.01 * eta**0.5


def test_penalties_that_depend_on_the_solution_are_settled() -> None:
    """Against a plain iteration with Newton's solution of the support in double precision."""
    second, cross, squares = environments(4)
    eta, m = 0.05, 2
    found = in_double(
        sparse.heterogeneity_lasso,
        second,
        cross,
        learning_rate=eta,
        probabilities=SHARES,
        batch_size=m,
        label_squares=squares,
    )
    mean = np.einsum("e,eij->ij", SHARES, second)
    theta, variances = np.zeros(4), np.zeros(4)
    for _ in range(500):
        g = second @ theta - cross
        residual = np.einsum("i,eij,j->e", theta, second, theta) - 2 * cross @ theta + squares
        own = np.diagonal(second, axis1=1, axis2=2) * residual[:, None] + g**2
        variances = SHARES @ g**2 - (SHARES @ g) ** 2 + SHARES @ own / m
        pull = SHARES @ cross - eta / 2 * variances
        for i in range(4):
            rest = pull[i] - mean[i] @ theta + mean[i, i] * theta[i]
            theta[i] = max(rest, 0) / mean[i, i]
    np.testing.assert_allclose(found.estimate, theta, atol=1e-9)
    np.testing.assert_allclose(found.penalties, eta / 2 * variances, atol=1e-9)
    assert found.change < 1e-9


@pytest.mark.slow
def test_one_coordinate_is_lost_at_the_critical_spread_to_first_order() -> None:
    eta, mu = 0.001, 0.5
    critical = float(critical_spread(eta, mu))
    for factor, learned in ((0.998, True), (1.002, False)):
        cross = mu + factor * critical * np.array([[1.0], [-1.0]])
        found = sparse.heterogeneity_lasso(np.eye(1), cross, learning_rate=eta)
        assert (found.estimate[0] > 0) == learned


def two_features(
    spread: float, eta: float, rho: float, mu: float, weight: float, s1: float
) -> np.ndarray:
    """The Lasso's solution with an invariant feature of variance s1 and a spurious one of 2."""
    c = rho * np.sqrt(2 * s1)
    second = np.array([[s1, c], [c, 2.0]])
    cross = np.array([[weight, mu + spread], [weight, mu - spread]]) @ second
    return in_double(sparse.heterogeneity_lasso, second, cross, learning_rate=eta).estimate


FEATURES = [(0.0, 0.5, 1.0), (0.5, 0.5, 1.0), (-0.6, 0.5, 8.0), (0.7, 0.5, 8.0)]


@pytest.mark.parametrize(("rho", "mu", "s1"), few(FEATURES, {(0.7, 0.5, 8.0)}))
def test_two_features_are_lost_at_the_thresholds_of_the_closed_form(
    rho: float, mu: float, s1: float
) -> None:
    eta, weight = 0.05, 1.0
    found = in_double(
        sparse.feature_thresholds,
        eta,
        rho,
        mean=mu,
        invariant_weight=weight,
        invariant_variance=s1,
        spurious_variance=2.0,
    )
    numbers = eta, rho, mu, weight, s1
    assert two_features(0.99 * found.spurious_lost, *numbers)[1] > 0
    assert two_features(1.01 * found.spurious_lost, *numbers)[1] == 0
    if rho:
        assert found.spurious_lost < found.invariant_lost
        assert two_features(0.99 * found.invariant_lost, *numbers)[0] > 0
        assert two_features(1.01 * found.invariant_lost, *numbers)[0] == 0
    else:
        assert found.invariant_lost == np.inf
    if rho > 0 and found.unbiased > found.spurious_lost:
        assert two_features(found.unbiased, *numbers)[0] == pytest.approx(weight, abs=1e-9)
    assert found.spurious_enters == np.inf


@pytest.mark.slow
def test_a_heavy_penalty_of_the_invariant_feature_pushes_the_spurious_one_in() -> None:
    """Beyond rho = (s2 / s1)^(1/6), against no mean or a negative one."""
    eta, s1 = 0.05, 40.0
    edge = (2 / s1) ** (1 / 6)
    options = {"invariant_variance": s1, "spurious_variance": 2.0}
    for mu in (0.0, -0.1):
        inside = in_double(sparse.feature_thresholds, eta, 0.99 * edge, mean=mu, **options)
        assert inside.spurious_enters == np.inf
        assert inside.spurious_lost == 0
        beyond = in_double(sparse.feature_thresholds, eta, 1.2 * edge, mean=mu, **options)
        assert beyond.spurious_lost == np.inf
        assert beyond.spurious_enters < beyond.invariant_lost
        numbers = eta, 1.2 * edge, mu, 1.0, s1
        assert two_features(1.01 * beyond.spurious_enters + 0.1, *numbers)[1] > 0
        if mu:
            assert two_features(0.99 * float(beyond.spurious_enters), *numbers)[1] == 0
    assert sparse.feature_thresholds(eta, 1.01 * edge, mean=0.5, **options).spurious_lost == np.inf


def test_wrong_arguments_of_penalties_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cross must have shape \[E, d\], got \[2\]"):
        sparse.heterogeneity_lasso(np.eye(2), np.ones(2), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"second must have shape \[E, d, d\] = \[3, 2, 2\]"):
        sparse.heterogeneity_lasso(np.ones((2, 2, 2)), np.ones((3, 2)), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"estimate must have shape \[d\] = \[2\], got \[3\]"):
        sparse.gradient_variances(np.ones(3), np.eye(2), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"label_squares must have shape \[E\] = \[3\]"):
        sparse.gradient_variances(np.ones(2), np.eye(2), np.ones((3, 2)), label_squares=np.ones(1))
    with pytest.raises(ValueError, match="batch_size must be a finite number at least 1, got 0"):
        sparse.gradient_variances(np.ones(2), np.eye(2), np.ones((3, 2)), batch_size=0)
    with pytest.raises(ValueError, match="correlation must be above -1 and below 1, got 1"):
        sparse.feature_thresholds(0.1, 1.0)

"""Transitions and limits under logistic loss against plain gradient descent in NumPy."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from scipy import optimize

from causal_sgd.theory.invariance import coloured_logistic, minority_groups, separable

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def atoms(q: float, beta: float, colour: float) -> list[tuple[float, np.ndarray]]:
    """Probabilities and y x of the bits."""
    return [
        (
            (q if first else 1 - q) * (beta if second else 1 - beta),
            np.array([1.0 - 2 * first, colour * (1.0 - 2 * second)]),
        )
        for first, second in itertools.product((0, 1), (0, 1))
    ]


def slope(w: np.ndarray, q: float, beta: float, colour: float) -> np.ndarray:
    """The gradient of the logistic loss."""
    terms = [-mass * v / (1 + np.exp(v @ w)) for mass, v in atoms(q, beta, colour)]
    return np.sum(terms, 0)


def test_the_pooled_optimum_and_the_common_fixed_point() -> None:
    q, betas, colour = 0.2, np.array([0.1, 0.6, 0.2]), 1.7
    w = np.asarray(coloured_logistic.pooled(q, betas, colour=colour), float)
    np.testing.assert_allclose(slope(w, q, 0.3, colour), 0, atol=1e-6)
    invariant = np.array([np.log((1 - q) / q), 0])
    rates = np.asarray(coloured_logistic.growth(q, betas, colour=colour))
    for beta, rate in zip(betas, rates, strict=True):
        gradient = slope(invariant, q, beta, colour)
        assert abs(gradient[0]) < 1e-12  # in every environment
        assert -2 * gradient[1] == pytest.approx(rate, rel=1e-5)  # of u^2


@pytest.mark.parametrize("flips", [[0.0, 0.8], [0.05, 0.2, 0.9]])
def test_the_colour_dies_beyond_the_critical_learning_rate(flips: list[float]) -> None:
    q, colour, u, betas = 0.25, 1.3, 1e-6, np.array(flips)
    critical = float(coloured_logistic.critical_learning_rate(q, betas, colour=colour))
    w1 = np.log((1 - q) / q)
    gradients = [slope(np.array([w1, u * u]), q, beta, colour)[1] for beta in betas]

    def growth(eta: float) -> float:
        return float(np.mean([np.log(abs(1 - 2 * eta * g)) for g in gradients]))

    assert growth(0.999 * critical) > 0 > growth(1.001 * critical)
    for eta in (0.5 * critical, 1.2 * critical):
        found = float(coloured_logistic.exponent(q, betas, eta, colour=colour))
        assert found == pytest.approx(growth(eta), abs=2e-5)
    if len(betas) == 2:
        mu, spread = 0.2, 0.8
        law = mu / (2 * q * (1 - q) * colour * (spread**2 - mu**2))
        assert critical == pytest.approx(law, rel=1e-5)


def test_learning_rates_at_the_ends() -> None:
    assert np.isinf(coloured_logistic.critical_learning_rate(0.25, np.array([0.1, 0.2])))
    assert coloured_logistic.critical_learning_rate(0.25, np.array([0.9, 0.2])) == 0
    q = 0.25
    largest = float(coloured_logistic.largest_learning_rate(q))
    for factor, stays in ((0.97, True), (1.03, False)):
        u = np.sqrt(np.log((1 - q) / q)) * 1.001
        for _ in range(400):
            u -= 2 * factor * largest * u * slope(np.array([u * u, 0]), q, 0.5, 1.0)[0]
        assert (abs(u * u - np.log(3)) < 1e-3) == stays
    assert np.isinf(coloured_logistic.largest_learning_rate(0.0))


def groups(loss: str, eta: float, steps: int, share: float, margins, largest: float):
    """Weights after gradient descent on a fine grid of Z, and both errors."""
    points, masses = [], []
    for gamma, v, mass in zip(margins, ((1, 1, 0), (1, 0, 1)), (1 - share, share), strict=True):
        z = gamma + (largest - gamma) * (np.arange(2000) + 0.5) / 2000
        points.append(z[:, None] * np.array(v, float))
        masses.append(np.full(2000, mass / 2000))
    x, mass = np.concatenate(points), np.concatenate(masses)
    w = np.zeros(3)
    for _ in range(steps):
        m = x @ w
        w = w + eta * (mass * (np.exp(-m) if loss == "exponential" else 1 / (1 + np.exp(m)))) @ x
    wrong = 1 / (1 + np.exp(x @ w))
    return w, wrong[:2000].mean(), wrong[2000:].mean()


@pytest.mark.parametrize("loss", ["logistic", "exponential"])
def test_three_numbers_are_gradient_descent_on_all_examples(loss: str) -> None:
    share, margins, largest = 0.15, np.array([1.0, 1.4]), 3.0
    w, *wrong = groups(loss, 0.3, 400, share, margins, largest)
    found = minority_groups.descend(
        0.3, 400, minority_share=share, family=loss, margins=margins, largest=largest
    )
    np.testing.assert_allclose(found, w, rtol=1e-5)
    np.testing.assert_allclose(
        minority_groups.errors(found, margins=margins, largest=largest), wrong, rtol=1e-4
    )
    once = minority_groups.step(
        w, 0.3, minority_share=share, family=loss, margins=margins, largest=largest
    )
    again, *_ = groups(loss, 0.3, 401, share, margins, largest)
    np.testing.assert_allclose(once, again, rtol=1e-5)


def test_errors_approach_their_leading_terms_slowly() -> None:
    ratios = []
    for steps in (500, 4000):
        w = minority_groups.descend(5.0, steps, minority_share=0.1, margins=np.ones(2))
        leading = minority_groups.asymptotic_errors(5.0 * steps, minority_share=0.1)
        ratios.append(np.asarray(minority_groups.errors(w) / leading))
    assert (np.abs(ratios[1] - 1) < np.abs(ratios[0] - 1)).all()
    assert (ratios[1] < 1).all()
    beyond = minority_groups.asymptotic_errors(
        100.0, minority_share=0.1, margins=np.array([1.0, 3.0])
    )
    np.testing.assert_allclose(beyond, [1 / (2 * 0.9 * 100), 0], rtol=1e-6)


POINTS = np.array([[1.0, 1.5], [1.2, -1.4], [3.0, 1.0], [3.0, 2.0], [4.0, -1.0]])
SHARES = np.array([0.1, 0.3, 0.2, 0.2, 0.2])


def test_the_separator_is_that_of_a_quadratic_program() -> None:
    rng = np.random.default_rng(0)
    for points in (POINTS, rng.normal(size=(8, 3)) + np.array([3.0, 0.0, 0.0])):
        found = separable.separator(points, np.full(len(points), 1 / len(points)), 0.1)
        result = optimize.minimize(
            lambda w: w @ w / 2,
            np.full(points.shape[1], 2.0),
            jac=lambda w: w,
            constraints={"type": "ineq", "fun": lambda w, v=points: v @ w - 1},
            method="SLSQP",
            tol=1e-12,
        )
        np.testing.assert_allclose(found.direction, result.x, atol=2e-4)
        np.testing.assert_allclose(points.T @ found.duals, result.x, atol=2e-4)


def test_gradient_descent_approaches_the_separator() -> None:
    eta, w, gaps, losses = 0.5, np.zeros(2), [], []
    found = separable.separator(POINTS, SHARES, eta)
    limit = np.asarray(found.direction, float)
    limit = limit / np.linalg.norm(limit)
    marks = (3000, 30_000)
    for t in range(1, marks[-1] + 1):
        m = POINTS @ w
        w = w + eta * (SHARES / (1 + np.exp(m))) @ POINTS
        if t in marks:
            gaps.append(np.linalg.norm(w / np.linalg.norm(w) - limit))
            losses.append(t * (SHARES @ np.log1p(np.exp(-POINTS @ w))))
    offset = w - np.asarray(found.direction) * np.log(marks[-1])
    across = offset - (offset @ limit) * limit
    expected = np.asarray(found.offset, float)
    np.testing.assert_allclose(across, expected - (expected @ limit) * limit, atol=0.005)
    law = np.asarray(separable.direction_gap(found, np.array(marks)), float)
    np.testing.assert_allclose(gaps, law, rtol=0.02)
    assert losses[1] == pytest.approx(float(separable.scaled_loss(found, eta)), rel=0.02)


def test_steps_of_fixed_length_approach_it_faster() -> None:
    length, w = 0.05, np.zeros(2)
    found = separable.separator(POINTS, SHARES, 1.0)
    limit = np.asarray(found.direction, float)
    limit = limit / np.linalg.norm(limit)
    for _ in range(2000):
        gradient = (SHARES / (1 + np.exp(POINTS @ w))) @ POINTS
        w = w + length * gradient / np.linalg.norm(gradient)
    gap = np.linalg.norm(w / np.linalg.norm(w) - limit)
    assert gap == pytest.approx(float(separable.fixed_length_gap(found, 2000, length)), rel=0.02)


def test_they_compile_and_name_wrong_arguments() -> None:
    rates = np.array([0.1, 0.2])
    batched = jax.jit(jax.vmap(lambda eta: separable.separator(POINTS, SHARES, eta)))(rates)
    np.testing.assert_allclose(
        batched.offset[1], separable.separator(POINTS, SHARES, 0.2).offset, rtol=1e-4
    )
    w = minority_groups.descend(rates, 10, minority_share=np.array([[0.1], [0.5]]))
    assert w.shape == (2, 2, 3)
    single = minority_groups.descend(0.2, 10, minority_share=0.5)
    np.testing.assert_allclose(w[1, 1], single, rtol=1e-5)
    with pytest.raises(ValueError, match=r"margins must have the shape \[..., 2\]"):
        minority_groups.errors(np.zeros(3), margins=np.ones(1))
    with pytest.raises(ValueError, match="family must be"):
        minority_groups.descend(0.1, 3, minority_share=0.1, family="hinge")
    with pytest.raises(ValueError, match=r"shares must have the shape \[5\]"):
        separable.separator(POINTS, SHARES[:2], 0.1)
    with pytest.raises(ValueError, match="last axis of environments"):
        coloured_logistic.exponent(0.1, 0.2, 0.1)

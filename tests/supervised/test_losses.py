"""Losses against SciPy and autodiff, and their expectations against adaptive quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from causal_sgd.supervised import losses
from causal_sgd.supervised._expectation import expected_loss, hermite
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PREDICTIONS = np.array([-80.0, -30.0, -2.0, -0.1, 0.0, 0.3, 5.0, 40.0, 80.0])
# Values and the first two derivatives for a label y, by SciPy in double precision.
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]] = {
    "squared": lambda f, y: ((f - y) ** 2 / 4, (f - y) / 2, 0.5 + 0 * f),
    "logistic": lambda f, y: (
        np.logaddexp(0, -y * f),
        -y * special.expit(-y * f),
        special.expit(f) * special.expit(-f),
    ),
    "exponential": lambda f, y: (np.exp(-y * f), -y * np.exp(-y * f), np.exp(-y * f)),
}


def by_autodiff(loss: Callable[..., jax.Array], f: Any, y: Any) -> list[np.ndarray]:
    """The value and two derivatives, one inside the other."""
    functions = [loss, jax.grad(loss), jax.grad(jax.grad(loss))]
    return [np.asarray(jax.jit(jax.vmap(each))(f, y)) for each in functions]


@pytest.mark.parametrize("name", few(BINARY, {"logistic"}))
def test_losses_and_their_derivatives_are_those_of_scipy(name: str) -> None:
    """In single precision, at predictions far beyond what its exponentials can hold naively."""
    loss = getattr(losses, name)
    f = np.tile(PREDICTIONS, 2)
    y = np.repeat([1.0, -1.0], len(PREDICTIONS))
    expected = BINARY[name](f, y)
    given = jnp.asarray(f, jnp.float32), jnp.asarray(y, jnp.float32)
    closed = [loss(*given), *loss.derivatives(*given)]
    plain = losses.Loss(loss.value)
    for found in (closed, by_autodiff(loss, *given)):
        for one, other in zip(found, expected, strict=True):
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-37)
    near = np.abs(f) < 10  # of the plain formula autodiff loses the tails
    for one, other in zip([plain(*given), *plain.derivatives(*given)], expected, strict=True):
        chosen = near & (f != 0)
        np.testing.assert_allclose(np.asarray(one)[chosen], other[chosen], rtol=2e-4)


def test_the_softmax_of_two_classes_is_the_logistic_loss() -> None:
    f, y = jnp.asarray(PREDICTIONS), jnp.array([0, 1] * 4 + [1])
    both = jnp.stack([jnp.zeros_like(f), f], 1)
    expected = np.logaddexp(0, -np.where(np.asarray(y) == 1, 1, -1) * PREDICTIONS)
    np.testing.assert_allclose(losses.softmax(both, y), expected, rtol=2e-6, atol=1e-7)
    logits = np.random.default_rng(0).normal(size=(5, 4))
    labels = jnp.array([3, 0, 1, 1, 2])
    wanted = -special.log_softmax(logits, 1)[np.arange(5), np.asarray(labels)]
    np.testing.assert_allclose(losses.softmax(jnp.asarray(logits), labels), wanted, rtol=1e-5)
    slope = jax.grad(lambda f: jnp.sum(losses.softmax(f, labels)))(jnp.asarray(logits))
    expected = special.softmax(logits, 1) - np.eye(4)[np.asarray(labels)]
    np.testing.assert_allclose(slope, expected, atol=1e-6)


DEVIATIONS = (2.0, 3.0, 4.0, 6.0)
# What the documentation of `measurements.quadrature` states.
STATED = {
    16: (7e-6, 3e-4, 2e-3, 1.2e-2),
    24: (4e-7, 4e-5, 4e-4, 4e-3),
    64: (1e-7, 1e-7, 2e-6, 1e-4),
}
MEANS = np.linspace(-6, 6, 13)


def adaptive(function: Callable[[float], float], mean: float, deviation: float) -> float:
    """E function(f) for f ~ N(mean, deviation^2), to 1e-11."""

    def integrand(t: float) -> float:
        return function(mean + deviation * t) * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)

    kink = -mean / deviation
    return integrate.quad(integrand, -10, 10, points=[kink], epsabs=1e-12, epsrel=1e-11)[0]


@pytest.mark.parametrize("nodes", few(STATED, {16, 64}))
def test_expected_logistic_losses_have_the_stated_errors(nodes: int) -> None:
    with jax.enable_x64(True):
        expectation = expected_loss(losses.logistic, nodes)
        mean, deviation = (jnp.asarray(v) for v in np.meshgrid(MEANS, DEVIATIONS))
        found = jax.jit(expectation)(mean, deviation, jnp.ones(()))
    for row, s, most in zip(np.asarray(found), DEVIATIONS, STATED[nodes], strict=True):
        exact = [adaptive(lambda f: np.logaddexp(0, -f), m, s) for m in MEANS]
        worst = np.abs(row - exact).max()
        assert worst < most
        assert worst > most / 4 or most <= 1e-7  # the statement is no wider than it must be


@pytest.mark.parametrize("name", few(BINARY, ()))
def test_derivatives_of_expectations_are_expectations_of_derivatives(name: str) -> None:
    """Of first and second order, and the third by autodiff, all in double precision."""
    loss, mean, deviation = getattr(losses, name), 0.4, 0.7
    with jax.enable_x64(True):
        expectation = expected_loss(loss, 24)
        point = jnp.array([mean, deviation])

        def value(v: jax.Array) -> jax.Array:
            return expectation(v[0], v[1], -jnp.ones(()))

        height, slope, hessian = jax.jit(
            lambda v: (value(v), jax.grad(value)(v), jax.hessian(value)(v))
        )(point)
        third = jax.jit(jax.jacfwd(jax.hessian(value)))(point)
        points, weights = hermite(24)

        def plain(v: jax.Array) -> jax.Array:
            return jnp.sum(weights * loss.value(v[0] + v[1] * points, -jnp.ones(24)))

        expected = jax.jit(jax.jacfwd(jax.hessian(plain)))(point)

    def of(order: int, power: int) -> float:
        def along(f: float) -> float:
            each = BINARY[name](np.array(f), np.array(-1.0))[order]
            return float(each) * ((f - mean) / deviation) ** power

        return adaptive(along, mean, deviation)

    np.testing.assert_allclose(height, of(0, 0), rtol=1e-8)
    np.testing.assert_allclose(slope, [of(1, 0), of(1, 1)], rtol=1e-8)
    wanted = [[of(2, 0), of(2, 1)], [of(2, 1), of(2, 2)]]
    np.testing.assert_allclose(hessian, wanted, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(third, expected, rtol=1e-6, atol=1e-10)


def test_nodes_integrate_polynomials_exactly() -> None:
    for nodes in (1, 4, 16):
        points, weights = hermite(nodes)
        for degree in range(min(2 * nodes, 12)):
            expected = 0 if degree % 2 else special.factorial2(degree - 1) if degree else 1
            size = np.sum(weights * np.abs(points) ** degree)
            np.testing.assert_allclose(
                np.sum(weights * points**degree), expected, atol=1e-12 * max(size, 1)
            )

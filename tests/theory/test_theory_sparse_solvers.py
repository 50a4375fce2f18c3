"""The Lasso and the interpolators against linear programs, SciPy and plain coordinate descent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from causal_sgd.theory import sparse
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test draws the same numbers, whichever others run."""
    RNG.bit_generator.state = START


def descend(second: np.ndarray, cross: np.ndarray, weights: np.ndarray, signed: bool) -> np.ndarray:
    """The Lasso by plain coordinate descent in double precision."""
    theta = np.zeros(len(cross))
    for _ in range(3000):
        before = theta.copy()
        for i, row in enumerate(second):
            pull = cross[i] - row @ theta + row[i] * theta[i]
            new = np.sign(pull) * max(abs(pull) - weights[i], 0)
            theta[i] = (new if signed else max(new, 0)) / row[i]
        if abs(theta - before).max() < 1e-13:
            break
    return theta


def violation(
    second: np.ndarray, cross: np.ndarray, weights: np.ndarray, theta: np.ndarray, signed: bool
) -> float:
    """The largest violation of the optimality conditions, relative to |b|."""
    slope = second @ theta - cross
    on = abs(slope + weights * np.sign(theta))
    off = np.maximum((abs(slope) if signed else -slope) - weights, 0)
    assert signed or (theta >= 0).all()
    return float(np.where(theta != 0, on, off).max() / abs(cross).max())


def problem(d: int, n: int, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sparse regression with noise: S, b and unequal weights."""
    x = RNG.normal(size=(n, d))
    y = x[:, :3] @ [1.0, -1.0, 2.0] + 0.1 * RNG.normal(size=n)
    return x.T @ x / n, x.T @ y / n, size * RNG.uniform(0.5, 2, d)


PROBLEMS = [
    (d, n, size, signed)
    for d, n, size in ((20, 50, 0.02), (60, 30, 0.01), (60, 30, 0.3))
    for signed in (False, True)
]
DEFAULT = {(60, 30, 0.01, True)}


@pytest.mark.parametrize(("d", "n", "size", "signed"), few(PROBLEMS, DEFAULT))
def test_the_lasso_is_optimal_and_that_of_plain_descent(
    d: int, n: int, size: float, signed: bool
) -> None:
    second, cross, weights = problem(d, n, size)
    theta = np.asarray(sparse.weighted_lasso(second, cross, weights, signed=signed), float)
    assert violation(second, cross, weights, theta, signed) < 2e-6
    np.testing.assert_allclose(theta, descend(second, cross, weights, signed), atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
def test_the_lasso_in_double_precision(signed: bool) -> None:
    second, cross, weights = problem(40, 20, 0.005)
    with jax.enable_x64(True):
        theta = np.asarray(sparse.weighted_lasso(second, cross, weights, signed=signed))
    assert violation(second, cross, weights, theta, signed) < 1e-12
    bounds = [(None if signed else 0, None)] * 40

    def loss(theta: np.ndarray) -> float:
        return float(theta @ second @ theta / 2 - cross @ theta + weights @ abs(theta))

    found = optimize.minimize(loss, theta + 0.01, bounds=bounds, method="L-BFGS-B")
    assert loss(theta) <= found.fun + 1e-12


@pytest.mark.slow
def test_the_lasso_maps_over_leading_axes_and_keeps_dead_coordinates_at_zero() -> None:
    second, cross, weights = problem(6, 10, 0.1)
    second[2] = second[:, 2] = 0
    sizes = np.array([0.1, 1.0, 100.0])[:, None]
    together = sparse.weighted_lasso(second, cross, sizes * weights)
    apart = jax.vmap(lambda w: sparse.weighted_lasso(second, cross, w))(sizes * weights)
    np.testing.assert_allclose(together, apart, atol=1e-6)
    assert not together[:, 2].any()
    assert not together[2].any()


def regression(d: int, n: int, s: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.normal(size=(n, d))
    return x, x[:, :s] @ RNG.normal(size=s) + noise * RNG.normal(size=n)


CASES = [
    (d, n, s, noise, double)
    for d, n, s in ((5, 2, 1), (30, 20, 3), (30, 20, 12))
    for noise in (0.0, 0.3)
    for double in (False, True)
]


@pytest.mark.parametrize(("d", "n", "s", "noise", "double"), few(CASES, {(5, 2, 1, 0.3, True)}))
def test_the_least_l1_norm_is_that_of_linear_programming(
    d: int, n: int, s: int, noise: float, double: bool
) -> None:
    x, y = regression(d, n, s, noise)
    program = optimize.linprog(np.ones(2 * d), A_eq=np.hstack([x, -x]), b_eq=y, method="highs")
    with jax.enable_x64(double):
        found = np.asarray(sparse.l1_interpolator(x, y))
    expected = program.x[:d] - program.x[d:]
    np.testing.assert_allclose(found, expected, atol=1e-9 if double else 2e-5)


@pytest.mark.slow
def test_nonnegative_interpolators_of_least_l1_norm_and_entropy() -> None:
    x, _ = regression(30, 15, 3, 0.0)
    y = x[:, :6] @ RNG.uniform(0.5, 2, 6)
    program = optimize.linprog(np.ones(30), A_eq=x, b_eq=y, method="highs")
    with jax.enable_x64(True):
        least = np.asarray(sparse.l1_interpolator(x, y, nonnegative=True))
        beta = np.asarray(sparse.hyperbolic_interpolator(x, y, 0.01, nonnegative=True))
    np.testing.assert_allclose(least, program.x, atol=1e-9)
    np.testing.assert_allclose(x @ beta, y, atol=1e-12)
    logs = np.log(beta / 0.01)
    np.testing.assert_allclose(x.T @ np.linalg.lstsq(x.T, logs)[0], logs, atol=1e-9)


KINDS = [(8, 0.3), (16, 0.3), (16, 0.0)]
SCALES = np.array([1e-16, 1e-8, 1e-3, 1.0, 100.0])


def least_entropy(x: np.ndarray, y: np.ndarray, double: bool) -> np.ndarray:
    """The interpolators at all scales, [5, 20]."""
    with jax.enable_x64(double):
        scales = SCALES[:, None] * np.ones((1, x.shape[1]))
        return np.asarray(sparse.hyperbolic_interpolator(x, y, scales)).astype(float)


@pytest.mark.parametrize(("n", "noise"), few(KINDS, {(16, 0.3)}))
def test_the_interpolator_of_least_entropy_is_optimal(n: int, noise: float) -> None:
    """X beta = y, and arcsinh(beta / a) in the span of the inputs."""
    x, y = regression(20, n, 3, noise)
    for scale, beta in zip(SCALES, least_entropy(x, y, double=True), strict=True):
        np.testing.assert_allclose(x @ beta, y, atol=1e-12 * abs(y).max())
        images = np.arcsinh(beta / scale)
        span = x.T @ np.linalg.lstsq(x.T, images)[0]
        # Without noise three weights carry all; the others, down to 1e-16, only have to be small.
        np.testing.assert_allclose(scale * np.sinh(span), beta, atol=1e-9 * abs(beta).max())
        if noise:
            np.testing.assert_allclose(span, images, atol=1e-9 * abs(images).max())


@pytest.mark.slow
@pytest.mark.parametrize(("n", "noise"), KINDS)
def test_the_interpolator_in_single_precision(n: int, noise: float) -> None:
    x, y = regression(20, n, 3, noise)
    betas = least_entropy(x, y, double=False)
    for beta, exact in zip(betas, least_entropy(x, y, double=True), strict=True):
        np.testing.assert_allclose(x @ beta, y, atol=1e-6 * abs(y).max())
        np.testing.assert_allclose(beta, exact, atol=2e-6 * abs(exact).max())


@pytest.mark.slow
def test_the_interpolator_is_where_gradient_flow_ends() -> None:
    """Small steps on beta = u^2 - v^2, each coordinate with a start of its own."""
    x, y = regression(8, 4, 2, 0.1)
    start = RNG.uniform(0.1, 0.4, 8)
    u, v = start.copy(), start.copy()
    for _ in range(40_000):
        slope = x.T @ (x @ (u**2 - v**2) - y) / 4
        u, v = u * (1 - 0.01 * slope), v * (1 + 0.01 * slope)
    gain = -np.log(u * v / start**2)
    assert 0 < gain.max() < 0.1
    beta = sparse.hyperbolic_interpolator(x, y, 2 * u * v)
    np.testing.assert_allclose(u**2 - v**2, beta, atol=2e-5)


@pytest.mark.slow
def test_large_scales_give_the_least_l2_norm() -> None:
    x, y = regression(10, 4, 2, 0.1)
    beta = sparse.hyperbolic_interpolator(x, y, 100.0)
    np.testing.assert_allclose(beta, np.linalg.pinv(x) @ y, atol=1e-3)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"second must have shape \[..., d, d\] with d = 3"):
        sparse.weighted_lasso(np.eye(2), np.ones(3), 0.1)
    with pytest.raises(ValueError, match=r"weights must be a finite number at least 0, got -1"):
        sparse.weighted_lasso(np.eye(2), np.ones(2), -1.0)
    with pytest.raises(
        ValueError, match=r"weights must have shape \[..., d\] = \[..., 2\] or \[\]"
    ):
        sparse.weighted_lasso(np.eye(2), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=r"inputs must have shape \[..., n, d\] with 1 <= n <= d"):
        sparse.l1_interpolator(np.eye(3, 2), np.ones(3))
    with pytest.raises(ValueError, match=r"labels must have shape \[..., n\] with n = 2"):
        sparse.l1_interpolator(np.eye(2, 3), np.ones(3))
    with pytest.raises(ValueError, match=r"scale must be a finite number above 0, got 0"):
        sparse.hyperbolic_interpolator(np.eye(2, 3), np.ones(2), jnp.zeros(()))
    with pytest.raises(ValueError, match=r"leading axes of second and cross must broadcast"):
        sparse.weighted_lasso(np.ones((2, 2, 2)), np.ones((3, 2)), 0.1)

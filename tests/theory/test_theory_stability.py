"""The edge, the catapult and the thresholds of finite batches against plain simulations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize

from causal_sgd import theory
from causal_sgd.theory import stability

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def cubic(eta: float, s: float, u: np.ndarray, steps: int) -> np.ndarray:
    """The path [steps, ...] of u."""
    path = []
    for _ in range(steps):
        u = (1 + eta * (s - u * u)) * u
        path.append(u)
    return np.array(path)


@pytest.mark.parametrize(("eta", "s"), [(0.5, 1.0), (0.52, 2.0), (1.1, 1.0), (0.605, 2.0)])
def test_a_direction_settles_at_its_level_or_cycle(eta: float, s: float) -> None:
    squares = cubic(eta, s, np.array(0.3), 4000)[-200:] ** 2
    cycle = stability.two_cycle(eta, s)
    np.testing.assert_allclose([squares.min(), squares.max()], cycle, rtol=1e-5)
    np.testing.assert_allclose(squares.mean(), stability.edge_mean(eta, s), rtol=1e-5)
    # The derivative of one step, or of two beyond the edge, at the settled level.
    slopes = 1 + eta * (s - 3 * squares[:2])
    expected = slopes[0] if eta * s <= 1 else slopes.prod()
    assert float(stability.edge_multiplier(eta, s)) == pytest.approx(expected, abs=1e-4)


def test_the_edges_are_those_of_the_map() -> None:
    s = 2.0
    edges = [float(edge) for edge in stability.edges(s)]
    for place, expected in ((0, -1.0), (1, -1.0)):
        below = float(stability.edge_multiplier(edges[place] * 0.9999, s))
        assert below == pytest.approx(expected, abs=2e-3)
    below, above = (cubic(factor * edges[2], s, np.array(0.3), 3000) for factor in (0.999, 1.001))
    assert (below > 0).all()
    assert (above < 0).any()
    starts = np.linspace(0.01, 1.9, 50) / edges[3] ** 0.5
    with np.errstate(over="ignore", invalid="ignore"):
        held, lost = (cubic(factor * edges[3], s, starts, 3000) for factor in (0.999, 1.002))
    assert np.isfinite(held).all()
    assert not np.isfinite(lost[-1]).any()
    assert stability.edge_mean(1.01 * edges[3], s) == np.inf
    assert jnp.isnan(stability.edge_mean(0.99 * edges[3], s))


def test_the_mean_is_unbiased_again_where_runs_diverge() -> None:
    """The third Chebyshev polynomial: the mean of x = eta u^2 is 2 under the arcsine law."""
    angles = np.random.default_rng(0).uniform(0, np.pi, 100_000)
    image = cubic(1.0, 2.0, 2 * np.cos(angles), 1)[0]
    np.testing.assert_allclose(image, -2 * np.cos(3 * angles), atol=1e-12)
    assert (image**2).mean() == pytest.approx(2, abs=0.02)


def test_the_catapult_is_that_of_two_vectors() -> None:
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(2, 7)) / 7**0.5
    state, eta = (u @ v, (u @ u + v @ v) / 2), 2.4
    for s in [0.0, 0.3, -0.2, 0.0, 0.1]:
        r = u @ v - s
        before = u @ u - v @ v
        u, v = u - eta / 2 * r * v, v - eta / 2 * r * u
        state = stability.catapult_step(eta, *state, s)
        np.testing.assert_allclose(state, (u @ v, (u @ u + v @ v) / 2), rtol=1e-5, atol=1e-6)
        assert u @ u - v @ v == pytest.approx(before * (1 - (eta * r / 2) ** 2))


def test_the_balance_exponent_is_a_mean_logarithm() -> None:
    eta, mu, spread = 0.2, 1.0, 5.0
    expected = np.mean(np.log(np.abs(1 - (eta * (mu + spread * np.array([1, -1])) / 2) ** 2)))
    assert float(stability.balance_exponent(eta, mu, spread)) == pytest.approx(expected, abs=1e-6)
    mean, _ = integrate.quad(
        lambda s: np.log(abs(1 - (eta * s / 2) ** 2)) / (2 * spread), mu - spread, mu + spread
    )
    result = float(stability.balance_exponent(eta, mu, spread, "uniform"))
    assert result == pytest.approx(mean, abs=1e-6)
    with pytest.raises(ValueError, match="family must be"):
        stability.balance_exponent(eta, mu, spread, "cauchy")


NATURES = [
    {"dim": 6, "invariant_rank": 2},
    {"dim": 6, "invariant_rank": 2, "spurious_rank": 2, "mean": 0.4, "spread": 1.5},
    {"dim": 5, "invariant_rank": 1, "spread": 2.0, "label_noise": 1.0, "invariant_eigenvalue": 0.7},
]


def residuals(
    rng: np.random.Generator, size: int, m: int, nature: dict[str, float], labels: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Measurements [n, m, d, d] and the part [n, m] of their residuals that -A_e and noise make."""
    dim, rank = int(nature["dim"]), int(nature["invariant_rank"])
    spurious = int(nature.get("spurious_rank", 1))
    x = rng.normal(size=(size, m, dim, dim))
    x = (x + x.transpose(0, 1, 3, 2)) / 2
    own = nature.get("mean", 0.0) + nature.get("spread", 0.0) * rng.choice(
        [-1, 1], (size, 1, spurious)
    )
    diagonal = x[:, :, range(rank, rank + spurious), range(rank, rank + spurious)]
    noise = nature.get("label_noise", 0.0) * rng.normal(size=(size, m)) if labels else 0.0
    return x, -(diagonal * own).sum(2) - noise


def linear_step(
    delta: np.ndarray, eta: float, sigma: float, x: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """The linear step [n, d, r] of deviations [n, d, r], without the noise that drives it."""
    rank, m = delta.shape[2], x.shape[1]
    columns = x[..., :rank]  # x Q
    linear = 2 * sigma**0.5 * np.einsum("nmdr,ndr->nm", columns, delta)  # <x, L>
    first = np.einsum("nm,nmde->nde", own, x) @ delta
    second = sigma**0.5 * np.einsum("nm,nmdr->ndr", linear, columns)
    return delta - eta / m * (first + second)


@pytest.mark.parametrize("nature", NATURES)
def test_second_moments_are_those_of_drawn_measurements(nature: dict[str, float]) -> None:
    """10^5 draws of one linear step from one deviation; z-scores below 4.5."""
    rng, m, eta = np.random.default_rng(2), 5, 0.3
    dim, rank = int(nature["dim"]), int(nature["invariant_rank"])
    spurious, sigma = int(nature.get("spurious_rank", 1)), nature.get("invariant_eigenvalue", 1.0)
    delta = rng.normal(size=(dim, rank))
    delta[:rank] = (delta[:rank] + delta[:rank].T) / 2

    def moments(delta: np.ndarray) -> np.ndarray:
        inside = delta[..., :rank, :] + delta[..., :rank, :].swapaxes(-1, -2)
        squares = delta**2
        return np.stack(
            [
                (inside**2).sum((-1, -2)),
                np.trace(inside, axis1=-2, axis2=-1) ** 2,
                squares[..., rank : rank + spurious, :].sum((-1, -2)),
                squares[..., rank + spurious :, :].sum((-1, -2)),
            ],
            -1,
        )

    matrix = stability.second_moments(eta, m, **nature)
    expected = np.asarray(matrix, float) @ moments(delta)
    drawn = []
    for _ in range(4):
        x, own = residuals(rng, 25_000, m, nature, labels=True)
        start = np.broadcast_to(delta, (len(x), dim, rank))
        drawn.append(moments(linear_step(start, eta, sigma, x, own)))
    values = np.concatenate(drawn)
    z = (values.mean(0) - expected) / (values.std(0) / len(values) ** 0.5)
    assert (np.abs(z) < 4.5).all(), z


def test_the_operator_has_its_closed_form_without_environments() -> None:
    """In x = sigma h and y = 2 sigma (v + w), as two times two numbers."""
    eta, sigma, m, d, r = 0.1, 1.3, 7.0, 9.0, 2.0
    a = eta * sigma
    c = a * a / m
    expected = [
        [1 - 4 * a + 4 * a * a * (1 + 1 / m) + 2 * c * r * (r + 1), 2 * c * r * (r + 1)],
        [c * r * (d - r), 1 - 2 * a + a * a * (1 + 1 / m) + c * r * (d - r)],
    ]
    matrix = np.asarray(
        stability.second_moments(eta, m, dim=d, invariant_rank=r, invariant_eigenvalue=sigma)
    )
    for place in (2, 3):  # the blocks v and w are alike
        reduced = [
            [matrix[0, 0], matrix[0, place] / 2],
            [2 * (matrix[2, 0] + matrix[3, 0]), matrix[2, place] + matrix[3, place]],
        ]
        np.testing.assert_allclose(reduced, expected, rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("m", [1.0, 30.0, 1e4])
def test_the_spectral_radius_is_one_at_the_mean_square_edge(spread: float, m: float) -> None:
    nature = {"dim": 12.0, "invariant_rank": 3.0, "spread": spread, "mean": 0.3}
    edge = float(stability.mean_square_edge(m, **nature))
    radii = []
    for factor in (0.9, 1.0, 1.1):
        matrix = np.asarray(stability.second_moments(factor * edge, m, **nature), float)
        radii.append(np.abs(np.linalg.eigvals(matrix)).max())
    assert radii[0] < 1 < radii[2]
    assert radii[1] == pytest.approx(1, abs=2e-6)
    assert edge < float(stability.heterogeneity_cap(1.0, 0.3, spread))


def test_the_stationary_error_is_that_of_the_driven_linear_step() -> None:
    """By 1500 chains of 90 steps, of which the last 50 count; their error is 0.7 %."""
    rng, m, dim, eta, sigma = np.random.default_rng(4), 20, 5, 0.15, 1.2
    nature = {"dim": dim, "invariant_rank": 1, "spread": 1.0, "mean": 0.2, "label_noise": 0.5}
    delta, squares = np.zeros((1500, dim, 1)), []
    for step in range(90):
        x, own = residuals(rng, len(delta), m, nature, labels=True)
        noise = sigma**0.5 * np.einsum("nm,nmdr->ndr", own, x[..., :1])
        delta = linear_step(delta, eta, sigma, x, own) - eta / m * noise
        if step >= 40:
            squares.append(4 * delta[:, 0] ** 2 + 2 * (delta[:, 1:] ** 2).sum(1))
    expected = stability.stationary_error(eta, m, invariant_eigenvalue=sigma, **nature)
    measured = (sigma * np.mean(squares)) ** 0.5
    assert measured == pytest.approx(float(expected), rel=0.03)


def test_the_stationary_error_is_the_floor_and_diverges_at_the_edge() -> None:
    nature = {"dim": 200, "invariant_rank": 1, "spread": 2.0}
    floor = theory.error_floor(
        2.0, learning_rate=1e-3, batch_size=500, dim=200, invariant_rank=1, spurious_rank=1
    )
    small = stability.stationary_error(1e-3, 500, **nature)
    assert float(small) == pytest.approx(float(floor), rel=0.01)
    nature = {"dim": 5, "invariant_rank": 1, "label_noise": 1.0}
    edge = stability.mean_square_edge(20, **nature)
    errors = stability.stationary_error(edge * np.array([0.5, 0.99, 0.999, 1.01]), 20, **nature)
    assert (np.diff(errors) > 0).all()
    assert errors[3] == np.inf
    assert float(errors[2] / errors[1]) == pytest.approx(10**0.5, rel=0.1)
    assert stability.stationary_error(0.1, 10, dim=5, invariant_rank=2) == 0


def test_the_mean_square_edge_is_linear_and_then_capped() -> None:
    numbers = {"dim": 50, "invariant_rank": 3}
    edges = stability.mean_square_edge(np.array([1.0, 4, 16, 64, 256, 1024, 4096]), **numbers)
    quoted = [0.0129, 0.0505, 0.187, 0.566, 0.952, 0.992, 0.998]
    np.testing.assert_allclose(edges, quoted, rtol=4e-3)
    assert 1 / float(edges[0]) == pytest.approx(77.6, abs=0.1)
    # The smaller root of (p q - z) x^2 - (2 p + 4 q) x + 8, the determinant for m = x/eta -> 0.
    p, q, z = 4 + 2 * 12, 1 + 3 * 47, 2 * 9 * 4 * 47
    slope = min(np.roots([p * q - z, -(2 * p + 4 * q), 8]))
    assert float(stability.critical_batch_size(**numbers)) == pytest.approx(1 / slope, rel=1e-4)
    for spread in (1.0, 4.0):
        cap = stability.heterogeneity_cap(1.0, 0.2, spread)
        edge = stability.mean_square_edge(1e7, mean=0.2, spread=spread, **numbers)
        assert float(edge) == pytest.approx(float(cap), rel=1e-3)
    assert stability.mean_square_edge(10, mean=1.0, **numbers) == 0
    assert jnp.isnan(stability.critical_batch_size(mean=1.5, **numbers))
    # Both the slope and the cap fall like 1/M^2.
    knees = stability.critical_batch_size(spread=np.array([20.0, 40.0]), **numbers)
    assert float(knees[1] / knees[0]) == pytest.approx(1, abs=0.02)


CAPPED = [(1, 0, 2), (1, 0.5, 0.2), (2, 0.3, 1), (1, 0, 0)]


@pytest.mark.parametrize(("sigma", "mu", "spread"), CAPPED)
def test_the_caps_are_where_the_factor_stops_contracting(
    sigma: float, mu: float, spread: float
) -> None:
    values = np.array([mu + spread, mu - spread]) - sigma

    def square(eta: float) -> float:
        return float(np.mean((1 + eta * values) ** 2) - 1)

    def log(eta: float) -> float:
        return float(np.mean(np.log(np.abs(1 + eta * values))))

    for function, cap in (
        (square, stability.heterogeneity_cap(sigma, mu, spread)),
        (log, stability.almost_sure_cap(sigma, mu, spread)),
    ):
        rates = np.linspace(1e-4, 0.9999 / sigma, 5001)
        grows = np.array([function(rate) > 0 for rate in rates])
        expected = rates[np.argmax(grows)] if grows.any() else 1 / sigma
        assert float(cap) == pytest.approx(expected, abs=3e-4)
    assert stability.heterogeneity_cap(sigma, sigma, spread) == 0


def test_the_almost_sure_range_ends_where_a_strong_spurious_direction_grows_again() -> None:
    sigma, mu, spread = 1.0, 1.4, 3.0
    end = float(stability.almost_sure_cap(sigma, mu, spread))
    root = optimize.brentq(
        lambda eta: float(theory.lyapunov_two_point(eta, mu - sigma, spread)), 0.5 * end, 1.5 * end
    )
    assert end == pytest.approx(root, rel=1e-4)
    assert theory.lyapunov_two_point(0.99 * end, mu - sigma, spread) < 0
    assert stability.almost_sure_cap(sigma, mu, 0.1) == 0


@pytest.mark.parametrize("spread", [pytest.param(0.0, marks=pytest.mark.slow), 2.0])
def test_the_exponent_is_that_of_a_product_of_drawn_steps(spread: float) -> None:
    rng, m, dim, chains, steps = np.random.default_rng(3), 4, 6, 400, 250
    nature = {"dim": dim, "invariant_rank": 1, "spread": spread}
    eta = 1.2 * float(stability.mean_square_edge(m, **nature))
    delta, logs = rng.normal(size=(chains, dim, 1)), []
    for _ in range(steps):
        x, own = residuals(rng, chains, m, nature, labels=False)
        delta = linear_step(delta, eta, 1.0, x, own)
        size = np.linalg.norm(delta, axis=(1, 2), keepdims=True)
        delta, logs = delta / size, [*logs, np.log(size[:, 0, 0])]
    means = np.mean(logs[25:], 0)
    result = stability.almost_sure_exponent(
        eta, m, dim=dim, spread=spread, key=jax.random.key(0), num_steps=300, num_chains=128
    )
    error = np.hypot(means.std() / chains**0.5, float(result.standard_error))
    assert abs(means.mean() - float(result.exponent)) < 4.5 * error
    assert result.exponent < 0  # typical runs contract where second moments grow


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="dim must be"):
        stability.almost_sure_exponent(0.1, 4, dim=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="must be scalars"):
        stability.almost_sure_exponent(jnp.ones(2), 4, dim=5, key=jax.random.key(0))
    with pytest.raises(ValueError, match="batch_size must be"):
        stability.mean_square_edge(0, dim=5, invariant_rank=1)
    with pytest.raises(ValueError, match="spread must be"):
        stability.heterogeneity_cap(1.0, 0.0, -1.0)

"""Linear self-attention: the optimum, the growth of one direction and its transition.

The oracles are stationarity and minimisation of the risk in double precision, prompts that are
drawn example by example, the drawn batches of the measurement, and a scalar map. Z-scores are below
4.5 with fixed seeds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from causal_sgd import theory
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.theory import attention
from causal_sgd.training import run, samplers, sgd
from causal_sgd.types import Batch
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
MAX_Z = 4.5


def positive(rng: np.random.Generator, dim: int) -> np.ndarray:
    root = rng.normal(size=(dim, dim + 2))
    return root @ root.T / (dim + 2) + 0.3 * np.eye(dim)


def risk(
    q: np.ndarray, b: np.ndarray, s: np.ndarray, w: np.ndarray, n: float, noise: float
) -> float:
    """E r^2 up to a constant, by E Sigma A Sigma = (1 + 1/N) S A S + tr(S A) S / N."""
    second = (1 + 1 / n) * s @ w @ s + np.trace(s @ w) / n * s + noise**2 / n * s
    return np.trace(q.T @ second @ q @ s) - 2 * np.trace(q.T @ s @ w @ b @ s)


@pytest.mark.parametrize("inputs", [False, True])
def test_the_optimum_of_the_source(inputs: bool) -> None:
    """N = 10, variances 2, 1, .5, .2: of tasks, or of inputs for the whitened Q S."""
    variances = np.array([2.0, 1.0, 0.5, 0.2])
    name = "covariance" if inputs else "task_covariance"
    best = attention.optimum(np.eye(4), 10, **{name: np.diag(variances)})
    expected = variances / (1.1 * variances + 0.37)
    np.testing.assert_allclose(expected, [0.778, 0.680, 0.544, 0.339], atol=6e-4)
    shown = best @ np.diag(variances) if inputs else best
    np.testing.assert_allclose(shown, np.diag(expected), rtol=1e-5, atol=1e-6)


def test_no_matrix_has_less_risk_than_the_optimum() -> None:
    rng = np.random.default_rng(0)
    for n, noise in ((1, 0.0), (5, 0.8)):
        s, w, b = positive(rng, 3), positive(rng, 3), rng.normal(size=(3, 3))
        best = np.asarray(attention.optimum(b, n, s, w, noise), float)
        others = best + 0.01 * rng.normal(size=(200, 3, 3))
        least = risk(best, b, s, w, n, noise)
        assert all(risk(q, b, s, w, n, noise) > least for q in others)
        np.testing.assert_allclose(attention.optimum(b, n, s, w, noise, 3), best, atol=1e-5)


@pytest.mark.parametrize("rank", few([1, 2], {1}))
def test_the_optimum_of_a_rank_is_that_of_a_minimiser(rank: int) -> None:
    rng = np.random.default_rng(rank)
    s, w, b = positive(rng, 4), positive(rng, 4), rng.normal(size=(4, 4))

    def of(flat: np.ndarray) -> float:
        left, right = flat.reshape(2, 4, rank)
        return risk(left @ right.T, b, s, w, 3, 0.4)

    starts = rng.normal(size=(6, 8 * rank))
    least = min(optimize.minimize(of, start, options={"gtol": 1e-9}).fun for start in starts)
    best = np.asarray(attention.optimum(b, 3, s, w, 0.4, rank), float)
    assert np.linalg.matrix_rank(best, tol=1e-4) == rank
    assert risk(best, b, s, w, 3, 0.4) == pytest.approx(least, rel=1e-5)


@pytest.mark.parametrize(("length", "noise"), few([(2, 0.5), (6, 0.0)], {(2, 0.5)}))
def test_the_growth_is_that_of_drawn_prompts(length: int, noise: float) -> None:
    rng, size = np.random.default_rng(length), 400_000
    s, omega = np.array([1.3, 0.7, 1.1]), np.array([0.8, 1.2, 0.9])
    b, q = np.array([1.0, 0.5, -2.0]), np.array([0.7, 0.3, 0.2])
    task = rng.normal(size=(size, 3)) * omega**0.5
    summary = np.zeros((size, 3))
    for _ in range(length):
        x = rng.normal(size=(size, 3)) * s**0.5
        labels = (x * task).sum(1) + noise * rng.normal(size=size)
        summary += x * labels[:, None] / length
    query = rng.normal(size=(size, 3)) * s**0.5
    residual = ((q * summary - b * task) * query).sum(1) - noise * rng.normal(size=size)
    growths = -residual * summary[:, 2] * query[:, 2]
    mean, variance = attention.growth(b, q, length, s, omega, noise)
    for power, expected in ((1, mean), (2, variance + mean**2)):
        values = growths**power
        assert abs(values.mean() - float(expected)) < MAX_Z * values.std() / size**0.5
    np.testing.assert_allclose(
        attention.growth(np.stack([b, b]), q, length, s, omega, noise)[1], variance
    )


@pytest.mark.slow
def test_a_direction_moves_as_in_matrix_sensing_in_another_unit() -> None:
    """Population gradients of U V', with a relation that differs between environments."""
    eta, length, steps = 0.2, 5, 60
    s, omega = np.array([1.5, 0.8, 1.0]), np.array([0.5, 1.0, 1.2])
    world = worlds.from_arrays(
        np.diag([1.0, 0.0, 0.0]), np.array([[0, 0, 0], [0, 3, 0], [0, 0, 0]]) * [[[1]], [[-0.5]]]
    )
    algorithm = sgd(
        world=world,
        sampler=samplers.cyclic(batch_size=1),
        measurement=measurements.in_context_population(length, covariance=s, task_covariance=omega),
        model=models.asymmetric(dim=3, init_scale=0.05),
        optimizer=optax.sgd(eta),
    )
    trace = run(
        jax.random.key(0),
        algorithm=algorithm,
        metrics={"estimate": lambda snapshot: jnp.diagonal(snapshot.estimate)},
        num_steps=steps,
        record_every=1,
    )
    found = np.asarray(trace.metrics["estimate"])
    second = (1 + 1 / length) * s**2 * omega + (s * omega).sum() * s / length
    unit, u, levels = second * s, np.full(3, 0.05), [np.full(3, 0.05**2)]
    for step in range(steps):
        signal = s**2 * omega * [1.0, (3.0, -1.5)[step % 2], 0.0]
        u = u + eta / 2 * (signal - unit * u**2) * u
        levels.append(u**2)
    np.testing.assert_allclose(found, levels, rtol=2e-3, atol=1e-6)
    best = np.diagonal(attention.optimum(np.diag([1.0, 0, 0]), length, np.diag(s), np.diag(omega)))
    np.testing.assert_allclose(found[-1][0], best[0], rtol=1e-3)


@pytest.mark.slow
def test_the_mean_of_a_merged_matrix_under_fresh_batches_is_the_optimum() -> None:
    """The iteration is linear in Q, so that its stationary mean is Q*, whatever the batch size."""
    tasks, length = np.array([2.0, 1.0, 0.5, 0.2, 0.1]), 20

    def spectrum(key: jax.Array) -> jax.Array:
        algorithm = sgd(
            world=worlds.two_point(dim=5, invariant_rank=5, spurious_rank=0, basis="canonical"),
            sampler=samplers.hetero(batch_size=200),
            measurement=measurements.in_context(length, task_covariance=tasks),
            model=models.deep(dim=5, depth=1, init_scale=0.5),
            optimizer=optax.sgd(0.4),
        )
        trace = run(
            key,
            algorithm=algorithm,
            metrics={"spectrum": lambda snapshot: jnp.diagonal(snapshot.estimate)},
            num_steps=600,
            record_every=2,
        )
        return jnp.mean(trace.metrics["spectrum"][150:], 0)

    found = np.asarray(jax.jit(jax.vmap(spectrum))(jax.random.split(jax.random.key(0), 32)))
    best = np.diagonal(attention.optimum(np.eye(5), length, np.eye(5), np.diag(tasks)))
    scores = (found.mean(0) - best) / (found.std(0, ddof=1) / np.sqrt(len(found)))
    assert np.abs(scores).max() < MAX_Z


@pytest.mark.slow
@pytest.mark.parametrize("length", [2, pytest.param(20, marks=pytest.mark.long)])
def test_the_noise_of_batches_lowers_the_exponent(length: int) -> None:
    """The mean of log|1 + growth| over drawn batches, less its part of first order."""
    eta, mu, spread, size, draws = 0.2, 1.0, 4.0, 400, 4000
    relation = np.array([1.0, 0.6])
    best = np.diagonal(attention.optimum(np.diag([*relation, 0]), length))
    world = worlds.from_arrays(
        np.diag([*relation, 0]), np.diag([0.0, 0, 1]) * np.array([-3.0, 5.0])[:, None, None]
    )(jax.random.key(0))
    read_out = MatrixModel(
        init=lambda key: jnp.zeros((3, 3)), estimate=lambda params: params, symmetric=False
    )
    measurement = measurements.in_context(length)
    data = measurement.init(jax.random.key(0), world)

    @jax.jit
    def growths(keys: jax.Array, place: jax.Array) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            batch = Batch(place[None], jnp.array([size]))
            arguments = jnp.zeros((), jnp.int32), data, read_out, jnp.diag(best), world, batch
            return -2 * measurement.gradient(key, *arguments)[0][2, 2]

        return jax.lax.map(one, keys)

    total, variance = 0.0, 0.0
    for place, value in enumerate((mu - spread, mu + spread)):
        keys = jax.random.split(jax.random.key(place), draws)
        drawn = eta / 2 * np.asarray(growths(keys, jnp.asarray(place)), float)
        factor = eta / 2 * value
        logs = np.log(np.abs(1 + drawn)) - (drawn - factor) / (1 + factor)
        total, variance = total + logs.mean() / 2, variance + logs.var() / draws / 4
    exact = theory.lyapunov_two_point(eta / 2, mu, spread)
    expected = attention.exponent(eta, mu, spread, relation, length, size)
    # The third cumulant adds a few per cent of the correction.
    allowed = MAX_Z * variance**0.5 + 0.08 * float(exact - expected)
    assert abs(total - float(expected)) < allowed < 0.3 * float(exact - expected)


def test_the_critical_spread_is_the_root_of_the_exponent() -> None:
    invariant, s, omega = np.ones(2), np.array([1.0, 1.0, 0.7]), np.array([1.0, 2.0, 1.3])
    etas = np.array([0.05, 0.1, 0.3])
    rates = etas / 2 * 0.7**2 * 1.3
    plain = attention.critical_spread(
        etas, 1.0, invariant, 5, input_variances=s, task_variances=omega
    )
    np.testing.assert_allclose(plain, theory.critical_spread(rates, 1.0), rtol=1e-5)
    numbers = (invariant, 5, 200, s, omega, 0.3)
    root = np.asarray(attention.critical_spread(etas, 1.0, *numbers))
    assert (root < plain).all()
    around = np.stack([0.999 * root, 1.001 * root])
    below, above = attention.exponent(etas, 1.0, around, *numbers)
    assert (below > 0).all()
    assert (above < 0).all()
    assert not attention.critical_spread(etas, -1.0, *numbers).any()


def test_the_exponent_without_batches_is_that_of_matrix_sensing() -> None:
    s, omega, etas = np.array([1.0, 1.0, 0.7]), np.array([1.0, 2.0, 1.3]), np.array([0.05, 0.3])
    rates = etas / 2 * 0.7**2 * 1.3
    found = attention.exponent(etas, 1.0, 3.0, np.ones(2), 5, None, s, omega)
    np.testing.assert_allclose(found, theory.lyapunov_two_point(rates, 1.0, 3.0), rtol=1e-4)
    assert attention.critical_spread(0.1, -1.0, np.ones(2), 5) == 0


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="^covariance must have shape"):
        attention.optimum(np.eye(3), 4, np.eye(2))
    with pytest.raises(ValueError, match="^relation must have shape"):
        attention.optimum(1.0, 4)
    with pytest.raises(ValueError, match="^context_length must be a finite number at least 1"):
        attention.optimum(np.eye(3), 0)
    with pytest.raises(ValueError, match="^relation must have a last axis"):
        attention.growth(1.0, np.ones(2), 4)
    with pytest.raises(ValueError, match="^invariant must have a last axis"):
        attention.exponent(0.1, 1.0, 1.0, 1.0, 4)

"""Exponents of HeteroSGD against recursions, drawn batches and a search over distributions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, optimize, stats

from causal_sgd import theory, training
from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.theory import invariance
from causal_sgd.training import algorithms, samplers
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

TARGET = np.array([1.0, 0.0])
EXPONENTS = few([(1.4, 0.7), (1.2, 0.5), (1.4, 0.3)], {(1.4, 0.7)})


def contradiction(*biases: float) -> np.ndarray:
    """Moments with V = 4 and noise of variance 1."""
    return np.array([[[1, 0, 1, 0], [0, 4, b, 0], [1, b, 2, 0], [0, 0, 0, 1.0]] for b in biases])


def random_moments(seed: int) -> np.ndarray:
    """Of three inputs with means, in two environments."""
    mixing = np.random.default_rng(seed).standard_normal((2, 5, 7))
    mixing[:, 4] = [1, *np.zeros(6)]
    return mixing @ np.swapaxes(mixing, 1, 2)


def test_biases_are_moments_of_inputs_and_residuals() -> None:
    """Of examples, with an intercept."""
    rng = np.random.default_rng(0)
    z = np.append(rng.standard_normal((2, 50, 4)) + 1, np.ones((2, 50, 1)), 2)
    second = np.einsum("eni,enj->eij", z, z) / 50
    target = np.array([0.5, -1.0, 0.3])
    residual = z[:, :, 3] - z[:, :, :3] @ target - 0.7
    expected = np.mean(z[:, :, :3] * residual[:, :, None], 1)
    found = invariance.biases(second, target, intercept=0.7)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_exponents_are_averages_over_environments() -> None:
    second, weights = random_moments(0), np.array([0.3, 0.7])
    target, expected = np.array([0.5, 0.0, -0.4]), np.zeros((2, 3))
    for weight, one in zip(weights, second, strict=True):
        bias = one[:3, 3] - one[:3, :3] @ target
        for row, rate in enumerate((0.05, 0.2)):
            expected[row] += weight * np.log(np.abs(1 + rate * bias))
    found = invariance.hetero_exponents(second, target, weights, np.array([0.05, 0.2]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mirrored = second.copy()
    mirrored[:, :3] *= -1
    mirrored[:, :, :3] *= -1
    other = invariance.hetero_exponents(mirrored, -target, weights, np.array([0.05, 0.2]))
    signed = invariance.hetero_exponents(
        second, target, weights, np.array([0.05, 0.2]), signed=True
    )
    np.testing.assert_allclose(signed, np.maximum(found, other), atol=1e-5)
    traced = jax.jit(invariance.hetero_exponents)(second, target, weights, 0.2)
    np.testing.assert_allclose(traced, found[1], atol=1e-6)


@pytest.mark.parametrize(("spread", "rate"), EXPONENTS)
def test_a_small_weight_grows_by_its_exponent(spread: float, rate: float) -> None:
    """The whole recursion of (u1, u2) on the moments, in 400 runs."""
    mean, steps, runs = 0.5, 200, 400
    second, rng = contradiction(mean + spread, mean - spread), np.random.default_rng(0)
    u = np.tile([1.0, 1e-30], (runs, 1))
    for _ in range(steps):
        s = second[rng.integers(2, size=runs)]
        w = u**2
        gradient = (np.einsum("nij,nj->ni", s[:, :2, :2], w) - s[:, :2, 2]) / 2
        u = u - rate * gradient * 2 * u
    growth = np.log(np.abs(u[:, 1] / 1e-30)) / steps
    found = float(invariance.hetero_exponents(second, TARGET, None, rate)[1])
    assert abs(growth.mean() - found) < 4.5 * growth.std() / np.sqrt(runs)
    closed = theory.lyapunov_two_point(rate, mean, spread)
    assert found == pytest.approx(float(closed), abs=1e-5)


def test_steps_that_are_too_large_lose_the_invariant_weight() -> None:
    """The derivative of the recursion at its fixed point, by differences."""
    second = contradiction(1.0, -0.5) * np.array([1, 1.4])[:, None, None]
    for rate in (0.3, 0.9):
        factors = []
        for one in second:
            step = [u - rate * u * (one[0, 0] * u**2 - one[0, 2]) for u in (1 + 1e-6, 1 - 1e-6)]
            factors.append((step[0] - step[1]) / 2e-6)
        found = invariance.invariant_exponents(second, TARGET, None, rate)
        expected = [np.mean(np.log(np.abs(factors))), 0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


BATCHES = few(
    [
        (0.3, 0.5, 4.0, 1.0, 1),
        (0.3, 0.5, 4.0, 1.0, 4),
        (0.9, -0.9, 4.0, 1.0, 2),
        (0.5, 1.5, 4.0, 1.3, 8),
        (0.7, -1.9, 4.0, 1.0, 1),
        (0.2, 3.0, 4.0, 2.3, 64),
    ],
    {(0.3, 0.5, 4.0, 1.0, 1), (0.9, -0.9, 4.0, 1.0, 2)},
)


@pytest.mark.parametrize(("rate", "bias", "inputs", "noise", "size"), BATCHES)
def test_exponents_of_small_batches_are_those_of_drawn_examples(
    rate: float, bias: float, inputs: float, noise: float, size: int
) -> None:
    rng, draws = np.random.default_rng(1), 200_000
    eps = np.sqrt(noise) * rng.standard_normal((draws, size))
    rest = np.sqrt(inputs - bias**2 / noise) * rng.standard_normal((draws, size))
    logs = np.log(np.abs(1 + rate * np.mean((bias / noise * eps + rest) * eps, 1)))
    found = invariance.lyapunov_batch(
        rate, bias, input_variance=inputs, noise_variance=noise, batch_size=size
    )
    assert abs(float(found) - logs.mean()) < 4.5 * logs.std() / np.sqrt(draws)


def test_exponents_of_small_batches_are_integrals_in_two_dimensions() -> None:
    """Gauss-Hermite quadrature in h and scipy's in Q, where no factor comes near zero."""
    rate, slope, size = 0.05, 0.8, 6
    bias, noise, inputs = slope, 1.0, 2 * slope**2 + 1  # of the anticausal world
    h, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / np.sqrt(2 * np.pi)

    def inner(q: float) -> float:
        width = np.sqrt((slope**2 + 1) * q) / size
        factor = 1 + rate * (slope * q / size + width * h)
        return weights @ np.log(np.abs(factor)) * stats.chi2.pdf(q, size)

    expected = integrate.quad(inner, 0, 80, limit=200)[0]
    found = invariance.lyapunov_batch(
        rate, bias, input_variance=inputs, noise_variance=noise, batch_size=size
    )
    assert float(found) == pytest.approx(expected, abs=3e-6)


def test_large_batches_have_the_exponents_of_the_population() -> None:
    second = contradiction(1.5, -0.7)
    small, large = (
        invariance.batch_exponents(second, TARGET, None, 0.3, size) for size in (4, 10**7)
    )
    population = invariance.hetero_exponents(second, TARGET, None, 0.3)
    np.testing.assert_allclose(large, population, atol=1e-5)
    each = [
        invariance.lyapunov_batch(0.3, b, input_variance=v, noise_variance=1.0, batch_size=4)
        for b, v in ((1.5, 4.0), (-0.7, 4.0), (0.0, 1.0))
    ]
    np.testing.assert_allclose(small, [each[2], (each[0] + each[1]) / 2], atol=1e-5)
    # the noise of batches adds [b^2 + E x^2 E eps^2]/m to the variance of b
    expansion = 0.01 * 0.5 - 0.01**2 * (0.25 + (0.25 + 4) / 20) / 2
    numbers = {"input_variance": 4.0, "noise_variance": 1.0, "batch_size": 20}
    assert float(invariance.lyapunov_batch(0.01, 0.5, **numbers)) == pytest.approx(
        expansion, abs=2e-6
    )


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.6])
def test_no_distribution_of_biases_within_reach_does_better(rate: float) -> None:
    """The largest mean with a negative exponent, by linear programming on a grid of biases."""
    noise, inputs = 1.0, 2.0
    bound = np.sqrt(noise * inputs)
    grid = np.linspace(-bound, bound, 801)
    solution = optimize.linprog(
        -grid,
        A_ub=np.log(np.abs(1 + rate * grid))[None],
        b_ub=[0.0],
        A_eq=np.ones((1, 801)),
        b_eq=[1.0],
    )
    found = invariance.hetero_reach(rate, noise_variance=noise, input_variance=inputs)
    assert float(found) == pytest.approx(-solution.fun / inputs, rel=2e-4)
    for tiny in (1e-3, 1e-8):
        small = invariance.hetero_reach(tiny, noise_variance=noise, input_variance=inputs)
        assert float(small) == pytest.approx(tiny * noise / 2, rel=1e-3)
    assert float(invariance.hetero_reach(2.0, noise_variance=noise)) == 1.0


def test_the_anticausal_boundary_is_where_the_exponent_vanishes() -> None:
    for rate, noise in ((0.05, 1.0), (0.1, 1.0), (0.2, 1.0), (0.1, 0.6)):
        critical = float(invariance.anticausal_critical_spread(rate, 1.0, noise_variance=noise))
        exponents = [
            np.mean(np.log(np.abs(1 + rate * noise * (1 + spread * np.array([1.0, -1.0])))))
            for spread in (0.999 * critical, 1.001 * critical)
        ]
        assert exponents[0] > 0 > exponents[1]
    figures = invariance.anticausal_critical_spread(np.array([0.05, 0.1, 0.2]), 1.0)
    np.testing.assert_allclose(figures, [6.40, 4.58, 3.32], atol=5e-3)


def test_wrong_input_is_refused_by_name() -> None:
    second = contradiction(1.0, -0.5)
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("second must have the shape", (second[0], TARGET, None, 0.1)),
        ("target must have the shape", (second, np.ones(3), None, 0.1)),
        ("probabilities must", (second, TARGET, [0.4, 0.4], 0.1)),
        ("learning_rate must be", (second, TARGET, None, 0.0)),
        ("second must be", (np.full_like(second, np.nan), TARGET, None, 0.1)),
    ]
    for message, arguments in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            invariance.hetero_exponents(*arguments)
    for rate, size, message in (
        (np.full(2, 0.1), 4, "learning_rate"),
        (0.1, np.array([4, 8]), "batch_size"),
    ):
        with pytest.raises(ValueError, match=f"^{message} must be"):
            invariance.batch_exponents(second, TARGET, None, rate, size)
    with pytest.raises(ValueError, match="^intercept must be"):
        invariance.biases(second, TARGET, intercept=np.zeros(2))


@pytest.mark.slow
def test_runs_reject_beyond_the_boundary_only() -> None:
    """The median over runs of u*u on the population, one environment per step."""
    rate, mean = 0.7, 0.125
    critical = float(theory.critical_spread(rate, mean))

    def last(key: jax.Array, spread: jax.Array) -> jax.Array:
        algorithm = algorithms.sgd(
            world=worlds.contradiction(mean=mean, spread=spread, variance=4.0),
            sampler=samplers.hetero(batch_size=10),
            measurement=measurements.moments(),
            model=models.hadamard(dim=2, init_scale=0.3),
            optimizer=optax.sgd(rate),
        )
        trace = training.run(
            key,
            algorithm=algorithm,
            metrics={"weight": lambda snapshot: snapshot.estimate[1]},
            num_steps=6000,
            record_every=3000,
        )
        return trace.metrics["weight"][-1]

    keys = jax.random.split(jax.random.key(0), 64)
    run = jax.jit(jax.vmap(last, (0, None)))
    assert np.median(run(keys, jnp.asarray(1.3 * critical))) < 1e-6
    assert np.median(run(keys, jnp.asarray(0.5 * critical))) > 1e-3

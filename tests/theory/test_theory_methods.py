"""The linear regimes of momentum and of the federated methods against their own steps."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from causal_sgd import theory
from causal_sgd.analysis import growth_rate
from support import oracles

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ETA, EIGENVALUES, WEIGHTS = 0.1, np.array([4.0, -3.0, 0.5]), np.array([0.5, 0.2, 0.3])


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_matrices_are_the_steps_of_optax(nesterov: bool) -> None:
    matrices = np.asarray(theory.momentum_factors(ETA, 0.7, EIGENVALUES, nesterov=nesterov))
    optimizer = optax.sgd(ETA, momentum=0.7, nesterov=nesterov)
    u, vector = jnp.asarray(1.0), np.array([1.0, 0.0])
    state = optimizer.init(u)
    for environment in (0, 1, 2, 1):
        updates, state = optimizer.update(-EIGENVALUES[environment] * u, state)
        u = optax.apply_updates(u, updates)
        vector = matrices[environment] @ vector
        np.testing.assert_allclose(vector[0], u, rtol=1e-5)


@pytest.mark.parametrize(("beta", "nesterov"), [(0.5, False), (0.8, True)])
def test_momentum_changes_sign_at_its_critical_spread(beta: float, nesterov: bool) -> None:
    eta, rng = 0.05 * (1 - beta), np.random.default_rng(0)
    critical = float(theory.momentum_critical_spread(eta, 1.0, beta, nesterov=nesterov))
    assert abs(critical / float(theory.critical_spread(0.05, 1.0)) - 1) > 0.01
    for factor, sign in ((0.94, 1), (1.06, -1)):
        spread = factor * critical
        growth, error = oracles.growth_with_velocity(
            rng,
            eta,
            beta,
            lambda spread=spread: 1 + spread * (rng.integers(0, 2, 500) * 2.0 - 1),
            nesterov,
            steps=2000,
        )
        assert sign * growth > 4 * error
        exponent = theory.lyapunov_momentum(eta, beta, [1 - spread, 1 + spread], nesterov=nesterov)
        assert float(exponent) == pytest.approx(growth, abs=4 * error + 1e-3)


def test_where_momentum_rejects_no_heterogeneity_the_critical_spread_is_infinite() -> None:
    rates, beta = np.array([0.005, 0.02, 0.1]), 0.9
    critical = np.asarray(theory.momentum_critical_spread((1 - beta) * rates, 1.0, beta))
    assert np.isfinite(critical).tolist() == [True, True, False]
    np.testing.assert_allclose(critical[0], theory.critical_spread(0.005, 1.0), rtol=0.07)
    assert theory.momentum_critical_spread(0.1, -1.0, beta) == 0
    assert theory.momentum_critical_spread(0.1, 1.0, 1.0) == np.inf
    with pytest.raises(ValueError, match="momentum must be a finite number at least 0 and at most"):
        theory.momentum_critical_spread(0.1, 1.0, 1.5)


@pytest.mark.slow  # compiles for every family
def test_without_momentum_the_critical_spread_is_that_of_sgd() -> None:
    plain = [theory.momentum_critical_spread(0.1, 1.0, 0.0, name) for name in theory.families]
    exact = [theory.critical_spread(0.1, 1.0, name) for name in theory.families]
    np.testing.assert_allclose(plain, exact, rtol=0.01)


def test_local_steps_with_a_proximal_term() -> None:
    for strength, steps in ((0.0, 3), (2.0, 5)):
        y = np.ones(3)
        for _ in range(steps):
            y = y + ETA * (EIGENVALUES * y - strength * (y - 1))
        np.testing.assert_allclose(
            theory.federated_factors(ETA, EIGENVALUES, steps, strength), y, rtol=1e-6
        )
    assert theory.federated_factors(ETA, EIGENVALUES[:, None], np.array([1, 2])).shape == (3, 2)


def test_participation_decides_the_exponent() -> None:
    factors = np.asarray(theory.federated_factors(ETA, EIGENVALUES, 2))
    alone = theory.lyapunov_federated(factors, 1, WEIGHTS)
    np.testing.assert_allclose(
        alone, 2 * theory.lyapunov_environments(ETA, EIGENVALUES, WEIGHTS), rtol=1e-5
    )
    pairs = sum(
        WEIGHTS[i] * WEIGHTS[j] * math.log((factors[i] + factors[j]) / 2)
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(theory.lyapunov_federated(factors, 2, WEIGHTS), pairs, rtol=1e-5)
    everybody = theory.lyapunov_federated(factors, None, WEIGHTS)
    np.testing.assert_allclose(everybody, math.log(WEIGHTS @ factors), rtol=1e-5)
    np.testing.assert_allclose(
        theory.lyapunov_federated(factors, 12, WEIGHTS), everybody, atol=0.02
    )
    assert everybody > 2 * math.log1p(ETA * WEIGHTS @ EIGENVALUES)
    with pytest.raises(ValueError, match="factors must have a last axis"):
        theory.lyapunov_federated(1.0)


def test_control_variates_by_hand() -> None:
    one = np.asarray(theory.scaffold_factors(ETA, EIGENVALUES, 3, probabilities=WEIGHTS), float)
    everyone = np.asarray(
        theory.scaffold_factors(ETA, EIGENVALUES, 3, everyone=True, probabilities=WEIGHTS), float
    )
    assert one.shape == (3, 4, 4)
    assert everyone.shape == (1, 4, 4)
    u, controls = 0.7, np.array([0.1, -0.2, 0.3])
    vector = np.array([u, *(ETA * controls)])
    ends, after = [], []
    for e in range(3):
        y, gradients = u, []
        for _ in range(3):
            gradients.append(-EIGENVALUES[e] * y)
            y = y - ETA * (gradients[-1] - controls[e] + WEIGHTS @ controls)
        ends.append(y)
        after.append(np.mean(gradients))
        expected = vector.copy()
        expected[[0, 1 + e]] = y, ETA * after[-1]
        np.testing.assert_allclose(one[e] @ vector, expected, rtol=1e-5, atol=1e-7)
    expected = [WEIGHTS @ ends, *(ETA * np.array(after))]
    np.testing.assert_allclose(everyone[0] @ vector, expected, rtol=1e-5, atol=1e-7)


def test_without_momentum_the_exponent_is_that_of_sgd() -> None:
    matrices = theory.momentum_factors(ETA, 0.0, EIGENVALUES)
    result = theory.lyapunov_exponents(
        matrices, WEIGHTS, key=jax.random.key(0), num_steps=300, num_chains=16
    )
    exact = float(theory.lyapunov_environments(ETA, EIGENVALUES, WEIGHTS))
    assert abs(float(result.exponents[0]) - exact) < 4 * float(result.standard_error[0])


def test_growth_is_measured_between_the_second_and_the_last_frame() -> None:
    steps, rates = np.array([0, 2, 6]), np.array([0.1, -0.3])
    signal = np.exp(rates[:, None] * np.maximum(steps - 2, 0)[None, :])
    dataset = xr.Dataset(
        {"spurious_signal": (("seed", "step"), signal), "diverged_at": ("seed", [-1, -1])},
        {"seed": [0, 1], "step": steps},
    )
    result = growth_rate(dataset)
    np.testing.assert_allclose(result.rate, rates.mean())
    np.testing.assert_allclose(result.standard_error, 0.2)
    with pytest.raises(ValueError, match="at least three frames"):
        growth_rate(dataset.isel(step=[0, 1]))

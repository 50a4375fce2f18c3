"""Contracts of all functions of the theory; the files test_theory_*.py test their values."""

from __future__ import annotations

import inspect
import math
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causal_sgd import theory
from support.cases import few
from support.theory import BATCH, FAMILIES, POINTS

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SHORT: Any = {"num_steps": 300, "init_scale": 1e-3, "level": 0.1}


def _apparent(eta, mu):
    return theory.finite_time_critical_spread(eta, mu, **SHORT)


def _best(eta, mu):
    return theory.optimal_spread(learning_rate=eta, mean=mu, **BATCH)


def _error(eta, mu, spread):
    return theory.expected_error(spread, learning_rate=eta, mean=mu, **BATCH)


def _product(eta, scale):
    matrices = theory.linearised(
        eta, scale * jnp.array([[[1.0, 2.0], [2.0, 0.5]], [[-1.0, 0.0], [0.0, -2.0]]])
    )
    return theory.lyapunov_exponents(matrices, key=jax.random.key(0), num_steps=20, num_chains=2)


def _environments(function):
    return lambda eta, mu: function(eta, mu * jnp.array([1.0, -1.0, 2.0]))


RANKS = {"rank": 4, "invariant_rank": 2, "spurious_rank": 1}
SIGNAL = np.array([1.0, 1.0, -5.0], np.float32)


def _order_parameters(scale):
    world = SimpleNamespace(invariant_basis=np.eye(6)[:, :2], spurious_basis=np.eye(6)[:, 2:3])
    return theory.order_parameters(scale * jnp.arange(24.0).reshape(6, 4) / 24, world)


# Each function once, as a pure function of scalars, with the arguments of two calls.
PAIR = np.array([3.0, -2.0], np.float32)
CALLS = {
    "annealing_window": (
        lambda u, eta: theory.annealing_window(u, learning_rate=eta, mean=1.0, spread=6.0),
        (0.01, 0.01),
        (0.1, 0.1),
    ),
    "balancing_spread": (theory.balancing_spread, (0.1, 0.5), (0.2, 0.3)),
    "damping_window": (theory.damping_window, (0.1, 1.0, 6.0), (0.2, 0.5, 4.0)),
    "statistical_dimension": (theory.statistical_dimension, (12.0, 2.0), (5.0, 1.0)),
    "batch_critical_spread": (
        lambda eta, rho: theory.batch_critical_spread(
            learning_rate=eta, mean=1.0, batch_ratio=rho, **RANKS
        ),
        (0.1, 2.0),
        (0.05, 20.0),
    ),
    "best_error": (
        lambda mu, rho: theory.best_error(mean=mu, batch_ratio=rho, **RANKS),
        (1.0, 2.0),
        (0.5, 20.0),
    ),
    "complement_power": (
        lambda s, k: theory.complement_power(
            s, rank=k, learning_rate=0.1, label_noise=1.0, **BATCH
        ),
        (6.0, 3.0),
        (3.0, 30.0),
    ),
    "critical_learning_rate": (
        lambda *a: theory.critical_learning_rate(*a, "uniform"),
        (1.0, 8.0),
        (0.5, 9.0),
    ),
    "critical_learning_rate_environments": (
        lambda up, down: theory.critical_learning_rate_environments(jnp.stack([up, -down], -1)),
        (7.0, 3.0),
        (5.0, 4.0),
    ),
    "critical_spread_environments": (
        lambda eta, mu: theory.critical_spread_environments(eta, mu, jnp.array([-2.0, 0.5, 1.5])),
        (0.1, 1.0),
        (0.05, 0.5),
    ),
    "critical_learning_rate_asymmetric": (
        theory.critical_learning_rate_asymmetric,
        (7.0, 3.0),
        (5.0, 4.0),
    ),
    "critical_mass": (
        lambda eta, o: theory.critical_mass(eta, jnp.array([1.0, 2.0]), o),
        (0.1, -5.0),
        (0.05, -3.0),
    ),
    "critical_spread_of": (
        lambda eta, mu: theory.critical_spread_of(
            lambda m: theory.lyapunov_haar(eta, mu, m, 2), highest=40.0
        ),
        (0.02, 1.0),
        (0.03, 0.8),
    ),
    "critical_spread": (lambda *a: theory.critical_spread(*a, "gaussian"), (0.1, 1.0), (0.05, 0.5)),
    "crossing_spread": (theory.crossing_spread, (3.0, 0.1, 1.0), (4.0, 0.05, 0.5)),
    "deep_spurious_quantile": (
        theory.deep_spurious_quantile,
        (3.0, 0.02, 1.0, 10.0),
        (2.0, 0.02, 0.9, 4.0),
    ),
    "divergence_bound": (theory.divergence_bound, (0.1, 1.0), (0.05, 0.5)),
    "divergence_batch_ratio": (
        lambda s, d: theory.divergence_batch_ratio(
            s, learning_rate=0.1, mean=1.0, dim=d, **RANKS | {"rank": d}
        ),
        (6.0, 30.0),
        (3.0, 100.0),
    ),
    "error_floor": (
        lambda s, eta: theory.error_floor(s, learning_rate=eta, **BATCH),
        (6.0, 0.1),
        (3.0, 0.2),
    ),
    "expected_error": (_error, (0.1, 1.0, 3.0), (0.05, 0.5, 5.0)),
    "federated_factors": (theory.federated_factors, (0.1, 3.0, 2.0, 0.5), (0.05, -2.0, 3.0, 1.0)),
    "finite_time_critical_spread": (_apparent, (0.1, 1.0), (0.05, 0.5)),
    "finite_time_rejection": (
        lambda *a: theory.finite_time_rejection(*a, **SHORT),
        (0.1, 1.0, 4.0),
        (0.05, 0.5, 4.0),
    ),
    "finite_data_error": (
        lambda s, n: theory.finite_data_error(
            s,
            num_examples=n,
            num_environments=2,
            dim=30,
            invariant_rank=2,
            spurious_rank=1,
            label_noise=1.0,
        ),
        (6.0, 100.0),
        (3.0, 900.0),
    ),
    "growth_time": (
        lambda s, eta: theory.growth_time(s, learning_rate=eta, init_scale=1e-3),
        (1.0, 0.1),
        (2.0, 0.2),
    ),
    "incremental_level": (
        lambda t, s, depth: theory.incremental_level(
            t, s, learning_rate=0.1, init_scale=0.1, depth=depth
        ),
        (60.0, 1.0, 2.0),
        (90.0, 0.5, 3.0),
    ),
    "incremental_scale": (
        lambda low, depth: theory.incremental_scale(1.0, low, depth=depth),
        (0.8, 2.0),
        (0.5, 3.0),
    ),
    "incremental_times": (
        lambda s, depth: theory.incremental_times(
            s, learning_rate=0.1, init_scale=0.1, depth=depth
        ),
        (1.0, 2.0),
        (0.5, 3.0),
    ),
    "invariant_first": (
        lambda mu, spread: theory.invariant_first(
            0.1, mu, spread, eigenvalue=1.0, init_scale=1e-4, level=0.2
        ),
        (1.5, 4.0),
        (1.2, 2.0),
    ),
    "is_bounded": (theory.is_bounded, (0.1, -8.0, 10.0), (0.1, -9.0, 11.0)),
    "least_positive_exponent": (theory.least_positive_exponent, (0.1, 1.0, 4.0), (0.05, 0.5, 9.0)),
    "linearised": (lambda eta, c: theory.linearised(eta, c * jnp.eye(2)), (0.1, 3.0), (0.2, -1.0)),
    "log_variance_environments": (
        _environments(theory.log_variance_environments),
        (0.1, 3.0),
        (0.05, 2.0),
    ),
    "log_variance_two_point": (theory.log_variance_two_point, (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov": (lambda *a: theory.lyapunov("two_point", *a), (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov_asymmetric": (theory.lyapunov_asymmetric, (0.1, 5.0, 3.0), (0.05, 6.0, 2.0)),
    "lyapunov_environments": (_environments(theory.lyapunov_environments), (0.1, 3.0), (0.05, 2.0)),
    "lyapunov_exponents": (_product, (0.1, 1.0), (0.05, 2.0)),
    "lyapunov_federated": (
        lambda *a: theory.lyapunov_federated(jnp.stack(a), 2),
        (1.4, 0.7),
        (1.8, 0.5),
    ),
    "lyapunov_gaussian": (theory.lyapunov_gaussian, (0.1, 1.0, 4.0), (0.05, 0.5, 1.0)),
    "lyapunov_goe": (lambda *a: theory.lyapunov_goe(*a, 3), (0.1, 1.0, 4.0), (0.05, 0.5, 1.0)),
    "lyapunov_haar": (lambda *a: theory.lyapunov_haar(*a, 3), (0.1, 1.0, 4.0), (0.05, 0.5, 1.0)),
    "lyapunov_log_normal": (theory.lyapunov_log_normal, (0.1, 1.0, 4.0), (0.05, 0.5, 1.0)),
    "limit_step": (
        lambda s, eta: theory.limit_step(
            _order_parameters(s), s * SIGNAL, learning_rate=eta, batch_ratio=2.0
        ),
        (1.0, 0.1),
        (0.5, 0.05),
    ),
    "limit_trajectory": (
        lambda s, eta: theory.limit_trajectory(
            _order_parameters(s),
            s * jnp.tile(SIGNAL, (4, 1)),
            learning_rate=eta,
            batch_ratio=2.0,
            record_every=2,
        ),
        (1.0, 0.1),
        (0.5, 0.05),
    ),
    "noise_level": (
        lambda s, rho: theory.noise_level(s, learning_rate=0.1, mean=1.0, batch_ratio=rho, **RANKS),
        (6.0, 2.0),
        (3.0, 20.0),
    ),
    "order_parameters": (_order_parameters, (1.0,), (0.5,)),
    "order_statistics": (
        lambda s: theory.order_statistics(_order_parameters(s), [1.0, 0.5]),
        (1.0,),
        (0.5,),
    ),
    "retention_batch_ratio": (
        lambda s, eta: theory.retention_batch_ratio(s, learning_rate=eta, mean=1.0, **RANKS),
        (6.0, 0.1),
        (3.0, 0.05),
    ),
    "log_variance": (
        lambda *a: theory.log_variance(*a, "uniform"),
        (0.1, 1.0, 4.0),
        (0.05, 0.5, 3.0),
    ),
    "lyapunov_two_point": (theory.lyapunov_two_point, (0.1, 1.0, 4.0), (0.05, 0.5, 3.0)),
    "lyapunov_uniform": (theory.lyapunov_uniform, (0.1, 1.0, 4.0), (0.05, 0.5, 30.0)),
    "mixing_critical_spread": (
        lambda *a: theory.mixing_critical_spread(*a, 2),
        (0.1, 1.0),
        (0.05, 0.5),
    ),
    "momentum_factors": (
        lambda eta, beta: theory.momentum_factors(eta, beta, PAIR),
        (0.1, 0.5),
        (0.05, 0.9),
    ),
    "lyapunov_momentum": (
        lambda eta, beta: theory.lyapunov_momentum(eta, beta, PAIR),
        (0.1, 0.5),
        (0.05, 0.9),
    ),
    "momentum_critical_spread": (
        theory.momentum_critical_spread,
        (0.05, 1.0, 0.5),
        (0.02, 0.5, 0.3),
    ),
    "optimal_spread": (_best, (0.1, 1.0), (0.05, 0.1)),
    "overspecified_error": (
        lambda t, alpha: theory.overspecified_error(
            t, learning_rate=0.1, rank=5, invariant_rank=2, init_scale=alpha
        ),
        (100.0, 0.5),
        (1000.0, 0.1),
    ),
    "overspecified_rate": (
        lambda value, eta: theory.overspecified_rate(
            value * jnp.array([1.0, 0.5]), learning_rate=eta
        ),
        (1.0, 0.1),
        (0.5, 0.2),
    ),
    "reversing_spread": (theory.reversing_spread, (0.1, 1.5, 1.0), (0.05, 0.5, 1.0)),
    "scaffold_factors": (lambda eta: theory.scaffold_factors(eta, PAIR, 2), (0.1,), (0.05,)),
    "stationary_spurious_moments": (
        theory.stationary_spurious_moments,
        (0.1, 1.0, 4.0),
        (0.05, 0.5, 3.0),
    ),
    "top_exponent": (
        lambda scale: theory.top_exponent(
            lambda key: jnp.eye(2) + scale * jax.random.normal(key, (2, 2)),
            key=jax.random.key(0),
            num_steps=5,
            num_chains=2,
        ),
        (0.1,),
        (0.3,),
    ),
    "tail_exponent": (_environments(theory.tail_exponent), (0.1, 3.0), (0.05, 2.0)),
    "unbalanced_error": (
        lambda t, imbalance: theory.unbalanced_error(
            t, learning_rate=0.1, product=0.3, imbalance=imbalance
        ),
        (100.0, 0.5),
        (300.0, 0.0),
    ),
    "unbalanced_floor": (theory.unbalanced_floor, (0.1, 0.5, 0.5), (0.2, 0.0, 0.3)),
}


def test_every_function_has_a_contract():
    members = {name: getattr(theory, name) for name in theory.__all__ if name[0].islower()}
    rooms = {name for name, member in members.items() if inspect.ismodule(member)}
    assert set(members) - rooms - {"families"} == set(CALLS)


# of a kind with others, and seconds to compile
LONG = ("top_exponent", "finite_time_critical_spread", "optimal_spread")


@pytest.mark.parametrize("name", few(CALLS, set(CALLS) - set(LONG)))
def test_eager_agrees_with_jit_of_vmap_in_one_trace(name: str):
    function, first, second = CALLS[name]
    traces = []

    @jax.jit
    @jax.vmap
    def batched(*numbers):
        traces.append(numbers)
        return function(*numbers)

    eager = jax.tree.map(lambda *leaves: np.stack(leaves), function(*first), function(*second))
    numbers = [np.array(pair, np.float32) for pair in zip(first, second, strict=True)]
    # Fused programs round differently, and products of matrices amplify the difference.
    close = {"rtol": 1e-4, "atol": 1e-6}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), eager, batched(*numbers))
    reverse = batched(*(number[::-1] for number in numbers))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[::-1], b, **close), eager, reverse)
    assert len(traces) == 1
    for leaf in jax.tree.leaves(eager):
        assert leaf.dtype in (np.float32, np.bool_)
        assert not np.isnan(leaf).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_arguments_of_different_rank_broadcast(family: str):
    eta, mu, spread = np.array([0.05, 0.1]), np.array([[0.5], [1.0], [1.5]]), 4.0
    value = theory.lyapunov(family, eta, mu, spread)
    assert value.shape == (3, 2)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value[1, 0], theory.lyapunov(family, 0.05, 1, 4), rtol=1e-4, atol=1e-7
    )


@settings(max_examples=15)
@given(**POINTS, low=st.floats(0.1, 0.9))
def test_exponent_and_level_fall_towards_the_transition(
    family: str, eta: float, mu: float, low: float
):
    spread = float(theory.critical_spread(eta, mu, family)) * jnp.array([low, low + 0.05, 1.01])
    exponents = np.asarray(theory.lyapunov(family, eta, mu, spread))
    assert (np.diff(exponents) < 0).all()
    levels = np.asarray(theory.stationary_spurious_moments(eta, mu, spread, family).second)
    assert (np.diff(levels) < 0).all()
    assert levels[-1] == 0


BAD = [
    (
        lambda: theory.lyapunov_two_point(-0.1, 1, 1),
        "learning_rate must be a finite number above 0, got -0.1",
    ),
    (lambda: theory.lyapunov_uniform(0.1, 1, -2.0), "spread must be a finite number at least 0"),
    (lambda: theory.lyapunov_gaussian(0.1, math.nan, 1), "mean must be a finite number"),
    (lambda: theory.lyapunov_two_point(jnp.array([0.1, math.inf]), 1, 1), "learning_rate must be"),
    (lambda: theory.lyapunov("two_points", 0.1, 1, 1), "did you mean 'two_point'"),
    (lambda: theory.critical_spread(0.1, 1, "gausian"), "did you mean 'gaussian'"),
    (lambda: theory.critical_spread(0.0, 1), "learning_rate must be"),
    (lambda: theory.critical_learning_rate(1, 1, "unifrom"), "did you mean 'uniform'"),
    (lambda: theory.critical_learning_rate_asymmetric(1, -1), "down must be"),
    (lambda: theory.lyapunov_asymmetric(0.1, -1, 1), "up must be"),
    (lambda: theory.lyapunov_environments(0.1, 3.0), "last axis of environments"),
    (lambda: theory.lyapunov_environments(0.1, np.ones(2), np.ones(3) / 3), "shape \\(2,\\)"),
    (lambda: theory.lyapunov_environments(0.1, np.ones(2), np.ones(2)), "sum to one"),
    (
        lambda: theory.mixing_critical_spread(0.1, 1, 1.5),
        "environments_per_batch must be a whole number",
    ),
    (lambda: theory.mixing_critical_spread(0.1, 1, 0), "environments_per_batch must be"),
    (lambda: theory.lyapunov_haar(0.1, 1, 1, 0), "directions must be a whole number"),
    (
        lambda: theory.critical_spread_of(lambda m: m, highest=0.0),
        "highest must be a finite number above 0",
    ),
    (
        lambda: theory.top_exponent(lambda key: jnp.ones(2), key=jax.random.key(0)),
        "draw must return a square matrix",
    ),
    (lambda: theory.linearised(0.1, np.ones((2, 3))), "square matrices"),
    (lambda: theory.lyapunov_exponents(np.eye(2), key=jax.random.key(0)), "shape \\[E, n, n\\]"),
    (
        lambda: theory.lyapunov_exponents(np.eye(2)[None], key=jax.random.key(0), num_chains=1),
        "num_chains",
    ),
    (lambda: theory.growth_time(-1.0, learning_rate=0.1, init_scale=1), "eigenvalue must be"),
    (lambda: theory.growth_time(1.0, learning_rate=0.1, init_scale=0), "init_scale must be"),
    (
        lambda: theory.error_floor(1.0, learning_rate=0.1, **{**BATCH, "batch_size": 0}),
        "batch_size must be",
    ),
    (
        lambda: theory.error_floor(1.0, learning_rate=0.1, label_noise=-1, **BATCH),
        "label_noise must be",
    ),
    (lambda: theory.complement_power(1.0, rank=0, learning_rate=0.1, **BATCH), "rank must be"),
    (
        lambda: theory.expected_error(1.0, learning_rate=0.1, mean=1, family="two", **BATCH),
        "family must be one of",
    ),
    (
        lambda: theory.optimal_spread(learning_rate=0.1, mean=1, **{**BATCH, "dim": -1}),
        "dim must be",
    ),
    (lambda: theory.tail_exponent(0.1, 1.0), "last axis of environments"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()

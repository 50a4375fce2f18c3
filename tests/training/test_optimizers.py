"""Any optax transformation trains a run, its numbers are swept, and averages are measured.

The reference is a plain Python loop: population gradients in double precision, optax by hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import scipy.linalg

from causal_sgd import linalg
from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.training import optimizers, run, samplers
from causal_sgd.training.algorithms import sgd
from causal_sgd.types import Array, Snapshot
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
STEPS = 12
Optimizer = optax.GradientTransformation

# name -> numbers -> optimizer, and values of the numbers at two points of a grid
OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, list[float]]]] = {
    "sgd": (optax.sgd, {"learning_rate": [0.1, 0.03]}),
    "momentum": (optax.sgd, {"learning_rate": [0.05, 0.03], "momentum": [0.9, 0.5]}),
    "nesterov": (
        lambda rate, momentum: optax.sgd(rate, momentum, nesterov=True),
        {"rate": [0.05, 0.03], "momentum": [0.9, 0.5]},
    ),
    "adam": (optax.adam, {"learning_rate": [0.05, 0.01], "b1": [0.9, 0.8]}),
    "adamw": (optax.adamw, {"learning_rate": [0.05, 0.01], "weight_decay": [0.1, 1e-3]}),
    "lion": (optax.lion, {"learning_rate": [0.03, 0.01], "weight_decay": [0.1, 1e-3]}),
    "sign": (optax.sign_sgd, {"learning_rate": [0.03, 0.01]}),
    "noisy": (
        lambda rate, size: optax.noisy_sgd(rate, eta=size, key=jax.random.key(3)),
        {"rate": [0.1, 0.03], "size": [1e-3, 0.1]},
    ),
    "clipped": (
        lambda rate, bound: optax.chain(optax.clip_by_global_norm(bound), optax.sgd(rate)),
        {"rate": [0.1, 0.3], "bound": [1.0, 0.3]},
    ),
    "exponential decay": (
        lambda rate: optax.sgd(optax.exponential_decay(rate, transition_steps=3, decay_rate=0.7)),
        {"rate": [0.1, 0.05]},
    ),
    "cosine decay": (
        lambda rate: optax.sgd(optax.cosine_decay_schedule(rate, STEPS)),
        {"rate": [0.1, 0.05]},
    ),
    "several batches a step": (
        lambda rate: optax.MultiSteps(optax.sgd(rate), 3),
        {"rate": [0.1, 0.05]},
    ),
}


def params_of(snapshot: Snapshot) -> Array:
    return snapshot.params


def cell(
    key: jax.Array,
    optimizer: Any,
    *,
    sampler: samplers.Sampler | None = None,
    steps: int = STEPS,
    **options: Any,
) -> Array:
    """Final parameters [4, 3] of a run whose batches are the population of one environment."""
    algorithm = sgd(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, mean=1.0, spread=2.0, basis="canonical"
        ),
        sampler=samplers.cyclic(batch_size=1) if sampler is None else sampler,
        measurement=measurements.population(),
        model=models.factored(dim=4, rank=3, init_scale=0.5),
        optimizer=optimizer,
        **options,
    )
    return run(key, algorithm=algorithm, metrics=[params_of], num_steps=steps).metrics["params_of"][
        -1
    ]


@functools.cache
def signals() -> tuple[np.ndarray, np.ndarray]:
    """The environments' signals [E, d, d] and the initial parameters, of the run above."""
    algorithm = sgd(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, mean=1.0, spread=2.0, basis="canonical"
        ),
        sampler=samplers.cyclic(batch_size=1),
        measurement=measurements.population(),
        model=models.factored(dim=4, rank=3, init_scale=0.5),
        optimizer=optax.sgd(0.1),
    )
    state = jax.jit(algorithm.init)(jax.random.key(0))
    world = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.world)
    shared = world.invariant_basis * world.invariant_spectrum @ world.invariant_basis.T
    own = world.spurious_basis @ world.spurious_cores @ world.spurious_basis.T
    return shared + own, np.asarray(state.params)


def by_hand(optimizer: Any, observe: Callable[[Any, Array], Array] | None = None) -> np.ndarray:
    targets, start = signals()
    params = jnp.asarray(start)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(STEPS):
        u = np.asarray(params, np.float64)
        gradient = (u @ u.T - targets[step % len(targets)]) @ u
        updates, state = update(jnp.asarray(gradient, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params if observe is None else observe(state, params))


@pytest.mark.parametrize("name", few(OPTIMIZERS, {"noisy", "adam", "momentum"}))
def test_a_transformation_trains_as_by_hand_and_its_numbers_are_swept_in_one_program(
    name: str,
) -> None:
    make, grid = OPTIMIZERS[name]
    key = jax.random.key(0)
    chex.clear_trace_counter()

    def one(numbers: dict[str, Array]) -> Array:
        return cell(key, make(**numbers))

    swept = jax.jit(jax.vmap(chex.assert_max_traces(one, n=1)))
    values = {label: jnp.array(column) for label, column in grid.items()}
    found = swept(values)
    swept({label: 0.5 * column for label, column in values.items()})
    for point in range(2):
        numbers = {label: column[point] for label, column in grid.items()}
        optimizer = make(**numbers)
        expected = by_hand(optimizer)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found[point], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3, "the numbers do not matter"


def averaged(inner: Optimizer, decay: float) -> Optimizer:
    """An optimizer with a moving average of the parameters in its state, as a user would write."""

    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, inner_state = inner.update(gradient, state[0], params)
        average = optax.incremental_update(
            optax.apply_updates(params, updates), state[1], 1 - decay
        )
        return updates, (inner_state, average)

    return Optimizer(lambda params: (inner.init(params), params), update)


AVERAGES = {
    "schedule-free": (
        lambda rate: optax.contrib.schedule_free_sgd(rate),
        optax.contrib.schedule_free_eval_params,
    ),
    "moving average": (lambda rate: averaged(optax.sgd(rate), 0.8), lambda state, params: state[1]),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_metrics_see_the_average_that_an_optimizer_keeps(name: str) -> None:
    make, evaluate = AVERAGES[name]
    key = jax.random.key(0)

    @jax.jit
    def both(rate: Array) -> tuple[Array, Array]:
        return cell(key, make(rate), evaluate=evaluate), cell(key, make(rate))

    average, last = both(0.1)
    np.testing.assert_allclose(average, by_hand(make(0.1), evaluate), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, by_hand(make(0.1)), rtol=1e-4, atol=1e-5)
    assert np.abs(average - last).max() > 1e-3


def test_several_cyclic_batches_a_step_are_one_stratified_batch() -> None:
    key = jax.random.key(1)

    @jax.jit
    def both(rate: Array) -> tuple[Array, Array]:
        several = cell(
            key, optax.MultiSteps(optax.adam(rate), 2).gradient_transformation(), steps=2 * STEPS
        )
        return several, cell(key, optax.adam(rate), sampler=samplers.stratified(batch_size=2))

    several, one = both(0.05)
    np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5)


def test_a_number_of_another_type_does_not_change_the_type_of_the_parameters() -> None:
    params = jax.jit(lambda rate: cell(jax.random.key(0), optax.sgd(rate)))(
        jnp.asarray(0.1, jnp.bfloat16)
    )
    assert params.dtype == jnp.float32


def descend(params: list[np.ndarray], signal: np.ndarray, damping: float) -> list[np.ndarray]:
    """ScaledGD of rate 0.1 in NumPy, U of U U' or both factors of U V', by LAPACK."""
    for _ in range(STEPS):
        left, right = params[0], params[-1]
        residual = left @ right.T - signal
        if len(params) == 1:
            gradients = [residual @ left]
        else:
            gradients = [residual @ right / 2, residual.T @ left / 2]
        identity = damping * np.eye(left.shape[1])
        params = [
            factor - 0.1 * gradient @ np.linalg.inv(other.T @ other + identity)
            for factor, gradient, other in zip(params, gradients, reversed(params), strict=True)
        ]
    return params


PAIRS = [("factored", 3), ("factored", 10), ("asymmetric", 3), ("asymmetric", 10)]


@pytest.mark.parametrize(("kind", "rank"), few(PAIRS, {("factored", 3), ("asymmetric", 10)}))
def test_preconditioned_factors_move_as_in_numpy(kind: str, rank: int) -> None:
    """Also where the system is too large to be written out, and with as many columns as rows."""
    dim = 10

    def trained(damping: Array) -> tuple[Any, Array, Array]:
        make = getattr(models, kind)
        algorithm = sgd(
            world=worlds.two_point(dim=dim, invariant_rank=2, spurious_rank=1, spread=0.0),
            sampler=samplers.cyclic(batch_size=1),
            measurement=measurements.population(),
            model=make(dim=dim, rank=rank, init_scale=0.5, init="gaussian"),
            optimizer=optax.chain(optimizers.scaled(damping=damping), optax.sgd(0.1)),
        )
        key = jax.random.key(0)
        state = algorithm.init(key)
        trace = run(key, algorithm=algorithm, metrics=[params_of], num_steps=STEPS)
        world = state.world
        spurious = world.spurious_basis @ world.mean_core @ world.spurious_basis.T
        return state.params, world.invariant + spurious, trace.metrics["params_of"]

    dampings = np.array([0.2, 1.5])
    starts, signals, found = jax.jit(jax.vmap(trained))(dampings)
    for point, damping in enumerate(dampings):
        start = [np.asarray(leaf[point], float) for leaf in jax.tree.leaves(starts)]
        expected = descend(start, np.asarray(signals[point], float), damping)
        factors = np.reshape(found[point, -1], np.shape(expected))
        np.testing.assert_allclose(factors, expected, rtol=1e-4, atol=2e-5)


def test_a_preconditioned_diagonal_is_a_factor_in_the_coordinates() -> None:
    """The diagonal model and U = diag(u) move alike, by one formula each."""
    u, gradient = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 2.0, -3.0])
    optimizer = optimizers.scaled(damping=0.5)
    alone, _ = optimizer.update(gradient, optimizer.init(u), u)
    matrix = jnp.diag(u)
    dense, _ = optimizer.update(jnp.diag(gradient), optimizer.init(matrix), matrix)
    np.testing.assert_allclose(jnp.diag(dense), alone, rtol=1e-6)
    np.testing.assert_allclose(alone, gradient / (u**2 + 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    "params", [None, jnp.ones((2, 3, 3)), (jnp.ones((3, 2)), jnp.ones((4, 2)))]
)
def test_a_scaled_optimizer_refuses_what_is_no_factor(params: Any) -> None:
    optimizer = optimizers.scaled(damping=0.5)
    with pytest.raises(ValueError, match="^params must be .* a scaled optimizer"):
        optimizer.update(params, optimizer.init(params), params)


def test_an_experiment_names_the_models_of_a_scaled_optimizer() -> None:
    with pytest.raises(ValueError, match="^model must be 'factored' or .* where optimizer is 'sc"):
        Experiment(optimizer="scaled", model="deep")


@pytest.mark.parametrize("size", [1, 8, 20])
def test_positive_systems_are_solved_as_by_lapack(size: int) -> None:
    rng = np.random.default_rng(size)
    factor, right = rng.normal(size=(size, size + 3)), rng.normal(size=(size, 4))
    matrix = factor @ factor.T
    solve = jax.jit(linalg.solve_positive)
    found = solve(jnp.asarray(matrix, jnp.float32), jnp.asarray(right, jnp.float32))
    expected = scipy.linalg.solve(matrix, right, assume_a="pos")
    bound = 3e-6 * np.linalg.cond(matrix) * np.linalg.norm(expected)
    assert np.linalg.norm(found - expected) < bound

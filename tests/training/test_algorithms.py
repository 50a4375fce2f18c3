"""Federated methods, sharpness-aware steps and averages against plain loops and `sgd`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import algorithms, optimizers, run, samplers
from causal_sgd.training.algorithms import stream
from causal_sgd.types import Array, Batch, Sampler, Snapshot

pytestmark = pytest.mark.usefixtures("quickly_compiled")
ROUNDS = 6
WEIGHTS = np.array([0.7, 0.2, 0.1])
SIGNALS = np.array([[1.0, 3.0, -0.5], [1.0, -2.0, 0.5], [1.0, 1.0, 2.0]])  # diagonals, [E, d]
START = 0.3


def params_of(snapshot: Snapshot) -> Array:
    return snapshot.params


def diagonal_world() -> Any:
    shared = np.diag([1.0, 0.0, 0.0])
    own = np.stack([np.diag([0.0, *row[1:]]) for row in SIGNALS])
    return worlds.from_arrays(shared, own, probabilities=WEIGHTS)


def trained(
    key: jax.Array, name: str, sampler: Any, *, steps: int = ROUNDS, **options: Any
) -> Array:
    """The parameters [d] of every frame, by population gradients in three diagonal environments."""
    algorithm = getattr(algorithms, name)(
        world=diagonal_world(),
        sampler=sampler,
        measurement=measurements.population(),
        model=models.diagonal(dim=3, init_scale=START),
        **{"optimizer": optax.sgd(0.1), **options},
    )
    return run(
        key, algorithm=algorithm, metrics=[params_of], num_steps=steps, record_every=1
    ).metrics["params_of"]


def gradient(u: np.ndarray, environment: int) -> np.ndarray:
    return (u**2 - SIGNALS[environment]) * u


def rounds_by_hand(
    members: Callable[[int], list[int]],
    weights: np.ndarray,
    *,
    local_steps: int,
    server: float = 1.0,
    proximal: float = 0.0,
    controlled: bool = False,
    rate: float = 0.1,
) -> np.ndarray:
    """The server's parameters after every round, as the papers say it."""
    u, controls, found = np.full(3, START), np.zeros((3, 3)), []
    for turn in range(ROUNDS):
        chosen = members(turn)
        mean_control, ends = WEIGHTS @ controls, {}
        for e in chosen:
            local = u.copy()
            for _ in range(local_steps):
                slope = gradient(local, e) + proximal * (local - u)
                local = local - rate * (slope + (mean_control - controls[e] if controlled else 0))
            ends[e] = local
        for e in chosen:  # option II of SCAFFOLD
            controls[e] = controls[e] - mean_control + (u - ends[e]) / (local_steps * rate)
        total = sum(weights[e] for e in chosen)
        u = u + server * sum(weights[e] / total * (ends[e] - u) for e in chosen)
        found.append(u)
    return np.array(found)


def everybody(turn: int) -> list[int]:
    return [0, 1, 2]


def test_rounds_follow_the_papers() -> None:
    everyone, in_turn = samplers.stratified(batch_size=30), samplers.cyclic(batch_size=10)
    by_law = {"weights": "probabilities"}

    @jax.jit
    def found(local_steps: Array, proximal: Array, server: Array) -> dict[str, Array]:
        key = jax.random.key(0)
        options: Any = {"local_steps": local_steps}
        return {
            "fedavg": trained(
                key, "fedavg", everyone, server=optax.sgd(server), **options, **by_law
            ),
            "equal": trained(key, "fedavg", everyone, **options),
            "fedprox": trained(key, "fedprox", everyone, proximal=proximal, **options, **by_law),
            "scaffold": trained(key, "scaffold", everyone, **options, **by_law),
            "scaffold in turn": trained(key, "scaffold", in_turn, **options),
        }

    equal = np.ones(3) / 3
    for steps in (3, 1):
        expected = {
            "fedavg": rounds_by_hand(everybody, WEIGHTS, local_steps=steps, server=0.5),
            "equal": rounds_by_hand(everybody, equal, local_steps=steps),
            "fedprox": rounds_by_hand(everybody, WEIGHTS, local_steps=steps, proximal=2.0),
            "scaffold": rounds_by_hand(everybody, WEIGHTS, local_steps=steps, controlled=True),
            "scaffold in turn": rounds_by_hand(
                lambda turn: [turn % 3], equal, local_steps=steps, controlled=True
            ),
        }
        for name, values in found(jnp.asarray(steps), jnp.asarray(2.0), jnp.asarray(0.5)).items():
            np.testing.assert_allclose(
                values[1:], expected[name], rtol=2e-5, atol=1e-6, err_msg=f"{name}, K = {steps}"
            )


def test_one_local_step_of_all_is_the_stratified_step_and_strength_zero_is_fedavg() -> None:
    everyone = samplers.stratified(batch_size=30)

    @jax.jit
    def found(proximal: Array) -> tuple[Array, ...]:
        key = jax.random.key(0)
        one = [trained(key, name, everyone, weights="examples") for name in ("fedavg", "scaffold")]
        # SCAFFOLD's mean control is by the probabilities: the mean of all gradients only with
        # these weights
        one[1] = trained(key, "scaffold", everyone, weights="probabilities")
        three = trained(key, "fedavg", everyone, local_steps=3)
        return (
            trained(key, "sgd", everyone),
            *one,
            trained(key, "fedavg", everyone, weights="probabilities"),
            three,
            trained(key, "fedprox", everyone, local_steps=3, proximal=proximal),
        )

    sgd, fedavg, scaffold, weighted, three, no_strength = found(jnp.asarray(0.0))
    np.testing.assert_allclose(fedavg, sgd, rtol=1e-6)
    np.testing.assert_allclose(scaffold, weighted, rtol=2e-6)
    np.testing.assert_array_equal(no_strength, three)


def noisy(key: jax.Array, name: str, sampler: Any, *, steps: int, **options: Any) -> Array:
    """The same with drawn measurements and label noise, at the end, [4]."""
    algorithm = getattr(algorithms, name)(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, spread=2.0, basis="canonical"
        ),
        sampler=sampler,
        measurement=measurements.gaussian_law(noise=0.5),
        model=models.diagonal(dim=4, init_scale=0.5),
        **{"optimizer": optax.sgd(0.05), **options},
    )
    return run(key, algorithm=algorithm, metrics=[params_of], num_steps=steps).metrics["params_of"][
        -1
    ]


def test_methods_share_their_draws() -> None:
    @jax.jit
    def found(key: jax.Array) -> tuple[Array, Array]:
        return (
            noisy(key, "fedavg", samplers.cyclic(batch_size=20), steps=4, local_steps=3),
            noisy(key, "sgd", samplers.block(batch_size=20, length=3), steps=12),
        )

    np.testing.assert_allclose(*found(jax.random.key(3)), rtol=1e-4, atol=1e-5)


def test_environments_without_examples_take_no_part() -> None:
    batch = Batch(jnp.arange(3), jnp.array([0, 4, 12]))
    some = Sampler(lambda key, probabilities: (), lambda key, step, state: (batch, state), 16)

    @jax.jit
    def found(key: jax.Array) -> tuple[Array, Array]:
        options: Any = {"steps": ROUNDS, "local_steps": 3}
        return trained(key, "fedavg", some, **options), trained(key, "scaffold", some, **options)

    shares = np.array([0, 0.25, 0.75])
    for values, controlled in zip(found(jax.random.key(0)), (False, True), strict=True):
        expected = rounds_by_hand(lambda turn: [1, 2], shares, local_steps=3, controlled=controlled)
        np.testing.assert_allclose(values[1:], expected, rtol=2e-5, atol=1e-6)


def test_sharpness_aware_steps_take_both_gradients_by_the_same_batch() -> None:
    measurement = measurements.streamed(noise=0.5)
    model = models.diagonal(dim=4, init_scale=0.5)
    algorithm = algorithms.sgd(
        world=worlds.two_point(
            dim=4, invariant_rank=1, spurious_rank=1, spread=2.0, basis="canonical"
        ),
        sampler=samplers.cyclic(batch_size=20),
        measurement=measurement,
        model=model,
        optimizer=optimizers.sam(optax.sgd(0.05), radius=0.3),
    )

    @jax.jit
    def both(key: jax.Array) -> tuple[Array, Array]:
        state = algorithm.init(key)
        batch = Batch(jnp.zeros(1, int), jnp.full(1, 20))

        def slope(params: Array) -> Array:
            step_key = jax.random.fold_in(stream(key, "measurements"), 0)
            return measurement.gradient(
                step_key, state.step, state.data, model, params, state.world, batch
            )[0]

        first = slope(state.params)
        second = slope(state.params + 0.3 * first / jnp.linalg.norm(first))
        return algorithm.step(key, state).params, state.params - 0.05 * second

    np.testing.assert_allclose(*both(jax.random.key(1)), rtol=1e-5)


def test_radius_zero_is_the_optimizer_itself_and_sam_of_optax_works_unchanged() -> None:
    sampler = samplers.cyclic(batch_size=20)
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))

    @jax.jit
    def found(radius: Array) -> tuple[Array, ...]:
        key = jax.random.key(1)
        return (
            trained(key, "sgd", sampler),
            trained(
                key, "sgd", sampler, optimizer=optimizers.sam(optax.sgd(0.1), radius=0 * radius)
            ),
            trained(key, "sgd", sampler, optimizer=optimizers.sam(optax.sgd(0.1), radius=radius)),
            trained(
                key,
                "sgd",
                sampler,
                optimizer=optax.contrib.sam(optax.sgd(0.1), ascent, opaque_mode=True),
            ),
        )

    plain, still, sharp, theirs = found(jnp.asarray(0.3))
    np.testing.assert_array_equal(still, plain)
    np.testing.assert_allclose(sharp, theirs, rtol=1e-6)
    assert np.abs(sharp - plain).max() > 1e-3


def test_averages_are_those_of_the_iterates() -> None:
    sampler = samplers.cyclic(batch_size=20)

    @jax.jit
    def found(decay: Array, start: Array) -> tuple[Array, ...]:
        def watched(average: Any) -> Array:
            optimizer = optax.chain(optax.sgd(0.1), average)
            return trained(
                jax.random.key(1), "sgd", sampler, optimizer=optimizer, evaluate=optimizers.averaged
            )

        moving, tail = optimizers.moving_average(decay=decay), optimizers.tail_average(start=start)
        server = optax.chain(optax.sgd(1.0), tail)
        served = trained(
            jax.random.key(1), "fedavg", sampler, server=server, evaluate=optimizers.averaged
        )
        return trained(jax.random.key(1), "sgd", sampler), watched(moving), watched(tail), served

    iterates, moving, tail, served = map(np.asarray, found(jnp.asarray(0.7), jnp.asarray(2)))
    np.testing.assert_array_equal(moving[0], iterates[0])
    for step in range(1, ROUNDS + 1):
        weights = 0.7 ** np.arange(step)[::-1]
        np.testing.assert_allclose(
            moving[step], weights @ iterates[1 : step + 1] / weights.sum(), rtol=2e-6
        )
        after = iterates[3 : step + 1] if step > 2 else iterates[step : step + 1]
        np.testing.assert_allclose(tail[step], after.mean(0), rtol=2e-6)
    np.testing.assert_allclose(served, tail, rtol=2e-6)


def test_a_missing_average_is_reported() -> None:
    with pytest.raises(ValueError, match="must hold one average"):
        optimizers.averaged(optax.sgd(0.1).init(jnp.zeros(2)), jnp.zeros(2))


BASE = Experiment(
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    spread=3.0,
    measurement="population",
    model="diagonal",
    basis="canonical",
    sampler="stratified",
    init_scale=0.1,
    steps=8,
    metrics=("spurious_signal",),
)


def test_an_experiment_names_methods_and_sweeps_their_numbers() -> None:
    # everything that an experiment adds to an optimizer at once
    dressed = {
        "clip_norm": 1.0,
        "sam_radius": 0.1,
        "average": "moving",
        "schedule": "cosine",
        "sampler": "hetero",
    }
    found = sweep(BASE.replace(**dressed).cell(), axes={"accumulate": [1, 2]})
    values = found.spurious_signal.isel(step=-1, seed=0).values
    assert np.isfinite(values).all()
    assert values[0] != values[1]


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold"])
def test_an_experiment_names_federated_methods(name: str) -> None:
    cell = BASE.replace(algorithm=name, average="tail", client_weights="probabilities").cell()
    numbers = {"local_steps": 2, "proximal": 0.5, "server_learning_rate": 0.5}
    trace = jax.eval_shape(lambda key, numbers: cell(key, **numbers), jax.random.key(0), numbers)
    assert trace.metrics["spurious_signal"].shape == (2,)

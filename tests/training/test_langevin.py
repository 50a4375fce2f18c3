"""Noise of a run's own: its stationary law, its keys, and the wrappers that pass them on.

On a quadratic of curvature h a step is x <- (1 - rate h) x + sqrt(2 rate T) normal, so that the
stationary variance is 2 rate T / (1 - (1 - rate h)^2) = T / (h (1 - rate h / 2)), exactly.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.sweeps import sweep
from causal_sgd.training import algorithms, optimizers, run, samplers
from causal_sgd.types import Array, Model, Snapshot

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RATE, TEMPERATURE, CURVATURES = 0.3, 0.7, (0.5, 2.0, 5.0)
NEGLIGIBLE = 1e-12  # a rate at which the gradient does not matter


def test_the_stationary_variance_is_that_of_the_discrete_chain() -> None:
    """4000 chains from the law itself, after 30 steps: the law is kept and decorrelates so."""
    chains, steps = 4000, 30
    curvatures = jnp.array(CURVATURES)
    optimizer = optimizers.langevin(RATE, temperature=TEMPERATURE)
    law = np.array([TEMPERATURE / (h * (1 - RATE * h / 2)) for h in CURVATURES])

    def chain(key: Array, start: Array) -> Array:
        def step(index: Array, carry: Any) -> Any:
            x, state = carry
            own = jax.random.fold_in(key, index)
            updates, state = optimizer.update(curvatures * x, state, x, key=own)
            return optax.apply_updates(x, updates), state

        return jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))[0]

    keys = jax.random.split(jax.random.key(0), chains)
    rng = np.random.default_rng(0)
    start = (rng.normal(size=(chains, 3)) * law**0.5).astype(np.float32)
    end = np.asarray(jax.jit(jax.vmap(chain))(keys, start), float)
    scores = ((end**2).mean(0) / law - 1) / (2 / chains) ** 0.5
    assert np.abs(scores).max() < 4.5
    assert np.abs(end.mean(0) / (law / chains) ** 0.5).max() < 4.5
    memory = (1 - RATE * np.array(CURVATURES)) ** steps
    products = (start * end).mean(0) / law - memory
    assert np.abs(products * chains**0.5).max() < 4.5
    mixed = (end[:, :1] * end[:, 1:]).mean(0) / (law[0] * law[1:]) ** 0.5
    assert np.abs(mixed * chains**0.5).max() < 4.5, "the noise of two coordinates is shared"


def test_a_schedule_and_several_arrays_have_noise_of_their_own() -> None:
    def schedule(step: Array) -> Array:
        return 0.1 / (1 + step)

    optimizer = optimizers.langevin(schedule, temperature=2.0)
    params = {"one": jnp.zeros(20000), "two": jnp.zeros(20000)}
    state, moves = optimizer.init(params), []
    for step in range(2):
        updates, state = optimizer.update(params, state, key=jax.random.key(step))
        moves += list(updates.values())
    for index, move in enumerate(moves):
        variance = 2 * float(schedule(jnp.asarray(index // 2))) * 2.0
        assert abs(np.mean(np.square(move)) / variance - 1) < 4.5 * (2 / 20000) ** 0.5
    unit = [np.asarray(move) / np.std(move) for move in moves]
    correlations = np.corrcoef(unit)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / 20000**0.5
    assert int(state.updates) == 2


def params_of(snapshot: Snapshot) -> Array:
    return snapshot.params


def trained(key: Array, name: str, *, steps: int = 1, **options: Any) -> Array:
    """Parameters after noise alone, from nearly zero: a rate that lets no gradient act."""
    dim = 400
    algorithm = getattr(algorithms, name)(
        world=worlds.two_point(
            dim=dim, invariant_rank=1, spurious_rank=1, basis="canonical", spread=1.0
        ),
        sampler=samplers.stratified(batch_size=4),
        measurement=measurements.population(),
        model=vector(dim),
        optimizer=optimizers.langevin(NEGLIGIBLE, temperature=0.5 / NEGLIGIBLE),
        **options,
    )
    trace = run(key, algorithm=algorithm, metrics=[params_of], num_steps=steps)
    return trace.metrics["params_of"][-1]


def vector(dim: int) -> Model:
    return models.diagonal(dim=dim, init_scale=1e-3)


def test_the_noise_belongs_to_the_run_and_the_step() -> None:
    """Of unit size in every step here, the same for a key and independent of that of another."""

    @jax.jit
    def both(keys: Array) -> tuple[Array, Array]:
        one = jax.vmap(lambda key: trained(key, "sgd"))(keys)
        return one, jax.vmap(lambda key: trained(key, "sgd", steps=2))(keys)

    keys = jnp.stack([jax.random.key(seed) for seed in (0, 1, 0)])
    first, second = map(np.asarray, both(keys))
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(second[0], second[2])
    draws = np.stack([first[0], first[1], second[0] - first[0], second[1] - first[1]])
    scores = ((draws**2).mean(-1) - 1) / (2 / 400) ** 0.5
    assert np.abs(scores).max() < 4.5
    assert np.abs(np.corrcoef(draws)[np.triu_indices(4, 1)]).max() < 4.5 / 400**0.5


@pytest.mark.slow
def test_clients_and_server_draw_independently() -> None:
    """The mean of 2 participants after 3 local steps has variance 3/2, the server adds its own."""
    server = optax.chain(optax.sgd(1.0), _noise())

    @jax.jit
    def ends(key: Array) -> tuple[Array, Array]:
        alone = trained(key, "fedavg", local_steps=3, steps=2)
        return alone, trained(key, "fedavg", local_steps=3, steps=2, server=server)

    alone, with_server = map(np.asarray, ends(jax.random.key(3)))
    for draws, variance in ((alone, 3.0), (with_server - alone, 2.0)):
        assert abs((draws**2).mean() / variance - 1) < 4.5 * (2 / 400) ** 0.5
    assert abs(np.corrcoef(alone, with_server - alone)[0, 1]) < 4.5 / 400**0.5


def _noise() -> Any:
    """Noise of unit size added to updates, which pass otherwise."""
    unit = optimizers.langevin(NEGLIGIBLE, temperature=0.5 / NEGLIGIBLE)

    def update(updates: Any, state: Any, params: Any = None, *, key: Any = None, **_: Any) -> Any:
        noise, state = unit.update(jax.tree.map(jnp.zeros_like, updates), state, params, key=key)
        return jax.tree.map(jnp.add, updates, noise), state

    return optax.GradientTransformationExtraArgs(unit.init, update)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"sam_radius": 0.1, "accumulate": 2}, marks=pytest.mark.slow),
        pytest.param({"schedule": "linear", "clip_norm": 1.0}, marks=pytest.mark.slow),
        pytest.param({"algorithm": "scaffold", "average": "tail"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_an_experiment_draws_it_anew_for_every_seed_and_sweeps_its_temperature(
    options: dict[str, Any],
) -> None:
    experiment = Experiment(
        dim=3,
        invariant_rank=1,
        spurious_rank=1,
        measurement="population",
        model="diagonal",
        basis="canonical",
        optimizer="langevin",
        sampler="stratified",
        steps=20,
        metrics=("spurious_power",),
        **options,
    )
    axes = {"temperature": np.array([0.0, 1e-3])}
    found = [sweep(experiment.cell(), axes=axes, seeds=3, progress=False) for _ in range(2)]
    values = found[0].spurious_power.isel(step=-1).values
    np.testing.assert_array_equal(values, found[1].spurious_power.isel(step=-1).values)
    assert np.ptp(values[0]) == 0, "population gradients draw nothing"
    assert len(np.unique(values[1])) == 3


def test_without_a_key_it_says_so() -> None:
    optimizer = optimizers.langevin(0.1, temperature=1.0)
    params = jnp.ones(3)
    with pytest.raises(ValueError, match="^key must be passed to the update of a langevin"):
        optimizer.update(params, optimizer.init(params), params)
    steps = optax.MultiSteps(optimizer, 2)
    with pytest.raises(ValueError, match="^key must be passed"):
        jax.eval_shape(lambda key: _wrapped(key, steps), jax.random.key(0))


def _wrapped(key: Array, steps: optax.MultiSteps) -> Array:
    algorithm = algorithms.sgd(
        world=worlds.two_point(dim=3, invariant_rank=1, spurious_rank=1, basis="canonical"),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=vector(3),
        optimizer=steps.gradient_transformation(),
    )
    return run(key, algorithm=algorithm, metrics=[params_of], num_steps=2).metrics["params_of"]

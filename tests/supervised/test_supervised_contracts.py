"""Every member of the second system's rooms, and every objective, keeps the promises of its room.

The arguments of each member stand in `support/supervised.py`.
"""

from __future__ import annotations

import functools
import pkgutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import supervised, training
from causal_sgd.supervised import estimators, measurements, metrics, models
from causal_sgd.training import algorithms, objectives, samplers
from causal_sgd.types import Batch
from support.cases import few
from support.supervised import (
    DIM,
    ERRORS,
    ESTIMATORS,
    METRIC_ROOMS,
    METRICS,
    OBJECTIVES,
    OTHERS,
    ROOMS,
    WORLDS,
    make,
    nature,
    nature_of,
    nature_with_tests,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def use(room: str, name: str, key: jax.Array, numbers: dict[str, Any]) -> Any:
    """What a member makes of a key and of numbers; the contract is about this function."""
    member = make(room, name, **numbers)
    if room == "worlds":
        return member(key)
    if room == "losses":
        return member
    if room == "models":
        params = member.init(key)
        if not member.has_weights:
            return params, member.predict(params, jnp.array([0.5, -1.0]))
        return params, member.estimate(params)
    if room == "objectives":
        return train(key, objective=member)
    world = (nature_of(name) if room == "measurements" else nature())(key)
    if room == "nonstationary":
        return member(key, jnp.asarray(3), world)
    if room == "estimators":
        return member(measurements.moments(1000).init(key, world), world)
    batch = Batch(jnp.arange(3), jnp.array([6, 8, 10], jnp.int32))
    model, data = models.linear(dim=DIM), member.init(jax.random.fold_in(key, 1), world)
    params = {"weights": jnp.array([0.5, 0.25])}
    return member.gradient(key, jnp.zeros((), jnp.int32), data, model, params, world, batch)


def train(key: jax.Array, **options: Any) -> Any:
    """What metrics see, and the loss, after two steps."""
    algorithm = algorithms.penalised(
        world=nature(),
        sampler=samplers.stratified(batch_size=30),
        measurement=measurements.moments(),
        model=models.linear(dim=DIM, init_scale=0.5),
        optimizer=optax.sgd(0.1),
        **options,
    )
    state = jax.lax.fori_loop(
        0, 2, lambda _, state: algorithm.step(key, state), algorithm.init(key)
    )
    return algorithm.snapshot(key, state).params, algorithm.loss(state)


@functools.cache
def program(room: str, name: str) -> tuple[Any, Any]:
    """The function that the contract is about, plain and compiled; it may be traced once only."""

    def plain(key: jax.Array, numbers: dict[str, Any]) -> Any:
        return use(room, name, key, numbers)

    chex.clear_trace_counter()  # which knows functions by their source
    return plain, jax.jit(chex.assert_max_traces(plain, n=1))


ELSEWHERE = {
    "estimators": set(ESTIMATORS) - {"regression_invariance"},
    "measurements": {"moments", "batch_moments", "batch_projections", "examples"},
    "objectives": set(OBJECTIVES) - {"vrex", "annealed"},
    "worlds": {"anticausal", "chain", "sem", "unit_test_margin", "zin_logit"},
}
"""Members that the default run calls in the tests of their rooms; their contract is a slow test."""


def members() -> list[Any]:
    return [
        pytest.param(
            room,
            name,
            id=f"{room}.{name}",
            marks=[pytest.mark.slow] if name in ELSEWHERE.get(room, ()) else [],
        )
        for room, (_, rows) in ROOMS.items()
        for name in rows
    ]


def equal(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(left, right, equal_nan=True) for left, right in pairs)


@pytest.mark.parametrize("room", [*ROOMS, *METRIC_ROOMS])
def test_every_member_has_a_row(room: str) -> None:
    module, rows = (ROOMS | METRIC_ROOMS)[room]
    members = {name for name in module.__all__ if name.islower()} - OTHERS.get(room, set())
    assert not members - set(rows), f"support/supervised.py lacks rows of {room}"
    assert not set(rows) - members, f"support/supervised.py has rows of no member of {room}"


def test_every_room_of_ingredients_has_a_table() -> None:
    tables = {module.__name__ for module, _ in (ROOMS | METRIC_ROOMS).values()}
    rooms = {
        f"{supervised.__name__}.{info.name}"
        for info in pkgutil.iter_modules(supervised.__path__)
        if not info.name.startswith("_")
    }
    own = {"supervised.data"}  # tables of others, which tests/supervised judge by themselves
    assert tables == {each for each in rooms if each.split(".", 1)[1] not in own} | {
        objectives.__name__
    }


@pytest.mark.parametrize(("room", "name"), members())
def test_a_member_is_a_pure_function_of_its_key_and_traced_numbers(room: str, name: str) -> None:
    row = ROOMS[room][1][name]
    numbers, others = dict(row.numbers), dict(row.others)
    _, traced = program(room, name)
    first, second = jax.random.key(0), jax.random.key(1)
    result = traced(first, numbers)
    assert equal(result, traced(first, numbers)), "the same key gave another result"
    assert equal(result, traced(second, numbers)) != row.random
    if others:
        assert not equal(result, traced(first, others)), "the numbers do not matter"


@pytest.mark.slow  # values under `vmap` are in the tests of each room too
@pytest.mark.parametrize(("room", "name"), members())
def test_a_member_maps_over_keys_and_numbers(room: str, name: str) -> None:
    """As sweeps map it: keys differ from lane to lane, and numbers too."""
    row = ROOMS[room][1][name]
    numbers, others = dict(row.numbers), dict(row.others)
    plain, traced = program(room, name)
    first, second = jax.random.key(0), jax.random.key(1)
    both = jax.tree.map(lambda *values: np.stack(values), numbers, others or numbers)
    mapped = jax.jit(jax.vmap(plain))(jnp.stack([first, second]), both)
    for lane, expected in enumerate((traced(first, numbers), traced(second, others or numbers))):
        found = jax.tree.map(lambda leaf, lane=lane: leaf[lane], mapped)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


# Most worlds are linear; laws of mixtures and of samples are in the tests of those worlds.
KINDS = {"balancing", "contradiction", "two_bit", "from_arrays"}


@pytest.mark.parametrize("name", few(WORLDS, KINDS))
def test_a_world_has_the_documented_shapes(name: str) -> None:
    world = program("worlds", name)[1](jax.random.key(0), dict(WORLDS[name].numbers))
    (environments,), (dim,) = world.probabilities.shape, world.estimate_shape
    chex.assert_shape(world.target, (dim,))
    chex.assert_shape(world.causal, (dim,))
    chex.assert_shape(world.unscramble, (dim, dim))
    np.testing.assert_allclose(world.probabilities.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(world.unscramble @ world.unscramble.T, np.eye(dim), atol=1e-5)
    counts = jnp.full(environments, 1000)

    @jax.jit  # op by op, each would be compiled
    def draws(world: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        key = jax.random.key(1)
        moments = world.draw_moments(key, jnp.arange(environments), counts)
        return moments, world.draw_examples(key, jnp.asarray(0), 7)

    drawn, (x, y) = draws(world)
    chex.assert_shape(drawn, (environments, dim + 2, dim + 2))
    np.testing.assert_allclose(drawn[:, -1, -1], 1, atol=1e-5)
    chex.assert_shape(x, (7, dim))
    chex.assert_shape(y, (7,))


def all_metrics(key: jax.Array) -> dict[str, jax.Array]:
    """All metrics of a fit, and of gates in a table with held-out examples."""
    fitted = algorithms.fitted(
        world=nature_with_tests(),
        measurement=measurements.moments(100, num_validation=50),
        estimator=estimators.pooled(),
    )
    trained = algorithms.sgd(
        world=nature_of("counts"),
        sampler=samplers.stratified(batch_size=3),
        measurement=measurements.counts(num_examples=50, num_validation=50),
        model=models.gated(dim=DIM),
        optimizer=optax.sgd(0.1),
    )
    found = {}
    of_training = ERRORS | {"gates"}
    for algorithm, names in ((fitted, set(METRICS) - of_training), (trained, of_training)):
        watched = {name: getattr(metrics, name) for name in names}
        trace = training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)
        found |= {name: values[-1] for name, values in trace.metrics.items()}
    return found


def test_metrics_have_their_shapes() -> None:
    values, sizes = jax.eval_shape(all_metrics, jax.random.key(0)), {"E": 3, "T": 1, "p": DIM}
    assert set(values) == set(METRICS)
    for name, shape in METRICS.items():
        assert values[name].shape == tuple(sizes[size] for size in shape), name


def types_of(room: str, name: str) -> set[str]:
    """The types of all numbers that a member returns, in the current precision."""
    row = ROOMS[room][1][name]
    result = jax.eval_shape(
        lambda key, numbers: use(room, name, key, numbers), jax.random.key(0), dict(row.numbers)
    )
    kinds = {leaf.dtype for leaf in jax.tree.leaves(result)}
    return {str(kind) for kind in kinds if jnp.issubdtype(kind, jnp.floating)}


@pytest.mark.parametrize("room", few(ROOMS, {"models"}))
def test_every_member_runs_in_double_precision(room: str) -> None:
    with jax.enable_x64(True):
        found = {name: types_of(room, name) for name in ROOMS[room][1]}
    assert found == {name: {"float64"} for name in ROOMS[room][1]}


def test_the_mean_objective_is_sgd_to_the_bit() -> None:
    parts: dict[str, Any] = {
        "world": nature(),
        "sampler": samplers.pooled(batch_size=30),
        "measurement": measurements.moments(),
        "model": models.linear(dim=DIM),
        "optimizer": optax.adam(0.1),
    }
    methods = (
        algorithms.sgd(**parts),
        algorithms.penalised(**parts, objective=objectives.mean()),
    )
    states = []
    for method in methods:

        def last(key: jax.Array, method: Any = method) -> Any:
            step = functools.partial(method.step, key)
            return jax.lax.fori_loop(0, 20, lambda _, before: step(before), method.init(key))

        state = jax.jit(last)(jax.random.key(0))
        states.append((state.params, state.loss))
    assert equal(*states)

"""Every member of a room of ingredients keeps the promises of its room.

The arguments of each member stand in `support/contracts.py`; a member without a row fails
`test_every_member_has_a_row`. What a member promises on its own is in `test_worlds.py` and so on.
"""

from __future__ import annotations

import functools
import pkgutil
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import sensing, training
from causal_sgd.sensing import World, measurements, models, worlds
from causal_sgd.training import algorithms, optimizers, samplers
from causal_sgd.types import Batch
from support.cases import few
from support.contracts import (
    ALGORITHMS,
    DIM,
    MEASUREMENTS,
    METRIC_ROOMS,
    OTHERS,
    OWN_RANK,
    RANKS,
    ROOMS,
    SHARED_RANK,
    WORLDS,
    draw_world,
    draws,
    make,
    own_signals,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def world_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worlds") / "world.npz"
    np.savez(path, **own_signals())
    return path


def use(room: str, name: str, world_file: Path, key: jax.Array, numbers: dict[str, Any]) -> Any:
    """Return what a member makes of a key and of numbers; the contract is about this function."""
    if room == "algorithms":
        return train(key, name, **ALGORITHMS[name].static, **numbers)
    if room == "optimizers":
        return train(key, "sgd", transformation=name, **numbers)
    member = make(room, name, world_file, **numbers)
    if room == "worlds":
        return member(key)
    if room == "models":
        params = member.init(key)
        own = None if member.predict is None else member.predict(params, jnp.arange(1.0, DIM + 1))
        return (
            params,
            member.estimate(params),
            None if member.factor is None else member.factor(params),
            own,
        )
    if room == "samplers":
        return draws(member, key, np.full(4, 0.25), 6)
    if room == "nonstationary":
        return member(key, jnp.asarray(3), nature())
    model, world = models.factored(dim=DIM, rank=3), nature()
    if name.startswith("order_parameter"):
        model = models.order_parameters(dim=100, rank=3, frame=SHARED_RANK + OWN_RANK)
        world = worlds.reduced(lambda _: nature(), rows=model.rows)(key)
    rows = world.estimate_shape[0]
    params = jnp.cos(jnp.arange(3.0 * rows)).reshape(rows, 3)
    batch = Batch(jnp.arange(4), jnp.array([3, 0, 4, 5], jnp.int32))
    data = member.init(jax.random.key(1), world)
    return member.gradient(key, jnp.zeros((), jnp.int32), data, model, params, world, batch)


def train(
    key: jax.Array,
    name: str,
    *,
    learning_rate: Any = 0.1,
    transformation: str | None = None,
    **numbers: Any,
) -> Any:
    """What metrics see, and the loss, after two steps in environments of a random order."""
    optimizer, evaluate = optax.sgd(learning_rate), None
    if transformation == "sam":
        optimizer = optimizers.sam(optimizer, **numbers)
    elif transformation == "restarted":
        momentum = optax.sgd(learning_rate, momentum=0.9)
        optimizer = optimizers.restarted(momentum, **numbers)
    elif transformation == "gates":
        optimizer = optimizers.gates(
            optimizer, learning_rate=learning_rate, where=lambda params: True, **numbers
        )
    elif transformation == "relative_cap":
        optimizer = optax.chain(optimizer, optimizers.relative_cap(**numbers))
    elif transformation == "scaled":
        optimizer = optax.chain(optimizers.scaled(**numbers), optimizer)
    elif transformation == "langevin":
        optimizer = optimizers.langevin(learning_rate, **numbers)
    elif transformation is not None:
        average = optimizers.moving_average(decay=0.7)
        if transformation != "averaged":
            average = getattr(optimizers, transformation)(**numbers)
        optimizer, evaluate = optax.chain(optimizer, average), optimizers.averaged
    algorithm = getattr(algorithms, name)(
        world=worlds.two_point(dim=3, invariant_rank=1, spurious_rank=1, basis="canonical"),
        sampler=samplers.hetero(batch_size=5),
        measurement=measurements.population(),
        model=models.diagonal(dim=3, init_scale=0.5),
        optimizer=optimizer,
        evaluate=evaluate,
        **({} if transformation else numbers),
    )
    state = jax.lax.fori_loop(
        0, 2, lambda _, state: algorithm.step(key, state), algorithm.init(key)
    )
    return algorithm.snapshot(key, state).params, algorithm.loss(state)


@functools.cache
def nature() -> World:
    """The world of all measurements, as a constant that no program has to draw."""
    with jax.ensure_compile_time_eval():
        return draw_world(worlds.two_point(**RANKS))


@functools.cache
def program(room: str, name: str, world_file: Path) -> tuple[Any, Any]:
    """The function that the contract is about, plain and compiled; it may be traced once only."""

    def plain(key: jax.Array, numbers: dict[str, Any]) -> Any:
        return use(room, name, world_file, key, numbers)

    chex.clear_trace_counter()  # which knows functions by their source
    return plain, jax.jit(chex.assert_max_traces(plain, n=1))


def members() -> list[Any]:
    return [
        pytest.param(room, name, id=f"{room}.{name}")
        for room, (_, rows) in ROOMS.items()
        for name in rows
    ]


def equal(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("room", [*ROOMS, *METRIC_ROOMS])
def test_every_member_has_a_row(room: str) -> None:
    module, rows = (ROOMS | METRIC_ROOMS)[room]
    # classes and constants need none
    members = {name for name in module.__all__ if name.islower()} - OTHERS.get(room, set())
    assert not members - set(rows), f"support/contracts.py lacks rows of {room}"
    assert not set(rows) - members, f"support/contracts.py has rows of no member of {room}"


def test_every_room_of_ingredients_has_a_table() -> None:
    tables = {module.__name__ for module, _ in (ROOMS | METRIC_ROOMS).values()}
    rooms = {
        f"{package.__name__}.{info.name}"
        for package in (sensing, training)
        for info in pkgutil.iter_modules(package.__path__)
        if not info.name.startswith("_")
    }
    assert tables == rooms - {"causal_sgd.training.objectives"}  # in supervised/


OF_LAYERS = {"imbalance", "layer_alignment"}  # of models with several factors


def all_metrics(key: jax.Array) -> dict[str, jax.Array]:
    """All metrics of runs of one step, after it."""
    layered = models.asymmetric(dim=4, rank=3, init="gaussian", init_scale=0.5)
    factored = models.factored(dim=4, rank=3, init="gaussian", init_scale=0.5)
    watched = {
        name: getattr(module, name) for module, rows in METRIC_ROOMS.values() for name in rows
    }
    others = {name: metric for name, metric in watched.items() if name not in OF_LAYERS}
    return one_step(key, factored, others) | one_step(
        key, layered, {name: watched[name] for name in OF_LAYERS}
    )


def one_step(key: jax.Array, model: Any, watched: dict[str, Any]) -> dict[str, jax.Array]:
    algorithm = algorithms.sgd(
        world=worlds.two_point(dim=4, invariant_rank=1, spurious_rank=1, basis="canonical"),
        sampler=samplers.hetero(batch_size=5),
        measurement=measurements.population(),
        model=model,
        optimizer=optax.sgd(0.1),
    )
    trace = training.run(key, algorithm=algorithm, metrics=watched, num_steps=1)
    return {name: values[-1] for name, values in trace.metrics.items()}


def test_metrics_have_their_shapes() -> None:
    values, sizes = jax.eval_shape(all_metrics, jax.random.key(0)), {"E": 2, "k": 3}
    for _, rows in METRIC_ROOMS.values():
        for name, shape in rows.items():
            assert values[name].shape == tuple(sizes[size] for size in shape), name
            assert values[name].dtype == jnp.float32, name


@pytest.mark.slow  # values under `vmap` are in the tests of each room too
def test_metrics_are_pure_functions_and_map_over_runs() -> None:
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(all_metrics, n=1))
    keys = jax.random.split(jax.random.key(0), 2)
    first, second = map(traced, keys)
    for name, value in first.items():
        assert not equal(value, second[name]), f"{name} is the same in every run"
    assert equal(traced(keys[0]), first), "the same key gave another result"
    mapped = jax.jit(jax.vmap(all_metrics))(keys)
    stacked = jax.tree.map(lambda *values: jnp.stack(values), first, second)
    chex.assert_trees_all_close(mapped, stacked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("room", "name"), members())
def test_a_member_is_a_pure_function_of_its_key_and_traced_numbers(
    room: str, name: str, world_file: Path
) -> None:
    row = ROOMS[room][1][name]
    numbers, others = dict(row.numbers), dict(row.others)
    _, traced = program(room, name, world_file)
    first, second = jax.random.key(0), jax.random.key(1)
    result = traced(first, numbers)
    assert equal(result, traced(first, numbers)), "the same key gave another result"
    assert equal(result, traced(second, numbers)) != row.random
    if others:
        assert not equal(result, traced(first, others)), "the numbers do not matter"


@pytest.mark.slow  # values under `vmap` are in the tests of each room too
@pytest.mark.parametrize(("room", "name"), members())
def test_a_member_maps_over_keys_and_numbers(room: str, name: str, world_file: Path) -> None:
    """As sweeps map it: keys differ from lane to lane, and numbers too."""
    row = ROOMS[room][1][name]
    numbers, others = dict(row.numbers), dict(row.others)
    plain, traced = program(room, name, world_file)
    first, second = jax.random.key(0), jax.random.key(1)
    both = jax.tree.map(lambda *values: np.stack(values), numbers, others or numbers)
    mapped = jax.jit(jax.vmap(plain))(jnp.stack([first, second]), both)
    for lane, expected in enumerate((traced(first, numbers), traced(second, others or numbers))):
        found = jax.tree.map(lambda leaf, lane=lane: leaf[lane], mapped)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_has_the_documented_shapes(name: str, world_file: Path) -> None:
    world = program("worlds", name, world_file)[1](jax.random.key(0), dict(WORLDS[name].numbers))
    own = 3 if name in ("from_arrays", "from_file") else OWN_RANK
    environments = {"two_point": 4, "from_arrays": 3, "from_file": 3}.get(name, 5)
    chex.assert_shape(world.invariant_basis, (DIM, 2))
    chex.assert_shape(world.invariant_spectrum, (2,))
    chex.assert_shape(world.spurious_basis, (DIM, own))
    chex.assert_shape(world.spurious_cores, (environments, own, own))
    chex.assert_shape(world.probabilities, (environments,))
    chex.assert_shape(world.invariant, (DIM, DIM))
    chex.assert_shape(world.mean_core, (own, own))
    chex.assert_type(list(world), jnp.float32)
    np.testing.assert_allclose(world.probabilities.sum(), 1, atol=1e-6)
    for basis in (world.invariant_basis, world.spurious_basis):
        np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
    np.testing.assert_array_equal(world.spurious_cores, np.swapaxes(world.spurious_cores, 1, 2))
    mean = np.einsum("e,eij->ij", world.probabilities, world.spurious_cores)
    np.testing.assert_allclose(world.mean_core, mean, atol=1e-5)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_returns_a_gradient_like_the_parameters_and_a_scalar_loss(
    name: str, world_file: Path
) -> None:
    gradient, loss = program("measurements", name, world_file)[1](
        jax.random.key(0), dict(MEASUREMENTS[name].numbers)
    )
    rows = SHARED_RANK + OWN_RANK + 2 * 3 if name.startswith("order_parameter") else DIM
    chex.assert_shape(gradient, (rows, 3))
    chex.assert_shape(loss, ())
    chex.assert_type([gradient, loss], jnp.float32)
    assert loss > 0


@pytest.mark.parametrize(
    "name", few(["gaussian_law", "low_rank_law", "population"], {"low_rank_law"})
)
def test_the_largest_batch_has_a_loss(name: str, world_file: Path) -> None:
    member = make("measurements", name, world_file)
    model = models.factored(dim=DIM, rank=3, init_scale=0.1)
    batch = Batch(jnp.arange(1), jnp.full(1, samplers.LARGEST_BATCH, jnp.int32))

    @jax.jit
    def loss(key: jax.Array) -> jax.Array:
        data, params = member.init(key, nature()), model.init(key)
        return member.gradient(key, jnp.zeros((), int), data, model, params, nature(), batch)[1]

    squares = np.sum(
        np.asarray(nature().invariant + nature().spurious(nature().spurious_cores[0])) ** 2
    )
    np.testing.assert_allclose(loss(jax.random.key(0)), squares / 4, rtol=0.05)


def types_of(room: str, name: str, world_file: Path) -> set[str]:
    """The types of all that a member returns, in the current precision; nothing is compiled."""
    row = ROOMS[room][1][name]
    numbers = {label: jax.tree.map(float_of, value) for label, value in row.numbers.items()}
    result = jax.eval_shape(
        lambda key, numbers: use(room, name, world_file, key, numbers), jax.random.key(0), numbers
    )
    return {str(leaf.dtype) for leaf in jax.tree.leaves(result)}


def float_of(value: Any) -> Any:
    """Floats in the current precision; whole numbers as they are."""
    return jnp.asarray(value, float) if np.issubdtype(np.result_type(value), np.floating) else value


@pytest.mark.parametrize("room", few(ROOMS, {"samplers"}))
def test_every_member_runs_in_double_precision(room: str, world_file: Path) -> None:
    nature.cache_clear()
    expected = {"int32"} if room == "samplers" else {"float64"}
    with jax.enable_x64(True):
        found = {name: types_of(room, name, world_file) for name in ROOMS[room][1]}
    nature.cache_clear()
    assert found == dict.fromkeys(ROOMS[room][1], expected)


@pytest.mark.slow
def test_metrics_are_computed_in_double_precision() -> None:
    with jax.enable_x64(True):
        values = jax.eval_shape(all_metrics, jax.random.key(0))
    assert {str(value.dtype) for value in values.values()} == {"float64"}


@pytest.mark.parametrize("room", few(ROOMS, {"samplers"}))
def test_every_member_runs_with_strict_promotion(room: str, world_file: Path) -> None:
    nature.cache_clear()
    with jax.numpy_dtype_promotion("strict"):
        for name in ROOMS[room][1]:
            assert types_of(room, name, world_file) in ({"int32"}, {"float32"}), name
    nature.cache_clear()


@pytest.mark.slow
def test_metrics_are_computed_with_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        assert jax.eval_shape(all_metrics, jax.random.key(0))

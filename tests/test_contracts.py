"""Every member of `worlds`, `samplers`, `measurements`, `models` and `metrics` keeps the promises of its room.

The tables below give each name of an `__all__` its arguments; a member without a row fails
`test_every_member_has_a_row`. Statistical tests are at the level 1e-3 each, with fixed seeds.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from causal_sgd import measurements, metrics, models, samplers, worlds
from causal_sgd.types import Batch, Sampler, Snapshot, World, WorldFactory

LEVEL = 1e-3
DIM, SHARED_RANK, OWN_RANK = 7, 2, 2
RANKS: dict[str, Any] = {"dim": DIM, "invariant_rank": SHARED_RANK, "spurious_rank": OWN_RANK}
PROBABILITIES = np.array([0.5, 0.3, 0.15, 0.05, 0.0])


class Row(NamedTuple):
    """A member's static arguments, two sets of numbers that may be traced, and whether its key matters."""

    static: Mapping[str, Any] = MappingProxyType({})
    numbers: Mapping[str, Any] = MappingProxyType({})
    others: Mapping[str, Any] = MappingProxyType({})
    random: bool = True


def symmetric(rng: np.random.Generator, *shape: int) -> np.ndarray:
    array = rng.normal(size=shape)
    return (array + np.swapaxes(array, -1, -2)) / 2


def own_signals(seed: int = 0, *, dim: int = DIM, environments: int = 3) -> dict[str, np.ndarray]:
    """An indefinite A* and spurious signals of rank 3 that share a direction with it."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(dim, 4)))[0]
    own = frame[:, 1:]
    return {
        "invariant": frame[:, :2] * np.array([2.0, -1.0]) @ frame[:, :2].T,
        "spurious": own @ symmetric(rng, environments, 3, 3) @ own.T,
    }


WORLDS = {
    "two_point": Row(
        RANKS,
        {"mean": 1.0, "spread": 6.0, "tilt": 0.0, "invariant_spectrum": np.array([1.0, 2.0], np.float32)},
        {"mean": 0.5, "spread": 3.0, "tilt": 0.2, "invariant_spectrum": np.array([3.0, 2.0], np.float32)},
    ),
    "uniform": Row(RANKS | {"num_environments": 5}, {"mean": 1.0, "spread": 6.0}, {"mean": 2.0, "spread": 1.0}),
    "gaussian": Row(
        RANKS | {"num_environments": 5},
        {"spread": 6.0, "probabilities": PROBABILITIES.astype(np.float32)},
        {"spread": 2.0, "probabilities": np.full(5, 0.2, np.float32)},
    ),
    "from_arrays": Row(
        own_signals(),
        {"probabilities": np.array([0.2, 0.3, 0.5], np.float32)},
        {"probabilities": np.array([0.5, 0.3, 0.2], np.float32)},
        random=False,
    ),
    "from_file": Row({"path": "world.npz"}, random=False),
}
SAMPLERS = {
    "hetero": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "cyclic": Row({}, {"batch_size": 13}, {"batch_size": 7}, random=False),
    "block": Row({}, {"batch_size": 13, "length": 3}, {"batch_size": 13, "length": 2}, random=False),
    "shuffled": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "sticky": Row({}, {"batch_size": 13, "stay": 0.5}, {"batch_size": 7, "stay": 0.1}),
    "mixed": Row({"environments_per_batch": 3}, {"batch_size": 13}, {"batch_size": 7}),
    "pooled": Row({}, {"batch_size": 13}, {"batch_size": 7}),
    "stratified": Row({}, {"batch_size": 13}, {"batch_size": 7}, random=False),
}
MEASUREMENTS = {
    "population": Row(random=False),
    "gaussian_law": Row({}, {"noise": 0.5}, {"noise": 0.0}),
    "low_rank_law": Row({}, {"noise": 0.5}, {"noise": 0.0}),
    "fixed_design": Row({"num_examples": 9}, {"noise": 0.5}, {"noise": 0.0}),
    "streamed": Row({"slab_size": 6}, {"noise": 0.5}, {"noise": 0.0}),
}
MODELS = {
    "factored": Row({"dim": DIM, "rank": 3}, {"init_scale": 0.1}, {"init_scale": 0.2}),
    "diagonal": Row({"dim": DIM}, {"init_scale": 0.1}, {"init_scale": 0.2}, random=False),
}
ROOMS: dict[str, tuple[ModuleType, dict[str, Row]]] = {
    "worlds": (worlds, WORLDS),
    "samplers": (samplers, SAMPLERS),
    "measurements": (measurements, MEASUREMENTS),
    "models": (models, MODELS),
}


@pytest.fixture(scope="module")
def world_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worlds") / "world.npz"
    np.savez(path, **own_signals())
    return path


def make(room: str, name: str, world_file: Path | None = None, **numbers: Any) -> Any:
    """Call a factory as its row says."""
    module, rows = ROOMS[room]
    static = dict(rows[name].static)
    if "path" in static:
        static["path"] = world_file
    return getattr(module, name)(**static, **numbers)


def use(room: str, name: str, world_file: Path, key: jax.Array, numbers: dict[str, Any]) -> Any:
    """What a member makes of a key and of numbers: the contract is about this function."""
    member = make(room, name, world_file, **numbers)
    if room == "worlds":
        return member(key)
    if room == "models":
        params = member.init(key)
        return params, member.estimate(params), member.factor(params)
    if room == "samplers":
        return draws(member, key, np.full(4, 0.25), 6)
    nature = draw_world(worlds.two_point(**RANKS))
    model = models.factored(dim=DIM, rank=3)
    params = jnp.cos(jnp.arange(3.0 * DIM)).reshape(DIM, 3)
    batch = Batch(jnp.arange(4), jnp.array([3, 0, 4, 5], jnp.int32))
    data = member.init(jax.random.key(1), nature)
    return member.gradient(key, jnp.zeros((), jnp.int32), data, model, params, nature, batch)


def draws(sampler: Sampler, key: jax.Array, probabilities: Any, steps: int) -> jax.Array:
    """The counts of one run, [steps, E]; keys as `sgd` makes them."""
    state = sampler.init(key, jnp.asarray(probabilities, jnp.float32))

    def one(state: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        counts, state = sampler.draw(jax.random.fold_in(key, step), step, state)
        return state, counts

    return jax.lax.scan(one, state, jnp.arange(steps))[1]


def members() -> list[Any]:
    return [pytest.param(room, name, id=f"{room}.{name}") for room, (_, rows) in ROOMS.items() for name in rows]


def equal(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("room", ROOMS)
def test_every_member_has_a_row(room: str) -> None:
    module, rows = ROOMS[room]
    assert set(rows) == set(module.__all__)


def test_every_metric_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(metrics.__all__)


@pytest.mark.parametrize(("room", "name"), members())
def test_a_member_is_a_pure_function_of_its_key_and_traced_numbers(room: str, name: str, world_file: Path) -> None:
    row = ROOMS[room][1][name]
    numbers, others = dict(row.numbers), dict(row.others)

    def plain(key: jax.Array, numbers: dict[str, Any]) -> Any:
        return use(room, name, world_file, key, numbers)

    chex.clear_trace_counter()  # which knows functions by their source
    traced = jax.jit(chex.assert_max_traces(plain, n=1))
    first, second = jax.random.key(0), jax.random.key(1)
    result = traced(first, numbers)
    assert equal(result, traced(first, numbers)), "the same key gave another result"
    assert equal(result, traced(second, numbers)) != row.random
    if others:
        assert not equal(result, traced(first, others)), "the numbers do not matter"
    mapped = jax.jit(jax.vmap(plain, (0, None)))(jnp.stack([first, second]), numbers)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[0], mapped), result, rtol=1e-4, atol=1e-5)
    if others:  # numbers may differ from lane to lane
        both = jax.tree.map(lambda *values: jnp.stack([jnp.asarray(value) for value in values]), numbers, others)
        mapped = jax.jit(jax.vmap(plain, (None, 0)))(first, both)
        other = traced(first, others)
        chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], mapped), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_has_the_documented_shapes(name: str, world_file: Path) -> None:
    world = draw_world(make("worlds", name, world_file))
    own = 3 if name.startswith("from") else OWN_RANK
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
def test_a_measurement_returns_a_gradient_like_the_parameters_and_a_scalar_loss(name: str) -> None:
    gradient, loss = jax.jit(lambda key: use("measurements", name, Path(), key, {}))(jax.random.key(0))
    chex.assert_shape(gradient, (DIM, 3))
    chex.assert_shape(loss, ())
    chex.assert_type([gradient, loss], jnp.float32)
    assert loss > 0


# Worlds


@pytest.mark.parametrize("basis", ["random", "canonical"])
# more spurious than invariant directions, and the other way round: only the common ones lean
@pytest.mark.parametrize(("shared", "own"), [(1, 3), (3, 2)])
def test_spurious_directions_lean_towards_the_invariant_ones_by_the_tilt(basis: str, shared: int, own: int) -> None:
    @jax.jit
    def draw(tilt: jax.Array) -> World:
        ranks = {"dim": 8, "invariant_rank": shared, "spurious_rank": own}
        return worlds.two_point(**ranks, tilt=tilt, basis=basis)(jax.random.key(3))

    for tilt in (0.0, 0.3, np.pi / 2):
        world = draw(tilt)
        expected = np.zeros((shared, own))
        np.fill_diagonal(expected, np.sin(tilt))
        np.testing.assert_allclose(world.invariant_basis.T @ world.spurious_basis, expected, atol=1e-6)
        np.testing.assert_allclose(world.spurious_basis.T @ world.spurious_basis, np.eye(own), atol=1e-6)


def draw_world(factory: WorldFactory, seed: int = 0) -> World:
    """In one program: piece by piece it would be compiled piece by piece."""
    return jax.jit(factory)(jax.random.key(seed))


def unstack(mapped: World) -> list[World]:
    return [jax.tree.map(lambda leaf, lane=lane: leaf[lane], mapped) for lane in range(len(mapped.probabilities))]


def eigenvalues(world: World) -> np.ndarray:
    """[E, r2]; the cores are diagonal."""
    cores = np.asarray(world.spurious_cores)
    diagonal = np.diagonal(cores, axis1=1, axis2=2)
    np.testing.assert_array_equal(cores, diagonal[:, :, None] * np.eye(cores.shape[1]))
    return diagonal


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_two_point_makes_one_environment_for_each_pattern_of_signs(rank: int) -> None:
    world = draw_world(worlds.two_point(dim=9, invariant_rank=2, spurious_rank=rank, mean=1.0, spread=6.0))
    found = sorted(map(tuple, eigenvalues(world)))
    assert found == sorted(itertools.product([7.0, -5.0], repeat=rank))


def test_balanced_environments_have_exactly_the_mean() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    for world in map(eigenvalues, unstack(jax.jit(jax.vmap(worlds.two_point(**RANKS, num_environments=10)))(keys))):
        assert set(world.ravel()) == {7.0, -5.0}
        np.testing.assert_array_equal(world.mean(0), 1.0)
    for family in (worlds.uniform, worlds.gaussian):
        factory = family(**RANKS, mean=1.0, spread=6.0, num_environments=9, balanced=True)
        for world in unstack(jax.jit(jax.vmap(factory))(keys)):
            np.testing.assert_allclose(eigenvalues(world).mean(0), 1.0, atol=1e-5)


def test_directions_of_a_balanced_world_are_shuffled_on_their_own() -> None:
    world = draw_world(worlds.uniform(**RANKS, num_environments=50, balanced=True))
    first, second = eigenvalues(world).T
    np.testing.assert_allclose(np.sort(first), np.sort(second), atol=1e-6)
    assert abs(stats.spearmanr(first, second).statistic) < 0.5  # 3.5 standard deviations


@pytest.mark.parametrize(
    ("family", "law"),
    [(worlds.uniform, stats.uniform(-2.0, 6.0)), (worlds.gaussian, stats.norm(1.0, 3.0))],
)
def test_spectra_have_their_distribution(family: Callable, law: Any) -> None:
    world = draw_world(family(**RANKS, mean=1.0, spread=3.0, num_environments=2000))
    for direction in eigenvalues(world).T:
        assert stats.kstest(direction, law.cdf).pvalue > LEVEL
    assert abs(stats.pearsonr(*eigenvalues(world).T).statistic) < 3.3 / np.sqrt(2000)


def test_unbalanced_signs_are_independent_and_equally_likely() -> None:
    factory = worlds.two_point(**RANKS, mean=0.0, spread=1.0, num_environments=4001, balanced=False)
    signs = eigenvalues(draw_world(factory)) > 0
    patterns = np.bincount(signs @ [1, 2], minlength=4)
    assert stats.chisquare(patterns).pvalue > LEVEL


def test_random_directions_are_haar_distributed() -> None:
    # an entry x of a Haar frame in d dimensions has (x + 1) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2)
    factory = worlds.two_point(dim=5, invariant_rank=2, spurious_rank=2)
    mapped = jax.jit(jax.vmap(factory))(jax.random.split(jax.random.key(0), 2000))
    for entry in (mapped.invariant_basis[:, 0, 0], mapped.invariant_basis[:, 4, 1], mapped.spurious_basis[:, 2, 1]):
        assert stats.kstest((entry + 1) / 2, stats.beta(2, 2).cdf).pvalue > LEVEL


def test_worlds_of_one_key_differ_only_in_their_numbers() -> None:
    here = draw_world(worlds.gaussian(**RANKS, num_environments=5, mean=0.0, spread=1.0))
    there = draw_world(worlds.gaussian(**RANKS, num_environments=5, mean=2.0, spread=3.0))
    np.testing.assert_array_equal(here.invariant_basis, there.invariant_basis)
    np.testing.assert_array_equal(here.spurious_basis, there.spurious_basis)
    np.testing.assert_allclose(eigenvalues(there), 2 + 3 * eigenvalues(here), rtol=1e-5)


def test_arrays_and_files_give_back_their_signals(world_file: Path) -> None:
    signals = own_signals()
    weights = [0.2, 0.3, 0.5]
    for factory in (worlds.from_arrays(**signals, probabilities=weights), worlds.from_file(world_file)):
        world = factory(jax.random.key(0))
        for core, spurious in zip(world.spurious_cores, signals["spurious"], strict=True):
            both = world.invariant + world.spurious(core)
            np.testing.assert_allclose(both, signals["invariant"] + spurious, atol=3e-6)
        np.testing.assert_allclose(world.invariant, signals["invariant"], atol=1e-6)
        assert (np.asarray(world.invariant_spectrum) < 0).any(), "the example should be indefinite"
    np.testing.assert_allclose(
        worlds.from_arrays(**signals, probabilities=weights)(jax.random.key(0)).probabilities, weights
    )


def test_arrays_may_leave_an_environment_without_a_spurious_signal() -> None:
    signals = own_signals()
    world = worlds.from_arrays(signals["invariant"], 0 * signals["spurious"])(jax.random.key(0))
    chex.assert_shape(world.spurious_basis, (DIM, 0))
    np.testing.assert_array_equal(world.spurious(world.spurious_cores[0]), np.zeros((DIM, DIM)))


# Samplers


@pytest.mark.parametrize("environments", [1, 3, 4])
@pytest.mark.parametrize("name", SAMPLERS)
def test_counts_are_whole_numbers_that_sum_to_the_batch_size(name: str, environments: int) -> None:
    @jax.jit
    def run(key: jax.Array, batch_size: jax.Array) -> jax.Array:
        sampler = make("samplers", name, **dict(SAMPLERS[name].numbers) | {"batch_size": batch_size})
        return draws(sampler, key, np.full(environments, 1 / environments), 25)

    most = make("samplers", name, **SAMPLERS[name].numbers).max_environments
    for batch_size in (3, 13, 1000):
        counts = np.asarray(run(jax.random.key(batch_size), batch_size))
        assert counts.dtype == np.int32
        assert counts.shape == (25, environments)
        assert (counts >= 0).all()
        assert (counts.sum(1) == batch_size).all()
        if most is not None:
            assert ((counts > 0).sum(1) <= most).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_counts_sum_to_batch_sizes_that_floats_cannot_count(name: str) -> None:
    @jax.jit
    def run(batch_size: jax.Array) -> jax.Array:
        sampler = make("samplers", name, **dict(SAMPLERS[name].numbers) | {"batch_size": batch_size})
        return draws(sampler, jax.random.key(0), np.full(3, 1 / 3), 10)

    for batch_size in (2**24 + 1, 10**8, 10**8 + 1, 2**30):
        counts = np.asarray(run(batch_size), np.int64)
        assert (counts >= 0).all()
        assert (counts.sum(1) == batch_size).all()


def many_first_draws(sampler: Sampler, probabilities: np.ndarray, number: int, steps: int = 1) -> np.ndarray:
    """The first counts of independent runs, [number, steps, E]."""
    keys = jax.random.split(jax.random.key(0), number)
    return np.asarray(jax.jit(jax.vmap(lambda key: draws(sampler, key, probabilities, steps)))(keys))


def follows(observed: np.ndarray, probabilities: np.ndarray) -> bool:
    """Chi-square test of frequencies; what has no probability must never happen."""
    possible = probabilities > 0
    assert not observed[~possible].any()
    expected = probabilities[possible] / probabilities.sum() * observed.sum()
    return stats.chisquare(observed[possible], expected).pvalue > LEVEL


@pytest.mark.parametrize(
    "sampler",
    [
        samplers.hetero(batch_size=1),
        samplers.sticky(batch_size=1, stay=0.6),
        samplers.mixed(batch_size=3, environments_per_batch=3),
        samplers.pooled(batch_size=7),
    ],
    ids=["hetero", "sticky", "mixed", "pooled"],
)
def test_environments_are_met_with_their_probabilities(sampler: Sampler) -> None:
    # examples of different runs, and within a run those of one batch, are independent draws
    counts = many_first_draws(sampler, PROBABILITIES, 20_000, steps=6)
    assert follows(counts[:, 0].sum(0), PROBABILITIES)
    assert follows(counts[:, -1].sum(0), PROBABILITIES), "not stationary"


def test_hetero_draws_anew_at_every_step() -> None:
    counts = many_first_draws(samplers.hetero(batch_size=1), PROBABILITIES, 20_000, steps=2)
    pairs = np.einsum("ne,nf->ef", counts[:, 0], counts[:, 1])
    assert follows(pairs.ravel(), np.outer(PROBABILITIES, PROBABILITIES).ravel())


@pytest.mark.parametrize("stay", [0.0, 0.6, 0.95])
def test_sticky_stays_as_often_as_it_should(stay: float) -> None:
    counts = many_first_draws(samplers.sticky(batch_size=1, stay=stay), PROBABILITIES, 20_000, steps=2)
    pairs = np.einsum("ne,nf->ef", counts[:, 0], counts[:, 1])
    transitions = stay * np.eye(5) + (1 - stay) * PROBABILITIES[None, :]
    assert follows(pairs.ravel(), (PROBABILITIES[:, None] * transitions).ravel())


def test_mixed_draws_its_environments_independently_with_replacement() -> None:
    counts = many_first_draws(samplers.mixed(batch_size=3, environments_per_batch=3), PROBABILITIES, 20_000)[:, 0]
    same = (counts == 3).any(1)
    assert follows(np.bincount(same, minlength=2), np.array([1 - (PROBABILITIES**3).sum(), (PROBABILITIES**3).sum()]))


def test_mixed_with_one_environment_is_hetero_in_law_and_shares_a_batch_equally() -> None:
    counts = many_first_draws(samplers.mixed(batch_size=11, environments_per_batch=1), PROBABILITIES, 5_000)[:, 0]
    assert set(counts.ravel()) == {0, 11}
    counts = many_first_draws(samplers.mixed(batch_size=11, environments_per_batch=3), np.full(50, 0.02), 50)[:, 0]
    alone = counts[(counts > 0).sum(1) == 3]
    assert len(alone) > 10
    assert {tuple(sorted(row[row > 0])) for row in alone} == {(3, 4, 4)}


def test_pooled_counts_have_the_moments_of_a_multinomial() -> None:
    counts = many_first_draws(samplers.pooled(batch_size=40), PROBABILITIES, 50_000)[:, 0].astype(float)
    deviation = counts - 40 * PROBABILITIES
    covariance = 40 * (np.diag(PROBABILITIES) - np.outer(PROBABILITIES, PROBABILITIES))
    z = [column.mean() / column.std() * np.sqrt(50_000) for column in deviation.T[:4]]
    for one, other in itertools.combinations_with_replacement(range(4), 2):
        product = deviation[:, one] * deviation[:, other] - covariance[one, other]
        z.append(product.mean() / product.std() * np.sqrt(50_000))
    assert np.abs(z).max() < 4.2  # 14 z-scores: 4e-4
    assert not counts[:, 4].any()
    # and the whole distribution of one of them
    observed = np.bincount(counts[:, 2].astype(int), minlength=41)
    assert follows(observed[:15], stats.binom(40, 0.15).pmf(np.arange(15)))


def test_cyclic_and_block_visit_environments_in_order() -> None:
    order = np.argmax(draws(samplers.cyclic(batch_size=2), jax.random.key(0), np.full(3, 1 / 3), 7), 1)
    np.testing.assert_array_equal(order, [0, 1, 2, 0, 1, 2, 0])
    order = np.argmax(draws(samplers.block(batch_size=2, length=3), jax.random.key(0), np.full(2, 0.5), 10), 1)
    np.testing.assert_array_equal(order, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1])


def test_shuffled_visits_every_environment_once_a_pass_in_any_order() -> None:
    counts = draws(samplers.shuffled(batch_size=1), jax.random.key(0), np.full(3, 1 / 3), 3 * 3000)
    passes = np.asarray(np.argmax(counts, 1)).reshape(3000, 3)
    assert (np.sort(passes, 1) == np.arange(3)).all()
    orders = np.bincount(passes @ [9, 3, 1], minlength=27)
    assert follows(orders[orders > 0], np.full(6, 1 / 6))
    again = np.bincount((passes[:-1] @ [9, 3, 1] == passes[1:] @ [9, 3, 1]).astype(int), minlength=2)
    assert follows(again, np.array([5 / 6, 1 / 6])), "the passes are not independent"


@pytest.mark.parametrize(("batch_size", "environments"), [(13, 4), (14, 4), (3, 5), (6, 9)])
def test_stratified_favours_nobody_for_long(batch_size: int, environments: int) -> None:
    sampler = samplers.stratified(batch_size=batch_size)
    counts = np.asarray(draws(sampler, jax.random.key(0), np.full(environments, 1 / environments), 3 * environments))
    assert (np.ptp(counts, 1) <= 1).all()
    cycles = counts.reshape(3, environments, environments).sum(1)
    np.testing.assert_array_equal(cycles, batch_size)


# Models


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_the_pullback_is_the_transpose_of_the_estimate(rank: int) -> None:
    model = models.factored(dim=5, rank=rank, init="gaussian", init_scale=1.0)
    params = model.init(jax.random.key(0))
    chex.assert_shape(params, (5, rank))
    np.testing.assert_allclose(model.estimate(params), params @ params.T, atol=1e-5)
    np.testing.assert_array_equal(model.factor(params), params)
    cotangent = jnp.asarray(symmetric(np.random.default_rng(0), 5, 5), jnp.float32)
    expected = jax.vjp(model.estimate, params)[1](cotangent)[0]
    np.testing.assert_allclose(model.pullback(params, cotangent), expected, rtol=1e-5, atol=1e-5)


def test_the_diagonal_model_says_the_same_in_all_its_forms() -> None:
    model = models.diagonal(dim=5, init_scale=0.3)
    np.testing.assert_allclose(model.init(jax.random.key(0)), np.full(5, 0.3))
    params = jnp.arange(1.0, 6.0)
    np.testing.assert_allclose(model.estimate(params), np.diag(np.arange(1.0, 6.0) ** 2))
    np.testing.assert_allclose(model.factor(params) @ model.factor(params).T, model.estimate(params))
    np.testing.assert_allclose(jnp.diag(model.diagonal(params)), model.estimate(params))
    cotangent = jnp.asarray(symmetric(np.random.default_rng(0), 5, 5), jnp.float32)
    expected = jax.vjp(model.estimate, params)[1](cotangent)[0]
    np.testing.assert_allclose(model.pullback(params, cotangent), expected, rtol=1e-5, atol=1e-5)


def test_initial_parameters_have_their_scale() -> None:
    np.testing.assert_allclose(models.factored(dim=4, init_scale=0.3).init(jax.random.key(0)), 0.3 * np.eye(4))
    for model in (
        models.factored(dim=40, rank=30, init_scale=0.3),
        models.factored(dim=40, init="gaussian", init_scale=0.3),
    ):
        entries = np.asarray(model.init(jax.random.key(0))).ravel()
        assert stats.kstest(entries / 0.3, stats.norm.cdf).pvalue > LEVEL


# Metrics


@functools.cache
def tilted_world() -> World:
    spectrum = np.array([1.0, 2.0])
    return draw_world(worlds.gaussian(**RANKS, num_environments=3, invariant_spectrum=spectrum, tilt=0.4), 2)


def make_snapshot(kind: str) -> Snapshot:
    """A snapshot in single precision of a factor with k below, at and above the ranks, in several worlds."""
    rng = np.random.default_rng(5)
    world = tilted_world()
    factor = rng.normal(size=(DIM, {"one column": 1, "three columns": 3}.get(kind, DIM)))
    if kind == "almost learned":
        basis, spectrum = np.asarray(world.invariant_basis), np.asarray(world.invariant_spectrum)
        factor = np.concatenate([basis * np.sqrt(spectrum), np.zeros((DIM, DIM - 2))], 1) + 1e-3 * factor
    if kind == "overlapping signals":  # U* and V share a direction
        world = worlds.from_arrays(**own_signals(), probabilities=[0.2, 0.3, 0.5])(jax.random.key(0))
    if kind == "spurious signals in every direction":
        world = worlds.from_arrays(own_signals()["invariant"], symmetric(rng, 2, DIM, DIM))(jax.random.key(0))
    factor = jnp.asarray(factor, jnp.float32)
    return Snapshot(jnp.asarray(3), factor, None, factor, world, jnp.asarray(1.5))


KINDS = (
    "one column", "three columns", "square", "almost learned", "overlapping signals",
    "spurious signals in every direction",
)  # fmt: skip


class Dense(NamedTuple):
    """The same in double precision, dense, for the definitions."""

    factor: np.ndarray
    estimate: np.ndarray
    shared_basis: np.ndarray
    own_basis: np.ndarray
    invariant: np.ndarray
    spurious: np.ndarray
    probabilities: np.ndarray


def dense(snapshot: Snapshot) -> Dense:
    world = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), snapshot.world)
    factor = np.asarray(snapshot.factor, np.float64)
    return Dense(
        factor=factor,
        estimate=factor @ factor.T,
        shared_basis=world.invariant_basis,
        own_basis=world.spurious_basis,
        invariant=world.invariant_basis * world.invariant_spectrum @ world.invariant_basis.T,
        spurious=world.spurious_basis @ world.spurious_cores @ world.spurious_basis.T,
        probabilities=world.probabilities,
    )


def pooled_signal(d: Dense) -> np.ndarray:
    return d.invariant + np.einsum("e,eij->ij", d.probabilities, d.spurious)


def complement(d: Dense) -> np.ndarray:
    inside = scipy.linalg.orth(np.concatenate([d.shared_basis, d.own_basis], 1), rcond=1e-4)
    return d.factor - inside @ inside.T @ d.factor


def entropy_rank(d: Dense) -> np.ndarray:
    values = np.linalg.svd(d.factor, compute_uv=False) ** 2
    return np.exp(stats.entropy(values))


def leading_angle(d: Dense) -> float:
    left = np.linalg.svd(d.factor, full_matrices=False)[0][:, : d.shared_basis.shape[1]]
    if left.shape[1] < d.shared_basis.shape[1]:
        return np.pi / 2
    return scipy.linalg.subspace_angles(d.shared_basis, left).max()


def losses(d: Dense) -> np.ndarray:
    return ((d.estimate - d.invariant - d.spurious) ** 2).sum((1, 2)) / 4


norm = np.linalg.norm
DEFINITIONS: dict[str, Callable[[Dense], Any]] = {
    "batch_loss": lambda d: 1.5,
    "complement_signal": lambda d: norm(complement(d)),
    "effective_rank": entropy_rank,
    "environment_losses": losses,
    "invariant_error": lambda d: norm(d.estimate - d.invariant),
    "invariant_signal": lambda d: norm(d.shared_basis.T @ d.factor),
    "largest_principal_angle": leading_angle,
    "pooled_error": lambda d: norm(d.estimate - pooled_signal(d)),
    "relative_invariant_error": lambda d: norm(d.estimate - d.invariant) / norm(d.invariant),
    "relative_pooled_error": lambda d: norm(d.estimate - pooled_signal(d)) / norm(pooled_signal(d)),
    "singular_values": lambda d: np.linalg.svd(d.factor, compute_uv=False) ** 2,
    "spurious_power": lambda d: norm(d.own_basis.T @ d.factor) ** 2,
    "spurious_signal": lambda d: norm(d.own_basis.T @ d.factor),
    "worst_environment_loss": lambda d: losses(d).max(),
}


def measure(snapshot: Snapshot) -> dict[str, jax.Array]:
    return {name: getattr(metrics, name)(snapshot) for name in metrics.__all__}


@jax.jit
def measure_both(snapshot: Snapshot) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """All metrics, with the factor of the estimate and without it."""
    return measure(snapshot), measure(snapshot._replace(dense=snapshot.estimate, factor=None))


VECTORS = {"environment_losses", "singular_values"}


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_agree_with_their_definitions(kind: str) -> None:
    """To 2e-5 of the definition in double precision, and 2e-5 of the size of the signals where they cancel."""
    snapshot = make_snapshot(kind)
    found, again = measure_both(snapshot)
    d = dense(snapshot)
    for name, value in found.items():
        expected = DEFINITIONS[name](d)
        chex.assert_type(value, jnp.float32)
        chex.assert_shape(value, np.shape(expected))
        assert (value.ndim > 0) == (name in VECTORS)
        # what is left of a signal in no direction at all is rounding: the square root of it for the estimate alone
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5, err_msg=name)
        # A metric of the estimate alone gives the same; a sum of squares that cancels leaves the root of its rounding.
        if name == "largest_principal_angle" and kind == "one column":
            continue  # an estimate does not say how many columns it came from
        padded = np.pad(expected, (0, DIM - len(expected))) if name == "singular_values" else expected
        loose = 5e-3 if name.endswith("_signal") else 1e-4
        np.testing.assert_allclose(again[name], padded, rtol=1e-4, atol=loose, err_msg=f"{name} of the estimate")


def test_metrics_do_not_depend_on_the_choice_of_basis() -> None:
    snapshot = make_snapshot("square")
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(2, 2)))[0], jnp.float32)
    world = snapshot.world
    world = world._replace(
        spurious_basis=world.spurious_basis @ rotation,
        spurious_cores=rotation.T[None] @ world.spurious_cores @ rotation[None],
    )
    rotated, plain = measure_both(snapshot._replace(world=world))[0], measure_both(snapshot)[0]
    chex.assert_trees_all_close(rotated, plain, rtol=1e-4)


def test_metrics_map_over_runs_and_compile_once() -> None:
    snapshots = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[make_snapshot("square")] * 3)
    scales = jnp.array([1.0, 0.5, 2.0])
    snapshots = snapshots._replace(factor=snapshots.factor * scales[:, None, None])
    chex.clear_trace_counter()
    mapped = jax.jit(jax.vmap(chex.assert_max_traces(measure, n=1)))
    together = mapped(snapshots)
    mapped(snapshots._replace(batch_loss=2 * snapshots.batch_loss))
    for lane in range(3):
        alone = measure(jax.tree.map(lambda leaf, lane=lane: leaf[lane], snapshots))
        chex.assert_trees_all_close(jax.tree.map(lambda leaf, lane=lane: leaf[lane], together), alone, rtol=1e-4)


def test_metrics_of_a_zero_estimate_are_numbers() -> None:
    snapshot = make_snapshot("square")
    zero = snapshot._replace(factor=0 * snapshot.factor)
    for values in measure_both(zero):
        chex.assert_tree_all_finite(values)
        assert values["effective_rank"] == 0
        assert values["spurious_signal"] == 0

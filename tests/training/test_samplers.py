"""Samplers meet the environments in the order, or with the probabilities, that they promise.

Statistical tests are at the level 1e-3 each, with fixed seeds.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd.training import samplers
from causal_sgd.types import Batch, Sampler
from support.cases import few
from support.contracts import PROBABILITIES, SAMPLERS, draws, make
from support.sweeps import COMPILATIONS

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LEVEL = 1e-3


@functools.partial(jax.jit, static_argnames=("name", "environments"))
def run(key: jax.Array, batch_size: jax.Array, *, name: str, environments: int) -> jax.Array:
    """The counts of 25 steps, [25, E]."""
    sampler = make("samplers", name, **dict(SAMPLERS[name].numbers) | {"batch_size": batch_size})
    return draws(sampler, key, np.full(environments, 1 / environments), 25)


@pytest.mark.parametrize("environments", few([1, 3, 4], {4}))
@pytest.mark.parametrize("name", SAMPLERS)
def test_counts_are_whole_numbers_that_sum_to_the_batch_size(name: str, environments: int) -> None:
    for batch_size in (3, 13, 1000):
        counts = np.asarray(
            run(jax.random.key(batch_size), batch_size, name=name, environments=environments)
        )
        assert counts.dtype == np.int32
        assert counts.shape == (25, environments)
        assert (counts >= 0).all()
        assert (counts.sum(1) == batch_size).all()


@pytest.mark.parametrize("environments", few([1, 2, 5], {2}))
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_has_as_many_different_environments_as_its_sampler_says(
    name: str, environments: int
) -> None:
    sampler = make("samplers", name, **SAMPLERS[name].numbers)
    most = {"mixed": 3, "pooled": environments, "stratified": environments}.get(name, 1)

    @jax.jit
    def batches(keys: jax.Array) -> Batch:
        def one(key: jax.Array) -> Batch:
            state = sampler.init(key, jnp.full(environments, 1 / environments))
            return sampler.draw(key, jnp.asarray(7), state)[0]

        return jax.vmap(one)(keys)

    drawn = np.asarray(batches(jax.random.split(jax.random.key(0), 20)).environments)
    assert drawn.shape == (20, min(most, environments))
    assert drawn.min() >= 0
    assert drawn.max() < environments
    assert all(len(set(row)) == len(row) for row in drawn)


@pytest.mark.parametrize("name", SAMPLERS)
def test_counts_sum_to_batch_sizes_that_floats_cannot_count(name: str) -> None:
    for batch_size in (2**24 + 1, 10**8, 10**8 + 1, 2**30):
        counts = np.asarray(run(jax.random.key(0), batch_size, name=name, environments=3), np.int64)
        assert (counts >= 0).all()
        assert (counts.sum(1) == batch_size).all()


def many_first_draws(
    sampler: Sampler, probabilities: np.ndarray, number: int, steps: int = 1
) -> np.ndarray:
    """The first counts of independent runs, [number, steps, E]."""
    keys = jax.random.split(jax.random.key(0), number)
    return np.asarray(
        jax.jit(jax.vmap(lambda key: draws(sampler, key, probabilities, steps)))(keys)
    )


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
    counts = many_first_draws(
        samplers.sticky(batch_size=1, stay=stay), PROBABILITIES, 20_000, steps=2
    )
    pairs = np.einsum("ne,nf->ef", counts[:, 0], counts[:, 1])
    transitions = stay * np.eye(5) + (1 - stay) * PROBABILITIES[None, :]
    assert follows(pairs.ravel(), (PROBABILITIES[:, None] * transitions).ravel())


def test_mixed_draws_its_environments_independently_with_replacement() -> None:
    counts = many_first_draws(
        samplers.mixed(batch_size=3, environments_per_batch=3), PROBABILITIES, 20_000
    )[:, 0]
    same = (counts == 3).any(1)
    assert follows(
        np.bincount(same, minlength=2),
        np.array([1 - (PROBABILITIES**3).sum(), (PROBABILITIES**3).sum()]),
    )


def test_mixed_with_one_environment_is_hetero_in_law_and_shares_a_batch_equally() -> None:
    counts = many_first_draws(
        samplers.mixed(batch_size=11, environments_per_batch=1), PROBABILITIES, 5_000
    )[:, 0]
    assert set(counts.ravel()) == {0, 11}
    counts = many_first_draws(
        samplers.mixed(batch_size=11, environments_per_batch=3), np.full(50, 0.02), 50
    )[:, 0]
    alone = counts[(counts > 0).sum(1) == 3]
    assert len(alone) > 10
    assert {tuple(sorted(row[row > 0])) for row in alone} == {(3, 4, 4)}


def test_pooled_counts_have_the_moments_of_a_multinomial() -> None:
    counts = many_first_draws(samplers.pooled(batch_size=40), PROBABILITIES, 50_000)[:, 0].astype(
        float
    )
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
    order = np.argmax(
        draws(samplers.cyclic(batch_size=2), jax.random.key(0), np.full(3, 1 / 3), 7), 1
    )
    np.testing.assert_array_equal(order, [0, 1, 2, 0, 1, 2, 0])
    order = np.argmax(
        draws(samplers.block(batch_size=2, length=3), jax.random.key(0), np.full(2, 0.5), 10), 1
    )
    np.testing.assert_array_equal(order, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1])


def test_shuffled_visits_every_environment_once_a_pass_in_any_order() -> None:
    counts = draws(samplers.shuffled(batch_size=1), jax.random.key(0), np.full(3, 1 / 3), 3 * 3000)
    passes = np.asarray(np.argmax(counts, 1)).reshape(3000, 3)
    assert (np.sort(passes, 1) == np.arange(3)).all()
    orders = np.bincount(passes @ [9, 3, 1], minlength=27)
    assert follows(orders[orders > 0], np.full(6, 1 / 6))
    again = np.bincount(
        (passes[:-1] @ [9, 3, 1] == passes[1:] @ [9, 3, 1]).astype(int), minlength=2
    )
    assert follows(again, np.array([5 / 6, 1 / 6])), "the passes are not independent"


@pytest.mark.parametrize(("batch_size", "environments"), [(13, 4), (14, 4), (3, 5), (6, 9)])
def test_stratified_favours_no_environment_for_long(batch_size: int, environments: int) -> None:
    sampler = samplers.stratified(batch_size=batch_size)
    counts = np.asarray(
        draws(sampler, jax.random.key(0), np.full(environments, 1 / environments), 3 * environments)
    )
    assert (np.ptp(counts, 1) <= 1).all()
    cycles = counts.reshape(3, environments, environments).sum(1)
    np.testing.assert_array_equal(cycles, batch_size)


@pytest.mark.parametrize("name", few(SAMPLERS, {"pooled"}))
def test_draws_by_hand_compile_nothing_from_the_second_on(name: str) -> None:
    sampler = make("samplers", name, **SAMPLERS[name].numbers)
    state = sampler.init(jax.random.key(0), jnp.full(3, 1 / 3))
    for step in range(2):
        before = len(COMPILATIONS)
        _, state = sampler.draw(jax.random.key(step), jnp.asarray(step), state)
    assert len(COMPILATIONS) == before


def test_stratified_batches_leave_out_environments_that_do_not_occur() -> None:
    weights = jnp.array([0.5, 0.0, 0.25, 0.25, 0.0])
    sampler = samplers.stratified(batch_size=7)
    state = sampler.init(jax.random.key(0), weights)
    drawn = np.array(
        [sampler.draw(jax.random.key(1), jnp.asarray(s), state)[0].counts for s in range(6)]
    )
    assert (drawn[:, [1, 4]] == 0).all()
    assert (drawn.sum(1) == 7).all()
    assert (np.sort(drawn[:, [0, 2, 3]]) == [2, 2, 3]).all()
    assert (drawn[:3].sum(0)[[0, 2, 3]] == 7).all()  # the remainder rotates

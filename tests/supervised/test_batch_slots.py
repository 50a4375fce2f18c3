"""Slots: batches of exactly the examples of all their environments, for every sampler."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.types import Batch
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(8)
OWNERS = RNG.permutation(np.repeat([0, 1], [7, 12]))
X = RNG.normal(size=(19, 3))
SIGNS, CLASSES = RNG.choice([-1.0, 1.0], 19), RNG.permutation(np.arange(19) % 3)
DRAWS = 20_000
SLOPE = np.array([0.3, -0.2, 0.5])


def slotted(counts: tuple[int, ...], options: dict[str, Any], draws: int = DRAWS) -> np.ndarray:
    """The losses [draws, B] of single inputs' squares, in environments of 3 and 4 rows."""
    x, y = np.linspace(1, 2, 7)[:, None] ** 3, np.zeros(7)
    factory = worlds.from_arrays(x, y, [0] * 3 + [1] * 4)
    measurement, model = measurements.examples(**options), models.linear(dim=1)
    batch = Batch(jnp.arange(len(counts)), jnp.array(counts, jnp.int32))

    @jax.jit
    def found(keys: jax.Array) -> jax.Array:
        world = factory(keys[0])
        data = measurement.init(keys[0], world)
        assert measurement.risks is not None
        on_batch = measurement.risks.batch
        assert on_batch is not None
        params = {"weights": jnp.array([2.0])}  # so that the loss is the square

        def risks(key: jax.Array) -> jax.Array:
            return on_batch(key, jnp.array(0), data, model, world, batch)(params)

        return jax.vmap(risks)(keys)

    return np.asarray(found(jax.random.split(jax.random.key(2), draws)), float)


@pytest.mark.parametrize("replacement", [False, True])
def test_slots_have_the_law_of_all_choices(replacement: bool) -> None:
    """Two of three rows and one of four, independently, all choices equally often."""
    found = slotted((2, 1), {"slots": 5, "replacement": replacement})
    squares = np.linspace(1, 2, 7) ** 6
    pairs = list(
        itertools.product(range(3), repeat=2)
        if replacement
        else itertools.combinations(range(3), 2)
    )
    means = np.array([squares[list(pair)].mean() for pair in pairs])
    levels, chances = np.unique(means.round(6), return_counts=True)
    for column, expected, law in (
        (0, levels, chances / len(pairs)),
        (1, squares[3:], np.full(4, 0.25)),
    ):
        distances = np.abs(found[:, column, None] - expected[None])
        assert distances.min(1).max() < 1e-4
        shares = np.bincount(distances.argmin(1), minlength=len(law)) / DRAWS
        assert np.abs((shares - law) / np.sqrt(law * (1 - law) / DRAWS)).max() < 4.5
    assert abs(np.corrcoef(found.T)[0, 1]) < 4.5 / DRAWS**0.5


@pytest.mark.slow
def test_batches_that_slots_cannot_hold_give_nan() -> None:
    assert np.isnan(slotted((3, 3), {"slots": 5}, 9)).all()
    # More than an environment has is only possible with replacement.
    found = slotted((4, 2), {"slots": 6}, 9)
    assert np.isnan(found[:, 0]).all()
    assert np.isfinite(found[:, 1]).all()
    assert np.isfinite(slotted((4, 2), {"slots": 6, "replacement": True}, 9)).all()
    assert (slotted((0, 2), {"slots": 6}, 9)[:, 0] == 0).all()


SAMPLERS = {
    "hetero": samplers.hetero(batch_size=6),
    "cyclic": samplers.cyclic(batch_size=6),
    "block": samplers.block(batch_size=6, length=2),
    "shuffled": samplers.shuffled(batch_size=6),
    "sticky": samplers.sticky(batch_size=6, stay=0.5),
    "mixed": samplers.mixed(batch_size=6, environments_per_batch=2),
    "pooled": samplers.pooled(batch_size=6),
    "stratified": samplers.stratified(batch_size=6),
}
CONSTANT = np.array([0.5, -1.0, 2.0])  # what every row of an environment is


OF_ONE = {"cyclic", "block", "shuffled", "sticky"}  # environment in a batch, as of hetero


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in OF_ONE else []) for name in SAMPLERS],
)
def test_slots_hold_the_batches_of_every_sampler(name: str) -> None:
    """Rows that are alike within an environment tell which environments are in a batch."""
    owners = np.repeat(np.arange(3), [4, 9, 6])
    factory = worlds.from_arrays(CONSTANT[owners, None], np.zeros(19), owners)
    sampler, weight = SAMPLERS[name], 0.7
    kinds: list[dict[str, Any]] = [
        {"replacement": True, "slots": 6},
        {"replacement": True, "most": 6},
        {"fresh": 6, "slots": 6},
        {"fresh": 6},
    ]

    @jax.jit
    def all_of(key: jax.Array) -> Any:
        world = factory(key)

        def drawn(state: Any, step: jax.Array) -> Any:
            batch, state = sampler.draw(jax.random.fold_in(key, step), step, state)
            results = []
            for kind in kinds:
                measurement = measurements.examples(**kind)
                data, model = measurement.init(key, world), models.linear(dim=1)
                params = {"weights": jnp.array([weight])}
                gradient, loss = measurement.gradient(key, step, data, model, params, world, batch)
                results.append((gradient["weights"][0], loss))
            return state, (batch, results)

        return jax.lax.scan(drawn, sampler.init(key, world.probabilities), jnp.arange(4))[1]

    batches, results = all_of(jax.random.key(6))
    x = CONSTANT[np.asarray(batches.environments)]
    shares = np.asarray(batches.counts) / 6
    square = np.sum(shares * x**2, 1)
    for gradient, loss in results:
        np.testing.assert_allclose(gradient, square * weight / 2, rtol=1e-5)
        np.testing.assert_allclose(loss, square * weight**2 / 4, rtol=1e-5)


OF_ALL_ROWS: tuple[dict[str, Any], ...] = ({"full": True}, {"slots": 19})


@pytest.mark.slow
def test_objectives_and_classes_work_in_slots() -> None:
    """All rows of a data set in the slots give what `full` gives, in every statistic."""
    world = draw_world(worlds.from_arrays(X, CLASSES, OWNERS))
    batch = Batch(jnp.arange(2), jnp.array([7, 12], jnp.int32))
    softmax = models.linear(dim=3, outputs=3), losses.softmax
    params = {"weights": jnp.asarray(RNG.normal(size=(3, 3)), float)}
    vector = {"weights": jnp.asarray(SLOPE, float)}
    cases = ((*softmax, params), (models.linear(dim=3), losses.squared, vector))
    for model, loss, point in cases:

        @jax.jit
        def statistics(key: jax.Array, model: Any = model, loss: Any = loss) -> Any:
            found = []
            for options in OF_ALL_ROWS:
                measurement = measurements.examples(loss=loss, **options)
                data = measurement.init(key, world)
                risks: Any = measurement.risks
                seen = key, jnp.asarray(0), data, model, world, batch
                kinds = [risks.batch, risks.variances]
                if model.predict is None:
                    kinds += [risks.features, risks.mean_squares]
                found.append([kind(*seen)(point) for kind in kinds])  # noqa: B023
            return found

        full, slots = statistics(jax.random.key(0))
        pairs = zip(jax.tree.leaves(full), jax.tree.leaves(slots), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slots": 0}, "slots must be a whole number, at least 1"),
        ({"slots": 3, "full": True}, "slots must be None with full"),
        ({"slots": 3, "most": 3}, "most must be None with slots"),
    ],
)
def test_bad_slots_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measurements.examples(**options)


def test_samplers_with_larger_batches_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at most 5"):
        algorithms.sgd(
            world=worlds.from_arrays(X, SIGNS, OWNERS),
            sampler=samplers.pooled(batch_size=6),
            measurement=measurements.examples(slots=5, loss=losses.logistic),
            model=models.linear(dim=3),
            optimizer=optax.sgd(0.1),
        ).init(jax.random.key(0))

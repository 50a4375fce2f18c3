"""Methods of one key share their draws, as docs/reproducibility.md promises.

Without heterogeneity all environments are one. The first steps of all methods must then be equal,
whatever environments feed them, except where the promise excludes it.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.sensing import measurements, models, worlds
from causal_sgd.training import algorithms, samplers
from causal_sgd.types import Batch, Measurement
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DIM, ENVIRONMENTS, SIZE = 3, 4, 8
SAMPLERS = {
    "hetero": samplers.hetero(batch_size=SIZE),
    "cyclic": samplers.cyclic(batch_size=SIZE),
    "block": samplers.block(batch_size=SIZE, length=2),
    "shuffled": samplers.shuffled(batch_size=SIZE),
    "sticky": samplers.sticky(batch_size=SIZE, stay=0.5),
    "mixed": samplers.mixed(batch_size=SIZE, environments_per_batch=2),
    "pooled": samplers.pooled(batch_size=SIZE),
    "stratified": samplers.stratified(batch_size=SIZE),
}
MANY = ("mixed", "pooled", "stratified")  # several environments a batch
METHODS = {name: (name, "sgd") for name in SAMPLERS} | {
    f"{method} {name}": (name, method)
    for method, name in itertools.product(("fedavg", "fedprox", "scaffold"), ("hetero", *MANY))
}
MEASUREMENTS = {
    "gaussian_law": measurements.gaussian_law(),
    "low_rank_law": measurements.low_rank_law(),
    "population": measurements.population(),
    "streamed": measurements.streamed(noise=0.5, slab_size=3),
    "rank_one": measurements.rank_one(noise=0.5, slab_size=3),
    "examples": measurements.examples(noise=0.5, slab_size=3),
    "completion": measurements.completion(noise=0.5, slab_size=3),
    "in_context": measurements.in_context(4, noise=0.5, slab_size=3),
}
NOISY = {
    "gaussian_law": measurements.gaussian_law(noise=0.5),
    "low_rank_law": measurements.low_rank_law(noise=0.5),
}
FINITE = {
    "subsets": {},
    "gathered subsets": {"largest_batch": SIZE},
    "with replacement": {"replacement": True, "largest_batch": SIZE},
    "weighted with replacement": {"replacement": True},
    "full": {"full": True},
    "fresh noise": {"fresh_noise": 0.5},
}


def gaussian_world(spread: float) -> worlds.WorldFactory:
    return worlds.gaussian(
        dim=DIM,
        invariant_rank=1,
        spurious_rank=1,
        num_environments=ENVIRONMENTS,
        mean=0.5,
        spread=spread,
        basis="canonical",
    )


def changes(measurement: Measurement, methods: Any, number: int, spread: float = 0.0) -> Any:
    """Minus the first step of every method, [number, d, k] each, times the batch size."""

    def one(key: jax.Array, method: str) -> jax.Array:
        sampler, name = METHODS[method]
        algorithm = getattr(algorithms, name)(
            world=gaussian_world(spread),
            sampler=SAMPLERS[sampler],
            measurement=measurement,
            model=models.factored(dim=DIM, rank=2, init="gaussian"),
            optimizer=optax.sgd(1.0),
            **({"proximal": 0.5} if name == "fedprox" else {}),
        )
        state = algorithm.init(key)
        return state.params - algorithm.step(key, state).params

    keys = jax.random.split(jax.random.key(0), number)
    every = jax.jit(jax.vmap(lambda key: {method: one(key, method) for method in methods}))
    return jax.tree.map(np.asarray, every(keys))


def assert_equal(found: dict[str, np.ndarray]) -> None:
    for one, other in itertools.combinations(found, 2):
        size = np.abs(found[one]).max()
        np.testing.assert_allclose(
            found[one], found[other], rtol=1e-4, atol=1e-5 * size, err_msg=f"{one}, {other}"
        )


def test_a_pure_batch_and_a_mixed_one_share_the_draws_of_a_law() -> None:
    measurement, model = NOISY["gaussian_law"], models.factored(dim=DIM, rank=2)
    world = jax.jit(gaussian_world(0.0))(jax.random.key(0))
    params = jnp.ones((DIM, 2)) + jnp.eye(DIM, 2)
    everyone = Batch(jnp.arange(ENVIRONMENTS), jnp.asarray([3, 0, 4, 1], jnp.int32))
    alone = Batch(jnp.asarray([2]), jnp.asarray([SIZE], jnp.int32))

    @jax.jit
    def gradients(key: jax.Array) -> list[Any]:
        step = jnp.zeros((), jnp.int32)
        data = measurement.init(key, world)
        arguments = key, step, data, model, params, world
        return [measurement.gradient(*arguments, batch) for batch in (alone, everyone)]

    pure, mixed = gradients(jax.random.key(1))
    np.testing.assert_allclose(pure[0], mixed[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pure[1], mixed[1], rtol=1e-4)


@pytest.mark.parametrize("name", few(MEASUREMENTS, (), ()))
def test_equal_environments_make_the_first_steps_of_all_methods_equal(name: str) -> None:
    assert_equal(changes(MEASUREMENTS[name], METHODS, 3))


@pytest.mark.parametrize("name", few(NOISY, (), ()))
def test_with_label_noise_only_the_clients_of_an_exact_law_differ_a_little(name: str) -> None:
    found = changes(NOISY[name], METHODS, 400)
    alone = {
        method: values
        for method, values in found.items()
        if METHODS[method][1] == "sgd" or METHODS[method][0] == "hetero"
    }
    assert len(alone) == len(SAMPLERS) + 3
    assert_equal(alone)
    for one, other in itertools.combinations(found, 2):
        pair = [(found[method] - found[method].mean(0)).ravel() for method in (one, other)]
        assert np.corrcoef(pair)[0, 1] > 0.97, (one, other)


@pytest.mark.parametrize("kind", few(FINITE, (), list(FINITE)[:1]))
def test_methods_see_the_same_examples_of_an_environment(kind: str) -> None:
    """In heterogeneous data sets too: clients have exactly the batch of `sgd`."""
    measurement = measurements.fixed_design(num_examples=4 * SIZE, noise=0.3, **FINITE[kind])
    methods = [method for method, (name, _) in METHODS.items() if name in MANY]
    found = changes(measurement, methods, 3, spread=4.0)
    for name in MANY:
        assert_equal({method: found[method] for method in methods if METHODS[method][0] == name})


@pytest.mark.parametrize(
    "name", few(["gaussian_law", "streamed", "rank_one"], (), {"gaussian_law"})
)
def test_methods_stay_correlated_where_environments_differ(name: str) -> None:
    found = changes(MEASUREMENTS[name], ("hetero", "pooled", "stratified"), 400, spread=0.5)
    for one, other in itertools.combinations(found, 2):
        pair = [(found[method] - found[method].mean(0)).ravel() for method in (one, other)]
        assert np.corrcoef(pair)[0, 1] > 0.5, (one, other)

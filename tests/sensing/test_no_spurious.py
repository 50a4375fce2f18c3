"""Worlds without spurious directions pass through every measurement, model and metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sensing import World, measurements, metrics, models, nonstationary, worlds
from causal_sgd.training import run, samplers, sgd
from causal_sgd.types import Batch
from support.cases import few
from support.contracts import MEASUREMENTS, WORLDS

DIM = 5
RANKS: dict[str, Any] = {"dim": DIM, "invariant_rank": 2, "spurious_rank": 0}
FAMILIES = sorted(set(WORLDS) - {"from_arrays", "from_file", "reduced"})
MODELS = {
    "factored": models.factored(dim=DIM, rank=3, init_scale=0.3),
    "asymmetric": models.asymmetric(dim=DIM, init_scale=0.3),
    "diagonal": models.diagonal(dim=DIM, init_scale=0.3),
    "relu": models.relu(dim=DIM, neurons=4, init_scale=0.3),
    "order_parameters": models.order_parameters(dim=50, rank=2, frame=2, init_scale=0.3),
}


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled() -> Iterator[None]:
    """Without XLA's optimisations: these tests are about shapes, not speed."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def options_of(family: str) -> dict[str, Any]:
    if family == "discrete":
        return RANKS | {"eigenvalues": np.arange(3.0)}
    if family == "two_point":
        return RANKS
    quantile = {"quantile": lambda u: 2 * u - 1} if family == "from_quantile" else {}
    return RANKS | quantile | {"num_environments": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_may_have_no_spurious_directions(family: str) -> None:
    variants = [{}, {"rotation": 0.5, "tilt": 0.3, "basis": "canonical"}]
    if family not in ("discrete", "goe", "two_point"):
        variants.append({"balanced": True})
    options, factory = options_of(family), getattr(worlds, family)

    @jax.jit
    def draw(key: jax.Array) -> list[World]:
        return [factory(**options, **variant)(key) for variant in variants]

    environments = 1 if family == "two_point" else 3
    for world in draw(jax.random.key(0)):
        chex.assert_shape(world.spurious_basis, (DIM, 0))
        chex.assert_shape(world.spurious_cores, (environments, 0, 0))
        np.testing.assert_array_equal(world.spurious(world.spurious_cores[0]), 0)
        np.testing.assert_allclose(np.linalg.eigvalsh(world.invariant)[-2:], 1, rtol=1e-5)


def test_given_signals_may_all_be_invariant() -> None:
    signal = np.diag([2.0, 1.0, 0.0])
    world = worlds.from_arrays(signal, np.zeros((2, 3, 3)))(jax.random.key(0))
    chex.assert_shape(world.spurious_basis, (3, 0))
    np.testing.assert_allclose(world.invariant, signal, atol=1e-6)


def without_spurious(model: models.MatrixModel) -> World:
    """Diagonal signals, so that the diagonal model is exact."""
    with jax.ensure_compile_time_eval():
        family = worlds.gaussian(**RANKS, num_environments=3, basis="canonical")
        if isinstance(model, models.ReducedModel):
            family = worlds.reduced(family, rows=model.rows)
        return family(jax.random.key(0))


def serves(measurement: str, model: str) -> bool:
    if model == "order_parameters" or measurement.startswith("order_parameter"):
        return model == "order_parameters" and measurement in (
            "order_parameter_law",
            "order_parameter_limit",
            "population",
        )
    if model == "relu":
        return measurement == "examples"
    return measurement != "low_rank_law" or MODELS[model].factor is not None


@pytest.mark.slow
@pytest.mark.parametrize("measurement", few(MEASUREMENTS, {"low_rank_law"}))
def test_a_measurement_needs_no_spurious_directions(measurement: str) -> None:
    """One pure and one mixed batch; as all environments agree, only the noise tells them apart."""
    options = dict(MEASUREMENTS[measurement].static)
    if measurement == "fixed_design":
        options = {"num_examples": 20, "symmetric": False}
    if measurement == "order_parameter_limit":
        options = {"batch_ratio": 5.0}
    member = getattr(measurements, measurement)(**options)
    batches = [Batch(jnp.arange(1), jnp.array([9])), Batch(jnp.arange(3), jnp.array([4, 0, 5]))]

    @jax.jit
    def gradients(key: jax.Array) -> dict[str, Any]:
        step, pairs = jnp.zeros((), jnp.int32), {}
        for name, model in MODELS.items():
            if serves(measurement, name):
                world = without_spurious(model)
                data, params = member.init(key, world), model.init(key)
                pairs[name] = [
                    member.gradient(key, step, data, model, params, world, batch)
                    for batch in batches
                ]
        return pairs

    results = gradients(jax.random.key(1))
    chex.assert_tree_all_finite(results)
    for name, ((pure, _), (mixed, _)) in results.items():
        chex.assert_trees_all_equal_shapes(pure, mixed, MODELS[name].init(jax.random.key(0)))
        if measurement == "population":
            chex.assert_trees_all_close(pure, mixed, rtol=1e-6)


@pytest.mark.parametrize("model", few(sorted(set(MODELS) - {"order_parameters"}), {"factored"}))
def test_every_metric_is_finite_without_spurious_directions(model: str) -> None:
    world = without_spurious(MODELS[model])
    names, measurement = set(metrics.__all__), measurements.population()
    if model == "relu":  # streamed examples have no risks
        names, measurement = names - {"training_loss", "gradient_norm"}, measurements.examples()
    if MODELS[model].layers is None:
        names = names - {"imbalance", "layer_alignment"}
    every = [getattr(metrics, name) for name in sorted(names)]
    algorithm = sgd(
        world=lambda key: world,
        sampler=samplers.hetero(batch_size=20),
        measurement=measurement,
        model=MODELS[model],
        optimizer=optax.sgd(0.1),
    )

    def train(key: jax.Array) -> Any:
        return run(key, algorithm=algorithm, metrics=every, num_steps=3).metrics

    values = {name: value[-1] for name, value in jax.jit(train)(jax.random.key(1)).items()}
    chex.assert_tree_all_finite(values)
    for name in ("spurious_signal", "spurious_power", "spurious_prediction"):
        assert values[name] == 0, name
    # all environments agree, so that pooled training has the invariant solution as its target
    np.testing.assert_allclose(values["pooled_error"], values["invariant_error"], rtol=1e-5)
    losses = values["environment_losses"]
    np.testing.assert_allclose(losses, np.full(3, losses[0]), rtol=1e-6)


def test_nature_may_change_without_spurious_directions() -> None:
    world = without_spurious(MODELS["factored"])
    evolutions = [
        nonstationary.redraw(worlds.gaussian(**RANKS, num_environments=3), probability=0.5),
        nonstationary.drift(rate=0.1),
        nonstationary.rotate(angle=0.1),
    ]

    @jax.jit
    def change(key: jax.Array, step: jax.Array) -> list[World]:
        return [evolve(key, step, world) for evolve in evolutions]

    for changed in change(jax.random.key(0), jnp.int32(3)):
        chex.assert_trees_all_equal(changed, world)


def test_an_experiment_needs_no_spurious_directions() -> None:
    experiment = Experiment(
        **RANKS,
        batch_size=20,
        steps=3,
        num_environments=4,
        family="uniform",
        metrics=("spurious_signal",),
    )
    trace = jax.eval_shape(experiment.cell(), jax.random.key(0))
    assert trace.metrics["spurious_signal"].shape == (2,)

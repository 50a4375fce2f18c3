"""The invariance unit tests: padded programs, the passes of quadrature, and what is chosen."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from causal_sgd import objectives, samplers
from causal_sgd.studies.supervised import _unit_tests as unit_tests
from causal_sgd.studies.supervised import _unit_tests_added as unit_tests_added
from causal_sgd.supervised import _expectation, losses, measurements, models, worlds
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.types import Batch, Params
from support.cases import few
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

METHODS = tuple(method for method in unit_tests.METHODS)


@functools.cache
def _runs(example: str, method: str, most: tuple[int, int]) -> Any:
    """The last frame of two runs, scrambled and not, with E = 2 and 3 spurious inputs."""
    values = unit_tests.hyperparameters(method, 2)
    numbers = {name: jnp.asarray(value[1], float) for name, value in values.items()}

    def one(scramble: jax.Array) -> Any:
        return unit_tests.cell(
            jax.random.key(3),
            **numbers,
            scramble=scramble,
            environments=2,
            spurious=3,
            example=example,
            method=method,
            steps=40,
            most_environments=most[0],
            most_spurious=most[1],
        ).metrics

    return jax.jit(jax.vmap(one))(jnp.array([0.0, 1.0]))


CASES = list(itertools.product(unit_tests.EXAMPLES, METHODS))


@pytest.mark.parametrize(("example", "method"), few(CASES, (), CASES[: len(METHODS)]))
def test_padded_runs_are_those_without_room(example: str, method: str) -> None:
    exact, padded = (_runs(example, method, most) for most in ((2, 3), (4, 6)))
    for name, values in exact.items():
        np.testing.assert_allclose(padded[name], values, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [losses.logistic, losses.exponential])
def test_one_pass_has_the_derivatives_of_a_sum_over_nodes(loss: losses.Loss) -> None:
    points, weights = (jnp.asarray(part, float) for part in _expectation.hermite(16))
    mean, deviation, labels = jnp.array([-1.5, 0.2, 0.9]), jnp.array([0.4, 1.1, 2.0]), 1.0

    def by_sum(mean: jax.Array, deviation: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.sum(weights * loss.value(mean + deviation * points, label))

    def scaled(function: Any, order: int) -> Any:
        """Values and derivatives up to the third order, along one line."""

        def along(m: jax.Array, s: jax.Array, y: jax.Array) -> list[jax.Array]:
            line = [lambda v: function(m + 0.3 * v, s + 0.7 * v, y)]
            for _ in range(order):
                line.append(jax.grad(line[-1]))
            return [each(0.0) for each in line]

        return jax.jit(jax.vmap(along))(mean, deviation, jnp.full(3, labels))

    fast = _expectation.expected_loss(loss, 16)
    for one, other in zip(scaled(fast, 3), scaled(by_sum, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    by_hand = fast(mean, deviation, jnp.full(3, labels))
    np.testing.assert_allclose(by_hand, scaled(fast, 0)[0], rtol=1e-5)


MODELS = {
    "linear": models.linear(dim=6, intercept=True, init="uniform"),
    "signed": models.hadamard(dim=6, signed=True, init_scale=0.4),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), few(itertools.product(MODELS, (3, 2)), quick={("signed", 2)})
)
def test_products_with_hessians_are_those_of_derivatives(name: str, size: int) -> None:
    world: Any = draw_world(worlds.gaussian_environments(scramble=True))
    measurement, model = measurements.quadrature(), MODELS[name]
    params = model.init(jax.random.key(1))
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape), params
    )
    batch = Batch(jnp.arange(size), jnp.ones(size, jnp.int32))
    data = measurement.init(jax.random.key(0), world)
    step = jnp.zeros((), jnp.int32)
    fast = Examples(measurement, jax.random.key(0), step, data, model, world, batch)
    assert measurement.risks is not None
    plain = measurement._replace(risks=measurement.risks._replace(products=None))

    def choose(values: jax.Array, gradients: Params) -> Params:
        return jax.tree.map(
            lambda leaf: leaf * values.reshape((-1,) + (1,) * (leaf.ndim - 1)), gradients
        )

    results = [
        jax.jit(lambda p, each=each: each.hessian_products(p, choose))(params)
        for each in (fast, fast._replace(measurement=plain))
    ]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)


def test_sixteen_nodes_are_enough_at_small_deviations() -> None:
    mean, deviation = (part.ravel() for part in np.meshgrid(np.linspace(-8, 8, 9), [0.5, 1, 2]))
    few_nodes, many = (
        _expectation.derivatives(losses.logistic, nodes, 1)(
            jnp.asarray(mean, float), jnp.asarray(deviation, float), jnp.ones(len(mean))
        )
        for nodes in (16, 64)
    )
    for one, other in zip(few_nodes[:2], many[:2], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "name", few(["unit_test_regression", "unit_test_cows", "two_bit"], {"two_bit"})
)
def test_an_oracle_trains_on_the_test(name: str) -> None:
    factory = getattr(worlds, name)()
    world, oracle = draw_world(factory), draw_world(worlds.on_tests(factory))
    np.testing.assert_array_equal(oracle.second_moments, world.test_moments)
    np.testing.assert_array_equal(oracle.test_moments, world.test_moments)
    np.testing.assert_array_equal(oracle.target, world.target)


def test_worlds_without_a_test_have_no_oracle() -> None:
    with pytest.raises(ValueError, match="environments of the test"):
        worlds.on_tests(worlds.contradiction())(jax.random.key(0))
    with pytest.raises(ValueError, match="linear, mixture or table"):
        worlds.on_tests(worlds.eills_demo())(jax.random.key(0))


def _drawn(method: str, seed: int) -> list[float]:
    """The source's draws of rate, decay and strength, from the global generator of Python."""
    random.seed(1000 + seed)
    masked = method == "ANDMask"
    values = [10 ** random.uniform(-4, 0 if masked else -2)]
    values.append(10 ** random.uniform(-5 if masked else -6, 0 if masked else -2))
    if method == "IRMv1":
        values.append(1 - 10 ** random.uniform(-3, -0.3))
    if masked:
        values.append(random.uniform(0.8, 1))
    if method == "IGA":
        values.append(10 ** random.uniform(1, 5))
    return values


@pytest.mark.parametrize(
    ("method", "strength"),
    {**dict.fromkeys(METHODS), "IRMv1": 0.9, "ANDMask": 0.9, "IGA": 1e3}.items(),
)
def test_hyperparameters_are_those_of_the_source(method: str, strength: float | None) -> None:
    before = random.getstate()
    try:
        expected = [[1e-3, 0.0] + ([] if strength is None else [strength])]
        expected += [_drawn(method, seed) for seed in range(1, 20)]
    finally:
        random.setstate(before)
    found = unit_tests.hyperparameters(method, 20)
    assert random.getstate() == before, "the caller's generator is left alone"
    names = ["learning_rate", "decay"] + ([] if strength is None else ["strength"])
    np.testing.assert_array_equal(np.array([found[name] for name in names]).T, expected)
    if strength is None:
        np.testing.assert_array_equal(found["strength"], 0)


def test_methods_of_one_program_have_numbers_of_their_own() -> None:
    found = unit_tests.weighted(3)
    for place, method in enumerate(unit_tests.WEIGHTED):
        own, part = unit_tests.hyperparameters(method, 3), slice(3 * place, 3 * place + 3)
        used, other = ("rate", "strength") if method == "GroupDRO" else ("strength", "rate")
        np.testing.assert_array_equal(found[used][part], own["strength"])
        np.testing.assert_array_equal(found[other][part], 0)
        for name in ("learning_rate", "decay"):
            np.testing.assert_array_equal(found[name][part], own[name])


@pytest.mark.parametrize("hetero", [0.0, 1.0])
def test_a_number_chooses_between_one_environment_and_all(hetero: float) -> None:
    key, step, start = jax.random.key(4), jnp.zeros((), jnp.int32), jnp.full(3, 1 / 3)
    drawn, _ = unit_tests_added._one_or_all(jnp.asarray(hetero)).draw(key, step, start)
    alone, _ = samplers.hetero(batch_size=unit_tests.MULTIPLE).draw(key, step, start)
    counts = np.zeros(3)
    counts[alone.environments] = alone.counts
    expected = counts if hetero else np.full(3, unit_tests.MULTIPLE / 3)
    np.testing.assert_array_equal(drawn.counts, expected)
    np.testing.assert_array_equal(drawn.environments, np.arange(3))


ALONE = {  # (strength, rate) -> the objective of squared losses R / 4
    (0.0, 0.0): objectives.vrex(weight=0.0, risk_weight=4.0),
    (0.02, 0.0): objectives.vrex(weight=16 * 0.02, risk_weight=4.0),
    (0.0, 0.3): objectives.group_dro(rate=4 * 0.3, weight=4.0),
}


@pytest.mark.slow
def test_one_program_trains_several_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    def last(strength: Any, rate: Any) -> jax.Array:
        trace = unit_tests.cell(
            jax.random.key(1),
            learning_rate=jnp.asarray(0.01),
            decay=jnp.asarray(1e-3),
            strength=strength,
            rate=rate,
            example="Example1",
            method="weighted",
            steps=30,
        )
        return jnp.stack([trace.metrics["selection"][-1], trace.metrics["error"][-1]])

    numbers = jnp.array(list(ALONE))
    together = jax.jit(jax.vmap(last))(*numbers.T)
    assert np.ptp(together, axis=0).min() > 0.1, "they differ"
    for (strength, rate), objective, found in zip(ALONE, ALONE.values(), together, strict=True):
        monkeypatch.setattr(
            unit_tests, "_objective", lambda *_, objective=objective, **__: objective
        )
        fresh = jax.jit(lambda *numbers: last(*numbers))  # not the program of another objective
        np.testing.assert_allclose(fresh(strength, rate), found, rtol=1e-5)


def test_diverged_runs_are_not_chosen() -> None:
    selection = np.array([[0.2, np.nan], [0.3, 0.3], [0.5, 0.1]])
    data = {
        "selection": xr.DataArray(selection, dims=("hyper", "seed")),
        "error": xr.DataArray(selection + 1, dims=("hyper", "seed")),
    }
    chosen = unit_tests.choose(data)
    assert chosen.seed in (1, 2)
    np.testing.assert_array_equal(chosen.errors, selection[chosen.seed] + 1)

"""Models of the second system: weights, features, heads and starts, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import models
from causal_sgd.supervised._moments import quadratic
from causal_sgd.supervised.measurements._risks import moment_risks

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DIM = 4
MODELS: dict[str, Callable[..., models.VectorModel]] = {
    "linear": lambda **others: models.linear(dim=DIM, init_scale=1.0, **others),
    "u^2": lambda **others: models.hadamard(dim=DIM, **others),
    "u^3 - v^3": lambda **others: models.hadamard(dim=DIM, depth=3, signed=True, **others),
    "u v": lambda **others: models.products(dim=DIM, **others),
    "two layers": lambda **others: models.linear_network(dim=DIM, hidden=3, **others),
    "four layers": lambda **others: models.linear_network(dim=DIM, hidden=3, depth=4, **others),
    "features": lambda **others: models.featurised(dim=DIM, **others),
    "few features": lambda **others: models.featurised(dim=DIM, features=2, **others),
}


def params_of(name: str, **others: Any) -> tuple[models.VectorModel, Any]:
    """A model and parameters away from its start."""
    model = MODELS[name](**others)
    rng = np.random.default_rng(3)
    start = model.init(jax.random.key(0))
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), float), start)


def weights_by_hand(name: str, params: Any) -> np.ndarray:
    values = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    if name == "linear":
        return values["weights"]
    if name == "u^2":
        return values["positive"] ** 2
    if name == "u^3 - v^3":
        return values["positive"] ** 3 - values["negative"] ** 3
    if name == "u v":
        return values["first"] * values["second"]
    if name.endswith("layers"):
        result = np.eye(DIM)
        for layer in values["layers"]:
            result = result @ layer
        return result
    return values["features"].sum(1)


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_the_documented_product(name: str) -> None:
    model, params = params_of(name)
    found = model.estimate(params)
    assert found.shape == (DIM,)
    np.testing.assert_allclose(found, weights_by_hand(name, params), rtol=1e-5, atol=1e-5)
    assert model.intercept is None


@pytest.mark.parametrize("name", MODELS)
def test_an_intercept_starts_at_zero_and_is_left_alone_by_the_head(name: str) -> None:
    model, params = params_of(name, intercept=True)
    assert model.intercept is not None
    assert model.intercept(model.init(jax.random.key(0))) == 0
    assert model.intercept(params) == params["intercept"] != 0
    if model.rescaled is not None:
        scaled = model.rescaled(params, jnp.full(model.head_size, 2.0))
        assert model.intercept(scaled) == params["intercept"]
        np.testing.assert_allclose(model.estimate(scaled), 2 * model.estimate(params), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_multiplies_the_features(name: str) -> None:
    model, params = params_of(name)
    if model.rescaled is None:
        assert model.head_size == 0
        return
    head = jnp.asarray(np.random.default_rng(5).normal(size=model.head_size), float)
    ones = model.rescaled(params, jnp.ones(model.head_size))
    assert jax.tree.all(jax.tree.map(np.array_equal, ones, params))
    basis = jnp.eye(model.head_size)
    alone = np.stack([model.estimate(model.rescaled(params, unit)) for unit in basis], 1)
    scaled = model.estimate(model.rescaled(params, head))
    np.testing.assert_allclose(scaled, alone @ np.asarray(head), rtol=1e-4, atol=1e-5)
    if model.features is not None:
        features = np.asarray(model.features(params))
        assert features.shape == (DIM, model.head_size)
        last = params["layers"][-1] if "layers" in params else np.ones(model.head_size)
        np.testing.assert_allclose(features * np.asarray(last), alone, rtol=1e-4, atol=1e-5)


def test_the_starts_are_those_of_the_docstrings() -> None:
    key = jax.random.key(1)
    np.testing.assert_array_equal(models.linear(dim=3).init(key)["weights"], 0)
    np.testing.assert_array_equal(models.featurised(dim=3).init(key)["features"], np.eye(3))
    start = models.featurised(dim=3, features=2).init(key)["features"]
    np.testing.assert_array_equal(start, np.eye(3, 2))
    signed = models.hadamard(dim=3, depth=4, signed=True, init_scale=0.5)
    np.testing.assert_array_equal(signed.init(key)["positive"], 0.5)
    np.testing.assert_array_equal(signed.estimate(signed.init(key)), 0)


def test_two_factors_have_scales_of_their_own() -> None:
    key = jax.random.key(1)
    pair = models.products(dim=3, init_scales=(0.5, -0.2))
    np.testing.assert_allclose(pair.estimate(pair.init(key)), -0.1, rtol=1e-6)
    uneven = models.hadamard(dim=2, signed=True, init_scale=0.5, negative_scale=0.1)
    np.testing.assert_allclose(uneven.estimate(uneven.init(key)), 0.24, rtol=1e-6)


def test_a_step_of_products_is_that_of_signed_powers_at_half_the_rate() -> None:
    """And multiplies u^2 - v^2 by 1 - (rate g / 2)^2, as the docstring says."""
    rng = np.random.default_rng(2)
    factor = rng.normal(size=(1, DIM + 2, DIM + 2))
    second = jnp.asarray(factor @ factor.transpose(0, 2, 1), float)
    rate, scale = 0.1, 0.3
    pair = models.products(dim=DIM, init_scales=(scale, 0.0))
    powers = models.hadamard(dim=DIM, signed=True, init_scale=scale / 2)

    def descended(model: models.VectorModel, rate: float) -> tuple[Any, np.ndarray]:
        risks, params, residuals = moment_risks(model, second), model.init(jax.random.key(0)), []
        for _ in range(5):
            slope = jax.grad(lambda params: risks(params)[0])(params)
            vector = np.append(np.asarray(model.estimate(params)), [-1.0, 0.0])
            residuals.append(np.asarray(second[0, :DIM] @ vector))
            params = jax.tree.map(lambda value, slope: value - rate * slope, params, slope)
        return params, np.array(residuals)

    params, residuals = descended(pair, rate)
    others, _ = descended(powers, rate / 2)
    np.testing.assert_allclose(pair.estimate(params), powers.estimate(others), rtol=1e-4)
    imbalance = params["first"] ** 2 - params["second"] ** 2
    expected = scale**2 * np.prod(1 - (rate * residuals / 2) ** 2, 0)
    np.testing.assert_allclose(imbalance, expected, rtol=1e-4)


def test_uniform_weights_have_the_range_and_the_moments_of_torch() -> None:
    """Independent numbers: the mean and the mean square within 4.5 standard errors."""
    dim, draws = 25, 400
    model = models.linear(dim=dim, intercept=True, init="uniform")
    params = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(2), draws))
    values = np.concatenate([params["weights"], params["intercept"][:, None]], 1) * 5
    size = values.size
    assert 0.995 < np.abs(values).max() <= 1
    assert abs(values.mean()) < 4.5 * np.sqrt(1 / 3 / size)
    assert abs((values**2).mean() - 1 / 3) < 4.5 * np.sqrt((1 / 5 - 1 / 9) / size)
    products = values[:, 1:] * values[:, :-1]
    assert abs(products.mean()) < 4.5 / 3 / np.sqrt(products.size)


def test_the_layers_of_a_network_are_scaled_by_their_inputs() -> None:
    dim, hidden = 50, 80
    model = models.linear_network(dim=dim, hidden=hidden, depth=3, init_scale=0.5)
    first, second, last = model.init(jax.random.key(4))["layers"]
    for layer, inputs in ((first, dim), (second, hidden), (last, hidden)):
        error = np.sqrt(2 / layer.size)  # of the mean square of normal numbers, relative
        assert abs((np.asarray(layer) ** 2).mean() * inputs / 0.25 - 1) < 4.5 * error
    assert not np.array_equal(first[:dim, :hidden], second[:dim, :hidden])


@pytest.mark.parametrize("depth", [2, 3])
def test_the_factor_of_a_spurious_weight_of_a_hadamard_power(depth: int) -> None:
    """At the invariant weights the gradient of u_j is -L u_j^(L-1) E x_j eps / 2."""
    bias, noise = 0.8, 1.3
    second = np.zeros((1, 4, 4))
    second[0] = [[1, 0, 1, 0], [0, 4, bias, 0], [1, bias, 1 + noise**2, 0], [0, 0, 0, 1]]
    model = models.hadamard(dim=2, depth=depth)
    params = {"positive": jnp.array([1.0, 1e-3])}
    risks = moment_risks(model, jnp.asarray(second, float))
    slope = jax.grad(lambda params: risks(params)[0])(params)["positive"]
    expected = -depth * 1e-3 ** (depth - 1) * bias / 2
    np.testing.assert_allclose(slope[1], expected, rtol=1e-2)
    # The invariant weight feels the spurious one only by their correlation, which is zero.
    np.testing.assert_allclose(slope[0], 0, atol=1e-6)


@pytest.mark.slow
def test_losses_of_moments_have_the_derivatives_of_a_quadratic_form() -> None:
    """The rule by hand: gradients, second and mixed derivatives, in both modes."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(3, 5, 5))
    second, vector = factor @ factor.transpose(0, 2, 1), rng.normal(size=5)
    with jax.enable_x64(True):
        moments, point = jnp.asarray(second), jnp.asarray(vector)
        for mode in (jax.jacfwd, jax.jacrev):
            np.testing.assert_allclose(mode(quadratic, 1)(moments, point), 2 * second @ vector)
            by_moments = mode(quadratic, 0)(moments, point)
            np.testing.assert_allclose(by_moments[1, 1], np.outer(vector, vector))
            np.testing.assert_array_equal(by_moments[0, 1], 0)
            mixed = mode(jax.jacrev(quadratic, 1), 0)(moments, point)[2, :, 2]
            np.testing.assert_allclose(mixed, 2 * np.einsum("ik,l->ikl", np.eye(5), vector))
        np.testing.assert_allclose(jax.hessian(quadratic, 1)(moments, point), 2 * second)


WRONG = [
    (models.linear, {"dim": 0}, "dim must be a whole number, at least 1, got 0"),
    (models.linear, {"dim": 2, "init": "normal"}, "init must be one of gaussian, uniform"),
    (models.linear, {"dim": 2, "init_scale": -1}, "init_scale must be .* at least 0, got -1"),
    (models.linear, {"dim": 2, "intercept": 1}, "intercept must be True or False, got 1"),
    (models.hadamard, {"dim": 2, "depth": 1}, "depth must be a whole number, at least 2"),
    (models.hadamard, {"dim": 2, "init_scale": 0}, "init_scale must be .* above 0, got 0"),
    (models.hadamard, {"dim": 2, "signed": "yes"}, "signed must be True or False"),
    (
        models.hadamard,
        {"dim": 2, "negative_scale": 0.1},
        "negative_scale must be None without signed, which alone has a v, got 0.1",
    ),
    (models.products, {"dim": 2, "init_scales": (0.1,)}, "init_scales must be a pair .* got 1 of"),
    (models.products, {"dim": 2, "init_scales": (0, 0.0)}, "init_scales must not both be 0"),
    (models.products, {"dim": 2, "init_scales": 0.1}, "init_scales must be a pair of numbers"),
    (models.linear_network, {"dim": 2, "hidden": 0}, "hidden must be a whole number, at least 1"),
    (models.linear_network, {"dim": 2, "hidden": 2, "depth": 1}, "depth must be .* at least 2"),
    (models.featurised, {"dim": 2, "features": 0}, "features must be a whole number, at least 1"),
]


@pytest.mark.parametrize(("factory", "arguments", "message"), WRONG)
def test_wrong_arguments_are_named(factory: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factory(**arguments)

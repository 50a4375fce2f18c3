"""Models say the same in all their forms, and start where they promise."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd.sensing import models
from causal_sgd.sensing.models import Factors, MatrixModel
from support.arrays import symmetric

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LEVEL = 1e-3


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


def test_all_forms_of_the_diagonal_model_agree() -> None:
    model = models.diagonal(dim=5, init_scale=0.3)
    np.testing.assert_allclose(model.init(jax.random.key(0)), np.full(5, 0.3))
    params = jnp.arange(1.0, 6.0)
    np.testing.assert_allclose(model.estimate(params), np.diag(np.arange(1.0, 6.0) ** 2))
    np.testing.assert_allclose(
        model.factor(params) @ model.factor(params).T, model.estimate(params)
    )
    np.testing.assert_allclose(jnp.diag(model.diagonal(params)), model.estimate(params))
    cotangent = jnp.asarray(symmetric(np.random.default_rng(0), 5, 5), jnp.float32)
    expected = jax.vjp(model.estimate, params)[1](cotangent)[0]
    np.testing.assert_allclose(model.pullback(params, cotangent), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model", [models.signed_diagonal(dim=5), models.quadratic(dim=5, neurons=7, negative=3)]
)
def test_models_with_both_signs_have_the_pullback_of_their_estimate(model: MatrixModel) -> None:
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32),
        model.init(jax.random.key(0)),
    )
    values = np.linalg.eigvalsh(model.estimate(params))
    assert values[0] < 0 < values[-1]
    cotangent = jnp.asarray(symmetric(rng, 5, 5), jnp.float32)
    expected = jax.vjp(model.estimate, params)[1](cotangent)[0]
    np.testing.assert_allclose(model.pullback(params, cotangent), expected, rtol=1e-5, atol=1e-5)


def test_products_of_factors_are_products() -> None:
    params = np.random.default_rng(0).normal(size=(3, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(
        models.deep(dim=5).estimate(jnp.asarray(params)),
        params[2] @ params[1] @ params[0],
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        models.asymmetric(dim=5).estimate(Factors(*params[:2])), params[0] @ params[1].T, rtol=1e-4
    )
    np.testing.assert_allclose(
        models.deep(dim=3, depth=4, init_scale=0.5).init(jax.random.key(0)), [0.5 * np.eye(3)] * 4
    )


def test_the_factor_of_a_network_without_negative_neurons() -> None:
    model = models.quadratic(dim=4, neurons=6, negative=0)
    params = model.init(jax.random.key(0))
    np.testing.assert_allclose(
        model.estimate(params), model.factor(params) @ model.factor(params).T
    )
    assert models.quadratic(dim=4, neurons=6).factor is None


def test_the_estimate_of_a_relu_network_is_the_quadratic_part_of_its_predictions() -> None:
    """E[f(x) (x x' - I)] / 2 by Monte Carlo; 20 entries, |z| < 4 each."""
    model = models.relu(dim=4, neurons=6, init_scale=1.0)
    params = model.init(jax.random.key(0))
    inputs = np.random.default_rng(1).normal(size=(200_000, 4)).astype(np.float32)
    predictions = np.asarray(jax.jit(jax.vmap(lambda x: model.predict(params, x)))(inputs))
    plain = np.maximum(inputs @ np.asarray(params.weights).T, 0) @ np.asarray(params.outputs)
    np.testing.assert_allclose(predictions, plain, rtol=1e-4, atol=1e-4)
    samples = predictions[:, None, None] * (inputs[:, :, None] * inputs[:, None, :] - np.eye(4)) / 2
    z = (samples.mean(0) - model.estimate(params)) / (samples.std(0) / len(inputs) ** 0.5)
    assert np.abs(z).max() < 4
    assert np.isfinite(model.estimate(params._replace(weights=0 * params.weights))).all()
    first = models.relu(dim=4, neurons=6, trained_layers="first", init_scale=1.0)
    assert len(jax.tree.leaves(first.init(jax.random.key(0)))) == 2


def test_initial_parameters_have_their_scale() -> None:
    np.testing.assert_allclose(
        models.factored(dim=4, init_scale=0.3).init(jax.random.key(0)), 0.3 * np.eye(4)
    )
    for model in (
        models.factored(dim=40, rank=30, init_scale=0.3),
        models.factored(dim=40, init="gaussian", init_scale=0.3),
    ):
        entries = np.asarray(model.init(jax.random.key(0))).ravel()
        assert stats.kstest(entries / 0.3, stats.norm.cdf).pvalue > LEVEL


STARTS = {  # model -> root mean square of its weights at the start, over the scale
    "factored": (models.factored(dim=80, rank=60, init_scale=0.3), 1.0),
    "asymmetric": (models.asymmetric(dim=80, rank=60, init_scale=0.3), 1.0),
    "asymmetric, identity": (models.asymmetric(dim=4, init_scale=0.3), 4**-0.5),
    "deep": (models.deep(dim=60, init="gaussian", init_scale=0.3), 60**-0.5),
    "signed diagonal": (models.signed_diagonal(dim=4, init_scale=0.3), 1.0),
    "quadratic": (models.quadratic(dim=80, neurons=60, init_scale=0.3), 1.0),
    "relu": (models.relu(dim=80, neurons=60, trained_layers="first", init_scale=0.3), 1.0),
}


@pytest.mark.parametrize("name", STARTS)
def test_the_weights_of_every_model_start_at_its_scale(name: str) -> None:
    """The root mean square of some 5000 normal entries has a standard error of 1 %: |z| < 4."""
    model, deviation = STARTS[name]
    params = model.init(jax.random.key(0))
    weights = getattr(params, "weights", params)  # the offset of a network starts at zero
    entries = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(weights)])
    error = 1 / (2 * entries.size) ** 0.5 if entries.size > 100 else 1e-6
    assert abs((entries**2).mean() ** 0.5 / (0.3 * deviation) - 1) < 4 * error

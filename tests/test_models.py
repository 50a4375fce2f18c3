"""Models say the same in all their forms, and start where they promise."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_contracts import symmetric

from causal_sgd import models

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

"""The additive model: its equations, its ranges, its target, and drawn rows of large models."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import measurements, worlds
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(4)


@pytest.mark.slow
@pytest.mark.parametrize("label", few(["additive", "interacting"], {"additive"}))
def test_labels_children_and_target_follow_the_equations(label: str) -> None:
    factory = worlds.additive_scm(label=label, rejection_examples=2000, candidates=2)

    @jax.jit
    def drawn(key: jax.Array) -> Any:
        world = factory(key)
        return world, [world.draw_examples(key, jnp.asarray(e), 20_000) for e in range(2)]

    world, data = drawn(KEY)
    first, second = np.asarray(world.coefficients.effects)
    assert (np.abs(first) <= 1.5).all()
    assert (np.abs(second) <= 5).all()
    assert (np.abs(first - second) >= 3).all()
    assert (np.asarray(world.coefficients.weights != 0).sum(1) <= 4).all()
    for e, (inputs, labels) in enumerate(data):
        x, y = np.asarray(inputs, float), np.asarray(labels, float)
        assert x.shape == (20_000, 26)
        if label == "additive":
            mean = np.sin(x[:, 0]) + np.sin(x[:, 1]) + np.tanh(x[:, 2])
            mean += np.maximum(x[:, 3], 0) + x[:, 4]
        else:
            mean = x[:, 0] * x[:, 1] ** 3 + np.sin(x[:, 4])
            mean += 2 * np.log(1 + np.exp(np.tanh(x[:, 2])) + np.exp(x[:, 3]))
        noise = y - mean
        assert abs(noise.mean()) < 4.5 / np.sqrt(20_000)
        assert abs(noise.var() - 1) < 4.5 * np.sqrt(2 / 20_000)
        z = np.tanh(y)
        slopes = np.asarray(world.coefficients.effects)[e]
        levels = np.asarray(world.coefficients.levels)[e]
        rest = x[:, 5:9] - z[:, None] * slopes
        assert (np.abs(rest.std(0) / levels - 1) < 4.5 / np.sqrt(40_000)).all()
        assert (np.abs(z @ rest / 20_000) < 4.5 * levels / np.sqrt(20_000)).all()
        centered = x[:, :5] - x[:, :5].mean(0)
        fit = np.linalg.solve(centered.T @ centered, centered.T @ (y - y.mean()))
        # Residual variance over that of a parent, 3/4, both of the fit and of the target's own.
        error = np.sqrt((1 / 20_000 + 1 / 50_000) * np.var(y - x[:, :5] @ fit) / 0.75)
        assert (np.abs(fit - world.target[:5]) < 6 * error).all()
    assert not np.asarray(world.target[5:]).any()


@pytest.mark.slow
def test_large_random_models_keep_drawn_rows() -> None:
    """71 nodes, as the source has them; moments of the rows are those of the data."""
    factory = worlds.random_scm(dim=70, rejection_examples=500, candidates=1)
    data = jax.jit(lambda key: measurements.examples(100).init(key, factory(key)))(KEY)
    assert data.rows.inputs.shape == (2, 100, 70)
    z = np.concatenate([data.rows.inputs, data.rows.labels[..., None]], -1).astype(float)
    second = np.einsum("eni,enj->eij", z, z) / 100
    np.testing.assert_allclose(data.training.second[:, :-1, :-1], second, rtol=1e-3, atol=1e-3)

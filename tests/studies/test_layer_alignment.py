"""The helpers of the study `layer-alignment`: rotated factors, and what linear networks obey."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd.sensing import models
from causal_sgd.studies.sensing import _layer_alignment as cells
from causal_sgd.studies.sensing._layer_bounds import balanced_across, logistic_numbers
from causal_sgd.theory.invariance import separable


def test_rotated_factors_descend_as_both_factors_do() -> None:
    plain = models.asymmetric(
        dim=cells.DIM, rank=cells.COLUMNS, init_scale=cells.ALPHA, init="gaussian"
    )
    rotated = cells.rotated()
    factors = jax.tree.map(lambda leaf: 5e5 * leaf, plain.init(jax.random.key(3)))
    params = 5e5 * rotated.init(jax.random.key(3))
    signal = jnp.diag(jnp.array([1.0, -2.0, 0.0, 0.0]))
    pullback = rotated.pullback
    assert pullback is not None
    for _ in range(3):
        estimate = plain.estimate(factors)
        np.testing.assert_allclose(rotated.estimate(params), estimate, atol=2e-6)
        half = (estimate - signal) / 2
        gradient = jax.vjp(plain.estimate, factors)[1](half)[0]
        factors = jax.tree.map(lambda leaf, slope: leaf - 0.2 * slope, factors, gradient)
        params = params - 0.2 * pullback(params, half)


def test_no_layers_break_the_bounds_of_their_own_matrices() -> None:
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(200, 1, *shape)) for shape in ((2, 4), (4, 4), (4, 1))]
    numbers = logistic_numbers(layers, np.full(200, 1e-9))
    assert 0.5 < numbers.rank_excess.max() <= 1
    assert 0.5 < numbers.sine_excess.max() <= 1
    products = np.einsum("...ij,...jk,...kl->...il", *layers)[..., 0]
    np.testing.assert_allclose(numbers.size, np.linalg.norm(products, axis=-1))


def test_balanced_layers_tend_to_the_margin_as_a_linear_model_does() -> None:
    every = cells.POINTS.reshape(-1, 2)
    found = separable.separator(every, np.full(4, 0.25), 0.1)
    across = abs(float(found.offset[1]))
    sizes = np.array([10.0, 20.0])
    np.testing.assert_allclose(balanced_across(every, 1, sizes), across, rtol=0.01)
    excess = balanced_across(every, 3, sizes) / across - 1
    assert 0.15 < excess[0] < 0.3  # 2/(1.6 |w|) to first order
    np.testing.assert_allclose(excess[1], 2 / (1.6 * 20), rtol=0.35)

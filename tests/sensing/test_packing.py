"""Packed coordinates of symmetric matrices, and subsets of examples."""

from __future__ import annotations

from collections import Counter

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd import random
from causal_sgd.random import _discrete
from causal_sgd.sensing.measurements import designs
from causal_sgd.sensing.measurements._algebra import packed_dim
from support.designs import keys

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LEVEL = 1e-3  # of each statistical test


# Packed coordinates


@jax.jit
def both_ways(measured: jax.Array, symmetric: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    coordinates = designs.pack(symmetric)
    return designs.pack(measured), coordinates, designs.unpack(coordinates)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_packed_inner_products_are_the_dense_ones(dim: int) -> None:
    rng = np.random.default_rng(0)
    measured, other = rng.normal(size=(2, 3, 4, dim, dim)).astype(np.float32)
    symmetric = (other + np.swapaxes(other, -1, -2)) / 2
    packed, coordinates, back = both_ways(measured, symmetric)
    chex.assert_shape(packed, (3, 4, dim * (dim + 1) // 2))
    found = (packed * coordinates).sum(-1)
    np.testing.assert_allclose(
        found, np.einsum("abij,abij->ab", measured, symmetric), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(back, symmetric, rtol=1e-6)
    assert packed_dim(packed.shape[-1]) == dim
    assert packed_dim(4) == 0


def test_packed_gaussian_measurements_are_independent_standard_normals() -> None:
    matrices = np.random.default_rng(0).normal(size=(20000, 3, 3)).astype(np.float32)
    packed = np.asarray(designs.pack(jnp.asarray(matrices)), np.float64)
    for column in packed.T:
        assert stats.kstest(column, stats.norm.cdf).pvalue > LEVEL
    # 15 correlations of standard error 1 / sqrt(n): max |z| > 4 once in 1,000 times
    assert np.abs(np.corrcoef(packed.T) - np.eye(6)).max() < 4 / np.sqrt(20000)


# Draws


@jax.jit
def subsets(keys: jax.Array, count: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: random.subset(key, 5, count))(keys)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 6])
def test_every_subset_is_equally_likely(count: int) -> None:
    masks = np.asarray(subsets(keys(6000), jnp.int32(count)))
    kept = min(count, 5)
    np.testing.assert_array_equal(masks.sum(1), kept)
    seen = Counter(map(bytes, masks))
    assert len(seen) == [1, 5, 10, 10, 5, 1][kept]
    if len(seen) > 1:
        assert stats.chisquare(list(seen.values())).pvalue > LEVEL


def test_a_subset_drawn_from_ties_has_its_size(monkeypatch) -> None:
    monkeypatch.setattr(
        _discrete,
        "bits",
        lambda key, count: jnp.asarray([9, 3, 9, 9, 2**32 - 1, 0, 9], jnp.uint32),
    )
    subset = jax.jit(lambda count: random.subset(jax.random.key(0), 7, count))
    for count in range(9):
        assert subset(jnp.int32(count)).sum() == min(count, 7)
    np.testing.assert_array_equal(subset(jnp.int32(3)), [1, 1, 0, 0, 0, 1, 0])

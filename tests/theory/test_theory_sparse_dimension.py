"""Statistical dimensions of sparse vectors, against Gaussian vectors and a peer's minimiser."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from causal_sgd.theory import sparse

DIM, SUPPORT = 25, 5


@pytest.mark.parametrize("nonnegative", [True, False])
def test_it_is_a_squared_distance_of_gaussian_vectors(nonnegative: bool) -> None:
    """From tau times the subdifferential, coordinate by coordinate: 10^5 vectors at three tau."""
    vectors = np.random.default_rng(0).normal(size=(100_000, DIM))
    on, off = vectors[:, :SUPPORT], vectors[:, SUPPORT:]
    for tau in (0.0, 0.7, 1.5):
        excess = off - tau if nonnegative else np.abs(off) - tau
        squares = ((on - tau) ** 2).sum(1) + (np.maximum(excess, 0) ** 2).sum(1)
        found = float(sparse.sparse_dimension(DIM, SUPPORT, tau, nonnegative=nonnegative))
        assert abs(found - squares.mean()) < 4.5 * squares.std() / len(squares) ** 0.5


@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_best_threshold_is_that_of_scipy(nonnegative: bool) -> None:
    dims, supports = np.array([2, 25, 100, 10**4, 10**9]), np.array([1, 5, 5, 30, 1])
    found = sparse.sparse_dimension(dims, supports, nonnegative=nonnegative)
    sides = 1 if nonnegative else 2
    for dim, support, value in zip(dims, supports, np.asarray(found), strict=True):

        def distance(tau: float, d: int = int(dim), k: int = int(support)) -> float:
            tail = (1 + tau**2) * scipy.stats.norm.sf(tau) - tau * scipy.stats.norm.pdf(tau)
            return k * (1 + tau**2) + sides * (d - k) * tail

        best = scipy.optimize.minimize_scalar(distance, bounds=(0, 9), method="bounded")
        assert value == pytest.approx(best.fun, rel=5e-5)


def test_without_the_norm_only_the_signs_count() -> None:
    dims = np.array([5, 25, 100])
    np.testing.assert_allclose(sparse.sparse_dimension(dims, 5, 0), dims, rtol=1e-5)
    ones = sparse.sparse_dimension(dims, 5, 0, nonnegative=True)
    np.testing.assert_allclose(ones, (dims + 5) / 2, rtol=1e-5)
    np.testing.assert_allclose(sparse.sparse_dimension(dims[:1], 5), 5, rtol=1e-5)
    traced = jax.jit(jax.vmap(lambda dim: sparse.sparse_dimension(dim, 5)))(dims)
    np.testing.assert_allclose(traced, sparse.sparse_dimension(dims, 5), rtol=1e-5)


def test_more_weights_than_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="^support must be at most dim, got 4 with dim 3"):
        sparse.sparse_dimension(3, 4)
    with pytest.raises(ValueError, match="^support must hold whole numbers, got 1.5"):
        sparse.sparse_dimension(3, 1.5)

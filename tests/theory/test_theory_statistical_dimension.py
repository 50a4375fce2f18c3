"""Statistical dimensions against drawn matrices and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import theory
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DRAWS = {4: 100_000, 11: 20_000, 40: 2_000}


def drawn_excess(size: int, tau: float) -> tuple[float, float]:
    """The mean over drawn matrices of sum_i (lambda_i - tau)_+^2, and its standard error."""
    rng = np.random.default_rng(size)
    entries = rng.normal(size=(DRAWS[size], size, size))
    values = np.linalg.eigvalsh((entries + entries.swapaxes(1, 2)) / 2)
    sums = (np.maximum(values - tau, 0) ** 2).sum(1)
    return float(sums.mean()), float(sums.std() / len(sums) ** 0.5)


@pytest.mark.parametrize(
    ("size", "rank"), few([(4, 1), (11, 1), (11, 3), (40, 2)], {(4, 1), (11, 3)})
)
@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_distances_are_those_of_drawn_matrices(size: int, rank: int, tau: float) -> None:
    mean, error = drawn_excess(size, tau)
    expected = rank * (rank + 1) / 2 + rank * size + rank * tau**2 + mean
    assert abs(float(theory.statistical_dimension(size + rank, rank, tau)) - expected) < 4.5 * error


def test_the_least_distance_is_the_least() -> None:
    ranks, taus = np.array([1, 3]), np.linspace(0, 8, 201)
    least = theory.statistical_dimension(12, ranks)
    distances = np.asarray(theory.statistical_dimension(12, ranks[:, None], taus[None, :]))
    np.testing.assert_allclose(least, distances.min(1), rtol=2e-3)
    assert (np.asarray(least) <= distances.min(1) * (1 + 1e-5)).all()


def test_without_the_trace_the_cone_has_its_closed_form() -> None:
    dim, rank = np.array([1, 2, 3, 8, 41, 300])[:, None], np.array([0, 1, 3])[None, :]
    keep = rank <= dim
    dims, ranks = (np.broadcast_to(values, keep.shape)[keep] for values in (dim, rank))
    others = dims - ranks
    exact = ranks * (ranks + 1) / 2 + ranks * others + others * (others + 1) / 4
    np.testing.assert_allclose(theory.statistical_dimension(dims, ranks, 0), exact, rtol=2e-4)


def test_a_matrix_of_full_rank_needs_all_measurements_and_zero_needs_none() -> None:
    np.testing.assert_allclose(theory.statistical_dimension([1, 5], [1, 5]), [1, 15], rtol=1e-5)
    assert float(theory.statistical_dimension(5, 0)) < 1e-4


def test_it_is_traced_and_refuses_ranks_above_the_dimension() -> None:
    ranks = jnp.array([1, 2])
    traced = jax.jit(jax.vmap(lambda rank: theory.statistical_dimension(12, rank)))(ranks)
    np.testing.assert_allclose(traced, theory.statistical_dimension(12, ranks), rtol=1e-5)
    with pytest.raises(ValueError, match="^rank must be at most dim, got 4 with dim 3"):
        theory.statistical_dimension(3, 4)
    with pytest.raises(ValueError, match="^dim must hold whole numbers, got 3.5"):
        theory.statistical_dimension(3.5, 1)

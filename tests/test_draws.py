"""The random draws against SciPy's distributions. Every p-value is below 1e-4 by chance for one choice of keys in 10^4."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd import draws

LANES = 200_000
LEVEL = 1e-4


@functools.partial(jax.jit, static_argnames="lanes")
def chi_squares(key: jax.Array, degrees: jax.Array, lanes: int = LANES) -> jax.Array:
    return jax.vmap(draws.chi_square, (0, None))(jax.random.split(key, lanes), degrees)


@jax.jit
def binomials(key: jax.Array, number: jax.Array, share: jax.Array) -> jax.Array:
    return jax.vmap(draws.binomial, (0, None, None))(jax.random.split(key, LANES), number, share)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 10, 80, 999, 4000, 1e6, 1e8])
def test_chi_square_has_its_distribution(degrees: float) -> None:
    drawn = np.asarray(chi_squares(jax.random.key(1), jnp.asarray([degrees, 7.0]))[:, 0], float)
    assert stats.kstest(drawn, stats.chi2(degrees).cdf).pvalue > LEVEL
    # the tails, which Kolmogorov and Smirnov hardly see
    edges = stats.chi2(degrees).ppf([1e-3, 0.02, 0.2, 0.5, 0.8, 0.98, 0.999])
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=8)
    expected = LANES * np.diff([0, 1e-3, 0.02, 0.2, 0.5, 0.8, 0.98, 0.999, 1])
    assert stats.chisquare(counts, expected).pvalue > LEVEL


def test_chi_squares_of_one_call_are_independent() -> None:
    drawn = np.asarray(chi_squares(jax.random.key(2), jnp.asarray([1.0, 5.0, 100.0])))
    correlation = np.corrcoef(drawn.T)[np.triu_indices(3, 1)]
    assert np.abs(correlation).max() < 4.5 / np.sqrt(LANES)


def test_no_degrees_give_exactly_zero() -> None:
    assert not np.asarray(chi_squares(jax.random.key(3), jnp.asarray([0.0, -1.0]), 100)).any()


@pytest.mark.parametrize("lanes", [1, 3, 5, 7, 13])
def test_chi_square_ends_for_any_number_of_lanes(lanes: int) -> None:
    # `jax.random.gamma` did not, for five lanes at 10^8
    drawn = np.asarray(chi_squares(jax.random.key(4), jnp.asarray([1.0, 1e8]), lanes))
    assert np.isfinite(drawn).all()
    assert (np.abs(drawn[:, 1] / 1e8 - 1) < 1e-3).all()


@pytest.mark.parametrize(
    ("number", "share"),
    [(1, 0.5), (5, 0.3), (40, 0.1), (40, 0.9), (100, 0.0999), (100, 0.1), (100, 0.5), (1000, 0.02), (4000, 0.125)],
)
def test_binomial_has_its_distribution(number: int, share: float) -> None:
    drawn = np.asarray(binomials(jax.random.key(5), jnp.asarray([float(number)]), jnp.asarray([share]))[:, 0], int)
    law = stats.binom(number, float(np.float32(share)))
    # cells of at least 5 expected draws, the rest gathered in the two tails
    low, high = (int(law.ppf(q)) for q in (50 / LANES, 1 - 50 / LANES))
    edges = np.arange(low, high)
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    expected = LANES * np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    assert expected.min() > 5
    assert stats.chisquare(counts, expected).pvalue > LEVEL


def test_multinomial_counts_add_up_and_are_marginally_binomial() -> None:
    probabilities = jnp.asarray([0.1, 0.2, 0.0, 0.4, 0.3])
    drawn = np.asarray(
        jax.jit(jax.vmap(draws.multinomial, (0, None, None)))(
            jax.random.split(jax.random.key(6), LANES), jnp.float32(300), probabilities
        )
    )
    assert (drawn.sum(1) == 300).all()
    assert not drawn[:, 2].any()
    for counts, share in zip(drawn.T, np.asarray(probabilities, float), strict=True):
        z = (counts.mean() - 300 * share) / np.sqrt(max(300 * share * (1 - share), 1e-9) / LANES)
        assert abs(z) < 4.5
    covariance = np.cov(drawn.T)
    shares = np.asarray(probabilities, float)
    np.testing.assert_allclose(covariance, 300 * (np.diag(shares) - np.outer(shares, shares)), atol=0.9)


def test_goe_has_its_variances_and_is_symmetric() -> None:
    drawn = np.asarray(jax.vmap(lambda key: draws.goe(key, 4, jnp.float32))(jax.random.split(jax.random.key(7), LANES)))
    np.testing.assert_array_equal(drawn, drawn.transpose(0, 2, 1))
    expected = np.where(np.eye(4, dtype=bool), 1, 0.5)
    np.testing.assert_allclose(drawn.var(0), expected, atol=4.5 * np.sqrt(2 / LANES))
    np.testing.assert_allclose(drawn.mean(0), 0, atol=4.5 / np.sqrt(LANES))

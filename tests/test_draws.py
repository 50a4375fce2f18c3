"""The random draws against SciPy's distributions. Every p-value is below 1e-4 by chance for one choice of keys in 10^4."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from numpy.polynomial import Polynomial, chebyshev
from scipy import special, stats

from causal_sgd import draws

LANES = 200_000
LEVEL = 1e-4


@functools.partial(jax.jit, static_argnames="lanes")
def chi_squares(key: jax.Array, degrees: jax.Array, lanes: int = LANES) -> jax.Array:
    def draw(key: jax.Array) -> jax.Array:
        words = draws.bits(key, len(degrees) * (draws.CHI_SQUARE_NORMALS + draws.CHI_SQUARE_WORDS))
        words = words.reshape(len(degrees), -1)
        candidates = draws.normals(words[:, : draws.CHI_SQUARE_NORMALS], degrees.dtype)
        return draws.chi_square(candidates, words[:, draws.CHI_SQUARE_NORMALS :], degrees)

    return jax.vmap(draw)(jax.random.split(key, lanes))


@jax.jit
def binomials(key: jax.Array, number: jax.Array, share: jax.Array) -> jax.Array:
    def draw(key: jax.Array) -> jax.Array:
        words = draws.bits(key, number.size * draws.BINOMIAL_UNIFORMS).reshape(number.size, -1)
        return draws.binomial(draws.uniforms(words, jnp.float32), number, share)

    return jax.vmap(draw)(jax.random.split(key, LANES))


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
    [
        (1, 0.5), (5, 0.3), (40, 0.1), (40, 0.9), (20, 0.5), (100, 0.0999), (100, 0.1), (105, 0.1), (100, 0.5), (1000, 0.02),
        (4000, 0.125), (16000, 0.5), (10**6, 1e-6), (10**6, 2e-5), (10**6, 0.3), (2**24, 0.7),
    ],
)  # fmt: skip
def test_binomial_has_its_distribution(number: int, share: float) -> None:
    drawn = np.asarray(binomials(jax.random.key(5), jnp.asarray([float(number)]), jnp.asarray([share]))[:, 0], int)
    law = stats.binom(number, float(np.float32(share)))
    # up to 200 cells of at least 5 expected draws, the rest gathered in the two tails
    edges = np.unique(law.ppf(np.linspace(50 / LANES, 1 - 50 / LANES, 200)))[:-1]
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    expected = LANES * np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    assert expected.min() > 5
    assert stats.chisquare(counts, expected).pvalue > LEVEL


def test_the_height_of_binomials_is_bounded_as_the_rejection_needs() -> None:
    # p rises from where the rarer outcome has the mean 10; modes are whole, so the worst mean lies between two of them
    for share in np.geomspace(1e-6, 0.5, 40):
        number = np.unique(np.round(np.concatenate([np.linspace(10, 40, 1000), [100.5, 1000.5]]) / share))
        number = number[number * share >= 10]
        highest = stats.binom.pmf(np.floor((number + 1) * share), number, share)
        assert (highest * np.sqrt(2 * np.pi * number * share * (1 - share))).max() < 1.01


@pytest.mark.parametrize(
    ("number", "share", "on_average", "at_most"),
    [  # few trials: Stirling's series at a single success; many: rounding, times the distance from the mean
        (20, 0.5, 2e-6, 6e-4), (10**7, 1e-6, 2e-6, 6e-4), (16000, 0.5, 1e-5, 2e-4), (10**6, 0.3, 1e-4, 2e-3),
        (2**30, 0.1, 1e-3, 0.02),
    ],
)  # fmt: skip
def test_the_rejection_knows_the_chances_of_binomials(
    number: int, share: float, on_average: float, at_most: float
) -> None:
    law = stats.binom(number, float(np.float32(share)))
    k = np.unique(np.float32(np.clip(np.round(law.mean() + law.std() * np.linspace(-6, 6, 1001)), 0, number)))[None]
    one = np.ones((1, 1), np.float32)
    rarity, size = map(np.float64, draws._rarity(k, number * one, share * one))
    exact = law.logpmf(k.astype(float))
    gap, weights = -rarity - np.log(size) / 2 - exact, np.exp(exact)
    gap -= np.average(gap, weights=weights)
    assert np.average(np.abs(gap), weights=weights) < on_average
    assert np.abs(gap).max() < at_most


def test_what_other_runs_need_changes_no_binomial() -> None:
    uniform = jax.random.uniform(jax.random.key(8), (3, 4, draws.BINOMIAL_UNIFORMS))
    number = jnp.asarray([[4000.0, 300, 1000, 50], [40, 4, 7, 0], [4000, 40, 12, 90]])  # all large, all small, both
    share = jnp.asarray([0.5, 0.1, 0.8, 0.3])
    together = jax.jit(jax.vmap(draws.binomial, (0, 0, None)))(uniform, number, share)
    alone = [jax.jit(draws.binomial)(*run, share) for run in zip(uniform, number, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert (np.asarray(together) <= number).all()


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


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5, 8, 9])
def test_goe_is_symmetric_with_the_variances_of_its_entries(dim: int) -> None:
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        normals = draws.normals(draws.bits(key, draws.half_goe_size(dim)), jnp.float32)
        return draws.half_goe(normals, dim), draws.goe(normals, dim)

    half, drawn = map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(7), LANES // 4)))
    np.testing.assert_array_equal(drawn, half + half.transpose(0, 2, 1))
    # one place of each mirrored two is empty
    assert (half[0] != 0).sum() == dim * (dim + 1) // 2
    entries = drawn[:, *np.tril_indices(dim)]
    expected = np.where(np.eye(dim), 1, 0.5)[np.tril_indices(dim)]
    covariance = np.atleast_2d(np.cov(entries.T))
    error = np.sqrt((np.outer(expected, expected) * (1 + np.eye(len(expected)))) / len(drawn))
    assert np.abs((covariance - np.diag(expected)) / error).max() < 5.5  # 1,035 z-scores at most
    assert np.abs(entries.mean(0) / np.sqrt(expected / len(drawn))).max() < 5


def test_words_are_those_of_threefry_and_their_streams_are_apart() -> None:
    key = jax.random.key(11)
    words, other = draws.bits(key, 1000), draws.bits(key, 1000, stream=1)
    counters = jnp.concatenate([jnp.arange(500, dtype=jnp.uint32), jnp.zeros(500, jnp.uint32)])
    np.testing.assert_array_equal(words, threefry_2x32(jax.random.key_data(key), counters))
    np.testing.assert_array_equal(other, threefry_2x32(jax.random.key_data(key), counters.at[500:].set(1)))
    assert len(np.unique(np.concatenate([words, other]))) > 1990
    assert draws.bits(key, 999).shape == (999,)
    raw = draws.bits(jax.random.key_data(key), 1000)  # a key of the old kind
    np.testing.assert_array_equal(words, raw)


@pytest.mark.parametrize("kind", ["typed", "raw", "rbg"])
def test_a_key_is_folded_as_jax_does(kind: str) -> None:
    key = {"typed": jax.random.key(9), "raw": jax.random.PRNGKey(9), "rbg": jax.random.key(9, impl="rbg")}[kind]
    for data in (0, 1, 2**31 - 1):
        found, expected = draws.fold_in(key, jnp.int32(data)), jax.random.fold_in(key, data)
        assert found.dtype == expected.dtype
        if kind != "raw":
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        np.testing.assert_array_equal(found, expected)


def test_keys_of_another_generator_are_welcome() -> None:
    key = jax.random.key(0, impl="rbg")
    words, other = draws.bits(key, 1000), draws.bits(key, 1000, stream=1)
    assert words.dtype == jnp.uint32
    assert not np.array_equal(words, other)


@pytest.mark.parametrize(("name", "law"), [("normals", stats.norm), ("uniforms", stats.uniform)])
def test_words_become_numbers_of_the_law(name: str, law: Any) -> None:
    drawn = np.asarray(getattr(draws, name)(draws.bits(jax.random.key(12), 10**6), jnp.float32), float)
    assert stats.kstest(drawn, law.cdf).pvalue > LEVEL
    assert np.isfinite(drawn).all()
    ends = getattr(draws, name)(jnp.asarray([0, 2**32 - 1], jnp.uint32), jnp.float32)
    assert np.isfinite(ends).all()


def test_the_tails_of_the_normals_are_right() -> None:
    drawn = np.asarray(draws.normals(draws.bits(jax.random.key(13), 10**7), jnp.float32))
    for edge in (2.0, 3.0, 4.0, 4.8):
        for count, tail in ((np.sum(drawn > edge), "upper"), (np.sum(drawn < -edge), "lower")):
            assert stats.binomtest(int(count), len(drawn), stats.norm.sf(edge)).pvalue > LEVEL, (edge, tail)


def quantile_coefficients() -> tuple[np.ndarray, np.ndarray, float]:
    """Numerator and denominator, and the largest relative error, of `draws.normals`, fitted to SciPy's quantiles.

    Least squares for a quotient, linearised with the last denominator, and again with more weight where the error was large.
    """
    end = -math.log(4 * 2.0**-33 * (1 - 2.0**-33))
    place = np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
    w = (place + 1) / 2 * end
    x = np.sqrt(-np.expm1(-w))
    ratio = np.where(w < 1e-3, math.sqrt(2) * special.erfinv(x), -special.ndtri(np.exp(-w) / (1 + x) / 2)) / x
    powers = chebyshev.chebvander(place, 5)
    weights, under, best = np.ones_like(w), np.ones_like(w), (np.inf, np.zeros(11))
    for _ in range(300):
        equations = np.hstack([powers, -ratio[:, None] * powers[:, 1:]])
        scale = weights / np.abs(under) / ratio
        solution = np.linalg.lstsq(equations * scale[:, None], ratio * scale)[0]
        under = 1 + powers[:, 1:] @ solution[6:]
        error = np.abs(powers @ solution[:6] / under / ratio - 1)
        best = min(best, (error.max(), solution), key=lambda pair: pair[0])
        weights *= np.sqrt(error / error.max() + 1e-3)
        weights /= weights.max()
    parts = best[1][:6], np.append(1, best[1][6:])
    over, under = (chebyshev.Chebyshev(part, domain=[0, end]).convert(kind=Polynomial).coef for part in parts)
    return over / under[0], under / under[0], best[0]


def test_the_quantile_coefficients_are_those_that_are_fitted() -> None:
    *parts, error = quantile_coefficients()
    assert error < 1.2e-7
    for coefficients, fitted in zip(draws.QUANTILE, parts, strict=True):
        np.testing.assert_allclose(coefficients, fitted, rtol=1e-6)
        assert min(coefficients) > 0


def test_normals_are_the_quantiles_of_their_words() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 10**6, dtype=np.uint32)
    words = np.concatenate([words, np.arange(2**16, dtype=np.uint32), ~np.arange(2**16, dtype=np.uint32)])
    expected = special.ndtri(((words >> 1) + 0.5) * 2.0**-32) * np.where(words & 1, 1, -1)
    found = np.asarray(jax.jit(lambda words: draws.normals(words, jnp.float32))(words), float)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
    with jax.enable_x64(True):
        exact = np.asarray(draws.normals(jnp.asarray(words), jnp.float64))
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-9)

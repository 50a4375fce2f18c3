"""The random draws against SciPy's distributions.

Every p-value is below 1e-4 by chance for one choice of keys in 10^4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from numpy.polynomial import Polynomial, chebyshev
from scipy import stats

from causal_sgd import random
from causal_sgd.random import _discrete, _normal
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LANES = 200_000
LEVEL = 1e-4


@functools.partial(jax.jit, static_argnames="lanes")
def chi_squares(key: jax.Array, degrees: jax.Array, lanes: int = LANES) -> jax.Array:
    def draw(key: jax.Array) -> jax.Array:
        candidates = random.normals(key, len(degrees) * random.CHI_SQUARE_NORMALS, degrees.dtype)
        words = random.bits(key, len(degrees) * random.CHI_SQUARE_WORDS, stream=1)
        return random.chi_square(
            candidates.reshape(len(degrees), -1), words.reshape(len(degrees), -1), degrees
        )

    return jax.vmap(draw)(jax.random.split(key, lanes))


@jax.jit
def binomials(key: jax.Array, number: jax.Array, share: jax.Array) -> jax.Array:
    def draw(key: jax.Array) -> jax.Array:
        words = random.bits(key, number.size * random.BINOMIAL_UNIFORMS).reshape(number.size, -1)
        return random.binomial(random.uniforms(words, jnp.float32), number, share)

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


@pytest.mark.parametrize("lanes", few([1, 3, 5, 7, 13], {5}))
def test_chi_square_ends_for_any_number_of_lanes(lanes: int) -> None:
    # `jax.random.gamma` did not, for five lanes at 10^8
    drawn = np.asarray(chi_squares(jax.random.key(4), jnp.asarray([1.0, 1e8]), lanes))
    assert np.isfinite(drawn).all()
    assert (np.abs(drawn[:, 1] / 1e8 - 1) < 1e-3).all()


@pytest.mark.parametrize(
    ("number", "share"),
    [
        (1, 0.5),
        (5, 0.3),
        (40, 0.1),
        (40, 0.9),
        (20, 0.5),
        (100, 0.0999),
        (100, 0.1),
        (105, 0.1),
        (100, 0.5),
        (1000, 0.02),
        (4000, 0.125),
        (16000, 0.5),
        (10**6, 1e-6),
        (10**6, 2e-5),
        (10**6, 0.3),
        (2**24, 0.7),
    ],
)
def test_binomial_has_its_distribution(number: int, share: float) -> None:
    drawn = np.asarray(
        binomials(jax.random.key(5), jnp.asarray([float(number)]), jnp.asarray([share]))[:, 0], int
    )
    law = stats.binom(number, float(np.float32(share)))
    # up to 200 cells of at least 5 expected draws, the rest gathered in the two tails
    edges = np.unique(law.ppf(np.linspace(50 / LANES, 1 - 50 / LANES, 200)))[:-1]
    counts = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    expected = LANES * np.diff(np.concatenate([[0], law.cdf(edges), [1]]))
    assert expected.min() > 5
    assert stats.chisquare(counts, expected).pvalue > LEVEL


def test_the_height_of_binomials_is_bounded_as_the_rejection_needs() -> None:
    # p rises from where the rarer outcome has the mean 10; modes are whole, so the worst mean lies
    # between two of them
    for share in np.geomspace(1e-6, 0.5, 40):
        number = np.unique(
            np.round(np.concatenate([np.linspace(10, 40, 1000), [100.5, 1000.5]]) / share)
        )
        number = number[number * share >= 10]
        highest = stats.binom.pmf(np.floor((number + 1) * share), number, share)
        assert (highest * np.sqrt(2 * np.pi * number * share * (1 - share))).max() < 1.01


@pytest.mark.parametrize(
    ("number", "share", "on_average", "at_most"),
    # few trials: Stirling's series at a single success; many: rounding, times the distance from
    # the mean
    [
        (20, 0.5, 2e-6, 6e-4),
        (10**7, 1e-6, 2e-6, 6e-4),
        (16000, 0.5, 1e-5, 2e-4),
        (10**6, 0.3, 1e-4, 2e-3),
        (2**30, 0.1, 1e-3, 0.02),
    ],
)
def test_the_rejection_uses_the_probabilities_of_binomials(
    number: int, share: float, on_average: float, at_most: float
) -> None:
    law = stats.binom(number, float(np.float32(share)))
    k = np.unique(
        np.float32(np.clip(np.round(law.mean() + law.std() * np.linspace(-6, 6, 1001)), 0, number))
    )[None]
    one = np.ones((1, 1), np.float32)
    rarity, size = map(np.float64, _discrete._rarity(k, number * one, share * one))
    exact = law.logpmf(k.astype(float))
    gap, weights = -rarity - np.log(size) / 2 - exact, np.exp(exact)
    gap -= np.average(gap, weights=weights)
    assert np.average(np.abs(gap), weights=weights) < on_average
    assert np.abs(gap).max() < at_most


def test_binomials_do_not_depend_on_other_runs() -> None:
    uniform = jax.random.uniform(jax.random.key(8), (3, 4, random.BINOMIAL_UNIFORMS))
    number = jnp.asarray(
        [[4000.0, 300, 1000, 50], [40, 4, 7, 0], [4000, 40, 12, 90]]
    )  # all large, all small, both
    share = jnp.asarray([0.5, 0.1, 0.8, 0.3])
    together = jax.jit(jax.vmap(random.binomial, (0, 0, None)))(uniform, number, share)
    alone = [jax.jit(random.binomial)(*run, share) for run in zip(uniform, number, strict=True)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert (np.asarray(together) <= number).all()


@pytest.mark.slow
def test_multinomial_counts_add_up_and_are_marginally_binomial() -> None:
    probabilities = jnp.asarray([0.1, 0.2, 0.0, 0.4, 0.3])
    drawn = np.asarray(
        jax.jit(jax.vmap(random.multinomial, (0, None, None)))(
            jax.random.split(jax.random.key(6), LANES), jnp.float32(300), probabilities
        )
    )
    assert (drawn.sum(1) == 300).all()
    assert not drawn[:, 2].any()
    for drawn_counts, share in zip(drawn.T, np.asarray(probabilities, float), strict=True):
        z = (drawn_counts.mean() - 300 * share) / np.sqrt(
            max(300 * share * (1 - share), 1e-9) / LANES
        )
        assert abs(z) < 4.5
    covariance = np.cov(drawn.T)
    shares = np.asarray(probabilities, float)
    np.testing.assert_allclose(
        covariance, 300 * (np.diag(shares) - np.outer(shares, shares)), atol=0.9
    )


def test_multinomial_counts_have_their_joint_distribution() -> None:
    law = stats.multinomial(4, [0.2, 0.5, 0.3])
    drawn = np.asarray(
        jax.jit(jax.vmap(random.multinomial, (0, None, None)))(
            jax.random.split(jax.random.key(18), 20_000), jnp.float32(4), jnp.asarray(law.p)
        )
    )
    outcomes = [(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]
    counts = [np.sum((drawn == outcome).all(1)) for outcome in outcomes]
    assert stats.chisquare(counts, len(drawn) * law.pmf(outcomes)).pvalue > LEVEL


def smallest(words: np.ndarray, count: int) -> np.ndarray:
    """The plain version of `subset`: sort, and take the first ones."""
    mask = np.zeros(len(words), bool)
    mask[np.argsort(words, kind="stable")[:count]] = True
    return mask


@pytest.mark.parametrize("levels", [2**32, 3], ids=["words", "ties"])
def test_a_subset_has_the_smallest_words(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).integers(0, levels, 37).astype(np.uint32)
    monkeypatch.setattr(_discrete, "bits", lambda key, size: jnp.asarray(words))
    draw = jax.jit(lambda count: random.subset(jax.random.key(0), 37, count))
    for count in (0, 1, 5, 20, 36, 37, 50):
        np.testing.assert_array_equal(draw(jnp.int32(count)), smallest(words, count))


def test_all_subsets_are_equally_likely() -> None:
    draw = jax.jit(jax.vmap(lambda key: random.subset(key, 5, jnp.int32(2))))
    masks = np.asarray(draw(jax.random.split(jax.random.key(19), 20_000)))
    codes, counts = np.unique(masks @ (2 ** np.arange(5)), return_counts=True)
    assert len(codes) == 10
    assert stats.chisquare(counts).pvalue > LEVEL


def test_goe_matrices_may_be_empty() -> None:
    assert random.goe_summand_size(0) == 0
    assert random.goe(jnp.zeros(0), 0).shape == (0, 0)


@pytest.mark.parametrize("dim", few([1, 2, 3, 4, 5, 8, 9], {1, 4, 9}))
def test_goe_is_symmetric_with_the_variances_of_its_entries(dim: int) -> None:
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        normals = random.normals(key, random.goe_summand_size(dim), jnp.float32)
        return random.goe_summand(normals, dim), random.goe(normals, dim)

    half, drawn = map(
        np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(7), LANES // 4))
    )
    np.testing.assert_array_equal(drawn, half + half.transpose(0, 2, 1))
    # one place of each mirrored two is empty
    assert (half[0] != 0).sum() == dim * (dim + 1) // 2
    entries = drawn[:, *np.tril_indices(dim)]
    expected = np.where(np.eye(dim), 1, 0.5)[np.tril_indices(dim)]
    covariance = np.atleast_2d(np.cov(entries.T))
    error = np.sqrt((np.outer(expected, expected) * (1 + np.eye(len(expected)))) / len(drawn))
    assert np.abs((covariance - np.diag(expected)) / error).max() < 5.5  # 1,035 z-scores at most
    assert np.abs(entries.mean(0) / np.sqrt(expected / len(drawn))).max() < 5


def test_words_are_those_of_threefry_and_streams_differ() -> None:
    key = jax.random.key(11)
    words, other = random.bits(key, 1000), random.bits(key, 1000, stream=1)
    counters = jnp.concatenate([jnp.arange(1000, dtype=jnp.uint32), jnp.zeros(1000, jnp.uint32)])
    np.testing.assert_array_equal(words, threefry_2x32(jax.random.key_data(key), counters)[:1000])
    np.testing.assert_array_equal(
        other, threefry_2x32(jax.random.key_data(key), counters.at[1000:].set(1))[:1000]
    )
    assert len(np.unique(np.concatenate([words, other]))) > 1990
    assert random.bits(key, 999).shape == (999,)
    raw = random.bits(jax.random.key_data(key), 1000)  # a key of the old kind
    np.testing.assert_array_equal(words, raw)


def folded(key: jax.Array, data: Any) -> jax.Array:
    return (
        jax.vmap(jax.random.fold_in, (None, 0))(key, data)
        if np.ndim(data)
        else jax.random.fold_in(key, data)
    )


@pytest.mark.parametrize("kind", ["typed", "raw", "rbg"])
def test_keys_are_folded_as_in_jax(kind: str) -> None:
    key = {
        "typed": jax.random.key(9),
        "raw": jax.random.PRNGKey(9),
        "rbg": jax.random.key(9, impl="rbg"),
    }[kind]
    for data in (0, 1, 2**31 - 1, np.arange(3)):
        found, expected = random.fold_in(key, jnp.asarray(data, jnp.int32)), folded(key, data)
        assert found.dtype == expected.dtype
        if kind != "raw":
            found, expected = jax.random.key_data(found), jax.random.key_data(expected)
        np.testing.assert_array_equal(found, expected)


def test_keys_of_another_generator_are_accepted() -> None:
    key = jax.random.key(0, impl="rbg")
    words, other = random.bits(key, 1000), random.bits(key, 1000, stream=1)
    assert words.dtype == jnp.uint32
    assert not np.array_equal(words, other)


def test_uniforms_have_their_distribution() -> None:
    drawn = np.asarray(random.uniforms(random.bits(jax.random.key(12), 10**6), jnp.float32), float)
    assert stats.kstest(drawn, stats.uniform.cdf).pvalue > LEVEL
    ends = np.asarray(random.uniforms(jnp.asarray([0, 2**32 - 1], jnp.uint32), jnp.float32))
    assert (ends >= 0).all()
    assert (ends < 1).all()


@pytest.mark.parametrize("impl", few(["threefry2x32", "rbg"], {"threefry2x32"}))
def test_normals_have_their_distribution(impl: str) -> None:
    drawn = np.asarray(random.normals(jax.random.key(13, impl=impl), 10**7, jnp.float32), float)
    assert stats.kstest(drawn[::10], stats.norm.cdf).pvalue > LEVEL
    for edge in (2.0, 3.0, 4.0, 4.8):
        for count, tail in ((np.sum(drawn > edge), "upper"), (np.sum(drawn < -edge), "lower")):
            assert stats.binomtest(int(count), len(drawn), stats.norm.sf(edge)).pvalue > LEVEL, (
                edge,
                tail,
            )


def test_the_two_normals_of_a_block_are_independent() -> None:
    first, second = np.asarray(
        random.normals(jax.random.key(14), 2 * 10**6, jnp.float32), float
    ).reshape(2, -1)
    edges = stats.norm.ppf(np.arange(1, 20) / 20)
    cells = 20 * np.searchsorted(edges, first) + np.searchsorted(edges, second)
    assert stats.chisquare(np.bincount(cells, minlength=400)).pvalue > LEVEL
    # and so, far out, are their signs and sizes
    far = (np.abs(first) > 2) & (np.abs(second) > 2)
    quadrants = np.bincount(2 * (first[far] > 0) + (second[far] > 0), minlength=4)
    assert stats.chisquare(quadrants).pvalue > LEVEL
    assert stats.binomtest(int(far.sum()), len(far), (2 * stats.norm.sf(2)) ** 2).pvalue > LEVEL


def test_streams_of_normals_and_their_words_are_apart() -> None:
    key = jax.random.key(15)
    drawn, other = (
        random.normals(key, 1000, jnp.float32),
        random.normals(key, 1000, jnp.float32, stream=1),
    )
    assert drawn.shape == (1000,)
    assert len(np.intersect1d(drawn, other)) < 3
    assert random.normals(key, 7, jnp.float32).shape == (7,)


def coefficients(
    function: Callable[[Any], Any], ends: tuple[float, float], degree: int
) -> tuple[np.ndarray, float]:
    """Coefficients of the interpolation at Chebyshev nodes, and its largest relative error."""
    made = chebyshev.Chebyshev.interpolate(function, degree, domain=ends)
    places = np.linspace(*ends, 10_000)  # an even number: 0 is none of them
    error = np.abs(made(places) / function(places) - 1).max()
    return made.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1]).coef, error


@pytest.mark.parametrize(
    ("name", "function", "ends"),
    [
        (
            "LOGARITHM",
            lambda f: np.divide(np.log1p(f), f, out=np.ones_like(f), where=f != 0),
            (-1 / 3, 1 / 3),
        ),
        ("SINE", lambda square: np.sinc(np.sqrt(np.abs(square)) / np.pi), (0, (np.pi / 4) ** 2)),
        ("COSINE", lambda square: np.cos(np.sqrt(np.abs(square))), (0, (np.pi / 4) ** 2)),
    ],
)
def test_the_coefficients_interpolate_at_chebyshev_points(
    name: str, function: Callable[[Any], Any], ends: tuple[float, float]
) -> None:
    found = getattr(_normal, name)
    expected, error = coefficients(function, ends, len(found) - 1)
    assert error < 5e-8
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def box_muller(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pairs of normals for pairs of words, in double precision."""
    # an angle around the first axis; one bit reflects it to the negative half, one swaps the axes
    angle = (y << np.uint32(2)).view(np.int32) * (np.pi / 4 * 2.0**-31)
    along, across = np.cos(angle) * np.where(y >> 31, -1, 1), np.sin(angle)
    swapped = (y >> 30 & 1).astype(bool)
    radius = np.sqrt(-2 * np.log((x + 0.5) * 2.0**-32))
    return radius * np.where(swapped, across + 1j * along, along + 1j * across)


def test_box_muller_agrees_with_the_formula_in_double_precision() -> None:
    ends = np.concatenate(
        [np.arange(2**14), 2**31 + np.arange(-(2**14), 2**14), 2**32 - 1 - np.arange(2**14)]
    )
    rng = np.random.default_rng(0)
    x, y = np.concatenate(
        [rng.integers(0, 2**32, (2, 10**6)), [ends, rng.permutation(ends)]], 1
    ).astype(np.uint32)
    expected = box_muller(x, y)
    radius = np.abs(expected)
    made = jax.jit(functools.partial(_normal._box_muller, dtype=jnp.float32))(x, y)
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-6)
    small = radius < 1e-3  # where 1 - u has digits that u has not
    assert small.any()
    np.testing.assert_allclose(np.abs(made)[small], radius[small], rtol=1e-5)
    with jax.enable_x64(True):
        exact = np.asarray(_normal._box_muller(jnp.asarray(x), jnp.asarray(y), jnp.float64))
    np.testing.assert_allclose(exact, expected, rtol=1e-9, atol=1e-9)


def test_normals_are_box_muller_of_the_words_of_a_stream() -> None:
    """The plain version: jax's Threefry, then the formula with sines and cosines in float64."""
    key, count, half = jax.random.key(20), 75, 48  # pairs are padded to a multiple of 16
    counters = jnp.concatenate([jnp.arange(half), jnp.full(half, 2)]).astype(jnp.uint32)
    x, y = np.asarray(threefry_2x32(jax.random.key_data(key), counters)).reshape(2, half)
    pairs = box_muller(x, y)
    expected = np.concatenate([pairs.real, pairs.imag])[:count].reshape(5, 15)
    drawn = random.normals(key, (5, 15), jnp.float32, stream=2)
    np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)


def test_normals_are_the_same_alone_and_mapped_over_keys() -> None:
    keys = jax.random.split(jax.random.key(16), (3, 2))
    draw = functools.partial(random.normals, shape=50, dtype=jnp.float32)
    together = jax.jit(jax.vmap(jax.vmap(draw)))(keys)
    np.testing.assert_array_equal(together, [[draw(key) for key in row] for row in keys])
    one = jax.jit(jax.vmap(lambda key, _: draw(key), (None, 0)))(keys[0, 0], jnp.arange(3))
    np.testing.assert_array_equal(one, np.stack([together[0, 0]] * 3))


@pytest.mark.skipif(
    jax.default_backend() != "cpu",
    reason="other compilers make one loop of both numbers by themselves",
)
def test_the_rounds_of_a_block_are_computed_once() -> None:
    def used_twice(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = random.normals(key, 1000, jnp.float32)
        return jnp.cumsum(drawn), drawn.reshape(2, -1).T * 2

    program = jax.jit(jax.vmap(used_twice)).lower(jax.random.split(jax.random.key(0), 4)).compile()
    rotations = program.as_text().count(" shift-right-logical(")
    assert 20 <= rotations < 40


def test_gradients_pass_normals_as_constants() -> None:
    slope = jax.grad(
        lambda scale: jnp.sum(scale * random.normals(jax.random.key(17), 100, jnp.float32))
    )(2.0)
    np.testing.assert_allclose(
        slope, np.sum(random.normals(jax.random.key(17), 100, jnp.float32)), rtol=1e-5
    )

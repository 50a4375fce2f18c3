"""Do data sets and batches from them give the gradient of plain NumPy on the same examples?

The model's parameters are the estimate itself, so that its gradient is G / 2. Statistical tests are
at the level 1e-3 each, with fixed seeds, unless they say otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd.sensing import World, measurements
from causal_sgd.sensing.measurements import _fixed, designs
from causal_sgd.types import Batch, Measurement
from support.cases import few
from support.designs import (
    DIM,
    ENVIRONMENTS,
    EXAMPLES,
    READ_OUT,
    STEP,
    WIDTH,
    dense_design,
    estimate,
    full,
    keys,
    world,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LEVEL = 1e-3
UPPER = np.triu_indices(DIM)


def signals() -> np.ndarray:
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), world())
    shared = w.invariant_basis * w.invariant_spectrum @ w.invariant_basis.T
    return shared + w.spurious_basis @ w.spurious_cores @ w.spurious_basis.T


@functools.cache
def compiled(measurement: Measurement) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """A gradient as one program; piece by piece it would be compiled piece by piece."""

    def one(
        key: jax.Array, point: jax.Array, nature: World, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(9), nature)
        return measurement.gradient(key, STEP, data, READ_OUT, point, nature, batch)

    return jax.jit(one)


def gradient(
    measurement: Measurement,
    environments: list[int],
    counts: Any,
    *,
    key: int = 0,
    nature: World | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """G [d, d] and the loss []; at A* in a world of the test's own."""
    batch = Batch(jnp.asarray(environments), jnp.asarray(counts))
    point = estimate() if nature is None else nature.invariant
    found, loss = compiled(measurement)(
        jax.random.key(key), point, world() if nature is None else nature, batch
    )
    return 2 * np.asarray(found), np.asarray(loss)


def definition(
    dense: np.ndarray, labels: np.ndarray, weights: np.ndarray, size: float, point: Any = None
) -> tuple[np.ndarray, float]:
    """G and loss in double precision: dense design [E, n, d, d], labels and weights [E, n]."""
    point = np.asarray(estimate() if point is None else point, np.float64)
    residual = np.einsum("enij,ij->en", dense.astype(np.float64), point) - labels
    matrix = np.einsum("en,enij->ij", weights * residual, dense) / size
    return (matrix + matrix.T) / 2, (weights * residual**2).sum() / (4 * size)


@functools.cache
def revealed(
    replacement: bool, largest_batch: int | None
) -> Callable[[jax.Array, Batch, World], jax.Array]:
    """How often each example is in the batch of each key, [keys, p], from unit coordinates.

    Every example has its own coordinate; with labels of zero, the gradient at an estimate of ones
    counts them.
    """
    measurement = measurements.fixed_design(
        design=unit_design(), replacement=replacement, largest_batch=largest_batch
    )

    def one(key: jax.Array, batch: Batch, world: World) -> jax.Array:
        point, data = designs.unpack(jnp.ones(WIDTH)), jnp.zeros((2, 7))
        found, _ = measurement.gradient(key, STEP, data, READ_OUT, point, world, batch)
        return jnp.round(designs.pack(2 * found) * jnp.sum(batch.counts))

    return jax.jit(jax.vmap(one, (0, None, None)))


def unit_design() -> np.ndarray:
    """Two environments with seven examples each; the i-th of all sees the i-th coordinate alone."""
    return np.eye(WIDTH, dtype=np.float32)[: 2 * 7].reshape(2, 7, WIDTH)


# Gradients

BATCHES = [([2], [6]), ([0, 1, 2, 3], [5, 0, 2, 6]), ([3, 0, 1, 2], [5, 0, 2, 6]), ([3, 1], [4, 1])]


@pytest.mark.parametrize(
    ("environments", "counts", "packed"),
    [*((*batch, False) for batch in BATCHES), (*BATCHES[1], True)],
)
def test_full_batches_have_the_plain_gradient(
    environments: list[int], counts: list[int], packed: bool
) -> None:
    dense = dense_design()
    found, loss = gradient(full(packed=packed), environments, counts)
    weights = np.zeros((ENVIRONMENTS, EXAMPLES))
    weights[environments] = np.array(counts)[:, None] / EXAMPLES
    symmetric = (dense + np.swapaxes(dense, 2, 3)) / 2
    labels = np.einsum("enij,eij->en", symmetric, signals())
    expected, expected_loss = definition(symmetric, labels, weights, sum(counts))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)


KINDS = list(itertools.product([True, False], [None, 7, 1000]))  # replacement and largest batch
DRAWN = [([1, 0], [4, 0]), ([0, 1], [4, 3]), ([1, 0], [7, 0])]


@pytest.mark.parametrize(
    ("environments", "counts", "replacement", "largest_batch"),
    few(
        [
            *((*batch, *kind) for batch in DRAWN for kind in KINDS),
            # batches of one environment; their draws do not depend on the number of environments
            *(([1], [4], *kind) for kind in [(False, None), (True, 7)]),
        ],
        [(*DRAWN[0], False, None), (*DRAWN[0], True, 7), (*DRAWN[0], False, 7)],
    ),
)
def test_a_batch_holds_the_right_number_of_examples_of_each_environment(
    environments: list[int],
    counts: list[int],
    replacement: bool,
    largest_batch: int | None,
    monkeypatch,
) -> None:
    times = batches(environments, counts, largest_batch, replacement, monkeypatch, number=4000)
    asked = np.zeros(2)
    asked[environments] = counts
    np.testing.assert_array_equal(times.sum(2), np.broadcast_to(asked, (4000, 2)))
    assert (times.max() > 1) == replacement, "an example is in a batch twice, or never"
    # all examples alike: means of counts, whose variance is known in both cases; 14 z-scores
    share = asked / 7
    variance = share * (1 - 1 / 7) if replacement else share * (1 - share)
    error = np.sqrt(np.maximum(variance, 1e-12) / 4000)[:, None]
    assert (
        np.abs(times.mean(0) - share[:, None]) <= 4.2 * error
    ).all()  # by chance in 4e-4 of all cases
    # and all pairs alike: the covariance of two examples of one environment
    if counts in ([4], [4, 0]):
        pair = np.cov(times[:, 1, 0], times[:, 1, 1])[0, 1]
        expected = -share[1] / 7 if replacement else -share[1] * (1 - share[1]) / 6
        assert abs(pair - expected) < 4 * variance[1] / np.sqrt(4000)


def batches(
    environments, counts, largest_batch, replacement, monkeypatch, *, number: int
) -> np.ndarray:
    """How often each example is in each batch, [number, 2, 7], also where rows are gathered."""
    if largest_batch == 7:  # gathered, though that would not pay here
        monkeypatch.setattr(_fixed, "GATHERED", 1)
    batch = Batch(jnp.asarray(environments), jnp.asarray(counts))
    times = revealed(replacement, largest_batch)(keys(4000), batch, world())
    return np.asarray(times)[:number, : 2 * 7].reshape(-1, 2, 7)


def test_without_replacement_a_promised_size_changes_no_draw(monkeypatch) -> None:
    whole = batches([0, 1], [4, 3], None, False, monkeypatch, number=50)
    np.testing.assert_array_equal(batches([0, 1], [4, 3], 7, False, monkeypatch, number=50), whole)


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("largest_batch", [pytest.param(None, marks=pytest.mark.slow), 7])
def test_mini_batches_are_unbiased_given_the_design(
    replacement: bool, largest_batch: int | None, monkeypatch
) -> None:
    monkeypatch.setattr(_fixed, "GATHERED", 1)
    measurement = measurements.fixed_design(
        design=dense_design(), noise=0.5, replacement=replacement, largest_batch=largest_batch
    )

    @jax.jit
    def many(keys: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(9), world())

        def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            return measurement.gradient(
                key, STEP, data, READ_OUT, jnp.asarray(estimate()), world(), batch
            )

        return jax.vmap(one)(keys)

    matrices, losses = many(keys(4000), Batch(jnp.array([2, 0]), jnp.array([4, 3])))
    found = np.column_stack([2 * np.asarray(matrices, np.float64)[:, *UPPER], losses])
    matrix, loss = gradient(full(noise=0.5), [2, 0], [4, 3])
    expected = np.append(matrix[UPPER], loss)
    z = (found.mean(0) - expected) / (found.std(0) / np.sqrt(len(found)))
    assert np.abs(z).max() < 4.2  # 16 z-scores: by chance in 4e-4 of all cases
    assert (found.std(0) > 0.01).all(), "nothing is random"


def test_the_label_noise_is_drawn_once() -> None:
    @jax.jit
    def drawn(noise: float, key: jax.Array) -> jax.Array:
        return measurements.fixed_design(design=dense_design(), noise=noise).init(key, world())

    @jax.jit
    def of_many(noise: float) -> jax.Array:
        return measurements.fixed_design(num_examples=4000, noise=noise).init(
            jax.random.key(0), world()
        )[1]

    def labels(noise: float, seed: int = 9) -> np.ndarray:
        return np.asarray(drawn(noise, jax.random.key(seed)))

    unit = (labels(2.0) - labels(0.0)) / 2
    np.testing.assert_allclose(labels(1.0) - labels(0.0), unit, rtol=1e-4, atol=1e-5)
    assert np.abs(unit - (labels(2.0, 8) - labels(0.0, 8)) / 2).max() > 0.1
    noise = np.asarray(of_many(1.0)) - np.asarray(of_many(0.0))
    assert stats.kstest(noise.ravel(), stats.norm.cdf).pvalue > LEVEL
    # The same test misses a scale that is wrong by 5 %.
    assert abs(np.sqrt((noise**2).mean()) - 1) < 4 / np.sqrt(2 * noise.size)
    # Full batches have no other randomness: a step is the same whatever its key is.
    found = gradient(full(noise=2.0), [1], [3], key=0)
    for one, other in zip(found, gradient(full(noise=2.0), [1], [3], key=1), strict=True):
        np.testing.assert_array_equal(one, other)
    expected, loss = definition(
        dense_design(),
        labels(2.0),
        np.eye(ENVIRONMENTS)[1][:, None] / EXAMPLES * np.ones(EXAMPLES),
        1,
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[1], loss, rtol=1e-4)


def test_asymmetric_measurements_see_the_antisymmetric_part() -> None:
    dense, model = dense_design(), dataclasses.replace(READ_OUT, symmetric=False)
    point = np.random.default_rng(5).normal(size=(DIM, DIM)).astype(np.float32)
    weights = np.zeros((ENVIRONMENTS, EXAMPLES))
    weights[[1, 3]] = np.array([[2.0], [4.0]]) / EXAMPLES
    labels = np.einsum("enij,eij->en", dense, signals())
    residual = np.einsum("enij,ij->en", dense.astype(np.float64), point) - labels
    expected = np.einsum("en,enij->ij", weights * residual, dense) / 6
    measurement = measurements.fixed_design(design=dense, full=True, symmetric=False)

    @jax.jit
    def found(batch: Batch) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(9), world())
        return measurement.gradient(
            jax.random.key(0), STEP, data, model, jnp.asarray(point), world(), batch
        )

    matrix, loss = found(Batch(jnp.array([1, 3]), jnp.array([2, 4])))
    np.testing.assert_allclose(2 * np.asarray(matrix), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss, (weights * residual**2).sum() / 24, rtol=1e-4)
    assert np.abs(expected - expected.T).max() > 0.1
    own = jax.jit(measurements.fixed_design(num_examples=500, symmetric=False).init)(
        jax.random.key(0), world()
    )
    chex.assert_shape(own[0], (ENVIRONMENTS, 500, DIM * DIM))
    assert stats.kstest(np.asarray(own[0]).ravel(), stats.norm.cdf).pvalue > LEVEL
    np.testing.assert_allclose(
        own[1],
        np.einsum("enp,ep->en", own[0], signals().reshape(ENVIRONMENTS, -1)),
        rtol=1e-4,
        atol=1e-4,
    )


FURTHER = [
    pytest.param(options, marks=pytest.mark.slow)
    for options in ({"full": True}, {"largest_batch": 2})
]


@pytest.mark.parametrize("options", [{}, *FURTHER])
def test_fresh_noise_is_added_to_the_labels_anew_in_every_step(options: dict[str, Any]) -> None:
    def noisy(fresh_noise: float) -> Measurement:
        return measurements.fixed_design(design=dense_design(), fresh_noise=fresh_noise, **options)

    clean, _ = gradient(noisy(0.0), [1], [2])
    unit = noisy(1.0)
    one, two = (gradient(measurement, [1], [2])[0] for measurement in (unit, noisy(2.0)))
    np.testing.assert_allclose(
        two - clean, 2 * (one - clean), rtol=1e-3, atol=1e-4
    )  # the same examples
    assert np.abs(one - gradient(unit, [1], [2], key=1)[0]).max() > 0.1


def test_with_fresh_noise_the_gradient_is_normal_within_the_span_of_the_examples() -> None:
    measurement = measurements.fixed_design(design=dense_design(), fresh_noise=0.5, full=True)

    @jax.jit
    def many(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(9), world())
        batch, point = Batch(jnp.array([1]), jnp.array([3])), jnp.asarray(estimate())
        return jax.vmap(
            lambda key: measurement.gradient(key, STEP, data, READ_OUT, point, world(), batch)
        )(keys)

    matrices, losses = many(keys(4000))
    clean, loss = gradient(full(), [1], [3])
    change = (2 * np.asarray(matrices, np.float64) - clean)[:, *UPPER]
    measured = dense_design()[1]
    rows = ((measured + measured.swapaxes(1, 2)) / 2)[:, *UPPER].astype(np.float64)
    values, vectors = np.linalg.eigh(0.25 * rows.T @ rows / EXAMPLES**2)
    seen = values > 1e-9
    assert seen.sum() == EXAMPLES
    np.testing.assert_allclose(change @ vectors[:, ~seen], 0, atol=1e-5)
    whitened = change @ vectors[:, seen] / np.sqrt(values[seen])
    assert stats.kstest(whitened.ravel(), stats.norm.cdf).pvalue > LEVEL
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(EXAMPLES), atol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(
        np.mean(losses), loss + 0.25 / 4, atol=5 * np.std(losses) / np.sqrt(4000)
    )


def test_a_run_draws_its_own_design_and_a_shared_one_is_the_same_in_all() -> None:
    @jax.jit
    def of_key(key: jax.Array) -> jax.Array:
        return designs.shared_design(
            key, dim=DIM, num_environments=ENVIRONMENTS, num_examples=EXAMPLES
        )

    own = jax.jit(measurements.fixed_design(num_examples=EXAMPLES).init)
    first, second = (own(jax.random.key(seed), world())[0] for seed in (0, 1))
    chex.assert_shape(first, (ENVIRONMENTS, EXAMPLES, WIDTH))
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1
    shared = of_key(jax.random.key(0))
    assert stats.kstest(np.asarray(shared).ravel(), stats.norm.cdf).pvalue > LEVEL
    labels_of = jax.jit(measurements.fixed_design(design=shared, full=True).init)
    np.testing.assert_array_equal(*(labels_of(jax.random.key(seed), world()) for seed in (0, 1)))
    # a run's own design is the one that its key gives
    np.testing.assert_array_equal(first, of_key(jax.random.split(jax.random.key(0))[0]))


def test_large_data_sets_are_the_population() -> None:
    found, loss = gradient(
        measurements.fixed_design(num_examples=100_000, full=True), [0, 1, 2, 3], [1, 2, 3, 4]
    )
    population, mean_loss = gradient(measurements.population(), [0, 1, 2, 3], [1, 2, 3, 4])
    norm = np.sqrt(
        4 * mean_loss
    )  # of the residuals: entries of G have a deviation of at most |R| sqrt(2 / n)
    assert np.abs(found - population).max() < 5 * norm * np.sqrt(2 / 100_000)
    assert abs(loss / mean_loss - 1) < 5 * np.sqrt(2 / 100_000) * 2


@pytest.mark.parametrize(
    "options", [{"full": True}, {}, {"replacement": True}, {"largest_batch": 2}]
)
def test_without_residuals_or_examples_there_is_no_gradient_and_no_nan(
    options: dict[str, Any],
) -> None:
    measurement = measurements.fixed_design(design=dense_design(), **options)
    nature = world()._replace(spurious_cores=0 * world().spurious_cores)
    zero, loss = gradient(measurement, [0, 1, 2, 3], [0, 0, 2, 0], nature=nature)
    np.testing.assert_allclose(zero, 0, atol=1e-4)
    np.testing.assert_allclose(loss, 0, atol=1e-8)
    chex.assert_tree_all_finite(gradient(measurement, [3, 1, 0, 2], [0, 2, 0, 0]))


def test_impossible_batches_are_refused_or_not_finite() -> None:
    whole = measurements.fixed_design(design=dense_design())
    promised = measurements.fixed_design(design=dense_design(), largest_batch=2, replacement=True)
    for measurement, allowed, counts in ((whole, EXAMPLES, EXAMPLES + 1), (promised, 2, 3)):
        batch = Batch(
            jnp.array([1]), jnp.array([counts])
        )  # known numbers, even where all else is traced
        with pytest.raises(ValueError, match=f"counts must sum to at most {allowed}"):
            jax.eval_shape(
                lambda key, measurement=measurement, batch=batch: measurement.gradient(
                    key,
                    STEP,
                    measurement.init(key, world()),
                    READ_OUT,
                    jnp.asarray(estimate()),
                    world(),
                    batch,
                ),
                jax.random.key(0),
            )
        assert not np.isfinite(gradient(measurement, [1], [counts])[1])
        chex.assert_tree_all_finite(gradient(measurement, [1], [counts - 1]))

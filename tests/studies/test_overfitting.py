"""The laws of the study of overfitting, and the data sets that it draws, against plain ones."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax
import pytest
from scipy import optimize
from scipy.special import ndtr

from causal_sgd import training
from causal_sgd.studies.supervised import _overfitting_methods as methods
from causal_sgd.studies.supervised._overfitting_theory import Law, Weights
from causal_sgd.supervised import losses, measurements, metrics, models
from causal_sgd.supervised._moments import MomentData
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIGNALS = np.array([[1.0, 2.0], [1.0, -2.0]])
LAW = Law(SIGNALS, np.array([0.8, 0.2]), np.ones(2))
UNEVEN = Law(SIGNALS, np.array([0.8, 0.2]), np.array([0.3, 0.6]), 1.5)


def signed(random: np.random.Generator, law: Law, size: int, ratio: float) -> np.ndarray:
    """Signed inputs y x, the signals first."""
    few = round(size * law.shares[1])
    signals = np.repeat(law.signals, (size - few, few), 0)
    signals = signals + law.deviations * random.standard_normal(signals.shape)
    noise = law.noise * random.standard_normal((size, round(size * ratio)))
    return np.concatenate([signals, noise], 1)


def widest(points: np.ndarray) -> np.ndarray:
    """The weights of margin 1, as the least distance of a cone (Lawson and Hanson 1974)."""
    columns = np.concatenate([points.T, np.ones((1, len(points)))])
    target = np.append(np.zeros(points.shape[1]), 1.0)
    residual = columns @ optimize.nnls(columns, target, maxiter=20 * len(points))[0] - target
    return -residual[:-1] / residual[-1]


def check(found: list[np.ndarray], weights: Weights) -> None:
    """Weights of drawn examples are those of the law on average, within 4.5 standard errors."""
    numbers = np.array([[*each[:2], np.linalg.norm(each[2:])] for each in found])
    error = numbers.std(0, ddof=1) / len(numbers) ** 0.5
    assert np.all(np.abs(numbers.mean(0) - [*weights.signals, weights.noise]) < 4.5 * error)


@pytest.mark.parametrize("law", [LAW, UNEVEN])
@pytest.mark.parametrize("ratio", few([0.5, 2.0], [0.5]))
def test_least_squares_of_drawn_examples_follow_the_law(law: Law, ratio: float) -> None:
    random = np.random.default_rng(0)
    targets = np.array([1.0, 1.7])
    goals = np.repeat(targets, (320, 80))
    found = [np.linalg.lstsq(signed(random, law, 400, ratio), goals)[0] for _ in range(12)]
    check(found, law.least_norm(ratio, targets))


@pytest.mark.parametrize(("law", "ratio"), [(LAW, 0.6), (LAW, 3.0), (UNEVEN, 1.0)])
def test_the_margin_of_drawn_examples_follows_the_law(law: Law, ratio: float) -> None:
    random = np.random.default_rng(1)
    points = [signed(random, law, 200, ratio) for _ in range(12)]
    found = [widest(each) for each in points]
    assert min(np.min(p @ w) for p, w in zip(points, found, strict=True)) > 1 - 1e-6
    check(found, law.margin(ratio))


@pytest.mark.slow
def test_half_of_the_data_sets_are_separable_at_the_threshold() -> None:
    silent = Law(0 * SIGNALS, LAW.shares, np.ones(2))
    assert silent.threshold() == pytest.approx(0.5)  # Cover 1965
    random = np.random.default_rng(2)
    for factor, expected in ((0.7, False), (1.4, True)):
        for _ in range(3):
            points = signed(random, LAW, 800, factor * LAW.threshold())
            bounds = [(None, None)] * points.shape[1]
            limits = optimize.linprog(
                np.zeros(points.shape[1]), -points, -np.ones(800), bounds=bounds
            )
            assert limits.success == expected


@pytest.mark.slow
def test_weights_of_groups_matter_by_their_logarithm_over_that_of_time() -> None:
    random = np.random.default_rng(3)
    rate, steps, worst = 1 / 11, 1000, []
    for _ in range(8):
        points = signed(random, LAW, 200, 10.0)
        factors = np.repeat(np.stack([np.ones(2), 0.5 / LAW.shares]), (160, 40), 1)  # [methods, n]
        weights = np.zeros((2, points.shape[1]))
        for _ in range(steps):
            pulls = factors / (1 + np.exp(weights @ points.T))
            weights += rate * pulls @ points / 200
        margins = weights[:, :2] @ SIGNALS.T / np.linalg.norm(weights, axis=1, keepdims=True)
        worst.append(ndtr(-margins).max(1))
    expected = [
        LAW.error(LAW.after(10.0, steps * rate, factors), SIGNALS[1])
        for factors in (np.ones(2), 0.5 / LAW.shares)
    ]
    gains = [one - other for one, other in worst]
    assert np.mean(gains) == pytest.approx(expected[0] - expected[1], rel=0.15)
    error = np.std(worst, 0, ddof=1) / len(worst) ** 0.5
    assert np.all(np.abs(np.mean(worst, 0) - expected) < 4.5 * error)
    limit = LAW.error(LAW.least_norm(10.0), SIGNALS[1])
    assert LAW.error(LAW.after(10.0, 1e200, np.ones(2)), SIGNALS[1]) == pytest.approx(
        limit, rel=1e-2
    )


@pytest.mark.parametrize("dim", few([30, 300], [300]))
def test_noise_in_the_directions_that_it_spans_has_the_products_of_noise(dim: int) -> None:
    world = methods._world(dim, 0.0, 0.0)
    keys = jax.random.split(jax.random.key(4), 200)
    rows = jax.jit(jax.vmap(lambda key: world(key).rows))(keys)
    noise = np.asarray(rows.inputs, float)[:, 0, :, 2:]
    assert np.all(noise[..., dim - 2 :] == 0)
    one, two = noise[:, 3], noise[:, 50]
    for values, mean, variance in (
        (np.sum(one**2, 1), dim - 2, 2 * (dim - 2)),
        (np.sum(two**2, 1), dim - 2, 2 * (dim - 2)),
        (np.sum(one * two, 1), 0, dim - 2),
    ):
        assert abs(values.mean() - mean) < 4.5 * (variance / 200) ** 0.5
        # The variance of a variance from 200 values; the kurtosis of a product is at most 6 + 3.
        assert abs(values.var() / variance - 1) < 4.5 * (2.5 / 200) ** 0.5
    own = np.asarray(rows.inputs, float)[:, 0, :80, :2] * np.asarray(rows.labels)[:, 0, :80, None]
    assert np.all(np.abs(own.mean((0, 1)) - SIGNALS[0]) < 4.5 / 16_000**0.5)


@pytest.mark.parametrize("dim", few([30, 300], [30]))
def test_fits_are_least_squares_and_margins_of_the_rows(dim: int) -> None:
    world = jax.jit(methods._world(dim, 0.0, 0.0))(jax.random.key(5))
    data = MomentData(None, None, world.rows)
    points = np.asarray(methods._signed(data), float)
    root = np.repeat([1.0, 2.0], (80, 20))
    expected = np.linalg.lstsq(root[:, None] * points, root)[0]
    found = methods._least_norm(data, world, dim=dim, factor=4.0).estimate
    np.testing.assert_allclose(found, expected, atol=2e-4)
    kept = np.concatenate([points[:20], points[80:]])
    for subset, majority in ((points, 80), (kept, 20)) if dim == 300 else ((kept, 20),):
        fit = jax.jit(functools.partial(methods._margin, majority=majority))(data, world)
        weights = fit.estimate
        np.testing.assert_allclose(weights, widest(subset), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RWG", "SUBG"])
def test_weighted_groups_are_balanced_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "STEPS", 20)
    monkeypatch.setattr(methods, "FRAMES", 2)
    key, subsampled = jax.random.key(6), float(name == "SUBG")
    found = methods.weighted(
        key, dim=200, balanced=1.0, subsampled=subsampled, single=0.0, robust=0.0
    )

    algorithm = training.sgd(
        world=methods._world(200, 0.0, subsampled),
        sampler=training.samplers.stratified(batch_size=2),
        measurement=measurements.examples(loss=losses.logistic, full=True),
        model=models.linear(dim=102),
        optimizer=optax.sgd(1 / 6),
    )
    plain = training.run(
        key, algorithm=algorithm, metrics=[metrics.worst_test_error], num_steps=20, record_every=10
    )
    np.testing.assert_allclose(
        found.metrics["worst_test_error"], plain.metrics["worst_test_error"], rtol=1e-4
    )
    rows = methods._world(200, 1.0, subsampled)(key).rows
    assert rows is not None
    assert np.asarray(rows.counts).tolist() == [20 if subsampled else 80, 20]

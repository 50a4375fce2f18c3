"""Batches that are gathered, noise of labels, and designs that are shared, by brute force."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import random
from causal_sgd.supervised import losses, measurements, models, worlds
from causal_sgd.types import Batch

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RNG = np.random.default_rng(5)
DESIGN = RNG.normal(size=(5, 2))
WEIGHTS = np.array([[1.0, 2.0], [1.0, -1.0]])
POINT = np.array([0.4, -0.3])
DRAWS = 20_000
SLOPES = ((DESIGN @ POINT) - WEIGHTS[1] @ DESIGN.T)[:, None] * DESIGN / 2  # of single examples


def drawn(count: int, shared: bool = True, noise: float | None = None, **options: Any) -> Any:
    """Gradients [DRAWS, 2] in environment 1 over keys."""
    if shared:
        factory = worlds.fixed_design(WEIGHTS, design=DESIGN)
    else:
        x = np.concatenate([DESIGN[:3], DESIGN])
        y = np.append(DESIGN[:3] @ WEIGHTS[0], DESIGN @ WEIGHTS[1])
        factory = worlds.from_arrays(x, y, np.array([0] * 3 + [1] * 5))
    model, params = models.linear(dim=2), {"weights": jnp.asarray(POINT, float)}
    batch = Batch(jnp.array([1], jnp.int32), jnp.array([count], jnp.int32))

    @jax.jit
    def gradients(keys: jax.Array, noise: Any) -> jax.Array:
        given = {} if noise is None else {"label_noise": noise}
        measurement = measurements.examples(**given, **options)
        world = factory(jax.random.key(0))
        data = measurement.init(jax.random.key(0), world)
        step = jnp.zeros((), jnp.int32)
        return jax.vmap(
            lambda key: measurement.gradient(key, step, data, model, params, world, batch)[0]
        )(keys)["weights"]

    return np.asarray(gradients(jax.random.split(jax.random.key(7), DRAWS), noise), float)


def judge(found: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """z-scores below 4.5 of the means and of the covariance."""
    z = (found.mean(0) - mean) / (found.std(0) / DRAWS**0.5)
    assert np.abs(z).max() < 4.5
    products = (found - mean)[:, :, None] * (found - mean)[:, None, :]
    z = (products.mean(0) - covariance) / (products.std(0) / DRAWS**0.5)
    assert np.abs(z).max() < 4.5


@pytest.mark.parametrize("most", [4, None])
@pytest.mark.parametrize(("shared", "replacement"), [(True, False), (False, False), (False, True)])
def test_batches_have_the_law_of_all_subsets(
    shared: bool, replacement: bool, most: int | None
) -> None:
    found = drawn(3, shared, most=most, replacement=replacement)
    pick = (
        itertools.product(range(5), repeat=3)
        if replacement
        else itertools.combinations(range(5), 3)
    )
    every = np.array([SLOPES[list(chosen)].mean(0) for chosen in pick])
    judge(found, every.mean(0), np.cov(every.T, bias=True))
    if not replacement:  # each is one of the ten, and all of them occur
        distances = np.abs(found[:, None] - every).max(2)
        assert distances.min(1).max() < 1e-5
        shares = np.bincount(distances.argmin(1), minlength=10) / DRAWS
        assert np.abs(shares - 0.1).max() < 4.5 * (0.09 / DRAWS) ** 0.5


def test_places_are_uniform_subsets() -> None:
    """Unrolled and in a loop; two of six, as many as there are, and none."""
    keys = jax.random.split(jax.random.key(1), DRAWS)
    for most in (3, 12):
        found = np.asarray(jax.vmap(lambda k, most=most: random.places(k, most, 2, 6))(keys))
        pairs = np.sort(found[:, :2], 1)
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert not found[:, 2:].any()
        counts = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36)
        present = counts[counts > 0] / DRAWS
        assert len(present) == 15
        assert np.abs(present - 1 / 15).max() < 4.5 * (14 / 225 / DRAWS) ** 0.5
    assert sorted(np.asarray(random.places(keys[0], 12, 12, 12)).tolist()) == list(range(12))
    assert not np.asarray(random.places(keys[0], 3, 0, 6)).any()


def test_batches_larger_than_gathered_give_nan() -> None:
    for count, most in ((4, 3), (6, 8)):
        assert np.isnan(drawn(count, most=most)).all()
    assert np.isfinite(drawn(6, most=8, replacement=True)).all()


@pytest.mark.parametrize(
    ("count", "options", "factor"),
    [
        (5, {"full": True}, 1.0),
        (5, {"full": True, "noisy": 1}, 1 / 5),
        (5, {"most": 5, "noisy": 2}, 2 / 5),
    ],
)
def test_label_noise_has_the_covariance_of_the_design(
    count: int, options: dict[str, Any], factor: float
) -> None:
    """Noise e_i on each label changes the gradient by sum_i e_i x_i / (2 m)."""
    found = drawn(count, noise=0.7, **options)
    covariance = factor * 0.7**2 * DESIGN.T @ DESIGN / (2 * 5) ** 2
    judge(found, SLOPES.mean(0), covariance)


def test_one_noisy_example_is_noisy_alone() -> None:
    found = (drawn(5, full=True, noise=0.7, noisy=1) - SLOPES.mean(0)) * 10
    along = np.abs(found[:, 0] * DESIGN[:, 1:] - found[:, 1] * DESIGN[:, :1])  # cross products
    owners = along.argmin(0)
    assert along.min(0).max() < 1e-4
    shares = np.bincount(owners, minlength=5) / DRAWS
    assert np.abs(shares - 0.2).max() < 4.5 * (0.16 / DRAWS) ** 0.5


def test_noise_is_in_losses_of_batches_but_not_in_those_of_all_data() -> None:
    world = worlds.fixed_design(WEIGHTS, design=DESIGN)(jax.random.key(0))
    noisy = measurements.examples(full=True, label_noise=1.0)
    model, params = models.linear(dim=2), {"weights": jnp.asarray(POINT, float)}
    data = noisy.init(jax.random.key(0), world)
    assert noisy.risks is not None
    on_batch = noisy.risks.batch
    assert on_batch is not None
    residuals = DESIGN @ POINT - WEIGHTS @ DESIGN.T
    np.testing.assert_allclose(
        noisy.risks.whole(data, model, world)(params), (residuals**2).mean(1) / 4, rtol=1e-5
    )
    batch = Batch(jnp.arange(2), jnp.array([5, 5]))

    def of_batch(key: jax.Array) -> jax.Array:
        return on_batch(key, jnp.array(0), data, model, world, batch)(params)

    found = jax.jit(jax.vmap(of_batch))(jax.random.split(jax.random.key(2), DRAWS))
    expected = ((residuals**2).mean(1) + 1) / 4
    z = (np.mean(found, 0) - expected) / (np.std(found, 0) / DRAWS**0.5)
    assert np.abs(z).max() < 4.5
    assert abs(np.corrcoef(np.asarray(found).T)[0, 1]) < 4.5 / DRAWS**0.5  # own noise


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"most": 0}, "most must be a whole number, at least 1"),
        ({"most": 3, "full": True}, "most must be None with full"),
        ({"most": 3, "fresh": 3}, "fresh must be None with most"),
        ({"label_noise": -1.0}, "label_noise must be a finite number at least 0"),
        ({"noisy": 1}, "noisy must be None without label_noise"),
        ({"noisy": 0, "label_noise": 1.0}, "noisy must be a whole number"),
        ({"label_noise": 1.0, "loss": losses.logistic}, "label_noise must be 0 under a loss of"),
        ({"label_noise": 1.0, "replacement": True}, "most must be given with replacement and"),
    ],
)
def test_bad_choices_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        measurements.examples(**options)

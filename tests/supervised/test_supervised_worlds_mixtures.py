"""Mixtures of groups: moments and shares of errors against drawn examples, padding, exact cases."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import worlds
from support.cases import few
from support.moment_scores import (
    MAX_Z,
    by_definition,
    drawn_moments,
    entries,
    judge,
    population_scores,
    scores,
)
from support.supervised import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIZE = 40_000


def signs(rng: np.random.Generator, flip: float, size: int = SIZE) -> np.ndarray:
    """1, or -1 with a probability."""
    return np.where(rng.random(size) < flip, -1.0, 1.0)


def cows(rng: np.random.Generator, e: int, test: bool) -> tuple[np.ndarray, np.ndarray]:
    """The source's sampling, with two inputs of either kind and a label -1 or 1."""
    agree, share = (0.95, 0.97)[e], (0.3, 0.5)[e]
    y = -signs(rng, share)
    b = y * signs(rng, 1 - agree)
    if test:
        b = rng.permutation(b)
    x = 0.01 * (y[:, None] + rng.standard_normal((SIZE, 2)) / 10**0.5)
    return np.hstack([x, b[:, None] + rng.standard_normal((SIZE, 2)) / 10**0.5]), y


CENTERS = np.array([[0.3, -1.0], [-0.5, 0.2]])


def margin(rng: np.random.Generator, e: int, test: bool) -> tuple[np.ndarray, np.ndarray]:
    y = signs(rng, 0.5)
    x = -0.1 * y[:, None] + 0.1 * rng.standard_normal((SIZE, 2))
    z = -y[:, None] * CENTERS[e] + 0.1 * rng.standard_normal((SIZE, 2))
    return np.hstack([x, rng.permutation(z) if test else z]), y


def zin(rng: np.random.Generator, e: int, test: bool) -> tuple[np.ndarray, np.ndarray]:
    y = signs(rng, 0.5)
    flips = (0.9, 0.4) if test else (0.05, 0.2)
    a, b = y * signs(rng, 0.1), y * signs(rng, flips[e])
    bits = np.stack([a, a, b], 1)
    return bits + 0.7 * rng.standard_normal((SIZE, 3)), y


def groups(rng: np.random.Generator, e: int, test: bool) -> tuple[np.ndarray, np.ndarray]:
    y = np.full(SIZE, (1.0, -1.0, 1.0, -1.0)[e])
    core, spurious = (y * (-1 + 0.15 * rng.standard_normal(SIZE)) for _ in range(2))
    spurious *= (1, 1, -1, -1)[e]
    noise = (0 if test else 2) * rng.standard_normal((SIZE, 2))
    return np.column_stack([core, 4 * spurious, noise]), y


def malign(rng: np.random.Generator, e: int, test: bool) -> tuple[np.ndarray, np.ndarray]:
    y = signs(rng, 0.5)
    theta = ((-1.0, 1.0) if test else (1.0, 0.2))[e]
    mean = np.array([1.0, 0.8 * theta, 0])
    return y[:, None] * mean + 1.5 * rng.standard_normal((SIZE, 3)), y


TWO: dict[str, Any] = {"dim_causal": 2, "dim_spurious": 2, "num_environments": 2}
KINDS: dict[str, tuple[Any, Any]] = {
    "cows": (worlds.unit_test_cows(**TWO), cows),
    "margin": (
        worlds.unit_test_margin(dim_causal=2, dim_spurious=2, spurious_means=CENTERS),
        margin,
    ),
    "zin": (
        worlds.zin_logit(
            dim_causal=2,
            dim_spurious=1,
            spurious_flips=(0.05, 0.2),
            test_flips=(0.9, 0.4),
            noise=0.7,
        ),
        zin,
    ),
    "balancing": (worlds.balancing(dim_noise=2, noise_scale=2.0, num_examples=None), groups),
    "malign": (
        worlds.malign_overfitting(dim=3, spurious_signal=0.8, shifts=(1.0, 0.2), noise=1.5),
        malign,
    ),
}


@pytest.mark.parametrize("name", few(KINDS, {"cows", "balancing"}))
def test_moments_and_errors_are_those_of_examples_by_the_definition(name: str) -> None:
    factory, sample = KINDS[name]
    rng = np.random.default_rng(7)
    world: Any = draw_world(factory)
    weights = rng.standard_normal((3, world.estimate_shape[0]))
    weights /= np.sqrt(np.diag(np.asarray(world.second_moments[0])))[None, : len(weights[0])]

    @jax.jit
    def law(world: Any) -> tuple[Any, ...]:
        def rates(w: jax.Array) -> tuple[jax.Array, jax.Array]:
            return world.error_rates(w, 0.3), world.test_error_rates(w, 0.3)

        both = jax.vmap(rates)(jnp.asarray(weights, float))
        return world.second_moments, world.test_moments, *both

    training, tests, errors, test_errors = jax.device_get(law(world))
    z = []
    for moments, rates, test in ((training, errors, False), (tests, test_errors, True)):
        for e in range(2):
            x, y = sample(rng, e, test)
            z.append(population_scores(moments[e], x, y).ravel())
            wrong = np.mean(np.sign(x @ weights.T + 0.3) != y[:, None], 0)
            spread = np.sqrt(np.maximum(rates[:, e] * (1 - rates[:, e]), 1 / SIZE) / SIZE)
            z.append((wrong - rates[:, e]) / spread)
    judge(np.concatenate(z))


@pytest.mark.parametrize("name", few(KINDS, {"zin"}))
def test_examples_and_sampled_moments_have_the_law_of_the_world(name: str) -> None:
    factory, sample = KINDS[name]
    world: Any = draw_world(factory)
    draw = jax.jit(lambda key: world.draw_examples(key, jnp.array(1), SIZE))
    x, y = map(np.asarray, draw(jax.random.key(2)))
    judge(population_scores(np.asarray(world.second_moments[1]), x, y).ravel())
    if name == "balancing":  # labels of a group are constant
        return
    count = 5
    x, y = sample(np.random.default_rng(3), 0, False)
    dim = x.shape[1]
    draws = SIZE // count
    other = by_definition(x.reshape(draws, count, dim), y.reshape(draws, count))
    judge(scores(entries(drawn_moments(world, 0, count, draws)), entries(other)))


PADDED = ["unit_test_cows", "unit_test_margin", "unit_test_regression"]


@pytest.mark.slow
@pytest.mark.parametrize("name", few(PADDED, {"unit_test_margin"}))
def test_padding_changes_nothing(name: str) -> None:
    """Unused inputs and environments of probability zero stand beside the same numbers."""
    factory = getattr(worlds, name)
    plain = draw_world(factory(dim_causal=2, dim_spurious=2, num_environments=2), 3)
    padded = draw_world(
        factory(
            dim_causal=2,
            dim_spurious=4,
            used_spurious=2,
            num_environments=4,
            probabilities=[0.5, 0.5, 0, 0],
        ),
        3,
    )
    kept = [0, 1, 2, 3, 6, 7]  # of (x, y, 1)
    for which in ("second_moments", "test_moments"):
        found, expected = (np.asarray(getattr(drawn, which)) for drawn in (padded, plain))
        np.testing.assert_allclose(found[:2][:, kept][:, :, kept], expected, rtol=1e-6, atol=1e-7)
        assert (found[:2, 4:6] == 0).all()
    np.testing.assert_allclose(padded.target, np.append(plain.target, [0, 0]), rtol=1e-6)
    if name != "unit_test_regression":
        weights = jnp.array([1.0, -0.5, 0.3, 0.2])
        wide = jnp.append(weights, jnp.array([3.0, -2.0]))
        for rates in ("error_rates", "test_error_rates"):
            one, other = (getattr(w, rates) for w in (padded, plain))
            np.testing.assert_allclose(one(wide, 0.1)[:2], other(weights, 0.1), rtol=1e-5)


def test_the_first_environments_are_those_of_the_source() -> None:
    world = draw_world(worlds.unit_test_cows(num_environments=6), 1)
    same = np.asarray(world.weights[:, 0] + world.weights[:, 2])  # background as the label
    share = np.asarray(world.weights[:, 0] + world.weights[:, 1])
    np.testing.assert_allclose(same[:3], [0.95, 0.97, 0.99], rtol=1e-6)
    np.testing.assert_allclose(share[:3], [0.3, 0.5, 0.7], rtol=1e-6)
    assert ((same[3:] > 0.9) & (same[3:] < 1)).all()
    assert ((share[3:] > 0.3) & (share[3:] < 0.7)).all()


@pytest.mark.slow
def test_the_target_under_logistic_loss_has_no_gradient() -> None:
    """Of the risk from the causal inputs alone, against 64 nodes by autodiff, and many examples."""
    world: Any = draw_world(
        worlds.zin_logit(dim_causal=3, dim_spurious=1, target="logistic", noise=0.8)
    )
    x, y = jax.jit(lambda key: world.draw_examples(key, jnp.array(0), 400_000))(jax.random.key(0))
    x, y = np.asarray(x, float), np.asarray(y, float)
    slopes = -y[:, None] * x[:, :3] / (1 + np.exp(y * (x @ np.asarray(world.target))))[:, None]
    error = slopes.std(0) / len(y) ** 0.5
    assert (np.abs(slopes.mean(0)) < MAX_Z * error).all()
    exact = draw_world(worlds.zin_logit(invariant_flip=0.0, target="logistic", noise=0.8))
    np.testing.assert_allclose(exact.target[:5], 2 / 0.8**2, rtol=1e-3)
    gaussian = draw_world(
        worlds.gaussian_environments(signal=0.7, noise=1.3, target="logistic", scramble=True)
    )
    original = gaussian.unscramble @ gaussian.target
    np.testing.assert_allclose(original, [2 * 0.7 / 1.3**2] * 3 + [0] * 3, atol=1e-5)


@pytest.mark.slow
def test_the_data_set_of_balancing_has_exact_groups() -> None:
    for balanced, sizes in ((False, [400, 400, 100, 100]), (True, [100] * 4)):
        world: Any = draw_world(worlds.balancing(dim_noise=1, balanced=balanced))
        np.testing.assert_array_equal(world.rows.counts, sizes)
        np.testing.assert_allclose(world.probabilities, np.array(sizes) / np.sum(sizes), rtol=1e-6)
        for e, size in enumerate(sizes):
            x, y = np.asarray(world.rows.inputs[e, :size]), np.asarray(world.rows.labels[e, :size])
            assert (y == (1, -1, 1, -1)[e]).all()
            assert (np.sign(x[:, 0]) == -y).all()
            assert (np.sign(x[:, 1]) == -y * (1 if e < 2 else -1)).all()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("unit_test_cows", {"backgrounds": [1.2]}, "backgrounds must be a finite number .* most 1"),
        (
            "unit_test_cows",
            {"backgrounds": [0.9], "foregrounds": [0.5, 0.5]},
            "foregrounds must have a number for each of the backgrounds",
        ),
        ("unit_test_cows", {"used_spurious": 6}, "used_spurious must be .* at most 5"),
        ("unit_test_margin", {"spurious_means": [1.0]}, r"spurious_means must have shape \[E, 5\]"),
        ("unit_test_margin", {"num_environments": 0}, "num_environments must be a whole number"),
        ("unit_test_margin", {"dim_spurious": -1}, "dim_spurious must be a whole number"),
        ("zin_logit", {"spurious_flips": []}, r"spurious_flips must have shape \[E\]"),
        ("zin_logit", {"target": "hinge"}, "target must be one of squared, logistic, got 'hinge'"),
        ("zin_logit", {"noise": 0.0}, "noise must be a finite number above 0"),
        ("balancing", {"minority": 1.0}, "minority must be a static number above 0 and below 1"),
        ("balancing", {"num_examples": 4}, "num_examples must leave an example to each"),
        ("balancing", {"deviation": -1.0}, "deviation must be a finite number above 0"),
        ("malign_overfitting", {"dim": 1}, "dim must be a whole number, at least 2, got 1"),
        ("malign_overfitting", {"shifts": 1.0}, r"shifts must have shape \[E\]"),
        ("gaussian_environments", {"target": None}, "target must be one of squared, logistic"),
    ],
)
def test_wrong_arguments_are_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        getattr(worlds, name)(**options)


def test_a_mixture_refuses_arrays_that_make_no_world() -> None:
    world: Any = draw_world(worlds.balancing(dim_noise=1, num_examples=None))
    world.check()
    for changes, words in (
        ({"root": jnp.ones(4)}, r"world.root must have shape \[3, 3\], or \[3\]"),
        ({"test_root": jnp.ones((3, 2))}, r"world.test_root must have shape \[3, 3\]"),
        ({"root": jnp.full(3, jnp.nan)}, "world.root must be a finite number"),
        ({"weights": jnp.ones((4, 4))}, "world.weights must be shares that sum to one"),
        ({"test_labels": jnp.ones(3)}, r"world.test_weights must have shape \[4, 3\]"),
    ):
        with pytest.raises(ValueError, match=words):
            world._replace(**changes).check()

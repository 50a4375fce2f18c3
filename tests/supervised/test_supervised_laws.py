"""Exact laws of a fresh batch against examples that are really drawn, by moments of order 1 to 4.

All seeds are fixed. Single z-scores are below 4.5, and their root mean square is near 1; moments of
one sample are correlated.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.supervised import measurements, models, worlds
from causal_sgd.supervised.worlds import LinearWorld
from causal_sgd.training.algorithms._examples import Examples
from causal_sgd.types import Batch, Measurement
from support.cases import few
from support.moment_scores import MAX_Z, scores

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DIM, NOISES = 4, 6
COUNTS = (7, 4)
FEW, MANY = 20_000, 200_000  # draws by default, and in slow tests


@functools.cache
def nature() -> LinearWorld:
    """Two environments of four inputs with six noises, so that one is hidden, and with means."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, DIM + 1, NOISES)) / np.sqrt(NOISES)
    means = rng.normal(size=(2, DIM + 1)) / 2
    return LinearWorld(
        mixing=jnp.asarray(mixing, float),
        means=jnp.asarray(means, float),
        target=jnp.ones(DIM),
        causal=jnp.ones(DIM, bool),
        unscramble=jnp.eye(DIM),
        test_mixing=jnp.zeros((0, DIM + 1, NOISES)),
        test_means=jnp.zeros((0, DIM + 1)),
        probabilities=jnp.full(2, 0.5),
    )


def flat(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def of_gradient(examples: Examples, params: Any) -> jax.Array:
    """The gradient of a batch and its loss, as the measurement returns them."""
    return flat(examples.measure(params))


def of_scales(examples: Examples, params: Any) -> jax.Array:
    """Losses, their derivatives in a scale and in a shift, and the gradients of all of them."""
    risks: Any = examples.shifted_risks()
    zero, one = jnp.zeros(()), jnp.ones(())

    def three(params: Any) -> Any:
        by_scale = jax.jvp(lambda c: risks(params, c, zero), (one,), (one,))[1]
        by_shift = jax.jvp(lambda c: risks(params, one, c), (zero,), (one,))[1]
        return risks(params), by_scale, by_shift

    return flat((three(params), jax.jacrev(three)(params)))


def of_products(examples: Examples, params: Any) -> jax.Array:
    """What the penalty of IGA needs; the direction depends on the gradients of both."""

    def choose(losses: jax.Array, gradients: Any) -> Any:
        del losses
        return jax.tree.map(lambda g: g - jnp.mean(g, 0, keepdims=True), gradients)

    return flat(examples.hessian_products(params, choose))


KINDS: dict[str, Any] = {
    "gradient": of_gradient,
    "scales": of_scales,
    "products": of_products,
}
MODELS: dict[str, Any] = {
    "intercept": (
        models.linear(dim=DIM, intercept=True),
        {"weights": jnp.array([0.5, -1.0, 0.3, 0.8]), "intercept": jnp.array(0.4)},
    ),
    "start": (
        models.linear(dim=DIM, intercept=True),
        {"weights": jnp.zeros(DIM), "intercept": jnp.zeros(())},
    ),
}


def hadamard() -> tuple[Any, Any]:
    """Weights u * u, of which the losses have second derivatives of their own."""
    model = models.hadamard(dim=DIM)
    params = model.init(jax.random.key(0))
    return model, jax.tree.map(
        lambda leaf: jnp.linspace(0.5, 1.2, leaf.size).reshape(leaf.shape), params
    )


def drawn(
    measurement: Measurement,
    kind: str,
    model: str,
    *,
    counts: tuple[int, ...] = COUNTS,
    world: Any = None,
    seed: int = 0,
    draws: int = FEW,
) -> np.ndarray:
    """Statistics [draws, f] of independent batches."""
    world = nature() if world is None else world
    part, params = hadamard() if model == "hadamard" else MODELS[model]
    environments = jnp.arange(len(counts), dtype=jnp.int32)

    def one(key: jax.Array) -> jax.Array:
        batch = Batch(environments, jnp.array(counts, jnp.int32))
        examples = Examples(measurement, key, jnp.asarray(0), data, part, world, batch)
        return KINDS[kind](examples, params)

    data = measurement.init(jax.random.key(1), world)
    keys = jax.random.split(jax.random.key(seed), draws)
    return np.asarray(jax.jit(jax.vmap(one))(keys), np.float64)


LAWS = {
    "batch_moments": measurements.batch_moments,
    "batch_directions": measurements.batch_directions,
}


@functools.cache
def oracle(kind: str, model: str, counts: tuple[int, ...], draws: int) -> np.ndarray:
    return drawn(
        measurements.examples(fresh=max(counts)), kind, model, counts=counts, seed=1, draws=draws
    )


@functools.cache
def z_of(law: str, kind: str, model: str, counts: tuple[int, ...], draws: int) -> np.ndarray:
    sample = drawn(LAWS[law](), kind, model, counts=counts, draws=draws)
    return scores(sample, oracle(kind, model, counts, draws))


CASES = [
    ("batch_moments", "gradient", "intercept", COUNTS),
    ("batch_directions", "gradient", "intercept", COUNTS),
    ("batch_directions", "scales", "intercept", (7,)),
    ("batch_directions", "products", "intercept", COUNTS),
    ("batch_moments", "scales", "intercept", (7,)),
    ("batch_moments", "products", "intercept", COUNTS),
    ("batch_directions", "products", "hadamard", COUNTS),
    ("batch_directions", "scales", "hadamard", (7,)),
    ("batch_directions", "scales", "start", (7,)),  # the prediction is no direction there
    *[
        (law, kind, "intercept", (count,))
        for law in LAWS
        for kind in ("scales", "products")
        for count in (1, 3)  # fewer examples than noises
    ],
]


def judge(z: np.ndarray) -> None:
    rms = np.sqrt(np.mean(z**2))
    print(f"rms z {rms:.2f}, max |z| {np.abs(z).max():.2f} of {z.size}")
    assert np.abs(z).max() < MAX_Z
    assert 0.3 < rms < 1.8


@pytest.mark.parametrize(("law", "kind", "model", "counts"), CASES[:2])
def test_a_law_is_that_of_a_few_drawn_examples(
    law: str, kind: str, model: str, counts: tuple[int, ...]
) -> None:
    judge(z_of(law, kind, model, counts, FEW))


@pytest.mark.parametrize(("law", "kind", "model", "counts"), few(CASES, (), CASES[3:7]))
def test_a_law_is_that_of_many_drawn_examples(
    law: str, kind: str, model: str, counts: tuple[int, ...]
) -> None:
    judge(z_of(law, kind, model, counts, MANY))


@pytest.mark.slow
@pytest.mark.long
def test_all_scores_together_have_the_size_of_chance() -> None:
    z = np.concatenate([z_of(*case, MANY) for case in CASES[:9]])
    print(f"rms z {np.sqrt(np.mean(z**2)):.3f}, max |z| {np.abs(z).max():.2f} of {z.size}")
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_a_gradient_belongs_to_the_losses_of_the_same_key(law: str) -> None:
    """Whatever else is drawn beside it."""
    gradient, scales, products = (drawn(LAWS[law](), kind, "intercept", draws=10) for kind in KINDS)
    np.testing.assert_allclose(scales[:, :2], products[:, :2], rtol=1e-5)
    shares = np.array(COUNTS) / sum(COUNTS)
    np.testing.assert_allclose(gradient[:, -1], scales[:, :2] @ shares, rtol=1e-5)


def prediction_moments(environment: int) -> tuple[float, float]:
    """E r f and Var(r f) at the parameters `intercept`, by Isserlis' theorem."""
    world, params = nature(), MODELS["intercept"][1]
    weights = np.asarray(params["weights"], np.float64)
    mixing = np.asarray(world.mixing[environment], np.float64)
    means = np.asarray(world.means[environment], np.float64)
    vectors = np.stack([np.append(weights, -1), np.append(weights, 0)])  # of r and of f
    m_r, m_f = vectors @ means + float(params["intercept"])
    (c_rr, c_rf), (_, c_ff) = vectors @ mixing @ mixing.T @ vectors.T
    variance = c_rr * c_ff + c_rf**2 + m_r**2 * c_ff + m_f**2 * c_rr + 2 * m_r * m_f * c_rf
    return c_rf + m_r * m_f, variance


@pytest.mark.parametrize(
    ("law", "count"),
    few([(law, count) for law in LAWS for count in (7, 10**5)], {("batch_directions", 7)}),
)
def test_the_penalty_of_a_batch_is_biased_and_that_of_two_halves_is_not(
    law: str, count: int
) -> None:
    """E D^2 = (E D)^2 + 4 Var(r f) / m with D = 2 mean r f."""
    world, (model, params), measurement = nature(), MODELS["intercept"], LAWS[law]()
    data, one = measurement.init(jax.random.key(0), world), jnp.ones(())

    @jax.jit
    @jax.vmap
    def penalties(key: jax.Array) -> Any:
        batch = Batch(jnp.array([1]), jnp.array([count]))
        examples = Examples(measurement, key, jnp.asarray(0), data, model, world, batch)
        slopes = [
            4 * jax.jvp(lambda scale, r=risks: r(params, scale), (one,), (one,))[1][0]
            for risks in (examples.risks(), *examples.halves())
        ]
        return slopes[0] ** 2, slopes[1] * slopes[2]

    plain, unbiased = (
        np.asarray(value, np.float64)
        for value in penalties(jax.random.split(jax.random.key(3), FEW))
    )
    mean, variance = prediction_moments(1)
    for values, expected in (
        (plain, 4 * mean**2 + 4 * variance / count),
        (unbiased, 4 * mean**2),
    ):
        z = (values.mean() - expected) / (values.std() / np.sqrt(len(values)))
        assert abs(z) < MAX_Z
    if count == 7:  # the bias is many standard errors large
        assert 4 * variance / count > 20 * plain.std() / np.sqrt(len(plain))


@pytest.mark.slow
def test_counts_of_discrete_worlds_have_the_law_of_drawn_examples() -> None:
    """Multinomial counts of the atoms."""
    world = worlds.two_bit(invariant_flip=0.2, spurious_flips=(0.3, 0.1))(jax.random.key(0))
    model, params = models.linear(dim=2), {"weights": jnp.array([0.5, 0.25])}
    samples = []
    for seed, measurement in enumerate(
        (measurements.batch_moments(), measurements.examples(fresh=7))
    ):
        data = measurement.init(jax.random.key(1), world)

        def one(key: jax.Array, measurement: Any = measurement, data: Any = data) -> jax.Array:
            batch = Batch(jnp.arange(2), jnp.array(COUNTS))
            examples = Examples(measurement, key, jnp.asarray(0), data, model, world, batch)
            return of_scales(examples, params)

        keys = jax.random.split(jax.random.key(seed), FEW)
        samples.append(np.asarray(jax.jit(jax.vmap(one))(keys), np.float64))
    z = scores(*samples)
    assert np.abs(z).max() < MAX_Z
    assert 0.3 < np.sqrt(np.mean(z**2)) < 1.8

"""Do prompts of in-context regression follow their definition?

The oracle draws every example of every context in plain NumPy, in double precision. Products of so
many normal numbers have heavy tails, so whole distributions are compared (Kolmogorov-Smirnov, whose
p-values are below 1e-4 by chance in 1e-4 of the cases) and means only of many draws. Seeds are
fixed.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from causal_sgd.sensing import World, measurements, models
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.types import Batch, Measurement
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DIM, DRAWS, MAX_Z = 3, 20_000, 4.5
NOISE = 2.0  # of the order of the labels, or 5 % of it would hide in their variance
STEP = jnp.zeros((), jnp.int32)
KEY = jax.random.key(0)
COUNTS = np.array([5, 7])
QUERY_KEY = MatrixModel(
    init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params, symmetric=False
)


@functools.cache
def world() -> World:
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    cores = np.array([[[1.5]], [[-0.7]]])
    parts = frame[:, :2], np.array([1.0, 0.6]), frame[:, 2:], cores, np.full(2, 0.5)
    with jax.ensure_compile_time_eval():
        return World(*(jnp.asarray(part, jnp.float32) for part in parts))


def positive(rng: np.random.Generator) -> np.ndarray:
    root = rng.normal(size=(DIM, DIM + 2))
    return root @ root.T / (DIM + 2) + 0.3 * np.eye(DIM)


RNG = np.random.default_rng(0)
EACH = np.stack([positive(RNG), positive(RNG)])
TASKS = positive(RNG)
QUERY = RNG.normal(size=(DIM, DIM))
SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (4, {}),
    "one example, variances, noise": (
        1,
        {"covariance": np.array([2.0, 1.0, 0.5]), "task_covariance": 0.7, "noise": NOISE},
    ),
    "covariances of environments": (3, {"covariance": EACH, "task_covariance": TASKS}),
    "covariances of tasks": (
        6,
        {"covariance": TASKS, "task_covariance": EACH, "noise": NOISE},
    ),
}


def matrices(value: Any) -> np.ndarray:
    """A covariance of each environment, [2, d, d]."""
    value = np.asarray(value, float)
    if value.ndim < 2:
        value = np.diag(np.broadcast_to(value, DIM))
    return np.broadcast_to(value, (2, DIM, DIM))


def covariances(options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return matrices(options.get("covariance", 1)), matrices(options.get("task_covariance", 1))


def relations() -> np.ndarray:
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), world())
    shared = w.invariant_basis * w.invariant_spectrum @ w.invariant_basis.T
    return shared + w.spurious_basis @ w.spurious_cores @ w.spurious_basis.T


def prompts(place: int, length: int, options: dict[str, Any], size: int) -> tuple[np.ndarray, ...]:
    """Gradients r h x' [n, d, d] and losses r^2 / 4 of one environment, example by example."""
    rng = np.random.default_rng([place, length])
    inputs, tasks = (np.linalg.cholesky(part[place]) for part in covariances(options))
    noise = options.get("noise", 0)
    task = rng.normal(size=(size, DIM)) @ tasks.T
    context = rng.normal(size=(size, length, DIM)) @ inputs.T
    labels = np.einsum("nij,nj->ni", context, task) + noise * rng.normal(size=(size, length))
    summary = np.einsum("nij,ni->nj", context, labels) / length
    query = rng.normal(size=(size, DIM)) @ inputs.T
    target = np.einsum("ni,ij,nj->n", task, relations()[place], query)
    residual = np.einsum("ni,ij,nj->n", summary, QUERY, query) - target
    residual -= noise * rng.normal(size=size)
    return residual[:, None, None] * summary[:, :, None] * query[:, None, :], residual**2 / 4


def measured(
    measurement: Measurement, keys: jax.Array, batch: Batch, model: MatrixModel = QUERY_KEY
) -> tuple[np.ndarray, np.ndarray]:
    """Twice the gradients and the losses, one for each key."""

    @jax.jit
    def every(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(KEY, world())
        params = jnp.asarray(QUERY, jnp.float32)
        if model.symmetric:
            params = (params + params.T) / 2
        return jax.vmap(
            lambda key: measurement.gradient(key, STEP, data, model, params, world(), batch)
        )(keys)

    gradients, losses = map(np.asarray, every(keys))
    return 2 * gradients.astype(float), losses.astype(float)


@pytest.mark.parametrize("kind", few(SETTINGS, {"one example, variances, noise"}))
def test_a_prompt_has_the_distribution_of_one_that_is_drawn_example_by_example(kind: str) -> None:
    length, options = SETTINGS[kind]
    measurement = measurements.in_context(length, slab_size=1, **options)
    for place in range(2):
        batch = Batch(jnp.array([place]), jnp.ones(1, jnp.int32))
        keys = jax.random.split(jax.random.key(place), DRAWS)
        found = measured(measurement, keys, batch)
        drawn = prompts(place, length, options, DRAWS)
        for ours, theirs in zip(found, drawn, strict=True):
            pairs = zip(ours.reshape(DRAWS, -1).T, theirs.reshape(DRAWS, -1).T, strict=True)
            for one, other in pairs:
                assert np.asarray(stats.ks_2samp(one, other))[1] > 1e-4


@pytest.mark.parametrize("kind", few(SETTINGS, {"covariances of tasks"}))
def test_the_population_is_the_closed_form_and_the_mean_of_the_draws(kind: str) -> None:
    length, options = SETTINGS[kind]
    shares, noise = COUNTS / COUNTS.sum(), options.get("noise", 0)
    mean, loss = np.zeros((DIM, DIM)), 0.0
    for share, s, w, b in zip(shares, *covariances(options), relations(), strict=True):
        second = (1 + 1 / length) * s @ w @ s + (np.trace(s @ w) + noise**2) / length * s
        mean += share * (second @ QUERY @ s - s @ w @ b @ s)
        square = np.trace(QUERY.T @ second @ QUERY @ s) - 2 * np.trace(QUERY.T @ s @ w @ b @ s)
        loss += share * (square + np.trace(b.T @ w @ b @ s) + noise**2) / 4
    batch = Batch(jnp.arange(2), jnp.asarray(COUNTS))
    exact = measurements.in_context_population(length, **options)
    found, risk = measured(exact, jax.random.split(KEY, 1), batch)
    np.testing.assert_allclose(found[0], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(risk[0], loss, rtol=1e-5)
    drawn = measured(
        measurements.in_context(length, slab_size=4, **options),
        jax.random.split(jax.random.key(1), DRAWS),
        batch,
    )
    for values, centre in zip(drawn, (mean, loss), strict=True):
        scores = (values.mean(0) - centre) / (values.std(0) / np.sqrt(DRAWS))
        assert np.abs(scores).max() < MAX_Z


@pytest.mark.slow
def test_symmetric_models_get_the_derivative_of_their_loss() -> None:
    """They see the symmetric part of X alone, whose pull-back is that of all of X."""
    factored = models.factored(dim=DIM, rank=2, init_scale=0.5)
    plain = dataclasses.replace(factored, symmetric=False, pullback=None)
    measurement = measurements.in_context(3, covariance=EACH)
    batch = Batch(jnp.arange(2), jnp.asarray(COUNTS))

    @jax.jit
    def both(key: jax.Array) -> list[Any]:
        params, data = factored.init(key), measurement.init(key, world())
        return [
            measurement.gradient(key, STEP, data, model, params, world(), batch)
            for model in (factored, plain)
        ]

    ours, theirs = both(jax.random.key(2))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5)


@pytest.mark.parametrize("name", few(["in_context", "in_context_population"], {}))
def test_the_risks_are_the_losses_of_single_environments(name: str) -> None:
    options = {"covariance": EACH, "task_covariance": TASKS, "noise": NOISE}
    measurement = getattr(measurements, name)(3, **options)
    model = models.asymmetric(dim=DIM, rank=2, init_scale=0.5)
    params = model.init(jax.random.key(4))
    data = measurement.init(KEY, world())
    exact = measurements.in_context_population(3, **options)
    # The predictions are linear in the left factor.
    scaled = params._replace(left=1.3 * params.left)

    @jax.jit
    def single(place: jax.Array) -> list[Any]:
        assert measurement.risks is not None
        assert measurement.risks.single is not None
        risk = measurement.risks.single(data, model, world(), place)
        batch = Batch(place[None], jnp.array([9]))
        arguments = STEP, data, model, params, world(), batch
        own = jax.value_and_grad(lambda params: risk(params)[0])(params)
        return [*own, risk(params, 1.3), risk(scaled), *exact.gradient(KEY, *arguments)]

    assert measurement.risks is not None
    losses = jax.jit(measurement.risks.whole(data, model, world()))(params)
    for place in range(2):
        loss, slope, scaled_risk, risk_of_scaled, gradient, value = single(jnp.asarray(place))
        np.testing.assert_allclose([loss, value], losses[place], rtol=1e-5)
        np.testing.assert_allclose(scaled_risk, risk_of_scaled, rtol=1e-5)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), slope, gradient
        )


@pytest.mark.slow
def test_the_context_length_may_be_traced() -> None:
    batch = Batch(jnp.arange(2), jnp.array([3, 4]))

    @jax.jit
    def losses(lengths: jax.Array) -> jax.Array:
        def one(length: jax.Array) -> jax.Array:
            measurement = measurements.in_context(length)
            data = measurement.init(KEY, world())
            params = jnp.asarray(QUERY, jnp.float32)
            arguments = STEP, data, QUERY_KEY, params, world(), batch
            return measurement.gradient(jax.random.key(1), *arguments)[1]

        return jax.vmap(one)(lengths)

    keys = jax.random.key(1)[None]
    alone = [measured(measurements.in_context(n), keys, batch)[1][0] for n in (3, 50)]
    np.testing.assert_allclose(losses(jnp.array([3, 50])), alone, rtol=1e-5)


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (0, {}, "context_length must be a finite number at least 1"),
    (2.5, {}, "context_length must be a whole number, got 2.5"),
    (3, {"noise": -1.0}, "noise must be a finite number at least 0"),
    (3, {"covariance": 0.0}, "covariance must be a finite number above 0, got 0.0"),
    (3, {"task_covariance": np.array([1.0, -1.0, 1.0])}, "task_covariance must be a finite"),
    (3, {"covariance": np.ones((2, 3))}, "covariance must be a number or have shape"),
    (3, {"covariance": np.ones((3, 3))}, "covariance must be positive definite"),
    (3, {"covariance": np.triu(np.ones((3, 3)))}, "covariance must be symmetric"),
]


@pytest.mark.parametrize(("length", "options", "message"), BAD)
@pytest.mark.parametrize("name", ["in_context", "in_context_population"])
def test_bad_arguments_are_refused(
    name: str, length: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        getattr(measurements, name)(length, **options)


def test_what_does_not_fit_the_world_or_the_model_is_refused() -> None:
    for shape in ((4,), (4, 4), (3, DIM, DIM)):
        matrix = np.ones(shape) if len(shape) == 1 else np.broadcast_to(np.eye(shape[-1]), shape)
        measurement = measurements.in_context(3, covariance=matrix)
        with pytest.raises(ValueError, match=r"^covariance must be a number or have shape \[3\]"):
            measurement.init(KEY, world())
    with pytest.raises(ValueError, match="^slab_size must be a whole number"):
        measurements.in_context(3, slab_size=0)
    relu = models.relu(dim=DIM)
    batch = Batch(jnp.arange(2), jnp.array([3, 4]))
    for measurement in (measurements.in_context(3), measurements.in_context_population(3)):

        def gradient(key: jax.Array, one: Measurement = measurement) -> Any:
            data, params = one.init(key, world()), relu.init(key)
            return one.gradient(key, STEP, data, relu, params, world(), batch)

        with pytest.raises(ValueError, match="^model must predict by its estimate"):
            jax.eval_shape(gradient, KEY)

"""Do rank-one, entry-wise, labelled and asymmetric measurements follow their definitions?

The oracle is the definition: the mean of G = (1/m) sum_i r_i X_i and its covariance in closed form,
from the moments of quadratic forms (Isserlis). The parameters are the estimate itself, so that the
gradient is G / 2. Every z-score is standard normal for correct code, apart from the heavy tails of
products; a case has fewer than 200 of them, so `max |z| < 5` fails by chance in 1e-4 of all cases
and `rms z < 1.7` in about 2e-4. Seeds are fixed.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.sensing import World, measurements, models, worlds
from causal_sgd.sensing.measurements.designs import coherence
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.types import Batch, Measurement
from support.arrays import symmetric
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")
DIM, DRAWS, NOISE = 4, 20_000, 0.7
ENTRY_NOISE = 3.0  # of the order of the labels d S_ij, or 5 % of it would hide in their variance
MAX_Z, RMS_Z = 5.0, 1.7
READ_OUT = MatrixModel(init=lambda key: jnp.zeros((DIM, DIM)), estimate=lambda params: params)
INTEGER_AXES = dataclasses.replace(READ_OUT, symmetric=False)
STEP = jnp.zeros((), jnp.int32)
COUNTS = {"pure": [40, 0, 0], "mixed": [23, 0, 17]}


@functools.cache
def world() -> World:
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    cores = symmetric(rng, 3, 2, 2) + 0.5 * np.eye(2)
    parts = frame[:, :2], np.array([1.0, 0.6]), frame[:, 2:], cores, np.full(3, 1 / 3)
    with jax.ensure_compile_time_eval():
        return World(*(jnp.asarray(part, jnp.float32) for part in parts))


@functools.cache
def estimate(whole: bool = False) -> np.ndarray:
    rng = np.random.default_rng(4)
    return (rng.normal(size=(DIM, DIM)) if whole else symmetric(rng, DIM, DIM)).astype(np.float32)


def residuals(whole: bool = False) -> np.ndarray:
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), world())
    shared = w.invariant_basis * w.invariant_spectrum @ w.invariant_basis.T
    return estimate(whole) - shared - w.spurious_basis @ w.spurious_cores @ w.spurious_basis.T


MEASUREMENTS = {
    "rank one": lambda: measurements.rank_one(noise=NOISE, slab_size=16),
    "rank one, trace left in": lambda: measurements.rank_one(
        noise=NOISE, slab_size=16, trace_correction=False
    ),
    "completion": lambda: measurements.completion(noise=ENTRY_NOISE, slab_size=16),
    "law, not symmetric": lambda: measurements.gaussian_law(noise=NOISE),
    "streamed, not symmetric": lambda: measurements.streamed(noise=NOISE, slab_size=16),
    "completion, not symmetric": lambda: measurements.completion(noise=ENTRY_NOISE, slab_size=16),
}


@functools.partial(jax.jit, static_argnames=("kind", "pure"))
def gradients(
    keys: jax.Array, counts: jax.Array, *, kind: str, pure: bool
) -> tuple[jax.Array, jax.Array]:
    """G [n, d, d] and the loss [n]. `pure` hands over the one environment alone, as `sgd` does."""
    measurement, model = (
        MEASUREMENTS[kind](),
        INTEGER_AXES if kind.endswith("not symmetric") else READ_OUT,
    )
    batch = Batch(jnp.arange(1), counts[:1]) if pure else Batch(jnp.arange(3), counts)
    data = measurement.init(jax.random.key(0), world())
    params = jnp.asarray(estimate(not model.symmetric))

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradient, loss = measurement.gradient(key, STEP, data, model, params, world(), batch)
        return 2 * gradient, loss

    return jax.vmap(one)(keys)


def second_moments(
    kind: str, r: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """E[r <X, M_a>] [k], E[r^2 <X, M_a> <X, M_b>] [k, k] and E[r^2] for matrices M_a [k, d, d].

    Here r = <X, R> - noise.
    """
    along = np.einsum("ij,aij->a", r, basis)
    gram = np.einsum("aij,bij->ab", basis, basis)
    square = (r**2).sum()
    if kind.startswith(("law", "streamed")):
        moments = square * gram + 2 * np.outer(along, along)
        return along, moments + NOISE**2 * gram, square + NOISE**2
    if kind.startswith("completion"):
        moments = DIM**2 * np.einsum("ij,aij,bij->ab", r**2, basis, basis)
        return along, moments + ENTRY_NOISE**2 * gram, square + ENTRY_NOISE**2
    # moments of q_A = x'Ax - tr A: E q_A q_B = 2 tr AB, E q_A q_B q_C = 8 tr ABC, and the fourth
    # cumulant
    fourth = 8 * (
        4 * np.einsum("ij,jk,akl,bli->ab", r, r, basis, basis)
        + 2 * np.einsum("ij,ajk,kl,bli->ab", r, basis, r, basis)
    )
    centred = 4 * square * gram + 8 * np.outer(along, along) + (fourth + fourth.T) / 2
    if not kind.endswith("left in"):
        return along, centred / 4 + NOISE**2 * gram, square + NOISE**2
    t, traces = np.trace(r), np.trace(basis, axis1=1, axis2=2)
    with_one = (
        8 * np.einsum("ij,jk,aki->a", r, r, basis) + 4 * t * along
    )  # E[(x'Rx)^2 q_a] with t q_R counted twice
    three = 8 * np.einsum("ij,ajk,bki->ab", r, basis, basis)
    moments = centred + t * (three + three.T) + t**2 * 2 * gram
    moments = moments + np.outer(with_one, traces) + np.outer(traces, with_one)
    moments = moments + np.outer(traces, traces) * (2 * square + t**2)
    plain = gram + np.outer(traces, traces) / 2
    return along + t * traces / 2, moments / 4 + NOISE**2 * plain, square + t**2 / 2 + NOISE**2


@pytest.mark.parametrize("counts", few(COUNTS, set(COUNTS) - {"pure"}))
@pytest.mark.parametrize("kind", MEASUREMENTS)
def test_the_batch_gradient_has_the_mean_and_covariance_of_its_definition(
    kind: str, counts: str
) -> None:
    pure = counts == "pure" and kind.startswith(
        "law"
    )  # which has a program of its own for pure batches
    share, whole = np.array(COUNTS[counts]), kind.endswith("not symmetric")
    found, losses = gradients(
        jax.random.split(jax.random.key(1), DRAWS), jnp.asarray(share), kind=kind, pure=pure
    )
    rows, columns = np.indices((DIM, DIM)).reshape(2, -1) if whole else np.triu_indices(DIM)
    basis = np.zeros((len(rows), DIM, DIM))
    basis[np.arange(len(rows)), rows, columns] += 0.5
    basis[
        (np.arange(len(rows)), rows, columns) if whole else (np.arange(len(rows)), columns, rows)
    ] += 0.5
    size = share.sum()
    mean, covariance, loss = np.zeros(len(rows)), np.zeros((len(rows),) * 2), 0.0
    for number, residual in zip(share, residuals(whole), strict=True):
        first, second, squared = second_moments(kind, residual, basis)
        mean += number / size * first
        covariance += number / size**2 * (second - np.outer(first, first))
        loss += number / size * squared / 4
    values = np.einsum("nij,aij->na", np.asarray(found, np.float64), basis)
    scores = [(values.mean(0) - mean) / np.sqrt(np.diag(covariance) / DRAWS)]
    products = np.einsum("na,nb->nab", values - mean, values - mean)
    scores.append(
        ((products.mean(0) - covariance) / (products.std(0) / np.sqrt(DRAWS)))[
            np.triu_indices(len(rows))
        ]
    )
    scores.append([(losses.mean() - loss) / (losses.std() / np.sqrt(DRAWS))])
    z = np.concatenate(scores)
    assert np.abs(z).max() < MAX_Z
    assert np.sqrt((z**2).mean()) < RMS_Z


@pytest.mark.parametrize("trace_correction", [True, False])
def test_examples_of_a_matrix_model_are_rank_one_measurements(trace_correction: bool) -> None:
    batch = Batch(jnp.arange(3), jnp.array([5, 0, 4]))
    params = jnp.asarray(np.random.default_rng(0).normal(size=(6, DIM)), jnp.float32)
    model = models.quadratic(dim=DIM, neurons=6, negative=2)

    def gradient(measurement: Measurement) -> tuple[jax.Array, jax.Array]:
        data = measurement.init(jax.random.key(0), world())
        return measurement.gradient(jax.random.key(2), STEP, data, model, params, world(), batch)

    options = {"noise": NOISE, "trace_correction": trace_correction, "slab_size": 4}
    both = measurements.rank_one(**options), measurements.examples(**options)
    one, other = jax.jit(lambda: tuple(map(gradient, both)))()
    np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5)


def test_a_small_relu_network_first_sees_the_quadratic_form_along_its_neurons() -> None:
    """The gradient -4 dL/da_j = |w_j| v'Sv / sqrt(2 pi), with v = w_j / |w_j|, and

    -4 dL/dw_j = a_j (2 S v - (v'Sv) v) / sqrt(2 pi).
    """
    model = models.relu(dim=DIM, neurons=4, init_scale=1e-3)
    params = model.init(jax.random.key(3))
    measurement = measurements.examples(slab_size=40)
    batch = Batch(jnp.arange(1), jnp.array([40]))

    @jax.jit
    def gradients(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = jax.vmap(
            lambda key: measurement.gradient(key, STEP, (), model, params, world(), batch)[0]
        )(keys)
        return found.outputs, found.weights

    outputs, weights = map(np.asarray, gradients(jax.random.split(jax.random.key(4), 10_000)))
    signal = estimate() - residuals()[0]
    lengths = np.linalg.norm(params.weights, axis=1)
    units = np.asarray(params.weights) / lengths[:, None]
    forms = np.einsum("ji,ik,jk->j", units, signal, units)
    tangents = 2 * units @ signal - forms[:, None] * units
    expected = lengths * forms, np.asarray(params.outputs)[:, None] * tangents
    for found, value in zip((outputs, weights), expected, strict=True):
        error = found.mean(0) + value / (4 * np.sqrt(2 * np.pi))
        z = error / (found.std(0) / 100)
        assert np.abs(z).max() < 4


def test_models_that_measurements_cannot_serve_are_refused() -> None:
    batch = Batch(jnp.arange(1), jnp.array([4]))
    for measurement, model, message in (
        (measurements.gaussian_law(), models.relu(dim=DIM), "measurements.examples trains it"),
        (measurements.population(), models.relu(dim=DIM), "measurements.examples trains it"),
        (
            measurements.fixed_design(num_examples=5),
            models.asymmetric(dim=DIM),
            "pass symmetric=False",
        ),
        (measurements.low_rank_law(), models.deep(dim=DIM), "model must have a factor"),
    ):

        def refused(
            key: jax.Array, measurement: Measurement = measurement, model: MatrixModel = model
        ) -> Any:
            data = measurement.init(key, world())
            return measurement.gradient(key, STEP, data, model, model.init(key), world(), batch)

        with pytest.raises(ValueError, match=message):
            jax.eval_shape(refused, jax.random.key(0))


def test_coherence_goes_from_one_to_d_over_r() -> None:
    np.testing.assert_allclose(coherence(jnp.eye(8, 2)), 4)
    np.testing.assert_allclose(coherence(jnp.full((8, 1), 8**-0.5)), 1, rtol=1e-6)
    random = jax.jit(worlds.two_point(dim=40, invariant_rank=4, spurious_rank=1))(
        jax.random.key(0)
    ).invariant_basis
    assert 1 < coherence(random) < 5

"""The chain of order parameters is the law of the full factor, step by step."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import linalg
from causal_sgd.sensing import World, measurements, models, worlds
from causal_sgd.types import Array, Batch
from support.contracts import draw_world

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RATE, DIM, RANK, FRAME = 0.1, 12, 3, 3
COUNTS = {"pure": [7], "two": [3, 4], "one of two is empty": [7, 0]}
DRAWS = 40_000


def state(slots: int = 1) -> tuple[Any, World, Array]:
    """A model, a tilted world, and generic parameters whose last k rows are zero."""
    model = models.order_parameters(dim=DIM, rank=RANK, frame=FRAME, slots=slots)
    family = worlds.two_point(
        dim=FRAME, invariant_rank=2, spurious_rank=1, mean=1.0, spread=2.0, tilt=0.4
    )
    world = worlds.reduced(family, rows=model.rows)(jax.random.key(3))
    inside = 0.6 * np.random.default_rng(0).normal(size=(model.inner_rows, RANK))
    zero = np.zeros((model.rows - model.inner_rows, RANK))
    return model, world, jnp.asarray(np.concatenate([inside, zero]), jnp.float32)


def moments(params: Array, world: World, counts: list[int], noise: float) -> dict[str, np.ndarray]:
    """E A+, E B+ and the covariance of A+ [rk, rk] after one step, in double precision.

    From E[G P G] = (1 + 1/m) RPR + nu (tr P I + P) and
    Cov(G_ij, G_kl) = nu (d_ik d_jl + d_il d_jk) + sum_e share_e R_ij R_kl / m.
    """
    x = np.asarray(params, float)
    a, gamma = x[:FRAME], x.T @ x
    b, m = gamma - a.T @ a, sum(counts)
    bases = np.asarray(world.bases, float)
    shared = bases[:, :2] * np.asarray(world.invariant_spectrum, float) @ bases[:, :2].T
    shares = np.array(counts) / m
    signals = [
        shared + bases[:, 2:] @ np.asarray(world.spurious_cores[e], float) @ bases[:, 2:].T
        for e in range(len(counts))
    ]
    mean = sum(share * signal for share, signal in zip(shares, signals, strict=True))
    residuals = [x @ x.T - signal for signal in signals]
    square = sum(s * np.sum(r**2) for s, r in zip(shares, residuals, strict=True))
    nu = (square + noise**2) / (2 * m)
    drift = (x @ x.T - mean) @ x
    left, right = drift[:FRAME], drift[FRAME:]
    second = sum(
        s * (r @ x)[FRAME:].T @ (r @ x)[FRAME:] for s, r in zip(shares, residuals, strict=True)
    )
    outside = x[FRAME:].T @ right
    after = b - RATE * (outside + outside.T)
    after += RATE**2 * (right.T @ right + second / m + nu * ((DIM - FRAME) * gamma + b))
    covariance = nu * (
        np.einsum("ij,ab->iajb", np.eye(FRAME), gamma) + np.einsum("ja,ib->iajb", a, a)
    )
    for share, residual in zip(shares, residuals, strict=True):
        own = (residual @ x)[:FRAME]
        covariance += share / m * np.einsum("ia,jb->iajb", own, own)
    size = FRAME * RANK
    return {
        "mean": (a - RATE * left).reshape(-1),
        "complement": after.reshape(-1),
        "covariance": RATE**2 * covariance.reshape(size, size),
    }


@functools.cache
def steps(counts: tuple[int, ...], noise: float, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """A+ [n, r k] and B+ [n, k k] of many first steps."""
    model, world, params = state(slots)
    batch = Batch(jnp.arange(len(counts)), jnp.asarray(counts, jnp.int32))
    law = measurements.order_parameter_law(noise=noise)

    @jax.jit
    def draw(keys: Array) -> tuple[Array, Array]:
        def one(key: Array) -> tuple[Array, Array]:
            gradient, _ = law.gradient(key, jnp.asarray(0), (), model, params, world, batch)
            (new,) = model.reduce((params - RATE * gradient,))
            return new[:FRAME].reshape(-1), linalg.product(new[FRAME:].T, new[FRAME:]).reshape(-1)

        return jax.lax.map(one, keys, batch_size=2000)

    along, across = draw(jax.random.split(jax.random.key(5), DRAWS))
    return np.asarray(along, float), np.asarray(across, float)


@pytest.mark.parametrize(
    ("kind", "noise", "slots"),
    [
        ("pure", 8.0, 1),  # so much noise that 5 % less of it shows
        pytest.param("pure", 0.8, 1, marks=pytest.mark.slow),
        pytest.param("pure", 0.0, 2, marks=pytest.mark.slow),
        pytest.param("two", 0.8, 1, marks=pytest.mark.slow),
        pytest.param("one of two is empty", 0.0, 1, marks=pytest.mark.slow),
    ],
)
def test_a_step_has_the_moments_of_the_full_factor(kind: str, noise: float, slots: int) -> None:
    """About 30 z-scores a case; the largest of them exceeds 4.5 in one of 5000 suites."""
    counts = COUNTS[kind]
    _, world, params = state(slots)
    expected = moments(params, world, counts, noise)
    along, across = steps(tuple(counts), noise, slots)
    for name, values in (("mean", along), ("complement", across)):
        error = values.std(0) / DRAWS**0.5
        assert (np.abs(values.mean(0) - expected[name]) < 4.5 * error).all(), name
    covariance = np.cov(along.T)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) * 2 / DRAWS)
    assert (np.abs(covariance - expected["covariance"]) < 5 * scale).all()


def test_a_reduced_world_has_the_products_and_cores_of_the_world() -> None:
    ranks: dict[str, Any] = {"invariant_rank": 2, "spurious_rank": 2, "num_environments": 4}
    numbers = {"tilt": 0.3, "rotation": 0.5, "invariant_spectrum": np.array([1.0, 2.0])}
    whole = draw_world(worlds.goe(dim=30, **ranks, **numbers))
    for dim in (4, 9):
        reduced = draw_world(worlds.reduced(worlds.goe(dim=dim, **ranks, **numbers), rows=11))
        assert reduced.estimate_shape == (11, 11)
        np.testing.assert_array_equal(reduced.spurious_cores, whole.spurious_cores)
        np.testing.assert_allclose(
            reduced.bases.T @ reduced.bases, whole.bases.T @ whole.bases, atol=1e-5
        )
        np.testing.assert_allclose(reduced.bases[:4, :2], np.eye(4, 2), atol=1e-5)
        assert not np.any(reduced.bases[4:])


def test_the_triangle_has_the_products_of_the_matrix() -> None:
    rng = np.random.default_rng(0)
    for shape in ((7, 3), (3, 5), (30, 12), (12, 12), (4, 1)):
        matrix = rng.normal(size=shape)
        matrix[:, -1] *= 1e-25  # whose square is no number of single precision
        if shape[1] > 2:
            matrix[:, 1] = matrix[:, 0]
        found = np.asarray(jax.jit(linalg.triangle)(jnp.asarray(matrix, jnp.float32)), float)
        assert found.shape == (shape[1], shape[1])
        assert not np.tril(found, -1).any()
        assert (np.diag(found) >= 0).all()
        norms = np.linalg.norm(matrix, axis=0)
        np.testing.assert_allclose(
            found.T @ found / np.outer(norms, norms),
            matrix.T @ matrix / np.outer(norms, norms),
            atol=1e-6,
        )
    assert linalg.triangle(jnp.zeros((0, 2))).shape == (2, 2)
    assert not linalg.triangle(jnp.zeros((3, 2))).any()


def test_the_triangle_keeps_directions_below_the_rounding_of_others() -> None:
    matrix = jnp.array([[1.0, 2.0], [0.0, 1e-12], [0.0, 0.0]])
    np.testing.assert_allclose(linalg.triangle(matrix)[1, 1], 1e-12, rtol=1e-6)

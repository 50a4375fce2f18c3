"""Distances and frames of factors with few columns, to rounding."""

from __future__ import annotations

import functools

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import linalg
from causal_sgd.sensing import World, metrics, models, worlds
from causal_sgd.types import Snapshot

# Metrics; what they are in general is in test_metrics.py
from support.arrays import normal, orthogonal

EPS = float(np.finfo(np.float32).eps)


@jax.jit
def errors(factor: jax.Array, world: World) -> dict[str, jax.Array]:
    model = models.factored(dim=factor.shape[0])
    snapshot = Snapshot(jnp.asarray(0), factor, world, jnp.asarray(0.0), model)
    names = ("invariant_error", "pooled_error", "environment_losses", "relative_pooled_error")
    return {name: getattr(metrics, name)(snapshot) for name in names}


@functools.cache
def wide_world() -> World:
    factory = worlds.two_point(
        dim=40, invariant_rank=2, spurious_rank=2, mean=1.0, spread=3.0, tilt=0.3
    )
    with jax.ensure_compile_time_eval():  # it may be asked for first within a trace
        return jax.jit(factory)(jax.random.key(0))


@pytest.mark.parametrize("k", [4, 6])
@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5, 1e-7])
def test_small_distances_are_measured_to_rounding_of_the_signals(k: int, size: float) -> None:
    """A difference of squared norms would be wrong by the root of that rounding, 3e-4."""
    dim, world = 40, wide_world()
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), world)
    shared, core = w.invariant_basis, np.einsum("e,eij->ij", w.probabilities, w.spurious_cores)
    root = np.linalg.cholesky(core)
    invariant = shared * w.invariant_spectrum @ shared.T
    pooled = invariant + w.spurious_basis @ core @ w.spurious_basis.T
    learned = {
        "invariant_error": (np.sqrt(w.invariant_spectrum) * shared, invariant),
        "pooled_error": (
            np.concatenate([np.sqrt(w.invariant_spectrum) * shared, w.spurious_basis @ root], 1),
            pooled,
        ),
    }
    for name, (solution, target) in learned.items():
        factor = np.pad(solution, ((0, 0), (0, k - solution.shape[1]))) + size / dim * normal(
            dim, k
        )
        factor = factor.astype(np.float32)
        truth = np.linalg.norm(factor.astype(np.float64) @ factor.astype(np.float64).T - target)
        assert truth < 10 * size + 1e-6
        np.testing.assert_allclose(
            errors(factor, world)[name], truth, rtol=1e-5, atol=10 * EPS, err_msg=name
        )


def test_the_loss_of_an_environment_that_is_learned_is_zero_to_rounding() -> None:
    world = wide_world()
    core = world.spurious_cores[0]
    assert np.all(np.diag(core) > 0)
    factor = jnp.concatenate(
        [world.invariant_basis, world.spurious_basis * jnp.sqrt(jnp.diag(core))[None, :]], 1
    )
    losses = errors(factor, world)["environment_losses"]
    assert losses[0] < (20 * EPS) ** 2
    assert np.all(losses[1:] > 1)


# The frame


FRAMES = {
    "normal columns": normal(60, 8),
    "singular values from 1 to 1e-9": orthogonal(60, 8, seed=1)
    * np.logspace(0, -9, 8)
    @ orthogonal(8, 8, seed=2),
    "singular values from 1e20 to 1e-20": orthogonal(60, 8, seed=1) * np.logspace(20, -20, 8),
    "duplicates and zeros": normal(60, 4)[:, [0, 0, 1, 2, 1, 3, 0, 2]]
    * np.array([1, 1, 1, 0, -1e-3, 1, 1e4, 1]),
    "equal but for rounding": normal(60, 1) * (1 + 3e-7 * normal(60, 8)),
    "equal but for 1e-4": normal(60, 1) + 1e-4 * normal(60, 8),
    "more columns than rows": normal(5, 9),
    "minute": 1e-30 * normal(60, 8),
    "huge": 1e30 * normal(60, 8),
    "zero": np.zeros((60, 8)),
}


orthonormal = jax.jit(linalg.orthonormal)
many_orthonormal = jax.jit(jax.vmap(linalg.orthonormal))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_orthonormal_and_holds_every_column_to_rounding(name: str) -> None:
    matrix = np.asarray(FRAMES[name], np.float32)
    frame = orthonormal(matrix)
    mapped = many_orthonormal(np.stack([matrix, 2 * matrix]))
    np.testing.assert_allclose(
        mapped, np.stack([frame, frame]), atol=1e-6 if name != "equal but for rounding" else 2
    )
    frame, double = np.asarray(frame, np.float64), matrix.astype(np.float64)
    used = frame.any(0)
    assert not frame[:, ~used].any()
    np.testing.assert_allclose(frame.T @ frame, np.diag(used.astype(float)), atol=10 * EPS)
    size = np.linalg.norm(double, axis=0)
    missed = np.linalg.norm(double - frame @ (frame.T @ double), axis=0)
    assert np.all(missed <= 10 * EPS * size)
    rank = {
        "duplicates and zeros": 4,
        "more columns than rows": 5,
        "zero": 0,
        "normal columns": 8,
        "minute": 8,
    }
    if name in rank:
        assert used.sum() == rank[name]

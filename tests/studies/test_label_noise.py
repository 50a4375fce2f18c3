"""The study of label noise predicts what it says: of matrices, of environments, of small data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.studies.supervised import _label_noise as methods
from causal_sgd.studies.supervised import _label_noise_matrices as matrices
from causal_sgd.theory import sparse

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_the_limit_of_matrices_is_optimal() -> None:
    """Stationary on its range, positive slopes across it, and the curvature of a plain Hessian."""
    rng = np.random.default_rng(1)
    design = rng.normal(size=(2, matrices.EXAMPLES, 6, 6))
    design = (design + design.transpose(0, 1, 3, 2)) / 2
    vectors = rng.normal(size=(2, 6, 1))
    target, penalty = vectors @ vectors.transpose(0, 2, 1), 0.05
    found = matrices.least_curvature(design, target, penalty)
    for one, true, limit in zip(design, target, found, strict=True):
        errors = np.einsum("nij,ij->n", one, limit - true)
        slope = np.einsum("n,nij->ij", errors, one) / len(one)
        slope = slope + penalty * np.einsum("nij,njk->ik", one, one) / len(one)
        assert np.abs(slope @ limit).max() < 1e-6
        assert np.linalg.eigvalsh(slope).min() > -1e-6
        assert np.linalg.eigvalsh(limit).min() > -1e-9
    one, factor = design[0], rng.normal(size=(6, 3))

    def second_difference(step: float) -> float:
        """Summed over all entries, of the mean of squared errors over 4."""
        steps = step * np.eye(18).reshape(18, 6, 3)
        moved = np.stack([factor[None] + steps, factor[None] - steps])
        errors = np.einsum("nij,smij->smn", one, moved @ moved.swapaxes(-1, -2) - factor @ factor.T)
        return float(np.sum(errors**2)) / (4 * len(one) * step**2)

    # Exact for a polynomial of degree four.
    trace = (4 * second_difference(0.1) - second_difference(0.2)) / 3
    second = np.einsum("nij,njk->ik", one, one) / len(one)
    expected = 2 * np.sum(second * (factor @ factor.T))
    assert trace == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shaken", [1, 3])
def test_environments_shake_the_gradient_by_squares_of_the_moments(shaken: int) -> None:
    """M^2 S_ij^2 for one input, and the mean of as many for several."""
    noise = methods.Noise(spread=7.0, shaken=shaken)
    weights = methods._environments(noise._replace(shaken=jnp.asarray(shaken)))
    design = np.random.default_rng(2).normal(size=(methods.EXAMPLES, methods.DIM))
    second = design.T @ design / methods.EXAMPLES
    cross = np.asarray(weights, float) @ second
    found = sparse.gradient_variances(np.zeros(methods.DIM), second, cross)
    places = methods.SUPPORT + np.arange(2 * methods.PAIRS) // 2 % shaken
    expected = 49 * (second[:, places] ** 2).mean(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    target = np.where(np.arange(methods.DIM) < methods.SUPPORT, 1.0, 0.0)
    np.testing.assert_allclose(np.mean(weights, 0), target, atol=1e-6)


@pytest.mark.slow
def test_hidden_inputs_and_examples_change_nothing() -> None:
    """Gradient descent of the padded cell is that of the small regression, in NumPy."""
    steps, dim, number = 60, 30, 12
    key = jax.random.key(4)
    cell = methods.recovery_cell(steps)
    trace = jax.jit(lambda key: cell(key, dim=dim, num_examples=number, label=0.0))(key)
    design = np.asarray(methods._design(key, methods.EXAMPLES, methods.DIM), float)[:number, :dim]
    target = np.where(np.arange(dim) < methods.SUPPORT, 1.0, 0.0)
    u, frames = np.ones(dim), []
    for step in range(1, steps + 1):
        residual = design @ (u**2 - target)
        u = u - methods.RATES[0] * u * (design.T @ residual) / number
        if step % methods.EVERY == 0:
            frames.append(u**2)
    average = np.mean(frames[-1:], 0)  # of 3 frames, those after 70 % of the run
    expected = np.linalg.norm(average - target) / methods.SUPPORT**0.5
    assert float(trace.metrics["error"][0]) == pytest.approx(expected, rel=1e-4)

"""The spectrum at A* against Hessians by automatic differentiation, in double precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.theory import stability

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def hessian_at_the_signal(
    sigma: np.ndarray, spurious: np.ndarray, dim: int, rank: int
) -> np.ndarray:
    """Eigenvalues, ascending, of the Hessian of |UU' - S|_F^2/4 at U U' = A*.

    The frame and the columns are rotated at random.
    """
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    mixed = np.linalg.qr(rng.normal(size=(rank, rank)))[0]
    start, between = len(sigma), len(sigma) + len(spurious)
    shared, own = frame[:, :start], frame[:, start:between]
    with jax.enable_x64(True):
        target = jnp.asarray(shared * sigma @ shared.T + own * spurious @ own.T)

        def loss(flat: jax.Array) -> jax.Array:
            factor = flat.reshape(dim, rank)
            return jnp.sum((jnp.matmul(factor, factor.T) - target) ** 2) / 4

        columns = np.zeros((dim, rank))
        columns[:, :start] = shared * sigma**0.5
        point = jnp.asarray((columns @ mixed).ravel())
        derivatives = jax.jit(lambda point: (jax.grad(loss)(point), jax.hessian(loss)(point)))
        gradient, hessian = derivatives(point)
        assert float(np.abs(gradient).max()) < 1e-14  # whatever the environment
        return np.linalg.eigvalsh(np.asarray(hessian))


@pytest.mark.parametrize(
    ("sigma", "spurious", "dim", "rank"),
    [
        ([1.5, 1.0, 0.3], [0.7, -2.0], 7, 5),
        ([1.5, 1.0], [0.7, -2.0], 5, 2),  # no spare column
        ([1.0, 1.0], [4.0], 3, 3),  # no complement, equal eigenvalues
        ([2.0, 0.5], [], 4, 6),  # as at the end of pooled training; more columns than rows
    ],
)
def test_the_spectrum_is_that_of_the_hessian(
    sigma: list[float], spurious: list[float], dim: int, rank: int
) -> None:
    values, counts = stability.saddle_spectrum(
        np.array(sigma), np.array(spurious), dim=dim, rank=rank
    )
    assert int(counts.sum()) == dim * rank
    expected = hessian_at_the_signal(np.array(sigma), np.array(spurious), dim, rank)
    np.testing.assert_allclose(
        np.sort(np.repeat(np.asarray(values), np.asarray(counts))), expected, atol=1e-6
    )


def test_environments_are_a_batch_and_sizes_may_be_traced() -> None:
    sigma, one = np.array([1.0, 0.5]), np.array([4.0])
    means, spread = np.array([[1.0]]), np.array([[3.0], [-3.0]])
    environments = stability.saddle_spectrum(sigma, means + spread, dim=5, rank=4)
    assert environments.values.shape == (2, 3 + 2 + 2 + 1 + 1)
    traced = jax.jit(lambda dim: stability.saddle_spectrum(sigma, one, dim=dim, rank=4))(5)
    np.testing.assert_array_equal(traced.multiplicities, environments.multiplicities)
    np.testing.assert_allclose(traced.values, environments.values[0])
    # The mean over environments of a linear law is that of the mean.
    pooled = stability.saddle_spectrum(sigma, means[0], dim=5, rank=4)
    np.testing.assert_allclose(environments.values.mean(0), pooled.values, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"invariant_eigenvalues": [1.0, 0.0]}, "invariant_eigenvalues must be a finite number"),
        ({"invariant_eigenvalues": []}, "invariant_eigenvalues must hold at least one"),
        ({"spurious_eigenvalues": 1.0}, "spurious_eigenvalues must have a last axis"),
        ({"dim": 2}, "dim must be a finite number at least 3"),
        ({"rank": 1}, "rank must be a finite number at least 2"),
        ({"rank": 2.5}, "rank must be a whole number"),
        (
            {"spurious_eigenvalues": np.ones((3, 1)), "invariant_eigenvalues": np.ones((2, 1))},
            "arguments must have shapes that broadcast",
        ),
    ],
)
def test_what_is_no_signal_is_refused(changed: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {
        "invariant_eigenvalues": [1.0, 0.5],
        "spurious_eigenvalues": [1.0],
        "dim": 4,
        "rank": 3,
    }
    with pytest.raises(ValueError, match=message):
        stability.saddle_spectrum(**{**settings, **changed})

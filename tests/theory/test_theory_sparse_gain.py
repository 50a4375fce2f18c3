"""The gain of diagonal networks against plain loops and drawn gradients."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from causal_sgd import theory
from causal_sgd.theory import sparse

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ETA, ALPHA = 0.1, 0.4


@functools.cache
def trained(rows: int) -> tuple[np.ndarray, ...]:
    """A design [n, d], its labels, u and v at the end, and the sums of q and artanh.

    A step uses so many rows, in turns.
    """
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 10))
    y = x[:, :2].sum(1)
    u = v = np.full(10, ALPHA / 2**0.5)
    gain, moved = np.zeros(10), np.zeros(10)
    for step in range(8000):
        chosen = (np.arange(rows) + step * rows) % 6
        residual = x[chosen] @ (u**2 - v**2) - y[chosen]
        g = ETA * residual @ x[chosen] / rows
        u, v = u * (1 - g), v * (1 + g)
        gain -= np.log(np.abs(1 - g**2))
        moved += np.arctanh(g)
    return x, y, u, v, gain, moved


@pytest.mark.parametrize("rows", [1, 6])
def test_the_scale_falls_by_the_gain_exactly(rows: int) -> None:
    *_, u, v, gain, moved = trained(rows)
    scale = np.asarray(sparse.effective_scale(u, v))
    np.testing.assert_allclose(np.log(scale / ALPHA**2), -gain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scale * np.sinh(-2 * moved), u**2 - v**2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 6])
def test_the_end_is_the_interpolator_of_the_effective_scale(rows: int) -> None:
    x, y, u, v, *_ = trained(rows)
    ends = [
        np.asarray(sparse.hyperbolic_interpolator(x, y, scale))
        for scale in (np.full(10, ALPHA**2), np.asarray(sparse.effective_scale(u, v)))
    ]
    start, end = (np.linalg.norm(u**2 - v**2 - found) for found in ends)
    assert end < 0.2 * start


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_the_scale_is_positive(signs: tuple[int, int]) -> None:
    assert float(sparse.effective_scale(0.1 * signs[0], 0.3 * signs[1])) == pytest.approx(0.06)


@pytest.mark.parametrize(("batch", "noise"), [(1, 0.0), (1, 0.7), (4, 0.7)])
def test_the_first_gain_is_the_mean_of_squared_gradients(batch: int, noise: float) -> None:
    target = np.array([1.0, -0.5, 0.0])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, batch, 3))
    y = x @ target + noise * rng.normal(size=x.shape[:2])
    squares = (ETA * np.mean(x * y[:, :, None], axis=1)) ** 2
    found = np.asarray(sparse.first_gain(ETA, target, batch, noise=noise))
    scores = (squares.mean(0) - found) / (squares.std(0) / len(squares) ** 0.5)
    assert np.abs(scores).max() < 4.5


def test_a_target_is_a_vector() -> None:
    with pytest.raises(ValueError, match=r"target must have shape \[d\] with d >= 1, got \[2, 2\]"):
        sparse.first_gain(ETA, np.eye(2), 1)


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 3.0), (0.0, 2.0), (1.0, 7.0)])
def test_a_direction_dies_where_half_the_gain_exceeds_its_drift(mean: float, spread: float) -> None:
    steps = ETA * (mean + spread * np.array([1, -1]))
    gain = -np.log(np.abs(1 - steps**2)).mean()
    assert float(sparse.gain_per_step(ETA, mean, spread)) == pytest.approx(gain, rel=1e-4)
    exponent = np.arctanh(steps).mean() - gain / 2
    assert float(theory.lyapunov_two_point(ETA, mean, spread)) == pytest.approx(exponent, abs=1e-6)

"""The mean penalties of IRMv1 on batches, and where the mean objectives are least."""

from __future__ import annotations

import numpy as np

__all__ = ["MEAN", "SPREAD", "VARIANCE", "WEIGHT", "minimum", "penalties"]

MEAN, SPREAD, VARIANCE = 0.5, 0.3, 4.0  # of the world in which IRMv1 trains
WEIGHT = 10.0  # of its penalty


def _moments(weights: np.ndarray, bias: float) -> tuple[float, float, float]:
    """E r^2, E f^2 and E r f in an environment."""
    invariant, spurious = weights
    square = VARIANCE * spurious**2
    return (
        (invariant - 1) ** 2 + square + 1 - 2 * spurious * bias,
        invariant**2 + square,
        invariant * (invariant - 1) + square - spurious * bias,
    )


def penalties(weights: np.ndarray) -> tuple[float, float, float]:
    """Means over the environments of R, D^2 and 4 Var(r f), for a mean squared residual R."""
    environments = [_moments(weights, MEAN + sign * SPREAD) for sign in (1, -1)]
    # Two Gaussian variables: Var(r f) = E r^2 E f^2 + (E r f)^2.
    rows = [(r, 4 * both**2, 4 * (r * f + both**2)) for r, f, both in environments]
    risk, square, variance = np.mean(rows, 0)
    return float(risk), float(square), float(variance)


def minimum(batch_size: float | None) -> np.ndarray:
    """The minimum [2] of the mean objective; of the population's without a batch size."""
    from scipy import optimize

    def objective(weights: np.ndarray) -> float:
        risk, square, variance = penalties(weights)
        bias = 0.0 if batch_size is None else variance / (batch_size / 2)
        return risk / 4 + WEIGHT * (square + bias) / 16

    return optimize.minimize(objective, (1.0, 0.1), tol=1e-12).x

"""Simulations of scalar maps in plain NumPy, independent of the package, to compare with."""

from __future__ import annotations

import numpy as np

__all__ = ["deviation", "scalar_map"]


def scalar_map(
    rate: float, spread: np.ndarray, mean: np.ndarray, start: np.ndarray, *, draws: int, steps: int
) -> np.ndarray:
    """The steps [n, draws] after which u -> (1 + eta (mu +- M - u^2)) u is lost, -1 for never.

    A simulation of its own, with NumPy's random numbers.

    Args:
        rate: eta.
        spread: M [n].
        mean: mu [n].
        start: u [n].
        draws: independent orders of the environments.
        steps: length of the runs.
    """
    random = np.random.default_rng(0)
    shape = (len(start), draws)
    index, u = np.arange(len(start) * draws), np.repeat(start, draws)
    low = 1 + rate * np.repeat(mean - spread, draws)
    high = 1 + rate * np.repeat(mean + spread, draws)
    lost = np.full(index.size, -1)
    for step in range(1, steps + 1):
        u *= np.where(random.random(len(u)) < 0.5, low, high) - rate * u * u
        gone = np.abs(u) > 1e9  # where the loss overflows, a step or two later
        if gone.any():
            lost[index[gone]] = step
            index, u, low, high = index[~gone], u[~gone], low[~gone], high[~gone]
    return lost.reshape(shape)


def deviation(measured: np.ndarray, expected: np.ndarray) -> float:
    """The difference of two means over seeds [n] and draws [m], in standard errors."""
    variances = [values.var(ddof=1) / len(values) for values in (measured, expected)]
    return float(np.abs(measured.mean() - expected.mean()) / np.sqrt(np.sum(variances)))

"""Points at which theory is tested, and the scalar map in NumPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from causal_sgd import theory

FAMILIES = tuple(theory.families)
BATCH = {"batch_size": 500, "dim": 30, "invariant_rank": 2, "spurious_rank": 1}


# Where the small-step theory holds: a family of spectra, a learning rate and a mean eigenvalue.
POINTS = {
    "family": st.sampled_from(FAMILIES),
    "eta": st.floats(0.002, 0.1),
    "mu": st.floats(0.1, 2.0),
}


def simulate(eta: float, factors: Callable[[int], np.ndarray], start: np.ndarray, steps: int):
    """The last u and the time averages of u^2 and u^4 per chain, after a fifth of the steps."""
    u, second, fourth, kept = start, 0.0, 0.0, 0
    for t in range(steps):
        u = (factors(t) - eta * u * u) * u
        if t >= steps // 5:
            square = u * u
            second, fourth, kept = second + square, fourth + square * square, kept + 1
    return u, second / kept, fourth / kept

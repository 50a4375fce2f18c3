"""Balanced spectra have the moments that the docstrings state."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from causal_sgd.sensing import worlds

RANKS = {"dim": 4, "invariant_rank": 1, "spurious_rank": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "spread", "unit", "moments"),
    [
        ("uniform", 3.0, 3 / 3**0.5, {2: (1, 0.87), 4: (1, 0.97), 10: (1, 0.995)}),
        ("gaussian", 3.0, 3.0, {2: (1, 0.67), 4: (1, 0.84), 10: (1, 0.94), 50: (1, 0.99)}),
        ("log_normal", 1.3, 1.3, {50: (0.99, 0.90)}),
        ("log_normal", 5.0, 5.0, {50: (0.89, 0.50), 1000: (0.98, 0.78)}),
        ("two_point", 3.0, 3.0, {2: (1, 1), 10: (1, 1)}),
    ],
)
def test_moments_of_balanced_spectra(
    family: str, spread: float, unit: float, moments: dict[int, tuple[float, float]]
) -> None:
    for number, (mean, deviation) in moments.items():
        options = {"mean": 1.3, "spread": spread, "num_environments": number, "balanced": True}
        world = getattr(worlds, family)(**RANKS, **options)(jax.random.key(0))
        values = np.asarray(world.spurious_cores, float).ravel()
        exact = family != "log_normal"
        assert values.mean() / 1.3 == pytest.approx(mean, abs=1e-5 if exact else 0.006)
        assert values.std() / unit == pytest.approx(deviation, abs=0.006)

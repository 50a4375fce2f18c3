"""Laminar phases counted by hand, and exponents of samples from power laws."""

from __future__ import annotations

import numpy as np
import pytest

from causal_sgd.analysis import _intermittency


def test_laminar_phases_have_their_start_and_end_in_the_record() -> None:
    rows = [
        [0, 0, 1, 0, 1, 0, 0, 0, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 1, 1, 0, 1, 1, 0],
    ]
    assert _intermittency.laminar_phases(rows, 0.5).tolist() == [1, 3, 2, 1]
    assert _intermittency.laminar_phases(np.zeros((2, 5)), 0.5).size == 0
    with pytest.raises(ValueError, match="frames"):
        _intermittency.laminar_phases(1.0, 0.5)


@pytest.mark.parametrize(("alpha", "cutoff"), [(1.5, np.inf), (1.5, 200.0), (0.0, 50.0)])
def test_the_phase_exponent_depends_on_the_window_alone(alpha: float, cutoff: float) -> None:
    lengths = np.arange(1, 20_001)
    weights = lengths**-alpha * np.exp(-lengths / cutoff)
    weights[:4] *= 3  # short phases deviate from the power law
    sample = np.random.default_rng(0).choice(lengths, 20_000, p=weights / weights.sum())
    estimate = _intermittency.phase_exponent(sample, shortest=5, longest=800, cutoff=cutoff)
    assert estimate.number == ((sample >= 5) & (sample <= 800)).sum()
    assert abs(estimate.exponent - alpha) < 4 * estimate.standard_error < 0.1


@pytest.mark.parametrize("theta", [-0.4, 0.0, 1.5])
def test_the_density_exponent_depends_on_the_window_alone(theta: float) -> None:
    uniform = np.random.default_rng(1).uniform(size=20_000)
    low, high = 1e-4, 1e-1
    width = np.log(high / low)
    # Inversion of the truncated exponential law of log|u|.
    logs = uniform * width
    if theta != 0:
        logs = -np.log1p(uniform * np.expm1(-theta * width)) / theta
    estimate = _intermittency.density_exponent(
        np.append(low * np.exp(logs), [1.0, 1e-9, 0.0]), low=low, high=high
    )
    assert estimate.number == pytest.approx(20_000, abs=1)  # rounding may move the ends out
    assert abs(estimate.exponent - theta) < 4 * estimate.standard_error < 0.1


def test_too_few_values_give_nan_and_bad_windows_are_reported() -> None:
    assert np.isnan(_intermittency.phase_exponent([20, 20]).exponent)
    assert np.isnan(_intermittency.density_exponent([], low=0.1, high=1).exponent)
    steep = _intermittency.density_exponent(np.full(50, 0.1), low=0.1, high=1)
    assert np.isnan(steep.exponent), "no exponent is large enough"
    assert np.isnan(steep.standard_error)
    shallow = _intermittency.phase_exponent([999, 1000] * 9)
    assert np.isnan(shallow.exponent)
    with pytest.raises(ValueError, match="longest must be"):
        _intermittency.phase_exponent([20, 30], shortest=10, longest=10)
    with pytest.raises(ValueError, match="cutoff must be above 0"):
        _intermittency.phase_exponent([20, 30], cutoff=0)
    with pytest.raises(ValueError, match="high must be"):
        _intermittency.density_exponent([1.0], low=2, high=1)

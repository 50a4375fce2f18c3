"""The study of the diagnostic counts signs as it says, and looks at the colour's gate."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from causal_sgd.studies.supervised import _diagnostic_runs as runs
from causal_sgd.studies.supervised import diagnostic

#                 rejects, rejects,  keeps,  keeps, between, anti-colour, diverged
GAPS = np.array([[[0.0005, -0.0002, 0.2, 0.06, 0.01, -0.3, np.nan]]])
SIGNS = np.array([[[-0.01, 0.002, 0.03, -0.004, -0.5, 0.5, np.nan]]])


def data() -> dict[str, xr.Dataset]:
    """One step size, one world and seven runs; at the initial weights all signs are wrong."""
    clear = np.where(np.abs(GAPS) < 0.001, 0.05, -0.05)
    dims = ("learning_rate", "world", "seed", "step")
    gates = xr.Dataset(
        {
            "gap": (dims, GAPS[..., None]),
            "exponent": ((*dims, "end"), np.stack([clear, SIGNS], -1)[..., None, :]),
            "error": ((*dims, "end"), np.zeros((1, 1, 7, 1, 2))),
            "diverged_at": (dims[:-1], np.where(np.isnan(GAPS), 3, -1)),
        },
        {"learning_rate": [0.5], "step": [600]},
    )
    plain = xr.Dataset(
        {
            "gap": (("learning_rate", "seed", "step"), [[[0.1, 0.8], [0.1, 0.6]]]),
            "defect": (("learning_rate", "seed", "step"), [[[0.0, 2.0], [0.0, 1.5]]]),
            "diverged_at": (("learning_rate", "seed"), [[-1, -1]]),
        }
    )
    return {"gates": gates, "plain": plain}


def test_signs_are_counted_in_clear_runs_only() -> None:
    measured = diagnostic.measure(data())
    assert measured["trained"] == pytest.approx(2 / 4)
    assert measured["initial"] == 0
    assert measured["missed"] == pytest.approx(0.004)
    assert (measured["rejected"], measured["kept"], measured["unclear"]) == (2, 2, 2)
    assert measured["plain"] == pytest.approx(1.5)
    assert measured["plain_gap"] == pytest.approx(0.7)
    assert np.isnan(measured["squares"])  # as when quick


def test_the_part_that_is_looked_at_is_the_last_input() -> None:
    assert runs.COLOUR.nonzero()[0].tolist() == [196]

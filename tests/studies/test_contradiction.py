"""The study of contradicting environments measures what it says, on cells with known answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd import sweep
from causal_sgd.studies.supervised import _contradiction_methods as methods
from causal_sgd.studies.supervised import _contradiction_theory as theory
from causal_sgd.studies.supervised import contradiction as study
from causal_sgd.types import Trace


def _cell(factor: float, lost_above: float):
    def cell(key: jax.Array, *, mean: jax.Array, spread: jax.Array) -> Trace:
        del key
        weights = {"invariant_weight": 1 + 0 * mean, "spurious_weight": factor * mean / 4}
        diverged = jnp.where(spread > lost_above, 7, -1)
        values = {name: jnp.stack([0 * value, value]) for name, value in weights.items()}
        return Trace(jnp.array([0, 9]), values, diverged)

    return cell


def test_cells_in_one_program_come_apart_with_their_own_divergence() -> None:
    cells = {"one": _cell(0.5, 9.0), "other": _cell(1.0, 1.0)}
    rows = {"group": study._rows([(0.4, 0.5), (0.2, 1.5)])}
    (runs,) = study._swept(
        methods.together(cells), rows, 2, "test", {"key": 0, "progress": False}
    ).values()
    separate = sweep(cells["one"], axes={"mean": [0.4], "spread": [0.5]}, progress=False)
    assert runs.sel(variant="one").spurious_weight[0, 0, -1] == separate.spurious_weight.max()
    assert runs.diverged_at.sel(variant="other")[:, 0].values.tolist() == [-1, 7]
    np.testing.assert_allclose(theory.distances(runs, "one"), [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(theory.shares(runs, "other"), [1, np.nan], rtol=1e-6)


def test_the_reach_of_hetero_sgd_solves_both_equations() -> None:
    mean, slope = theory.reach()
    spread = slope * mean
    # eta = 1: no run diverges up to (4/27) c_high^3 = 1 + c_low, and it rejects from a^2 - b^2 = 1.
    high, low = 1 + mean + spread, 1 + mean - spread
    assert high * low == pytest.approx(1, abs=1e-4)
    assert 4 / 27 * high**3 == pytest.approx(1 + low, abs=1e-4)


def test_all_worlds_of_the_plane_exist() -> None:
    plane = np.array(study._plane(1))
    assert plane.sum(1).max() <= 2 + 1e-9
    assert {(0.975, 0.975), (0.025, 1.975)} <= {tuple(np.round(world, 3)) for world in plane}
    assert 3 < len(plane) / len(study._plane(2)) < 5

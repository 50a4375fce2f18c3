"""All formulas of invariance in single precision against the same ones in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from causal_sgd.theory import invariance
from causal_sgd.theory.invariance import contradiction, two_bit
from support.cases import few

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FEW = 2e-6  # "a few roundings"
MEAN = np.array([0.5, 1.4, -0.8, 0.01], np.float32)
SPREAD = np.array([0.3, 0.6, 1.2, 0.5], np.float32)
PLANE = {"mean": MEAN, "spread": SPREAD}
WEIGHT = np.array([0.3, 9.0, 400.0, 1e6], np.float32)
VARIANCE = np.array([4.0, 1.7, 3.0, 0.6], np.float32)
BITS = {
    "invariant_flip": np.array([0.1, 0.25, 0.03], np.float32),
    "spurious_flips": np.array([[0.2, 0.25], [0.2, 0.1], [0.4, 0.7]], np.float32),
}
FLIPS = np.array([10.0, 40.0, 1e4], np.float32)
SECOND = np.array(
    [
        [[1.5, 0.2, 1.4, 0.1], [0.2, 4.0, 1.9, -0.3], [1.4, 1.9, 3.0, 0.2], [0.1, -0.3, 0.2, 1.0]],
        [[0.9, 0.1, 0.8, 0.0], [0.1, 4.0, -1.1, 0.4], [0.8, -1.1, 2.0, 0.3], [0.0, 0.4, 0.3, 1.0]],
    ],
    np.float32,
)
MOMENTS = {
    "second": SECOND,
    "target": np.array([0.9, 0.0], np.float32),
    "probabilities": np.array([0.25, 0.75], np.float32),
    "learning_rate": np.float32(0.2),
}
SETS = {"second": SECOND, "causal": np.array([True, False])}


class Row(NamedTuple):
    """Arguments, and the error relative to 1 + |value| that the docstring states."""

    arguments: dict[str, Any]
    error: float = FEW


def penalty(error: float = FEW) -> Row:
    return Row(PLANE | {"weight": WEIGHT, "variance": VARIANCE}, error)


BLIND, SEARCH = Row(PLANE | {"variance": VARIANCE}), Row(PLANE | {"gamma": WEIGHT})
ROWS: dict[str, Row] = {
    "biases": Row({name: MOMENTS[name] for name in ("second", "target")} | {"intercept": 0.5}),
    "hetero_exponents": Row(MOMENTS | {"signed": True}, 1e-5),
    "invariant_exponents": Row(MOMENTS, 1e-5),
    "batch_exponents": Row(MOMENTS | {"batch_size": np.float32(6)}, 1e-4),
    "lyapunov_batch": Row(
        {
            "learning_rate": np.float32(0.3),
            "bias": np.array([0.5, -0.9, 0.0], np.float32),
            "input_variance": np.float32(4.0),
            "noise_variance": np.float32(1.3),
            "batch_size": np.array([1.0, 8.0, 1e4], np.float32),
        },
        1e-4,
    ),
    "hetero_reach": Row(
        {
            "learning_rate": np.array([1e-4, 0.05, 0.6, 3.0], np.float32),
            "noise_variance": np.float32(1.3),
            "input_variance": VARIANCE,
        },
        1e-5,
    ),
    "anticausal_critical_spread": Row({"learning_rate": WEIGHT[:2], "mean": MEAN[:2]}),
    "icp_rejection": Row({"second": SECOND, "chosen": np.array([True, False]), "counts": 200}),
    "icp_recovery": Row(SETS | {"counts": 200}),
    "eills_thresholds": Row(SETS),
    "fair_thresholds": Row(SETS),
    "contradiction.excess_risk": Row(
        {"invariant": MEAN, "spurious": SPREAD, "bias": MEAN, "variance": VARIANCE}
    ),
    "contradiction.irmv1_trap": Row({"weight": WEIGHT}, 1e-5),
    "contradiction.icp": Row(PLANE | {"input_spread": SPREAD, "noise_spread": 0 * SPREAD}, 0),
    "contradiction.vrex": penalty(),
    "contradiction.irmv1": penalty(1e-5),
    "contradiction.fishr": penalty(),
    "contradiction.eills": SEARCH,
    "contradiction.fair": SEARCH,
    **{
        f"contradiction.{name}": BLIND
        for name in (
            *("erm", "iga", "coral", "anchor", "causal_dantzig", "group_dro", "andmask"),
            *("eills_threshold", "fair_threshold"),
        )
    },
    "two_bit.risk": Row(
        {"weights": np.stack([MEAN, SPREAD], 1), "invariant_flip": 0.1, "spurious_flip": SPREAD / 2}
    ),
    "two_bit.least_squares": Row({"invariant_flip": 0.1, "spurious_flip": SPREAD / 2}),
    "two_bit.feasible_points": Row({"invariant_flip": BITS["invariant_flip"]}, 1e-6),
    "two_bit.critical_correlation": Row({"invariant_flip": BITS["invariant_flip"]}, 1e-6),
    "two_bit.irmv1_limit": Row(BITS),
    "two_bit.irmv1": Row(BITS | {"weight": FLIPS}, 1e-4),
    "two_bit.vrex": Row(BITS | {"weight": FLIPS}, 1e-4),
    "two_bit.iga": Row(BITS | {"weight": FLIPS}, 1e-5),
    "two_bit.hetero_exponent": Row(BITS | {"learning_rate": np.float32(0.2)}, 1e-5),
}


def formula(name: str) -> Callable[..., Any]:
    room, _, last = name.rpartition(".")
    return getattr(getattr(invariance, room) if room else invariance, last)


def test_every_formula_states_its_accuracy_and_has_a_row() -> None:
    rooms = {"": invariance, "contradiction.": contradiction, "two_bit.": two_bit}
    public = {
        prefix + name
        for prefix, room in rooms.items()
        for name in room.__all__
        if callable(getattr(room, name)) and name[0].islower()
    }
    assert set(ROWS) == public
    silent = [name for name in sorted(ROWS) if "Accuracy" not in (formula(name).__doc__ or "")]
    assert not silent


LONG = {"batch_exponents", "two_bit.irmv1", "two_bit.vrex"}  # to compile


@pytest.mark.parametrize("name", few(ROWS, ROWS.keys() - LONG))
def test_single_precision_is_as_accurate_as_stated(name: str) -> None:
    """At arguments that both hold exactly."""
    arguments, error = ROWS[name]
    single = jax.tree.leaves(formula(name)(**arguments))
    wide = {
        key: np.asarray(value, float) if np.result_type(value) == np.float32 else value
        for key, value in arguments.items()
    }
    with jax.enable_x64(True):
        double = jax.tree.leaves(formula(name)(**wide))
    for one, other in zip(single, double, strict=True):
        if isinstance(other, jax.Array):
            assert (one.dtype, other.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(one, other, rtol=error, atol=error)

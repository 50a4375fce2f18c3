"""Programs see every value of an axis and every seed as it was given, or the sweep is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from causal_sgd.experiment import Experiment
from causal_sgd.sweeps import compare, refine, sweep, zipped
from causal_sgd.sweeps._grid import Grid
from causal_sgd.types import Trace


def cell(key: jax.Array, *, n: Any = 0, m: Any = 0) -> Trace:
    """Records its parameters and the word of its key."""
    values = {"seen": jnp.asarray(n)[None], "other": jnp.asarray(m)[None]}
    return Trace(jnp.zeros(1, jnp.int32), values, jnp.int32(-1))


INTEGERS = "axis 'n' must have whole numbers from -2147483648 to 2147483647, .* got "
FLOATS = "axis '[nm]' must be 0 or from 1.2e-38 to 3.4e\\+38 in magnitude, .* float32, got "
EQUAL = "axis 'n' must have values that differ in float32, got "
MASKED = "must have no masked entries, got a masked array"
AXES = [
    ([10**9, 3 * 10**9], INTEGERS + "3000000000"),
    (np.array([5, 2**32 + 5]), INTEGERS + "4294967301"),
    (np.array([2**31], np.uint32), INTEGERS + "2147483648"),
    ([2**63, -1], INTEGERS + "9223372036854775808"),  # floating-point numbers to NumPy
    ([1, 10**30], INTEGERS + "1" + "0" * 30),
    ([1.0, 1e-50], FLOATS + "1e-50"),
    ([1.0, -1e-39, 2.0], FLOATS + "-1e-39"),
    ([1e39, 1.0], FLOATS + "1e\\+39"),
    (zipped(n=[1, 2], m=[1.0, 1e-42]), FLOATS + "1e-42"),
    ([2.0**24, 2.0**24 + 1], EQUAL + "16777216.0 and 16777217.0"),
    (zipped(n=[1.0, 1 + 1e-12], m=[1, 1]), EQUAL + r"\(1.0, 1\) and \(1.000000000001, 1\)"),
    (np.ma.array([1.0, 2.0], mask=[False, True]), f"axis 'n' {MASKED}"),
    (np.ma.array([1, 2]), f"axis 'n' {MASKED}"),
]


@pytest.mark.parametrize(("axis", "message"), AXES, ids=[str(axis)[:40] for axis, _ in AXES])
def test_an_axis_that_programs_would_see_differently_is_refused(
    axis: Any, message: str, tmp_path: Path
) -> None:
    store = tmp_path / "none"
    for call in (
        lambda: sweep(cell, axes={"n": axis}, store=store),
        lambda: compare({"a": cell}, axes={"n": axis}),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not store.exists()


def test_refinements_and_zipped_axes_are_checked_too() -> None:
    with pytest.raises(ValueError, match=INTEGERS + "3000000000"):
        refine(cell, axes={"n": [1, 3 * 10**9]}, metric="seen", level=1.0)
    with pytest.raises(ValueError, match=f"axis 'm' {MASKED}"):
        zipped(m=np.ma.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (np.ma.array([1, 2], mask=[False, True]), f"seeds {MASKED}"),
        (range(10**12), "seeds must be at most 4294967295"),
        ([2**63], "seeds must be at most 4294967295"),
        ([2**64], "seeds must be a number of seeds or a list"),
        (2**32, "seeds must be .* at most 4294967295"),
    ],
)
def test_seeds_beyond_their_type_are_refused(seeds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(cell, axes={"n": [1]}, seeds=seeds)


def test_more_runs_than_memory_are_refused() -> None:
    for seeds in (2**32 - 1, range(2**32 - 1), 10**7):
        with pytest.raises(ValueError, match="axes and seeds must make at most .* runs .*, got"):
            sweep(cell, axes={"n": np.arange(1, 10**5)}, seeds=seeds)


def test_a_fraction_between_whole_numbers_is_checked() -> None:
    cell = Experiment(dim=3, invariant_rank=1, spurious_rank=1, steps=2).cell()
    for axes in (
        {"batch_size": [100.0, 150.5, 200.0]},
        {"point": zipped(batch_size=[10.0, 20.0, 30.5, 40.0], spread=[0.5, 1.0, 2.0, 3.0])},
    ):
        with pytest.raises(ValueError, match="batch_size must be a whole number, got [13][50]"):
            sweep(cell, axes=axes)


def test_all_parameters_are_checked_at_their_extremes() -> None:
    axes = {"n": [2.0, 0.5, -1.0, 3.0], "p": zipped(m=[1, 0, 2], k=[5.0, 7.0, 6.0])}
    grid = Grid.make(lambda key, *, n, m, k: None, axes, 1)
    points = grid.corners()
    assert len(points) == 3
    seen = {name: {point[name] for point in points} for name in ("n", "m", "k")}
    assert seen == {"n": {-1.0, 3.0, 0.5}, "m": {0, 1, 2}, "k": {5.0, 6.0, 7.0}}
    for point in points:
        assert {"m": point["m"], "k": point["k"]} in (
            {"m": 1, "k": 5.0},
            {"m": 0, "k": 7.0},
            {"m": 2, "k": 6.0},
        )


def test_values_at_the_ends_of_the_types_are_seen_as_they_are() -> None:
    whole = [-(2**31), 0, 2**31 - 1]
    assert sweep(cell, axes={"n": whole})["seen"].values.ravel().tolist() == whole
    floats = [-3.4e38, -1.2e-38, 0.0, 1.2e-38, 3.4e38]
    seen = sweep(cell, axes={"n": floats})["seen"].values.ravel()
    np.testing.assert_array_equal(seen, np.array(floats, np.float32))
    with jax.enable_x64(True):
        floats = [1e-50, 0.1, 0.1 + 1e-12, 1e39]
        assert sweep(cell, axes={"n": floats})["seen"].values.ravel().tolist() == floats

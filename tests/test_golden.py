"""Four small runs, number by number: whatever changes it changes every user's results.

A change of a random stream takes a minor version and an entry in the changelog at least. Rewrite
the file with `python tests/test_golden.py`. `causal-sgd doctor` makes the same comparison.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from causal_sgd.cli import golden

FILE = Path(golden.__file__).with_name(golden.FILE)


def test_the_golden_runs_have_not_changed() -> None:
    numbers, released = golden.golden_numbers(), json.loads(FILE.read_text())
    assert set(numbers) == set(released)
    for name, values in released.items():
        np.testing.assert_allclose(numbers[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert golden.worst_deviation(numbers) <= golden.TOLERANCE


def test_a_run_that_differs_is_reported() -> None:
    released = json.loads(FILE.read_text())
    assert golden.worst_deviation(released) == 0
    released["invariant_error"][0][2] *= 1 + 2 * golden.TOLERANCE
    assert golden.worst_deviation(released) > golden.TOLERANCE
    released["invariant_error"][0][2] = float("nan")
    assert golden.worst_deviation(released) == np.inf
    del released["invariant_error"]
    assert golden.worst_deviation(released) == np.inf


if __name__ == "__main__":
    FILE.write_text(json.dumps(golden.golden_numbers(), indent=1) + "\n")

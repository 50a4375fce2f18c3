"""Four small runs, number by number: whatever changes it changes every user's results.

A change of a random stream is at least a minor version and an entry in the changelog. Write the file anew with
`python tests/test_golden.py`. `causal-sgd doctor` makes the same comparison.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from causal_sgd.cli import doctor

FILE = Path(doctor.__file__).with_name(doctor.GOLDEN)


def test_the_golden_runs_are_what_they_were() -> None:
    found, golden = doctor.golden_numbers(), json.loads(FILE.read_text())
    assert set(found) == set(golden)
    for name, values in golden.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert doctor.worst_deviation(found) <= doctor.TOLERANCE


def test_a_run_that_strays_is_found_out() -> None:
    golden = json.loads(FILE.read_text())
    assert doctor.worst_deviation(golden) == 0
    golden["invariant_error"][0][2] *= 1 + 2 * doctor.TOLERANCE
    assert doctor.worst_deviation(golden) > doctor.TOLERANCE
    golden["invariant_error"][0][2] = float("nan")
    assert doctor.worst_deviation(golden) == np.inf
    del golden["invariant_error"]
    assert doctor.worst_deviation(golden) == np.inf


if __name__ == "__main__":
    FILE.write_text(json.dumps(doctor.golden_numbers(), indent=1) + "\n")

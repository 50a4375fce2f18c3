"""Bad input to data sets and their designs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from causal_sgd.sensing import measurements
from causal_sgd.sensing.measurements import designs
from support.designs import (
    world,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

PACKED = np.ones((2, 3, 6), np.float32)
TABLE = [
    (lambda: measurements.fixed_design(), "num_examples or design must be given"),
    (
        lambda: measurements.fixed_design(num_examples=3, design=PACKED),
        "num_examples or design must be given",
    ),
    (
        lambda: measurements.fixed_design(num_examples=0),
        "num_examples must be a whole number, at least 1",
    ),
    (
        lambda: measurements.fixed_design(num_examples=3, noise=-1.0),
        "noise must be a finite number at least 0",
    ),
    (
        lambda: measurements.fixed_design(num_examples=3, fresh_noise=-1.0),
        "fresh_noise must be a finite number at least 0",
    ),
    (
        lambda: measurements.fixed_design(design=PACKED, symmetric=False),
        r"design must have shape \[E, n, d, d\], got \[2, 3, 6",
    ),
    (
        lambda: measurements.fixed_design(num_examples=3, largest_batch=0),
        "largest_batch must be a whole number",
    ),
    (
        lambda: measurements.fixed_design(num_examples=3, full=True, replacement=True),
        "replacement must be False",
    ),
    (
        lambda: measurements.fixed_design(num_examples=3, full=True, largest_batch=2),
        "largest_batch must be None",
    ),
    (
        lambda: measurements.fixed_design(design=PACKED[:, :, :4]),
        r"design must have shape .* got \[2, 3, 4\]",
    ),
    (lambda: measurements.fixed_design(design=np.ones((2, 3, 3, 2))), "design must have shape"),
    (lambda: measurements.fixed_design(design=PACKED[:, :0]), "design must have shape"),
    (lambda: measurements.fixed_design(design=PACKED * np.nan), "design must be a finite number"),
    (
        lambda: measurements.fixed_design(design=PACKED).init(jax.random.key(0), world()),
        "design must .* 4 environments",
    ),
    (
        lambda: designs.shared_design(jax.random.key(0), dim=0, num_environments=1, num_examples=1),
        "dim must be",
    ),
]


@pytest.mark.parametrize(("call", "message"), TABLE, ids=[message[:40] for _, message in TABLE])
def test_one_clear_value_error(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

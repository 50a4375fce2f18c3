"""Arrays for tests."""

from __future__ import annotations

import numpy as np


def symmetric(rng: np.random.Generator, *shape: int) -> np.ndarray:
    array = rng.normal(size=shape)
    return (array + np.swapaxes(array, -1, -2)) / 2

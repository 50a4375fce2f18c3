"""Arrays for tests."""

from __future__ import annotations

import numpy as np


def symmetric(rng: np.random.Generator, *shape: int) -> np.ndarray:
    array = rng.normal(size=shape)
    return (array + np.swapaxes(array, -1, -2)) / 2


def normal(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def orthogonal(*shape: int, seed: int) -> np.ndarray:
    return np.linalg.qr(normal(*shape, seed=seed))[0]

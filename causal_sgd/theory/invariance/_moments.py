"""Checks and parts of moments that a caller hands over."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from causal_sgd import checks

__all__ = ["all_sets", "checked_moments", "checked_set", "environment_weights", "shape_of_moments"]


def shape_of_moments(name: str, second: object) -> tuple[int, int]:
    """The numbers of environments E and of inputs p of moments [E, q, q], q = p + 2."""
    checks.number(name, second, scalar=False, double=True)
    shape = np.shape(second)  # type: ignore[arg-type]
    if len(shape) != 3 or shape[1] != shape[2] or not shape[0] or shape[1] < 3:
        raise ValueError(
            f"{name} must have the shape [E, q, q] of moments of (x, y, 1), got {list(shape)}"
        )
    return shape[0], shape[1] - 2


def checked_moments(name: str, second: ArrayLike) -> np.ndarray:
    """Moments [E, q, q] in double precision.

    Raises:
        ValueError: if they are traced, or no moments.
    """
    array = checks.concrete(second)
    if array is None:
        raise ValueError(f"{name} must be concrete, got a traced value")
    shape_of_moments(name, second)
    moments = np.asarray(array, np.float64)
    if not np.allclose(moments, np.swapaxes(moments, 1, 2), rtol=1e-5, atol=1e-6):
        raise ValueError(f"{name} must be symmetric matrices [E, q, q]")
    return (moments + np.swapaxes(moments, 1, 2)) / 2


def checked_set(name: str, chosen: ArrayLike, dim: int) -> np.ndarray:
    """A set of inputs as [p] bool."""
    array = checks.concrete(chosen)
    if array is None or array.dtype != bool or array.shape != (dim,):
        raise ValueError(f"{name} must be truth values of shape [{dim}], got {chosen!r}")
    return array


def all_sets(dim: int) -> np.ndarray:
    """All sets of inputs, [2^p, p] bool; bit j of the row's number is input j."""
    return (np.arange(2**dim)[:, None] >> np.arange(dim)) % 2 == 1


def environment_weights(probabilities: ArrayLike | None, size: int) -> np.ndarray:
    """Probabilities [E] of environments, equal by default."""
    if probabilities is None:
        return np.full(size, 1 / size)
    checks.probabilities("probabilities", probabilities, size)
    array = checks.concrete(probabilities)
    if array is None:
        raise ValueError("probabilities must be concrete, got a traced value")
    return np.asarray(array, np.float64)

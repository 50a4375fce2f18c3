"""The world of given moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._known import known_inputs, known_weights
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._placement import Numbers, numbers_of, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["from_moments"]

PARTS = ("xx", "xy", "yy", "means")


def from_moments(
    second: np.ndarray | Array | tuple[Any, Any, Any, Any],
    counts: Numbers | None = None,
    *,
    target: Numbers | None = None,
    causal: Sequence[int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """The world with given moments in every environment; what is drawn from it is Gaussian.

    Args:
        second: S_e = E z z' of z = (x, y, 1), [E, q, q]; or (xx, xy, yy, means) with E x x'
            [E, p, p], E x y [E, p], E y^2 [E] and the means of (x, y) [E, p + 1].
        counts: of how many examples they are the moments, [E]; None for a population.
        target: w* [p], where it is known.
        causal: places of the inputs that the label depends on, where they are known.
        probabilities: [E], how often each environment is drawn; None for in proportion to the
            counts, or equally often.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if a shape is wrong, or the moments of an environment, which is named, are not
            symmetric, have no 1 at the end or are not positive semidefinite.
    """
    values = _given_moments(second)
    size, dim = values.shape[0], values.shape[-1] - 2
    roots = np.stack([_root(moments, index) for index, moments in enumerate(values)])
    means = values[:, :-1, -1]
    rows = None
    if counts is not None:
        rows = numbers_of("counts", counts, (size,), minimum=1)
    weights, mask = known_weights(target, dim), known_inputs(causal, None, dim)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)

    def world(key: Key) -> LinearWorld:
        del key
        mixing = jnp.asarray(roots, float)
        shares = weights_of(probabilities, size)
        sizes = None if rows is None else jnp.asarray(rows, float)
        if probabilities is None and sizes is not None:
            shares = sizes / jnp.sum(sizes)
        return LinearWorld(
            mixing=mixing,
            means=jnp.asarray(means, float),
            target=jnp.asarray(weights, float),
            causal=jnp.asarray(mask),
            unscramble=jnp.eye(dim),
            test_mixing=mixing[:0],
            test_means=jnp.zeros((0, dim + 1)),
            probabilities=shares,
            counts=sizes,
        )

    return world


def _given_moments(second: Any) -> np.ndarray:
    """Moments [E, q, q] in double precision, of the right shape and finite."""
    if isinstance(second, tuple):
        if len(second) != 4:
            raise ValueError(f"second must be (xx, xy, yy, means), got {len(second)} arrays")
        xx, xy, yy, means = (
            _concrete(name, part) for name, part in zip(PARTS, second, strict=True)
        )
        if xx.ndim != 3 or not xx.shape[0] or xx.shape[1] != xx.shape[2]:
            raise ValueError(f"xx must have shape [E, p, p], got {list(xx.shape)}")
        size, dim = xx.shape[:2]
        shapes = ((size, dim), (size,), (size, dim + 1))
        for name, part, shape in zip(PARTS[1:], (xy, yy, means), shapes, strict=True):
            if part.shape != shape:
                raise ValueError(f"{name} must have shape {list(shape)}, got {list(part.shape)}")
        values = np.ones((size, dim + 2, dim + 2))
        values[:, :dim, :dim] = xx
        values[:, :dim, dim] = values[:, dim, :dim] = xy
        values[:, dim, dim] = yy
        values[:, :-1, -1] = values[:, -1, :-1] = means
        return values
    values = _concrete("second", second)
    square = values.ndim == 3 and values.shape[1] == values.shape[2] >= 3
    if not square or not values.shape[0]:
        raise ValueError(
            f"second must have shape [E, q, q] with E >= 1 and q >= 3, got {list(values.shape)}"
        )
    return values


def _concrete(name: str, value: Any) -> np.ndarray:
    found = checks.concrete(value)
    if found is None:
        raise ValueError(f"{name} must be a concrete array, got a traced one")
    checks.number(name, found, scalar=False, double=True)
    return found.astype(np.float64)


def _root(second: np.ndarray, index: int) -> np.ndarray:
    """A root [p + 1, p + 1] of the covariance of (x, y), from moments [q, q]."""
    place = f"in environment {index}"
    size = np.abs(second).max()
    if np.abs(second - second.T).max() > 1e-5 * size:
        raise ValueError(f"second must be symmetric, got a matrix {place} that is not")
    if abs(second[-1, -1] - 1) > 1e-5:
        raise ValueError(
            f"second must have a 1 at the end of its diagonal, the moment of the constant, got "
            f"{second[-1, -1]:g} {place}"
        )
    mean = second[:-1, -1]
    covariance = (second[:-1, :-1] + second[:-1, :-1].T) / 2 - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-6 * size:
        raise ValueError(
            f"second must be positive semidefinite, got a covariance with the eigenvalue "
            f"{values[0]:g} {place}"
        )
    return vectors * np.sqrt(np.maximum(values, 0))

"""Covariances of prompts: one for all environments or one for each."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array

__all__ = ["Covariance", "Roots", "check", "roots"]

TOLERANCE = 1e-5  # of symmetry
Covariance: TypeAlias = float | np.ndarray | Array


class Roots(NamedTuple):
    """Symmetric square roots of the covariances, of one for all environments or of each."""

    inputs: Array  # [1, d, d] or [E, d, d]  S^(1/2)
    tasks: Array  # [1, d, d] or [E, d, d]  W^(1/2)

    def of(self, environments: Array) -> Roots:
        """Those of some environments [B], or the common ones."""
        return Roots(*(part if part.shape[0] == 1 else part[environments] for part in self))


def check(name: str, value: Covariance) -> None:
    """Refuse what is no positive number, variances, matrix or matrices."""
    checks.number(name, value, scalar=False, double=True)
    shape = np.shape(value)
    if len(shape) > 3 or (len(shape) > 1 and shape[-1] != shape[-2]) or 0 in shape:
        raise ValueError(
            f"{name} must be a number or have shape [d], [d, d] or [E, d, d], got shape {shape}"
        )
    given = checks.concrete(value)
    if given is None:
        return
    if len(shape) < 2:
        checks.number(name, value, above=0, scalar=False)
        return
    matrices = given.astype(float)
    mirrored = np.swapaxes(matrices, -1, -2)
    if np.abs(matrices - mirrored).max() > TOLERANCE * np.abs(matrices).max():
        raise ValueError(f"{name} must be symmetric, got entries that differ from their mirrors")
    least = np.linalg.eigvalsh((matrices + mirrored) / 2).min()
    if least <= 0:
        raise ValueError(f"{name} must be positive definite, got an eigenvalue {least:.3g}")


def roots(
    world: World,
    covariance: Covariance,
    task_covariance: Covariance,
) -> Roots:
    """The square roots of both covariances; a ValueError where they do not fit the world."""
    return Roots(
        _root("covariance", covariance, world), _root("task_covariance", task_covariance, world)
    )


def _root(name: str, value: Covariance, world: World) -> Array:
    """The symmetric square roots, [1, d, d] or [E, d, d]."""
    dim, size = world.estimate_shape[0], world.probabilities.shape[0]
    fits = ((), (dim,), (dim, dim), (size, dim, dim))
    if np.shape(value) not in fits:
        raise ValueError(
            f"{name} must be a number or have shape {[dim]}, {[dim, dim]} or {[size, dim, dim]} in "
            f"this world, got shape {list(np.shape(value))}"
        )
    values = jnp.asarray(value, world.invariant_basis.dtype)
    if values.ndim < 2:
        return jnp.diag(jnp.broadcast_to(jnp.sqrt(values), (dim,)))[None]
    return jax.vmap(_root_of_matrix)(values.reshape(-1, dim, dim))


def _root_of_matrix(matrix: Array) -> Array:
    values, vectors = linalg.eigh((matrix + matrix.T) / 2)
    return linalg.product(vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :], vectors.T)

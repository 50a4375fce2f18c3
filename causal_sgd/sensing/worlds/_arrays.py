"""Worlds with given signals, from arrays or from a file."""

from __future__ import annotations

import zipfile
import zlib
from os import PathLike

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sensing.worlds._assembly import environment_weights
from causal_sgd.sensing.worlds._world import World, WorldFactory
from causal_sgd.types import Array, Key


def from_arrays(
    invariant: np.ndarray | Array,
    spurious: np.ndarray | Array,
    *,
    probabilities: np.ndarray | Array | None = None,
    tolerance: float = 1e-6,
) -> WorldFactory:
    """A world with given signals; their ranks and subspaces are computed for the metrics.

    Args:
        invariant: A*, [d, d], symmetric and not zero; eigenvalues may have any sign.
        spurious: A_e, [E, d, d], symmetric. V becomes an orthonormal basis of the span of all their
            columns; it has no columns if all A_e are zero.
        probabilities: [E], how often each environment is drawn; None for equally often.
        tolerance: singular values below `tolerance` times the largest count as zero.

    Returns:
        A function key -> World that returns the same world for every key.

    Raises:
        ValueError: if a shape is wrong, or an array is not finite, not symmetric or not concrete,
            or A* is zero.
    """
    shared = _concrete("invariant", invariant)
    own = _concrete("spurious", spurious)
    dim = shared.shape[0] if shared.ndim == 2 else 0
    if dim == 0 or shared.shape != (dim, dim):
        raise ValueError(f"invariant must be a square matrix [d, d], got shape {shared.shape}")
    if own.ndim != 3 or own.shape[0] == 0 or own.shape[1:] != (dim, dim):
        raise ValueError(
            f"spurious must have shape [E, {dim}, {dim}] to match invariant, got {own.shape}"
        )
    for name, array in (("invariant", shared), ("spurious", own)):
        asymmetry = np.abs(array - np.swapaxes(array, -1, -2)).max()
        if asymmetry > 1e-5 * max(np.abs(array).max(), 1e-30):
            raise ValueError(f"{name} must be symmetric, got entries that differ by {asymmetry:g}")
    checks.number("tolerance", tolerance, above=0, maximum=1)
    values, vectors = np.linalg.eigh((shared + shared.T) / 2)
    order = np.argsort(-np.abs(values))
    order = order[np.abs(values[order]) > tolerance * np.abs(values).max()]
    if not len(order):
        raise ValueError("invariant must not be zero: there would be nothing to learn")
    left, singular, _ = np.linalg.svd(np.concatenate(list(own), axis=1), full_matrices=False)
    basis = left[:, singular > tolerance * max(singular[0], 1e-30)]
    cores = basis.T @ own @ basis
    dtype = jnp.result_type(float)
    weights = environment_weights(probabilities, len(own))

    def draw(key: Key) -> World:
        del key  # nothing is random
        return World(
            invariant_basis=jnp.asarray(vectors[:, order], dtype),
            invariant_spectrum=jnp.asarray(values[order], dtype),
            spurious_basis=jnp.asarray(basis, dtype),
            spurious_cores=jnp.asarray((cores + np.swapaxes(cores, 1, 2)) / 2, dtype),
            probabilities=jnp.asarray(weights, dtype),
        )

    return draw


def _concrete(name: str, value: np.ndarray | Array) -> np.ndarray:
    array = checks.concrete(value)
    if array is None:
        raise ValueError(
            f"{name} must be a concrete array (its rank is computed), got a traced one"
        )
    checks.number(name, array, scalar=False, double=True)
    # An entry far below the largest one may become zero, a matrix as a whole may not.
    checks.representable(name, float(np.abs(array).max(initial=0)))
    return array.astype(np.float64)


def from_file(path: str | PathLike[str]) -> WorldFactory:
    """`from_arrays` for an .npz file.

    Args:
        path: a file with the arrays `invariant` [d, d], `spurious` [E, d, d] and, optionally,
            `probabilities` [E]. Nothing is unpickled.

    Raises:
        ValueError: if the file is missing, is not such an archive, or holds other arrays; see
            `from_arrays`.
    """
    path = checks.path("path", path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"world file must be an .npz archive of plain arrays, got {path}: {error}"
        ) from None
    missing = {"invariant", "spurious"} - set(arrays)
    unexpected = set(arrays) - {"invariant", "spurious", "probabilities"}
    if missing or unexpected:
        raise ValueError(
            "world file must hold the arrays invariant, spurious and, optionally, probabilities, "
            f"got {sorted(arrays)} in {path}"
        )
    return from_arrays(
        arrays["invariant"], arrays["spurious"], probabilities=arrays.get("probabilities")
    )

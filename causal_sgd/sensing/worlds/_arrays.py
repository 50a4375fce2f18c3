"""Worlds of the user's own signals, from arrays or from a file."""

from __future__ import annotations

import zipfile
import zlib
from os import PathLike

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sensing.worlds._assembly import weights_of
from causal_sgd.sensing.worlds._world import World, WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["from_arrays", "from_file"]


def from_arrays(
    invariant: np.ndarray | Array,
    spurious: np.ndarray | Array,
    *,
    probabilities: np.ndarray | Array | None = None,
    tolerance: float = 1e-6,
) -> WorldFactory:
    """A world given by the user's own signals; ranks and subspaces are found for the metrics.

    Args:
        invariant: A*, [d, d], symmetric and not zero; any signs of eigenvalues.
        spurious: A_e, [E, d, d], symmetric; V becomes a basis of the span of all their columns.
        probabilities: [E], how often each environment is met; None for equally often.
        tolerance: singular values below `tolerance` times the largest count as zero.

    Returns:
        A function key -> World that returns the same world for every key.

    Raises:
        ValueError: if a shape is wrong, or an array is not finite, not symmetric or not concrete, or A* is zero.
    """
    named = {"invariant": invariant, "spurious": spurious}
    arrays = {}
    for name, value in named.items():
        array = checks.concrete(value)
        if array is None:
            raise ValueError(
                f"{name} must be a concrete array (its rank is found), got a traced one"
            )
        checks.number(name, array, scalar=False)
        arrays[name] = array.astype(np.float64)
    shared, own = arrays["invariant"], arrays["spurious"]
    dim = shared.shape[0] if shared.ndim == 2 else 0
    if dim == 0 or shared.shape != (dim, dim):
        raise ValueError(f"invariant must be a square matrix [d, d], got shape {shared.shape}")
    if own.ndim != 3 or own.shape[0] == 0 or own.shape[1:] != (dim, dim):
        raise ValueError(
            f"spurious must have shape [E, {dim}, {dim}] to match invariant, got {own.shape}"
        )
    for name, array in arrays.items():
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
    weights = weights_of(probabilities, len(own))

    def draw(key: Key) -> World:
        del key  # nothing is left to chance
        return World(
            invariant_basis=jnp.asarray(vectors[:, order], dtype),
            invariant_spectrum=jnp.asarray(values[order], dtype),
            spurious_basis=jnp.asarray(basis, dtype),
            spurious_cores=jnp.asarray((cores + np.swapaxes(cores, 1, 2)) / 2, dtype),
            probabilities=jnp.asarray(weights, dtype),
        )

    return draw


def from_file(path: str | PathLike[str]) -> WorldFactory:
    """`from_arrays` on an .npz file with `invariant` [d, d], `spurious` [E, d, d] and, maybe, `probabilities` [E].

    Args:
        path: the file; it is read without unpickling anything.

    Raises:
        ValueError: if the file is missing, is not such an archive, or holds something else; see `from_arrays`.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"world file must be an .npz archive of plain arrays, got {path}: {error}"
        ) from None
    missing = {"invariant", "spurious"} - set(arrays)
    unknown = set(arrays) - {"invariant", "spurious", "probabilities"}
    if missing or unknown:
        raise ValueError(
            "world file must hold the arrays invariant, spurious and, maybe, probabilities, "
            f"got {sorted(arrays)} in {path}"
        )
    return from_arrays(
        arrays["invariant"], arrays["spurious"], probabilities=arrays.get("probabilities")
    )

"""Worlds with given signals, from arrays or from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

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
        tolerance: what is smaller than `tolerance` times the norm of its matrix counts as zero.

    Every matrix is judged by its own size: it must be symmetric up to 1e-5 of its largest entry,
    and an environment with a tiny signal adds its directions to V as one with a large signal does.
    What is within the rounding of the type of `spurious` counts as zero, too.

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
    _require_symmetry("invariant", shared[None])
    _require_symmetry("spurious", own)
    checks.number("tolerance", tolerance, above=0, maximum=1)
    values, vectors = np.linalg.eigh((shared + shared.T) / 2)
    order = np.argsort(-np.abs(values))
    order = order[np.abs(values[order]) > tolerance * np.abs(values).max()]
    if not len(order):
        raise ValueError("invariant must not be zero: there would be nothing to learn")
    basis = _span(own, max(tolerance, _rounding(spurious)))
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


def _require_symmetry(name: str, matrices: np.ndarray) -> None:
    """Refuse matrices [n, d, d] with entries that differ by more than 1e-5 of the largest."""
    largest = np.abs(matrices).max((1, 2))
    asymmetry = np.abs(matrices - np.swapaxes(matrices, 1, 2)).max((1, 2))
    for index, (size, difference) in enumerate(zip(largest, asymmetry, strict=True)):
        if difference > 1e-5 * size:
            place = f" in environment {index}" if len(matrices) > 1 else ""
            raise ValueError(
                f"{name} must be symmetric, got entries that differ by {difference:g}{place}, "
                f"where the largest is {size:g}"
            )


def _span(matrices: np.ndarray, tolerance: float) -> np.ndarray:
    """An orthonormal basis [d, r] of the columns of matrices [E, d, d], each in units of its norm.

    Args:
        matrices: symmetric; may be zero.
        tolerance: what is smaller is not part of the span.
    """
    norms = np.linalg.norm(matrices, 2, (1, 2))
    scaled = matrices / np.where(norms > 0, norms, 1)[:, None, None]
    left, singular, _ = np.linalg.svd(np.concatenate(list(scaled), axis=1), full_matrices=False)
    return left[:, singular > tolerance]


def _rounding(matrices: np.ndarray | Array) -> float:
    """The singular values that rounding adds to matrices [E, d, d] of norm 1, side by side."""
    array = np.asarray(matrices)
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return 4 * float(np.finfo(kind).eps) * len(array) ** 0.5


def _concrete(name: str, value: np.ndarray | Array) -> np.ndarray:
    array = checks.concrete(value)
    if array is None:
        raise ValueError(
            f"{name} must be a concrete array (its rank is computed), got a traced one"
        )
    checks.number(name, array, scalar=False, double=True)
    # An entry far below the largest one may become zero, a matrix as a whole may not.
    if array.ndim > 1:
        checks.representable(name, np.abs(array).max((-2, -1), initial=0))
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
    return from_archive(path, read_archive(path))


def from_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> WorldFactory:
    """`from_arrays` for what `read_archive` returns; errors name the file."""
    try:
        return from_arrays(
            arrays["invariant"], arrays["spurious"], probabilities=arrays.get("probabilities")
        )
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from None


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file for `from_file`, which states what is allowed and raised."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # of a damaged file any, such as NotImplementedError or MemoryError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"world file must be an .npz archive of plain arrays, got {path} ({reason})"
        ) from None
    missing = {"invariant", "spurious"} - set(arrays)
    unexpected = set(arrays) - {"invariant", "spurious", "probabilities"}
    if missing or unexpected:
        raise ValueError(
            "world file must hold the arrays invariant, spurious and, optionally, probabilities, "
            f"got {sorted(arrays)} in {path}"
        )
    return arrays


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Text that is equal for equal arrays of equal types, whatever file holds them."""
    sums = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        sums.update(f"{name} {plain.dtype.str} {plain.shape} ".encode())
        sums.update(plain.tobytes())
    return f"sha256:{sums.hexdigest()}"

"""How nature is drawn: the invariant signal A* and the spurious signal A_e of every environment.

Every factory checks its arguments and returns a `WorldFactory`, a pure function of a key. The numbers (`mean`, `spread`,
`invariant_spectrum`, `tilt`, `probabilities`) may be traced; dimensions, ranks and numbers of environments are static.
The key decides only the bases and the standardised spectra, so worlds that differ in a number are otherwise the same.
"""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Callable
from os import PathLike

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from causal_sgd import checks, draws, linalg
from causal_sgd.types import Array, Key, World, WorldFactory

__all__ = ["from_arrays", "from_file", "gaussian", "two_point", "uniform"]

FACTORIAL_RANK = 6  # up to this spurious rank, two_point makes one environment for each pattern of signs


def two_point(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    num_environments: int | None = None,
    invariant_spectrum: float | Array = 1.0,
    probabilities: Array | None = None,
    basis: str = "random",
    tilt: float | Array = 0.0,
    balanced: bool = True,
) -> WorldFactory:
    """Spurious eigenvalues `mean` + `spread` or `mean` - `spread`, equally often [XGF; two-point row of the theory].

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        mean: mu, the mean of every spurious eigenvalue over the environments.
        spread: M >= 0, the heterogeneity.
        num_environments: E; None makes one environment for each of the 2^r2 patterns of signs, so that the signs of an
            environment drawn at random are independent (r2 <= 6). A number draws the signs of each direction
            independently.
        invariant_spectrum: the eigenvalues of A*, a number or [r1], all positive.
        probabilities: [E], how often each environment is met; None for equally often.
        basis: "random" for Haar distributed directions, "canonical" for the first coordinate axes.
        tilt: angle in radians by which spurious direction i leans towards invariant direction i (for i < r1).
        balanced: with `num_environments` given, whether each direction has exactly as many plus as minus signs, so that
            the mean over the environments is exactly `mean` (needs an even number).

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.

    >>> world = two_point(dim=10, invariant_rank=2, spurious_rank=1, mean=1.0, spread=6.0)(jax.random.key(0))
    >>> sorted(float(c) for c in world.spurious_cores.ravel())
    [-5.0, 7.0]
    """
    checks.integer("spurious_rank", spurious_rank)
    signs: Callable[[Key], Array]
    if num_environments is None:
        if spurious_rank > FACTORIAL_RANK:
            raise ValueError(
                f"num_environments must be given when spurious_rank is above {FACTORIAL_RANK}, got spurious_rank "
                f"{spurious_rank}: one environment for each pattern of signs would make {2**spurious_rank}"
            )
        patterns = np.array(list(itertools.product([1.0, -1.0], repeat=spurious_rank)), np.float32)
        num_environments = len(patterns)
        signs = lambda key: jnp.asarray(patterns)  # noqa: E731
    else:
        checks.integer("num_environments", num_environments)
        if balanced and num_environments % 2:
            raise ValueError(
                f"num_environments must be even for balanced two-point signs, got {num_environments} "
                "(or pass balanced=False)"
            )
        signs = _spectra(lambda u: jnp.where(u < 0.5, -1.0, 1.0), num_environments, spurious_rank, balanced)
    return _family(
        signs, dim, invariant_rank, spurious_rank, mean, spread, num_environments, invariant_spectrum,
        probabilities, basis, tilt,
    )  # fmt: skip


def uniform(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    invariant_spectrum: float | Array = 1.0,
    probabilities: Array | None = None,
    basis: str = "random",
    tilt: float | Array = 0.0,
    balanced: bool = False,
) -> WorldFactory:
    """Spurious eigenvalues uniform on [`mean` - `spread`, `mean` + `spread`], independent over directions.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        num_environments: E, how many environments are drawn.
        mean: mu, the centre of the eigenvalues.
        spread: M >= 0, the half-width.
        invariant_spectrum: the eigenvalues of A*, a number or [r1], all positive.
        probabilities: [E], how often each environment is met; None for equally often.
        basis: "random" or "canonical", as in `two_point`.
        tilt: angle in radians, as in `two_point`.
        balanced: False draws the eigenvalues independently. True takes the E mid-quantiles of the distribution in
            an order drawn for each direction, so that the mean over the environments is exactly `mean`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    spectra = _spectra(lambda u: 2 * u - 1, num_environments, spurious_rank, balanced)
    return _family(
        spectra, dim, invariant_rank, spurious_rank, mean, spread, num_environments, invariant_spectrum,
        probabilities, basis, tilt,
    )  # fmt: skip


def gaussian(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    invariant_spectrum: float | Array = 1.0,
    probabilities: Array | None = None,
    basis: str = "random",
    tilt: float | Array = 0.0,
    balanced: bool = False,
) -> WorldFactory:
    """Spurious eigenvalues normal with mean `mean` and standard deviation `spread`, independent over directions.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        num_environments: E, how many environments are drawn.
        mean: mu, the mean of the eigenvalues.
        spread: M >= 0, their standard deviation.
        invariant_spectrum: the eigenvalues of A*, a number or [r1], all positive.
        probabilities: [E], how often each environment is met; None for equally often.
        basis: "random" or "canonical", as in `two_point`.
        tilt: angle in radians, as in `two_point`.
        balanced: as in `uniform`: independent draws, or the mid-quantiles in random order.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    spectra = _spectra(ndtri, num_environments, spurious_rank, balanced)
    return _family(
        spectra, dim, invariant_rank, spurious_rank, mean, spread, num_environments, invariant_spectrum,
        probabilities, basis, tilt,
    )  # fmt: skip


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
            raise ValueError(f"{name} must be a concrete array (its rank is found), got a traced one")
        checks.number(name, array, scalar=False)
        arrays[name] = array.astype(np.float64)
    shared, own = arrays["invariant"], arrays["spurious"]
    dim = shared.shape[0] if shared.ndim == 2 else 0
    if dim == 0 or shared.shape != (dim, dim):
        raise ValueError(f"invariant must be a square matrix [d, d], got shape {shared.shape}")
    if own.ndim != 3 or own.shape[0] == 0 or own.shape[1:] != (dim, dim):
        raise ValueError(f"spurious must have shape [E, {dim}, {dim}] to match invariant, got {own.shape}")
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
    weights = _weights(probabilities, len(own))

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
        raise ValueError(f"world file must be an .npz archive of plain arrays, got {path}: {error}") from None
    missing = {"invariant", "spurious"} - set(arrays)
    unknown = set(arrays) - {"invariant", "spurious", "probabilities"}
    if missing or unknown:
        raise ValueError(
            "world file must hold the arrays invariant, spurious and, maybe, probabilities, "
            f"got {sorted(arrays)} in {path}"
        )
    return from_arrays(arrays["invariant"], arrays["spurious"], probabilities=arrays.get("probabilities"))


def _spectra(
    quantile: Callable[[Array], Array], num_environments: int, spurious_rank: int, balanced: bool
) -> Callable[[Key], Array]:
    """The standardised spectra key -> [E, r2] of a distribution given by its quantile function."""
    checks.integer("num_environments", num_environments)
    checks.integer("spurious_rank", spurious_rank)

    def draw(key: Key) -> Array:
        shape = (num_environments, spurious_rank)
        if not balanced:
            words = draws.bits(key, num_environments * spurious_rank).reshape(shape)
            return quantile(draws.uniforms(words, jnp.result_type(float)) + 2**-24)  # the middles of the cells: never 0
        middle = (jnp.arange(num_environments) + 0.5) / num_environments
        grid = jnp.broadcast_to(quantile(middle)[:, None], shape)
        return jax.random.permutation(key, grid, axis=0, independent=True)

    return draw


def _family(
    spectra: Callable[[Key], Array],
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float | Array,
    spread: float | Array,
    num_environments: int,
    invariant_spectrum: float | Array,
    probabilities: Array | None,
    basis: str,
    tilt: float | Array,
) -> WorldFactory:
    """Check the arguments that all families share and put a world together."""
    checks.integer("dim", dim)
    checks.integer("invariant_rank", invariant_rank, maximum=dim)
    checks.integer("spurious_rank", spurious_rank, maximum=dim)
    if invariant_rank + spurious_rank > dim:
        raise ValueError(
            f"invariant_rank + spurious_rank must be at most dim ({dim}) to leave room for orthogonal signals, "
            f"got {invariant_rank} + {spurious_rank}"
        )
    checks.number("mean", mean)
    checks.number("spread", spread, minimum=0)
    checks.number("tilt", tilt)
    checks.choice("basis", basis, ("random", "canonical"))
    checks.number("invariant_spectrum", invariant_spectrum, above=0, scalar=False)
    shape = tuple(np.shape(invariant_spectrum))
    if shape not in ((), (invariant_rank,)):
        raise ValueError(f"invariant_spectrum must be a number or have shape ({invariant_rank},), got shape {shape}")
    weights = _weights(probabilities, num_environments)

    def draw(key: Key) -> World:
        basis_key, spectrum_key = draws.fold_in(key, 0), draws.fold_in(key, 1)
        rank = invariant_rank + spurious_rank
        if basis == "random":
            normals = draws.normals(draws.bits(basis_key, dim * rank), jnp.result_type(float))
            frame, triangle = linalg.qr(normals.reshape(dim, rank))
            frame = frame * jnp.sign(jnp.diagonal(triangle))[None, :]  # Haar, not LAPACK's choice of signs
        else:
            frame = jnp.eye(dim, rank)
        shared, own = frame[:, :invariant_rank], frame[:, invariant_rank:]
        lean = jnp.zeros_like(own).at[:, :invariant_rank].set(shared[:, :spurious_rank])
        leaning = (jnp.arange(spurious_rank) < invariant_rank)[None, :]
        angle = jnp.asarray(tilt, frame.dtype)
        own = jnp.where(leaning, jnp.cos(angle) * own + jnp.sin(angle) * lean, own)
        eigenvalues = mean + spread * spectra(spectrum_key)
        return World(
            invariant_basis=shared,
            invariant_spectrum=jnp.broadcast_to(jnp.asarray(invariant_spectrum, frame.dtype), (invariant_rank,)),
            spurious_basis=own,
            spurious_cores=jnp.eye(spurious_rank)[None] * eigenvalues[:, :, None],
            probabilities=jnp.asarray(weights, frame.dtype),
        )

    return draw


def _weights(probabilities: Array | np.ndarray | None, num_environments: int) -> Array | np.ndarray:
    if probabilities is None:
        return np.full(num_environments, 1 / num_environments)
    return checks.probabilities("probabilities", probabilities, num_environments)

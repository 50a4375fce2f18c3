"""What the families share: the geometry of the signals, their checks, and how a world is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.worlds._world import World, WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["Geometry", "assemble", "diagonal", "per_direction", "quantiles", "weights_of"]


class Geometry(TypedDict, total=False):
    """The options of every family.

    Attributes:
        invariant_spectrum: the eigenvalues of A*, a number or [r1], all positive; 1 unless given.
        probabilities: [E], how often each environment is met; None for equally often.
        basis: "random" for Haar distributed directions, "canonical" for the first coordinate axes.
        tilt: angle in radians by which spurious direction i leans towards invariant direction i (for i < r1).
        rotation: in [0, 1], how far each environment turns the eigenbasis of its spurious signal within the span of V: its
            core becomes Q_e C_e Q_e' with Q_e the Gram-Schmidt frame of (1 - rotation) I + rotation G_e and G_e [r2, r2]
            standard normal. At 0 all environments share one eigenbasis and their cores commute (nothing is drawn where it
            is a plain 0), at 1 the Q_e are independent and exactly Haar distributed.
    """

    invariant_spectrum: float | Array | np.ndarray
    probabilities: Array | np.ndarray | None
    basis: str
    tilt: float | Array
    rotation: float | Array


def assemble(
    cores: Callable[[Key], Array],
    num_environments: int,
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    invariant_spectrum: Any = 1.0,
    probabilities: Any = None,
    basis: str = "random",
    tilt: float | Array = 0.0,
    rotation: float | Array = 0.0,
) -> WorldFactory:
    """Check the arguments that all families share and put a world together.

    Args:
        cores: key -> spurious cores [E, r2, r2].
        num_environments: E.
        dim: d.
        invariant_rank: r1.
        spurious_rank: r2.
        invariant_spectrum: as in `Geometry`, like all that follow.
        probabilities: [E] or None.
        basis: "random" or "canonical".
        tilt: in radians.
        rotation: in [0, 1].

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    checks.integer("dim", dim)
    checks.integer("invariant_rank", invariant_rank, maximum=dim)
    checks.integer("spurious_rank", spurious_rank, maximum=dim)
    if invariant_rank + spurious_rank > dim:
        raise ValueError(
            f"invariant_rank + spurious_rank must be at most dim ({dim}) to leave room for orthogonal signals, "
            f"got {invariant_rank} + {spurious_rank}"
        )
    checks.number("tilt", tilt)
    checks.number("rotation", rotation, minimum=0, maximum=1)
    checks.choice("basis", basis, ("random", "canonical"))
    checks.number("invariant_spectrum", invariant_spectrum, above=0, scalar=False)
    shape = tuple(np.shape(invariant_spectrum))
    if shape not in ((), (invariant_rank,)):
        raise ValueError(
            f"invariant_spectrum must be a number or have shape ({invariant_rank},), got shape {shape}"
        )
    weights = weights_of(probabilities, num_environments)
    known = checks.concrete(rotation)
    turned = known is None or bool(known.any())

    def draw(key: Key) -> World:
        basis_key, spectrum_key, rotation_key = random.fold_in(key, jnp.arange(3))
        rank = invariant_rank + spurious_rank
        if basis == "random":
            normals = random.normals(basis_key, (dim, rank), jnp.result_type(float))
            frame, triangle = linalg.qr(normals.reshape(dim, rank))
            frame = (
                frame * jnp.sign(jnp.diagonal(triangle))[None, :]
            )  # Haar, not LAPACK's choice of signs
        else:
            frame = jnp.eye(dim, rank)
        shared, own = frame[:, :invariant_rank], frame[:, invariant_rank:]
        lean = jnp.zeros_like(own).at[:, :invariant_rank].set(shared[:, :spurious_rank])
        leaning = (jnp.arange(spurious_rank) < invariant_rank)[None, :]
        angle = jnp.asarray(tilt, frame.dtype)
        own = jnp.where(leaning, jnp.cos(angle) * own + jnp.sin(angle) * lean, own)
        own_cores = cores(spectrum_key).astype(frame.dtype)
        return World(
            invariant_basis=shared,
            invariant_spectrum=jnp.broadcast_to(
                jnp.asarray(invariant_spectrum, frame.dtype), (invariant_rank,)
            ),
            spurious_basis=own,
            spurious_cores=_rotated(rotation_key, own_cores, rotation) if turned else own_cores,
            probabilities=jnp.asarray(weights, frame.dtype),
        )

    return draw


def _rotated(key: Key, cores: Array, rotation: float | Array) -> Array:
    """Each core [E, r2, r2] in a frame of its own."""
    size = cores.shape[-1]
    normals = random.normals(key, cores.shape, cores.dtype)
    share = jnp.asarray(rotation, cores.dtype)
    # Gram-Schmidt leaves the diagonal of the triangle positive, which is what makes the frame of normals Haar.
    frames = jax.vmap(linalg.orthonormal)((1 - share) * jnp.eye(size)[None] + share * normals)
    turned = jnp.einsum("eij,ejk,elk->eil", frames, cores, frames, precision="highest")
    return (turned + jnp.swapaxes(turned, 1, 2)) / 2


def diagonal(eigenvalues: Array) -> Array:
    """The cores [E, r2, r2] of eigenvalues [E, r2] in a common basis."""
    return jnp.eye(eigenvalues.shape[1])[None] * eigenvalues[:, :, None]


def per_direction(
    name: str, value: Any, spurious_rank: int, *, minimum: float | None = None, **limit: float
) -> Any:
    """A number as it is, or numbers [r2] as a row [1, r2], checked."""
    checks.number(name, value, scalar=False, minimum=minimum, **limit)
    shape = tuple(np.shape(value))
    if shape not in ((), (spurious_rank,)):
        raise ValueError(
            f"{name} must be a number or have shape ({spurious_rank},), got shape {shape}"
        )
    return value if shape == () else jnp.asarray(value)[None, :]


def quantiles(
    num_environments: int, spurious_rank: int, balanced: bool
) -> Callable[[Key, Callable], Array]:
    """How probabilities become standardised spectra: (key, quantile function) -> [E, r2].

    Independent draws by inversion, or the E mid-quantiles in an order drawn for each direction.
    """
    checks.integer("num_environments", num_environments)
    checks.integer("spurious_rank", spurious_rank)

    def draw(key: Key, quantile: Callable[[Array], Array]) -> Array:
        shape = (num_environments, spurious_rank)
        if not balanced:
            words = random.bits(key, num_environments * spurious_rank).reshape(shape)
            return quantile(
                random.uniforms(words, jnp.result_type(float)) + 2**-24
            )  # the middles of the cells: never 0
        middle = (jnp.arange(num_environments) + 0.5) / num_environments
        grid = jnp.broadcast_to(quantile(middle)[:, None], shape)
        return jax.random.permutation(key, grid, axis=0, independent=True)

    return draw


def weights_of(probabilities: Any, num_environments: int) -> Any:
    """The probabilities [E], checked; equal ones for None."""
    if probabilities is None:
        return np.full(num_environments, 1 / num_environments)
    return checks.probabilities("probabilities", probabilities, num_environments)

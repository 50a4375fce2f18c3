"""What the families share: the geometry of the signals, checks, and the assembly of a world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.worlds._world import World, WorldFactory
from causal_sgd.types import Array, Key

Numbers = float | Array | np.ndarray


class Geometry(TypedDict, total=False):
    """The options of every family.

    Attributes:
        invariant_spectrum: the eigenvalues of A*, a number or [r1], all positive; 1 by default.
        probabilities: [E], how often each environment is drawn; None for equally often.
        basis: "random" for Haar distributed directions, "canonical" for the first coordinate axes.
            In a random frame the rounding of the parameters feeds or freezes components below about
            1e-7 of the largest (single precision); along coordinate axes each keeps its own digits.
            The frame matters for no distribution where model and measurement are isotropic.
        tilt: angle in radians by which spurious direction i leans towards invariant direction i
            (for i < r1).
        rotation: in [0, 1], how far each environment rotates the eigenbasis of its spurious signal
            within the span of V. The core becomes Q_e C_e Q_e', with Q_e the Gram-Schmidt frame of
            (1 - rotation) I + rotation G_e and G_e [r2, r2] standard normal. At 0 all environments
            share one eigenbasis and their cores commute (for a plain 0 nothing is drawn), at 1 the
            Q_e are independent and exactly Haar distributed.
    """

    invariant_spectrum: Numbers
    probabilities: Array | np.ndarray | None
    basis: Literal["random", "canonical"]
    tilt: float | Array
    rotation: float | Array


def assemble(
    cores: Callable[[Key], Array],
    num_environments: int,
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    invariant_spectrum: Numbers = 1.0,
    probabilities: Array | np.ndarray | None = None,
    basis: Literal["random", "canonical"] = "random",
    tilt: float | Array = 0.0,
    rotation: float | Array = 0.0,
) -> WorldFactory:
    """Check the arguments that all families share and put a world together.

    Args:
        cores: key -> spurious cores [E, r2, r2].
        num_environments: E.
        dim: d.
        invariant_rank: r1.
        spurious_rank: r2; may be 0.
        invariant_spectrum: as in `Geometry`, like all that follow.
        probabilities: [E] or None.
        basis: "random" or "canonical".
        tilt: in radians, from -pi/2 to pi/2.
        rotation: in [0, 1].

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    checks.integer("dim", dim)
    checks.integer("invariant_rank", invariant_rank, maximum=dim)
    checks.integer("spurious_rank", spurious_rank, minimum=0, maximum=dim)
    if invariant_rank + spurious_rank > dim:
        raise ValueError(
            f"invariant_rank + spurious_rank must be at most dim ({dim}), as the signals are "
            f"orthogonal, got {invariant_rank} + {spurious_rank}"
        )
    checks.angle("tilt", tilt)
    checks.number("rotation", rotation, minimum=0, maximum=1)
    checks.choice("basis", basis, ("random", "canonical"))
    checks.number("invariant_spectrum", invariant_spectrum, above=0, scalar=False)
    shape = tuple(np.shape(invariant_spectrum))
    if shape not in ((), (invariant_rank,)):
        raise ValueError(
            f"invariant_spectrum must be a number or have shape ({invariant_rank},), "
            f"got shape {shape}"
        )
    weights = environment_weights(probabilities, num_environments)

    def draw(key: Key) -> World:
        # Three keys whatever the options are, so that no option changes the draws of another part.
        basis_key, spectrum_key, rotation_key = random.fold_in(key, jnp.arange(3))
        frame = _frame(basis_key, dim, invariant_rank + spurious_rank, basis)
        shared, own = frame[:, :invariant_rank], frame[:, invariant_rank:]
        lean = jnp.zeros_like(own).at[:, :invariant_rank].set(shared[:, :spurious_rank])
        leaning = (jnp.arange(spurious_rank) < invariant_rank)[None, :]
        angle = jnp.asarray(tilt, frame.dtype)
        own = jnp.where(leaning, jnp.cos(angle) * own + jnp.sin(angle) * lean, own)
        spurious_cores = cores(spectrum_key).astype(frame.dtype)
        if not checks.is_zero(rotation):
            spurious_cores = _rotated(rotation_key, spurious_cores, rotation)
        spectrum = jnp.asarray(invariant_spectrum, frame.dtype)
        return World(
            invariant_basis=shared,
            invariant_spectrum=jnp.broadcast_to(spectrum, (invariant_rank,)),
            spurious_basis=own,
            spurious_cores=spurious_cores,
            probabilities=jnp.asarray(weights, frame.dtype),
        )

    return draw


def _frame(key: Key, dim: int, rank: int, basis: str) -> Array:
    """Orthonormal columns [d, r]."""
    if basis == "canonical":
        return jnp.eye(dim, rank)
    normals = random.normals(key, (dim, rank), jnp.result_type(float))
    frame, triangle = linalg.qr(normals)
    # The frame of normals is Haar distributed only if the diagonal of the triangle is positive.
    return frame * jnp.sign(jnp.diagonal(triangle))[None, :]


def _rotated(key: Key, cores: Array, rotation: float | Array) -> Array:
    """Cores [E, r2, r2], each in a frame of its environment; see `Geometry`."""
    size = cores.shape[-1]
    normals = random.normals(key, cores.shape, cores.dtype)
    share = jnp.asarray(rotation, cores.dtype)
    # Gram-Schmidt keeps the diagonal of the triangle positive, so the frame of normals is Haar.
    frames = jax.vmap(linalg.orthonormal)((1 - share) * jnp.eye(size)[None] + share * normals)
    turned = jnp.einsum("eij,ejk,elk->eil", frames, cores, frames, precision="highest")
    return (turned + jnp.swapaxes(turned, 1, 2)) / 2


def diagonal(eigenvalues: Array) -> Array:
    """The cores [E, r2, r2] with eigenvalues [E, r2] in a common basis."""
    size = eigenvalues.shape[1]
    return jnp.eye(size, dtype=eigenvalues.dtype)[None] * eigenvalues[:, :, None]


def per_direction(
    name: str,
    value: Numbers,
    spurious_rank: int,
    *,
    minimum: float | None = None,
    above: float | None = None,
) -> float | Array:
    """A number unchanged, or numbers [r2] as a row [1, r2], checked."""
    checks.number(name, value, scalar=False, minimum=minimum, above=above)
    shape = tuple(np.shape(value))
    if shape not in ((), (spurious_rank,)):
        raise ValueError(
            f"{name} must be a number or have shape ({spurious_rank},), got shape {shape}"
        )
    return working(value) if shape == () else jnp.asarray(working(value))[None, :]


def working(value: Numbers) -> float | Array:
    """Plain numbers unchanged, and arrays in the type in which worlds are computed."""
    if isinstance(value, int | float) and not isinstance(value, np.floating):
        return value
    return jnp.asarray(value, jnp.result_type(float))


def standardised_spectra(
    quantile: Callable[[Array], Array], num_environments: int, spurious_rank: int, balanced: bool
) -> Callable[[Key], Array]:
    """Draw values of a distribution for every environment and direction: key -> [E, r2].

    Independent draws by inversion, or the E mid-quantiles in a random order for each direction.
    """
    shape = (num_environments, spurious_rank)

    def values(probabilities: Array) -> Array:
        result = quantile(probabilities)
        if jnp.shape(result) != probabilities.shape:
            raise ValueError(
                "quantile must map an array of probabilities to an array of the same shape, got "
                f"shape {jnp.shape(result)} for {probabilities.shape}"
            )
        return result

    def draw(key: Key) -> Array:
        if not balanced:
            words = random.bits(key, num_environments * spurious_rank).reshape(shape)
            # The middles of the cells: never 0, where many quantile functions are infinite.
            return values(random.uniforms(words, jnp.result_type(float)) + 2**-24)
        middle = (jnp.arange(num_environments) + 0.5) / num_environments
        grid = jnp.broadcast_to(values(middle)[:, None], shape)
        return jax.random.permutation(key, grid, axis=0, independent=True)

    return draw


def environment_weights(
    probabilities: Array | np.ndarray | None, num_environments: int
) -> Array | np.ndarray:
    """The probabilities [E], checked; equal ones for None."""
    if probabilities is None:
        return np.full(num_environments, 1 / num_environments)
    return checks.probabilities("probabilities", probabilities, num_environments)

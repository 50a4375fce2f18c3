"""Families of worlds, by the distribution of their spurious signals."""

from __future__ import annotations

import itertools
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from causal_sgd import checks, random
from causal_sgd.sensing.worlds._assembly import (
    Geometry,
    assemble,
    diagonal,
    per_direction,
    quantiles,
)
from causal_sgd.sensing.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["discrete", "gaussian", "goe", "log_normal", "two_point", "uniform"]

FACTORIAL_RANK = (
    6  # up to this spurious rank, two_point makes one environment for each pattern of signs
)


def two_point(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    num_environments: int | None = None,
    balanced: bool = True,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious eigenvalues `mean` + `spread` or `mean` - `spread`, equally often [XGF; two-point row of the theory].

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        mean: mu, the mean of the spurious eigenvalues over the environments: a number, or one for each direction [r2].
        spread: M >= 0, the heterogeneity; a number or [r2].
        num_environments: E; None makes one environment for each of the 2^r2 patterns of signs, so that the signs of an
            environment drawn at random are independent (r2 <= 6). A number draws the signs of each direction
            independently.
        balanced: with `num_environments` given, whether each direction has exactly as many plus as minus signs, so that
            the mean over the environments is exactly `mean` (needs an even number).
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.

    >>> world = two_point(dim=10, invariant_rank=2, spurious_rank=1, mean=1.0, spread=6.0)(jax.random.key(0))
    >>> sorted(float(c) for c in world.spurious_cores.ravel())
    [-5.0, 7.0]
    """
    checks.integer("spurious_rank", spurious_rank)
    centre = per_direction("mean", mean, spurious_rank)
    width = per_direction("spread", spread, spurious_rank, minimum=0)
    if num_environments is None:
        if spurious_rank > FACTORIAL_RANK:
            raise ValueError(
                f"num_environments must be given when spurious_rank is above {FACTORIAL_RANK}, got spurious_rank "
                f"{spurious_rank}: one environment for each pattern of signs would make {2**spurious_rank}"
            )
        patterns = np.array(list(itertools.product([1.0, -1.0], repeat=spurious_rank)), np.float32)
        num_environments = len(patterns)

        def signs(key: Key) -> Array:
            return jnp.asarray(patterns)
    else:
        checks.integer("num_environments", num_environments)
        if balanced and num_environments % 2:
            raise ValueError(
                f"num_environments must be even for balanced two-point signs, got {num_environments} "
                "(or pass balanced=False)"
            )
        spectra = quantiles(num_environments, spurious_rank, balanced)

        def signs(key: Key) -> Array:
            return spectra(key, lambda u: jnp.where(u < 0.5, -1.0, 1.0))

    return assemble(
        lambda key: diagonal(centre + width * signs(key)), num_environments,
        dim=dim, invariant_rank=invariant_rank, spurious_rank=spurious_rank, **geometry,
    )  # fmt: skip


def uniform(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    balanced: bool = False,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious eigenvalues uniform on [`mean` - `spread`, `mean` + `spread`], independent over directions.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        num_environments: E, how many environments are drawn.
        mean: mu, the centre of the eigenvalues, a number or [r2].
        spread: M >= 0, the half-width, a number or [r2].
        balanced: False draws the eigenvalues independently. True takes the E mid-quantiles of the distribution in
            an order drawn for each direction, so that the mean over the environments is exactly `mean`.
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    spectra = quantiles(num_environments, spurious_rank, balanced)
    centre = per_direction("mean", mean, spurious_rank)
    width = per_direction("spread", spread, spurious_rank, minimum=0)
    return assemble(
        lambda key: diagonal(centre + width * spectra(key, lambda u: 2 * u - 1)), num_environments,
        dim=dim, invariant_rank=invariant_rank, spurious_rank=spurious_rank, **geometry,
    )  # fmt: skip


def gaussian(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    balanced: bool = False,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious eigenvalues normal with mean `mean` and standard deviation `spread`, independent over directions.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        num_environments: E, how many environments are drawn.
        mean: mu, the mean of the eigenvalues, a number or [r2].
        spread: M >= 0, their standard deviation, a number or [r2].
        balanced: as in `uniform`: independent draws, or the mid-quantiles in random order.
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    spectra = quantiles(num_environments, spurious_rank, balanced)
    centre = per_direction("mean", mean, spurious_rank)
    width = per_direction("spread", spread, spurious_rank, minimum=0)
    return assemble(
        lambda key: diagonal(centre + width * spectra(key, ndtri)), num_environments,
        dim=dim, invariant_rank=invariant_rank, spurious_rank=spurious_rank, **geometry,
    )  # fmt: skip


def log_normal(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 1.0,
    balanced: bool = False,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Positive spurious eigenvalues: log-normal with mean `mean` and standard deviation `spread`, independent over directions.

    s = `mean` exp(w z - w^2 / 2) with z standard normal and w^2 = log(1 + (`spread` / `mean`)^2): however large the
    heterogeneity, no environment contradicts the others in sign.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        num_environments: E, how many environments are drawn.
        mean: mu > 0, the mean of the eigenvalues, a number or [r2].
        spread: M >= 0, their standard deviation, a number or [r2].
        balanced: as in `uniform`: independent draws, or the mid-quantiles in random order, whose own mean and standard
            deviation lie a little below those asked for, as they leave out the tail.
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    spectra = quantiles(num_environments, spurious_rank, balanced)
    centre = per_direction("mean", mean, spurious_rank, above=0)
    width = per_direction("spread", spread, spurious_rank, minimum=0)

    def eigenvalues(key: Key) -> Array:
        variance = jnp.log1p((width / centre) ** 2)  # of log s
        return centre * jnp.exp(jnp.sqrt(variance) * spectra(key, ndtri) - variance / 2)

    return assemble(
        lambda key: diagonal(eigenvalues(key)), num_environments,
        dim=dim, invariant_rank=invariant_rank, spurious_rank=spurious_rank, **geometry,
    )  # fmt: skip


def discrete(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    eigenvalues: Array | np.ndarray,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Given spurious eigenvalues of every environment, with given `probabilities`: few environments, outliers.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions.
        eigenvalues: s_e [E, r2], or [E] for the same value in all directions of an environment; may be traced.
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World; the key decides the directions only.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    checks.integer("spurious_rank", spurious_rank)
    checks.number("eigenvalues", eigenvalues, scalar=False)
    shape = tuple(np.shape(eigenvalues))
    if len(shape) not in (1, 2) or shape[0] == 0 or shape[1:] not in ((), (spurious_rank,)):
        raise ValueError(
            f"eigenvalues must have shape [E] or [E, {spurious_rank}], one row per environment, got shape {shape}"
        )

    def spectra(key: Key) -> Array:
        table = jnp.asarray(eigenvalues, jnp.result_type(float))
        return (
            table if table.ndim == 2 else jnp.broadcast_to(table[:, None], (*shape, spurious_rank))
        )

    return assemble(
        lambda key: diagonal(spectra(key)), shape[0],
        dim=dim, invariant_rank=invariant_rank, spurious_rank=spurious_rank, **geometry,
    )  # fmt: skip


def goe(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: float | Array = 1.0,
    spread: float | Array = 6.0,
    coupling: float | Array = 1.0,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious cores C_e = `mean` I + `spread` W_e with W_e from the Gaussian orthogonal ensemble: no common eigenbasis.

    W_e has N(0, 1) entries on the diagonal and N(0, 1/2) off it, so that x' C_e x is normal with mean `mean` and standard
    deviation `spread` for every unit vector x, as for `gaussian` (which r2 = 1 is); eigenvalues reach out to about
    `mean` +- `spread` sqrt(2 r2).

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the size of the cores.
        num_environments: E, how many environments are drawn.
        mean: mu, the mean of the diagonal.
        spread: M >= 0, the standard deviation of every diagonal entry.
        coupling: in [0, 1]; the entries off the diagonal are multiplied by it. 1 is the ensemble, 0 has the distribution
            of `gaussian`: a common eigenbasis.
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see `assembly.Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    size = checks.integer("spurious_rank", spurious_rank)
    checks.integer("num_environments", num_environments)
    checks.number("mean", mean)
    checks.number("spread", spread, minimum=0)
    checks.number("coupling", coupling, minimum=0, maximum=1)

    def cores(key: Key) -> Array:
        normals = random.normals(
            key, num_environments * random.goe_summand_size(size), jnp.result_type(float)
        )
        ensemble = jax.vmap(random.goe, (0, None))(normals.reshape(num_environments, -1), size)
        identity = jnp.eye(size)
        kept = identity + coupling * (1 - identity)
        return mean * identity[None] + spread * (kept[None] * ensemble)

    return assemble(
        cores,
        num_environments,
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        **geometry,
    )

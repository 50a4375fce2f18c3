"""Families of worlds, by the distribution of their spurious signals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Required, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from causal_sgd import checks, random
from causal_sgd.sensing.worlds._assembly import (
    Geometry,
    Numbers,
    assemble,
    diagonal,
    per_direction,
    standardised_spectra,
    working,
)
from causal_sgd.sensing.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

# Up to this spurious rank, `two_point` has one environment for each pattern of signs.
FACTORIAL_RANK = 6


class Family(Geometry, total=False):
    """The options that families pass on to `from_quantile`, beside `mean` and `spread`."""

    dim: Required[int]
    invariant_rank: Required[int]
    spurious_rank: Required[int]
    num_environments: Required[int]
    balanced: bool


def from_quantile(
    quantile: Callable[[Array], Array],
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    num_environments: int,
    mean: Numbers = 1.0,
    spread: Numbers = 6.0,
    balanced: bool = False,
    transform: Callable[[Array, float | Array, float | Array], Array] | None = None,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious eigenvalues with a given distribution, independent over directions.

    They are `mean` + `spread` q(u) with u uniform on (0, 1) and q the standardised quantile
    function. A family takes two lines:

    >>> def logistic(**options):
    ...     return from_quantile(lambda u: 3**0.5 / jnp.pi * jnp.log(u / (1 - u)), **options)
    >>> ranks = {"dim": 10, "invariant_rank": 2, "spurious_rank": 1}
    >>> world = logistic(**ranks, num_environments=4, spread=3.0)(jax.random.key(0))
    >>> world.spurious_cores.shape
    (4, 1, 1)

    Args:
        quantile: q, the quantile function of the distribution with mean 0 and spread 1 (standard
            deviation 1, say). It is applied elementwise to an array of probabilities in (0, 1).
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions; may be 0.
        num_environments: E, how many environments are drawn.
        mean: mu, the mean of the eigenvalues over the environments, a number or [r2].
        spread: M >= 0, the heterogeneity, a number or [r2].
        balanced: False draws the eigenvalues independently. True takes the E mid-quantiles of the
            distribution in a random order for each direction, so that the mean over the
            environments is `mean`, to rounding, for symmetric distributions. Mid-quantiles leave
            out the tails, so that the deviation is below that of the distribution; see the family.
        transform: (q(u) [E, r2], `mean`, `spread`) -> eigenvalues [E, r2], for distributions that
            are not of the form `mean` + `spread` q(u); the numbers of directions come as [1, r2].
        **geometry: `invariant_spectrum`, `probabilities`, `basis`, `tilt` and `rotation`, see
            `Geometry`.

    Returns:
        A function key -> World.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d; when called, if `quantile`
            changes the shape.
    """
    allowed = "an elementwise function of probabilities, such as jax.scipy.special.ndtri"
    checks.function("quantile", quantile, 1, allowed)
    if transform is not None:
        checks.function("transform", transform, 3, "None or a function (values, mean, spread)")
    checks.integer("num_environments", num_environments)
    checks.integer("spurious_rank", spurious_rank, minimum=0)
    checks.flags(balanced=balanced)
    centre = per_direction("mean", mean, spurious_rank)
    width = per_direction("spread", spread, spurious_rank, minimum=0)
    spectra = standardised_spectra(quantile, num_environments, spurious_rank, balanced)

    def cores(key: Key) -> Array:
        values = spectra(key)
        if transform is None:
            return diagonal(centre + width * values)
        return diagonal(transform(values, centre, width))

    return assemble(
        cores,
        num_environments,
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        **geometry,
    )


def uniform(
    *, mean: Numbers = 1.0, spread: Numbers = 6.0, **options: Unpack[Family]
) -> WorldFactory:
    """Spurious eigenvalues uniform on [`mean` - `spread`, `mean` + `spread`].

    Args:
        mean: mu, the centre of the eigenvalues, a number or [r2].
        spread: M >= 0, the half-width, a number or [r2].
        **options: as for `from_quantile`. With `balanced`, the standard deviation over the
            environments is 0.87, 0.97 and 0.995 of `spread` / sqrt(3) for 2, 4 and 10 of them.
    """
    return from_quantile(lambda u: 2 * u - 1, mean=mean, spread=spread, **options)


def gaussian(
    *, mean: Numbers = 1.0, spread: Numbers = 6.0, **options: Unpack[Family]
) -> WorldFactory:
    """Spurious eigenvalues normal with mean `mean` and standard deviation `spread`.

    Args:
        mean: mu, the mean of the eigenvalues, a number or [r2].
        spread: M >= 0, their standard deviation, a number or [r2].
        **options: as for `from_quantile`. With `balanced`, the standard deviation over the
            environments is 0.67, 0.84, 0.94 and 0.99 of `spread` for 2, 4, 10 and 50 of them.
    """
    return from_quantile(ndtri, mean=mean, spread=spread, **options)


def log_normal(
    *, mean: Numbers = 1.0, spread: Numbers = 1.0, **options: Unpack[Family]
) -> WorldFactory:
    """Spurious eigenvalues log-normal with mean `mean` and standard deviation `spread`.

    s = `mean` exp(w z - w^2 / 2) with z standard normal and w^2 = log(1 + (`spread` / `mean`)^2).
    All are positive: however large the heterogeneity, no environment contradicts the others in
    sign.

    Args:
        mean: mu > 0, the mean of the eigenvalues, a number or [r2].
        spread: M >= 0, their standard deviation, a number or [r2].
        **options: as for `from_quantile`. With `balanced`, the mid-quantiles leave out the heavy
            tail, and the mean and the standard deviation over the environments fall short. For 50
            environments they are 0.99 and 0.90 of `mean` and `spread` at `spread` = `mean`, but
            0.89 and 0.50 of them at `spread` = 3.8 `mean`; for 1000, 0.98 and 0.78 there.
    """
    checks.number("mean", mean, above=0, scalar=False)

    def transform(normals: Array, centre: float | Array, width: float | Array) -> Array:
        variance = jnp.log1p((width / centre) ** 2)  # of log s
        return centre * jnp.exp(jnp.sqrt(variance) * normals - variance / 2)

    return from_quantile(ndtri, mean=mean, spread=spread, transform=transform, **options)


def two_point(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    mean: Numbers = 1.0,
    spread: Numbers = 6.0,
    num_environments: int | None = None,
    balanced: bool = True,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Spurious eigenvalues `mean` + `spread` or `mean` - `spread`, equally often [XGF].

    The theory has a row for it. Arguments not listed are as for `from_quantile`.

    Args:
        dim: d.
        invariant_rank: r1.
        spurious_rank: r2; may be 0.
        mean: mu, the mean of the eigenvalues over the environments, a number or [r2].
        spread: M >= 0, the heterogeneity, a number or [r2].
        num_environments: E. None makes one environment for each of the 2^r2 patterns of signs, so
            that the signs of a random environment are independent (r2 <= 6). A number draws the
            signs of each direction independently.
        balanced: with `num_environments` given, whether each direction has exactly as many plus as
            minus signs, so that the mean over the environments is `mean` to rounding (needs an even
            number).
        **geometry: see `Geometry`.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.

    >>> ranks = {"dim": 10, "invariant_rank": 2, "spurious_rank": 1}
    >>> world = two_point(**ranks, mean=1.0, spread=6.0)(jax.random.key(0))
    >>> sorted(float(core) for core in world.spurious_cores.ravel())
    [-5.0, 7.0]
    """
    checks.integer("spurious_rank", spurious_rank, minimum=0)
    checks.flags(balanced=balanced)
    if num_environments is not None:
        checks.integer("num_environments", num_environments)
        if balanced and num_environments % 2:
            raise ValueError(
                f"num_environments must be even for balanced two-point signs, got "
                f"{num_environments} (or pass balanced=False)"
            )
        return from_quantile(
            lambda u: jnp.where(u < 0.5, -1.0, 1.0),
            dim=dim,
            invariant_rank=invariant_rank,
            spurious_rank=spurious_rank,
            num_environments=num_environments,
            mean=mean,
            spread=spread,
            balanced=balanced,
            **geometry,
        )
    centre = per_direction("mean", mean, spurious_rank)
    width = per_direction("spread", spread, spurious_rank, minimum=0)
    if spurious_rank > FACTORIAL_RANK:
        raise ValueError(
            f"num_environments must be given when spurious_rank is above {FACTORIAL_RANK}, got "
            f"spurious_rank {spurious_rank}: one environment for each pattern of signs would make "
            f"2^{spurious_rank}"
        )
    patterns = np.array(list(itertools.product([1.0, -1.0], repeat=spurious_rank)), float)
    return assemble(
        lambda key: diagonal(centre + width * jnp.asarray(patterns, float)),
        len(patterns),
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        **geometry,
    )


def discrete(
    *,
    dim: int,
    invariant_rank: int,
    spurious_rank: int,
    eigenvalues: Array | np.ndarray,
    **geometry: Unpack[Geometry],
) -> WorldFactory:
    """Given spurious eigenvalues and `probabilities` of every environment.

    It serves for few environments and for outliers. The key decides the directions only.

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the number of spurious directions; may be 0.
        eigenvalues: s_e [E, r2], or [E] for the same value in all directions of an environment; may
            be traced.
        **geometry: see `Geometry`.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    checks.integer("spurious_rank", spurious_rank, minimum=0)
    checks.number("eigenvalues", eigenvalues, scalar=False)
    shape = tuple(np.shape(eigenvalues))
    if len(shape) not in (1, 2) or shape[0] == 0 or shape[1:] not in ((), (spurious_rank,)):
        raise ValueError(
            f"eigenvalues must have shape [E] or [E, {spurious_rank}], one row per environment, "
            f"got shape {shape}"
        )

    def cores(key: Key) -> Array:
        del key  # the spectra are given
        table = jnp.asarray(eigenvalues, jnp.result_type(float))
        if table.ndim == 1:
            table = jnp.broadcast_to(table[:, None], (*shape, spurious_rank))
        return diagonal(table)

    return assemble(
        cores,
        shape[0],
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        **geometry,
    )


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
    """Spurious cores from the Gaussian orthogonal ensemble: no common eigenbasis.

    C_e = `mean` I + `spread` W_e, where W_e has N(0, 1) entries on the diagonal and N(0, 1/2) off
    it. For every unit vector x, x' C_e x is normal with mean `mean` and standard deviation
    `spread`, as for `gaussian` (which is the case r2 = 1). Eigenvalues extend to about
    `mean` +- `spread` sqrt(2 r2).

    Args:
        dim: d, the size of the signals [d, d].
        invariant_rank: r1, the rank of A*.
        spurious_rank: r2, the size of the cores; may be 0.
        num_environments: E, how many environments are drawn.
        mean: mu, the mean of the diagonal.
        spread: M >= 0, the standard deviation of every diagonal entry.
        coupling: in [0, 1], the factor of the entries off the diagonal. 1 is the ensemble, 0 has
            the distribution of `gaussian`, with a common eigenbasis.
        **geometry: see `Geometry`.

    Raises:
        ValueError: if an argument is out of range, or r1 + r2 > d.
    """
    size = checks.integer("spurious_rank", spurious_rank, minimum=0)
    checks.integer("num_environments", num_environments)
    checks.number("mean", mean)
    checks.number("spread", spread, minimum=0)
    checks.number("coupling", coupling, minimum=0, maximum=1)

    def cores(key: Key) -> Array:
        per_environment = random.goe_summand_size(size)
        normals = random.normals(key, (num_environments, per_environment), jnp.result_type(float))
        ensemble = jax.vmap(random.goe, (0, None))(normals, size)
        identity = jnp.eye(size)
        factors = identity + working(coupling) * (1 - identity)
        return working(mean) * identity[None] + working(spread) * (factors[None] * ensemble)

    return assemble(
        cores,
        num_environments,
        dim=dim,
        invariant_rank=invariant_rank,
        spurious_rank=spurious_rank,
        **geometry,
    )

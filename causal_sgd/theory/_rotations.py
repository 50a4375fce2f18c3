"""Environments without a common eigenbasis: the growth of a spurious block under cores C_e.

Near zero V'U is multiplied by I + eta C_e at every step and dies iff the top Lyapunov exponent of
that product of random matrices is negative. Where the law of C_e is isotropic (invariant under
rotations of the basis), the direction of a column is independent of the next core, so the exponent
is that of a single step, E log|(I + eta C) x| for any unit vector x (Cohen and Newman 1984): no
product is needed. With C = mu I + M W, to second order in eta M and in n directions,

    lambda = eta mu + (eta M)^2/2 (E|W x|^2 - 2 E(x'W x)^2)
           = eta mu + (eta M)^2/2 * (n - 4)/(n + 2)    Haar, unit variances
           = eta mu + (eta M)^2/2 * (n - 3)/2          GOE

since the component of W x orthogonal to x lengthens a column. Heterogeneity suppresses the spurious
signal in fewer than 4 directions (GOE: 3) and amplifies it in more. In exactly 4 directions higher
orders decide, and for two points suppression needs eta M near 0.7. For Haar bases this holds for
any independent eigenvalues of variance M^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy import special

from causal_sgd import checks, linalg
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import lyapunov_gaussian
from causal_sgd.types import Array, Key

__all__ = ["TopExponent", "critical_spread_of", "lyapunov_goe", "lyapunov_haar", "top_exponent"]

NODES = 48  # nodes of each Gauss rule


@checked_jit
def lyapunov_haar(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, directions: int
) -> Array:
    """The top exponent [...] of two-point cores with independent Haar eigenbases.

    With k of n eigenvalues at mu + M, x'W x = 2 B - 1 for B ~ Beta(k/2, (n - k)/2), so that with
    a = 1 + eta mu and b = eta M, lambda = E (1/2) log(a^2 + b^2 + 2 a b (2 B - 1)) over
    k ~ Binomial(n, 1/2). For n = 1 this is `lyapunov_two_point`, for n = 2 half of that plus
    (1/2) log max(a, b). By Gauss-Jacobi rules.

    Accuracy: 1e-5 for |b/a - 1| above 0.1, 1e-4 above 0.05 and 2e-3 above 0.01.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        directions: n, the spurious rank; static.

    >>> [f"{lyapunov_haar(0.02, 1.0, 15.0, n):.3f}" for n in (1, 2, 3, 4, 10)]
    ['-0.025', '-0.003', '0.011', '0.020', '0.041']
    """
    n = checks.integer("directions", directions)
    # The two atoms, all signs equal; between them one Gauss-Jacobi rule per number of positive
    # signs.
    nodes, weights = [1.0, -1.0], [0.5**n, 0.5**n]
    for positive in range(1, n):
        points, shares = special.roots_jacobi(NODES, (n - positive) / 2 - 1, positive / 2 - 1)
        nodes += list(points)
        weights += list(shares / shares.sum() * math.comb(n, positive) * 0.5**n)
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    ratio = (eta * spread / (1 + eta * mu))[..., None]
    shape = (1,) * eta.ndim + (-1,)
    exact_nodes = np.array(nodes).reshape(shape)  # 1 + t is formed before rounding to the dtype
    t, one_plus_t = (jnp.asarray(array, eta.dtype) for array in (exact_nodes, 1 + exact_nodes))
    # (1 - q)^2 + 2 q (1 + t) = |x + q W x|^2 is accurate where t is near -1 and q near 1.
    square = (1 - ratio) ** 2 + 2 * ratio * one_plus_t
    logs = jnp.where(ratio < 0.5, jnp.log1p(ratio**2 + 2 * ratio * t), jnp.log(square))
    table = jnp.asarray(np.array(weights).reshape(shape), eta.dtype)
    return jnp.log1p(eta * mu) + jnp.sum(logs * table, -1) / 2


@checked_jit
def lyapunov_goe(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, directions: int
) -> Array:
    """The top exponent [...] of independent cores mu I + M W_e with W_e from the GOE.

    lambda = E (1/2) log((a + b g)^2 + (b^2/2) chi^2_(n-1)) with g standard normal, a = 1 + eta mu
    and b = eta M. For one direction this is `lyapunov_gaussian`. By Gauss rules.

    Accuracy: 1e-4 for b <= a/3 and 1e-3 for b <= a/2.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...], the standard deviation of x'C_e x for unit vectors x.
        directions: n, the spurious rank; static.
    """
    n = checks.integer("directions", directions)
    if n == 1:
        return lyapunov_gaussian(learning_rate, mean, spread)
    along, share_along = special.roots_hermitenorm(NODES)
    across, share_across = special.roots_genlaguerre(NODES, (n - 1) / 2 - 1)  # chi^2 / 2
    weights = np.outer(share_along / share_along.sum(), share_across / share_across.sum()).ravel()
    relevant = weights > 1e-12
    g, half = (array.ravel()[relevant] for array in np.meshgrid(along, across, indexing="ij"))
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    ratio = (eta * spread / (1 + eta * mu))[..., None]
    shape = (1,) * eta.ndim + (-1,)
    g, half, weights = (
        jnp.asarray(array.reshape(shape), eta.dtype) for array in (g, half, weights[relevant])
    )
    logs = jnp.log1p(jnp.maximum(2 * ratio * g + ratio**2 * (g**2 + half), -1 + 1e-30))
    return jnp.log1p(eta * mu) + jnp.sum(logs * weights, -1) / 2


class TopExponent(NamedTuple):
    """An estimate of the top Lyapunov exponent of a random matrix product."""

    exponent: Array  # [] per step
    standard_error: Array  # [] from the variation between chains


def top_exponent(
    draw: Callable[[Key], Array], *, key: Key, num_steps: int = 1000, num_chains: int = 64
) -> TopExponent:
    """Estimate the top Lyapunov exponent of a product of independently drawn matrices.

    It is the mean logarithmic growth of a unit vector under the product. For the other exponents,
    or a finite set of matrices, see `lyapunov_exponents`. Variables in the closure of `draw` may be
    traced: under `vmap` over a number all values share the draws, which makes their differences
    precise.

    Accuracy: the standard error, which is that of a mean over independent chains; the burn-in
    leaves a bias of the order exp(-(gap between exponents) num_steps / 10).

    Args:
        draw: key -> [n, n]; I + eta C_e for the linearised dynamics.
        key: random key.
        num_steps: steps averaged in each chain, after a burn-in of a tenth as many.
        num_chains: independent chains, at least 2.

    >>> draw = lambda key: jnp.eye(2) + 0.1 * jax.random.normal(key, (2, 2))
    >>> top_exponent(draw, key=jax.random.key(0), num_steps=100).exponent.shape
    ()
    """
    num_steps = checks.integer("num_steps", num_steps)
    num_chains = checks.integer("num_chains", num_chains, minimum=2)
    checks.function("draw", draw, 1, "a function key -> [n, n]")
    checks.key("key", key)
    shape = jax.eval_shape(draw, key).shape
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"draw must return a square matrix [n, n], got shape {shape}")
    burn_in = -(-num_steps // 10)

    def chain(key: Key) -> Array:
        def step(vector: Array, index: Array) -> tuple[Array, Array]:
            image = linalg.product(draw(jax.random.fold_in(key, index)), vector)
            growth = jnp.sqrt(jnp.sum(image**2))
            return image / growth, jnp.log(growth)

        start = jax.random.normal(jax.random.fold_in(key, burn_in + num_steps), shape[:1])
        start = start / jnp.sqrt(jnp.sum(start**2))
        return jax.lax.scan(step, start, jnp.arange(burn_in + num_steps))[1][burn_in:].mean()

    means = jax.vmap(chain)(jax.random.split(key, num_chains))
    return TopExponent(means.mean(), means.std(ddof=1) / math.sqrt(num_chains))


def critical_spread_of(
    exponent: Callable[[Array], Array], *, highest: ArrayLike, points: int = 33, rounds: int = 3
) -> Array:
    """The smallest spread beyond which an arbitrary exponent is negative, by successive grids.

    Exponents may rise again after they fall, so a bisection could miss the first root.

    Accuracy: highest / (points - 1)^rounds, if lambda changes sign once between points of the first
    grid.

    Args:
        exponent: spreads [points] -> lambda [points]; continuous, such as a closed form, or
            `top_exponent` mapped over spreads with one key.
        highest: the end of the search, above zero.
        points: points of each grid, at least 3.
        rounds: number of grids, each over one interval of the previous one.

    Returns:
        M_c [], accurate to highest / (points - 1)^rounds; 0 where lambda is negative at spread 0,
        inf where it is not negative anywhere.

    >>> curve = lambda spread: lyapunov_haar(0.02, 1.0, spread, 2)
    >>> print(f"{critical_spread_of(curve, highest=40.0):.2f}")
    14.07
    """
    checks.function("exponent", exponent, 1, "a function of spreads [points]")
    checks.integer("points", points, minimum=3)
    checks.integer("rounds", rounds)
    (high,) = broadcast(checks.number("highest", highest, above=0))
    low = jnp.zeros_like(high)
    any_negative = first_negative = jnp.zeros((), bool)
    for index in range(rounds):
        grid = low + (high - low) * jnp.linspace(0, 1, points, dtype=high.dtype)
        values = exponent(grid)
        if jnp.shape(values) != grid.shape:
            raise ValueError(
                f"exponent must return an array of the shape of its spreads, {grid.shape}, got "
                f"{type(values).__name__} of shape {jnp.shape(values)}"
            )
        negative = values < 0
        if index == 0:
            any_negative, first_negative = jnp.any(negative), negative[0]
        after = jnp.maximum(jnp.argmax(negative), 1)
        low, high = grid[after - 1], grid[after]
    return jnp.where(first_negative, 0, jnp.where(any_negative, (low + high) / 2, jnp.inf))

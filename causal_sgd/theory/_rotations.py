"""Environments without a common eigenbasis: the growth of a spurious block that meets cores C_e which do not commute.

Near zero V'U is multiplied by I + eta C_e at every step, and dies iff the top Lyapunov exponent of that product of random
matrices is negative. Where the law of C_e is isotropic (unchanged by rotations of the basis) the direction of a column before
a step tells nothing of the core that it meets, so the exponent is that of a single step, E log|(I + eta C) x| for any unit
vector x (Cohen and Newman 1984): no product is needed. With C = mu I + M W to second order in eta M

    lambda = eta mu + (eta M)^2/2 (E|W x|^2 - 2 E(x'W x)^2) = eta mu + (eta M)^2/2 * { (n - 4)/(n + 2)   Haar, unit variances
                                                                                     { (n - 3)/2         GOE

in n directions: what a core turns a column aside, it makes longer. Heterogeneity works against the spurious signal in fewer
than 4 directions (GOE: 3) and feeds it in more; at the border it takes the higher orders, and eta M near 0.7, for two points.
For Haar bases this holds for any independent eigenvalues of variance M^2.
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
from causal_sgd.theory._arguments import common, door
from causal_sgd.theory._exponents import lyapunov_gaussian
from causal_sgd.types import Array, Key

__all__ = ["TopExponent", "critical_spread_of", "lyapunov_goe", "lyapunov_haar", "top_exponent"]

NODES = 48  # of each Gauss rule


@door
def lyapunov_haar(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, directions: int
) -> Array:
    """The top exponent [...] of two-point cores in eigenbases that are Haar distributed, drawn anew in every environment.

    With k of n eigenvalues at mu + M, x'W x = 2 B - 1 for B ~ Beta(k/2, (n - k)/2), so that with a = 1 + eta mu and b = eta M
    lambda = E (1/2) log(a^2 + b^2 + 2 a b (2 B - 1)) over k ~ Binomial(n, 1/2). (n = 1: `lyapunov_two_point`; n = 2: half of
    that plus (1/2) log max(a, b).) Gauss-Jacobi rules, right to 1e-5 except within a per cent of b = a.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        directions: n, the spurious rank; static.

    >>> [f"{lyapunov_haar(0.02, 1.0, 15.0, n):.3f}" for n in (1, 2, 3, 4, 10)]
    ['-0.025', '-0.003', '0.011', '0.020', '0.041']
    """
    n = checks.integer("directions", directions)
    nodes, weights = [1.0, -1.0], [0.5**n, 0.5**n]
    for plus in range(1, n):
        points, shares = special.roots_jacobi(NODES, (n - plus) / 2 - 1, plus / 2 - 1)
        nodes += list(points)
        weights += list(shares / shares.sum() * math.comb(n, plus) * 0.5**n)
    eta, mu, spread = common(learning_rate, mean, spread)
    ratio = (eta * spread / (1 + eta * mu))[..., None]
    table = np.array(nodes).reshape((1,) * eta.ndim + (-1,))
    # |1 + q W|^2 = (1 - q)^2 + 2 q (1 + t) keeps its digits where t is near -1 and q near 1
    square = (1 - ratio) ** 2 + 2 * ratio * jnp.asarray(1 + table, eta.dtype)
    logs = jnp.where(
        ratio < 0.5,
        jnp.log1p(ratio**2 + 2 * ratio * jnp.asarray(table, eta.dtype)),
        jnp.log(square),
    )
    return (
        jnp.log1p(eta * mu)
        + jnp.sum(logs * jnp.asarray(np.array(weights).reshape(table.shape), eta.dtype), -1) / 2
    )


@door
def lyapunov_goe(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, directions: int
) -> Array:
    """The top exponent [...] of cores mu I + M W_e, W_e from the Gaussian orthogonal ensemble, drawn anew at every step.

    lambda = E (1/2) log((a + b g)^2 + (b^2/2) chi^2_(n-1)) with g standard normal, a = 1 + eta mu and b = eta M; one direction
    is `lyapunov_gaussian`. Gauss rules, right to 1e-4 for b <= a/3 and 1e-3
    for b <= a/2.

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
    kept = weights > 1e-12
    g, half = (array.ravel()[kept] for array in np.meshgrid(along, across, indexing="ij"))
    eta, mu, spread = common(learning_rate, mean, spread)
    ratio = (eta * spread / (1 + eta * mu))[..., None]
    shape = (1,) * eta.ndim + (-1,)
    g, half, weights = (
        jnp.asarray(array.reshape(shape), eta.dtype) for array in (g, half, weights[kept])
    )
    logs = jnp.log1p(jnp.maximum(2 * ratio * g + ratio**2 * (g**2 + half), -1 + 1e-30))
    return jnp.log1p(eta * mu) + jnp.sum(logs * weights, -1) / 2


class TopExponent(NamedTuple):
    """The top Lyapunov exponent of a random matrix product, estimated."""

    exponent: Array  # [] per step
    standard_error: Array  # [] from the scatter between chains


def top_exponent(
    draw: Callable[[Key], Array], *, key: Key, num_steps: int = 1000, num_chains: int = 64
) -> TopExponent:
    """Estimate the top Lyapunov exponent of a product of matrices that are drawn anew at every step.

    The mean growth of a unit vector that is pushed through the product; for the others, or a finite set of matrices, see
    `lyapunov_exponents`. What `draw` closes over may be traced: mapped over a number, all its values share the draws, which
    makes their differences precise.

    Args:
        draw: key -> [n, n]; I + eta C_e for the linearised dynamics.
        key: random key.
        num_steps: steps averaged in each chain, after a tenth as many that are thrown away.
        num_chains: independent chains, at least 2.

    >>> turned = lambda key: jnp.eye(2) + 0.1 * jax.random.normal(key, (2, 2))
    >>> top_exponent(turned, key=jax.random.key(0), num_steps=100).exponent.shape
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
            pushed = linalg.product(draw(jax.random.fold_in(key, index)), vector)
            growth = jnp.sqrt(jnp.sum(pushed**2))
            return pushed / growth, jnp.log(growth)

        start = jax.random.normal(jax.random.fold_in(key, burn_in + num_steps), shape[:1])
        start = start / jnp.sqrt(jnp.sum(start**2))
        return jax.lax.scan(step, start, jnp.arange(burn_in + num_steps))[1][burn_in:].mean()

    means = jax.vmap(chain)(jax.random.split(key, num_chains))
    return TopExponent(means.mean(), means.std(ddof=1) / math.sqrt(num_chains))


def critical_spread_of(
    exponent: Callable[[Array], Array], *, highest: ArrayLike, points: int = 33, rounds: int = 3
) -> Array:
    """The smallest spread beyond which any exponent is negative, by grids on ever smaller brackets.

    Exponents fall and may rise again, so that a bisection could miss the first root or find another one.

    Args:
        exponent: spreads [points] -> lambda [points]; continuous, such as a closed form or a `top_exponent` mapped over spreads
            with one key.
        highest: the largest spread looked at.
        points: of each grid, at least 3.
        rounds: grids, each over one interval of the one before.

    Returns:
        M_c [], right to highest / (points - 1)^rounds; 0 where lambda is negative from the start, inf where it is nowhere.

    >>> curve = lambda spread: lyapunov_haar(0.02, 1.0, spread, 2)
    >>> print(f"{critical_spread_of(curve, highest=40.0):.2f}")
    14.07
    """
    checks.function("exponent", exponent, 1, "a function of spreads [points]")
    checks.integer("points", points, minimum=3)
    checks.integer("rounds", rounds)
    (high,) = common(checks.number("highest", highest, above=0))
    low = jnp.zeros_like(high)
    found = started = jnp.zeros((), bool)
    for turn in range(rounds):
        grid = low + (high - low) * jnp.linspace(0, 1, points, dtype=high.dtype)
        negative = exponent(grid) < 0
        if turn == 0:
            found, started = jnp.any(negative), negative[0]
        after = jnp.maximum(jnp.argmax(negative), 1)
        low, high = grid[after - 1], grid[after]
    return jnp.where(started, 0, jnp.where(found, (low + high) / 2, jnp.inf))

"""HeteroSGD under logistic loss: an invariant bit and a colour, with weights u^2 or u^2 - v^2.

The world is that of the coloured digits without images (Arjovsky et al. 2019), `worlds.two_bit`:
x1 = y but for a flip with probability q, and x2 = c y but for a flip with probability beta_e, so
that the colour agrees with the label with mean c_e = 1 - 2 beta_e. Losses are log(1 + exp(-y f)).
The weights (w1, 0) with w1 = log((1 - q)/q) are stationary in every environment, and there

    E_e x2 y sigma(-y f) = kappa c c_e,  kappa = 2 q (1 - q).

A small u2 is multiplied by 1 + 2 eta kappa c c_e in a step in environment e, by the two of u^2. So
the transition of HeteroSGD is that of squared loss with s_e = 2 kappa c c_e, although the loss is
not a square: for two environments c_e = mu +- M the colour dies for eta above

    eta_c = mu/(kappa c (M^2 - mu^2)),

and twice that for updates u <- u (1 - eta g), without the two. (The derivation is ours.)
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import _room
from causal_sgd.theory._arguments import broadcast, checked_jit, count_environments
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import log_abs, lyapunov_environments
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "critical_learning_rate",
    "exponent",
    "growth",
    "largest_learning_rate",
    "pooled",
]


def pooled(
    invariant_flip: ArrayLike,
    spurious_flips: ArrayLike,
    *,
    colour: ArrayLike = 1.0,
) -> Array:
    """The minimum of the mean logistic loss of all environments, [..., 2].

    Given the label the bits are independent, also in all environments together. The best logit is
    the sum of theirs: w1 = log((1 - q)/q) and w2 = log((1 - b)/b)/c with b the mean of beta_e.

    Accuracy: relative 1e-6 in single precision for flips above 0; inf for a bit that never flips.

    Args:
        invariant_flip: q [...].
        spurious_flips: beta_e [..., E], equally likely.
        colour: c [...], the size of the colour.

    >>> print([f"{weight:.3f}" for weight in pooled(0.25, [0.0, 0.8])])  # log 3 and log 1.5
    ['1.099', '0.405']
    """
    count_environments("spurious_flips", spurious_flips)
    return _pooled(invariant_flip, spurious_flips, colour)


@checked_jit
def _pooled(invariant_flip: ArrayLike, spurious_flips: ArrayLike, colour: ArrayLike) -> Array:
    q, b, c = broadcast(invariant_flip, jnp.mean(jnp.asarray(spurious_flips, float), -1), colour)
    return jnp.stack([jnp.log1p(-q) - jnp.log(q), (jnp.log1p(-b) - jnp.log(b)) / c], -1)


def growth(
    invariant_flip: ArrayLike,
    spurious_flips: ArrayLike,
    *,
    colour: ArrayLike = 1.0,
) -> Array:
    """The rates s_e = 2 kappa c c_e at which environments drive a small u2, [..., E].

    Args:
        invariant_flip: q [...].
        spurious_flips: beta_e [..., E].
        colour: c [...].

    >>> print([f"{rate:.3f}" for rate in growth(0.25, [0.0, 0.8])])
    ['0.750', '-0.450']
    """
    count_environments("spurious_flips", spurious_flips)
    return _growth(invariant_flip, spurious_flips, colour)


@checked_jit
def _growth(invariant_flip: ArrayLike, spurious_flips: ArrayLike, colour: ArrayLike) -> Array:
    q, c = broadcast(invariant_flip, colour)
    q, c, flips = broadcast(q[..., None], c[..., None], spurious_flips)
    return 4 * q * (1 - q) * c * (1 - 2 * flips)


def exponent(
    invariant_flip: ArrayLike,
    spurious_flips: ArrayLike,
    learning_rate: ArrayLike,
    *,
    colour: ArrayLike = 1.0,
) -> Array:
    """The Lyapunov exponent E log|1 + eta s_e| [...] of the reliance on the colour.

    HeteroSGD with one environment a step rejects the colour iff it is negative. With weights
    u^2 - v^2 the v of the colour must die, too, E log|1 - eta s_e| < 0.

    Accuracy: that of `theory.lyapunov_environments`.

    Args:
        invariant_flip: q [...].
        spurious_flips: beta_e [..., E], equally likely.
        learning_rate: eta [...].
        colour: c [...].
    """
    rates = growth(invariant_flip, spurious_flips, colour=colour)
    return lyapunov_environments(learning_rate, rates)


def critical_learning_rate(
    invariant_flip: ArrayLike,
    spurious_flips: ArrayLike,
    *,
    colour: ArrayLike = 1.0,
) -> Array:
    """The smallest eta beyond which HeteroSGD rejects the colour, [...].

    E log|1 + eta s_e| starts at zero with the slope E s_e and is concave up to the pole at
    1/max(-s_e). It has one root there if the slope is positive, found by bisection; for two
    environments it is mu/(kappa c (M^2 - mu^2)).

    Accuracy: relative 1e-5 in single precision for E s_e above 1e-3 of the largest |s_e|.

    Args:
        invariant_flip: q [...].
        spurious_flips: beta_e [..., E], equally likely.
        colour: c [...].

    Returns:
        inf where no environment has the other sign, or the invariant bit is exact; 0 where the
        colour is rejected at any eta.

    >>> print(f"{critical_learning_rate(0.25, [0.0, 0.8]):.4f}")
    0.8889
    """
    return _critical(growth(invariant_flip, spurious_flips, colour=colour))


@checked_jit
def _critical(rates: ArrayLike) -> Array:
    s = jnp.asarray(rates)
    lowest, mean = jnp.min(s, -1), jnp.mean(s, -1)
    contradicted = lowest < 0
    pole = 1 / jnp.where(contradicted, -lowest, 1)

    def slope(share: Array) -> Array:
        # The exponent over eta falls from the mean to minus infinity at the pole.
        return jnp.mean(log_abs((share * pole)[..., None] * s), -1)

    root = bisect(slope, jnp.zeros_like(pole), jnp.ones_like(pole)) * pole
    return jnp.where(mean <= 0, 0.0, jnp.where(contradicted, root, jnp.inf))


@checked_jit
def largest_learning_rate(invariant_flip: ArrayLike) -> Array:
    """The largest eta at which steps keep the invariant weight, [...].

    u1 <- u1 (1 - 2 eta g1) has the derivative 1 - 4 eta w1 q (1 - q) at w1 = log((1 - q)/q), and is
    stable for eta below 1/(2 q (1 - q) w1).

    Accuracy: relative 1e-5 in single precision for q up to 0.49.

    Args:
        invariant_flip: q [...].

    >>> print(f"{largest_learning_rate(0.25):.3f}")
    2.427
    """
    (q,) = broadcast(invariant_flip)
    rate = 2 * q * (1 - q) * jnp.log((1 - q) / jnp.where(q > 0, q, 1))
    stable = (q > 0) & (q < 0.5)
    return jnp.where(stable, 1 / jnp.where(stable, rate, 1), jnp.inf)

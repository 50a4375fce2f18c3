"""Depth: products of L equal factors, with spurious direction w <- w + eta (s - w^L) w^(L - 1) / 2.

Here eta / 2 replaces the eta of `factored`: under the loss sum_i r_i^2 / (4 m) the gradient of each
factor of `models.deep` is half of that of U in U U'. Only for L = 2 are steps near zero
multiplicative. For L > 2 they vanish faster than w, w^(2 - L) follows a random walk with drift
-(L - 2) eta mu / 2, and zero repels whenever mu > 0: there is no Lyapunov exponent and no critical
spread. For small steps, dw = (eta / 2) [(mu - w^L) dt + M dB] w^(L - 1) has the stationary density

    p(w) ~ w^(-2 (L - 1)) exp{(2 / n) [mu g(w) - w^2 / 2]},
    n = eta M^2 / 2,  g(w) = w^(2 - L) / (2 - L), or log w for L = 2.

It is normalisable near zero for every n if L > 2, and for L = 2 only if n < 2 mu, that is
lambda > 0. (Standard form for a one-dimensional diffusion: Risken, The Fokker-Planck Equation,
section 5.2.)
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.types import Array

__all__ = ["crossing_spread", "deep_spurious_quantile"]

POINTS = 8192
LEAST_NOISE = (
    1e-3  # least n / mu: below it the density is narrower than the grid, all quantiles are mu
)


@checked_jit
def deep_spurious_quantile(
    depth: ArrayLike,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    share: ArrayLike = 0.5,
) -> Array:
    """A quantile of the stationary spurious level w^L of `models.deep`, for small steps.

    For L > 2 and large n = eta M^2 / 2 it falls like (mu / n)^(L / (L - 2)): smoothly, and more
    slowly for deeper models.

    Accuracy: relative 0.005 L for the diffusion, n / mu from 0.03 to 30 (a grid of 0.0034 in log
    w); the diffusion itself is the limit of small eta mu.

    Args:
        depth: L [...], at least 2, not necessarily an integer.
        learning_rate: eta [...] of `models.deep`.
        mean: mu [...]; where it is not positive nothing is learned and the level is 0.
        spread: M [...], the standard deviation of the spurious eigenvalue: the spread of two
            points.
        share: the probability [...] of the quantile; the median by default.

    Returns:
        The level [...], in units of the signal; 0 for L = 2 where lambda <= 0.

    >>> print(f"{deep_spurious_quantile(3, 0.02, 1.0, 10.0):.2f}")
    0.17
    """
    depth, eta, mu, spread, share = (
        value[..., None] for value in broadcast(depth, learning_rate, mean, spread, share)
    )
    level = jnp.where(mu > 0, mu, 1)
    noise = jnp.maximum(eta * spread**2 / 2, LEAST_NOISE * level)
    grid = jnp.linspace(-25, 3, POINTS, dtype=eta.dtype).reshape((1,) * (eta.ndim - 1) + (-1,))
    log_w = grid + jnp.log(level) / depth
    excess = jnp.where(
        depth == 2, 1, depth - 2
    )  # avoids a division by zero in the branch not taken
    drift = jnp.where(depth == 2, log_w, -jnp.exp(-excess * log_w) / excess)
    # The grid is even in log w, where the density has one more factor of w.
    exponent = (3 - 2 * depth) * log_w + 2 / noise * (level * drift - jnp.exp(2 * log_w) / 2)
    weights = jnp.exp(exponent - jnp.max(exponent, -1, keepdims=True))
    cumulative = jnp.cumsum(weights, -1)
    index = jnp.sum(cumulative < share * cumulative[..., -1:], -1, keepdims=True)
    quantile = jnp.take_along_axis(
        jnp.broadcast_to(log_w, cumulative.shape), jnp.minimum(index, POINTS - 1), -1
    )
    alive = (mu > 0) & ((depth > 2) | (noise < 2 * mu))
    return jnp.where(alive, jnp.exp(depth * quantile), 0)[..., 0]


@checked_jit
def crossing_spread(depth: ArrayLike, learning_rate: ArrayLike, mean: ArrayLike) -> Array:
    """The least M at which one step can carry a spurious direction of `models.deep` across zero.

    For two points. A step in the upper environment reaches at most the peak w of
    w + eta (mu + M - w^L) w^(L - 1) / 2, which overshoots the level (mu + M)^(1/L). The other
    environment multiplies w by 1 - eta (M - mu + w^L) w^(L - 2) / 2, which is negative beyond this
    M. For L = 2 this has no consequence. For L > 2 a direction that lands near zero stays there for
    a time of order |w|^(2 - L); for odd L it stays forever if it lands below zero, which is the
    only way to forget.

    Accuracy: relative 1e-5 in single precision for L from 2 to 6 and eta up to 0.5. No run that
    starts below the peak crosses zero at a smaller M; where M > mu some run does at a larger one.

    Args:
        depth: L [...], at least 2.
        learning_rate: eta [...] of `models.deep`.
        mean: mu [...], not negative.

    Returns:
        The M [...] at which the factor is zero; 0 where every M crosses.

    >>> print(f"{crossing_spread(3, 0.1, 1.0):.2f}")
    5.11
    """
    depth, eta, mu = broadcast(depth, learning_rate, mean)

    def factor(spread: Array) -> Array:
        upper = mu + spread
        level = upper ** (1 / depth)

        def slope(w: Array) -> Array:
            bend = (depth - 1) * upper * w ** (depth - 2) - (2 * depth - 1) * w ** (2 * depth - 2)
            return 1 + eta / 2 * bend

        w = bisect(slope, jnp.zeros_like(level), level)
        peak = w + eta / 2 * (upper - w**depth) * w ** (depth - 1)
        return 1 - eta / 2 * (spread - mu + peak**depth) * peak ** (depth - 2)

    # The root lies below the larger of 1 / eta and 1.
    return bisect(factor, jnp.zeros_like(eta), jnp.maximum(1 / eta, 1))

"""What depth changes: a product of L equal factors, in which a spurious direction is w <- w + eta (s - w^L) w^(L - 1) / 2.

Here eta / 2 stands where `factored` has eta: with the loss sum_i r_i^2 / (4 m) every factor of `models.deep` gets half of the
gradient that U of U U' gets. Near zero only L = 2 multiplies: for L > 2 the steps die out with w, w^(2 - L) moves by a random
walk with drift -(L - 2) eta mu / 2, and zero repels whenever mu > 0. There is no Lyapunov exponent and no critical spread. For
small steps, dw = (eta / 2) [(mu - w^L) dt + M dB] w^(L - 1) has the stationary density

    p(w) ~ w^(-2 (L - 1)) exp{(2 / n) [mu g(w) - w^2 / 2]},  n = eta M^2 / 2,  g(w) = w^(2 - L) / (2 - L), log w for L = 2,

which can be normalised near zero for every n if L > 2, and for L = 2 only if n < 2 mu, which is lambda > 0. (The standard
form of a one-dimensional diffusion: Risken, The Fokker-Planck Equation, section 5.2.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import common, door
from causal_sgd.types import Array

__all__ = ["crossing_spread", "deep_spurious_quantile"]

POINTS = 8192
LEAST = 1e-3  # of n / mu: below, the density is narrower than the grid can show, and all quantiles are mu


@door
def deep_spurious_quantile(
    depth: ArrayLike,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    share: ArrayLike = 0.5,
) -> Array:
    """A quantile of the stationary spurious level w^L of `models.deep`, for small steps.

    For L > 2 and large n = eta M^2 / 2 it falls like (mu / n)^(L / (L - 2)): smoothly, and the more slowly the deeper.

    Args:
        depth: L [...], at least 2; it need not be whole.
        learning_rate: eta [...] of `models.deep`.
        mean: mu [...], above zero: else nothing is learned, 0.
        spread: M [...], the standard deviation of the spurious eigenvalue: the spread of two points.
        share: which quantile [...]; the median by default.

    Returns:
        The level [...], in units of the signal; 0 for L = 2 where lambda <= 0.

    >>> print(f"{deep_spurious_quantile(3, 0.02, 1.0, 10.0):.2f}")
    0.17
    """
    depth, eta, mu, spread, share = (
        value[..., None] for value in common(depth, learning_rate, mean, spread, share)
    )
    level = jnp.where(mu > 0, mu, 1)
    noise = jnp.maximum(eta * spread**2 / 2, LEAST * level)
    log_w = (
        jnp.linspace(-25, 3, POINTS, dtype=eta.dtype).reshape((1,) * (eta.ndim - 1) + (-1,))
        + jnp.log(level) / depth
    )
    beyond = jnp.where(depth == 2, 1, depth - 2)  # no division by zero in what is not chosen
    drift = jnp.where(depth == 2, log_w, -jnp.exp(-beyond * log_w) / beyond)
    # in log w, which the grid is even in: a factor of w more
    exponent = (3 - 2 * depth) * log_w + 2 / noise * (level * drift - jnp.exp(2 * log_w) / 2)
    weights = jnp.exp(exponent - jnp.max(exponent, -1, keepdims=True))
    below = jnp.cumsum(weights, -1)
    place = jnp.sum(below < share * below[..., -1:], -1, keepdims=True)
    chosen = jnp.take_along_axis(
        jnp.broadcast_to(log_w, below.shape), jnp.minimum(place, POINTS - 1), -1
    )
    alive = (mu > 0) & ((depth > 2) | (noise < 2 * mu))
    return jnp.where(alive, jnp.exp(depth * chosen), 0)[..., 0]


@door
def crossing_spread(depth: ArrayLike, learning_rate: ArrayLike, mean: ArrayLike) -> Array:
    """The spread M from which one step can throw a spurious direction of `models.deep` across zero, for two points.

    At its highest level, (mu + M)^(1/L), the other environment multiplies it by 1 - eta M (mu + M)^(1 - 2/L), which is
    negative beyond this M. For L = 2 nothing happens there; for L > 2 a direction that lands near zero stays there for
    a time of the order of |w|^(2 - L), and for odd L for good, where it lands below: the only way to forget.

    Args:
        depth: L [...], at least 2.
        learning_rate: eta [...] of `models.deep`.
        mean: mu [...], not negative.

    Returns:
        The M [...] at which the factor is zero, by bisection.

    >>> print(f"{crossing_spread(2, 0.1, 1.0):.1f}")
    10.0
    """
    depth, eta, mu = common(depth, learning_rate, mean)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        short = eta * middle * (mu + middle) ** (1 - 2 / depth) < 1
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    # the root lies below 1 / eta or below 1, whichever is larger
    low, high = jax.lax.fori_loop(0, 50, halve, (jnp.zeros_like(eta), jnp.maximum(1 / eta, 1)))
    return (low + high) / 2

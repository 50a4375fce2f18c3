"""Runs of finite length: the probability of rejection after T steps and the apparent transition."""

from __future__ import annotations

import jax.numpy as jnp
from jax.scipy import special
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import (
    RATIO_OF_LEAST_EXPONENT,
    families,
    lyapunov,
)
from causal_sgd.theory._variances import log_variance
from causal_sgd.types import Array

__all__ = ["finite_time_critical_spread", "finite_time_rejection"]

EULER = 0.5772156649015329


@checked_jit
def finite_time_rejection(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    *,
    num_steps: ArrayLike,
    init_scale: ArrayLike,
    level: ArrayLike,
    family: str = "two_point",
) -> Array:
    """The probability [...] that a spurious direction |u| lies below a level after T steps.

    log|u| starts at log alpha and is approximated by a Brownian motion with drift lambda and
    variance v per step, reflected at a barrier that stands for the nonlinearity. With
    L = log(level/alpha) and s = sqrt(v T),

        P = 1 - Phi((lambda T - L)/s) + Q Phi((lambda T - L - 2 b)/s)

    (Harrison 1985, eq. 1.8.11), where Q = exp(-2 lambda b/v) is the stationary probability and b
    the distance from the level to the barrier. The barrier is placed such that Q is exact: the
    stationary law of u^2 is Gamma with shape lambda/v and scale v/eta (see
    `stationary_spurious_moments`), so for lambda -> 0 the barrier lies at u^2 = (v/eta)
    exp(-0.5772). The second term is negligible as long as the walk has not reached the barrier; it
    is free then, and half of the runs lie below the level where lambda T = L.

    Accuracy: 0.02 for eta mu up to 0.03 and 0.07 at 0.1, mostly below simulations; levels up to 0.3
    sqrt(mu) and M up to 1.05 M_c.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        num_steps: T [...], above 0.
        init_scale: alpha [...], above 0.
        level: [...], above 0.
        family: one of `families`.
    """
    eta, mu, spread, steps, alpha, level = broadcast(
        learning_rate, mean, spread, num_steps, init_scale, level
    )
    drift = lyapunov(family, eta, mu, spread)
    variance = jnp.maximum(log_variance(eta, mu, spread, family), 1e-9)
    height = jnp.log(level) - jnp.log(alpha)
    scale = jnp.sqrt(variance * steps)
    scaled_level = eta * level**2 / variance  # in units of the scale of the Gamma law
    shape = drift / variance
    grows = shape > 1e-3  # below, the distance is replaced by its limit, which avoids 0/0
    limit = -(jnp.log(scaled_level) + EULER) / 2
    log_stationary = jnp.where(
        grows,
        jnp.log(special.gammainc(jnp.where(grows, shape, 1), scaled_level)),
        -2 * drift * limit / variance,
    )
    distance = jnp.where(grows, -log_stationary / (2 * jnp.where(grows, shape, 1)), limit)
    free = special.ndtr((height - drift * steps) / scale)
    # Q may overflow where lambda < 0, so the product is formed in logarithms.
    reflected = jnp.exp(
        log_stationary + special.log_ndtr((drift * steps - height - 2 * distance) / scale)
    )
    return jnp.clip(free + reflected, 0, 1)


@checked_jit
def finite_time_critical_spread(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    *,
    num_steps: ArrayLike,
    init_scale: ArrayLike,
    level: ArrayLike,
    share: ArrayLike = 0.5,
    family: str = "two_point",
) -> Array:
    """The apparent transition: the spread [...] at which a share of the runs is below a level.

    `finite_time_rejection` reaches the share there after T steps. It lies below M_c for short
    runs from a small alpha, because slowly growing directions have not reached the level yet, and
    also for long runs, because just below M_c a direction is small most of the time (on-off
    intermittency). It equals M_c if the level is alpha and the barrier is out of reach, as for
    alpha -> 0. Several independent directions have the apparent transition of one.

    Accuracy: 7 % for eta mu up to 0.1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        num_steps: T [...], above 0.
        init_scale: alpha [...], above 0.
        level: [...] of |u|, above 0 and well below sqrt(mu).
        share: fraction of the runs [...], in (0, 1]; at 0.5 the median crosses the level.
        family: one of `families`.

    Returns:
        The spread [...]; 0 where the share is reached without heterogeneity, inf where it is not
        reached before the spread of least lambda.

    >>> apparent = finite_time_critical_spread(0.1, 1.0, num_steps=600, init_scale=1e-3, level=0.1)
    >>> print(f"{apparent:.2f}")  # of 4.58
    4.03
    """
    checks.choice("family", family, families)
    eta, mu, steps, alpha, level, share = broadcast(
        learning_rate, mean, num_steps, init_scale, level, share
    )

    def shortfall(spread: Array) -> Array:
        rejection = finite_time_rejection(
            eta, mu, spread, num_steps=steps, init_scale=alpha, level=level, family=family
        )
        return share - rejection

    zero = jnp.zeros_like(mu)
    last = 0.999 * RATIO_OF_LEAST_EXPONENT[family] * (1 / eta + jnp.maximum(mu, 0))
    root = jnp.where(shortfall(last) > 0, jnp.inf, bisect(shortfall, zero, last))
    return jnp.where(shortfall(zero) <= 0, 0, root)

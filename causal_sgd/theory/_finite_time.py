"""Runs of finite length: how likely a spurious direction is small after T steps, and where that puts the transition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jax.typing import ArrayLike
from scipy.special import ndtri

from causal_sgd import checks
from causal_sgd.theory._arguments import common, door
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import (
    LOWEST,
    families,
    log_variance_environments,
    log_variance_two_point,
    lyapunov,
)
from causal_sgd.types import Array

__all__ = ["finite_time_critical_spread", "finite_time_rejection", "log_variance"]

EULER = 0.5772156649015329
_MIDDLES = (np.arange(512) + 0.5) / 512  # probabilities at which a distribution is sampled
_STANDARD = {"uniform": 2 * _MIDDLES - 1, "gaussian": ndtri(_MIDDLES)}


@door
def log_variance(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> Array:
    """The variance v [...] of log|1 + eta s|: exact for two points, else over 512 equally likely quantiles of s.

    Those leave out the far tails of the normal law, and 3 % of v near M_c at eta mu = 0.1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        family: one of `families`.

    >>> print(f"{log_variance(0.1, 1.0, 4.58):.3f} {log_variance(0.1, 1.0, 7.62, 'uniform'):.3f}")
    0.197 0.211
    """
    if checks.choice("family", family, families) == "two_point":
        return log_variance_two_point(learning_rate, mean, spread)
    eta, mu, spread = common(learning_rate, mean, spread)
    values = mu[..., None] + spread[..., None] * jnp.asarray(_STANDARD[family], mu.dtype).reshape(
        *[1] * mu.ndim, -1
    )
    return log_variance_environments(eta, values)


@door
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

    log|u| starts at log alpha and is taken for a Brownian motion of drift lambda and variance v per step, reflected where
    the nonlinearity holds it. With L = log(level/alpha) and s = sqrt(v T),

        P = 1 - Phi((lambda T - L)/s) + Q Phi((lambda T - L - 2 b)/s)

    (Harrison 1985, eq. 1.8.11), where Q is the stationary probability and b the distance from the level to the wall,
    Q = exp(-2 lambda b/v). The wall is put where Q is right: u^2 is stationary under a Gamma law of shape lambda/v and
    scale v/eta (see `stationary_spurious_moments`), so that for lambda -> 0 the wall lies at u^2 = (v/eta) exp(-0.5772).
    Without the second term, which counts while the wall was not felt, the walk is free: half of the runs lie below the
    level where lambda T = L.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        num_steps: T [...], above 0.
        init_scale: alpha [...], above 0.
        level: [...], above 0.
        family: one of `families`.
    """
    eta, mu, spread, steps, alpha, level = common(
        learning_rate, mean, spread, num_steps, init_scale, level
    )
    drift = lyapunov(family, eta, mu, spread)
    variance = jnp.maximum(log_variance(eta, mu, spread, family), 1e-9)
    height = jnp.log(level) - jnp.log(alpha)
    scale = jnp.sqrt(variance * steps)
    place = eta * level**2 / variance  # of the level in the Gamma law
    shape = drift / variance
    grows = shape > 1e-3
    near = -(jnp.log(place) + EULER) / 2  # the distance b for lambda -> 0
    log_stationary = jnp.where(
        grows,
        jnp.log(special.gammainc(jnp.where(grows, shape, 1), place)),
        -2 * drift * near / variance,
    )
    distance = jnp.where(grows, -log_stationary / (2 * jnp.where(grows, shape, 1)), near)
    free = special.ndtr((height - drift * steps) / scale)
    held = jnp.exp(
        log_stationary + special.log_ndtr((drift * steps - height - 2 * distance) / scale)
    )
    return jnp.clip(free + held, 0, 1)


@door
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
    """The spread [...] beyond which a share of the runs has |u| below a level after T steps: the apparent transition.

    Where `finite_time_rejection` reaches the share. Short runs from a small alpha put it below M_c, because directions
    that grow slowly have not come up to the level yet; long runs too, because just below M_c a direction is small most of
    the time (on-off intermittency). It is M_c itself where the level is alpha and the wall is out of reach, as for
    alpha -> 0. For several independent directions it is that of one.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        num_steps: T [...], above 0.
        init_scale: alpha [...], above 0.
        level: [...] of |u|, above 0 and well below sqrt(mu).
        share: of the runs [...], in (0, 1); 0.5 for where the median crosses the level.
        family: one of `families`.

    Returns:
        The spread [...]; 0 where the share is reached without heterogeneity, inf where it is not reached while lambda falls.

    >>> apparent = finite_time_critical_spread(0.1, 1.0, num_steps=600, init_scale=1e-3, level=0.1)
    >>> print(f"{apparent:.2f}")  # of 4.58
    4.03
    """
    checks.choice("family", family, families)
    eta, mu, steps, alpha, level, share = common(
        learning_rate, mean, num_steps, init_scale, level, share
    )

    def missing(spread: Array) -> Array:
        found = finite_time_rejection(
            eta, mu, spread, num_steps=steps, init_scale=alpha, level=level, family=family
        )
        return share - found

    last = 0.999 * LOWEST[family] * (1 / eta + jnp.maximum(mu, 0))
    root = bisect(missing, jnp.zeros_like(mu), last)
    return jnp.where(
        missing(jnp.zeros_like(mu)) <= 0, 0, jnp.where(missing(last) > 0, jnp.inf, root)
    )

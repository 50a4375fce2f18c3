"""Incremental learning: when directions are learned, in which order, and what reverses the order.

In population training of a product of L equal factors a direction of eigenvalue s is a scalar,
w <- w + (eta/2) (s - w^L) w^(L - 1) from w = alpha, as in `models.deep`; `models.factored` is
L = 2 with twice the learning rate. In flow time z = w s^(-1/L) satisfies

    dz/dt = (eta/2) s^(2 - 2/L) (1 - z^L) z^(L - 1),  so that
    t = (2/eta) s^(2/L - 2) [H(z) - H(z_0)],
    H(z) = z^(2 - L)/(2 - L) + int_0^z x/(1 - x^L) dx,     log z - log(1 - z^2)/2 for L = 2,
    L = 3: -1/z - log(1 - z)/3 + log(1 + z + z^2)/6 - arctan((2z + 1)/sqrt 3)/sqrt 3,
    L = 4: -1/(2 z^2) + log((1 + z^2)/(1 - z^2))/4,

up to constants. The order of learning by size is that of Gissin, Shalev-Shwartz and Daniely (2019)
and, for matrix sensing, of Li, Ma and Zhang (2017) and Jin et al. (2023); these formulas are
derived here. Several environments change the order: growth is by the Lyapunov exponent, not by the
mean eigenvalue.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy import special
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.theory._exponents import families, lyapunov
from causal_sgd.theory._variances import log_variance
from causal_sgd.types import Array

__all__ = [
    "incremental_level",
    "incremental_scale",
    "incremental_times",
    "invariant_first",
    "reversing_spread",
]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)
LEAST_LOG = -80.0  # of z, whose powers must stay within single precision
OVERSHOOT = 0.5826  # mean excess of a random walk over a barrier, in standard deviations of a step


def _primitive(log_z: Array, depth: Array) -> Array:
    """H(z) [...] for log z < 0; inf at 0."""
    excess = jnp.where(depth == 2, 1, depth - 2)
    head = jnp.where(depth == 2, log_z, -jnp.exp(-(depth - 2) * log_z) / excess)
    # int x/(1 - x^L) dx is half of int dv/(1 - v^(L/2)) up to v = z^2. Its pole is separated.
    q, end = depth / 2, jnp.exp(2 * log_z)
    shape = (1,) * log_z.ndim + (-1,)
    nodes = jnp.asarray((NODES + 1) / 2, log_z.dtype).reshape(shape)
    weights = jnp.asarray(WEIGHTS / 2, log_z.dtype).reshape(shape)
    log_v = 2 * log_z[..., None] + jnp.log(nodes)
    smooth = -1 / jnp.expm1(q[..., None] * log_v) + 1 / (q[..., None] * jnp.expm1(log_v))
    regular = end * jnp.sum(weights * smooth, -1)
    return head + (regular - jnp.log(-jnp.expm1(2 * log_z)) / q) / 2


def _log_step(log_z: Array, depth: Array) -> Array:
    """Log of (1 - z^L) z^(L - 1) [...]."""
    return jnp.log(-jnp.expm1(depth * log_z)) + (depth - 1) * log_z


def _times(log_z: Array, start: Array, s: Array, eta: Array, depth: Array) -> Array:
    """Steps [...] from one log z to another, to second order in the step."""
    flow = 2 / eta * s ** (2 / depth - 2) * (_primitive(log_z, depth) - _primitive(start, depth))
    return flow + (_log_step(log_z, depth) - _log_step(start, depth)) / 2


@checked_jit
def incremental_times(
    eigenvalue: ArrayLike,
    *,
    learning_rate: ArrayLike,
    init_scale: ArrayLike,
    depth: ArrayLike = 2,
    share: ArrayLike = 0.5,
) -> Array:
    """The steps until a direction of a product of L factors reaches a share of its eigenvalue.

    The time of gradient flow, in closed form above, and the correction of finite steps
    log(F/F_0)/2 with F = (s - w^L) w^(L - 1), which follows from the modified equation of Euler's
    method: F is the step, and dt = dw/F + d log F / 2. For L = 2 it turns the growth rate eta s/2
    into log(1 + eta s/2).

    Accuracy: 0.3 steps for eta s^(2 - 2/L) up to 0.5 and alpha from 1e-6, and relative 1e-5.

    Args:
        eigenvalue: s [...], above 0.
        learning_rate: eta [...] of `models.deep`; twice that of `models.factored`.
        init_scale: alpha [...], the start of every factor, above 0.
        depth: L [...], at least 2, not necessarily an integer.
        share: of the eigenvalue [...], in (0, 1].

    Returns:
        Number of steps [...], fractional; 0 where alpha^L is above the share, inf for a share of 1.

    >>> print(f"{incremental_times(1.0, learning_rate=0.2, init_scale=1e-3):.1f}")
    72.0
    >>> print(f"{incremental_times(1.0, learning_rate=0.2, init_scale=1e-3, depth=3):.0f}")
    9998
    """
    s, eta, alpha, depth, share = broadcast(eigenvalue, learning_rate, init_scale, depth, share)
    start = jnp.log(alpha) - jnp.log(s) / depth
    end = jnp.log(share) / depth
    below = start < end
    finite = below & (share < 1)
    used = jnp.where(finite, end, -0.5)
    time = _times(used, jnp.where(finite, start, -1.0), s, eta, depth)
    return jnp.where(below, jnp.where(share < 1, time, jnp.inf), 0)


@checked_jit
def incremental_level(
    num_steps: ArrayLike,
    eigenvalue: ArrayLike,
    *,
    learning_rate: ArrayLike,
    init_scale: ArrayLike,
    depth: ArrayLike = 2,
) -> Array:
    """The level w^L of a direction after t steps: the inverse of `incremental_times`.

    For L = 2 it is the logistic curve s / (1 + (s/alpha^2 - 1) exp(-eta s t)) up to the correction
    of finite steps. Other depths are inverted by bisection.

    Accuracy: that of `incremental_times` in t; the level itself to 1e-5 of s.

    Args:
        num_steps: t [...], above 0.
        eigenvalue: s [...], above 0.
        learning_rate: eta [...] of `models.deep`; twice that of `models.factored`.
        init_scale: alpha [...], the start of every factor, above 0.
        depth: L [...], at least 2, not necessarily an integer.

    Returns:
        The level [...], in units of the signal; alpha^L where that is above the eigenvalue.

    >>> print(f"{incremental_level(72.0, 1.0, learning_rate=0.2, init_scale=1e-3):.2f}")
    0.50
    """
    t, s, eta, alpha, depth = broadcast(num_steps, eigenvalue, learning_rate, init_scale, depth)
    start = jnp.log(alpha) - jnp.log(s) / depth
    grows = start < -1e-6
    first = jnp.where(grows, start, -1.0)
    end = jnp.full_like(first, -jnp.finfo(first.dtype).eps)
    root = bisect(lambda log_z: t - _times(log_z, first, s, eta, depth), first, end)
    return jnp.where(grows, s * jnp.exp(depth * root), alpha**depth)


@checked_jit
def incremental_scale(
    eigenvalue: ArrayLike, lower: ArrayLike, *, depth: ArrayLike = 2, share: ArrayLike = 0.9
) -> Array:
    """The largest alpha from which two eigenvalues are learned one after the other.

    The larger reaches a share f of its level before the smaller exceeds 1 - f of its own: the two
    times of gradient flow are equated. For L = 2 and small alpha

        log(1/alpha^2) = [log(f/(1 - f)) (s_1 + s_2) + s_2 log s_1 - s_1 log s_2] / (s_1 - s_2),

    exponential in 1/(s_1 - s_2), while alpha^(2 - L) is of order s_1/(s_1 - s_2) for L > 2: deeper
    models learn incrementally from scales that are only polynomially small (Gissin et al. 2019).

    Accuracy: relative 1e-3 for flow, where alpha is above 1e-30. It does not depend on the learning
    rate.

    Args:
        eigenvalue: s_1 [...], the larger one, above 0.
        lower: s_2 [...], above 0.
        depth: L [...], at least 2.
        share: f [...], above 1/2 for a separation, below 1.

    Returns:
        The scale alpha [...] of the factors; 0 where it is below 1e-30 s_2^(1/L) or there is none.

    >>> [f"{incremental_scale(1.0, 0.8, depth=depth):.2g}" for depth in (2, 3, 4)]
    ['2.9e-05', '0.092', '0.23']
    """
    high, low, depth, share = broadcast(eigenvalue, lower, depth, share)
    shift = (jnp.log(high) - jnp.log(low)) / depth
    scales = high ** (2 / depth - 2), low ** (2 / depth - 2)
    ends = jnp.log(share) / depth, jnp.log1p(-share) / depth
    ends = jnp.minimum(ends[0], -1e-7), jnp.maximum(ends[1], LEAST_LOG)

    def lead(log_z: Array) -> Array:
        """How much later the smaller one arrives, in units of 2/eta."""
        first = scales[0] * (_primitive(ends[0], depth) - _primitive(log_z - shift, depth))
        second = scales[1] * (_primitive(ends[1], depth) - _primitive(log_z, depth))
        return second - first

    # log z of the smaller eigenvalue; the larger starts at log z - shift.
    least = jnp.maximum(jnp.asarray(LEAST_LOG, high.dtype) / jnp.maximum(depth - 2, 1), -69.0)
    most = jnp.minimum(ends[1], shift + ends[0])
    ordered = (lead(least) > 0) & (high > low)
    root = bisect(lead, least, jnp.maximum(most, least))
    return jnp.where(ordered, jnp.exp(root) * low ** (1 / depth), 0)


@checked_jit
def reversing_spread(learning_rate: ArrayLike, mean: ArrayLike, eigenvalue: ArrayLike) -> Array:
    """The spread M_r beyond which HeteroSGD learns an invariant direction first, for mu > sigma*.

    For two points a spurious direction grows at (1/2) log((1 + eta mu)^2 - (eta M)^2) and the
    invariant one at log(1 + eta sigma*). Both are equal at

        M_r = sqrt((1 + eta mu)^2 - (1 + eta sigma*)^2) / eta
            = sqrt((mu - sigma*) (2/eta + mu + sigma*)).

    It lies below M_c = sqrt(mu (2/eta + mu)). In between the spurious direction is learned in the
    end, but later: stopping early is invariant.

    Accuracy: the definition, exact for small starts. It is a law of two factors: for three or more
    the steps near zero shrink with the weight, and the noise averages out before anything is
    learned (study `incremental-learning`).

    Args:
        learning_rate: eta [...] of `models.factored`; half of it for `models.deep` of two factors.
        mean: mu [...].
        eigenvalue: sigma* [...], above 0.

    Returns:
        M_r [...]; 0 where mu <= sigma*, as every M has that order.

    >>> print(f"{reversing_spread(0.1, 1.5, 1.0):.2f}")
    3.35
    """
    eta, mu, eigenvalue = broadcast(learning_rate, mean, eigenvalue)
    gap = (mu - eigenvalue) * (2 / eta + mu + eigenvalue)
    return jnp.sqrt(jnp.where(mu > eigenvalue, jnp.maximum(gap, 0), 0))


@checked_jit
def invariant_first(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    *,
    eigenvalue: ArrayLike,
    init_scale: ArrayLike,
    level: ArrayLike,
    family: str = "two_point",
) -> Array:
    """The probability [...] that an invariant direction reaches a level before a spurious one.

    Both start at alpha. The invariant one takes t = d / log(1 + eta sigma*) steps,
    d = log(level/alpha). The spurious log|u| is a random walk with drift lambda and variance v,
    which exceeds the level when it reaches it by 0.583 sqrt(v) on average (Siegmund 1985). With the
    distance b = d + 0.583 sqrt(v) its first passage has the inverse Gaussian law,

        P = Phi((b - lambda t)/sqrt(v t)) - exp(2 lambda b/v) Phi(-(b + lambda t)/sqrt(v t)).

    As alpha -> 0 this becomes a step at M_r (`reversing_spread`).

    Accuracy: 0.03 for two points, eta mu up to 0.15, levels u^2 up to 0.1 of both eigenvalues.

    Args:
        learning_rate: eta [...] of `models.factored`.
        mean: mu [...].
        spread: M [...].
        eigenvalue: sigma* [...], above 0.
        init_scale: alpha [...], above 0.
        level: [...] of |u|, above alpha and well below the roots of the eigenvalues.
        family: one of `families`.

    >>> settings = {"eigenvalue": 1.0, "init_scale": 1e-6, "level": 0.2}
    >>> print(f"{invariant_first(0.1, 1.5, 4.5, **settings):.2f}")
    0.82
    """
    checks.choice("family", family, families)
    eta, mu, spread, eigenvalue, alpha, level = broadcast(
        learning_rate, mean, spread, eigenvalue, init_scale, level
    )
    drift = lyapunov(family, eta, mu, spread)
    variance = jnp.maximum(log_variance(eta, mu, spread, family), 1e-9)
    distance = jnp.maximum(jnp.log(level) - jnp.log(alpha), 1e-3)
    time = distance / jnp.log1p(eta * eigenvalue)
    barrier = distance + OVERSHOOT * jnp.sqrt(variance)
    scale = jnp.sqrt(variance * time)
    # The product may overflow, so it is formed in logarithms.
    reflected = special.log_ndtr(-(barrier + drift * time) / scale) + 2 * drift * barrier / variance
    free = special.ndtr((barrier - drift * time) / scale)
    return jnp.clip(free - jnp.exp(jnp.minimum(reflected, 0)), 0, 1)

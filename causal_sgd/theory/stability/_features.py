"""Two redundant features in a diagonal network: why every oscillation of the residual helps one.

A strong and a weak feature v > u > 0 both predict the label: r = 1 - v s^2 - u w^2, and the steps
are s <- (1 + eta v r) s and w <- (1 + eta u r) w on the loss r^2/4. Under the gradient flow
J = log|s|/v - log|w|/u does not change. Under steps it changes by exactly

    log|1 + eta v r|/v - log|1 + eta u r|/u = -(eta^2/2)(v - u) r^2 + O(r^3) < 0,

whatever makes r differ from zero: steps beyond the edge of stability, or environments whose labels
disagree. If r is stationary, E log|1 + eta v r| = 0, and where 1 + eta v r > 0 the function
E log(1 + a r) is concave in a, vanishes at 0 and eta v, and is therefore positive at eta u: the
weak feature grows as long as the oscillation lasts.

Beyond the edge, eta v > 1, it lasts until the sharpness of the minimum reaches 2/eta: with
f = v s^2, the share of the label that the strong feature predicts, 2 (v f + u (1 - f)) = 2/eta.
Near this edge, with h = eta (v f + u (1 - f)) - 1 and S2 = v^2 f + u^2 (1 - f), the expansion of
the step along the curve of constant J is r' = -(1 + 2 h) r + q r^2 + q^2 r^3, q = eta^2 S2, so that
the squared amplitude x of r and h follow

    dx/dt = 4 x (h - q^2 x),    dh/dt = -k x,    k = eta^4 (v - u)^2 u v f (1 - f).

This is linear as dx/dh = -(4/k)(h - q^2 x). All solutions from larger h approach the line
x = h/q^2 + k/(4 q^4), which ends at x = 0: the oscillation dies slightly beyond the edge, at
h = -k/(4 q^2), whatever the start.

(Lu et al., ICLR 2024, call the oscillation benign, in a convolutional network. The reduction to two
numbers and all formulas are ours.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory.stability._edge import CYCLE
from causal_sgd.types import Array

__all__ = ["OscillationEnd", "oscillation_end", "share_time", "weak_exponent"]


class OscillationEnd(NamedTuple):
    """Shares of the label that the strong feature predicts, each [...]."""

    edge: Array  # where the sharpness is 2/eta
    end: Array  # where the oscillation dies, slightly below


@checked_jit
def weak_exponent(learning_rate: ArrayLike, strong: ArrayLike, weak: ArrayLike) -> Array:
    """The exponent [...] per step of a small weak feature while the strong one oscillates.

    Up to the edge, a = eta v = 1, the residual vanishes and the exponent is 0. In the two-cycle
    r_1 + r_2 = (a - 1)/a and r_1 r_2 = (1 - a)/a^2, so that it is

        E log(1 + eta u r) = (1/2) log(1 + (a - 1)(u/v)(1 - u/v)).

    Accuracy: a few roundings.

    Args:
        learning_rate: eta [...].
        strong: v [...].
        weak: u [...], below v for a weak feature.

    Returns:
        The exponent [...]; NaN for eta v > sqrt(5) - 1, where there is no closed form.

    >>> print(f"{weak_exponent(1.2, 1.0, 0.2):.5f}")
    0.01575
    """
    eta, v, u = broadcast(learning_rate, strong, weak)
    beyond = jnp.maximum(eta * v - 1, 0)
    exponent = jnp.log1p(beyond * (u / v) * (1 - u / v)) / 2
    return jnp.where(eta * v <= CYCLE, exponent, jnp.nan)


@checked_jit
def oscillation_end(learning_rate: ArrayLike, strong: ArrayLike, weak: ArrayLike) -> OscillationEnd:
    """How much of the label the strong feature still predicts when the oscillation has died.

    The edge is f = (1/eta - u)/(v - u). The end lies below it by (v - u) u v f (1 - f)/(4 eta
    S2^2), S2 = v^2 f + u^2 (1 - f): see the module for the derivation. It does not depend on the
    start as long as the run comes from well beyond the edge.

    Accuracy: to leading order in the overshoot h = eta (v f + u (1 - f)) - 1, whose relative error
    is of the order of h: 0.5 % to 4 % of it for u = 0.2 v.

    Args:
        learning_rate: eta [...].
        strong: v [...].
        weak: u [...], below v.

    Returns:
        Both shares, each [...]; NaN where 1/eta is not between u and v, so that there is no edge.

    >>> print([f"{share:.4f}" for share in oscillation_end(1.5, 1.0, 0.2)])
    ['0.5833', '0.5653']
    """
    eta, v, u = broadcast(learning_rate, strong, weak)
    edge = (1 / eta - u) / (v - u)
    edge = jnp.where((edge > 0) & (edge < 1) & (u < v), edge, jnp.nan)
    square = v**2 * edge + u**2 * (1 - edge)
    below = (v - u) * u * v * edge * (1 - edge) / (4 * eta * square**2)
    return OscillationEnd(edge, edge - below)


@checked_jit
def share_time(
    share: ArrayLike,
    start_share: ArrayLike,
    learning_rate: ArrayLike,
    spread: ArrayLike,
    strong: ArrayLike,
    weak: ArrayLike,
) -> Array:
    """Steps in which environments of different labels lower the share of the strong feature.

    Labels of environments are 1 + m_e, E m_e = 0, E m_e^2 = M^2, and every step is of one
    environment. With g = v f + u (1 - f) the residual is an autoregression of variance
    M^2/(1 - eta g). As J falls by (eta^2/2)(v - u) of it a step, and dJ/df = g/(2 u v f (1 - f)),

        t = [A log f - B log(1 - f) + C f] / (eta^2 M^2 u v (v - u))    from the share to the start,

    A = u (1 - eta u), B = v (1 - eta v), C = eta (v - u)^2. The strong feature ends at zero.

    Accuracy: leading order in eta M; the relative error is of the order of (eta v M)^2.

    Args:
        share: f [...] at the end, between 0 and the start.
        start_share: f [...] at the start, below 1, on the manifold where the mean residual is zero.
        learning_rate: eta [...], with eta v < 1.
        spread: M [...], the standard deviation of the labels between environments.
        strong: v [...].
        weak: u [...], below v.

    Returns:
        The time [...] in steps.

    >>> print(f"{share_time(0.5, 0.99, 0.4, 0.5, 1.0, 0.2):.0f}")
    406
    """
    f, start, eta, spread, v, u = broadcast(share, start_share, learning_rate, spread, strong, weak)

    def integral(f: Array) -> Array:
        low, high = u * (1 - eta * u) * jnp.log(f), v * (1 - eta * v) * jnp.log1p(-f)
        return low - high + eta * (v - u) ** 2 * f

    return (integral(start) - integral(f)) / (eta**2 * spread**2 * u * v * (v - u))

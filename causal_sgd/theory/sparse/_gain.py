"""The gain of a diagonal network: how its steps shrink the start, and so sharpen its bias.

A coordinate of beta = u^2 - v^2 moves by u <- (1 - eta g) u and v <- (1 + eta g) v, in every step
of any method, so that u v is multiplied by 1 - (eta g)^2 and log(u/v) grows by log((1 - eta g)/(1 +
eta g)). With q(x) = -log|1 - x^2| and as log|1 + x| = artanh x - q(x)/2 for |x| < 1,

    2|u v| = 2|u_0 v_0| exp(-sum q(eta g)),    beta = 2 u v sinh(-2 sum artanh(eta g))

exactly. As artanh x = x + O(x^3), and sums of gradients lie in the span of the inputs, the limit is
the interpolator of least hyperbolic entropy of the scale 2|u v| at the end, up to sums of (eta
g)^3: the gain sum q is the whole implicit bias of steps (Even, Pesme, Gunasekar and Flammarion,
NeurIPS 2023, in beta = (p^2 - q^2)/2, where p = sqrt(2) u and steps are the same).

In an environment of eigenvalue s a coordinate near zero has g = -s, so that the exponent of u is
E artanh(eta s) - E q(eta s)/2: it dies where the gain of a step exceeds twice its drift. The law of
heterogeneity and that of the implicit bias are one (derived here).
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory import stability
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.types import Array

__all__ = ["effective_scale", "first_gain", "gain_per_step"]


def effective_scale(positive: ArrayLike, negative: ArrayLike) -> Array:
    """The scale 2|u v| of beta = u^2 - v^2, for `hyperbolic_interpolator`.

    At the start it is alpha^2; over the start's it is exp(-gain) at any later time, whatever the
    method.

    Accuracy: a rounding.

    Args:
        positive: u [...].
        negative: v [...].

    Returns:
        2|u v| [...].

    >>> print(f"{effective_scale(0.1, 0.1):.2f}")
    0.02
    """
    check(positive=positive, negative=negative)
    u, v = broadcast(positive, negative)
    return 2 * jnp.abs(u) * jnp.abs(v)


def first_gain(
    learning_rate: ArrayLike, target: ArrayLike, batch_size: ArrayLike, *, noise: ArrayLike = 0.0
) -> Array:
    """The expected gain of every coordinate in the first step, at beta = 0.

    With m independent inputs x ~ N(0, I) of a batch, labels x'beta + noise and g_i the mean of -x_i
    y, Wick's rule gives E g_i^2 = beta_i^2 (1 + 1/m) + (|beta|^2 + noise^2)/m, and the gain of
    small steps is eta^2 times it. For gradient descent m is the number of examples n: its gain
    sits on the support, (1 + (n + 1) beta_i^2/|beta|^2) times as large as off it; that of SGD with
    one example is nearly uniform, 1 + 2 beta_i^2/|beta|^2.

    Accuracy: leading order in eta^2 g^2.

    Args:
        learning_rate: eta [].
        target: beta [d].
        batch_size: m [], at least 1.
        noise: standard deviation of the labels' noise, [].

    Returns:
        The gain [d].

    Raises:
        ValueError: if shapes do not fit or an argument is out of range.

    >>> gain = first_gain(0.1, [1.0, 1.0, 1.0, 0.0], 20)
    >>> print(f"{gain[0] / gain[-1]:.1f}")
    8.0
    """
    for name, number in (("learning_rate", learning_rate), ("batch_size", batch_size)):
        checks.number(name, number)
    check(learning_rate=learning_rate, target=target, batch_size=batch_size)
    checks.number("noise", noise, minimum=0)
    beta = jnp.asarray(target, float)
    if beta.ndim != 1 or beta.shape[0] == 0:
        raise ValueError(f"target must have shape [d] with d >= 1, got {list(beta.shape)}")
    eta, m = jnp.asarray(learning_rate), jnp.asarray(batch_size)
    power = jnp.sum(beta**2) + jnp.asarray(noise) ** 2
    return eta**2 * (beta**2 * (1 + 1 / m) + power / m)


def gain_per_step(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> Array:
    """The gain of one step in a coordinate that environments reject, E q(eta s).

    Where the coordinate is zero in spite of environments of eigenvalues s, g = -s in every step and
    the gain has no limit. It is minus the exponent at which they balance two factors of U V' at
    twice the learning rate, `theory.stability.balance_exponent`, as 1 - (eta s)^2 is the factor of
    both.

    Accuracy: that of the family's exponent, twice.

    Args:
        learning_rate: eta [...].
        mean: mu [...], of the environments' eigenvalues.
        spread: M [...].
        family: one of `theory.families`.

    Returns:
        The gain [...], which holds beyond the critical spread only.

    >>> print(f"{gain_per_step(0.2, 0.5, 3.0):.4f}")
    0.4805
    """
    check(learning_rate=learning_rate, mean=mean, spread=spread)
    (eta,) = broadcast(learning_rate)
    return -stability.balance_exponent(2 * eta, mean, spread, family)

"""Progressive sharpening in the smallest model that has it: a difference of two squares.

The output f = u^2 - eps v^2 with one label y has the loss (f - y)^2/4, and the sharpness S = 2 (u^2
+ eps^2 v^2) where f = y. With a^2 = 2 eta u^2 and b^2 = 2 eta v^2 a step is

    a <- a (1 - z),    b <- b (1 + eps z),    z = (a^2 - eps b^2)/2 - eta y,

a second-order regression model (Agarwala et al. 2023). For eps = 1 it is
one entry of U V' in the coordinates u + v and u - v. Write B = eps b^2 and T = eta S. As a^2 = 2
(eta y + z) + B,

    T = 2 + 2 z + D,    D = 2 eta y + (1 + eps) B - 2.

D is slow. At T near 2 the residual changes its sign in every step, and a step of two gives, to
leading order in eps and with w = z^2,

    w <- w + 4 D w - 8 w^2,    D <- D - kappa w,    kappa = 4 eps (1 - eta y).

Its orbits are dw/dD = (8 w - 4 D)/kappa, w = c exp(8 D/kappa) + D/2 + kappa/16. From w = 0 at an
overshoot D = (kappa/8) X they return to w = 0 at D = (kappa/8) X', with

    (1 + X') exp(-X') = (1 + X) exp(-X),    -1 < X' < 0:

a small overshoot is reflected, and after a large one all runs end at X' = -1, at eta S = 2 -
eps (1 - eta y)/2, whatever their start.

Environments with labels y +- M keep the residual moving. Its variance in these units is V = 2 (eta
M)^2/(2 - T), that of an autoregression. The mean of log|1 - z| is that of the slow change of log a,
so that the mean of z is about -V/2, and B falls without an end:

    d log B/dt = -eps (1 + eps) V (2 eta y + B)/T.

Its rate grows towards T = 2. The edge is no place to stay, and runs end at the flattest minimum, B
= 0 and S = 2 y. (All derived here.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["flattening_time", "sharpening_end"]

NEWTON = 40  # steps; the error of a double root, where the overshoot is tiny, is halved in each
LARGEST = 80.0  # of X: exp(-X) is nothing


@checked_jit
def sharpening_end(
    learning_rate: ArrayLike,
    target: ArrayLike,
    ratio: ArrayLike,
    overshoot: ArrayLike | None = None,
) -> Array:
    """The sharpness [...] at which the oscillation beyond the edge of stability dies.

    [2 - (eps/2)(1 - eta y) h]/eta, h = 1 for a large overshoot and the solution of h + log(1 - h) =
    log(1 + X) - X, X = 2 D/(eps (1 - eta y)), otherwise.

    Accuracy: to leading order in eps. The next order adds to 2 - eta S a share of about 1.8 eps at
    y = 0 and 1.4 eps at eta y = 1/2 for a large overshoot.

    Args:
        learning_rate: eta [...].
        target: y [...], in units of the output, below 1/eta: the flattest minimum, of sharpness 2
            y, is stable.
        ratio: eps [...], above 0, of the two curvatures of the output.
        overshoot: D [...], above 0: eta S - 2 while the residual is still small; None for a large
            one.

    Returns:
        S, below 2/eta; NaN where the flattest minimum is beyond the edge.

    >>> print(f"{sharpening_end(1.0, 0.0, 0.02):.4f} {sharpening_end(1.0, 0.0, 0.02, 0.01):.4f}")
    1.9900 1.9941
    """
    large = jnp.inf if overshoot is None else overshoot
    eta, y, ratio, large = broadcast(learning_rate, target, ratio, large)
    scale = ratio * (1 - eta * y) / 2  # kappa/8
    scale = jnp.where(scale > 0, scale, jnp.nan)
    x = jnp.minimum(large / scale, LARGEST)
    level = jnp.log1p(x) - x

    def newton(_: int, h: Array) -> Array:
        # log(1 + X') - X' is concave: from the left of its root the steps never pass it.
        return h - (jnp.log(h) + 1 - h - level) * h / jnp.maximum(1 - h, 1e-30)

    # h' = 1 + X'
    rest = jax.lax.fori_loop(0, NEWTON, newton, jnp.exp(level - 1))
    return (2 - scale * (1 - rest)) / eta


@checked_jit
def flattening_time(
    start: ArrayLike,
    end: ArrayLike,
    learning_rate: ArrayLike,
    target: ArrayLike,
    ratio: ArrayLike,
    spread: ArrayLike,
) -> Array:
    """Steps in which environments of labels y +- M flatten a minimum from one sharpness to another.

    With k = 1 + eps and B = (eta S - 2 eta y)/k,

        t = [2 (1 - eta y) log B + c log(2 eta y + B) - k^2 B]/(2 eps k (eta M)^2)

    from the end to the start, c = 2 k (1 - 2 eta y) + 2 k^2 eta y - 2 (1 - eta y).

    Accuracy: leading order in eta M; the relative error is of order (eta M/(2 - eta S))^2.

    Args:
        start: S [...], below 2/eta.
        end: S [...], between 2 y and the start.
        learning_rate: eta [...].
        target: y [...], at least 0, in units of the output.
        ratio: eps [...], above 0.
        spread: M [...], the deviation of the labels between environments.

    Returns:
        The time [...] in steps; inf without spread, NaN where the order of the values is another.

    >>> print(f"{flattening_time(1.6, 1.2, 1.0, 0.5, 0.05, 0.05):.0f}")
    2694
    """
    above, below, eta, y, ratio, spread = broadcast(
        start, end, learning_rate, target, ratio, spread
    )
    y, k = eta * y, 1 + ratio
    first, last = ((eta * value - 2 * y) / k for value in (above, below))
    valid = (last > 0) & (first >= last) & (eta * above < 2)
    first, last = (jnp.where(valid, value, jnp.nan) for value in (first, last))
    slope = 2 * k * (1 - 2 * y) + 2 * k**2 * y - 2 * (1 - y)
    logs = 2 * (1 - y) * jnp.log(first / last) + slope * jnp.log((2 * y + first) / (2 * y + last))
    return (logs - k**2 * (first - last)) / (2 * ratio * k * (eta * spread) ** 2)

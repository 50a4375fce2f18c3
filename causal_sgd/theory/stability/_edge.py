"""Beyond the edge of stability: the cubic map of one direction of U U'.

Under population gradients a direction of eigenvalue s follows u <- (1 + a - eta u^2) u, a = eta s.
In x = eta u^2 the fixed point x = a has the multiplier 1 - 2a and is stable up to a = 1, which is
2 over the sharpness. Beyond, u alternates between two values of one sign: a product of two factors
1 + a - x is 1, so that x_1 and x_2 have the sum 1 + a and the product 1,

    x = [(1 + a) +- sqrt((1 + a)^2 - 4)]/2,

with the multiplier (1 + a - 3 x_1)(1 + a - 3 x_2) = 9 - 2 (1 + a)^2, stable up to a = sqrt(5) - 1.
Then the period doubles on. The largest image of a step is (4/27)(1 + a)^3 in x. It exceeds 1 + a,
beyond which a step changes the sign of u, for a > sqrt(27/4) - 1, and 2 + a, beyond which steps
grow, for a > 2. At a = 2 the map is 2 cos(t) -> -2 cos(3 t), the third Chebyshev polynomial, whose
stationary mean of x is 2 = a again. (Cohen et al., ICLR 2021, observe the edge; Chen and Bruna,
ICML 2023, the two-cycle in products of scalars. The formulas are derived here.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["Edges", "TwoCycle", "edge_mean", "edge_multiplier", "edges", "two_cycle"]

CYCLE = math.sqrt(5) - 1
SIGN = math.sqrt(27 / 4) - 1


class Edges(NamedTuple):
    """Learning rates at which a learned direction changes its behaviour, each [...]."""

    fixed_point: Array  # 1/s: the level s is stable below
    two_cycle: Array  # (sqrt(5) - 1)/s: two alternating levels are stable below
    one_sign: Array  # (sqrt(27/4) - 1)/s: u keeps its sign below, if it started below the peak
    bounded: Array  # 2/s: every run diverges above


class TwoCycle(NamedTuple):
    """The squares u^2 between which a direction alternates, each [...]."""

    low: Array
    high: Array


@checked_jit
def edges(eigenvalue: ArrayLike) -> Edges:
    """The four edges of the cubic map.

    Accuracy: a rounding.

    Args:
        eigenvalue: s [...], above zero.

    >>> print([f"{edge:.3f}" for edge in edges(1.0)])
    ['1.000', '1.236', '1.598', '2.000']
    """
    (s,) = broadcast(eigenvalue)
    return Edges(1 / s, CYCLE / s, SIGN / s, 2 / s)


@checked_jit
def two_cycle(learning_rate: ArrayLike, eigenvalue: ArrayLike) -> TwoCycle:
    """The two alternating levels of u^2; below the edge both are s.

    Accuracy: relative 1e-6/sqrt(|eta s - 1|) in single precision.

    Args:
        learning_rate: eta [...].
        eigenvalue: s [...], above zero.

    Returns:
        The levels, each [...], in units of s. They repel beyond eta s = sqrt(5) - 1.

    >>> print([f"{level:.4f}" for level in two_cycle(1.2, 1.0)])
    ['0.5348', '1.2985']
    """
    eta, s = broadcast(learning_rate, eigenvalue)
    a = eta * s
    root = jnp.sqrt(jnp.maximum((a - 1) * (a + 3), 0))  # (1 + a)^2 - 4
    high = (1 + a + root) / 2
    beyond = a > 1
    return TwoCycle(jnp.where(beyond, 1 / high / eta, s), jnp.where(beyond, high / eta, s))


@checked_jit
def edge_mean(learning_rate: ArrayLike, eigenvalue: ArrayLike) -> Array:
    """The time average [...] of u^2: s up to the edge, then (1 + eta s)/(2 eta), below s.

    The sharpness of every minimum is 2 s, so the product has no flatter one to go to: beyond the
    edge the learned level itself is biased, by the factor (1 + a)/(2a).

    Accuracy: a rounding.

    Args:
        learning_rate: eta [...].
        eigenvalue: s [...], above zero.

    Returns:
        The average [...]; NaN beyond the two-cycle, where there is no closed form, inf for eta s >
        2.
    """
    eta, s = broadcast(learning_rate, eigenvalue)
    a = eta * s
    settled = jnp.where(a <= 1, s, (1 + a) / (2 * eta))
    return jnp.where(a <= CYCLE, settled, jnp.where(a > 2, jnp.inf, jnp.nan))


@checked_jit
def edge_multiplier(learning_rate: ArrayLike, eigenvalue: ArrayLike) -> Array:
    """The factor [...] of a small deviation from the settled level per period.

    It is 1 - 2a for the fixed point (one step) and 9 - 2 (1 + a)^2 for the two-cycle (two steps).
    An orbit is stable where its absolute value is below 1.

    Accuracy: absolute 1e-6 in single precision for a up to 2.

    Args:
        learning_rate: eta [...].
        eigenvalue: s [...], above zero.
    """
    eta, s = broadcast(learning_rate, eigenvalue)
    a = eta * s
    return jnp.where(a <= 1, 1 - 2 * a, 9 - 2 * (1 + a) ** 2)

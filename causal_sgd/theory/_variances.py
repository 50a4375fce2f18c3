"""The variance of log|1 + eta s|, in closed form or by convergent sums."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import DIGAMMA, families, log_variance_two_point
from causal_sgd.types import Array

__all__ = ["log_variance"]

TERMS = 24  # of the uniform series: beyond them, 2^-48 is left at r = 1/2
NORMAL_TERMS = 24  # of the asymptotic normal series: at r = 1/8 its smallest term is the 32nd


def _series(moments: list[float]) -> list[float]:
    """Coefficients of r^2k in Var log(1 + r t), highest power first, from the moments E t^2k."""
    size = len(moments) - 1
    # E log(1 + r t) = sum_k m_k r^2k, and E log^2(1 + r t) is the square of the series of log.
    means = [0.0, *(-moments[k] / (2 * k) for k in range(1, size + 1))]
    result = []
    for k in range(size, 0, -1):
        square = math.fsum(1 / (i * (2 * k - i)) for i in range(1, 2 * k)) * moments[k]
        result.append(square - math.fsum(means[i] * means[k - i] for i in range(1, k)))
    return [*result, 0.0]


_UNIFORM_SERIES = _series([1 / (2 * k + 1) for k in range(TERMS + 1)])
# Powers of (8 r)^2, which stay within single precision.
_NORMAL_SERIES = [
    coefficient / 64.0**power
    for power, coefficient in zip(
        range(NORMAL_TERMS, -1, -1),
        _series([float(math.prod(range(1, 2 * k, 2))) for k in range(NORMAL_TERMS + 1)]),
        strict=True,
    )
]
_TRIGAMMA = [
    math.fsum([math.pi**2 / 2, *(-4 / (2 * i - 1) ** 2 for i in range(1, j + 1))])
    for j in range(len(DIGAMMA))
]


@checked_jit
def log_variance(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> Array:
    """The variance v [...] of log|1 + eta s|.

    With r = b/a, it is artanh(r)^2 for two points (r replaced by 1/r above 1). For uniform
    eigenvalues the integrals of log and log^2 are elementary; a power series replaces them for
    r <= 1/2. For normal eigenvalues the square of 1 + eta s is a mixture of chi-squares, as for
    `lyapunov_gaussian`: v is a quarter of the mean trigamma plus the variance of the digamma; an
    asymptotic series replaces them for r < 1/8.

    Accuracy: relative 2e-5 in single precision for any spread (two points: where |b/a - 1| > 1e-3).

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
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    a, b = jnp.abs(1 + eta * mu), eta * spread
    return _uniform(a, b) if family == "uniform" else _normal(a, b)


def _uniform(a: Array, b: Array) -> Array:
    """The variance of log|a + b t| for t uniform on [-1, 1]."""
    inside = b < a
    large = jnp.maximum(a, b)
    ratio = jnp.minimum(a, b) / jnp.where(large > 0, large, 1)  # smaller over larger
    small = ratio <= 0.5
    series = jnp.polyval(
        jnp.asarray(_UNIFORM_SERIES, a.dtype), jnp.where(inside & small, ratio, 0) ** 2
    )
    plus, minus = 1 + ratio, 1 - ratio
    log_plus = jnp.log1p(ratio)
    log_minus = jnp.log1p(-jnp.where(ratio < 1, ratio, 0))
    # Integrals over [-1, 1], divided by 2; inside, t is multiplied by the ratio.
    width = jnp.where(inside, jnp.where(small, 1, ratio), 1)
    sign = jnp.where(inside, -1, 1)
    first = (plus * log_plus + sign * minus * log_minus) / (2 * width) - 1
    second = plus * (log_plus - 2) * log_plus + sign * minus * (log_minus - 2) * log_minus
    closed = second / (2 * width) + 2 - first**2
    return jnp.where(inside & small, series, closed)


def _normal(a: Array, b: Array) -> Array:
    """The variance of log|a + b z| for z standard normal."""
    far = a > 8 * b
    ratio = 8 * jnp.where(far, b, 0) / jnp.where(far, a, 1)
    tail = jnp.polyval(jnp.asarray(_NORMAL_SERIES, a.dtype), ratio**2)
    rate = (jnp.where(far, 0, a) / jnp.where(b > 0, math.sqrt(2) * b, 1)) ** 2
    digammas, trigammas = (jnp.asarray(table, a.dtype) for table in (DIGAMMA, _TRIGAMMA))
    # Centred near their mean, the digammas lose no digits in their variance.
    centre = jnp.log(jnp.maximum(rate, 1) / 32)

    def add(j: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        weight, total, first, second, spread = carry
        digamma = digammas[j] - centre
        return (
            weight * rate / (j + 1),
            total + weight,
            first + weight * digamma,
            second + weight * digamma**2,
            spread + weight * trigammas[j],
        )

    zero = jnp.zeros_like(rate)
    sums = jax.lax.fori_loop(0, len(DIGAMMA), add, (zero + 1, zero, zero, zero, zero))
    first, second, spread = (value / sums[1] for value in sums[2:])
    return jnp.where(far, tail, (spread + second - first**2) / 4)

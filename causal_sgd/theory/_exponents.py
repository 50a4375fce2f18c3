"""Lyapunov exponents and variances of families of spectra and of fixed environments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check, checked_jit, count_environments
from causal_sgd.types import Array

__all__ = [
    "DEVIATION",
    "DIGAMMA",
    "RATIO_OF_LEAST_EXPONENT",
    "families",
    "log_abs",
    "log_variance_environments",
    "log_variance_two_point",
    "lyapunov",
    "lyapunov_asymmetric",
    "lyapunov_environments",
    "lyapunov_gaussian",
    "lyapunov_log_normal",
    "lyapunov_two_point",
    "lyapunov_uniform",
]

DEVIATION = {"two_point": 1.0, "uniform": 1 / math.sqrt(3), "gaussian": 1.0}
"""Standard deviation of the eigenvalues by family, in spreads."""

# Two points reach -inf at r = 1; uniform eigenvalues have r tanh r = 1; for normal eigenvalues
# Dawson's integral has its maximum at 1/(r sqrt(2)).
RATIO_OF_LEAST_EXPONENT = {"two_point": 1.0, "uniform": 1.1996786, "gaussian": 0.7651521}
"""The ratio r = b/a by family at which lambda is least; it falls with the spread up to there."""

# E log|1 + r t| = -sum_k r^2k / (2k (2k + 1)) for t uniform on [-1, 1]; highest power of r^2 first.
_UNIFORM_SERIES = [*(-1 / (2 * k * (2 * k + 1)) for k in range(24, 0, -1)), 0.0]
# E log|1 + z/x| ~ -sum_k (2k - 1)!! / (2k x^2k) for z normal; powers of (8/x)^2 stay within
# float32.
_NORMAL_TAIL = [
    *(-float(math.prod(range(1, 2 * k, 2))) / (2 * k * 64.0**k) for k in range(30, 0, -1)),
    0.0,
]
# digamma(j + 1/2) - log(32); 100 Poisson weights of a mean up to 32 leave out less than 1e-20.
_DIGAMMA_OF_HALF = -0.5772156649015329 - 2 * math.log(2) - math.log(32)
DIGAMMA = [
    _DIGAMMA_OF_HALF + math.fsum(2 / (2 * i - 1) for i in range(1, j + 1)) for j in range(100)
]
_TINY = 1e-37  # avoids 0/0; a normal number in float32


def log_abs(x: Array) -> Array:
    """log|1 + x|, accurate for small x."""
    # The clip is needed where the compiler fuses the product in x with 1 + x: the sum may fall
    # below 0.
    return jnp.log1p(jnp.maximum(jnp.where(x >= -1, x, -2 - x), -1))


def _half_log(low: Array, high: Array, excess: Array) -> Array:
    """(1/2) log|(1 + low)(1 + high)|; `excess` is low + high + low high without cancellation."""
    near = jnp.log1p(jnp.clip(excess, -0.5, 0.5))
    return jnp.where(jnp.abs(excess) < 0.5, near, log_abs(low) + log_abs(high)) / 2


@checked_jit
def lyapunov_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...], (1/2) log|a^2 - b^2| of the eigenvalues mu +- M, equally likely.

    It is -inf where one of the two factors vanishes and positive again for b^2 > a^2 + 1.

    Accuracy: 2e-6 (1 + |lambda|) + 2e-7/|b/a - 1| in single precision, eta mu from -1/2 to 1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].

    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=4.0):.3f}")  # grows
    0.024
    >>> print(f"{lyapunov_two_point(0.1, mean=1.0, spread=6.0):.3f}")  # dies
    -0.081
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    drift, b = eta * mu, eta * spread
    return _half_log(eta * (mu - spread), eta * (mu + spread), drift * (2 + drift) - b * b)


@checked_jit
def lyapunov_asymmetric(learning_rate: ArrayLike, up: ArrayLike, down: ArrayLike) -> Array:
    """Lyapunov exponent [...], (1/2) log|(1 + eta up)(1 - eta down)|, of +up and -down.

    Both are equally likely.

    Accuracy: 2e-6 (1 + |lambda|) + 2e-7/|1 - eta down| in single precision.

    Args:
        learning_rate: eta [...].
        up: size [...] of the positive eigenvalue, not negative.
        down: size [...] of the negative eigenvalue, not negative.
    """
    eta, up, down = broadcast(learning_rate, up, down)
    return _half_log(-eta * down, eta * up, eta * (up - down) - eta * up * (eta * down))


@checked_jit
def lyapunov_uniform(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of eigenvalues uniform on mu +- M.

    The integral of log|y| over [a - b, a + b] gives log|a| + h(b/|a|), equal to

        [(a + b) log|a + b| - (a - b) log|a - b|]/(2b) - 1;

    h is evaluated by its power series for b <= |a|/2.

    Accuracy: 2e-6 (1 + |lambda|) in single precision, 1e-10 in double, for any b/a and eta mu > -1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: the half-width M [...].
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    shift, b = eta * mu, eta * spread
    a = jnp.abs(1 + shift)
    inside = b < a
    q = jnp.where(inside, b, a) / jnp.maximum(jnp.where(inside, a, b), _TINY)  # smaller over larger
    small, regular = q <= 0.5, q < 1
    plus = (1 + q) * jnp.log1p(q)
    minus = jnp.where(regular, (1 - q) * jnp.log1p(-jnp.where(regular, q, 0)), 0)
    # The closed form cancels for small q, where the series takes over.
    series = jnp.polyval(jnp.asarray(_UNIFORM_SERIES, q.dtype), jnp.where(small, q, 0) ** 2)
    closed = (plus - minus) / (2 * jnp.where(small, 1, q)) - 1
    below = log_abs(shift) + jnp.where(small, series, closed)
    return jnp.where(inside, below, jnp.log(b) + (plus + minus) / 2 - 1)


def _poisson_term(j: int, carry: tuple[Array, ...]) -> tuple[Array, ...]:
    """Add term j to the unnormalised sums of the weights and of the centred digammas."""
    rate, centre, digammas, weight, total, moment = carry
    moment = moment + weight * (digammas[j] - centre)
    return rate, centre, digammas, weight * rate / (j + 1), total + weight, moment


@checked_jit
def lyapunov_gaussian(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of normal eigenvalues.

    With x = a/b the square (x + z)^2 is a noncentral chi-square with one degree of freedom: a
    Poisson(x^2/2) mixture over j of chi-squares with 1 + 2j, whose logarithms have the mean
    log 2 + digamma(j + 1/2). This series is used for x <= 8. Beyond, the asymptotic series
    log x - sum_k (2k - 1)!!/(2k x^2k) has an error of order exp(-x^2/2).

    Accuracy: 2e-6 (1 + |lambda|) in single precision, 1e-10 in double, for any b/a and eta mu > -1.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: the standard deviation [...].
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    shift, width = eta * mu, eta * spread
    a, wide = jnp.abs(1 + shift), math.sqrt(2) * width
    far = a > 8 * width
    ratio = 8 * jnp.where(far, width, 0) / jnp.maximum(jnp.where(far, a, 1), _TINY)
    tail = jnp.polyval(jnp.asarray(_NORMAL_TAIL, a.dtype), ratio**2)
    rate = (jnp.where(far, 0, a) / jnp.where(width > 0, wide, 1)) ** 2
    # Centred, the sum is as small as lambda - log(scale): float32 does not lose it in log(width).
    centre = jnp.log(jnp.maximum(rate, 1) / 32)
    scale = jnp.where(a >= wide, log_abs(shift), jnp.log(wide))
    zero = jnp.zeros_like(rate)
    start = (rate, centre, jnp.asarray(DIGAMMA, a.dtype), zero + 1, zero, zero)
    *_, total, moment = jax.lax.fori_loop(0, len(DIGAMMA), _poisson_term, start)
    return jnp.where(far, log_abs(shift) + tail, scale + moment / total / 2)


@checked_jit
def lyapunov_log_normal(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of log-normal eigenvalues; always positive.

    E log(1 + exp(c + w z)) with w^2 = log(1 + (M/mu)^2), c = log(eta mu) - w^2/2 and z standard
    normal, by the trapezoidal rule, which is accurate to rounding for a function as smooth as this.

    Accuracy: relative 2e-5 in single precision for M/mu up to 100 and eta mu from 1e-6 to 1.

    Args:
        learning_rate: eta [...].
        mean: mu [...], above zero.
        spread: the standard deviation M [...].
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    variance = jnp.log1p((spread / mu) ** 2)
    nodes = jnp.linspace(-7.5, 7.5, 151, dtype=eta.dtype)
    weights = jnp.exp(-(nodes**2) / 2) * 0.1 / math.sqrt(2 * math.pi)
    shape = (1,) * eta.ndim + (-1,)
    centre = (jnp.log(eta * mu) - variance / 2)[..., None]
    exponents = centre + jnp.sqrt(variance)[..., None] * nodes.reshape(shape)
    return jnp.sum(jax.nn.softplus(exponents) * weights.reshape(shape), -1)


families: Mapping[str, Callable[[ArrayLike, ArrayLike, ArrayLike], Array]] = {
    "two_point": lyapunov_two_point,
    "uniform": lyapunov_uniform,
    "gaussian": lyapunov_gaussian,
}
"""The exponent of each family of spectra: (learning_rate, mean, spread) -> lambda."""


def lyapunov(family: str, learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """Lyapunov exponent [...] of one of the `families`, by name.

    Accuracy: that of the function of the family.

    Args:
        family: one of `families`.
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
    """
    return families[checks.choice("family", family, families)](learning_rate, mean, spread)


@jax.jit
def _log_moments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, weights: ArrayLike
) -> tuple[Array, Array]:
    """Mean and variance [...] of log|1 + eta s_e|."""
    eta, values, weights = broadcast(jnp.asarray(learning_rate)[..., None], eigenvalues, weights)
    logs = jnp.where(weights > 0, log_abs(eta * values), 0)
    mean = jnp.sum(weights * logs, -1)
    # A factor of zero has an infinite deviation; the finite centre avoids inf - inf.
    centre = jnp.where(jnp.isinf(mean), 0, mean)[..., None]
    deviation = jnp.where(jnp.isinf(logs), jnp.inf, logs - centre)
    return mean, jnp.sum(jnp.where(weights > 0, weights * deviation**2, 0), -1)


def _environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None
) -> tuple[Array, Array]:
    """Check the arguments while they are concrete, then compute `_log_moments`."""
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    size = count_environments("eigenvalues", eigenvalues)
    weights = 1 / size
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    return _log_moments(learning_rate, eigenvalues, weights)


def lyapunov_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """Lyapunov exponent [...], sum_e p_e log|1 + eta s_e|, of fixed environments, random or cyclic.

    Accuracy: 1e-5 (1 + |lambda|) in single precision where no |1 + eta s_e| is below 0.02.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., E], the spurious eigenvalue of each environment.
        probabilities: [E], sum to one; None for equal ones.

    >>> print(f"{lyapunov_environments(0.1, jnp.array([5.0, -3.0])):.3f}")
    0.024
    """
    return _environments(learning_rate, eigenvalues, probabilities)[0]


@checked_jit
def log_variance_two_point(learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """The variance v [...] of log|1 + eta s| for the eigenvalues mu +- M, equally likely.

    Half the difference of the two logarithms is (1/2) log|(a + b)/(a - b)|, so v = artanh(b/|a|)^2,
    or artanh(|a|/b)^2 where b > |a|. It is infinite at the singular point b = |a|.

    Accuracy: relative 1e-5 (1 + 0.1/|b/a - 1|) in single precision.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
    """
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    a, b = jnp.abs(1 + eta * mu), eta * spread
    large = jnp.maximum(a, b)
    return jnp.arctanh(jnp.minimum(a, b) / jnp.maximum(large, _TINY)) ** 2


def log_variance_environments(
    learning_rate: ArrayLike, eigenvalues: ArrayLike, probabilities: ArrayLike | None = None
) -> Array:
    """The variance v [...] of log|1 + eta s_e| over randomly drawn environments.

    It is inf where an environment of positive probability has 1 + eta s_e = 0.

    Accuracy: relative 1e-4 in single precision where no |1 + eta s_e| is below 0.02.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [..., E].
        probabilities: [E], sum to one; None for equal ones.
    """
    return _environments(learning_rate, eigenvalues, probabilities)[1]

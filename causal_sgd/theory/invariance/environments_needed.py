"""How many environments IRM needs in `worlds.gaussian_environments` (after Rosenfeld et al. 2021).

Given the label y, -1 or 1, the inputs are z_c ~ N(y mu_c, sigma_c^2 I) and
z_e ~ N(y mu_e, sigma_e^2 I); in environment e the spurious means are mu_e [d]. A vector p with
p'mu_e = 1 for all e is a certificate that E environments are too few: the pair (z_c, p'z_e) has one
law in all of them, so that the best prediction from it,

    f = 2 mu_c'z_c / sigma_c^2 + 2 p'z_e / (sigma_e^2 |p|^2),

is calibrated everywhere. It passes every test of invariance, IRMv1's penalty is zero, and its risk
is that of the signal-to-noise ratio |mu_c|^2/sigma_c^2 + 1/(sigma_e^2 |p|^2) in place of
|mu_c|^2/sigma_c^2. For means in general position there is one iff E <= d, whatever the dimension
of z_c. (The derivation is ours.) Losses are log(1 + exp(-y f)), and D_e is the derivative of the
risk in a factor of f.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammainc, ndtr
from jax.typing import ArrayLike

from causal_sgd import _room, linalg
from causal_sgd.theory._arguments import broadcast, check, checked_jit
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "Certificate",
    "bayes_risk",
    "certificate",
    "flipped_error",
    "gain_distribution",
    "logistic_risk",
    "scale_slope",
]

_NODES = np.linspace(-9, 9, 401)  # of a standard normal number
_UNIT = np.linspace(-1, 1, 401)
_ROUNDINGS = 32  # by which p'mu_e may differ from 1, in units of |p| |mu_e|


class Certificate(NamedTuple):
    """The spurious combination p'z_e of inputs that no environment tells from an invariant one."""

    direction: Array  # [..., d] p; where there is none, that of the first environments
    gain: Array  # [...] 1/|p|^2, 0 where there is none
    exists: Array  # [...] bool


def certificate(spurious_means: ArrayLike) -> Certificate:
    """The solution of least norm of p'mu_e = 1 in all environments.

    p is computed by Gram-Schmidt from the means, one environment after the other. Environments that
    repeat the means of others, and inputs whose means are zero, change nothing.

    Accuracy: p'mu_e = 1 within 1e-6 |p| |mu_e| in single precision. An environment whose mean has
    less than 5e-7 of its norm outside the span of those before it counts as dependent on them.

    Args:
        spurious_means: mu_e [..., E, d].

    Returns:
        A certificate; it exists if all equations hold within rounding.

    >>> means = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    >>> found = certificate(means)
    >>> print(f"{found.gain:.3f}", bool(found.exists))
    2.000 True
    >>> print(bool(certificate(np.array([[1.0], [2.0]])).exists))
    False
    """
    check(spurious_means=spurious_means)
    shape = np.shape(spurious_means)
    if len(shape) < 2 or 0 in shape[-2:]:
        raise ValueError(f"spurious_means must have the shape [..., E, d], got {list(shape)}")
    return _certificate(spurious_means)


@jax.jit
def _certificate(spurious_means: ArrayLike) -> Certificate:
    means = jnp.asarray(spurious_means, float)
    flat = means.reshape(-1, *means.shape[-2:])
    solved = jax.vmap(_least_norm)(flat)
    return Certificate(*(leaf.reshape(*means.shape[:-2], *leaf.shape[1:]) for leaf in solved))


def _least_norm(means: Array) -> Certificate:
    basis = linalg.orthonormal(means.T)  # [d, E], zero where a mean is dependent
    lower = linalg.product(means, basis)  # [E, E]

    def forward(index: Array, values: Array) -> Array:
        diagonal = lower[index, index]
        rest = 1 - jnp.sum(lower[index] * values)
        new = jnp.where(diagonal != 0, rest / jnp.where(diagonal != 0, diagonal, 1), 0)
        return values.at[index].set(new)

    values = jax.lax.fori_loop(0, len(means), forward, jnp.zeros(len(means), means.dtype))
    direction = linalg.product(basis, values[:, None])[:, 0]
    errors = jnp.abs(linalg.product(means, direction[:, None])[:, 0] - 1)
    square = jnp.sum(direction**2)
    sizes = jnp.sqrt(jnp.sum(means**2, 1) * square)
    exists = jnp.all(errors < _ROUNDINGS * jnp.finfo(means.dtype).eps * sizes)
    gain = jnp.where(exists, 1 / jnp.where(square > 0, square, 1), 0)
    return Certificate(direction, gain, exists)


@checked_jit
def gain_distribution(
    gain: ArrayLike, num_environments: ArrayLike, dim_spurious: ArrayLike
) -> Array:
    """P(1/|p|^2 <= gain) [...] for means mu_e ~ N(0, I).

    With the means as rows of A, 1/|p|^2 = 1/(1'(A A')^-1 1), and A A' is a Wishart matrix of d
    degrees of freedom. A quadratic form of its inverse is the inverse of chi^2_{d-E+1}
    (Muirhead 1982, theorem 3.2.12), so that 1/|p|^2 ~ chi^2_{d-E+1}/E; it is 0 for E > d.

    Accuracy: 1e-5 in single precision.

    Args:
        gain: the value of 1/|p|^2, [...]; in units of the square of their deviation if the means
            have another one than 1.
        num_environments: E [...].
        dim_spurious: d [...].

    >>> print(f"{gain_distribution(1.0, 3, 5):.3f}")
    0.608
    """
    value, size, dim = broadcast(gain, num_environments, dim_spurious)
    degrees = dim - size + 1
    inside = gammainc(jnp.maximum(degrees, 1) / 2, jnp.maximum(size * value, 0) / 2)
    return jnp.where(degrees > 0, inside, 1.0)


@checked_jit
def bayes_risk(signal_to_noise: ArrayLike) -> Array:
    """The logistic risk [...] of the best prediction of classes with means +-m and covariance C.

    With s = m'C^-1 m the best logit is f = 2 m'C^-1 x, and y f ~ N(2 s, 4 s). The risk is

        e^(-s/2) E [e^(g/2) log(1 + e^-g)],  g ~ N(0, 4 s),

    whose integrand falls on both sides; the trapezoidal rule converges exponentially.

    Accuracy: relative 1e-5 in single precision, 1e-12 in double, s up to 100.

    Args:
        signal_to_noise: s [...], at least 0.

    >>> print(" ".join(f"{risk:.4f}" for risk in bayes_risk(np.array([0.0, 1.0, 3.0]))))
    0.6931 0.3563 0.1072
    """
    (s,) = broadcast(signal_to_noise)
    width = jnp.sqrt(s)[..., None]
    range_ = jnp.minimum(9.0, 35 / jnp.maximum(width, 1.0))
    t = range_ * jnp.asarray(_UNIT, s.dtype).reshape((1,) * s.ndim + (-1,))
    g = 2 * width * t
    density = jnp.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) * range_ * (_UNIT[1] - _UNIT[0])
    # e^(g/2) log(1 + e^-g) without overflow of either factor
    size = jnp.abs(g)
    tail = jnp.log1p(jnp.exp(-size)) + jnp.maximum(-g, 0)
    values = jnp.exp(-size / 2) * jnp.where(g > 0, tail * jnp.exp(jnp.minimum(size, 80.0)), tail)
    return jnp.exp(-s / 2) * jnp.sum(density * values, -1)


@checked_jit
def logistic_risk(mean: ArrayLike, deviation: ArrayLike) -> Array:
    """E log(1 + exp(-g)) [...], the risk of a prediction with y f = g ~ N(mean, deviation^2).

    Accuracy: 2e-6 (1 + |mean|) in single precision for deviations up to 20.

    Args:
        mean: of y f, [...].
        deviation: of y f, [...], at least 0.
    """
    g, density = _predictions(mean, deviation)
    return jnp.sum(density * (jnp.maximum(-g, 0) + jnp.log1p(jnp.exp(-jnp.abs(g)))), -1)


@checked_jit
def scale_slope(mean: ArrayLike, deviation: ArrayLike) -> Array:
    """D [...], the derivative of `logistic_risk` in a factor of the prediction, at 1.

    It is -E g/(1 + e^g), and zero for the best logit of any pair of classes with means +-m: there
    the mean is 2 s and the deviation 2 s^(1/2).

    Accuracy: 2e-6 (1 + |mean|) in single precision for deviations up to 20.

    Args:
        mean: of y f, [...].
        deviation: of y f, [...], at least 0.

    >>> print(f"{abs(scale_slope(6.0, 12**0.5)):.4f} {scale_slope(3.0, 12**0.5):.4f}")
    0.0000 0.2510
    """
    g, density = _predictions(mean, deviation)
    odds = jnp.exp(-jnp.abs(g))
    return -jnp.sum(density * g * jnp.where(g > 0, odds, 1) / (1 + odds), -1)


@checked_jit
def flipped_error(signal_to_noise: ArrayLike, gain: ArrayLike) -> Array:
    """The certificate's error rate [...] where the spurious means are -mu_e.

    y f has the mean 2 (s - g) and the variance 4 (s + g), hence Phi((g - s)/(s + g)^(1/2)): beyond
    1/2 iff the gain exceeds the signal of the invariant inputs.

    Accuracy: relative 1e-5 in single precision.

    Args:
        signal_to_noise: s = |mu_c|^2/sigma_c^2 [...] of the invariant inputs.
        gain: g = 1/(sigma_e^2 |p|^2) [...].

    >>> print(f"{flipped_error(1.0, 3.0):.4f}")
    0.8413
    """
    s, g = broadcast(signal_to_noise, gain)
    total = s + g
    return ndtr((g - s) / jnp.sqrt(jnp.where(total > 0, total, 1)))


def _predictions(mean: ArrayLike, deviation: ArrayLike) -> tuple[Array, Array]:
    """Values of y f and their weights, [..., nodes]."""
    center, width = broadcast(mean, deviation)
    t = jnp.asarray(_NODES, center.dtype).reshape((1,) * center.ndim + (-1,))
    density = np.exp(-(_NODES**2) / 2)
    weights = jnp.asarray(density / density.sum(), center.dtype).reshape(t.shape)
    return center[..., None] + width[..., None] * t, weights

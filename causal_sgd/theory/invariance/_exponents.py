"""Lyapunov exponents of HeteroSGD's reliance on each input, with weights u^2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check, checked_jit
from causal_sgd.theory._boundaries import critical_spread
from causal_sgd.theory._exponents import lyapunov_environments, lyapunov_gaussian
from causal_sgd.theory.invariance._moments import shape_of_moments
from causal_sgd.types import Array

__all__ = [
    "anticausal_critical_spread",
    "batch_exponents",
    "biases",
    "hetero_exponents",
    "hetero_reach",
    "invariant_exponents",
    "lyapunov_batch",
]

_NODES = np.arange(-30, 8.01, 0.125)  # of log Q, in standard deviations


def biases(second: ArrayLike, target: ArrayLike, *, intercept: ArrayLike = 0.0) -> Array:
    """The biases b_e = E_e x (y - x'w* - c) of the gradients at w*, [E, p].

    Accuracy: a few roundings of the moments.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2.
        target: w* [p]. With zero, b_e = E_e x y is what drives the start of training.
        intercept: c [], if the model has one.
    """
    _check(second, target)
    checks.number("intercept", intercept)
    return _biases(second, target, intercept)


def hetero_exponents(
    second: ArrayLike,
    target: ArrayLike,
    probabilities: ArrayLike | None,
    learning_rate: ArrayLike,
    *,
    intercept: ArrayLike = 0.0,
    signed: bool = False,
) -> Array:
    """Lyapunov exponents lambda_j = sum_e p_e log|1 + eta b_ej| of the reliance on each input.

    With weights u^2, losses mean r^2/4 and one environment in every batch, a small u_j is
    multiplied by 1 + eta b_ej in a step at the invariant predictor, where the residual is the
    noise. HeteroSGD rejects an input j with w*_j = 0 iff lambda_j < 0, which needs biases of both
    signs. It holds for large batches; `batch_exponents` has the others.

    Accuracy: 1e-5 (1 + |lambda|) in single precision where no |1 + eta b| is below 0.02.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2.
        target: w* [p], or what is to be tested as such.
        probabilities: how often each environment is drawn, [E]; None for equally often.
        learning_rate: eta [...].
        intercept: c [], if the model has one.
        signed: for weights u^2 - v^2, of which v is multiplied by 1 - eta b_ej: the larger one of
            both exponents.

    Returns:
        [..., p]; about 0 for inputs without bias.

    >>> def moments(b):  # of an environment of `worlds.contradiction`
    ...     return [[1, 0, 1, 0], [0, 4, b, 0], [1, b, 2, 0], [0, 0, 0, 1]]
    >>> second = np.array([moments(1.9), moments(-1.1)])
    >>> exponents = hetero_exponents(second, np.array([1.0, 0.0]), None, 0.7)
    >>> print([f"{exponent:.3f}" for exponent in exponents])
    ['0.000', '-0.312']
    """
    _check(second, target)
    checks.instance("signed", signed, bool, "True or False")
    checks.number("intercept", intercept)
    check(learning_rate=learning_rate)
    values = _biases(second, target, intercept).T
    rate = jnp.asarray(learning_rate)[..., None]
    exponents = lyapunov_environments(rate, values, probabilities)
    if not signed:
        return exponents
    return jnp.maximum(exponents, lyapunov_environments(rate, -values, probabilities))


def invariant_exponents(
    second: ArrayLike, target: ArrayLike, probabilities: ArrayLike | None, learning_rate: ArrayLike
) -> Array:
    """Whether steps keep each invariant weight, sum_e p_e log|1 - 2 eta w*_j E_e x_j^2|.

    The derivative of u_j <- u_j (1 - eta E_e x_j^2 (u_j^2 - w*_j)) at its fixed point. The input j
    with w*_j > 0 is stable iff the exponent is negative, which caps eta. It is exact for inputs
    that are uncorrelated with the others of w*.

    Accuracy: 1e-5 (1 + |lambda|) in single precision where no factor is below 0.02.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2.
        target: w* [p].
        probabilities: how often each environment is drawn, [E]; None for equally often.
        learning_rate: eta [...].

    Returns:
        [..., p]; 0 where w*_j = 0.
    """
    _check(second, target)
    check(learning_rate=learning_rate)
    moments, target = jnp.asarray(second), jnp.asarray(target)
    squares = jnp.diagonal(moments, axis1=-2, axis2=-1)[:, : target.shape[0]]
    factors = -2 * target[None] * squares
    return lyapunov_environments(jnp.asarray(learning_rate)[..., None], factors.T, probabilities)


def batch_exponents(
    second: ArrayLike,
    target: ArrayLike,
    probabilities: ArrayLike | None,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
) -> Array:
    """Lyapunov exponents of the reliance on each input with batches of m examples.

    `lyapunov_batch` of each environment, averaged. A batch's noise adds [b^2 + E x^2 E eps^2]/m to
    the variance of b_e. It lowers the exponent, so that small batches reject inputs that large ones
    keep, and weak invariant inputs by the same law.

    Accuracy: that of `lyapunov_batch`. The law is that of Gaussian inputs of mean zero; for other
    means it is right to second order in eta.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2.
        target: w* [p].
        probabilities: how often each environment is drawn, [E]; None for equally often.
        learning_rate: eta, [].
        batch_size: m, [].

    Returns:
        [p].
    """
    size, dim = _check(second, target)
    checks.number("learning_rate", learning_rate, above=0)
    checks.number("batch_size", batch_size, minimum=1)
    weights = np.full(size, 1 / size) if probabilities is None else probabilities
    checks.probabilities("probabilities", weights, size)
    moments = jnp.asarray(second)
    vector = jnp.append(jnp.asarray(target), jnp.array([-1.0, 0.0]))
    noise = jnp.einsum("i,eij,j->e", vector, moments, vector)
    exponents = lyapunov_batch(
        learning_rate,
        _biases(second, target, 0.0),
        input_variance=jnp.diagonal(moments, axis1=-2, axis2=-1)[:, :dim],
        noise_variance=noise[:, None] * jnp.ones((1, dim)),
        batch_size=batch_size,
    )
    return jnp.sum(jnp.asarray(weights)[:, None] * exponents, 0)


@checked_jit
def lyapunov_batch(
    learning_rate: ArrayLike,
    bias: ArrayLike,
    *,
    input_variance: ArrayLike,
    noise_variance: ArrayLike,
    batch_size: ArrayLike,
) -> Array:
    """E log|1 + eta b_hat| [...] over batches of m Gaussian examples of one environment.

    b_hat = (1/m) sum x_i eps_i with E x eps = b has the law

        b Q/m + ((E x^2 E eps^2 - b^2) Q)^(1/2) h/m,   Q ~ chi^2_m, h ~ N(0, 1),

    because x given eps is Gaussian. The mean over h is that of `lyapunov_gaussian`; that over log Q
    is taken by the trapezoidal rule.

    Accuracy: 1e-4 (1 + |lambda|) in single precision; 0.03 where x is a negative multiple of eps,
    which leaves a logarithmic singularity.

    Args:
        learning_rate: eta [...].
        bias: b [...], at most (input_variance noise_variance)^(1/2) in size.
        input_variance: E x^2 [...].
        noise_variance: E eps^2 [...].
        batch_size: m [...].

    >>> numbers = {"input_variance": 4.0, "noise_variance": 1.0}
    >>> sizes = jnp.array([1.0, 10.0, 1000.0])
    >>> exponents = lyapunov_batch(0.3, 0.5, batch_size=sizes, **numbers)
    >>> print([f"{exponent:.3f}" for exponent in exponents])
    ['0.018', '0.125', '0.140']
    """
    eta, b, inputs, noise, m = broadcast(
        learning_rate, bias, input_variance, noise_variance, batch_size
    )
    eta, b, inputs, noise, m = (each[..., None] for each in (eta, b, inputs, noise, m))
    nodes = jnp.asarray(_NODES, eta.dtype).reshape((1,) * (eta.ndim - 1) + (-1,))
    log_q = jnp.sqrt(2 / m) * nodes  # q = Q/m
    q = jnp.exp(log_q)
    # log density m (log q - q + 1)/2; the difference cancels for small log q
    series = log_q**2 * (1 / 2 + log_q * (1 / 6 + log_q * (1 / 24 + log_q / 120)))
    small = jnp.abs(log_q) < 0.1
    weights = jnp.exp(-m / 2 * jnp.where(small, series, jnp.expm1(log_q) - log_q))
    weights = weights / jnp.sum(weights, -1, keepdims=True)
    drift = eta * b * q
    # log|a + c h| depends on |a|
    drift = jnp.where(drift >= -1, drift, -2 - drift)
    width = eta * jnp.sqrt(jnp.maximum(inputs * noise - b**2, 0) * q / m)
    return jnp.sum(weights * lyapunov_gaussian(1.0, drift, width), -1)


@checked_jit
def hetero_reach(
    learning_rate: ArrayLike, *, noise_variance: ArrayLike, input_variance: ArrayLike = 1.0
) -> Array:
    """The largest pooled weight mu_b/V that HeteroSGD can reject, [...]; about eta sigma^2/2.

    By Cauchy-Schwarz |b_e| <= B = sigma V^(1/2). Of all distributions of b_e within these bounds
    that have one mean, those on the two ends have the smallest exponent, since the logarithm is
    concave. With h = eta B it is zero at the mean

        -B log(1 - h^2)/(2 artanh h) = eta B^2/2 + O(eta^3),

    and for h >= 1 any mean below B can be rejected. Unlike in matrix sensing, heterogeneity does
    not help without bound, and eta is capped by `invariant_exponents`.

    Accuracy: 1e-5 in single precision relative to the result.

    Args:
        learning_rate: eta [...].
        noise_variance: sigma^2 [...] of the label's noise.
        input_variance: V [...] of the spurious input.

    >>> print(f"{hetero_reach(0.1, noise_variance=1.0, input_variance=4.0):.4f}")
    0.0503
    """
    eta, noise, v = broadcast(learning_rate, noise_variance, input_variance)
    bound = jnp.sqrt(noise * v)
    h = eta * bound
    inside = h < 1
    safe = jnp.clip(jnp.where(inside, h, 0.5), 1e-18, None)  # whose square is not zero
    mean = -bound * jnp.log1p(-(safe**2)) / (2 * jnp.arctanh(safe))
    return jnp.where(inside, mean, bound) / v


def anticausal_critical_spread(
    learning_rate: ArrayLike, mean: ArrayLike, *, noise_variance: ArrayLike = 1.0
) -> Array:
    """The critical spread of the coefficients of `worlds.anticausal`, [...].

    x2 = s_e y + noise has b_e = s_e sigma^2, so that it is (2 mu/(eta sigma^2) + mu^2)^(1/2): that
    of `critical_spread` at the learning rate eta sigma^2.

    Accuracy: a few roundings.

    Args:
        learning_rate: eta [...].
        mean: mu [...] of the coefficients s_e = mu + M and mu - M.
        noise_variance: sigma^2 [...] of the label's noise.

    >>> print(f"{anticausal_critical_spread(0.1, 1.0):.2f}")
    4.58
    """
    check(learning_rate=learning_rate, mean=mean, noise_variance=noise_variance)
    eta, noise = broadcast(learning_rate, noise_variance)
    return critical_spread(eta * noise, mean)


def _check(second: ArrayLike, target: ArrayLike) -> tuple[int, int]:
    size, dim = shape_of_moments("second", second)
    check(target=target)
    if np.shape(target) != (dim,):
        raise ValueError(
            f"target must have the shape [{dim}] for second of shape {list(np.shape(second))}, got "
            f"{list(np.shape(target))}"
        )
    return size, dim


@jax.jit
def _biases(second: ArrayLike, target: ArrayLike, intercept: ArrayLike) -> Array:
    moments, dim = jnp.asarray(second), jnp.shape(target)[0]
    dtype = jnp.result_type(float, moments)
    last = jnp.stack([jnp.ones((), dtype), -jnp.asarray(intercept, dtype)])
    vector = jnp.concatenate([-jnp.asarray(target, dtype), last])
    return jnp.matmul(moments[:, :dim].astype(dtype), vector, precision="highest")

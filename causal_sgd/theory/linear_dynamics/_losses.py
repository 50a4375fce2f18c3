"""The losses of gradient descent and HeteroSGD, and the accuracies that they stand for."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import erf, erfinv
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory.linear_dynamics._spectrum import spectrum
from causal_sgd.types import Array

__all__ = ["DESIGNS", "SAMPLERS", "Losses", "accuracy", "loss_at", "losses"]

DESIGNS = ("shared", "own")
"""Whether all environments have the same inputs, or each its own part of the n examples."""

SAMPLERS = ("stratified", "hetero")
"""Batches of all environments, or of one that is drawn in every step."""

LEAST_LOG = -50.0  # of |c|, where it is zero


class Losses(NamedTuple):
    """Mean squared residuals, each [...]."""

    training: Array  # of the examples, averaged over environments
    test: Array  # of new examples of the teacher


@checked_jit
def losses(
    step: ArrayLike,
    learning_rate: ArrayLike,
    ratio: ArrayLike,
    spread: ArrayLike = 0.0,
    *,
    dim: ArrayLike | None = None,
    design: str = "shared",
    sampler: str = "stratified",
) -> Losses:
    """The losses after some steps of gradient descent, or of HeteroSGD.

    They are means over designs, starts and, of HeteroSGD, orders of the environments. One run
    deviates from them by a relative order of 1/sqrt(p). With own designs HeteroSGD is that of two
    environments at small learning rates and late times: early ones have more noise, as the fit is
    worse.

    Accuracy: relative 1e-5 in single precision, and absolute 1e-6.

    Args:
        step: t [...], the updates done, at least 0.
        learning_rate: eta [...]; above 4/(1 + sqrt(ratio))^2 the losses grow.
        ratio: p/n [...], n the examples of all designs.
        spread: M [...]; 0 for one environment.
        dim: p [...] of a spectrum of finite size; None for the limit.
        design: one of `DESIGNS`.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: if an argument is out of range.

    >>> training, test = losses(100, 0.8, 0.9)
    >>> print(f"{training:.5f} {test:.5f}")
    0.00034 0.02647
    """
    check_kinds(design, sampler)
    t, eta, aspect, width = broadcast(step, learning_rate, ratio, spread)
    return combined(parts(t, eta, aspect, dim, design, sampler), width)


@checked_jit
def accuracy(loss: ArrayLike, tolerance: ArrayLike) -> Array:
    """The share [...] of squared residuals within a tolerance: erf(sqrt(tolerance/(2 loss))).

    The residuals are normal, of mean zero and the variance `loss`: on new examples exactly, and in
    training as p and n grow.

    Accuracy: relative 1e-5 in single precision.

    Args:
        loss: mean squared residual [...], above zero.
        tolerance: of squared residuals, [...], above zero.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{accuracy(0.01, 0.04):.4f}")  # within two standard deviations
    0.9545
    """
    mean, most = broadcast(loss, tolerance)
    return erf(jnp.sqrt(most / (2 * mean)))


@checked_jit
def loss_at(accuracy: ArrayLike, tolerance: ArrayLike) -> Array:
    """The loss [...] at which a share of squared residuals is within a tolerance.

    Accuracy: relative 1e-4 in single precision for shares up to 0.9999.

    Args:
        accuracy: the share [...], from 0 to 1.
        tolerance: of squared residuals, [...], above zero.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{loss_at(0.95, 0.04):.4f}")
    0.0104
    """
    share, most = broadcast(accuracy, tolerance)
    return most / (2 * erfinv(share) ** 2)


class Parts(NamedTuple):
    """What the start and a unit of M^2 leave of each loss, pairs of [...]."""

    training: tuple[Array, Array]
    test: tuple[Array, Array]


def parts(
    t: Array, eta: Array, aspect: Array, dim: ArrayLike | None, design: str, sampler: str
) -> Parts:
    values, weights = spectrum(aspect, dim)
    rate = eta[..., None]
    power = log_factor(rate, values) * t[..., None]
    left = jnp.exp(2 * power)

    def mean(numbers: Array) -> Array:
        return jnp.sum(weights * numbers, -1)

    noise = jnp.zeros_like(values)
    if sampler == "hetero":
        driven = values
        if design == "own":  # by the residuals that the fit leaves
            rest = jnp.maximum(1 - aspect, 0)[..., None]
            driven = rest**2 * values + aspect[..., None] ** 2 * rest
        noise = (1 - left) * rate * driven / (4 - rate * values)
    test, training = mean(noise), mean(values * noise)
    if design == "shared":
        training = training + 1
    else:
        odd = (rate * values > 2) & (jnp.round(t) % 2 == 1)[..., None]
        done = jnp.where(odd, 1 + jnp.exp(power), -jnp.expm1(power))
        safe = jnp.where(values > 0, values, 1)
        test = test + aspect * mean(jnp.where(values > 0, done**2 / safe, 0))
        training = training + 1 - aspect + aspect * mean(left)
    return Parts((mean(values * left), training), (mean(left), test))


def combined(found: Parts, spread: Array) -> Losses:
    return Losses(*(start + spread**2 * own for start, own in found))


def log_factor(eta: Array, values: Array) -> Array:
    """log|1 - eta nu/2|."""
    x = eta * values / 2
    small = jnp.log1p(-jnp.minimum(x, 0.5))
    large = jnp.log(jnp.maximum(abs(1 - x), math.exp(LEAST_LOG)))
    return jnp.where(x < 0.5, small, large)


def check_kinds(design: str, sampler: str) -> None:
    checks.choice("design", design, DESIGNS)
    checks.choice("sampler", sampler, SAMPLERS)

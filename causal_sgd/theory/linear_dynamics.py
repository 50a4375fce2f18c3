"""Training and test losses of a linear model under gradient descent, and when it groks.

A student w of p inputs learns y = x'w* from n examples x ~ N(0, I) by full-batch gradient descent
on the loss R/4, R the mean squared residual (the teacher and student of Levi et al. 2023, whose
formulas are derived here). With S = sum_i x_i x_i'/n and the error D = w - w* a step is

    D <- (1 - (eta/2) S) D,   R on the n examples = D'S D,   R on new ones = |D|^2.

For isotropic D at the start, with E|D|^2 = 1, only the eigenvalues of S matter. As p and n grow at
a fixed ratio = p/n they follow Marchenko and Pastur (1967): a density on [(1 - r)^2, (1 + r)^2], r
= sqrt(ratio), and a share 1 - 1/ratio of zeros beyond ratio 1. So after t steps, c = 1 - eta nu/2,

    training = int nu c^(2t) dMP(nu),   test = int c^(2t) dMP(nu).

Small eigenvalues count less in training than in the test, which therefore follows late.

**Environments** e have labels x'(w* + a_e), where the a_e average to zero, have the mean square
M^2 (the spread) and isotropic directions; the test has labels x'w*. On one *shared* design a step
of HeteroSGD has the noise (eta/2) S a_e, so that

    test     = int [c^(2t) + M^2 (1 - c^(2t)) eta nu/(4 - eta nu)] dMP,
    training = M^2 + int nu [the same] dMP.

Batches of all environments have no noise; M^2 stays in training, as no weights fit contradictory
labels. The noise counts for more in training than in the test, as it grows with nu, whose mean is
1. With *own* designs, n examples in all, the residuals x'a_e of all of them act on gradient
descent like label noise of variance M^2 that is independent of the inputs:

    test     = int [c^(2t) + M^2 ratio (1 - c^t)^2/nu] dMP  ->  M^2 ratio/(1 - ratio),
    training = int nu c^(2t) dMP + M^2 [1 - ratio + ratio int c^(2t) dMP]  ->  M^2 (1 - ratio).

Then the limits of both losses are equal at ratio = (3 - sqrt(5))/2 = 0.382. The noise of HeteroSGD
is that of the residuals which the fit leaves. For two environments with n/2 examples each, let the
inputs be X = U (n S)^(1/2), with orthonormal columns of U, and R the diagonal matrix of the signs
of a_e. At the fit the gradient of an environment is S^(1/2) (1 - C^2) S^(1/2) a_e/2 with C =
U'RU, which is free of S. The means of C^2 and C^4 are ratio and 2 ratio^2 - ratio^3. Hence eta nu
in the noise above becomes eta [(1 - ratio)^2 nu + ratio^2 (1 - ratio)] at late times, to first
order in the learning rate; beyond ratio 1 the fit leaves nothing, and there is no noise.

All losses are mean squared residuals in units of E|D|^2 at the start, and spreads are in units of
its root.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfinv
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.types import Array

__all__ = [
    "DESIGNS",
    "SAMPLERS",
    "GrokkingTimes",
    "Losses",
    "Spectrum",
    "accuracy",
    "critical_ratio",
    "grokking_times",
    "late_gap",
    "loss_at",
    "losses",
    "spectrum",
    "vanishing_spread",
]

DESIGNS = ("shared", "own")
"""Whether all environments have the same inputs, or each its own part of the n examples."""

SAMPLERS = ("stratified", "hetero")
"""Batches of all environments, or of one that is drawn in every step."""

# The angle from the lower edge is pi/(1 + e^-z). Trapezoids in z converge geometrically, and small
# angles, which decide late times, are resolved down to 1e-7.
NODES = 256
LOW, HIGH = -17.0, 7.0
LEAST_LOG = -50.0  # of |c|, where it is zero
DECADES = (-2.0, 12.0)  # of eta t, within which grokking times are looked for
POINTS = 180


class Spectrum(NamedTuple):
    """Points and weights: a mean over eigenvalues is the sum of weights times values."""

    eigenvalues: Array  # [..., K]; the last one is zero
    weights: Array  # [..., K], add up to one


class Losses(NamedTuple):
    """Mean squared residuals, each [...]."""

    training: Array  # of the examples, averaged over environments
    test: Array  # of new examples of the teacher


class GrokkingTimes(NamedTuple):
    """Steps, not rounded, after which the losses first reach a level, each [...]; inf for never."""

    training: Array
    test: Array


@checked_jit
def spectrum(ratio: ArrayLike, dim: ArrayLike | None = None) -> Spectrum:
    """The eigenvalues of sum_i x_i x_i'/n for n examples of p = ratio n normal inputs.

    With nu = (1 - r)^2 + 4 r sin^2(phi/2), r = sqrt(ratio), the law of Marchenko and Pastur is
    (2/pi) sin^2(phi) dphi/nu on [0, pi], with zeros of the weight 1 - 1/ratio beyond ratio 1. At a
    finite p the expected weights differ to first order by (1/p) [1/4 at both ends - dphi/(2 pi)]
    (Bai and Silverstein 2004), so that some are negative.

    Accuracy: relative 1e-5 in single precision, for means of functions that are smooth in nu, such
    as exp(-t nu) up to t of 1e11, and ratios from 1e-2 to 1e2. The remainder of a finite p is of
    the order of 1/p^2 for functions that change little between neighbouring eigenvalues.

    Args:
        ratio: p/n [...].
        dim: p [...]; None for the limit as p grows.

    Raises:
        ValueError: if an argument is out of range.

    >>> found = spectrum(0.25)
    >>> print(f"{(found.weights / found.eigenvalues)[:-1].sum():.4f}")  # 1/(1 - ratio)
    1.3333
    """
    aspect, size = broadcast(ratio, 1.0 if dim is None else dim)
    z = np.linspace(LOW, HIGH, NODES)
    below, above = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))  # angle/pi, and its complement
    spacing = np.pi * below * above * (z[1] - z[0])
    sines = np.sin(np.pi * np.minimum(below, above)) ** 2
    halves = 4 * np.sin(np.pi * below / 2) ** 2
    root = jnp.sqrt(aspect)[..., None]
    edge = ((1 - aspect[..., None]) / (1 + root)) ** 2
    shape = (1,) * aspect.ndim + (-1,)
    values = edge + root * jnp.asarray(halves.reshape(shape), aspect.dtype)
    measure = jnp.asarray((2 / np.pi * sines * spacing).reshape(shape), aspect.dtype)
    weights = measure / values
    if dim is not None:
        first = -spacing / (2 * np.pi)
        first[[0, -1]] += 0.25
        weights += jnp.asarray(first.reshape(shape), aspect.dtype) / size[..., None]
    zeros = jnp.maximum(1 - 1 / aspect, 0)[..., None]
    return Spectrum(
        jnp.concatenate([values, jnp.zeros_like(zeros)], -1),
        jnp.concatenate([weights, zeros], -1),
    )


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
    _check_kinds(design, sampler)
    t, eta, aspect, width = broadcast(step, learning_rate, ratio, spread)
    parts = _parts(t, eta, aspect, dim, design, sampler)
    return _combined(parts, width)


@checked_jit
def grokking_times(
    learning_rate: ArrayLike,
    ratio: ArrayLike,
    level: ArrayLike,
    spread: ArrayLike = 0.0,
    *,
    dim: ArrayLike | None = None,
    design: str = "shared",
    sampler: str = "stratified",
) -> GrokkingTimes:
    """When training and test losses reach a level; the gap of grokking is the difference.

    Without spread the test loss reaches a level iff ratio < 1/(1 - level), `critical_ratio`. Up to
    there the gap is finite, also at ratio 1, where the losses fall like

        training = (4 pi)^(-1/2) (eta t)^(-3/2),  test = (pi eta t)^(-1/2).

    Accuracy: relative 1e-4 in single precision, for times from 0.01 to 1e12 over the learning rate;
    earlier ones are 0, and later ones inf. A loss that stays below the level for less than a fifth
    of the time it took to reach it may be overlooked.

    Args:
        learning_rate: eta [...].
        ratio: p/n [...].
        level: of both losses, [...], above zero.
        spread: M [...].
        dim: p [...] of a spectrum of finite size; None for the limit.
        design: one of `DESIGNS`.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: if an argument is out of range.

    >>> training, test = grokking_times(0.8, 0.9, 0.01)
    >>> print(f"{training:.1f} {test:.1f}")
    11.2 224.2
    """
    _check_kinds(design, sampler)
    given = broadcast(learning_rate, ratio, level, spread)
    eta, aspect, goal, width = (jnp.stack([value, value]) for value in given)  # of both losses

    def excess(log_time: Array) -> Array:
        """Both losses over the level, [2, ...], at a time of each, [2, ...]."""
        parts = _parts(jnp.exp(log_time) / eta, eta, aspect, dim, design, sampler)
        found = _combined(parts, width)
        return jnp.stack([found.training[0], found.test[1]]) - goal

    first, last = (math.log(10) * end for end in DECADES)
    logs = jnp.linspace(first, last, POINTS, dtype=eta.dtype)
    never = jnp.full_like(eta, jnp.inf)

    def look(found: Array, log_time: Array) -> tuple[Array, None]:
        reached = excess(jnp.full_like(found, log_time)) < 0
        return jnp.where(reached & jnp.isinf(found), log_time, found), None

    found, _ = jax.lax.scan(look, never, logs)
    high = jnp.where(jnp.isinf(found), logs[-1], found)
    times = jnp.exp(bisect(excess, high - logs[1] + logs[0], high)) / eta
    times = jnp.where(jnp.isinf(found), jnp.inf, jnp.where(found == logs[0], 0, times))
    return GrokkingTimes(*times)


@checked_jit
def late_gap(learning_rate: ArrayLike, ratio: ArrayLike) -> Array:
    """The gap of the grokking times at low levels, [...]: log(1/nu)/(-2 log|1 - eta nu/2|).

    Late losses are those of the end nu of the spectrum that fades last, so that the training loss
    is nu times the test loss. It is the lower end, (1 - sqrt(ratio))^2, for learning rates up to
    2/(1 + ratio). As the ratio tends to 1 the gap then diverges like

        (8/eta) log(2/(1 - ratio))/(1 - ratio)^2.

    For larger ones it is the upper end, and training is the later one to reach a low level.

    Accuracy: relative 1e-5 in single precision but for ratios within 1e-3 of 1.

    Args:
        learning_rate: eta [...], below 4/(1 + sqrt(ratio))^2.
        ratio: p/n [...]; inf at 1, and NaN beyond, where low levels are not reached.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{late_gap(0.8, 0.9):.0f}")
    2818
    """
    eta, aspect = broadcast(learning_rate, ratio)
    root = jnp.sqrt(aspect)
    low, high = ((1 - aspect) / (1 + root)) ** 2, (1 + root) ** 2
    last = jnp.where(eta <= 2 / (1 + aspect), low, high)
    gap = jnp.log(last) / (2 * _log_factor(eta, last))
    return jnp.where(aspect < 1, gap, jnp.where(aspect == 1, jnp.inf, jnp.nan))


@checked_jit
def critical_ratio(level: ArrayLike) -> Array:
    """The ratio 1/(1 - level) [...] at which the grokking gap diverges, for one environment.

    Beyond it the examples leave a larger share 1 - 1/ratio of the error untouched than the level.

    Accuracy: a rounding.

    Args:
        level: of the losses, [...], above zero; inf from 1 on, which holds at the start.

    Raises:
        ValueError: if an argument is out of range.
    """
    (goal,) = broadcast(level)
    return jnp.where(goal < 1, 1 / (1 - jnp.minimum(goal, 1)), jnp.inf)


@checked_jit
def vanishing_spread(
    learning_rate: ArrayLike,
    ratio: ArrayLike,
    level: ArrayLike,
    *,
    dim: ArrayLike | None = None,
    sampler: str = "stratified",
) -> Array:
    """The spread [...] of environments on a shared design at which the gap of grokking vanishes.

    From there on training is the later one, and from a spread of sqrt(level) on it does not reach
    the level. With batches of all environments the square of the spread is the level less the
    training loss of one environment at the time at which the test loss reaches the level. NaN
    where the test loss never does.

    Accuracy: relative 1e-4 in single precision, and absolute 1e-4.

    Args:
        learning_rate: eta [...].
        ratio: p/n [...].
        level: of the losses, [...], above zero.
        dim: p [...] of a spectrum of finite size; None for the limit.
        sampler: one of `SAMPLERS`.

    Raises:
        ValueError: if an argument is out of range.

    >>> print(f"{vanishing_spread(0.8, 0.9, 0.01):.4f}")
    0.0996
    """
    _check_kinds("shared", sampler)
    eta, aspect, goal = broadcast(learning_rate, ratio, level)

    def common(log_time: Array) -> tuple[Array, Array]:
        """The square of the spread of equal losses, and how far these are above the level."""
        parts = _parts(jnp.exp(log_time) / eta, eta, aspect, dim, "shared", sampler)
        (own, spread), (own_test, spread_test) = parts.training, parts.test
        square = (own_test - own) / (spread - spread_test)
        return square, own_test + square * spread_test - goal

    ends = (jnp.full_like(eta, math.log(10) * end) for end in DECADES)
    square, above = common(bisect(lambda log_time: common(log_time)[1], *ends))
    return jnp.where(above < goal, jnp.sqrt(jnp.maximum(square, 0)), jnp.nan)


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


class _Parts(NamedTuple):
    """What the start and a unit of M^2 leave of each loss, pairs of [...]."""

    training: tuple[Array, Array]
    test: tuple[Array, Array]


def _parts(
    t: Array, eta: Array, aspect: Array, dim: ArrayLike | None, design: str, sampler: str
) -> _Parts:
    values, weights = spectrum(aspect, dim)
    rate = eta[..., None]
    power = _log_factor(rate, values) * t[..., None]
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
    return _Parts((mean(values * left), training), (mean(left), test))


def _combined(parts: _Parts, spread: Array) -> Losses:
    return Losses(*(start + spread**2 * own for start, own in parts))


def _log_factor(eta: Array, values: Array) -> Array:
    """log|1 - eta nu/2|."""
    x = eta * values / 2
    small = jnp.log1p(-jnp.minimum(x, 0.5))
    large = jnp.log(jnp.maximum(abs(1 - x), math.exp(LEAST_LOG)))
    return jnp.where(x < 0.5, small, large)


def _check_kinds(design: str, sampler: str) -> None:
    checks.choice("design", design, DESIGNS)
    checks.choice("sampler", sampler, SAMPLERS)

"""Where IRMv1 works and fails in the world of two bits, `worlds.two_bit` (Kamath et al. 2021).

x1 = y but for a flip with probability alpha, x2 = y but for a flip with probability beta_e, and y
is +1 or -1. With c1 = 1 - 2 alpha, c_e = 1 - 2 beta_e and the prediction w1 x1 + w2 x2,

    R_e = 1 + w1^2 + w2^2 + 2 c1 c_e w1 w2 - 2 c1 w1 - 2 c_e w2,
    D_e = 2 [w1^2 + w2^2 + 2 c1 c_e w1 w2 - c1 w1 - c_e w2],

with D_e the derivative of R_e in a factor of the prediction. `invariant_flip` is alpha, at most
1/2, and `spurious_flips` are beta_e of equally likely environments on the last axis. Predictors
have the shape [..., 2]; the invariant one is (c1, 0). The `weight` of a penalty is that of
`causal_sgd.objectives`, whose losses are R/4, over the weight of the mean loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import _room
from causal_sgd.theory._arguments import broadcast, checked_jit, count_environments
from causal_sgd.theory._exponents import lyapunov_environments
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "LARGEST_FEASIBLE_FLIP",
    "critical_correlation",
    "feasible_points",
    "hetero_exponent",
    "iga",
    "irmv1",
    "irmv1_limit",
    "least_squares",
    "risk",
    "vrex",
]

LARGEST_FEASIBLE_FLIP = (1 - 1 / math.sqrt(2)) / 2
"""Alpha up to which IRMv1's constraints D_e = 0 have spurious solutions, .146447."""

_ITERATIONS = 60
_HALVINGS = 14  # of a Newton step


@checked_jit
def risk(weights: ArrayLike, invariant_flip: ArrayLike, spurious_flip: ArrayLike) -> Array:
    """R [...] of a predictor in one environment, which need not be in training.

    Accuracy: a few roundings of its terms.

    Args:
        weights: (w1, w2) [..., 2].
        invariant_flip: alpha [...].
        spurious_flip: beta [...].

    >>> print(f"{risk([0.8, 0.0], 0.1, 0.9):.2f}")
    0.36
    """
    weights = jnp.asarray(weights)
    if weights.shape[-1:] != (2,):
        raise ValueError(f"weights must have shape [..., 2], got {list(weights.shape)}")
    w1, w2, alpha, beta = broadcast(weights[..., 0], weights[..., 1], invariant_flip, spurious_flip)
    return _risk(w1, w2, 1 - 2 * alpha, 1 - 2 * beta)


@checked_jit
def least_squares(invariant_flip: ArrayLike, spurious_flip: ArrayLike) -> Array:
    """Least squares on both inputs in one environment, [..., 2].

    It depends on beta unless alpha is 0 or 1/2, so that {1, 2} is never exogenous otherwise; {1}
    always is, since E_e x1 (y - c1 x1) = 0. Hence EILLS and FAIR choose {1} beyond a finite weight.

    Accuracy: 1e-6/(1 - c1^2 c^2) in single precision; NaN where both inputs are equal.

    Args:
        invariant_flip: alpha [...].
        spurious_flip: beta [...]; the mean of `spurious_flips` for all data together.
    """
    alpha, beta = broadcast(invariant_flip, spurious_flip)
    return _least_squares(1 - 2 * alpha, 1 - 2 * beta)


@checked_jit
def feasible_points(invariant_flip: ArrayLike) -> Array:
    """The predictors with D_e = 0 in all environments, if some beta_e differ; [..., 4, 2].

    D_e is linear in c_e, and its slope vanishes iff w2 = 0 or w1 = 1/(2 c1). The first leaves
    (0, 0) and (c1, 0), the second w2^2 = 1/2 - 1/(4 c1^2), which needs c1^2 >= 1/2.

    Accuracy: 1e-6 in single precision, but for alpha within 1e-4 of the largest feasible one.

    Args:
        invariant_flip: alpha [...].

    Returns:
        (0, 0), (c1, 0), and the two spurious ones, with w2 > 0 first; NaN beyond
        `LARGEST_FEASIBLE_FLIP`.

    >>> print([f"{weight:.3f}" for weight in feasible_points(0.1)[2]])
    ['0.625', '0.331']
    """
    (alpha,) = broadcast(invariant_flip)
    c1 = 1 - 2 * alpha
    first, second = _spurious_point(c1)
    zero = jnp.zeros_like(c1)
    points = [(zero, zero), (c1, zero), (first, second), (first, -second)]
    return jnp.stack([jnp.stack(point, -1) for point in points], -2)


@checked_jit
def critical_correlation(invariant_flip: ArrayLike) -> Array:
    """The mean c_e beyond which IRMv1 prefers a spurious solution, c1 (2 c1^2 - 1)^(1/2); [...].

    At feasible points R_e = 1 - c1 w1 - c_e w2. The spurious one has a smaller mean risk than the
    invariant one, 1 - c1^2, iff the mean of c_e exceeds this.

    Accuracy: 1e-6 in single precision, but for alpha within 1e-4 of the largest feasible one.

    Args:
        invariant_flip: alpha [...].

    Returns:
        The critical mean [...]; inf beyond `LARGEST_FEASIBLE_FLIP`, where IRMv1 does not fail.
    """
    (alpha,) = broadcast(invariant_flip)
    c1 = 1 - 2 * alpha
    excess = 2 * c1**2 - 1
    return jnp.where(excess >= 0, c1 * jnp.sqrt(jnp.maximum(excess, 0)), jnp.inf)


def irmv1_limit(invariant_flip: ArrayLike, spurious_flips: ArrayLike) -> Array:
    """The best feasible point, which IRMv1 approaches for large weights; [..., 2].

    Accuracy: that of `feasible_points`, but for correlations within rounding of the critical one.

    Args:
        invariant_flip: alpha [...].
        spurious_flips: beta_e [..., E], not all equal.
    """
    count_environments("spurious_flips", spurious_flips)
    return _irmv1_limit(invariant_flip, spurious_flips)


@checked_jit
def _irmv1_limit(invariant_flip: ArrayLike, spurious_flips: ArrayLike) -> Array:
    mean, _ = _correlations(spurious_flips)
    points = feasible_points(invariant_flip)
    critical = critical_correlation(invariant_flip)
    critical, mean = broadcast(critical, mean)
    invariant, plus, minus = (points[..., index, :] for index in (1, 2, 3))
    spurious = jnp.where((mean > 0)[..., None], plus, minus)
    return jnp.where((jnp.abs(mean) > critical)[..., None], spurious, invariant)


def irmv1(invariant_flip: ArrayLike, spurious_flips: ArrayLike, *, weight: ArrayLike) -> Array:
    """The global minimum of IRMv1 (Arjovsky et al. 2019), [..., 2].

    Four times the objective is, with c and v the mean and variance of c_e and D the mean D_e,

        E_e R_e + weight [D^2/4 + v w2^2 (2 c1 w1 - 1)^2].

    Newton's method finds the minima from the feasible points and from least squares.

    Accuracy: 1e-4 in single precision for weights up to 1e4 and 1e-3 up to 1e6.

    Args:
        invariant_flip: alpha [...].
        spurious_flips: beta_e [..., E].
        weight: of the mean square of the losses' derivatives, [...]; 4 times that of a source on
            the scale of R.
    """
    count_environments("spurious_flips", spurious_flips)
    return _minimum("irmv1", invariant_flip, spurious_flips, weight)


def vrex(invariant_flip: ArrayLike, spurious_flips: ArrayLike, *, weight: ArrayLike) -> Array:
    """The global minimum of V-REx (Krueger et al. 2021), [..., 2].

    Four times the objective is E_e R_e + weight v w2^2 (c1 w1 - 1)^2 with v the variance of c_e.
    Equal risks need w2 = 0 or c1 w1 = 1, and the former has the smaller risk: for large weights it
    approaches the invariant predictor.

    Accuracy: 1e-4 in single precision for weights up to 1e4 and 1e-3 up to 1e6.

    Args:
        invariant_flip: alpha [...].
        spurious_flips: beta_e [..., E].
        weight: of the variance of the losses, [...]; 4 times that of a source on the scale of R.
    """
    count_environments("spurious_flips", spurious_flips)
    return _minimum("vrex", invariant_flip, spurious_flips, weight)


def iga(invariant_flip: ArrayLike, spurious_flips: ArrayLike, *, weight: ArrayLike) -> Array:
    """IGA (Koyama and Yamaguchi 2020), a linear system; [..., 2].

    Gradients of R_e are equal iff w2 = 0 and c1 w1 = 1: for large weights IGA overshoots to
    (1/c1, 0), the solution of the causal Dantzig too, of which the risk is 1/c1^2 - 1.

    Accuracy: 1e-5 in single precision.

    Args:
        invariant_flip: alpha [...], below 1/2.
        spurious_flips: beta_e [..., E].
        weight: of the squared distances of the losses' gradients from their mean, [...], averaged
            over environments; 4 times that of a source on the scale of R.
    """
    count_environments("spurious_flips", spurious_flips)
    return _iga(invariant_flip, spurious_flips, weight)


@checked_jit
def _iga(invariant_flip: ArrayLike, spurious_flips: ArrayLike, weight: ArrayLike) -> Array:
    mean, variance = _correlations(spurious_flips)
    alpha, mean, variance, weight = broadcast(invariant_flip, mean, variance, weight)
    c1 = 1 - 2 * alpha
    pull = weight * variance * c1
    diagonal, cross = 1 + pull * c1, c1 * mean
    first, second = c1 + pull, mean
    determinant = (diagonal - cross) * (diagonal + cross)
    return jnp.stack(
        [
            (diagonal * first - cross * second) / determinant,
            (diagonal * second - cross * first) / determinant,
        ],
        -1,
    )


def hetero_exponent(
    invariant_flip: ArrayLike, spurious_flips: ArrayLike, learning_rate: ArrayLike
) -> Array:
    """Lyapunov exponent [...] of HeteroSGD's reliance on x2 at the invariant predictor.

    With weights u^2 and one environment per step u2 is multiplied by 1 + eta b_e with
    b_e = E_e x2 (y - c1 x1) = c_e (1 - c1^2): it grows if all beta_e are below 1/2.

    Accuracy: that of `theory.lyapunov_environments`.

    Args:
        invariant_flip: alpha [...].
        spurious_flips: beta_e [..., E].
        learning_rate: eta [...].
    """
    count_environments("spurious_flips", spurious_flips)
    return lyapunov_environments(learning_rate, _biases(invariant_flip, spurious_flips))


@checked_jit
def _biases(invariant_flip: ArrayLike, spurious_flips: ArrayLike) -> Array:
    flips = jnp.asarray(spurious_flips)
    alpha, flips = broadcast(jnp.asarray(invariant_flip)[..., None], flips)
    return (1 - 2 * flips) * 4 * alpha * (1 - alpha)


def _risk(w1: Array, w2: Array, c1: Array, c: Array) -> Array:
    return 1 + w1**2 + w2**2 + 2 * c1 * c * w1 * w2 - 2 * c1 * w1 - 2 * c * w2


def _least_squares(c1: Array, c: Array) -> Array:
    determinant = 1 - (c1 * c) ** 2
    return jnp.stack([c1 * (1 - c**2), c * (1 - c1**2)], -1) / determinant[..., None]


def _spurious_point(c1: Array) -> tuple[Array, Array]:
    """(w1, w2) with w2 > 0; NaN where there is none."""
    square = 0.5 - 0.25 / jnp.where(c1 > 0, c1, 1) ** 2
    valid = (square >= 0) & (c1 > 0)
    second = jnp.where(valid, jnp.sqrt(jnp.where(valid, square, 0)), jnp.nan)
    return jnp.where(valid, 0.5 / jnp.where(c1 > 0, c1, 1), jnp.nan), second


def _correlations(spurious_flips: ArrayLike) -> tuple[Array, Array]:
    """Mean and variance [...] of c_e."""
    (flips,) = broadcast(spurious_flips)
    correlations = 1 - 2 * flips
    return jnp.mean(correlations, -1), jnp.var(correlations, -1)


def _irmv1_value(w: Array, c1: Array, mean: Array, variance: Array, weight: Array) -> Array:
    w1, w2 = w[0], w[1]
    slope = w1**2 + w2**2 + 2 * c1 * mean * w1 * w2 - c1 * w1 - mean * w2
    penalty = slope**2 + variance * (w2 * (2 * c1 * w1 - 1)) ** 2
    return _risk(w1, w2, c1, mean) + weight * penalty


def _vrex_value(w: Array, c1: Array, mean: Array, variance: Array, weight: Array) -> Array:
    penalty = variance * (w[1] * (c1 * w[0] - 1)) ** 2
    return _risk(w[0], w[1], c1, mean) + weight * penalty


_VALUES = {"irmv1": _irmv1_value, "vrex": _vrex_value}


@checked_jit
def _minimum(
    family: str, invariant_flip: ArrayLike, spurious_flips: ArrayLike, weight: ArrayLike
) -> Array:
    """The best minimum that is reached from several starts, [..., 2]."""
    mean, variance = _correlations(spurious_flips)
    alpha, *numbers = broadcast(invariant_flip, mean, variance, weight)
    arguments = [1 - 2 * alpha, *numbers]
    flat = [argument.ravel() for argument in arguments]

    def solve(*numbers: Array) -> Array:
        value = functools.partial(_value, family, numbers)
        points = jax.vmap(lambda start: _descend(value, start))(_starts(numbers[0], numbers[1]))
        return points[jnp.nanargmin(jax.vmap(value)(points))]

    return jax.vmap(solve)(*flat).reshape(*alpha.shape, 2)


def _value(family: str, numbers: tuple[Array, ...], w: Array) -> Array:
    return _VALUES[family](w, *numbers)


def _starts(c1: Array, mean: Array) -> Array:
    """Least squares, the invariant predictor and the spurious feasible points, [4, 2]."""
    zero = jnp.zeros_like(c1)
    first, second = _spurious_point(c1)
    valid = ~jnp.isnan(second)
    plus = jnp.stack([jnp.where(valid, first, c1), jnp.where(valid, second, 0.5)])
    least = jnp.where(jnp.abs(c1 * mean) < 1, _least_squares(c1, mean), jnp.stack([c1, mean]) / 2)
    return jnp.stack([least, jnp.stack([c1, zero]), plus, plus * jnp.array([1, -1], plus.dtype)])


def _descend(value: Callable[[Array], Array], start: Array) -> Array:
    """Newton's method in two variables, with steps that never increase the value."""
    sizes = jnp.append(0.5 ** jnp.arange(_HALVINGS), 0).astype(start.dtype)

    def step(_: int, w: Array) -> Array:
        slope, curvature = jax.grad(value)(w), jax.hessian(value)(w)
        a, b, c = curvature[0, 0], curvature[0, 1], curvature[1, 1]
        least = (a + c) / 2 - jnp.sqrt(((a - c) / 2) ** 2 + b**2)
        shift = jnp.maximum(0.01 - least, 0)  # makes it positive definite
        a, c = a + shift, c + shift
        move = jnp.stack([b * slope[1] - c * slope[0], b * slope[0] - a * slope[1]])
        points = w[None] + sizes[:, None] * (move / (a * c - b**2))[None]
        return points[jnp.argmin(jax.vmap(value)(points))]

    return jax.lax.fori_loop(0, _ITERATIONS, step, start)

"""All methods in the world `worlds.contradiction`, in closed form.

x = (x1, x2) has E_e x x' = diag(1, V) in every environment, and y = x1 + noise with
E_e x2 (y - x1) = b_e. Two equally likely environments have b_e = mu + M and mu - M; `mean` is mu,
`spread` is M and `variance` is V. A prediction w1 x1 + w2 x2 has

    R_e = (w1 - 1)^2 + V w2^2 - 2 b_e w2 + noise variance,
    D_e = 2 [w1 (w1 - 1) + V w2^2 - b_e w2],

with D_e the derivative of R_e in a factor of the prediction. Every function gives the predictor
that a method has on the population. The `weight` of a penalty is that of `causal_sgd.objectives`,
whose losses are R/4, over the weight of the mean loss.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import _room
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import bisect
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "Weights",
    "anchor",
    "andmask",
    "causal_dantzig",
    "coral",
    "eills",
    "eills_threshold",
    "erm",
    "excess_risk",
    "fair",
    "fair_threshold",
    "fishr",
    "group_dro",
    "icp",
    "iga",
    "irmv1",
    "irmv1_trap",
    "vrex",
]


class Weights(NamedTuple):
    """A predictor w1 x1 + w2 x2; the invariant one is (1, 0)."""

    invariant: Array  # [...] w1
    spurious: Array  # [...] w2


@checked_jit
def excess_risk(
    invariant: ArrayLike, spurious: ArrayLike, *, bias: ArrayLike, variance: ArrayLike = 4.0
) -> Array:
    """R_e less the variance of the noise, [...]; negative where the bias helps.

    Accuracy: a few roundings of its terms.

    Args:
        invariant: w1 [...].
        spurious: w2 [...].
        bias: b_e [...] of any environment, also of one that is not in training.
        variance: V [...].
    """
    w1, w2, b, v = broadcast(invariant, spurious, bias, variance)
    return (w1 - 1) ** 2 + v * w2**2 - 2 * b * w2


@checked_jit
def erm(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """Least squares on all data: w2 = mu/V, whatever the spread.

    Accuracy: a few roundings.

    Args:
        mean: mu [...].
        spread: M [...].
        variance: V [...].
    """
    mu, _, v = broadcast(mean, spread, variance)
    return _weights(mu / v)


def iga(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """IGA (Koyama and Yamaguchi 2020), with any weight: the solution of `erm`.

    The gradients of R_e differ from their mean by 2 (b_e - mu), which does not depend on w. The
    penalty is constant.

    Accuracy and arguments: those of `erm`.
    """
    return erm(mean, spread, variance=variance)


def coral(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """CORAL (Sun and Saenko 2016), with any weight: the solution of `erm`.

    Means and covariances of the inputs, hence of all linear features, agree between environments.

    Accuracy and arguments: those of `erm`.
    """
    return erm(mean, spread, variance=variance)


def anchor(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """Anchor regression (Rothenhaeusler et al. 2021), with any weight: the solution of `erm`.

    The environments as anchors act through the means of inputs and labels, which are zero here.

    Accuracy and arguments: those of `erm`.
    """
    return erm(mean, spread, variance=variance)


@checked_jit
def causal_dantzig(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """The causal Dantzig (Rothenhaeusler et al. 2019): undefined, NaN.

    It solves (S_1 - S_2) w = c_1 - c_2 with the moments of the inputs, which are equal here. With
    finite data the solution is noise over noise.

    Accuracy: exact.

    Args:
        mean: mu [...].
        spread: M [...].
        variance: V [...].
    """
    mu, *_ = broadcast(mean, spread, variance)
    nothing = jnp.full_like(mu, jnp.nan)
    return Weights(nothing, nothing)


@checked_jit
def vrex(
    mean: ArrayLike,
    spread: ArrayLike,
    *,
    weight: ArrayLike,
    variance: ArrayLike = 4.0,
    noise_spread: ArrayLike = 0.0,
) -> Weights:
    """V-REx (Krueger et al. 2021): w2 = (mu + weight h M/2)/(V + weight M^2).

    The risks differ by twice the half-difference h - 2 w2 M, of which the penalty is the square. It
    finds the invariant predictor iff M > 0, the weight is large and the noise has the same variance
    in all environments; otherwise w2 tends to h/(2 M).

    Accuracy: a few roundings.

    Args:
        mean: mu [...].
        spread: M [...].
        weight: of the variance of the losses, [...]; 4 times that of a source on the scale of R.
        variance: V [...].
        noise_spread: h [...], half the difference of the noises' variances, that of the environment
            with the larger bias less the other.
    """
    mu, m, penalty, v, h = broadcast(mean, spread, weight, variance, noise_spread)
    return _weights((mu + penalty * h * m / 2) / (v + penalty * m**2))


@checked_jit
def irmv1(
    mean: ArrayLike, spread: ArrayLike, *, weight: ArrayLike, variance: ArrayLike = 4.0
) -> Weights:
    """IRMv1 (Arjovsky et al. 2019): the global minimum, by a bisection in one variable.

    Four times the objective, without the noise's variance, is

        (w1 - 1)^2 + V w2^2 - 2 mu w2 + weight (g^2 + M^2 w2^2),   g = w1^2 - w1 + V w2^2 - mu w2.

    With k = weight g it is stationary where w1 = (1 + k)/(1 + 2k) and w2 = mu (1 + k)/Q with
    Q = V (1 + 2k) + weight M^2. The penalty does not change when w1 is replaced by 1 - w1, so the
    global minimum has w1 > 1/2, or k > -1/2. There weight g - k falls with k, because the
    derivatives of k (1 + k)/(1 + 2k)^2 and (1 + k)(V k + weight M^2)/Q^2 are 1/(1 + 2k)^3 and
    (V - weight M^2)^2/Q^3: it has one root, in (-1/2, 0].

    It finds the invariant predictor iff M > 0 and the weight is large, also where the variance of
    the noise differs between environments. From small weights gradient descent may end elsewhere,
    see `irmv1_trap`.

    Accuracy: 1e-5 in single precision for weights up to 1e6.

    Args:
        mean: mu [...].
        spread: M [...].
        weight: of the mean square of the losses' derivatives, [...]; 4 times that of a source on
            the scale of R.
        variance: V [...].

    >>> found = irmv1(0.5, 0.3, weight=40.0)  # 10 on the scale of R
    >>> print(f"{found.spurious:.4f}")
    0.0658
    """
    mu, m, penalty, v = broadcast(mean, spread, weight, variance)
    drag = penalty * m**2

    def excess(k: Array) -> Array:
        q = v * (1 + 2 * k) + drag
        g = -(1 + k) * (k / (1 + 2 * k) ** 2 + mu**2 * (v * k + drag) / q**2)
        return penalty * g - k

    # The excess tends to infinity at -1/2 and is at most 0 at 0.
    k = bisect(excess, jnp.full_like(mu, -0.5), jnp.zeros_like(mu))
    return Weights((1 + k) / (1 + 2 * k), mu * (1 + k) / (v * (1 + 2 * k) + drag))


@checked_jit
def irmv1_trap(weight: ArrayLike) -> Array:
    """The invariant weight w1 [...] of IRMv1's second local minimum at mu = 0, near the origin.

    At w2 = 0 the objective is stationary where (w1 - 1)(1 + weight w1 (2 w1 - 1)) = 0. Beyond a
    weight of 8 it has a minimum at w1 = (1 - (1 - 8/weight)^(1/2))/4, about 1/weight, where descent
    from small weights ends: the penalty vanishes at w = 0, too. Train with a small weight first.

    Accuracy: 1e-5 in single precision.

    Args:
        weight: of the penalty, [...], as in `irmv1`.

    Returns:
        w1 [...]; NaN up to a weight of 8, where there is no such minimum.
    """
    (penalty,) = broadcast(weight)
    inside = 1 - 8 / jnp.where(penalty > 8, penalty, 16)
    return jnp.where(penalty > 8, 2 / (1 + jnp.sqrt(inside)) / penalty, jnp.nan)


@checked_jit
def group_dro(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """GroupDRO (Sagawa et al. 2020): |w2| = max(|mu| - M, 0)/V, with the sign of mu.

    The largest risk is that of the environment with b_e against w2, until w2 = 0. It finds the
    invariant predictor iff the environments contradict each other, M >= |mu|.

    Accuracy: a few roundings.

    Args:
        mean: mu [...].
        spread: M [...].
        variance: V [...].
    """
    mu, m, v = broadcast(mean, spread, variance)
    return _weights(jnp.sign(mu) * jnp.maximum(jnp.abs(mu) - m, 0) / v)


def andmask(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Weights:
    """ANDMask (Parascandolo et al. 2021) from w = 0, with any threshold up to 1: as `group_dro`.

    The gradients 2 (V w2 - b_e) agree in sign unless V w2 lies between the two biases. The weight
    stops where it enters this interval, from starts beyond it at its other end.

    Accuracy and arguments: those of `group_dro`.
    """
    return group_dro(mean, spread, variance=variance)


@checked_jit
def fishr(
    mean: ArrayLike, spread: ArrayLike, *, weight: ArrayLike, variance: ArrayLike = 4.0
) -> Weights:
    """Fishr (Rame et al. 2022): w2 = mu (1 + 2 weight V M^2)/(V + weight M^2 (1 + 4 V^2)).

    A single example's loss r^2/4 has the gradient r x/2, and Var r x_j = E r^2 E x_j^2 +
    (E r x_j)^2 for Gaussian variables. At w1 = 1 the variances of the two environments differ by
    -M w2 in the first coordinate and by -M (2 V w2 - mu) in the second, and the penalty is the sum
    of the squares of half the differences. The limit 2 V mu/(1 + 4 V^2) is never zero.

    Accuracy: a few roundings.

    Args:
        mean: mu [...].
        spread: M [...].
        weight: of the squared distances of the variances from their mean, [...], summed over the
            two coordinates and averaged over environments.
        variance: V [...].
    """
    mu, m, penalty, v = broadcast(mean, spread, weight, variance)
    strength = penalty * m**2
    return _weights(mu * (1 + 2 * v * strength) / (v + strength * (1 + 4 * v**2)))


@checked_jit
def eills_threshold(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Array:
    """The weight gamma_c [...] = mu^2/(V M^2) beyond which EILLS rejects x2; infinite at M = 0.

    EILLS (Fan et al. 2023) minimises R/2 + gamma/2 sum_{j in S} (E_e r x_j)^2, averaged over
    environments, over sets S and weights on them. With S = {1, 2} the solution of `erm` gains
    mu^2/V in R and pays gamma M^2; with S = {1} nothing is paid.

    Accuracy: a few roundings.

    Args:
        mean: mu [...].
        spread: M [...].
        variance: V [...].
    """
    mu, m, v = broadcast(mean, spread, variance)
    return _ratio(mu**2, v * m**2)


@checked_jit
def fair_threshold(mean: ArrayLike, spread: ArrayLike, *, variance: ArrayLike = 4.0) -> Array:
    """The weight gamma_c [...] = mu^2/M^2 beyond which FAIR rejects x2; infinite at M = 0.

    FAIR with linear discriminators (Gu et al. 2024) pays gamma g' (E_e x_S x_S')^-1 g/2 with
    g = E_e r x_S, so M^2/V in place of the M^2 of EILLS.

    Accuracy and arguments: those of `eills_threshold`; the variance has no effect.
    """
    mu, m, _ = broadcast(mean, spread, variance)
    return _ratio(mu**2, m**2)


@checked_jit
def eills(
    mean: ArrayLike, spread: ArrayLike, *, gamma: ArrayLike, variance: ArrayLike = 4.0
) -> Weights:
    """EILLS: w2 = 0 beyond `eills_threshold`, mu/V below it.

    Sets without x1 are never chosen: adding it lowers R by 1 at no cost.

    Accuracy: a few roundings, but for gamma within rounding of the threshold.

    Args:
        mean: mu [...].
        spread: M [...].
        gamma: weight [...] of the penalty; its scale does not depend on that of the losses.
        variance: V [...].
    """
    return _search(eills_threshold(mean, spread, variance=variance), mean, gamma, variance)


@checked_jit
def fair(
    mean: ArrayLike, spread: ArrayLike, *, gamma: ArrayLike, variance: ArrayLike = 4.0
) -> Weights:
    """FAIR with linear discriminators: w2 = 0 beyond `fair_threshold`, mu/V below it.

    Accuracy and arguments: those of `eills`.
    """
    return _search(fair_threshold(mean, spread, variance=variance), mean, gamma, variance)


@checked_jit
def icp(
    mean: ArrayLike,
    spread: ArrayLike,
    *,
    input_spread: ArrayLike = 0.0,
    noise_spread: ArrayLike = 0.0,
) -> Weights:
    """ICP (Peters et al. 2016) on infinitely many examples: it never selects x2.

    An accepted set has the same mean and variance of its residual in all environments. The label's
    own distribution is the same in all of them unless x1 or the noise changes, so the empty set is
    accepted, and the intersection of all accepted sets is empty: (0, 0). Where the variance of x1
    differs, only sets with x1 are accepted, {1} among them, and the result is (1, 0), whatever mu
    and M. Where the variance of the noise differs, {1} is rejected and nothing is selected.

    Accuracy: exact, but for accidental equalities between environments.

    Args:
        mean: mu [...].
        spread: M [...].
        input_spread: half the difference of the variances of x1, [...]; 0 in
            `worlds.contradiction` without `scales`.
        noise_spread: half the difference of the variances of the noise, [...].
    """
    mu, _, inputs, noises = broadcast(mean, spread, input_spread, noise_spread)
    selected = (inputs != 0) & (noises == 0)
    return Weights(selected.astype(mu.dtype), jnp.zeros_like(mu))


def _weights(spurious: Array) -> Weights:
    return Weights(jnp.ones_like(spurious), spurious)


def _search(threshold: Array, mean: ArrayLike, gamma: ArrayLike, variance: ArrayLike) -> Weights:
    """Least squares on {x1}, or on both inputs up to a threshold of gamma."""
    threshold, mu, gamma, v = broadcast(threshold, mean, gamma, variance)
    return _weights(jnp.where(gamma > threshold, 0, mu / v))


def _ratio(gain: Array, loss: Array) -> Array:
    """Gain over loss; infinite without a loss, 0 without a gain."""
    ratio = gain / jnp.where(loss > 0, loss, 1)
    return jnp.where(loss > 0, ratio, jnp.where(gain > 0, jnp.inf, 0))

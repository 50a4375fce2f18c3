"""Error rates of linear classifiers in mixtures of Gaussian groups with a common covariance.

Group g has the label y_g, -1 or 1, and inputs x ~ N(mean_g, C), C = root root'. A linear classifier
predicts the sign of f = x'w + b, which is Gaussian in every group, so that its error rates are sums
of values of the normal distribution function Phi. The worlds are those of `supervised.worlds` of
the kind `MixtureWorld`; the benchmark with exact values is that of Aubin et al. 2021.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from causal_sgd import _room, linalg
from causal_sgd.theory._arguments import broadcast, check, checked_jit
from causal_sgd.types import Array

_room(__name__)
__all__ = ["bayes_error", "error_rates", "permuted_error"]


def error_rates(
    weights: ArrayLike,
    shares: ArrayLike,
    means: ArrayLike,
    root: ArrayLike,
    labels: ArrayLike,
    *,
    intercept: ArrayLike = 0.0,
) -> Array:
    """Error rates of the sign of x'w + b in environments of several groups, [..., E].

    In group g the prediction is N(mean_g'w + b, |root'w|^2), hence the rate

        sum_g share_g Phi(-y_g (mean_g'w + b) / |root'w|).

    A prediction of zero counts as half an error.

    Accuracy: 1e-6 in single precision, relative 1e-4 where the rate is above 1e-30.

    Args:
        weights: w [..., p].
        shares: of the groups in every environment, [E, G], rows sum to one.
        means: of the groups, [E, G, p].
        root: of the covariance within a group, [p, p].
        labels: -1 or 1 of every group, [G].
        intercept: b [...].

    >>> means = 0.1 * np.ones((1, 2, 5)) * np.array([1.0, -1.0])[None, :, None]
    >>> halves, labels = np.full((1, 2), 0.5), np.array([1.0, -1.0])
    >>> rates = error_rates(np.ones(5), halves, means, 0.1 * np.eye(5), labels)
    >>> print([f"{rate:.5f}" for rate in rates])  # Phi(-sqrt(5))
    ['0.01267']
    """
    _check_shapes(weights, shares, means, root, labels)
    return _error_rates(weights, shares, means, root, labels, intercept)


@checked_jit
def _error_rates(
    weights: ArrayLike,
    shares: ArrayLike,
    means: ArrayLike,
    root: ArrayLike,
    labels: ArrayLike,
    intercept: ArrayLike,
) -> Array:
    w, centers = jnp.asarray(weights, float), jnp.asarray(means, float)
    size, groups, dim = centers.shape
    projected = linalg.product(w, centers.reshape(-1, dim).T).reshape(*w.shape[:-1], size, groups)
    shift = jnp.asarray(intercept, float)[..., None, None]
    lead = jnp.broadcast_shapes(projected.shape[:-2], shift.shape[:-2])
    f = jnp.broadcast_to(projected, (*lead, size, groups)) + jnp.broadcast_to(
        shift, (*lead, size, groups)
    )
    deviation = jnp.sqrt(jnp.sum(linalg.product(w, jnp.asarray(root, float)) ** 2, -1))
    deviation = jnp.broadcast_to(deviation[..., None, None], f.shape)
    margin = f * jnp.broadcast_to(jnp.asarray(labels, float), f.shape)
    # Without spread only the sign matters.
    safe = jnp.where(deviation > 0, deviation, 1)
    ratio = jnp.where(deviation > 0, margin / safe, jnp.sign(margin) * jnp.inf)
    ratio = jnp.where((deviation == 0) & (margin == 0), 0, ratio)
    return jnp.sum(jnp.broadcast_to(jnp.asarray(shares, float), f.shape) * ndtr(-ratio), -1)


@checked_jit
def bayes_error(signal_to_noise: ArrayLike) -> Array:
    """The least error rate of two classes with means +-m and covariance C, Phi(-(m'C^-1 m)^(1/2)).

    That of the oracle of Example 3 of Aubin et al. 2021 is Phi(-sqrt(5)): five inputs with means
    +-0.1 and deviations 0.1.

    Accuracy: relative 1e-5 in single precision.

    Args:
        signal_to_noise: m'C^-1 m [...], at least 0.

    >>> print(f"{bayes_error(5.0):.5f}")
    0.01267
    """
    (ratio,) = broadcast(signal_to_noise)
    return ndtr(-jnp.sqrt(ratio))


@checked_jit
def permuted_error(agreement: ArrayLike, foreground: ArrayLike) -> Array:
    """The error rate [...] of the sign of the background in Example 2 of Aubin et al. 2021.

    In training the foreground, which is the label, is positive with probability s, and the
    background has the same sign with probability p; in testing the background is drawn by itself
    with its marginal law, P(+) = b = p s + (1 - p)(1 - s). Every classifier that reads the
    background without error, and nothing else, errs with probability s (1 - b) + (1 - s) b.

    Accuracy: a few roundings.

    Args:
        agreement: p [...], in [0, 1].
        foreground: s [...], in [0, 1].

    >>> rates = permuted_error(np.array([0.95, 0.97, 0.99]), np.array([0.3, 0.5, 0.7]))
    >>> print(f"{rates.mean():.4f}")
    0.4499
    """
    p, s = broadcast(agreement, foreground)
    background = p * s + (1 - p) * (1 - s)
    return s * (1 - background) + (1 - s) * background


def _check_shapes(
    weights: ArrayLike, shares: ArrayLike, means: ArrayLike, root: ArrayLike, labels: ArrayLike
) -> None:
    check(weights=weights, shares=shares, means=means, root=root, labels=labels)
    shape = np.shape(means)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(f"means must have the shape [E, G, p], got {list(shape)}")
    size, groups, dim = shape
    expected = {
        "shares": (shares, (size, groups)),
        "root": (root, (dim, dim)),
        "labels": (labels, (groups,)),
    }
    for name, (value, allowed) in expected.items():
        if np.shape(value) != allowed:
            raise ValueError(
                f"{name} must have the shape {list(allowed)} for means of shape {list(shape)}, "
                f"got {list(np.shape(value))}"
            )
    if np.shape(weights)[-1:] != (dim,):
        raise ValueError(
            f"weights must have the shape [..., {dim}] for means of shape {list(shape)}, got "
            f"{list(np.shape(weights))}"
        )

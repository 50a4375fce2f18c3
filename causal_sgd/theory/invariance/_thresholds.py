"""The penalties from which searches over subsets of the inputs choose the invariant set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory.invariance._moments import (
    all_sets,
    checked_moments,
    checked_set,
    environment_weights,
)

__all__ = ["Thresholds", "eills_thresholds", "fair_thresholds"]

MOST_INPUTS = 15
_GRID = np.concatenate([[0.0], np.logspace(-6, 9, 61)])  # of gamma
_HALVINGS = 60
_TIE = 1e-10  # relative to the moment of the label, in double precision


class Thresholds(NamedTuple):
    """When each set of inputs stops being preferred to a given one; NumPy, double precision."""

    sets: np.ndarray  # [2^p, p] bool, all sets; bit j of the row's number is input j
    per_set: np.ndarray  # [2^p] gamma_S, beyond which the given set is preferred to S
    critical: float  # gamma_c, the largest of them


def eills_thresholds(
    second: ArrayLike, causal: ArrayLike, probabilities: ArrayLike | None = None
) -> Thresholds:
    """Gamma_S and gamma_c of EILLS (Fan et al. 2023) from the moments of the environments.

    A set S has the least value over weights on S of

        Q_S(gamma) = E_e [R_e/2 + (gamma/2) sum_{j in S} (E_e r x_j)^2] - E_e y^2/2,

    concave and growing in gamma. At an invariant set with its predictor the penalty vanishes, so
    that Q is constant and each other set crosses it at most once, at gamma_S; gamma_c is the least
    weight beyond which the invariant set is chosen. With X_e the inputs' moments, the eigenvectors
    of E_e X_e X_e relative to E_e X_e make Q_S a sum of |S| fractions in gamma. The root is
    bracketed on a grid from 1e-6 to 1e9 and bisected.

    Where no weights on the given set are invariant, as with moments of samples, gamma_S is the
    first crossing from below.

    Accuracy: relative 1e-8, in double precision whatever jax does. It takes about a second for
    p = 12 on one core.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2, of the population as a rule; not
            traced.
        causal: the set to be chosen, [p] bool.
        probabilities: [E], sum to one; None for equal ones.

    Returns:
        All sets with their thresholds: 0 where S is never preferred, which includes ties, and inf
        where it always is, as for a larger invariant set with a smaller risk.

    Raises:
        ValueError: if an argument has a wrong shape, p exceeds 15, or a value is traced.
    """
    moments, weights, given = _arguments(second, causal, probabilities)
    sets = all_sets(len(given))
    reference = _eills_values(moments, weights, given[None])
    tie = float(_TIE * weights @ moments[:, -2, -2])
    parts = [
        _crossings(_eills_values(moments, weights, part), reference, tie) for part in _slabs(sets)
    ]
    return _named(sets, np.concatenate(parts))


def fair_thresholds(
    second: ArrayLike, causal: ArrayLike, probabilities: ArrayLike | None = None
) -> Thresholds:
    """Gamma_S and gamma_c of FAIR with linear discriminators (Gu et al. 2024), in closed form.

    The penalty of EILLS becomes (gamma/2) E_e g'X_e^-1 g with g = E_e r x_S, so that
    Q_S = -G_S/2 + (gamma/2) (H_S - G_S) with G_S = c'X^-1 c of the pooled moments c = E_e x_S y and
    X, and H_S the mean of the same number in single environments. The invariant set is preferred
    to S beyond gamma_S = (G_S - G)/((H_S - G_S) - (H - G)), the gain in R over the loss of
    invariance.

    Accuracy: relative 1e-8, in double precision whatever jax does.

    Args:
        second: moments of z = (x, y, 1), [E, q, q] with q = p + 2; not traced.
        causal: the set to be chosen, [p] bool.
        probabilities: [E], sum to one; None for equal ones.

    Returns:
        All sets with their thresholds, as `eills_thresholds` has them.

    Raises:
        ValueError: if an argument has a wrong shape, p exceeds 15, or a value is traced.
    """
    moments, weights, given = _arguments(second, causal, probabilities)
    sets = all_sets(len(given))
    parts = [_fair_values(moments, weights, part) for part in _slabs(sets)]
    pooled, single = (np.concatenate(each) for each in zip(*parts, strict=True))
    index = _number(given)
    gain = pooled - pooled[index]
    loss = (single - pooled) - (single - pooled)[index]
    tie = _TIE * weights @ moments[:, -2, -2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(loss > tie, gain / loss, np.inf)
    return _named(sets, np.where(gain > tie, ratio, 0.0))


def _arguments(
    second: ArrayLike, causal: ArrayLike, probabilities: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    moments = checked_moments("second", second)
    dim = moments.shape[-1] - 2
    checks.integer("p, the number of inputs of second,", dim, maximum=MOST_INPUTS)
    given = checked_set("causal", causal, dim)
    return moments, environment_weights(probabilities, len(moments)), given


def _number(chosen: np.ndarray) -> int:
    return int(chosen @ (1 << np.arange(len(chosen))))


def _slabs(sets: np.ndarray) -> list[np.ndarray]:
    """Parts of the sets that fit into memory together with their matrices."""
    return np.array_split(sets, max(1, len(sets) // 4096))


def _restricted(matrix: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """The matrix [p, p] of every set: the identity outside of it, [n, p, p]."""
    both = sets[:, :, None] & sets[:, None, :]
    return np.where(both, matrix, np.eye(matrix.shape[-1]))


class _Fractions(NamedTuple):
    """Q(gamma) = gamma constant/2 - sum_i (pooled_i + gamma single_i)^2/(2 (1 + gamma rate_i))."""

    constant: np.ndarray  # [n]
    pooled: np.ndarray  # [n, p]
    single: np.ndarray  # [n, p]
    rate: np.ndarray  # [n, p]

    def at(self, gamma: np.ndarray) -> np.ndarray:
        """The values [n, k] at gamma [n, k] or [1, k]."""
        total = gamma * self.constant[:, None] / 2
        for pooled, single, rate in zip(self.pooled.T, self.single.T, self.rate.T, strict=True):
            numerator = pooled[:, None] + gamma * single[:, None]
            total = total - numerator**2 / (2 * (1 + gamma * rate[:, None]))
        return total


def _eills_values(moments: np.ndarray, weights: np.ndarray, sets: np.ndarray) -> _Fractions:
    dim = sets.shape[1]
    inputs, cross = moments[:, :dim, :dim], moments[:, :dim, dim]
    pooled = _restricted(np.einsum("e,eij->ij", weights, inputs), sets)
    right = np.where(sets, weights @ cross, 0)
    squares, single = np.zeros_like(pooled), np.zeros_like(right)
    constant = np.zeros(len(sets))
    for weight, x, c in zip(weights, inputs, cross, strict=True):
        masked, chosen = _restricted(x, sets), np.where(sets, c, 0)
        squares += weight * masked @ masked
        single += weight * np.einsum("nij,nj->ni", masked, chosen)
        constant += weight * np.sum(chosen**2, 1)
    root = _inverse(_cholesky(pooled))
    rates, vectors = np.linalg.eigh(root @ squares @ np.swapaxes(root, 1, 2))
    basis = np.einsum("nij,nik->njk", root, vectors)  # root' vectors
    return _Fractions(
        constant,
        np.einsum("nij,ni->nj", basis, right),
        np.einsum("nij,ni->nj", basis, single),
        rates,
    )


def _fair_values(
    moments: np.ndarray, weights: np.ndarray, sets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """G_S and H_S, [n]: what the inputs explain in pooled data, and in single environments."""
    dim = sets.shape[1]

    def explained(second: np.ndarray) -> np.ndarray:
        right = np.where(sets, second[:dim, dim], 0)[:, :, None]
        root = _inverse(_cholesky(_restricted(second[:dim, :dim], sets)))
        return np.sum((root @ right)[:, :, 0] ** 2, 1)

    single = [weight * explained(one) for weight, one in zip(weights, moments, strict=True)]
    return explained(np.einsum("e,eij->ij", weights, moments)), np.sum(single, 0)


def _cholesky(matrices: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        raise ValueError(
            "second must have positive definite moments of the inputs, got singular ones"
        ) from None


def _inverse(triangles: np.ndarray) -> np.ndarray:
    identity = np.broadcast_to(np.eye(triangles.shape[-1]), triangles.shape)
    return np.linalg.solve(triangles, identity)


def _crossings(values: _Fractions, reference: _Fractions, tie: float) -> np.ndarray:
    """Where each value first exceeds the reference; 0 where it does so from the start, [n]."""

    def gap(gamma: np.ndarray) -> np.ndarray:
        return values.at(gamma) - reference.at(gamma.reshape(1, -1)).reshape(gamma.shape)

    above = gap(_GRID[None]) >= 0
    above[:, 0] = gap(np.zeros((1, 1)))[:, 0] >= -tie
    last = np.argmax(above, 1)
    high = _GRID[last][:, None]
    low = _GRID[np.maximum(last - 1, 0)][:, None]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = gap(middle) >= 0
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    root = np.where(above[:, 0], 0.0, (low + high)[:, 0] / 2)
    return np.where(above.any(1), root, np.inf)


def _named(sets: np.ndarray, per_set: np.ndarray) -> Thresholds:
    return Thresholds(sets, per_set, float(per_set.max()))

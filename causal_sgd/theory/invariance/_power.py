"""Level and power of invariant causal prediction."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from causal_sgd import checks
from causal_sgd.theory.invariance._moments import all_sets, checked_moments, checked_set

__all__ = ["Bounds", "Rejection", "icp_recovery", "icp_rejection"]

MOST_INPUTS = 12


class Rejection(NamedTuple):
    """The probability that a set is rejected, from those of its single tests."""

    low: float  # the largest one
    estimate: float  # as if the tests were independent
    high: float  # their sum, or 1


class Bounds(NamedTuple):
    """Bounds of a probability."""

    low: float
    high: float


def icp_rejection(
    second: ArrayLike, chosen: ArrayLike, counts: ArrayLike, *, level: float = 0.05
) -> Rejection:
    """The probability that ICP (Peters et al. 2016) rejects a set of inputs.

    The residuals of pooled least squares on the set, with an intercept, are compared between each
    environment e and all others: their variances by a two-sided F test and their means by Welch's
    t test, each at the level `level`/(2 (E - 1)). With rho the ratio of the residuals' variances at
    the population's coefficients, F/rho has a central F distribution and t a noncentral one. Both
    statistics also vary because the coefficients are estimated: this adds to the variance of F for
    sets that are not invariant, and takes from that of t where the inputs' means differ. Hence the
    variances of log F and of the difference of means are computed by the delta method for Gaussian
    variables, and enter the degrees of freedom of F and the scale of t.

    For the causal set it is the level: the probability that an input is selected that is not causal
    is at most that, since the intersection lies within an accepted causal set. With two
    environments both comparisons are the same tests. With more, the levels of all tests add up to
    `level` E/(E - 1), so that the level may exceed `level`.

    Accuracy: the estimate within 0.03 for two environments with 100 examples each and more; with
    more environments the tests depend on each other, and the estimate is up to 0.1 too high.

    Args:
        second: moments of z = (x, y, 1) of Gaussian variables, [E, q, q] with q = p + 2 and at
            least two environments; not traced.
        chosen: the set, [p] bool.
        counts: examples of every environment, [] or [E]; more than p + 2.
        level: alpha, above 0 and at most 1.

    Returns:
        Bounds and an estimate, in double precision.

    Raises:
        ValueError: if an argument has a wrong shape, is out of range or traced.
    """
    moments, numbers, alpha = _arguments(second, counts, level)
    return _rejection(moments, checked_set("chosen", chosen, moments.shape[1] - 2), numbers, alpha)


def icp_recovery(
    second: ArrayLike, causal: ArrayLike, counts: ArrayLike, *, level: float = 0.05
) -> Bounds:
    """Bounds of the probability that ICP selects exactly the causal inputs.

    It does so if it accepts the causal set and rejects every set that lacks a causal input; and
    only if it rejects all of the latter.

    Accuracy: that of `icp_rejection`. The lower bound sums over sets and may be far below.

    Args:
        second: as for `icp_rejection`; p at most 12.
        causal: the causal set, [p] bool, not empty.
        counts: examples of every environment, [] or [E].
        level: alpha, above 0 and at most 1.

    Returns:
        The bounds, in double precision.

    Raises:
        ValueError: as `icp_rejection`.
    """
    moments, numbers, alpha = _arguments(second, counts, level)
    dim = moments.shape[1] - 2
    checks.integer("p, the number of inputs of second,", dim, maximum=MOST_INPUTS)
    given = checked_set("causal", causal, dim)
    if not given.any():
        raise ValueError("causal must hold at least one input, got none")
    lacking = [chosen for chosen in all_sets(dim) if (given & ~chosen).any()]
    others = [_rejection(moments, chosen, numbers, alpha) for chosen in lacking]
    missed = _rejection(moments, given, numbers, alpha).high
    low = 1 - missed - sum(1 - other.low for other in others)
    return Bounds(max(0.0, low), min(other.high for other in others))


def _arguments(
    second: ArrayLike, counts: ArrayLike, level: float
) -> tuple[np.ndarray, np.ndarray, float]:
    moments = checked_moments("second", second)
    size, q = moments.shape[:2]
    if size < 2:
        raise ValueError(f"second must have at least 2 environments, got {size}")
    if not np.allclose(moments[:, -1, -1], 1, atol=1e-5):
        raise ValueError("second must be moments of (x, y, 1), with 1 as the last entry")
    checks.number("counts", counts, above=q, scalar=False, double=True)
    numbers = checks.concrete(counts)
    if numbers is None or numbers.shape not in ((), (size,)):
        got = "a traced value" if numbers is None else f"shape {list(numbers.shape)}"
        raise ValueError(f"counts must have the shape [] or [{size}], got {got}")
    checks.number("level", level, above=0, maximum=1, double=True)
    alpha = checks.concrete(level)
    if alpha is None:
        raise ValueError("level must be concrete, got a traced value")
    return moments, np.broadcast_to(numbers.astype(float), (size,)), float(alpha)


class _Group(NamedTuple):
    """One environment, or all others together."""

    shares: np.ndarray  # [E] of the environments in it
    size: float
    second: np.ndarray  # [q, q]
    mean: float  # of the residual
    variance: float


def _group(moments: np.ndarray, counts: np.ndarray, members: np.ndarray, v: np.ndarray) -> _Group:
    shares = np.where(members, counts, 0) / counts[members].sum()
    second = np.einsum("e,eij->ij", shares, moments)
    mean = float(second[-1] @ v)
    return _Group(shares, counts[members].sum(), second, mean, float(v @ second @ v - mean**2))


def _rejection(
    moments: np.ndarray, chosen: np.ndarray, counts: np.ndarray, level: float
) -> Rejection:
    size, q = moments.shape[:2]
    pooled = np.einsum("e,eij->ij", counts / counts.sum(), moments)
    free = np.append(np.flatnonzero(chosen), q - 1)  # the coefficients, with the intercept
    inverse = np.zeros((q, q))
    try:
        inverse[np.ix_(free, free)] = np.linalg.inv(pooled[np.ix_(free, free)])
    except np.linalg.LinAlgError:
        raise ValueError(
            "second must have positive definite moments of the inputs, got singular ones"
        ) from None
    v = inverse @ pooled[:, -2]
    v[-2] = -1
    each = level / (2 * (size - 1))
    probabilities = []
    for environment in range(size if size > 2 else 1):
        own = np.arange(size) == environment
        one, rest = (_group(moments, counts, members, v) for members in (own, ~own))
        probabilities += _tests(moments, counts, v, inverse, one, rest, each)
    independent = 1 - np.prod(1 - np.array(probabilities))
    return Rejection(max(probabilities), float(independent), min(1.0, sum(probabilities)))


def _tests(
    moments: np.ndarray,
    counts: np.ndarray,
    v: np.ndarray,
    inverse: np.ndarray,
    one: _Group,
    rest: _Group,
    level: float,
) -> list[float]:
    """The probabilities that the F test and the t test reject."""
    last = np.eye(len(v))[-1]
    difference = one.shares - rest.shares  # [E], of a mean over one less a mean over the rest
    outer = np.outer(v, v)
    mixed = (np.outer(v, last) + np.outer(last, v)) / 2

    # log F = log of the variance of one less that of the rest
    direct = sum(
        sign * group.shares[:, None, None] * (outer - 2 * group.mean * mixed) / group.variance
        for sign, group in ((1, one), (-1, rest))
    )
    slope = sum(
        sign * 2 * (group.second @ v - group.mean * group.second[-1]) / group.variance
        for sign, group in ((1, one), (-1, rest))
    )
    spread = _delta_variance(moments, counts, v, inverse, np.asarray(direct), np.asarray(slope))
    degrees = np.array([one.size - 1, rest.size - 1])
    low, high = stats.f.ppf([level / 2, 1 - level / 2], *degrees)
    true = degrees * np.sum(2 / degrees) / spread
    ratio = one.variance / rest.variance
    by_variance = stats.f.cdf(low / ratio, *true) + stats.f.sf(high / ratio, *true)

    direct = difference[:, None, None] * mixed[None]
    slope = one.second[-1] - rest.second[-1]
    parts = np.array([one.variance / one.size, rest.variance / rest.size])
    scale = np.sqrt(_delta_variance(moments, counts, v, inverse, direct, slope) / parts.sum())
    welch = parts.sum() ** 2 / np.sum(parts**2 / degrees)
    shift = (one.mean - rest.mean) / np.sqrt(parts.sum())
    limit = float(stats.t.ppf(1 - level / 2, welch))
    return [float(by_variance), _outside(limit, shift, scale, welch)]


def _outside(limit: float, shift: float, scale: float, degrees: float) -> float:
    """P(|shift + scale T| > limit), with T the error of a t statistic."""
    if scale < 1e-6:  # the set explains all differences of means
        return float(abs(shift) > limit)
    bound, centre = limit / scale, abs(shift) / scale
    exact = stats.nct.sf(bound, degrees, centre) + stats.nct.cdf(-bound, degrees, centre)
    if np.isfinite(exact):
        return float(exact)
    # far out, where scipy's noncentral t is NaN, the normal law is close
    return float(stats.norm.sf(bound - centre) + stats.norm.cdf(-bound - centre))


def _delta_variance(
    moments: np.ndarray,
    counts: np.ndarray,
    v: np.ndarray,
    inverse: np.ndarray,
    direct: np.ndarray,
    slope: np.ndarray,
) -> float:
    """The variance of a statistic of sample moments with derivatives [E, q, q] and slope in v.

    The coefficients are those of the pooled sample: dv = -inverse dP v.
    """
    through = inverse @ slope
    pulled = (np.outer(through, v) + np.outer(v, through)) / 2
    total = 0.0
    for second, count, own in zip(moments, counts, direct, strict=True):
        derivative = own - count / counts.sum() * pulled
        mean = second[-1]
        covariance = second - np.outer(mean, mean)
        product = derivative @ covariance
        # the variance of z'Gz for Gaussian z
        total += (2 * np.sum(product * product.T) + 4 * mean @ product @ derivative @ mean) / count
    return float(total)

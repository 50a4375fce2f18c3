"""Invariant causal prediction, and the invariance of regressions."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import ndtri

from causal_sgd import checks
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.estimators._data import Sample, check_level, finished, sample_of
from causal_sgd.supervised.estimators._least_squares import solve
from causal_sgd.supervised.estimators._subsets import (
    check_exhaustive,
    corners,
    membership,
    sweeps,
)
from causal_sgd.supervised.estimators._tests import (
    CORRECTIONS,
    coefficient_tests,
    residual_tests,
)
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Estimator, Fit

__all__ = ["SetTests", "accepted_sets", "icp", "regression_invariance"]


class SetTests(NamedTuple):
    """The tests of all subsets of the inputs; subset n holds input k where n has bit k."""

    sets: Array  # [2^p, p] bool
    pvalues: Array  # [2^p]
    accepted: Array  # [2^p] bool


def accepted_sets(
    data: MomentData,
    world: SupervisedWorld,
    *,
    level: float | Array = 0.05,
    correction: str = "bonferroni",
    intercept: bool = True,
    empty: bool = True,
) -> SetTests:
    """The p-values of all 2^p subsets under which `icp` accepts or rejects them.

    Args:
        data: of a measurement that keeps moments.
        world: of which only the probabilities of the environments are read, for a population.
        level: see `icp`, as the others.
        correction: for the number of tests.
        intercept: whether the regressions have one.
        empty: whether the empty set may be accepted.

    Returns:
        The sets, their p-values, and whether each is accepted.

    Raises:
        ValueError: if an argument is out of range, the data hold no moments or those of fewer than
            two environments, or there are more than 15 inputs.
    """
    _check(level, correction, intercept, empty)
    sample = _sample("icp", data, world)
    return _tested(sample, residual_tests(sample, correction, intercept), level, empty)


def icp(
    level: float | Array = 0.05,
    *,
    correction: str = "bonferroni",
    intercept: bool = True,
    empty: bool = True,
) -> Estimator:
    """Invariant causal prediction: the inputs that belong to every accepted set.

    Every subset of the inputs is tested for residuals of pooled least squares with the same mean
    (Welch's t test) and variance (F test) in each environment as in all others (Peters, Buehlmann
    and Meinshausen 2016). The weights are those of pooled least squares on the inputs that all
    accepted sets share; without any accepted set, which rejects the model, no input is chosen. The
    interval of an input covers those of all accepted sets, with normal quantiles at level / 4, and
    0 for the sets that lack it; NaN without accepted sets.

    Args:
        level: of the tests, between 0 and 1; may be traced.
        correction: "bonferroni", the least p-value times 2 (E - 1), as in causalicp and in the R
            package; "environments", times 2 E, as in the code of invariant risk minimisation;
            "environments_minus_one", times 2 E minus 1, as in the code of EILLS, which is no valid
            p-value.
        intercept: whether the regressions have one; the two codes above have none.
        empty: whether the empty set may be accepted; not in the two codes above.

    Returns:
        An estimator for up to 15 inputs and at least two environments.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check(level, correction, intercept, empty)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = _sample("icp", data, world)
        tests = _tested(sample, residual_tests(sample, correction, intercept), level, empty)
        moments = sample.centered(sample.pooled, intercept)
        any_set = jnp.any(tests.accepted)
        support = jnp.all(tests.sets | ~tests.accepted[:, None], 0) & any_set
        low, high = _intervals(sample, moments, tests, level, intercept)
        # Without a p-value there is no answer.
        weights = jnp.where(jnp.isnan(tests.pvalues).any(), jnp.nan, solve(moments, support))
        return finished(
            sample,
            weights,
            support,
            intercept=intercept,
            low=jnp.where(any_set, low, jnp.nan),
            high=jnp.where(any_set, high, jnp.nan),
            accepted=jnp.sum(tests.accepted),
        )

    return estimator


def regression_invariance(level: float | Array = 0.05, *, intercept: bool = True) -> Estimator:
    """Least squares on the best set whose coefficients are the same in all environments.

    Every subset is tested for coefficients of least squares that do not depend on the environment,
    whose noise may differ (the invariance of Ghassami, Salehkaleybar, Kiyavash and Zhang 2017; the
    test is Wald's). The empty set has none and always passes; of the accepted sets the one with the
    least variance of the pooled residuals, RSS / (n - |S| - 1), is chosen.

    Args:
        level: of the tests, between 0 and 1; may be traced.
        intercept: whether every environment, and the fit, has an intercept.

    Returns:
        An estimator for up to 15 inputs and at least two environments.

    Raises:
        ValueError: if an argument is out of range.
    """
    check_level(level)
    checks.flags(intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = _sample("regression_invariance", data, world)
        tests = _tested(sample, coefficient_tests(sample, intercept), level, True)
        moments = sample.centered(sample.pooled, intercept)
        total = jnp.sum(sample.sizes)
        free = total - jnp.sum(tests.sets, 1) - int(intercept)
        variances = corners(moments[None])[0] * total / free
        best = jnp.argmin(jnp.where(tests.accepted, variances, jnp.inf))
        support = tests.sets[best]
        return finished(
            sample,
            solve(moments, support),
            support,
            intercept=intercept,
            accepted=jnp.sum(tests.accepted),
        )

    return estimator


def _check(level: float | Array, correction: str, intercept: bool, empty: bool) -> None:
    check_level(level)
    checks.choice("correction", correction, CORRECTIONS)
    checks.flags(intercept=intercept, empty=empty)


def _sample(name: str, data: MomentData, world: SupervisedWorld) -> Sample:
    sample = sample_of(data, world, name=name, environments=2)
    check_exhaustive(name, sample.dim)
    return sample


def _tested(sample: Sample, pvalues: Array, level: float | Array, empty: bool) -> SetTests:
    sets = jnp.asarray(membership(sample.dim)).T
    accepted = pvalues > level
    return SetTests(sets, pvalues, accepted if empty else accepted & jnp.any(sets, 1))


def _intervals(
    sample: Sample, moments: Array, tests: SetTests, level: float | Array, intercept: bool
) -> tuple[Array, Array]:
    """The ends [p] of the union of the intervals of accepted sets, as causalicp has them."""
    swept = sweeps(moments[None])[0]
    dim, total = sample.dim, jnp.sum(sample.sizes)
    each = jnp.arange(dim)
    sets = tests.sets.T
    free = total - jnp.sum(sets, 0) - int(intercept)
    slopes = jnp.where(sets, swept[:-1, -1], 0)
    inverse = jnp.where(sets, -swept[each, each], 0)  # of the moments of the inputs in the set
    variances = jnp.where(sample.finite, swept[-1, -1] / free, 0)
    half = -ndtri(jnp.asarray(level, slopes.dtype) / 4) * jnp.sqrt(variances[None] * inverse)
    accepted = tests.accepted[None, :]
    low = jnp.min(jnp.where(accepted, slopes - half, jnp.inf), 1)
    high = jnp.max(jnp.where(accepted, slopes + half, -jnp.inf), 1)
    return low, high

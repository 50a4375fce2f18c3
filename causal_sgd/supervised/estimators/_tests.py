"""Tests of invariance on every subset of the inputs, from moments."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from causal_sgd import linalg
from causal_sgd.supervised.estimators._data import Sample
from causal_sgd.supervised.estimators._subsets import (
    masked_solutions,
    membership,
    pooled_residuals,
    sweeps,
)
from causal_sgd.supervised.estimators._tails import f_two_sided, f_upper, t_two_sided
from causal_sgd.types import Array

__all__ = ["CORRECTIONS", "coefficient_tests", "residual_tests"]

CORRECTIONS = ("bonferroni", "environments", "environments_minus_one")


def residual_tests(sample: Sample, correction: str, intercept: bool) -> Array:
    """P-values [2^p] of equal means and variances of the residuals in all environments.

    Residuals of pooled least squares in each environment against those in all others, by Welch's t
    test and the two-sided F test (Peters, Buehlmann and Meinshausen 2016, method II).

    Args:
        sample: moments of at least two environments.
        correction: for the number of tests, see `icp`.
        intercept: whether the regression has one.
    """
    moments = sample.around_pooled_means() if intercept else sample.second
    second, means = pooled_residuals(moments, sample.shares)
    size = sample.sizes.shape[0]
    others = (1 - jnp.eye(size, dtype=second.dtype)) * sample.sizes[None, :]
    there = jnp.sum(others, 1, keepdims=True)
    other_means = linalg.product(others, means) / there
    other_second = linalg.product(others, second) / there
    here = sample.sizes[:, None]
    variances = (second - means**2) * here / (here - 1)
    other_variances = (other_second - other_means**2) * there / (there - 1)
    if size == 2:  # both environments make the same tests
        here, there, means, variances = here[:1], there[:1], means[:1], variances[:1]
        other_means, other_variances = other_means[:1], other_variances[:1]

    errors, other_errors = variances / here, other_variances / there
    statistic = (means - other_means) / jnp.sqrt(errors + other_errors)
    spread = errors**2 / (here - 1) + other_errors**2 / (there - 1)
    welch = t_two_sided(statistic, (errors + other_errors) ** 2 / spread)
    ratio = jnp.log(variances) - jnp.log(other_variances)
    first, last = (jnp.broadcast_to(n - 1, ratio.shape) for n in (here, there))
    least = jnp.min(jnp.minimum(welch, f_two_sided(ratio, first, last)), 0)
    corrected = {
        "bonferroni": 2 * (size - 1) * least,
        "environments": 2 * size * least,
        "environments_minus_one": 2 * size * least - 1,
    }
    return jnp.minimum(corrected[correction], 1)


def coefficient_tests(sample: Sample, intercept: bool) -> Array:
    """P-values [2^p] of equal coefficients of least squares in all environments.

    The Wald statistic sum_e (b_e - b)'V_e^-1 (b_e - b), V_e the covariance of b_e with a variance
    of the residuals of its own and b the mean of the b_e with weights V_e^-1, over its degrees is
    compared with the F distribution. Sets with as many inputs as an environment has examples have
    the p-value 0, and the empty set 1.

    Args:
        sample: moments of at least two environments.
        intercept: whether every environment has one of its own.
    """
    dim, size = sample.dim, sample.second.shape[0]
    masks = jnp.asarray(membership(dim))
    moments = sample.centered(sample.second, intercept)
    swept = sweeps(moments)
    slopes = jnp.where(masks[None], swept[:, :-1, -1], 0)
    counts = jnp.sum(masks, 0).astype(moments.dtype)
    free = sample.sizes[:, None] - counts[None, :] - int(intercept)
    possible = jnp.min(free, 0) > 0
    free = jnp.maximum(free, 1)
    # 1 / V_e = precision_e times the moments of the inputs.
    precisions = free / swept[:, -1, -1]
    inputs = jnp.einsum("eij,en->ijn", moments[:, :-1, :-1], precisions, precision="highest")
    products = jnp.einsum("eij,ejn->ein", moments[:, :-1, :-1], slopes, precision="highest")
    right = jnp.sum(precisions[:, None] * products, 0)
    corner = jnp.zeros((1, 1, len(counts)), moments.dtype)
    top = jnp.concatenate([inputs, right[:, None]], 1)
    matrices = jnp.concatenate([top, jnp.concatenate([right[None], corner], 1)], 0)
    mean = masked_solutions(matrices, masks)
    apart = slopes - mean[None]
    turned = jnp.einsum("eij,ejn->ein", moments[:, :-1, :-1], apart, precision="highest")
    wald = jnp.sum(precisions * jnp.sum(apart * turned, 1), 0)
    degrees = jnp.maximum((size - 1) * counts, 1)
    tiny = float(np.finfo(moments.dtype).tiny)
    pvalues = f_upper(jnp.log(jnp.maximum(wald / degrees, tiny)), degrees, jnp.sum(free, 0))
    pvalues = jnp.where(possible, pvalues, 0)
    return jnp.where(counts == 0, 1, pvalues)

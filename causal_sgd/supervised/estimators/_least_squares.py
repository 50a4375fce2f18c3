"""Least squares on pooled moments, on the causal inputs, and with the environments as anchors."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.estimators._data import finished, sample_of
from causal_sgd.supervised.estimators._subsets import masked_solutions
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Estimator, Fit

__all__ = ["anchor", "causal_dantzig", "oracle", "pooled", "solve", "within", "without"]


def pooled(*, intercept: bool = False) -> Estimator:
    """Least squares on all examples of all environments.

    Args:
        intercept: whether one is fitted.

    Returns:
        An estimator; its support is every input.

    Raises:
        ValueError: if intercept is not True or False.
    """
    checks.flags(intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        everything = jnp.ones(sample.dim, bool)
        weights = solve(sample.centered(sample.pooled, intercept), everything)
        return finished(sample, weights, everything, intercept=intercept)

    return estimator


def oracle(*, intercept: bool = False) -> Estimator:
    """Pooled least squares on the causal inputs, which only an oracle knows.

    In a scrambled world it fits the causal ones of the original inputs, and its support is every
    input of the data that they are mixed into.

    Args:
        intercept: whether one is fitted.

    Returns:
        An estimator.

    Raises:
        ValueError: if intercept is not True or False.
    """
    checks.flags(intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        moments, rotation = sample.centered(sample.pooled, intercept), world.unscramble
        inputs = linalg.product(linalg.product(rotation, moments[:-1, :-1]), rotation.T)
        cross = linalg.product(rotation, moments[:-1, -1:])
        top = jnp.concatenate([inputs, cross], 1)
        original = jnp.concatenate([top, jnp.concatenate([cross.T, moments[-1:, -1:]], 1)], 0)
        weights = linalg.product(rotation.T, solve(original, world.causal)[:, None])[:, 0]
        mixed = jnp.where(world.causal[:, None], jnp.abs(rotation), 0)
        support = jnp.max(mixed, 0) > 1e-6  # rounding of a rotation is less
        return finished(sample, weights, support, intercept=intercept)

    return estimator


def within(chosen: Sequence[bool] | np.ndarray | Array, *, intercept: bool = False) -> Estimator:
    """Pooled least squares on chosen inputs, such as those of open gates.

    Args:
        chosen: which inputs of the data, [p] truth values; may be traced.
        intercept: whether one is fitted.

    Returns:
        An estimator; its support is the chosen inputs.

    Raises:
        ValueError: if `chosen` is no array of truth values, or (when it runs) not of the inputs.
    """
    checks.flags(intercept=intercept)
    members = chosen if isinstance(chosen, jax.Array) else np.asarray(chosen)
    if members.ndim != 1 or members.dtype != np.bool_:
        raise ValueError(
            f"chosen must be truth values [p], one for each input, got {members.dtype} of shape "
            f"{[*members.shape]}"
        )

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample, support = sample_of(data, world), jnp.asarray(members)
        if support.shape != (sample.dim,):
            raise ValueError(
                f"chosen must have the number of inputs, {sample.dim}, got {support.shape[0]}"
            )
        weights = solve(sample.centered(sample.pooled, intercept), support)
        return finished(sample, weights, support, intercept=intercept)

    return estimator


def without(inputs: Sequence[int], *, intercept: bool = False) -> Estimator:
    """Pooled least squares on all inputs but some.

    Args:
        inputs: those left out, from 0, in the coordinates of the data.
        intercept: whether one is fitted.

    Returns:
        An estimator; its support is the other inputs.

    Raises:
        ValueError: if inputs are not different whole numbers from 0, or (when it runs) not below
            the number of inputs.
    """
    checks.flags(intercept=intercept)
    left_out = _indices(inputs)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        if left_out and max(left_out) >= sample.dim:
            raise ValueError(
                f"inputs must be below the number of inputs, {sample.dim}, got {list(left_out)}"
            )
        support = jnp.asarray(~np.isin(np.arange(sample.dim), left_out))
        weights = solve(sample.centered(sample.pooled, intercept), support)
        return finished(sample, weights, support, intercept=intercept)

    return estimator


def anchor(strength: float | Array, *, intercept: bool = False) -> Estimator:
    """Anchor regression with the environments as anchors.

    (X'(I + lambda P)X)^-1 X'(I + lambda P)y, where P projects on the centered indicators of the
    environments, which needs their means only (Rothenhaeusler, Meinshausen, Buehlmann and Peters
    2021, whose gamma is 1 + lambda). Without shifts of means it is pooled least squares.

    Args:
        strength: lambda, at least 0; may be traced.
        intercept: whether one is fitted.

    Returns:
        An estimator; its support is every input.

    Raises:
        ValueError: if strength is not a number, at least 0.
    """
    checks.number("strength", strength, minimum=0)
    checks.flags(intercept=intercept)

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world)
        shifts = sample.second[:, :-1, -1] - sample.pooled[None, :-1, -1]
        between = linalg.product(shifts.T * sample.shares[None, :], shifts)
        everything = jnp.ones(sample.dim, bool)
        moments = sample.centered(sample.pooled, intercept) + strength * between
        return finished(sample, solve(moments, everything), everything, intercept=intercept)

    return estimator


def causal_dantzig() -> Estimator:
    """The causal Dantzig: weights that make E x (y - x'w) the same in all environments.

    With two environments (S1_xx - S2_xx)^-1 (S1_xy - S2_xy) (Rothenhaeusler, Buehlmann and
    Meinshausen 2019). With more, least squares in the deviations of these moments from their mean
    over the environments, which is the same for two. Where the inputs have equal moments in all
    environments nothing identifies the weights, and the result is noise, or NaN.

    Returns:
        An estimator; its support is every input.
    """

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        sample = sample_of(data, world, name="causal_dantzig", environments=2)
        if sample.second.shape[0] == 2:
            rows = sample.second[0] - sample.second[1]
            weights = linalg.solve(rows[:-2, :-2], rows[:-2, -2:-1])[:, 0]
        else:
            rows = sample.second - jnp.mean(sample.second, 0, keepdims=True)
            orthogonal, triangle = linalg.qr(rows[:, :-2, :-2].reshape(-1, sample.dim))
            right = linalg.product(orthogonal.T, rows[:, :-2, -2].reshape(-1, 1))
            weights = linalg.solve(triangle, right)[:, 0]
        return finished(sample, weights, jnp.ones(sample.dim, bool), intercept=False)

    return estimator


def solve(moments: Array, support: Array) -> Array:
    """Least squares on a subset of the inputs, [p]; zero outside of it.

    Args:
        moments: of (x, y), [p + 1, p + 1].
        support: [p] bool.
    """
    return masked_solutions(moments[..., None], support[:, None])[:, 0]


def _indices(inputs: Sequence[int]) -> tuple[int, ...]:
    allowed = "inputs must be different whole numbers, at least 0"
    try:
        numbers = tuple(operator.index(each) for each in inputs)
    except TypeError:
        raise ValueError(f"{allowed}, got {inputs!r}") from None
    if any(each < 0 for each in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"{allowed}, got {list(numbers)}")
    return numbers

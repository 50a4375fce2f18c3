"""Objectives that compare the environments' distributions: of features, and of gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.training.objectives._values import check_weights, from_value
from causal_sgd.types import Array, Measured, Objective, Params, State

__all__ = ["coral", "fishr"]


def coral(*, weight: float | Array, risk_weight: float | Array = 1.0) -> Objective:
    """CORAL (Sun and Saenko 2016): the features' means and covariances, over pairs of environments.

    The penalty is the mean over all pairs, weighted by the product of their shares, of the mean
    squared difference of the k means plus that of the k x k covariances, as DomainBed has it. Its
    covariances of n examples have n - 1 below, those of the measurements here n.

    Args:
        weight: of the penalty, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for measurements that know the moments of features. The penalty does not depend
        on the parameters of a model whose features are its inputs.

    Raises:
        ValueError: if a weight is negative, or (at the first step) if the measurement does not know
            the features.
    """
    check_weights(weight, risk_weight)

    def value(examples: Measured, params: Params) -> Array:
        shares = examples.shares
        pairs = 1 - jnp.sum(shares**2)  # twice the sum of the products of two shares

        def difference(moments: Array) -> Array:
            center = jnp.tensordot(shares, moments, 1, precision="highest")
            squares = jnp.mean((moments - center[None]) ** 2, range(1, moments.ndim))
            several = pairs > 1e-6
            return jnp.where(
                several, 2 * jnp.sum(shares * squares) / jnp.where(several, pairs, 1), 0
            )

        means, covariances = examples.features()(params)
        risk = jnp.sum(shares * examples.risks()(params))
        return risk_weight * risk + weight * (difference(means) + difference(covariances))

    return from_value(value)


def fishr(
    *,
    weight: float | Array,
    risk_weight: float | Array = 1.0,
    decay: float | Array = 0.95,
) -> Objective:
    """Fishr (Rame et al. 2022): the variances of single examples' gradients should be equal.

    The penalty is the mean over the environments of |v_e - mean v|^2. As in the source each v_e is
    this step's variances plus decay times the sum of all before, so that the weight of this step's
    does not depend on the decay.

    Args:
        weight: of the penalty, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.
        decay: of the sum, in [0, 1]; 0 takes the variances of the step alone; may be traced.

    Returns:
        An objective for measurements that know these variances. Its state is the sum, params with a
        leading axis [E].

    Raises:
        ValueError: if an argument is out of range, or (at the first step) if the measurement does
            not know the variances.
    """
    check_weights(weight, risk_weight)
    checks.number("decay", decay, minimum=0, maximum=1)

    def init(probabilities: Array, params: Params) -> State:
        size = len(probabilities)
        return jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape), leaf.dtype), params)

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        environments, shares = examples.batch.environments, examples.shares
        before = jax.tree.map(lambda leaf: leaf[environments], state)

        def value(params: Params) -> tuple[Array, Params]:
            sums = jax.tree.map(
                lambda new, old: new + decay * old, examples.variances()(params), before
            )

            def spread(leaf: Array) -> Array:
                center = jnp.tensordot(shares, leaf, 1, precision="highest")
                squares = jnp.sum((leaf - center[None]) ** 2, range(1, leaf.ndim))
                return jnp.sum(shares * squares)

            penalty = sum(map(spread, jax.tree.leaves(sums)), jnp.zeros((), shares.dtype))
            risk = jnp.sum(shares * examples.risks()(params))
            return risk_weight * risk + weight * penalty, sums

        (height, sums), slope = jax.value_and_grad(value, has_aux=True)(params)
        new = jax.tree.map(
            lambda all_, some: all_.at[environments].set(some.astype(all_.dtype)), state, sums
        )
        return slope, height, new

    return Objective(init, gradient)

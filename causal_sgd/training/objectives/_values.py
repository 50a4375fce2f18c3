"""Objectives that are scalar functions of the losses."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.types import Array, Measured, Objective, Params, State

__all__ = ["check_weights", "from_value", "in_scale", "mean", "sd", "vrex"]


def mean() -> Objective:
    """The mean loss over the batch; `penalised` with it is `sgd`, to the bit.

    Returns:
        An objective for any measurement, also for those that have only a gradient.
    """

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        return *examples.measure(params), state

    return Objective(lambda probabilities, params: (), gradient)


def from_value(value: Callable[[Measured, Params], Array]) -> Objective:
    """An objective without a state from a differentiable function.

    Args:
        value: (examples, params) -> []; see `types.Measured` for what the examples offer.

    Returns:
        An objective.

    Raises:
        ValueError: if `value` is no such function, or (at the first step) its result is no number.
    """
    checks.function("value", value, 2, "a function of (examples, params)")

    def number(examples: Measured, params: Params) -> Array:
        height = value(examples, params)
        if np.shape(height):
            raise ValueError(
                f"value must return one number, [], got an array {list(np.shape(height))}"
            )
        return height

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        height, slope = jax.value_and_grad(lambda params: number(examples, params))(params)
        return slope, height, state

    return Objective(lambda probabilities, params: (), gradient)


def vrex(*, weight: float | Array, risk_weight: float | Array = 1.0) -> Objective:
    """V-REx (Krueger et al. 2021): the mean loss and the variance of the environments' losses.

    Args:
        weight: of the variance, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch.

    Raises:
        ValueError: if a weight is negative.
    """
    check_weights(weight, risk_weight)

    def value(examples: Measured, params: Params) -> Array:
        losses, shares = examples.risks()(params), examples.shares
        average = jnp.sum(shares * losses)
        return risk_weight * average + weight * jnp.sum(shares * (losses - average) ** 2)

    return from_value(value)


def sd(*, weight: float | Array, risk_weight: float | Array = 1.0) -> Objective:
    """Spectral decoupling (Pezeshki et al. 2021): the mean loss and the mean squared prediction.

    The second derivative of a squared loss with respect to the scale of the prediction f is
    E f^2 / 2, so that the penalty is taken from the losses. Under other losses the measurement must
    know the mean square.

    Args:
        weight: of E f^2, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch.

    Raises:
        ValueError: if a weight is negative, or (at the first step) if the measurement does not know
            the mean square.
    """
    check_weights(weight, risk_weight)

    def value(examples: Measured, params: Params) -> Array:
        risks, shares = examples.risks(), examples.shares
        if examples.squared:
            losses, _, curvatures = in_scale(risks, params)
            squares = 2 * curvatures
        else:
            losses, squares = risks(params), examples.mean_squares()(params)
        return risk_weight * jnp.sum(shares * losses) + weight * jnp.sum(shares * squares)

    return from_value(value)


def in_scale(risks: Callable[..., Array], params: Params) -> tuple[Array, Array, Array]:
    """The losses [B] and their first two derivatives in the scale of the prediction, at 1."""

    def first(scale: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda scale: risks(params, scale), (scale,), (jnp.ones_like(scale),))

    one = jnp.ones((), jax.eval_shape(risks, params).dtype)
    (losses, slopes), (_, curvatures) = jax.jvp(first, (one,), (one,))
    return losses, slopes, curvatures


def check_weights(weight: float | Array, risk_weight: float | Array) -> None:
    """Refuse weights that are not numbers, at least 0."""
    checks.number("weight", weight, minimum=0)
    checks.number("risk_weight", risk_weight, minimum=0)

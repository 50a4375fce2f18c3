"""Invariant risk minimisation: the head over the features should be optimal in every environment.

The penalties are squared derivatives of the losses with respect to the head: a vector (`irm`), the
scale of the prediction (`irmv1`), or a random scale (`birm`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.training.objectives._values import check_weights, from_value, in_scale
from causal_sgd.types import Array, Measured, Objective, Params

__all__ = ["birm", "irm", "irmv1"]

UNROLLED = 8  # environments up to which `irm` writes its penalty out
MOST_DRAWS = 10_000  # each is a part of the program's memory


def irm(*, weight: float | Array, risk_weight: float | Array = 1.0) -> Objective:
    """IRM with a head of k numbers (Arjovsky et al. 2019): the gradient with respect to the head.

    The penalty is the mean over the environments of |gradient|^2 / k, at a head of ones: for linear
    features Phi the gradient is Phi' grad R_e(Phi 1).

    Args:
        weight: of the penalty, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for models with a head (`supervised.models.featurised`) and measurements with
        risks on a batch.

    Raises:
        ValueError: if a weight is negative, or (at the first step) if the model has no head.
    """
    check_weights(weight, risk_weight)

    def value(examples: Measured, params: Params) -> Array:
        model, risks, shares = examples.model, examples.risks(), examples.shares
        if getattr(model, "rescaled", None) is None:
            raise ValueError(
                "model must have a head for the penalty of irm, as models.featurised, linear and "
                "linear_network have, got one without; use irmv1, which needs none"
            )
        ones = jnp.ones(model.head_size, shares.dtype)
        losses, pullback = jax.vjp(lambda head: risks(model.rescaled(params, head)), ones)
        rows = jnp.eye(len(losses), dtype=losses.dtype)
        if len(losses) <= UNROLLED:
            # One environment after the other: XLA is slow at small batched products in reverse.
            squares = [jnp.mean(pullback(row)[0] ** 2) for row in rows]
            penalty = sum((share * each for share, each in zip(shares, squares, strict=True)), 0.0)
        else:
            penalty = jnp.sum(shares * jnp.mean(jax.vmap(pullback)(rows)[0] ** 2, 1))
        return risk_weight * jnp.sum(shares * losses) + weight * penalty

    return from_value(value)


def irmv1(
    *,
    weight: float | Array,
    risk_weight: float | Array = 1.0,
    intercept: bool = False,
    halves: bool = False,
) -> Objective:
    """IRMv1 (Arjovsky et al. 2019): the squared derivative of the losses in the scale, at 1.

    On a fresh batch the square overestimates: its mean is the squared mean derivative plus the
    variance of the derivative. The product of the derivatives on two halves does not.

    Args:
        weight: of the mean squared derivative, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.
        intercept: whether the squared derivative with respect to a number that is added to the
            prediction, at 0, belongs to the penalty.
        halves: whether the penalty is the product of the derivatives on two independent halves of
            the batch, each of which must hold an example of an environment to count.

    Returns:
        An objective for measurements with risks on a batch; with `halves` for those that draw fresh
        examples.

    Raises:
        ValueError: if an argument is out of range, or (at the first step) if the measurement has no
            such losses.
    """
    check_weights(weight, risk_weight)
    checks.flags(intercept=intercept, halves=halves)

    def slopes_of(risks: Callable[..., Array], params: Params) -> tuple[Array, list[Array]]:
        one = jnp.ones((), jax.eval_shape(risks, params).dtype)
        if not intercept:
            losses, slope = jax.jvp(lambda scale: risks(params, scale), (one,), (one,))
            return losses, [slope]
        both = functools.partial(risks, params)
        losses, along = jax.linearize(both, one, 0 * one)  # the losses are evaluated once
        return losses, [along(one, 0 * one), along(0 * one, one)]

    def value(examples: Measured, params: Params) -> Array:
        shares = examples.shares
        risks = examples.shifted_risks() if intercept else examples.risks()
        if halves:
            (one, first), (other, second) = (slopes_of(r, params) for r in examples.halves())
            counts = examples.batch.counts
            part = (counts // 2).astype(one.dtype) / jnp.maximum(counts, 1)
            losses = part * one + (1 - part) * other
        else:
            losses, first = slopes_of(risks, params)
            second = first
        squares = sum((one * other for one, other in zip(first, second, strict=True)), 0.0)
        return jnp.sum(shares * (risk_weight * losses + weight * squares))

    return from_value(value)


def birm(
    *,
    weight: float | Array,
    deviation: float | Array,
    risk_weight: float | Array = 1.0,
    draws: int | None = None,
) -> Objective:
    """Bayesian IRM (Lin et al. 2022): the mean squared derivative at scales v ~ N(1, deviation^2).

    With a squared loss the derivative is linear in v, and the mean over v is the squared derivative
    at 1 plus deviation^2 times the squared second derivative, which is E f^2 / 2.

    Args:
        weight: of the penalty, at least 0; may be traced.
        deviation: standard deviation of the scale, at least 0; may be traced. The source takes
            1200 / examples.
        risk_weight: of the mean loss, at least 0; may be traced.
        draws: None for this closed form, which is refused under other losses than the squared one;
            otherwise the number of scales that every step draws for each environment, which is
            right for any loss.

    Returns:
        An objective for measurements with risks on a batch.

    Raises:
        ValueError: if an argument is out of range, or (at the first step) if the closed form is
            asked for under another loss.
    """
    check_weights(weight, risk_weight)
    checks.number("deviation", deviation, minimum=0)
    if draws is not None:
        checks.integer("draws", draws, maximum=MOST_DRAWS)

    def closed(examples: Measured, params: Params) -> Array:
        risks = examples.risks()
        if not examples.squared:
            raise ValueError(
                "draws must be the number of scales that birm draws in a step under another loss "
                "than the squared one, whose mean over scales is in closed form, got None"
            )
        losses, slopes, curvatures = in_scale(risks, params)
        squares = slopes**2 + deviation**2 * curvatures**2
        return jnp.sum(examples.shares * (risk_weight * losses + weight * squares))

    def sampled(examples: Measured, params: Params) -> Array:
        assert draws is not None
        risks, shares = examples.risks(), examples.shares
        scales = 1 + deviation * examples.normals(draws * len(shares)).astype(shares.dtype)

        def slopes_at(scale: Array) -> Array:
            one = jnp.ones_like(scale)
            return jax.jvp(lambda scale: risks(params, scale), (scale,), (one,))[1]

        slopes = jax.vmap(slopes_at)(scales).reshape(draws, len(shares), len(shares))
        squares = jnp.mean(jnp.diagonal(slopes, axis1=1, axis2=2) ** 2, 0)  # of each environment
        return jnp.sum(shares * (risk_weight * risks(params) + weight * squares))

    return from_value(closed if draws is None else sampled)

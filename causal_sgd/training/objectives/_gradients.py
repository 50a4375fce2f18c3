"""Objectives of the environments' gradients: their spread, and the agreement of their signs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.training.objectives._values import check_weights
from causal_sgd.types import Array, Measured, Objective, Params, State

__all__ = ["andmask", "iga", "sandmask"]

Mask = Callable[[Array, Array], Array]
"""(Gradients [B, ...], whether an environment has examples [B, ...]) -> mask [...]."""


def iga(*, weight: float | Array, risk_weight: float | Array = 1.0) -> Objective:
    """IGA (Koyama and Yamaguchi 2020): the mean loss and the variance of the gradients.

    The penalty is the mean over the environments of |g_e - mean g|^2, over all parameters.

    Args:
        weight: of the penalty, at least 0; may be traced.
        risk_weight: of the mean loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch.

    Raises:
        ValueError: if a weight is negative.
    """
    check_weights(weight, risk_weight)

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        shares = examples.shares

        def average(leaf: Array) -> Array:
            return jnp.tensordot(shares, leaf, 1, precision="highest")

        def deviations(losses: Array, gradients: Params) -> Params:
            del losses
            # The mean gradient drops out of the derivative: the deviations sum to zero.
            return jax.tree.map(
                lambda leaf: _along(shares, leaf) * (leaf - average(leaf)[None]), gradients
            )

        losses, gradients, products = examples.hessian_products(params, deviations)
        squares = jax.tree.map(
            lambda leaf: jnp.sum(average((leaf - average(leaf)[None]) ** 2)), gradients
        )
        value = risk_weight * jnp.sum(shares * losses) + weight * sum(jax.tree.leaves(squares))
        slope = jax.tree.map(
            lambda leaf, product: risk_weight * average(leaf) + 2 * weight * product,
            gradients,
            products,
        )
        return slope, value, state

    return Objective(lambda probabilities, params: (), gradient)


def andmask(
    *,
    threshold: float | Array,
    variant: str = "domainbed",
    risk_weight: float | Array = 1.0,
) -> Objective:
    """ANDMask (Parascandolo et al. 2021): the mean gradient where enough environments agree.

    With "domainbed" the mask is |mean sign| >= threshold, and the masked gradient of every array
    of parameters is divided by 1e-10 + the share that the mask leaves. With "unit_tests" every
    environment's gradient of an array is divided by its norm, that of a single number (an
    intercept) is not, and the mask is |mean sign| > threshold, without rescaling.

    Args:
        threshold: tau in [0, 1]; may be traced.
        variant: "domainbed" (Gulrajani and Lopez-Paz 2021) or "unit_tests" (Aubin et al. 2021).
        risk_weight: factor of the gradient and the loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch; its value is the mean loss.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("threshold", threshold, minimum=0, maximum=1)
    checks.choice("variant", variant, ("domainbed", "unit_tests"))
    checks.number("risk_weight", risk_weight, minimum=0)
    strict = variant == "unit_tests"

    def mask(gradients: Array, present: Array) -> Array:
        # Whole numbers on the left, so that unanimity is exact.
        votes = jnp.abs(jnp.sum(present * jnp.sign(gradients), 0))
        needed = threshold * jnp.sum(present, 0)
        return (votes > needed if strict else votes >= needed).astype(gradients.dtype)

    return _masked(mask, risk_weight, normalised=strict, rescaled=not strict)


def sandmask(
    *, threshold: float | Array, sharpness: float | Array, risk_weight: float | Array = 1.0
) -> Objective:
    """SANDMask (Shahtalebi et al. 2021): a smooth mask of agreement, sharper where gradients agree.

    The mask is max(0, tanh(sharpness (|mean sign| - threshold) / variance of the gradients)), the
    variance over environments with B - 1 below; the masked gradient of every array is divided by
    1e-10 + the mean of its mask. Where the gradients are equal the mask is 1 above the threshold.

    Args:
        threshold: tau in [0, 1]; may be traced.
        sharpness: k, above 0, in units of a squared gradient; may be traced.
        risk_weight: factor of the gradient and the loss, at least 0; may be traced.

    Returns:
        An objective for measurements with risks on a batch; its value is the mean loss.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("threshold", threshold, minimum=0, maximum=1)
    checks.number("sharpness", sharpness, above=0)
    checks.number("risk_weight", risk_weight, minimum=0)

    def mask(gradients: Array, present: Array) -> Array:
        number = jnp.sum(present, 0)
        margin = jnp.abs(jnp.sum(present * jnp.sign(gradients), 0)) / number - threshold
        center = jnp.sum(present * gradients, 0) / number
        squares = jnp.sum(present * (gradients - center[None]) ** 2, 0)
        variance = squares / jnp.maximum(number - 1, 1)
        differ = variance > 0
        smooth = jnp.tanh(sharpness * margin / jnp.where(differ, variance, 1))
        return jnp.maximum(jnp.where(differ, smooth, jnp.sign(margin)), 0)

    return _masked(mask, risk_weight, normalised=False, rescaled=True)


def _masked(
    mask: Mask, risk_weight: float | Array, *, normalised: bool, rescaled: bool
) -> Objective:
    """The mean gradient times a mask, array by array."""

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        del step
        shares, present = examples.shares, examples.batch.counts > 0
        losses, pullback = jax.vjp(examples.risks(), params)
        (gradients,) = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))

        def combined(leaf: Array) -> Array:
            if normalised and leaf.ndim > 1:
                norms = jnp.sqrt(jnp.sum(leaf**2, range(1, leaf.ndim), keepdims=True))
                leaf = leaf / jnp.where(norms > 0, norms, 1)
            filtered = mask(leaf, _along(present, leaf).astype(leaf.dtype))
            result = filtered * jnp.tensordot(shares, leaf, 1, precision="highest")
            if rescaled:
                result = result / (1e-10 + jnp.mean(filtered))
            return risk_weight * result

        value = risk_weight * jnp.sum(shares * losses)
        return jax.tree.map(combined, gradients), value, state

    return Objective(lambda probabilities, params: (), gradient)


def _along(vector: Array, leaf: Array) -> Array:
    """A vector [B] as [B, 1, ..., 1], for a leaf [B, ...]."""
    return vector.reshape((-1,) + (1,) * (leaf.ndim - 1))

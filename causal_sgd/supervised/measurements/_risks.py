"""Losses and their gradients from moments of the environments."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd.supervised._moments import quadratic, residual
from causal_sgd.supervised.models import VectorModel
from causal_sgd.types import Array, Batch, Params, RiskFunction

__all__ = ["moment_risks", "risk_gradient"]


def moment_risks(model: VectorModel, second: Array) -> Callable[..., Array]:
    """(params, scale, shift) -> the losses v'Sv / 4 of moments [B, q, q], [B].

    Args:
        model: of a linear prediction.
        second: moments.

    Raises:
        ValueError: for a model whose prediction is not linear in its inputs.
    """
    if model.predict is not None:
        raise ValueError(
            "model must predict linearly from its inputs with a measurement of moments, got one "
            "with a predict of its own; use measurements.examples"
        )

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        intercept = 0.0 if model.intercept is None else model.intercept(params)
        return quadratic(second, residual(model.estimate(params), intercept, scale, shift)) / 4

    return risks


def risk_gradient(risks: RiskFunction, batch: Batch, params: Params) -> tuple[Params, Array]:
    """The gradient and the value [] of the mean loss of a batch."""
    counts = batch.counts

    def loss(params: Params) -> Array:
        losses = risks(params)
        shares = counts.astype(losses.dtype) / jnp.sum(counts).astype(losses.dtype)
        return jnp.sum(shares * losses)

    value, gradient = jax.value_and_grad(loss)(params)
    return gradient, value

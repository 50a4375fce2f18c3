"""Weights and their errors."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.supervised.metrics._common import check, check_weights, judged, unknown
from causal_sgd.types import Array, Snapshot, check_snapshot

__all__ = [
    "batch_loss",
    "causal_error",
    "estimation_error",
    "failed",
    "gates",
    "l1_norm",
    "noncausal_error",
    "spurious_weight",
    "support_error",
    "weights",
]

FAILURE = 0.2  # |w - w*|^2 beyond which a run has failed


def batch_loss(snapshot: Snapshot) -> Array:
    """Loss of the last batch, before the update; NaN at step 0; []."""
    check_snapshot(snapshot)
    return snapshot.batch_loss


def weights(snapshot: Snapshot) -> Array:
    """The weights w of the inputs of the data; [p]."""
    check_weights(snapshot, "weights")
    return snapshot.estimate


def estimation_error(snapshot: Snapshot) -> Array:
    """|w - w*|^2; []."""
    check_weights(snapshot, "estimation_error")
    return jnp.sum((snapshot.estimate - snapshot.world.target) ** 2)


def failed(snapshot: Snapshot) -> Array:
    """1 if |w - w*|^2 > 0.2 or the estimate is not finite, else 0; []."""
    check_weights(snapshot, "failed")
    failure = ~(estimation_error(snapshot) <= FAILURE)
    return judged(snapshot, failure)


def causal_error(snapshot: Snapshot) -> Array:
    """The mean of (w - w*)^2 over the causal inputs; 0 where there are none; []."""
    check_weights(snapshot, "causal_error")
    return _mean_square(snapshot, snapshot.world.causal)


def noncausal_error(snapshot: Snapshot) -> Array:
    """The mean of (w - w*)^2 over the inputs that are not causal; 0 where there are none; []."""
    check_weights(snapshot, "noncausal_error")
    return _mean_square(snapshot, ~snapshot.world.causal)


def l1_norm(snapshot: Snapshot) -> Array:
    """The sum of the sizes of the weights of the inputs of the data; []."""
    check_weights(snapshot, "l1_norm")
    return jnp.sum(jnp.abs(snapshot.estimate))


def support_error(snapshot: Snapshot) -> Array:
    """How many inputs are kept or left out wrongly; [].

    An input counts as kept if the size of its weight is above half of the smallest one in the
    target that is not 0. NaN where the inputs are scrambled, or the target is unknown or 0.
    """
    check_weights(snapshot, "support_error")
    true = jnp.abs(snapshot.world.target)
    threshold = jnp.min(jnp.where(true > 0, true, jnp.inf)) / 2
    wrong = (jnp.abs(snapshot.estimate) > threshold) != (true > 0)
    number = jnp.sum(wrong).astype(snapshot.estimate.dtype)
    known = (threshold < jnp.inf) & jnp.all(jnp.isfinite(snapshot.estimate))
    return judged(snapshot, jnp.where(known, number, jnp.nan), axes=True)


def gates(snapshot: Snapshot) -> Array:
    """The gates of the inputs of the data, without noise; of models with gates only; [p].

    Of `models.input_gates` these are the factors g^2 of the inputs.
    """
    check(snapshot, "gates")
    if not hasattr(snapshot.model, "gates"):
        raise ValueError(
            "model must have gates for the metric gates, as models.gated and models.input_gates "
            f"have, got {type(snapshot.model).__name__}"
        )
    return snapshot.model.gates(snapshot.params)


def spurious_weight(snapshot: Snapshot) -> Array:
    """The norm of the weights of the inputs that are not causal; []."""
    check_weights(snapshot, "spurious_weight")
    world = snapshot.world
    original = linalg.product(world.unscramble, snapshot.estimate[:, None])[:, 0]
    norm = jnp.sqrt(jnp.sum(jnp.where(world.causal, 0, original) ** 2))
    return norm + unknown(snapshot)


def _mean_square(snapshot: Snapshot, chosen: Array) -> Array:
    """The mean of the squared errors over chosen original inputs [p]; []."""
    errors = snapshot.once(_errors)
    total = jnp.sum(jnp.where(chosen, errors, 0) ** 2)
    return total / jnp.maximum(jnp.sum(chosen), 1).astype(errors.dtype) + unknown(snapshot)


def _errors(snapshot: Snapshot) -> Array:
    """The errors of the weights in the original coordinates, [p]."""
    difference = snapshot.estimate - snapshot.world.target
    return linalg.product(snapshot.world.unscramble, difference[:, None])[:, 0]

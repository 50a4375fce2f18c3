"""What is recorded of a run: functions of a snapshot that return a number or a small array.

Every member of `__all__` is a metric. Errors are in the original coordinates of the inputs, and
risks are mean squared residuals, without the factor 1/4 of the losses that are trained.
"""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.types import Array, Snapshot, check_snapshot

__all__ = ["batch_loss", "estimation_error", "spurious_weight"]


def batch_loss(snapshot: Snapshot) -> Array:
    """Loss of the last batch, before the update; NaN at step 0; []."""
    check_snapshot(snapshot)
    return snapshot.batch_loss


def estimation_error(snapshot: Snapshot) -> Array:
    """|w - w*|^2; []."""
    check_snapshot(snapshot)
    return jnp.sum((snapshot.estimate - snapshot.world.target) ** 2)


def spurious_weight(snapshot: Snapshot) -> Array:
    """The norm of the weights of inputs that are not causal; []."""
    check_snapshot(snapshot)
    weights = snapshot.once(_original)
    return jnp.sqrt(jnp.sum(jnp.where(snapshot.world.causal, 0, weights) ** 2))


def _original(snapshot: Snapshot) -> Array:
    """The estimate in the original coordinates, [p]."""
    return linalg.product(snapshot.world.unscramble, snapshot.estimate[:, None])[:, 0]

"""What metrics share: the checks of a snapshot, and its residual."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd.supervised._moments import residual
from causal_sgd.types import Array, Snapshot, check_world

__all__ = [
    "average",
    "check",
    "check_weights",
    "judged",
    "unknown",
    "vector",
]


def check(snapshot: Snapshot, metric: str) -> None:
    """Refuse what is no snapshot, or one of another system's run."""
    check_world(snapshot, metric, member="unscramble", system="supervised")


def check_weights(snapshot: Snapshot, metric: str) -> None:
    """Refuse what `check` refuses, and a network, which has no weights of its inputs."""
    check(snapshot, metric)
    if not getattr(snapshot.model, "has_weights", True):
        raise ValueError(
            f"metric {metric} must see a model with weights of its inputs, got a network; use "
            "metrics of predictions, such as training_error"
        )


def unknown(snapshot: Snapshot) -> Array:
    """Zero, or NaN where the world does not know its target, nor which inputs are causal; []."""
    return 0 * jnp.sum(snapshot.world.target)


def judged(snapshot: Snapshot, value: Array, *, axes: bool = False) -> Array:
    """A truth value or number as a float; NaN where it means nothing.

    With `axes` it compares the inputs of the data with the original ones, which a scramble mixes.
    """
    result = value.astype(snapshot.estimate.dtype) + unknown(snapshot)
    if not axes:
        return result
    unscramble = snapshot.world.unscramble
    moved = jnp.abs(unscramble - jnp.eye(unscramble.shape[0], dtype=unscramble.dtype))
    return jnp.where(jnp.max(moved) < 1e-6, result, jnp.nan)


def vector(snapshot: Snapshot) -> Array:
    """The vector v [q] of the residual z'v."""
    model = snapshot.model
    if model.predict is not None:
        raise ValueError(
            "model must predict linearly from its inputs for risks from moments, got one with a "
            "predict of its own; use metrics of examples, such as training_error"
        )
    intercept = getattr(model, "intercept", None)
    return residual(snapshot.estimate, 0.0 if intercept is None else intercept(snapshot.params))


def average(snapshot: Snapshot, values: Array) -> Array:
    return jnp.sum(snapshot.world.probabilities.astype(values.dtype) * values)

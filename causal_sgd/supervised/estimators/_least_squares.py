"""Least squares on pooled moments and on subsets of the inputs."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd.supervised._moments import MomentData, Moments, parts
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Estimator, Fit

__all__ = ["moments_of", "plain_fit", "pooled", "pooled_moments", "solve"]


def pooled() -> Estimator:
    """Least squares on all examples of all environments.

    Returns:
        An estimator; its support is every input.
    """

    def estimator(data: MomentData, world: SupervisedWorld) -> Fit:
        second = pooled_moments(moments_of(data), world.probabilities)
        everything = jnp.ones(second.shape[0] - 2, bool)
        return plain_fit(solve(second, everything), everything)

    return estimator


def moments_of(data: object) -> Moments:
    """The training moments of a measurement's data.

    Raises:
        ValueError: if they hold none.
    """
    if not isinstance(data, MomentData) or data.training is None:
        raise ValueError(
            "measurement must keep moments of its data for an estimator, as measurements.moments "
            "does, got "
            + ("fresh examples" if isinstance(data, MomentData) else type(data).__name__)
        )
    return data.training


def pooled_moments(moments: Moments, probabilities: Array) -> Array:
    """The moments [q, q] of all environments together, by counts or, if infinite, probabilities."""
    finite = jnp.isfinite(moments.counts).all()
    weights = jnp.where(finite, moments.counts, probabilities)
    return jnp.tensordot(weights / jnp.sum(weights), moments.second, 1, precision="highest")


def solve(second: Array, support: Array) -> Array:
    """Least squares on a subset of the inputs, [p]; zero outside of it.

    Args:
        second: moments [q, q].
        support: [p] bool.
    """
    inputs, cross, *_ = parts(second)
    both = support[:, None] & support[None, :]
    system = jnp.where(both, inputs, jnp.eye(len(support), dtype=inputs.dtype))
    weights = jnp.linalg.solve(system, jnp.where(support, cross, 0))
    return jnp.where(support, weights, 0)


def plain_fit(estimate: Array, support: Array) -> Fit:
    """A fit without intervals and tests."""
    nothing = jnp.full_like(estimate, jnp.nan)
    return Fit(estimate, support, nothing, nothing, jnp.asarray(-1, jnp.int32))

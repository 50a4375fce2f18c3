"""Estimators as methods: one step fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.training.algorithms import _parts
from causal_sgd.training.algorithms._by_hand import by_hand
from causal_sgd.types import (
    Algorithm,
    Array,
    Estimator,
    Fit,
    Key,
    Measurement,
    PyTree,
    Snapshot,
    World,
    WorldFactory,
)

__all__ = ["FittedState", "fitted"]


class FittedState(NamedTuple):
    """State of `fitted`."""

    step: Array  # [] int32, 0 before the fit
    world: World
    data: PyTree  # the measurement's
    params: Fit
    loss: Array  # [] NaN before the fit; 0 after it, or NaN where it is not finite


class FittedModel(NamedTuple):
    """The model whose parameters are a fit."""

    init: Callable[[Key], Fit]
    estimate: Callable[[Fit], Array]
    intercept: Callable[[Fit], Array | float]
    predict: None = None
    reduce: None = None

    def bound(self, params: Fit) -> Array:
        """Return the estimate [p]."""
        return params.estimate


def fitted(*, world: WorldFactory, measurement: Measurement, estimator: Estimator) -> Algorithm:
    """A method that is no iteration: step 1 fits, and later steps change nothing.

    The world and the data are those of the same key under `sgd` and `penalised`, so that methods
    are compared on the same draws.

    Args:
        world: how the world is drawn.
        measurement: whose data the estimator sees, such as `supervised.measurements.moments()`.
        estimator: (data, world) -> fit, such as `supervised.estimators.icp()`.

    Returns:
        An algorithm for `run`. Before the fit the estimate is zero.

    Raises:
        ValueError: if an argument is not of its kind, or (when it runs) the estimator needs other
            data or returns no fit.
        AssertionError: (from chex, with both shapes) if the estimate has the wrong shape.
    """
    checks.world_factory("world", world)
    checks.made_of(
        "measurement",
        measurement,
        ("init", "gradient"),
        "a Measurement, such as measurements.moments()",
    )
    checks.function("estimator", estimator, 2, "an estimator, such as estimators.icp()")

    def init(key: Key) -> FittedState:
        drawn = world(_parts.stream(key, "world"))
        _parts.check_world(drawn)
        data = measurement.init(_parts.stream(key, "data"), drawn)
        shapes = jax.eval_shape(estimator, data, drawn)
        if not {"estimate", "intercept"} <= set(getattr(shapes, "_fields", ())):
            checks.instance("the estimator's result", shapes, Fit, "a types.Fit")
        chex.assert_shape(
            shapes.estimate,
            drawn.estimate_shape,
            custom_message="the estimate does not have the shape of the world's target",
        )
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        with jax.debug_nans(False):  # this one is meant
            loss = jnp.full((), jnp.nan, params.estimate.dtype)
        return FittedState(jnp.zeros((), jnp.int32), drawn, data, params, loss)

    def step(key: Key, state: FittedState) -> FittedState:
        del key
        params = estimator(state.data, state.world)
        # A fit that is not finite has diverged.
        loss = 0 * jnp.sum(params.estimate)
        return state._replace(step=state.step + 1, params=params, loss=loss)

    def snapshot(key: Key, state: FittedState) -> Snapshot:
        del key
        return Snapshot(
            step=state.step,
            params=state.params,
            world=state.world,
            batch_loss=state.loss,
            model=FittedModel(
                lambda _: state.params, lambda fit: fit.estimate, lambda fit: fit.intercept
            ),
            measurement=measurement,
            data=state.data,
        )

    return Algorithm(init, by_hand(step), snapshot, lambda state: state.loss)

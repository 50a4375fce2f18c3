"""The examples of one step, through the measurement that draws them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import random
from causal_sgd.types import (
    AnyModel,
    Array,
    Batch,
    Choice,
    Key,
    Measurement,
    Params,
    PyTree,
    RiskFunction,
)

__all__ = ["Examples", "inner_product"]

OBJECTIVE = 2**31 - 1  # folded into a step's key for an objective's draws; no environment's index


class Examples(NamedTuple):
    """The examples of one step, through the measurement that draws them."""

    measurement: Measurement
    key: Key  # of the measurement in this step
    step: Array  # [] int32, updates done so far
    data: PyTree  # the measurement's
    model: AnyModel
    world: PyTree
    batch: Batch
    position: Array | None = None  # [] of the only environment within the batch; None for all

    @property
    def shares(self) -> Array:
        """The share of each environment in the examples, [B]; sums to one."""
        counts = self.batch.counts
        return counts / jnp.sum(counts)

    def measure(self, params: Params) -> tuple[Params, Array]:
        """Return the gradient and the loss []."""
        measurement, key, step, data, model, world, batch, position = self
        if position is None:
            return measurement.gradient(key, step, data, model, params, world, batch)
        assert measurement.client is not None
        return measurement.client(key, step, data, model, params, world, batch, position)

    def gradient(self, params: Params) -> Params:
        """Return the gradient at parameters other than those of the step.

        Raises:
            ValueError: see `loss`.
        """
        self.require_independence()
        return self.measure(params)[0]

    def loss(self, params: Params) -> Array:
        """Return the loss [] whose derivative is the gradient, by forward or reverse mode.

        Raises:
            ValueError: if what the measurement draws depends on the parameters, so that its values
                at two points are not those of the same examples.
        """
        self.require_independence()
        if self.measurement.risks is None or self.measurement.risks.batch is None:
            return _with_derivative(self.measure)(params)
        _, key, step, data, model, world, batch, position = self
        losses = self.measurement.risks.batch(key, step, data, model, world, batch)(params)
        if position is not None:
            return losses[position]
        counts = batch.counts.astype(losses.dtype)
        return jnp.sum(counts * losses) / jnp.sum(counts)

    def risks(self) -> RiskFunction:
        """Return (params, scale) -> the losses [B] of the environments.

        Raises:
            ValueError: if the measurement has no risks on a batch.
        """
        measurement, key, step, data, model, world, batch, _ = self
        near = None if measurement.risks is None else measurement.risks.directions
        if near is None:
            return self._on_batch("batch", "risks of environments on a batch")

        def risks(params: Params, *others: float | Array, **named: float | Array) -> Array:
            point = jax.lax.stop_gradient(_constant(params))
            return near(key, step, data, model, point, world, batch)(params, *others, **named)

        return risks

    def hessian_products(self, params: Params, choose: Choice) -> tuple[Array, Params, Params]:
        """Return the losses [B], their gradients, and sum_b H_b d_b with their Hessians H_b.

        Args:
            params: of the model.
            choose: (losses, gradients) -> d; both are params with a leading axis [B].

        Raises:
            ValueError: if the measurement has no such risks.
        """
        measurement, key, step, data, model, world, batch, _ = self
        if measurement.risks is not None and measurement.risks.products is not None:
            return measurement.risks.products(key, step, data, model, params, world, batch, choose)
        risks = self.risks()
        losses, pullback = jax.vjp(risks, params)
        (gradients,) = jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))
        directions = choose(losses, gradients)

        def along(params: Params) -> Array:
            # Reverse over forward mode: several times faster than through all gradients.
            def slopes(direction: Params) -> Array:
                return jax.jvp(risks, (params,), (direction,))[1]

            return jnp.trace(jax.vmap(slopes)(directions))

        return losses, gradients, jax.grad(along)(params)

    def normals(self, count: int) -> Array:
        """Return standard normal numbers [count] of this step that nothing else uses."""
        return random.normals(random.fold_in(self.key, OBJECTIVE), count, float)

    @property
    def squared(self) -> bool:
        """Whether the losses are mean squared residuals over 4."""
        return self.measurement.risks is None or self.measurement.risks.squared

    def mean_squares(self) -> Callable[[Params], Array]:
        """Return params -> the mean squared prediction in every environment, [B].

        Raises:
            ValueError: if the measurement does not know it.
        """
        return self._on_batch("mean_squares", "mean squared predictions")

    def halves(self) -> tuple[RiskFunction, RiskFunction]:
        """Return the losses [B] on two independent halves of the batch.

        Raises:
            ValueError: if the measurement does not draw fresh examples.
        """
        offered = self.measurement.risks
        if offered is None or not offered.fresh:
            raise ValueError(
                "measurement must draw fresh examples in every step for a penalty of two halves, "
                f"got {self.measurement.name}"
            )
        counts = self.batch.counts
        first, second = (
            self._replace(
                key=random.fold_in(self.key, half), batch=self.batch._replace(counts=count)
            )
            for half, count in enumerate((counts // 2, counts - counts // 2))
        )
        return first.risks(), second.risks()

    def shifted_risks(self) -> RiskFunction:
        """Return `risks`, whose functions also take `shift`, a number added to the prediction.

        Raises:
            ValueError: if the measurement's losses take none.
        """
        if self.measurement.risks is None or not self.measurement.risks.shifted:
            raise ValueError(
                "measurement must have losses with an intercept for a penalty of the intercept, "
                f"got {self.measurement.name}"
            )
        return self.risks()

    def features(self) -> Callable[[Params], tuple[Array, Array]]:
        """Return params -> means [B, k] and covariances [B, k, k] of the model's features.

        Raises:
            ValueError: if the measurement does not know them.
        """
        return self._on_batch("features", "means and covariances of features")

    def variances(self) -> Callable[[Params], Params]:
        """Return params -> the variances of single examples' gradients, with an axis [B].

        Raises:
            ValueError: if the measurement does not know them.
        """
        return self._on_batch("variances", "variances of single examples' gradients")

    def _on_batch(self, field: str, words: str) -> Any:
        measurement, key, step, data, model, world, batch, _ = self
        offered = None if measurement.risks is None else getattr(measurement.risks, field)
        if offered is None:
            raise ValueError(
                f"measurement must offer {words} for such an objective, got {measurement.name}"
            )
        return offered(key, step, data, model, world, batch)

    def require_independence(self) -> None:
        """Raise ValueError if the measurement draws other examples at other parameters."""
        if not self.measurement.repeats_examples:
            raise ValueError(
                "measurement must draw the same examples at all parameters for an optimizer that "
                "asks for losses or gradients elsewhere (line searches, L-BFGS, Sophia, sam), as "
                "population, fixed_design and streamed do, got "
                f"{self.measurement.name}, whose draws depend on the parameters"
            )


@jax.custom_jvp
def _constant(params: Params) -> Params:
    """The parameters as numbers on which a draw depends: no part of a first derivative."""
    return params


@_constant.defjvp
def _constant_derivative(primals: tuple[Params], tangents: tuple[Params]) -> tuple[Params, Params]:
    del tangents
    params = _differentiated(primals[0])
    return params, jax.tree.map(jnp.zeros_like, params)


@jax.custom_jvp
def _differentiated(params: Params) -> Params:
    """The parameters within a first derivative, which has no further one."""
    return params


@_differentiated.defjvp
def _refuse_derivative(primals: tuple[Params], tangents: tuple[Params]) -> tuple[Params, Params]:
    del primals, tangents
    raise ValueError(
        "measurement must have losses with second derivatives for such an objective, got one that "
        "draws the losses and their gradients at the parameters only (batch_directions, "
        "batch_projections); use batch_moments or examples, or `hessian_products` in an objective "
        "of your own"
    )


def _with_derivative(
    measure: Callable[[Params], tuple[Params, Array]],
) -> Callable[[Params], Array]:
    """The loss of params -> (gradient, loss) as a function whose derivative is the gradient."""

    # Loops over slabs of examples have no reverse derivative, and none is needed.
    @jax.custom_jvp
    def loss(params: Params) -> Array:
        return measure(params)[1]

    @loss.defjvp
    def derivative(primals: tuple[Params], tangents: tuple[Params]) -> tuple[Array, Array]:
        gradient, value = measure(*primals)
        return value, inner_product(gradient, *tangents).astype(value.dtype)

    return loss


def inner_product(one: Params, other: Params) -> Array:
    """<one, other> over all leaves; []."""
    products = jax.tree.map(lambda left, right: jnp.sum(left * right), one, other)
    return functools.reduce(jnp.add, jax.tree.leaves(products))

"""The population of a Gaussian mixture under any loss, by quadrature in the projection."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from causal_sgd import checks, linalg
from causal_sgd.supervised import losses
from causal_sgd.supervised._expectation import expected_loss
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.measurements._moments import population
from causal_sgd.supervised.measurements._risks import (
    moment_features,
    require_linear,
    risk_gradient,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import MixtureWorld, SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["quadrature"]

TINY = 1e-20  # added under the root of a variance: the deviation is differentiated at w = 0, too


def quadrature(loss: losses.Loss = losses.logistic, *, nodes: int = 16) -> Measurement:
    """The population of a mixture world under a loss of a linear prediction.

    Within a group the prediction is Gaussian, f ~ N(mu'w + b, |root'w|^2), so that the loss of an
    environment is a sum of one-dimensional integrals over its groups. Each is done by Gauss-Hermite
    quadrature, and the gradient is exactly that of the quadrature. Counts of a batch weigh the
    environments.

    Args:
        loss: of a prediction and a label.
        nodes: K, nodes of the quadrature. Sixteen leave errors below 1e-4 in the risks of logistic
            loss at deviations of the prediction below 6; a sum over K nodes is exact for
            polynomials of degrees below 2 K.

    Returns:
        A measurement for models that predict linearly, in mixture worlds
        (`worlds.gaussian_environments`, ...).

    Raises:
        ValueError: if an argument is out of range, or (when it runs) the world is no mixture.
    """
    checks.instance("loss", loss, losses.Loss, "a loss, such as losses.logistic")
    if loss.multiclass:
        raise ValueError(
            "loss must be one of a single prediction for quadrature, got softmax; use "
            "measurements.examples"
        )
    checks.integer("nodes", nodes, maximum=200)
    expectation, squared = expected_loss(loss, nodes), loss == losses.squared

    def of_groups(
        model: VectorModel, world: MixtureWorld, chosen: Array | None
    ) -> Callable[..., Array]:
        require_linear(model)
        weights, means = world.weights, world.means
        if chosen is not None:
            weights, means = weights[chosen], means[chosen]

        def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
            vector = model.estimate(params)
            intercept = 0.0 if model.intercept is None else model.intercept(params)
            center = linalg.product(means, vector[:, None])[..., 0] + intercept  # [B, G]
            deviation = jnp.sqrt(jnp.sum(world.noise_along(vector) ** 2) + TINY)
            values = expectation(scale * center + shift, scale * deviation, world.labels[None])
            return jnp.sum(weights * values, -1)

        return risks

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        del key
        if not isinstance(world, MixtureWorld):
            raise ValueError(
                "world must be a mixture for quadrature, as worlds.gaussian_environments makes, "
                f"got {type(world).__name__}"
            )
        return MomentData(population(world))

    def gradient(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: MixtureWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        return risk_gradient(on_batch(key, step, data, model, world, batch), batch, params)

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: MixtureWorld,
        batch: Batch,
    ) -> RiskFunction:
        del key, step, data
        environments = batch.environments
        if len(environments) < len(world.weights):
            return of_groups(model, world, environments)
        all_losses = of_groups(model, world, None)

        def chosen(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
            return all_losses(params, scale, shift)[environments]

        return chosen

    def features(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: MixtureWorld,
        batch: Batch,
    ) -> Callable[[Params], tuple[Array, Array]]:
        del key, step, data
        return moment_features(model, world.second_moments[batch.environments])

    def whole(data: MomentData, model: VectorModel, world: MixtureWorld) -> RiskFunction:
        del data
        return of_groups(model, world, None)

    def single(
        data: MomentData, model: VectorModel, world: MixtureWorld, environment: Array
    ) -> RiskFunction:
        del data
        return of_groups(model, world, environment[None])

    return Measurement(
        init,
        gradient,
        risks=Risks(whole, on_batch, single, features, shifted=True, squared=squared),
        differentiates_loss=True,
    )

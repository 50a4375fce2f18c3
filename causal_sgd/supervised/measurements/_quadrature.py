"""The population of a Gaussian mixture under any loss, by quadrature in the projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg
from causal_sgd.supervised import losses
from causal_sgd.supervised._expectation import Sum, derivatives, expected_loss
from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.measurements._mixtures import mixture_squares, mixture_variances
from causal_sgd.supervised.measurements._moments import population
from causal_sgd.supervised.measurements._risks import (
    gradient_of,
    moment_features,
    require_linear,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import MixtureWorld, SupervisedWorld
from causal_sgd.types import Array, Batch, Choice, Key, Measurement, Params, RiskFunction, Risks

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
        nodes: K, nodes of the quadrature; a sum over K nodes is exact for polynomials of degrees
            below 2 K. The largest error of an expected logistic loss, over all means, grows with
            the deviation of the prediction within a group: at deviations 2, 3, 4 and 6 it is 7e-6,
            3e-4, 2e-3 and 1e-2 with 16 nodes, 4e-7, 4e-5, 4e-4 and 4e-3 with 24, and below 1e-7,
            1e-7, 2e-6 and 1e-4 with 64.

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
        weights, means = _groups(world, chosen)

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

    def products(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: MixtureWorld,
        batch: Batch,
        choose: Choice,
    ) -> tuple[Array, Params, Params]:
        del key, step, data
        require_linear(model)
        every = len(batch.environments) >= len(world.weights)
        groups = _groups(world, None if every else batch.environments)
        return _products(world, groups, derivatives(loss, nodes, 2), model, params, choose)

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

    def mean_squares(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: MixtureWorld,
        batch: Batch,
    ) -> Callable[[Params], Array]:
        del key, step, data
        return mixture_squares(model, world, batch)

    def variances(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: MixtureWorld,
        batch: Batch,
    ) -> Callable[[Params], Params]:
        del key, step, data
        return mixture_variances(loss, nodes, model, world, batch)

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
        gradient_of(on_batch),
        risks=Risks(
            whole,
            on_batch,
            single,
            features,
            variances,
            mean_squares,
            shifted=True,
            squared=squared,
            products=products,
        ),
        differentiates_loss=True,
    )


class _Groups(NamedTuple):
    """The groups of the environments of a batch."""

    weights: Array  # [B, G]
    means: Array  # [B, G, p], or [1, G, p] if the environments share them


def _groups(world: MixtureWorld, chosen: Array | None) -> _Groups:
    """The groups of the chosen environments [B], or of all; shared ones are not repeated."""
    if chosen is None:
        return _Groups(world.weights, world.means)
    shared = len(world.means) == 1
    return _Groups(world.weights[chosen], world.means if shared else world.means[chosen])


def _products(
    world: MixtureWorld,
    groups: _Groups,
    sums: Sum,
    model: VectorModel,
    params: Params,
    choose: Choice,
) -> tuple[Array, Params, Params]:
    """Losses [B], their gradients and sum_b H_b d_b, from one pass over the nodes.

    With f ~ N(m, s^2), m = mu'w + b and s = |root'w|, the derivatives of s are root root'w / s and
    (root root' - (root root'w)(root root'w)' / s^2) / s.

    Args:
        world: of the groups.
        groups: whose losses they are.
        sums: the expected loss and its first two derivatives in (m, s).
        model: of a linear prediction.
        params: of the model.
        choose: (losses, gradients) -> d.
    """

    def readout(params: Params) -> tuple[Array, Array]:
        vector = model.estimate(params)
        none = jnp.zeros((), vector.dtype)
        return vector, none if model.intercept is None else model.intercept(params)

    (vector, intercept), pullback = jax.vjp(readout, params)
    weights, means = groups
    noise = world.noise_along(vector)
    applied = world.from_noise(noise)
    deviation = jnp.sqrt(jnp.sum(noise**2) + TINY)
    slope = applied / deviation  # of s
    center = linalg.product(means, vector[:, None])[..., 0] + intercept
    wide = (jnp.broadcast_to(part, center.shape) for part in (deviation, world.labels[None]))
    terms = [weights * part for part in sums(center, *wide)]
    value, by_mean, by_deviation, twice, mixed, across = terms

    def assembled(of_mean: Array, of_deviation: Array) -> tuple[Array, Array]:
        """Derivatives in (w, b), [B, p] and [B], of what has these in (m, s), [B, G]."""
        along = linalg.product(of_mean[:, None], means)[:, 0]
        return along + jnp.sum(of_deviation, 1)[:, None] * slope[None], jnp.sum(of_mean, 1)

    of_readout = assembled(by_mean, by_deviation)
    (gradients,) = jax.vmap(pullback)(of_readout)
    losses = jnp.sum(value, 1)
    directions = choose(losses, gradients)

    def pushed(params: Params) -> tuple[Array, Array]:
        return jax.vmap(lambda d: jax.jvp(readout, (params,), (d,))[1])(directions)

    turned, lifted = pushed(params)
    change = linalg.product(means, turned[..., None])[..., 0] + lifted[:, None]  # of m, [B, G]
    stretched = linalg.product(turned, slope[:, None])  # of s, [B, 1]
    products = assembled(twice * change + mixed * stretched, mixed * change + across * stretched)
    bent = world.from_noise(world.to_noise(turned)) - stretched * slope[None]
    bent = bent * jnp.sum(by_deviation, 1)[:, None] / deviation
    (result,) = pullback((jnp.sum(products[0] + bent, 0), jnp.sum(products[1])))

    def curved(params: Params) -> Array:
        vectors, numbers = pushed(params)
        return jnp.sum(of_readout[0] * vectors) + jnp.sum(of_readout[1] * numbers)

    curvature = jax.grad(curved)(params)  # of the model; zero where it is linear
    return losses, gradients, jax.tree.map(jnp.add, result, curvature)

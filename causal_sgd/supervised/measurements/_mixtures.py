"""Statistics of the examples of a mixture world: squares of predictions, variances of gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.supervised._expectation import hermite
from causal_sgd.supervised.losses import Loss
from causal_sgd.supervised.measurements._risks import require_linear
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import MixtureWorld
from causal_sgd.types import Array, Batch, Params

__all__ = ["mixture_squares", "mixture_variances"]

TINY = 1e-20  # as in the quadrature


def mixture_squares(
    model: VectorModel, world: MixtureWorld, batch: Batch
) -> Callable[[Params], Array]:
    """Params -> the mean squared prediction in every environment of a batch, [B]."""
    require_linear(model)
    weights, means = world.weights[batch.environments], world.means_of(batch.environments)

    def squares(params: Params) -> Array:
        vector, intercept = _readout(model, params)
        center = linalg.product(means, vector[:, None])[..., 0] + intercept
        variance = jnp.sum(world.noise_along(vector) ** 2)
        return jnp.sum(weights * (center**2 + variance), -1)

    return squares


def mixture_variances(
    loss: Loss, nodes: int, model: VectorModel, world: MixtureWorld, batch: Batch
) -> Callable[[Params], Params]:
    """Params -> variances [B, ...] of the gradients of single examples' losses, by quadrature.

    A gradient is l'(f) z with z = x'd + e, the derivative of f in a parameter. In a group, where
    f = m + s t and the covariance of z with t is c, z is Gaussian given t, with mean
    E z + c t and variance Var z - c^2, so that

        E l'^2 z^2 = E l'^2 ((E z + c t)^2 + Var z - c^2),    E l' z = E l' (E z + c t).

    Args:
        loss: of a prediction and a label.
        nodes: K of the quadrature in t.
        model: of a linear prediction.
        world: a mixture.
        batch: environments [B].
    """
    require_linear(model)
    weights, means = world.weights[batch.environments], world.means_of(batch.environments)
    points, shares = hermite(nodes)

    def variances(params: Params) -> Params:
        vector, intercept = _readout(model, params)
        noise = world.noise_along(vector)
        deviation = jnp.sqrt(jnp.sum(noise**2) + TINY)
        t, share = (jnp.asarray(each, means.dtype)[:, None, None] for each in (points, shares))
        center = linalg.product(means, vector[:, None])[..., 0] + intercept  # [B, G]
        f = center[None] + deviation * t
        slope = loss.derivatives(f, jnp.broadcast_to(world.labels[None, None], f.shape))[0]
        first = [jnp.sum(share * slope * t**k, 0) for k in range(2)]
        second = [jnp.sum(share * slope**2 * t**k, 0) for k in range(3)]

        def of_leaf(slopes: Array) -> Array:
            flat = slopes.reshape(slopes.shape[0], -1)  # [p + 1, numbers of the leaf]
            own = world.to_noise(flat[:-1].T)  # [numbers, p]
            along = (linalg.product(own, noise[:, None])[:, 0] / deviation)[None, None]
            mean = linalg.product(means, flat[:-1]) + flat[-1][None, None]  # [B, G, numbers]
            beside = jnp.sum(own**2, 1)[None, None] - along**2
            a, b, c = (part[..., None] for part in second)
            square = a * (mean**2 + beside) + 2 * b * mean * along + c * along**2
            linear = first[0][..., None] * mean + first[1][..., None] * along
            each = weights[..., None]
            total = jnp.sum(each * square, 1) - jnp.sum(each * linear, 1) ** 2
            return total.reshape(-1, *slopes.shape[1:])

        affine = jax.jacrev(lambda p: jnp.append(*_readout(model, p)))(params)
        return jax.tree.map(of_leaf, affine)

    return variances


def _readout(model: VectorModel, params: Params) -> tuple[Array, Array]:
    """The weights [p] and the intercept [] of a prediction."""
    vector = model.estimate(params)
    none = jnp.zeros((), vector.dtype)
    return vector, none if model.intercept is None else jnp.asarray(model.intercept(params))

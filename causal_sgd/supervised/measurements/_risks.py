"""Losses, their gradients and other statistics of the environments, from moments."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Moments, parts, quadratic, residual
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import DataWorld, DesignWorld, SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Params, PyTree, RiskFunction

__all__ = [
    "check_examples",
    "check_held_out",
    "gaussian_variances",
    "gradient_of",
    "held_out",
    "moment_features",
    "moment_risks",
    "residual_of",
    "risk_gradient",
]


def moment_risks(model: VectorModel, second: Array) -> Callable[..., Array]:
    """(params, scale, shift) -> the losses v'Sv / 4 of moments [B, q, q], [B].

    Args:
        model: of a linear prediction.
        second: moments.

    Raises:
        ValueError: for a model whose prediction is not linear in its inputs.
    """
    require_linear(model)

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        return quadratic(second, residual_of(model, params, scale, shift)) / 4

    return risks


def require_linear(model: VectorModel) -> None:
    """Raise ValueError for a model whose prediction is not linear in its inputs."""
    if model.predict is not None:
        raise ValueError(
            "model must predict linearly from its inputs with a measurement of moments, got one "
            "with a predict of its own; use measurements.examples"
        )


def residual_of(
    model: VectorModel,
    params: Params,
    scale: float | Array = 1.0,
    shift: float | Array = 0.0,
) -> Array:
    """The vector v [q] with residual z'v of a model's scaled and shifted prediction."""
    intercept = 0.0 if model.intercept is None else model.intercept(params)
    return residual(model.estimate(params), intercept, scale, shift)


def risk_gradient(risks: RiskFunction, batch: Batch, params: Params) -> tuple[Params, Array]:
    """The gradient and the value [] of the mean loss of a batch."""
    counts = batch.counts

    def loss(params: Params) -> Array:
        losses = risks(params)
        shares = counts.astype(losses.dtype) / jnp.sum(counts).astype(losses.dtype)
        return jnp.sum(shares * losses)

    value, gradient = jax.value_and_grad(loss)(params)
    return gradient, value


def gradient_of(
    on_batch: Callable[[Key, Array, PyTree, VectorModel, PyTree, Batch], RiskFunction],
) -> Callable[..., tuple[Params, Array]]:
    """The `gradient` of a measurement, from the `batch` of its risks."""

    def gradient(
        key: Key,
        step: Array,
        data: PyTree,
        model: VectorModel,
        params: Params,
        world: SupervisedWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        return risk_gradient(on_batch(key, step, data, model, world, batch), batch, params)

    gradient.__qualname__ = on_batch.__qualname__  # by which messages name the measurement
    return gradient


def moment_features(model: VectorModel, second: Array) -> Callable[[Params], tuple[Array, Array]]:
    """Params -> means [B, k] and covariances [B, k, k] of the features x'Phi.

    Args:
        model: its features; the inputs themselves where it names none.
        second: moments [B, q, q].
    """
    require_linear(model)
    blocks = parts(second)
    means = blocks.input_means
    covariances = blocks.inputs - means[..., :, None] * means[..., None, :]

    def features(params: Params) -> tuple[Array, Array]:
        if model.features is None:
            return means, covariances
        matrix = model.features(params)
        inner = linalg.product(covariances, matrix[None])
        return linalg.product(means, matrix), linalg.product(matrix.T[None], inner)

    return features


def gaussian_variances(model: VectorModel, second: Array) -> Callable[[Params], Params]:
    """Params -> variances of the gradients of single Gaussian examples' losses r^2 / 4.

    A gradient is r s / 2 with s = z'a, a derivative of the residual. For Gaussian r and s with
    means m and covariances c (Isserlis 1918),

        Var(r s) = c_rr c_ss + c_rs^2 + m_r^2 c_ss + m_s^2 c_rr + 2 m_r m_s c_rs.

    Args:
        model: of a linear prediction.
        second: moments [B, q, q] of the Gaussian distributions.
    """
    require_linear(model)
    means = second[..., -1]
    covariances = second - means[..., :, None] * means[..., None, :]

    def variances(params: Params) -> Params:
        vector = residual_of(model, params)
        applied = linalg.product(covariances, vector[:, None])[..., 0]
        mean = linalg.product(means, vector[:, None])  # [B, 1]
        variance = jnp.sum(applied * vector[None], 1, keepdims=True)

        def of_leaf(slopes: Array) -> Array:
            flat = slopes.reshape(slopes.shape[0], -1)  # [q, numbers of the leaf]
            slope_means, cross = linalg.product(means, flat), linalg.product(applied, flat)
            own = jnp.sum(linalg.product(covariances, flat[None]) * flat[None], 1)
            total = (variance + mean**2) * own + cross**2
            total = total + slope_means**2 * variance + 2 * mean * slope_means * cross
            return total.reshape(-1, *slopes.shape[1:]) / 4

        return jax.tree.map(of_leaf, jax.jacrev(lambda p: residual_of(model, p))(params))

    return variances


def check_examples(**numbers: int | Array | None) -> None:
    """Raise ValueError if a number of examples, where there is one, is no whole number >= 1."""
    for name, number in numbers.items():
        if number is not None:
            checks.whole(name, number, maximum=10**12)


def held_out(key: Key, world: SupervisedWorld, number: int | Array | None) -> Moments | None:
    """The moments of examples of every environment that nothing trains on; None for none.

    Args:
        key: of the measurement's data.
        world: whose examples they are; of a user's data the rows that it holds out.
        number: of examples.
    """
    check_held_out(world, number)
    if number is None:
        return world.validation if isinstance(world, DataWorld) else None
    return sampled(random.fold_in(key, 1), world, number)


def check_held_out(world: SupervisedWorld, number: int | Array | None) -> None:
    """Refuse validation examples that would be rows of a user's data with replacement.

    Raises:
        ValueError: if a number is given in such a world, whose rows training sees.
    """
    if number is not None and isinstance(world, DesignWorld):
        raise ValueError(
            "num_validation must be None in a world of one design, whose rows training uses, got "
            f"{number}; metrics of its test know the law of its inputs"
        )
    if number is not None and isinstance(world, DataWorld):
        raise ValueError(
            "num_validation must be None in a world of a user's own rows, which training uses, "
            f"got {number}; hold out rows by from_arrays(validation_share=...)"
        )


def sampled(key: Key, world: SupervisedWorld, number: int | Array) -> Moments:
    """The moments of a sample of every environment."""
    size = world.probabilities.shape[0]
    counts = jnp.full(size, number, float)
    return Moments(world.draw_moments(key, jnp.arange(size), counts), counts)

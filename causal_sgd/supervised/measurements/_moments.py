"""Moments of the population or of one data set, kept for the whole run."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised._moments import MomentData, Moments
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    gaussian_variances,
    gradient_of,
    held_out,
    moment_features,
    moment_risks,
    sampled,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["moments", "population"]


def moments(
    num_examples: int | Array | None = None,
    *,
    known_inputs: bool = False,
    num_validation: int | Array | None = None,
) -> Measurement:
    """The moments of every environment: of the population, or of a data set drawn once.

    The cost of a step does not depend on the number of examples; every step uses all of them,
    whatever the counts of its batch, which weigh the environments. The variances of single
    examples' gradients are those of Gaussian examples with these moments: exact for the population
    of a Gaussian world, and refused for other worlds.

    Args:
        num_examples: n of every environment; may be traced, so that from 10^2 to 10^9 it is an axis
            of one program. None for the population, or for all examples of a world that is data.
        known_inputs: whether the moments of the inputs are those of the population, as where inputs
            without labels abound; only those of the label are then estimated. The loss is
            w'Sw/4 - w'b^/2 up to a constant, with b^ the mean of x y, and may be negative.
        num_validation: examples of every environment that nothing trains on, for the metric
            `validation_risk`; None for none.

    Returns:
        A measurement for models that predict linearly.

    Raises:
        ValueError: if a number of examples is not a whole number, at least 1.
    """
    check_examples(num_examples=num_examples, num_validation=num_validation)
    checks.flags(known_inputs=known_inputs)

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        if num_examples is None:
            training = population(world)
        else:
            training = sampled(random.fold_in(key, 0), world, num_examples)
            if known_inputs:
                training = _with_inputs(training, world.second_moments)
        return MomentData(training, held_out(key, world, num_validation))

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> RiskFunction:
        del key, step, world
        second, environments = _training(data).second, batch.environments
        if len(environments) < len(second):
            return moment_risks(model, second[environments])
        # All losses, in the batch's order: choosing among them is cheaper than among the moments.
        losses = moment_risks(model, second)

        def chosen(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
            return losses(params, scale, shift)[environments]

        return chosen

    def features(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], tuple[Array, Array]]:
        del key, step, world
        return moment_features(model, _training(data).second[batch.environments])

    def variances(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], Params]:
        del key, step
        if not world.gaussian:
            raise ValueError(
                "world must be Gaussian for variances of single examples' gradients from moments, "
                f"got {type(world).__name__}; use measurements.examples"
            )
        return gaussian_variances(model, _training(data).second[batch.environments])

    def whole(data: MomentData, model: VectorModel, world: SupervisedWorld) -> RiskFunction:
        del world
        return moment_risks(model, _training(data).second)

    def single(
        data: MomentData, model: VectorModel, world: SupervisedWorld, environment: Array
    ) -> RiskFunction:
        del world
        return moment_risks(model, _training(data).second[environment][None])

    return Measurement(
        init,
        gradient_of(on_batch),
        risks=Risks(whole, on_batch, single, features, variances, shifted=True),
        holds_labels=True,
        differentiates_loss=True,
    )


def population(world: SupervisedWorld) -> Moments:
    """The moments of all that there is, with the examples behind them."""
    second, counts = world.second_moments, world.counts  # of a user's data they are finite
    if counts is None:
        counts = jnp.full(second.shape[0], jnp.inf)
    return Moments(second, counts.astype(second.dtype))


def _with_inputs(training: Moments, second: Array) -> Moments:
    """Moments whose blocks of the inputs alone, with their means, are those of the population."""
    dim = second.shape[-1] - 2
    of_inputs = (jnp.arange(dim + 2) != dim).astype(jnp.int32)
    known = (of_inputs[:, None] * of_inputs[None, :])[None] > 0
    return training._replace(second=jnp.where(known, second, training.second))


def _training(data: MomentData) -> Moments:
    assert data.training is not None
    return data.training

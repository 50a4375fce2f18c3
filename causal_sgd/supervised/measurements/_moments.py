"""Moments of the population or of one data set, kept for the whole run."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised._moments import MomentData, Moments
from causal_sgd.supervised.measurements._risks import moment_risks, risk_gradient
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["moments"]


def moments(
    num_examples: int | Array | None = None, *, num_validation: int | Array | None = None
) -> Measurement:
    """The moments of every environment: of the population, or of a data set drawn once.

    The cost of a step does not depend on the number of examples; every step uses all of them,
    whatever the counts of its batch, which weigh the environments.

    Args:
        num_examples: n of every environment; may be traced, so that from 10^2 to 10^9 it is an axis
            of one program. None for the population.
        num_validation: examples of every environment that nothing trains on, for the metric
            `validation_risk`; None for none.

    Returns:
        A measurement for models that predict linearly.

    Raises:
        ValueError: if a number of examples is not a whole number, at least 1.
    """
    for name, number in (("num_examples", num_examples), ("num_validation", num_validation)):
        if number is not None:
            checks.whole(name, number, maximum=10**12)

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        held_out = None
        if num_validation is not None:
            held_out = _drawn(random.fold_in(key, 1), world, num_validation)
        return MomentData(_drawn(random.fold_in(key, 0), world, num_examples), held_out)

    def gradient(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: SupervisedWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        risks = on_batch(key, step, data, model, world, batch)
        return risk_gradient(risks, batch, params)

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> RiskFunction:
        del key, step, world
        second, environments = data.training.second, batch.environments
        if len(environments) < len(second):
            return moment_risks(model, second[environments])
        # All losses, in the batch's order: choosing among them is cheaper than among the moments.
        losses = moment_risks(model, second)

        def chosen(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
            return losses(params, scale, shift)[environments]

        return chosen

    def whole(data: MomentData, model: VectorModel, world: SupervisedWorld) -> RiskFunction:
        del world
        return moment_risks(model, data.training.second)

    def single(
        data: MomentData, model: VectorModel, world: SupervisedWorld, environment: Array
    ) -> RiskFunction:
        del world
        return moment_risks(model, data.training.second[environment][None])

    return Measurement(
        init,
        gradient,
        risks=Risks(whole, on_batch, single, shifted=True),
        holds_labels=True,
        differentiates_loss=True,
    )


def _drawn(key: Key, world: SupervisedWorld, number: int | Array | None) -> Moments:
    size = world.probabilities.shape[0]
    if number is None:
        second, counts = world.second_moments, world.counts  # of a user's data they are finite
        return Moments(second, jnp.full(size, jnp.inf, second.dtype) if counts is None else counts)
    counts = jnp.full(size, number, float)
    return Moments(world.draw_moments(key, jnp.arange(size), counts), counts)

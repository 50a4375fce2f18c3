"""Moments of a fresh batch in every step."""

from __future__ import annotations

from collections.abc import Callable

from causal_sgd.supervised._moments import MomentData
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    gradient_of,
    held_out,
    moment_features,
    moment_risks,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["batch_moments"]


def batch_moments(*, num_validation: int | Array | None = None) -> Measurement:
    """The moments of a fresh batch in every step, drawn by their exact law.

    The cost of a step depends on the number k of noises, by k^2, and not on the size of the batch,
    which may be any. The population is the data: metrics of a training loss are over all of it.

    Args:
        num_validation: examples of every environment that nothing trains on, for the metric
            `validation_risk`; may be traced; None for none.

    Returns:
        A measurement for models that predict linearly. It knows no variances of single examples'
        gradients, which moments of a batch do not determine.

    Raises:
        ValueError: if the number of examples is not a whole number, at least 1.
    """
    check_examples(num_validation=num_validation)

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        return MomentData(None, held_out(key, world, num_validation))

    def drawn(key: Key, world: SupervisedWorld, batch: Batch) -> Array:
        return world.draw_moments(key, batch.environments, batch.counts)

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step, data
        return moment_risks(model, drawn(key, world, batch))

    def features(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], tuple[Array, Array]]:
        del step, data
        return moment_features(model, drawn(key, world, batch))

    def whole(data: MomentData, model: VectorModel, world: SupervisedWorld) -> RiskFunction:
        del data
        return moment_risks(model, world.second_moments)

    def single(
        data: MomentData, model: VectorModel, world: SupervisedWorld, environment: Array
    ) -> RiskFunction:
        del data
        return moment_risks(model, world.second_moments[environment][None])

    return Measurement(
        init,
        gradient_of(on_batch),
        risks=Risks(whole, on_batch, single, features, shifted=True, fresh=True),
        differentiates_loss=True,
    )

"""Examples of a table: all that a loss sees of them is how often each atom occurs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised import losses
from causal_sgd.supervised._moments import Moments, TableData
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    gradient_of,
    moment_features,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.models._model import predictions_of
from causal_sgd.supervised.worlds import SupervisedWorld, TableWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["counts"]


def counts(
    loss: losses.Loss = losses.logistic,
    *,
    num_examples: int | Array | None = None,
    fresh: bool = False,
    num_validation: int | Array | None = None,
) -> Measurement:
    """Examples of a table world under any loss, by multinomial counts of its atoms.

    Exact for every loss and every model: the losses of an environment are sums over the atoms. The
    cost of a step depends on the number of atoms only.

    Args:
        loss: of a prediction and a label.
        num_examples: n of every environment, drawn once; may be traced, so that from 10^2 to 10^9
            it is an axis of one program. None for the population, or for `fresh`.
        fresh: whether every step draws the examples of its batch anew, in place of a data set.
        num_validation: examples of every environment that nothing trains on; may be traced; None
            for none.

    Returns:
        A measurement for table worlds (`worlds.two_bit`, ...).

    Raises:
        ValueError: if an argument is out of range, or (when it runs) the world is no table.
    """
    checks.instance("loss", loss, losses.Loss, "a loss, such as losses.logistic")
    check_examples(num_examples=num_examples, num_validation=num_validation)
    checks.flags(fresh=fresh)
    squared = loss == losses.squared
    if fresh and num_examples is not None:
        raise ValueError(
            f"num_examples must be None with fresh, which draws in every step, got {num_examples}"
        )

    def init(key: Key, world: SupervisedWorld) -> TableData:
        if not isinstance(world, TableWorld):
            raise ValueError(
                "world must be a table for counts, as worlds.two_bit makes, got "
                f"{type(world).__name__}"
            )
        training, shares = None, None
        if not fresh:
            training, shares = _sample(random.fold_in(key, 0), world, num_examples)
        if num_validation is None:
            return TableData(training, shares=shares)
        validation = _sample(random.fold_in(key, 1), world, num_validation)
        return TableData(training, validation[0], None, shares, validation[1])

    def shares_of(key: Key, data: TableData, world: TableWorld, batch: Batch) -> Array:
        """The shares [B, A] of the atoms in the examples of a batch."""
        if data.shares is not None:
            return data.shares[batch.environments]
        return _shares(world.draw_counts(key, batch.environments, batch.counts))

    def on_batch(
        key: Key,
        step: Array,
        data: TableData,
        model: VectorModel,
        world: TableWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step
        return _risks(loss, model, world, shares_of(key, data, world, batch))

    def features(
        key: Key,
        step: Array,
        data: TableData,
        model: VectorModel,
        world: TableWorld,
        batch: Batch,
    ) -> Callable[[Params], tuple[Array, Array]]:
        del step
        return moment_features(model, world.moments_of(shares_of(key, data, world, batch)))

    def variances(
        key: Key,
        step: Array,
        data: TableData,
        model: VectorModel,
        world: TableWorld,
        batch: Batch,
    ) -> Callable[[Params], Params]:
        del step
        return _variances(loss, model, world, shares_of(key, data, world, batch))

    def mean_squares(
        key: Key,
        step: Array,
        data: TableData,
        model: VectorModel,
        world: TableWorld,
        batch: Batch,
    ) -> Callable[[Params], Array]:
        del step
        return _risks(losses.squares, model, world, shares_of(key, data, world, batch))

    def whole(data: TableData, model: VectorModel, world: TableWorld) -> RiskFunction:
        return _risks(loss, model, world, world.mass if data.shares is None else data.shares)

    def each(
        data: TableData, model: VectorModel, world: TableWorld
    ) -> tuple[Callable[..., Array], Array]:
        assert data.shares is not None

        def single(params: Params, scale: float | Array = 1.0) -> Array:
            values = loss(scale * model.predictions(params, world.inputs), world.labels)
            return jnp.broadcast_to(values[None], world.mass.shape)

        return single, data.shares * world.probabilities[:, None]

    return Measurement(
        init,
        gradient_of(on_batch),
        risks=Risks(
            whole,
            on_batch,
            None,
            features,
            variances,
            None if loss.multiclass else mean_squares,
            each=None if fresh else each,
            shifted=True,
            fresh=fresh,
            squared=squared,
            loss=loss,
        ),
        holds_labels=not fresh,
        differentiates_loss=True,
    )


def _sample(key: Key, world: TableWorld, number: int | Array | None) -> tuple[Moments, Array]:
    """The moments of a sample of every environment, or of the population, and its shares."""
    size = world.mass.shape[0]
    if number is None:
        return Moments(world.second_moments, jnp.full(size, jnp.inf)), world.mass
    sizes = jnp.full(size, number, float)
    shares = _shares(world.draw_counts(key, jnp.arange(size), sizes))
    return Moments(world.moments_of(shares), sizes), shares


def _shares(drawn: Array) -> Array:
    """Counts [B, A] as shares; zero for an environment without examples."""
    return drawn / jnp.maximum(jnp.sum(drawn, 1, keepdims=True), 1)


def _risks(
    loss: losses.Loss, model: VectorModel, world: TableWorld, shares: Array
) -> Callable[..., Array]:
    """(params, scale, shift) -> the losses [B] of shares [B, A] of the atoms."""

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        predictions = scale * predictions_of(model, params, world.inputs) + shift
        return jnp.sum(shares * loss(predictions, world.labels)[None], 1)

    return risks


def _variances(
    loss: losses.Loss, model: VectorModel, world: TableWorld, shares: Array
) -> Callable[[Params], Params]:
    """Params -> variances [B, ...] of the gradients of single examples' losses."""

    def single(params: Params, x: Array, y: Array) -> Array:
        return loss(predictions_of(model, params, x[None]), y[None])[0]

    def variances(params: Params) -> Params:
        def of_leaf(gradients: Array) -> Array:
            flat = gradients.reshape(len(gradients), -1)
            center = linalg.product(shares, flat)  # [B, numbers of the leaf]
            squares = (flat[None] - center[:, None]) ** 2
            variance = jnp.sum(shares[..., None] * squares, 1)
            return variance.reshape(-1, *gradients.shape[1:])

        each = jax.vmap(jax.grad(single), (None, 0, 0))(params, world.inputs, world.labels)
        return jax.tree.map(of_leaf, each)

    return variances

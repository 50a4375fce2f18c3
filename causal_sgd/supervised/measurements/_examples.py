"""Examples that are really drawn, or given: what has no law, and the oracle of what has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import MomentData, Moments, Rows, used_rows, weighted_moments
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    held_out,
    moment_features,
    moment_risks,
    residual_of,
    risk_gradient,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["examples"]


def examples(
    num_examples: int | None = None,
    *,
    fresh: int | None = None,
    full: bool = False,
    replacement: bool = False,
    num_validation: int | Array | None = None,
) -> Measurement:
    """Examples of every environment: a data set drawn once, a world's own, or fresh in every step.

    The m_e examples of an environment in a batch are chosen from its data set, independently in
    every step. A step costs as many examples as are kept, or as `fresh` allows. Batches that ask
    for more examples than there are give NaN.

    Args:
        num_examples: n of the data set of every environment, drawn once; static. None for `fresh`,
            or for a world that is data (`worlds.from_arrays`), whose rows are then the data set.
        fresh: in place of a data set, examples are drawn anew in every step, of every environment
            of a batch at most this many; static.
        full: whether every step uses all examples of the data set, whatever the counts of its
            batch, which weigh the environments.
        replacement: whether examples of a batch are chosen with replacement.
        num_validation: examples of every environment that nothing trains on, for the metric
            `validation_risk`; may be traced; None for none.

    Returns:
        A measurement for all models, also for those with a `predict` of their own. Its data hold
        the moments of the data set, so that estimators fit the same examples. Halves of a batch
        from a data set are chosen independently of each other.

    Raises:
        ValueError: if a number is not a whole number, at least 1, or the options contradict each
            other, or (when it runs) none is given and the world is no data.
    """
    for name, number in (("num_examples", num_examples), ("fresh", fresh)):
        if number is not None:
            checks.integer(name, number)
    check_examples(num_validation=num_validation)
    checks.flags(full=full, replacement=replacement)
    if fresh is not None and (num_examples is not None or full or replacement):
        other = "num_examples" if num_examples is not None else "full" if full else "replacement"
        raise ValueError(
            f"fresh must be None with {other}, which belongs to a data set, got {fresh}"
        )
    if full and replacement:
        raise ValueError("replacement must be False with full, which chooses nothing, got True")
    choice = Choosing(fresh, full, replacement)

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        validation = held_out(key, world, num_validation)
        if fresh is not None:
            return MomentData(None, validation)
        rows = _data_set(random.fold_in(key, 0), world, num_examples)
        used = used_rows(rows)
        return MomentData(Moments(weighted_moments(rows, used), rows.counts), validation, rows)

    def gradient(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        params: Params,
        world: SupervisedWorld,
        batch: Batch,
    ) -> tuple[Params, Array]:
        return risk_gradient(on_batch(key, step, data, model, world, batch), batch, params)

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step
        return _risks(model, *choice.rows(key, data, world, batch))

    def features(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], tuple[Array, Array]]:
        del step
        return moment_features(model, weighted_moments(*choice.rows(key, data, world, batch)))

    def variances(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], Params]:
        del step
        return _variances(model, *choice.rows(key, data, world, batch))

    def whole(data: MomentData, model: VectorModel, world: SupervisedWorld) -> RiskFunction:
        if data.rows is None:
            return moment_risks(model, world.second_moments)
        return _risks(model, data.rows, used_rows(data.rows))

    return Measurement(
        init,
        gradient,
        capacity=lambda environments: choice.capacity(num_examples, environments),
        risks=Risks(whole, on_batch, None, features, variances, shifted=True, fresh=not full),
        holds_labels=fresh is None,
        differentiates_loss=True,
    )


class Choosing(NamedTuple):
    """How the examples of a batch come about."""

    fresh: int | None
    full: bool
    replacement: bool

    def capacity(self, num_examples: int | None, environments: int) -> int | None:
        """The most examples in a batch from B environments; None for no known limit."""
        most = num_examples if self.fresh is None else self.fresh
        return None if most is None or self.full or self.replacement else most * environments

    def rows(
        self, key: Key, data: MomentData, world: SupervisedWorld, batch: Batch
    ) -> tuple[Rows, Array]:
        """Examples of the batch's environments, and how often each is in the batch [B, n].

        Args:
            key: of the step.
            data: the measurement's.
            world: whose examples are drawn, where they are fresh.
            batch: environments and counts [B].
        """
        keys = random.fold_in(key, batch.environments)
        if self.fresh is not None:
            size = self.fresh
            x, y = jax.vmap(lambda k, e: world.draw_examples(k, e, size))(keys, batch.environments)
            rows = Rows(x, y, jnp.full(len(batch.counts), size, x.dtype))
            used = jnp.arange(size)[None] < batch.counts[:, None]
            return rows, _poisoned(used.astype(x.dtype), batch.counts > size)
        assert data.rows is not None
        rows = jax.tree.map(lambda leaf: leaf[batch.environments], data.rows)
        if self.full:
            return rows, used_rows(rows)
        dtype, size = rows.labels.dtype, rows.labels.shape[1]

        def chosen(key: Key, count: Array, among: Array) -> Array:
            if self.replacement:
                shares = (jnp.arange(size) < among).astype(dtype) / among.astype(dtype)
                return random.multinomial(key, count.astype(dtype), shares)
            return random.subset(key, size, count, among).astype(dtype)

        used = jax.vmap(chosen)(keys, batch.counts, rows.counts)
        return rows, used if self.replacement else _poisoned(used, batch.counts > rows.counts)


def _poisoned(used: Array, exceeded: Array) -> Array:
    """NaN for environments [B] that have fewer examples than the batch asks for."""
    return jnp.where(exceeded[:, None], jnp.nan, used)


def _data_set(key: Key, world: SupervisedWorld, number: int | None) -> Rows:
    """The examples of all environments, [E, n, p] and [E, n]."""
    if number is None:
        rows = getattr(world, "rows", None)
        if rows is None:
            raise ValueError(
                "num_examples must be the number of examples of every environment, or fresh that "
                f"of a step, in a world that is no data ({type(world).__name__}), got None"
            )
        return Rows(rows.inputs, rows.labels, rows.counts.astype(rows.labels.dtype))
    environments = jnp.arange(world.probabilities.shape[0])
    keys = random.fold_in(key, environments)
    x, y = jax.vmap(lambda k, e: world.draw_examples(k, e, number))(keys, environments)
    return Rows(x, y, jnp.full(len(environments), number, y.dtype))


def _average(values: Array, used: Array) -> Array:
    """The mean over the used examples of values [B, n, ...]; 0 without any."""
    weights = used / jnp.maximum(jnp.sum(used, 1, keepdims=True), 1)
    return jnp.sum(values * weights.reshape(*weights.shape, *(1,) * (values.ndim - 2)), 1)


def _risks(model: VectorModel, rows: Rows, used: Array) -> Callable[..., Array]:
    """(params, scale, shift) -> the losses [B] of weighted examples."""

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        if model.predict is None:
            vector = residual_of(model, params, scale, shift)
            predictions = linalg.product(rows.inputs, vector[:-2, None])[..., 0] + vector[-1]
        else:
            predictions = scale * _predictions(model, params, rows.inputs) + shift
        return _average((predictions - rows.labels) ** 2, used) / 4

    return risks


def _predictions(model: VectorModel, params: Params, inputs: Array) -> Array:
    """The predictions [...] for inputs [..., p]."""
    predict = model.predict
    assert predict is not None
    flat = jax.vmap(lambda x: predict(params, x))(inputs.reshape(-1, inputs.shape[-1]))
    return flat.reshape(inputs.shape[:-1])


def _variances(model: VectorModel, rows: Rows, used: Array) -> Callable[[Params], Params]:
    """Params -> variances over the used examples of the gradients of single examples' losses."""

    def loss(params: Params, x: Array, y: Array) -> Array:
        if model.predict is not None:
            return (model.predict(params, x) - y) ** 2 / 4
        vector = residual_of(model, params)
        return (jnp.sum(vector[:-2] * x) + vector[-1] - y) ** 2 / 4

    each = jax.vmap(jax.vmap(jax.grad(loss), (None, 0, 0)), (None, 0, 0))

    def variances(params: Params) -> Params:
        def of_leaf(gradients: Array) -> Array:
            center = _average(gradients, used)
            return _average((gradients - center[:, None]) ** 2, used)

        return jax.tree.map(of_leaf, each(params, rows.inputs, rows.labels))

    return variances

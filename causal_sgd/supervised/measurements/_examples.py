"""Examples that are really drawn, or given: what has no law, and the oracle of what has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised import losses
from causal_sgd.supervised._moments import MomentData, Moments, Rows, used_rows, weighted_moments
from causal_sgd.supervised.measurements._choosing import Choosing
from causal_sgd.supervised.measurements._examples_checks import (
    check_classes,
    check_gathering,
    check_labels,
    check_noise,
    last_class,
    sizes_of,
)
from causal_sgd.supervised.measurements._risks import (
    check_examples,
    check_held_out,
    gradient_of,
    held_out,
    moment_features,
    moment_risks,
    residual_of,
)
from causal_sgd.supervised.models import VectorModel
from causal_sgd.supervised.worlds import DataWorld, SupervisedWorld
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["examples"]


def examples(
    num_examples: int | Sequence[int] | None = None,
    *,
    loss: losses.Loss = losses.squared,
    fresh: int | None = None,
    full: bool = False,
    replacement: bool = False,
    subsampled: bool = False,
    most: int | None = None,
    slots: int | None = None,
    label_noise: float | Array = 0.0,
    noisy: int | None = None,
    num_validation: int | Array | None = None,
) -> Measurement:
    """Examples of every environment: a data set drawn once, a world's own, or fresh in every step.

    The m_e examples of an environment in a batch are chosen from its data set, independently in
    every step. A step costs as many examples as are kept, or as `fresh` or `most` allows. Batches
    that ask for more examples than there are give NaN.

    Args:
        num_examples: n of the data set of every environment, drawn once, or one number for each of
            them; static. None for `fresh`, or for a world that is data (`worlds.from_arrays`,
            `worlds.fixed_design`), whose rows are then the data set.
        loss: of a prediction and a label.
        fresh: in place of a data set, examples are drawn anew in every step, of every environment
            of a batch at most this many; static.
        full: whether every step uses all examples of the data set, whatever the counts of its
            batch, which weigh the environments.
        replacement: whether examples of a batch are chosen with replacement.
        subsampled: whether every environment keeps only as many examples as the smallest one has,
            chosen at random: group subsampling (SUBG), where environments are the groups.
        most: the most examples of one environment in a batch, static, of which alone the losses are
            then computed: the law is the same, at a cost that is free of the size of the data set.
            Batches with more of them give NaN. None for any number.
        slots: the same for all environments of a batch together, static, such as the batch size: a
            step costs this many predictions, however many environments there are. Cheapest with
            `replacement`.
        label_noise: standard deviation of Gaussian noise that every step adds anew to the labels of
            its examples, at least 0; may be traced. Gradients and losses of batches have it,
            metrics do not.
        noisy: how many examples of every environment in a batch have this noise, random ones of
            those in it, static; None for all. A gradient of one example with noise of deviation d,
            added to that of m examples (HaoChen et al. 2020), is noisy=1 with label_noise = m d.
        num_validation: examples of every environment that nothing trains on; None for none. Under
            squared loss they serve the metric `validation_risk` and may be traced; under others
            the metric `validation_error`, and are static.

    Returns:
        A measurement for all models, also for those with a `predict` of their own. Under squared
        loss its data hold the moments of the data set, so that estimators fit the same examples.
        Halves of a batch from a data set are chosen independently of each other.

    Raises:
        ValueError: if a number is not a whole number, at least 1, or the options contradict each
            other, or (when it runs) none is given and the world is no data.
    """
    sizes = sizes_of(num_examples)
    checks.instance("loss", loss, losses.Loss, "a loss, such as losses.logistic")
    checks.flags(full=full, replacement=replacement, subsampled=subsampled)
    squared = loss == losses.squared
    if fresh is not None:
        checks.integer("fresh", fresh)
        given = {
            "full": full,
            "replacement": replacement,
            "subsampled": subsampled,
            "most": most is not None,
        }
        others = ["num_examples"] * (sizes is not None) + [name for name in given if given[name]]
        if others:
            raise ValueError(
                f"fresh must be None with {others[0]}, which belongs to a data set, got {fresh}"
            )
    if squared or num_validation is None:
        check_examples(num_validation=num_validation)
    else:
        checks.integer("num_validation", num_validation)
    if full and replacement:
        raise ValueError("replacement must be False with full, which chooses nothing, got True")
    check_gathering(full, most, slots)
    check_noise(loss, label_noise, noisy, replacement and most is None and slots is None)
    choice = Choosing(fresh, full, replacement, most, label_noise, noisy, slots)

    def init(key: Key, world: SupervisedWorld) -> MomentData:
        validation = held_out(key, world, num_validation) if squared else None
        held = None
        check_held_out(world, num_validation)
        check_labels(loss, world)
        if isinstance(world, DataWorld):
            held = world.validation_rows
        elif not squared and isinstance(num_validation, int):
            held = _data_set(random.fold_in(key, 1), world, num_validation)
        if fresh is not None:
            return MomentData(None, validation, None, held)
        rows = _data_set(random.fold_in(key, 0), world, sizes)
        if subsampled:
            rows = _subsampled(random.fold_in(key, 2), rows)
        rows, held = random.shareable((rows, held))
        # Moments of many inputs are large, and of use under squared loss only.
        training = Moments(weighted_moments(rows, used_rows(rows)), rows.counts)
        return MomentData(training if squared else None, validation, rows, held)

    def on_batch(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> RiskFunction:
        del step
        return _risks(loss, model, *choice.rows(key, data, world, batch), last_class(world))

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
        return _variances(loss, model, *choice.rows(key, data, world, batch))

    def mean_squares(
        key: Key,
        step: Array,
        data: MomentData,
        model: VectorModel,
        world: SupervisedWorld,
        batch: Batch,
    ) -> Callable[[Params], Array]:
        del step
        return _risks(losses.squares, model, *choice.rows(key, data, world, batch))

    def whole(data: MomentData, model: VectorModel, world: SupervisedWorld) -> RiskFunction:
        if data.rows is None:
            if not squared:
                raise ValueError(
                    "fresh must be None for risks of all data under another loss than the squared "
                    f"one, which a data set has, got {fresh}"
                )
            return moment_risks(model, world.second_moments)
        return _risks(loss, model, data.rows, used_rows(data.rows), last_class(world))

    def each(
        data: MomentData, model: VectorModel, world: SupervisedWorld
    ) -> tuple[Callable[..., Array], Array]:
        del world
        assert data.rows is not None
        rows, used = data.rows, used_rows(data.rows)

        def single(params: Params, scale: float | Array = 1.0) -> Array:
            predictions = scale * model.predictions(params, rows.inputs)
            check_classes(loss, predictions, rows.labels)
            return loss(predictions, rows.labels)

        return single, used / jnp.sum(used)

    return Measurement(
        init,
        gradient_of(on_batch),
        capacity=lambda environments: choice.capacity(sizes, environments),
        risks=Risks(
            whole,
            on_batch,
            None,
            features,
            variances,
            None if loss.multiclass else mean_squares,
            each=None if fresh else each,
            shifted=not loss.multiclass,
            fresh=not full,
            squared=squared,
            loss=loss,
        ),
        holds_labels=fresh is None,
        differentiates_loss=True,
    )


def _data_set(key: Key, world: SupervisedWorld, sizes: int | tuple[int, ...] | None) -> Rows:
    """The examples of all environments, [E, n, p] and [E, n]."""
    if sizes is None:
        rows = getattr(world, "rows", None)
        if rows is None:
            raise ValueError(
                "num_examples must be the number of examples of every environment, or fresh that "
                f"of a step, in a world that is no data ({type(world).__name__}), got None"
            )
        return Rows(rows.inputs, rows.labels, rows.counts.astype(rows.labels.dtype))
    size = world.probabilities.shape[0]
    numbers = (sizes,) * size if isinstance(sizes, int) else sizes
    if len(numbers) != size:
        raise ValueError(
            f"num_examples must be one number, or one of each of the {size} environments, got "
            f"{len(numbers)} numbers"
        )
    environments, most = jnp.arange(size), max(numbers)
    keys = random.fold_in(key, environments)
    x, y = jax.vmap(lambda k, e: world.draw_examples(k, e, most))(keys, environments)
    return Rows(x, y, jnp.array(numbers, y.dtype))


def _subsampled(key: Key, rows: Rows) -> Rows:
    """As many random rows of every environment as the smallest one has."""
    if len(rows.inputs) == 1:  # all environments have the same
        return rows
    size, smallest = rows.labels.shape[1], jnp.min(rows.counts)

    def kept(key: Key, x: Array, y: Array, among: Array) -> tuple[Array, Array]:
        mask = random.subset(key, size, smallest.astype(jnp.int32), among.astype(jnp.int32))
        order = jnp.argsort(~mask, stable=True)  # the chosen ones first, in their order
        return x[order], y[order]

    keys = random.fold_in(key, jnp.arange(len(rows.counts)))
    x, y = jax.vmap(kept)(keys, rows.inputs, rows.labels, rows.counts)
    return Rows(x, y, jnp.full_like(rows.counts, smallest))


def _average(values: Array, used: Array) -> Array:
    """The mean over the used examples of values [B, n, ...]; 0 without any."""
    weights = used / jnp.maximum(jnp.sum(used, 1, keepdims=True), 1)
    return jnp.sum(values * weights.reshape(*weights.shape, *(1,) * (values.ndim - 2)), 1)


def _risks(
    loss: losses.Loss,
    model: VectorModel,
    rows: Rows,
    used: Array,
    last_class: float | None = None,
) -> Callable[..., Array]:
    """(params, scale, shift) -> the losses [B] of weighted examples."""

    def risks(params: Params, scale: float | Array = 1.0, shift: float | Array = 0.0) -> Array:
        if model.predict is None and not loss.multiclass:
            vector = residual_of(model, params, scale, shift)
            predictions = linalg.product(rows.inputs, vector[:-2, None])[..., 0] + vector[-1]
        else:
            predictions = scale * model.predictions(params, rows.inputs) + shift
        check_classes(loss, predictions, rows.labels)
        if loss.multiclass and last_class is not None and last_class >= predictions.shape[-1]:
            raise ValueError(
                f"model must have an output for every class, at least {last_class + 1:g}, got "
                f"{predictions.shape[-1]}"
            )
        if loss == losses.squared:
            return _average((predictions - rows.labels) ** 2, used) / 4
        return _average(loss(predictions, rows.labels), used)

    return risks


def _variances(
    loss: losses.Loss, model: VectorModel, rows: Rows, used: Array
) -> Callable[[Params], Params]:
    """Params -> variances over the used examples of the gradients of single examples' losses."""

    def of_one(params: Params, x: Array, y: Array) -> Array:
        if loss != losses.squared:
            return loss(model.predictions(params, x[None]), y[None])[0]
        if model.predict is not None:
            return (model.predict(params, x) - y) ** 2 / 4
        vector = residual_of(model, params)
        return (jnp.sum(vector[:-2] * x) + vector[-1] - y) ** 2 / 4

    each = jax.vmap(jax.vmap(jax.grad(of_one), (None, 0, 0)), (None, 0, 0))

    def variances(params: Params) -> Params:
        def of_leaf(gradients: Array) -> Array:
            center = _average(gradients, used)
            return _average((gradients - center[:, None]) ** 2, used)

        inputs = jnp.broadcast_to(rows.inputs, (*rows.labels.shape, rows.inputs.shape[-1]))
        return jax.tree.map(of_leaf, each(params, inputs, rows.labels))

    return variances

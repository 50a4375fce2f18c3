"""Finite data sets: every environment has examples, drawn once and used again in every step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.sensing.measurements import _products, designs
from causal_sgd.sensing.measurements._algebra import (
    Designs,
    batch_size,
    pull_back,
    require_estimate,
)
from causal_sgd.sensing.measurements._data_sets import Data, DataSet, Selection
from causal_sgd.sensing.measurements._risks import squared_errors
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

# Rows are gathered for batches of at most a quarter of the examples of an environment.
GATHERED = 4
# Up to this number of environments a shared design is one array for each. A choice among more
# takes long to compile.
SEPARATE = 32


def fixed_design(
    *,
    num_examples: int | None = None,
    design: np.ndarray | Array | None = None,
    noise: float | Array = 0.0,
    fresh_noise: float | Array = 0.0,
    full: bool = False,
    replacement: bool = False,
    largest_batch: int | None = None,
    symmetric: bool = True,
) -> Measurement:
    """A finite data set in every environment, drawn once from the run's stream "data".

    With residuals r_i = <X_i, estimate> - y_i, y_i = <X_i, S_e> + noise * N(0, 1), the loss of a
    batch of m is 1/(4m) sum_i r_i^2. Every step draws anew which m_e of its n examples environment
    e contributes:

    - By default without replacement: every subset of m_e examples is equally likely. This holds
      within a batch; batches are independent, there are no epochs. A batch with m_e > n has a
      gradient of NaN, which ends the run as diverged. `sgd` refuses it beforehand if the batch size
      is concrete.
    - `replacement`: every example is drawn independently, so one may occur several times.
    - `full`: all n examples of each environment in the batch, weighted by its share m_e / m;
      nothing is drawn.

    Args:
        num_examples: n >= 1, the examples of each environment. Every run draws its own: E n p
            numbers.
        design: instead of `num_examples`, the measurements: packed [E, n, p]
            (`designs.shared_design`, `designs.pack`) or dense [E, n, d, d], whose symmetric parts
            are used. All runs of a sweep share one copy, and its products become products of
            matrices. Each run still draws its own labels.
        noise: sigma_y >= 0, the standard deviation of the label noise, drawn once; may be traced.
        fresh_noise: >= 0, the standard deviation of noise added to the labels anew in every step,
            the label-noise SGD of Blanc, Gupta, Valiant and Valiant (COLT 2020). It takes E n
            normal numbers a step. May be traced.
        full: use every example of the batch's environments.
        replacement: draw examples with replacement.
        largest_batch: a promise that no batch has more examples. If it is at most n / 4, the rows
            of a batch are gathered instead of multiplying the whole data set. Larger batches have a
            gradient of NaN. The draws with replacement depend on it, those without do not.
        symmetric: False keeps whole measurement matrices, p = d^2, as models that are not
            `symmetric` need; a given design must then be dense.

    Returns:
        A measurement of the estimate space [d, d]. Its data are the labels [E, n], preceded by the
        design if each run draws its own.

    Raises:
        ValueError: if an argument is out of range or contradicts another; at the start of a run, if
            a given design does not fit the world.
    """
    checks.flags(full=full, replacement=replacement, symmetric=symmetric)
    _check_options(num_examples, design, noise, fresh_noise, full, replacement, largest_batch)
    # Otherwise the conversion of a design given within a cell would be part of every program.
    with jax.ensure_compile_time_eval():
        given = None if design is None else designs.coordinates(design, symmetric)
        size = checks.integer("num_examples", num_examples) if given is None else given.shape[1]
        selection = Selection(size, full, replacement, largest_batch)
        data_set = _data_set(given, selection, symmetric, noise, fresh_noise)

    def gradient(
        key: Key,
        step: Array,
        data: Data,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        return _gradient(data_set, key, data, model, params, batch)

    def whole(data: Data, model: MatrixModel, world: World) -> RiskFunction:
        return _risks_of_all(data_set, data, model)

    def single(data: Data, model: MatrixModel, world: World, environment: Array) -> RiskFunction:
        return _risks_of_all(data_set, data, model, environment)

    def on_batch(
        key: Key, step: Array, data: Data, model: MatrixModel, world: World, batch: Batch
    ) -> RiskFunction:
        return _risks_of_batch(data_set, key, data, model, batch)

    def client(
        key: Key,
        step: Array,
        data: Data,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        position: Array,
    ) -> tuple[Params, Array]:
        own = Batch(batch.environments[position][None], batch.counts[position][None])
        return _gradient(data_set, key, data, model, params, own)

    return Measurement(
        data_set.draw,
        gradient,
        selection.capacity,
        holds_labels=True,
        risks=Risks(whole, on_batch, single),
        differentiates_loss=True,
        client=client,
    )


def _check_options(
    num_examples: int | None,
    design: np.ndarray | Array | None,
    noise: float | Array,
    fresh_noise: float | Array,
    full: bool,
    replacement: bool,
    largest_batch: int | None,
) -> None:
    """Raise ValueError if an option is out of range or contradicts another."""
    checks.number("noise", noise, minimum=0)
    checks.number("fresh_noise", fresh_noise, minimum=0)
    if full and replacement:
        raise ValueError("replacement must be False if full is True: full batches draw nothing")
    if full and largest_batch is not None:
        raise ValueError(f"largest_batch must be None if full is True, got {largest_batch}")
    if largest_batch is not None:
        checks.integer("largest_batch", largest_batch)
    if (num_examples is None) == (design is None):
        raise ValueError("num_examples or design must be given, and not both")


def _data_set(
    design: Array | None,
    selection: Selection,
    symmetric: bool,
    noise: float | Array,
    fresh_noise: float | Array,
) -> DataSet:
    """The data sets of a design [E, n, p], or of none yet."""
    shape = None if design is None else design.shape
    largest = selection.largest_batch
    gathers = largest is not None and GATHERED * largest <= selection.size
    shared: Designs | None = design
    # Rows are gathered from one array; whole data sets are read in place, one array for each.
    if design is not None and not gathers and design.shape[0] <= SEPARATE:
        shared = tuple(design)
    return DataSet(shared, shape, selection, gathers, symmetric, noise, fresh_noise)


def _gradient(
    data_set: DataSet, key: Key, data: Data, model: MatrixModel, params: Params, batch: Batch
) -> tuple[Params, Array]:
    """The gradient and the loss [] of a batch.

    The gradient with respect to the estimate is half of G = (1/m) sum_i r_i X_i; the loss is
    1/(4m) sum_i r_i^2.
    """
    data_set.require_symmetry(model)
    selection = data_set.selection
    measured, labels = data_set.at_step(key, data)
    environments, counts = batch
    allowed, concrete = selection.capacity(environments.shape[0]), checks.concrete(counts)
    if concrete is not None and allowed is not None and concrete.sum() > allowed:
        raise ValueError(f"counts must sum to at most {allowed}, got {concrete.tolist()}")
    estimate = data_set.flatten(model.estimate(params))
    total = batch_size(batch)
    if data_set.gathers:
        assert not isinstance(measured, tuple)
        rows, owner, valid = selection.rows(key, batch)
        places = environments[owner] * selection.size + rows  # [M], among all E n examples
        sums, loss = _products.of_rows(
            measured, labels, places, valid.astype(estimate.dtype), estimate
        )
    else:
        # Whole data sets with weights of 0 cost less than a gather of most of their rows.
        weights = selection.weights(key, batch)
        sums, loss = _products.of_environments(
            measured, labels, environments, weights.astype(estimate.dtype), estimate
        )
    # NaN ends the run as diverged, where a traced batch size could not be refused.
    scale = jnp.where(selection.is_exceeded(counts), jnp.nan, 1 / total.astype(estimate.dtype))
    return pull_back(model, params, data_set.restore(sums * scale)), loss * scale / 4


def _risks_of_all(
    data_set: DataSet, data: Data, model: MatrixModel, environment: Array | None = None
) -> RiskFunction:
    """The losses [E] or, of one environment, [1] over all examples and in the mean over noise."""
    data_set.require_symmetry(model)
    require_estimate(model)
    measured, labels = data_set.design_and_labels(data)
    if environment is not None:
        measured = _products.selected(measured, environment)[None]
        labels = labels[environment][None]

    def risks(params: Params, scale: float | Array = 1.0) -> Array:
        estimate = data_set.flatten(scale * model.estimate(params))
        squares = squared_errors(measured, labels, estimate)
        # Fresh noise is independent of the residuals, so its variance adds up.
        return (jnp.mean(squares, 1) + data_set.fresh_noise**2) / 4

    return risks


def _risks_of_batch(
    data_set: DataSet, key: Key, data: Data, model: MatrixModel, batch: Batch
) -> RiskFunction:
    """The losses [B] on the examples and with the fresh noise that `_gradient` draws."""
    data_set.require_symmetry(model)
    require_estimate(model)
    selection = data_set.selection
    measured, labels = data_set.at_step(key, data)
    counts = batch.counts
    # An environment without examples has a sum of 0, which must not be divided by 0.
    number = jnp.maximum(counts, 1).astype(labels.dtype)
    norm = jnp.where(selection.is_exceeded(counts), jnp.nan, 1 / number / 4)
    sums_of = _sums_of_rows if data_set.gathers else _sums_of_all
    sums = sums_of(selection, key, measured, labels, batch)

    def risks(params: Params, scale: float | Array = 1.0) -> Array:
        return norm * sums(data_set.flatten(scale * model.estimate(params)))

    return risks


def _sums_of_rows(
    selection: Selection, key: Key, measured: Designs, labels: Array, batch: Batch
) -> Callable[[Array], Array]:
    """Estimate [p] -> the sums [B] of squared residuals over a batch, from its rows alone."""
    assert not isinstance(measured, tuple)
    environments, counts = batch
    rows, owner, valid = selection.rows(key, batch)
    places = environments[owner], rows
    some, some_labels = measured[places], labels[places]  # [M, p], [M]

    def sums(estimate: Array) -> Array:
        squares = squared_errors(some, some_labels, estimate)
        # Padding belongs to the last environment and must not count there.
        return jnp.zeros(counts.shape, estimate.dtype).at[owner].add(jnp.where(valid, squares, 0))

    return sums


def _sums_of_all(
    selection: Selection, key: Key, measured: Designs, labels: Array, batch: Batch
) -> Callable[[Array], Array]:
    """Estimate [p] -> the sums [B] of squared residuals over a batch, from all data sets."""
    weights = selection.weights(key, batch)

    def sums(estimate: Array) -> Array:
        # All E data sets, then those of the batch: selecting designs first would copy them.
        squares = squared_errors(measured, labels, estimate)[batch.environments]
        return jnp.sum(weights.astype(squares.dtype) * squares, 1)

    return sums

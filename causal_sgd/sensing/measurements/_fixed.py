"""Finite data sets: every environment has examples, drawn once and used again in every step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _products, designs
from causal_sgd.sensing.measurements._algebra import (
    Designs,
    owners,
    pull_back,
    require_estimate,
)
from causal_sgd.sensing.measurements._risks import squared_errors
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

# Folded into the key of a step for the fresh noise; the choice of the batch folds in small numbers.
FRESH = 2**31 - 1
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
    # Without a given design each run draws one in `init`, as part of its data. A given one is a
    # constant of the program, which all runs share.
    own = design is None
    # Otherwise the conversion of a design given within a cell would be part of every program.
    with jax.ensure_compile_time_eval():
        given = jnp.zeros((0, 0, 0)) if own else designs.coordinates(design, symmetric)
        shape = given.shape
        size = checks.integer("num_examples", num_examples) if own else shape[1]
        gathers = largest_batch is not None and GATHERED * largest_batch <= size
        shared = given if own or gathers or shape[0] > SEPARATE else tuple(given)
        del given  # otherwise it would be held twice

    flatten, restore = (
        (designs.pack, designs.unpack) if symmetric else (designs.flatten, designs.square)
    )

    def capacity(environments: int) -> int | None:
        limits = [] if full or replacement else [size * environments]
        return min([*limits, *([] if largest_batch is None else [largest_batch])], default=None)

    def init(key: Key, world: World) -> Any:
        design_key, noise_key = random.fold_in(key, jnp.arange(2))
        environments, dim = world.probabilities.shape[0], world.invariant_basis.shape[0]
        if own:
            dtype = world.invariant_basis.dtype
            measured = designs.shared_design(
                design_key,
                dim=dim,
                num_environments=environments,
                num_examples=size,
                symmetric=symmetric,
                dtype=dtype,
            ).reshape(environments, size, -1)
        else:
            measured = shared
            width = dim * (dim + 1) // 2 if symmetric else dim * dim
            if shape != (environments, size, width):
                packed = f"[{environments}, n, {width}] or " if symmetric else ""
                raise ValueError(
                    f"design must have shape {packed}[{environments}, n, {dim}, {dim}] in a world "
                    f"of {environments} environments and dim {dim}, got coordinates {list(shape)}"
                )
        signals = flatten(world.invariant[None] + jax.vmap(world.spurious)(world.spurious_cores))
        if isinstance(measured, tuple):
            pairs = zip(measured, signals, strict=True)
            clean = jnp.stack([linalg.product(rows, signal) for rows, signal in pairs])
        else:
            clean = jnp.einsum("enp,ep->en", measured, signals, precision="highest")
        if checks.is_zero(noise):
            labels = clean
        else:
            numbers = random.normals(noise_key, clean.shape, clean.dtype)
            labels = clean + noise * numbers
        return (measured, labels) if own else labels

    def require_symmetry(model: MatrixModel) -> None:
        if symmetric and not model.symmetric:
            raise ValueError(
                "model must have a symmetric estimate for a fixed_design that holds the symmetric "
                "parts of the measurements, got one that is not; pass symmetric=False to keep them "
                "whole"
            )

    def drawn_labels(key: Key, data: Any) -> tuple[Designs, Array]:
        """The design and its labels in one step, with fresh noise."""
        measured, labels = data if own else (shared, data)
        if not checks.is_zero(fresh_noise):
            numbers = random.normals(random.fold_in(key, FRESH), labels.shape, labels.dtype)
            labels = labels + fresh_noise * numbers
        return measured, labels

    def is_too_large(counts: Array) -> Array:
        """Whether a batch has more examples than the data set or the promise allows; []."""
        result = jnp.zeros((), bool)
        if largest_batch is not None:
            result |= jnp.sum(counts) > largest_batch
        if not full and not replacement:
            result |= jnp.any(counts > size)
        return result

    def gradient(
        key: Key,
        step: Array,
        data: Any,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        require_symmetry(model)
        measured, labels = drawn_labels(key, data)
        environments, counts = batch
        allowed, concrete = capacity(environments.shape[0]), checks.concrete(counts)
        if concrete is not None and allowed is not None and concrete.sum() > allowed:
            raise ValueError(f"counts must sum to at most {allowed}, got {concrete.tolist()}")
        estimate = flatten(model.estimate(params))
        total = jnp.sum(counts)
        if gathers:
            assert largest_batch is not None
            assert not isinstance(measured, tuple)
            rows, owner, valid = _rows(key, counts, size, largest_batch, replacement)
            places = environments[owner] * size + rows
            sums, loss = _products.of_rows(
                measured, labels, places, valid.astype(estimate.dtype), estimate
            )
        else:
            # Whole data sets with weights of 0 cost less than a gather of most of their rows.
            weights = _weights(key, counts, size, full, replacement, largest_batch)
            sums, loss = _products.of_environments(
                measured, labels, environments, weights.astype(estimate.dtype), estimate
            )
        # NaN ends the run as diverged, where a traced batch size could not be refused.
        scale = jnp.where(is_too_large(counts), jnp.nan, 1 / total).astype(estimate.dtype)
        return pull_back(model, params, restore(sums * scale)), loss * scale / 4

    def whole(data: Any, model: MatrixModel, world: World) -> RiskFunction:
        require_symmetry(model)
        require_estimate(model)
        measured, labels = data if own else (shared, data)

        def risks(params: Params, scale: float | Array = 1.0) -> Array:
            estimate = flatten(scale * model.estimate(params))
            squares = squared_errors(measured, labels, estimate)
            return (jnp.mean(squares, 1) + fresh_noise**2) / 4

        return risks

    def on_batch(
        key: Key, step: Array, data: Any, model: MatrixModel, world: World, batch: Batch
    ) -> RiskFunction:
        require_symmetry(model)
        require_estimate(model)
        measured, labels = drawn_labels(key, data)
        environments, counts = batch
        norm = jnp.where(is_too_large(counts), jnp.nan, 1 / (4 * jnp.maximum(counts, 1)))

        if gathers:
            assert largest_batch is not None
            assert not isinstance(measured, tuple)
            rows, owner, valid = _rows(key, counts, size, largest_batch, replacement)
            places = environments[owner], rows
            some, some_labels = measured[places], labels[places]

            def sums(estimate: Array) -> Array:
                squares = squared_errors(some, some_labels, estimate)
                return jnp.zeros(counts.shape, estimate.dtype).at[owner].add(valid * squares)

        else:
            weights = _weights(key, counts, size, full, replacement, largest_batch)

            def sums(estimate: Array) -> Array:
                squares = squared_errors(measured, labels, estimate)[environments]
                return jnp.sum(weights * squares, 1)

        def risks(params: Params, scale: float | Array = 1.0) -> Array:
            return norm * sums(flatten(scale * model.estimate(params)))

        return risks

    return Measurement(init, gradient, capacity, holds_labels=True, risks=Risks(whole, on_batch))


def _weights(
    key: Key, counts: Array, size: int, full: bool, replacement: bool, largest_batch: int | None
) -> Array:
    """How often each example is in the batch, [B, n]; m_e / n for full batches."""
    if full:
        return jnp.broadcast_to(counts[:, None] / size, (counts.shape[0], size))
    if replacement and largest_batch is not None:
        rows, owner, valid = _rows(key, counts, size, largest_batch, True)
        return jnp.zeros((counts.shape[0], size)).at[owner, rows].add(valid)
    keys = random.fold_in(key, jnp.arange(counts.shape[0]))
    if replacement:
        uniform = jnp.full(size, 1 / size)

        def multinomial(key: Key, count: Array) -> Array:
            return random.multinomial(key, count.astype(uniform.dtype), uniform)

        return jax.vmap(multinomial)(keys, counts)
    return jax.vmap(lambda k, c: random.subset(k, size, c))(keys, counts)


def _rows(
    key: Key, counts: Array, size: int, largest_batch: int, replacement: bool
) -> tuple[Array, Array, Array]:
    """The examples of a batch, padded to its largest size M.

    Returns:
        For each place of the batch, the index of its example within the environment [M], the
        position of that environment within the batch [M], and whether the place is used [M].
    """
    owner, valid = owners(counts, 0, largest_batch)
    if replacement:
        return jax.random.randint(key, (largest_batch,), 0, size), owner, valid
    keys = random.fold_in(key, jnp.arange(counts.shape[0]))
    masks = jax.vmap(lambda k, c: random.subset(k, size, c))(keys, counts)
    # top_k keeps ties in order, so the members of each subset come first.
    chosen = jax.lax.top_k(masks.astype(jnp.float32), min(largest_batch, size))[1]
    first = (jnp.cumsum(counts) - counts)[owner]
    within = jnp.minimum(jnp.arange(largest_batch) - first, chosen.shape[1] - 1)
    return chosen[owner, within], owner, valid

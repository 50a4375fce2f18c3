"""Finite data sets: every environment has its examples, drawn once and used again in every step.

Only the symmetric part of a measurement matrix meets a symmetric residual, so a design holds its p = d (d + 1) / 2
coordinates (`pack`), which are iid N(0, 1) for Gaussian measurements: half the memory and half the work of d^2. Models whose
estimate is not symmetric see all p = d^2 entries.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements import _products
from causal_sgd.sensing.measurements._algebra import (
    Designs,
    owners,
    pack,
    packed_dim,
    pull_back,
    require_estimate,
    unpack,
)
from causal_sgd.sensing.measurements._risks import squared_errors
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, RiskFunction, Risks

__all__ = ["fixed_design", "pack", "restricted_isometry", "shared_design", "unpack"]

FRESH = (
    2**31 - 1
)  # the fold of a step's key that the fresh noise comes from; the choice of the batch takes small ones
GATHERED = 4  # rows are gathered for batches of at most one in so many examples
SEPARATE = 32  # environments, up to which a shared design is kept as one array for each: a choice among more takes long to compile


def shared_design(
    key: Key,
    *,
    dim: int,
    num_environments: int,
    num_examples: int,
    symmetric: bool = True,
    dtype: Any = jnp.float32,
) -> Array:
    """Gaussian measurements for `fixed_design(design=...)`: one data set that all runs of a sweep measure with.

    Args:
        key: a key of its own, not a run's.
        dim: d.
        num_environments: E.
        num_examples: n, examples of each environment.
        symmetric: True for the packed coordinates of symmetric parts, False for whole matrices.
        dtype: of the numbers.

    Returns:
        The design [E, n, p] in packed coordinates, p = d (d + 1) / 2, or [E, n, d, d]; 4 bytes a number in single precision.

    Raises:
        ValueError: if a size is not a whole number of at least 1.
    """
    checks.integer("dim", dim)
    checks.integer("num_environments", num_environments)
    checks.integer("num_examples", num_examples)
    shape = num_environments, num_examples, *((dim * (dim + 1) // 2,) if symmetric else (dim, dim))
    return random.normals(key, shape, dtype)


def fixed_design(
    *,
    num_examples: int | None = None,
    design: Any = None,
    noise: float | Array = 0.0,
    fresh_noise: float | Array = 0.0,
    full: bool = False,
    replacement: bool = False,
    largest_batch: int | None = None,
    symmetric: bool = True,
) -> Measurement:
    """A finite data set in every environment, drawn once from the run's "data" stream; batches are drawn from it.

    With residuals r_i = <X_i, estimate> - y_i, y_i = <X_i, S_e> + noise * N(0, 1), the loss of a batch of m is
    1/(4m) sum_i r_i^2. Which m_e of its n examples environment e gives to a batch is drawn anew in every step:

    - by default without replacement: every subset of m_e examples is equally likely. This holds within a batch;
      batches are independent, there are no epochs. A batch that asks for more than n has a gradient of NaN, which ends
      the run as diverged, if it could not be refused before (`sgd` does, where the batch size is known).
    - `replacement`: every example is drawn independently, so the same one may come several times.
    - `full`: all n examples of each environment in the batch, weighted by its share m_e / m; nothing is drawn.

    Args:
        num_examples: n >= 1, the examples of each environment, which every run draws for itself: E n p numbers a run.
        design: in place of `num_examples` the measurements themselves, packed [E, n, p] (`shared_design`, `pack`) or
            dense [E, n, d, d]; of dense ones the symmetric parts count. As it is no part of a run, all the runs of a
            sweep share one copy and its products become products of matrices. Labels and their noise stay each run's.
        noise: sigma_y >= 0, the standard deviation of the label noise, drawn once; may be traced.
        fresh_noise: >= 0, the standard deviation of noise that is added to the labels anew in every step, the label-noise
            SGD of Blanc, Gupta, Valiant and Valiant (COLT 2020): E n normal numbers a step. May be traced.
        full: use every example of the batch's environments.
        replacement: draw examples with replacement.
        largest_batch: a promise that no batch has more examples. If it is well below n the rows of a batch are
            gathered, in place of products with a whole data set. Batches above it have a gradient of NaN (as above).
            The draws with replacement depend on it, those without do not.
        symmetric: False keeps whole measurement matrices, p = d^2, as models need that are not `symmetric`; a given
            design must then be dense.

    Returns:
        A measurement of the estimate space [d, d]; its data are the labels [E, n], after the design if it is a run's.

    Raises:
        ValueError: if an argument is out of range, or contradicts another; at the start of a run, if a given design
            does not fit the world.
    """
    checks.number("noise", noise, minimum=0)
    checks.number("fresh_noise", fresh_noise, minimum=0)
    if full and replacement:
        raise ValueError("replacement must be False where full is True: full batches draw nothing")
    if full and largest_batch is not None:
        raise ValueError(f"largest_batch must be None where full is True, got {largest_batch}")
    if largest_batch is not None:
        checks.integer("largest_batch", largest_batch)
    if (num_examples is None) == (design is None):
        raise ValueError("num_examples or design must be given, and not both")
    own = design is None
    with (
        jax.ensure_compile_time_eval()
    ):  # or what is done to the design in a cell would be a part of every program
        given = jnp.zeros((0, 0, 0)) if own else _coordinates(design, symmetric)
        shape = given.shape
        size = checks.integer("num_examples", num_examples) if own else shape[1]
        gathers = largest_batch is not None and GATHERED * largest_batch <= size
        shared = given if own or gathers or shape[0] > SEPARATE else tuple(given)
        del given  # or it would be held twice

    flatten, restore = (pack, unpack) if symmetric else (_flat, _square)

    def capacity(environments: int) -> int | None:
        limits = [] if full or replacement else [size * environments]
        return min([*limits, *([] if largest_batch is None else [largest_batch])], default=None)

    def init(key: Key, world: World) -> Any:
        design_key, noise_key = random.fold_in(key, jnp.arange(2))
        environments, dim = world.probabilities.shape[0], world.invariant_basis.shape[0]
        if own:
            dtype = world.invariant_basis.dtype
            measured = shared_design(
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
                    f"design must have shape {packed}[{environments}, n, {dim}, {dim}] in a world of {environments} "
                    f"environments and dim {dim}, got coordinates {list(shape)}"
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
        """Whether a batch asks for more examples than there are; []."""
        wrong = jnp.zeros((), bool)
        if largest_batch is not None:
            wrong |= jnp.sum(counts) > largest_batch
        if not full and not replacement:
            wrong |= jnp.any(counts > size)
        return wrong

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
        allowed, known = capacity(environments.shape[0]), checks.concrete(counts)
        if known is not None and allowed is not None and known.sum() > allowed:
            raise ValueError(f"counts must sum to at most {allowed}, got {known.tolist()}")
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
            weights = _weights(key, counts, size, full, replacement, largest_batch).astype(
                estimate.dtype
            )
            sums, loss = _products.of_environments(
                measured, labels, environments, weights, estimate
            )
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


def restricted_isometry(
    key: Key, design: Any, *, rank: int, starts: int = 16, iterations: int = 50
) -> Array:
    """A lower bound of the restricted isometry constant of each environment's measurements, by power iteration.

    The constant delta_r is the largest |(1/n) sum_i <X_i, M>^2 / |M|_F^2 - 1| over symmetric M of rank at most r; to
    find it is hard. Two truncated power iterations, M <- the best rank-r part of H M or of (c - H) M with H the second
    moments of the design, climb from random starts to local maxima and minima of that ratio. What they find is
    attained by some M, so the constant is at least that large; it may be larger.

    Args:
        key: draws the starts.
        design: [E, n, p] packed or [E, n, d, d] dense, as for `fixed_design`.
        rank: r >= 1, the largest rank of M.
        starts: random starts of each of both iterations.
        iterations: steps of each.

    Returns:
        The estimates [E], about 2 sqrt(2 d r / n) or somewhat below for Gaussian measurements with n >> d r.

    Raises:
        ValueError: if an argument is out of range.
    """
    measured = _coordinates(design)
    dim = packed_dim(measured.shape[2])
    checks.integer("rank", rank, maximum=dim)
    checks.integer("starts", starts)
    checks.integer("iterations", iterations)

    def truncate(coordinates: Array) -> Array:
        values, vectors = linalg.eigh(unpack(coordinates))
        kept = values * (jnp.argsort(jnp.argsort(-jnp.abs(values))) < rank)
        return _unit(pack(linalg.product(vectors * kept[None, :], vectors.T)))

    def one(environment: tuple[Array, Key]) -> Array:
        rows, own_key = environment

        def moments(matrices: Array) -> Array:
            """H M for M [k, p]."""
            inner = linalg.product(matrices, rows.T)
            return linalg.product(inner, rows) / rows.shape[0]

        def ratio(matrices: Array) -> Array:
            return jnp.mean(linalg.product(matrices, rows.T) ** 2, 1)

        begin = jax.vmap(truncate)(jax.random.normal(own_key, (starts, rows.shape[1]), rows.dtype))
        top = jax.lax.fori_loop(0, iterations, lambda _, m: _unit(moments(m)), begin)
        # above the largest eigenvalue of H, so that the second iteration climbs too
        shift = 1.1 * jnp.max(ratio(top))
        high = jax.lax.fori_loop(0, iterations, lambda _, m: jax.vmap(truncate)(moments(m)), begin)
        low = jax.lax.fori_loop(
            0, iterations, lambda _, m: jax.vmap(truncate)(shift * m - moments(m)), begin
        )
        return jnp.max(jnp.abs(ratio(jnp.concatenate([high, low])) - 1))

    return jax.lax.map(one, (measured, jax.random.split(key, measured.shape[0])))


def _flat(matrices: Array) -> Array:
    return matrices.reshape(*matrices.shape[:-2], -1)


def _square(coordinates: Array) -> Array:
    dim = math.isqrt(coordinates.shape[-1])
    return coordinates.reshape(*coordinates.shape[:-1], dim, dim)


def _coordinates(design: Any, symmetric: bool = True) -> Array:
    """A design as [E, n, p], checked as far as that can be done without a world."""
    shape = tuple(np.shape(design))
    dense = len(shape) == 4 and shape[2] == shape[3]
    if not (dense or (symmetric and len(shape) == 3 and packed_dim(shape[2]))) or 0 in shape:
        packed = "[E, n, d (d + 1) / 2] or " if symmetric else ""
        raise ValueError(f"design must have shape {packed}[E, n, d, d], got {list(shape)}")
    checks.number("design", design, scalar=False)
    array = jnp.asarray(design)
    array = array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
    if not symmetric:
        return _flat(array)
    return pack(array) if dense else array


def _weights(
    key: Key, counts: Array, size: int, full: bool, replacement: bool, largest_batch: int | None
) -> Array:
    """How many times each example is in the batch, [B, n]; the share of its environment for full batches."""
    if full:
        return jnp.broadcast_to(counts[:, None] / size, (counts.shape[0], size))
    if replacement and largest_batch is not None:
        rows, owner, valid = _rows(key, counts, size, largest_batch, True)
        return jnp.zeros((counts.shape[0], size)).at[owner, rows].add(valid)
    keys = random.fold_in(key, jnp.arange(counts.shape[0]))
    if replacement:
        uniform = jnp.full(size, 1 / size)
        return jax.vmap(lambda k, c: random.multinomial(k, c.astype(uniform.dtype), uniform))(
            keys, counts
        )
    return jax.vmap(lambda k, c: random.subset(k, size, c))(keys, counts)


def _rows(
    key: Key, counts: Array, size: int, largest_batch: int, replacement: bool
) -> tuple[Array, Array, Array]:
    """Which example [M] of the how manieth environment [M] of the batch each place of it takes, and whether it does."""
    owner, valid = owners(counts, 0, largest_batch)
    if replacement:
        return jax.random.randint(key, (largest_batch,), 0, size), owner, valid
    keys = random.fold_in(key, jnp.arange(counts.shape[0]))
    masks = jax.vmap(lambda k, c: random.subset(k, size, c))(keys, counts)
    chosen = jax.lax.top_k(masks.astype(jnp.float32), min(largest_batch, size))[
        1
    ]  # top_k keeps ties in order
    first = (jnp.cumsum(counts) - counts)[owner]
    within = jnp.minimum(jnp.arange(largest_batch) - first, chosen.shape[1] - 1)
    return chosen[owner, within], owner, valid


def _unit(coordinates: Array) -> Array:
    return coordinates / jnp.linalg.norm(coordinates, axis=-1, keepdims=True)

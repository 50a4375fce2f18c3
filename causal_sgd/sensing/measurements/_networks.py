"""Examples for networks: inputs x ~ N(0, I), drawn anew in every step, with quadratic labels.

An example of environment e is an input x with the label
y = (x'S_e x - tr S_e) / sqrt(2) + noise N(0, 1), as if the measurement matrix were
X = (x x' - I) / sqrt(2). With this scale E[<X, R> X] = R for every symmetric R, as in matrix
sensing with Gaussian X, so that learning rates, times and critical values of the theory carry over.
Without the trace correction X = x x' / sqrt(2) and E[<X, R> X] = R + tr(R) I / 2: the trace of the
residual, which varies between environments, drives every direction.

X has rank one, up to the correction, and is not isotropic. For symmetric M, Var <X, M> = |M|^2 as
for Gaussian X, but E[<X, R>^2 <X, M>^2] = |R|^2 |M|^2 + 2 <R, M>^2 + 8 tr(R^2 M^2) + 4 tr(RMRM),
of which Gaussian X has only the first two terms. For R = s v v' the variance along v v' is 14 s^2
instead of 2 s^2. No exact law with a cost independent of the batch size exists: m d numbers are
drawn.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements._algebra import (
    batch_size,
    checked_slab,
    dense_invariant,
    measure_spans,
    of_owners,
    over_slabs,
    owners,
    pull_back,
)
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params

MOST = 256  # examples drawn at once by default; batches are padded to a multiple of it
SCALE = math.sqrt(0.5)


def rank_one(
    *, noise: float | Array = 0.0, trace_correction: bool = True, slab_size: int | None = None
) -> Measurement:
    """Measurements X = (x x' - I) / sqrt(2) with x ~ N(0, I).

    They train two-layer networks with quadratic activations: the prediction is <X, estimate>. With
    the trace correction the mean gradient is that of `population`.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced.
        trace_correction: False for X = x x' / sqrt(2), whose mean gradient has R + tr(R) I / 2 in
            place of R.
        slab_size: examples held at once by a run; None for at most 256. It changes the draws.

    Returns:
        A measurement of the estimate space [d, d] that draws m d numbers a step. It sees only the
        symmetric part of an estimate.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("noise", noise, minimum=0)
    checked_slab(slab_size, 1)
    checks.flags(trace_correction=trace_correction)

    def of_span(
        key: Key,
        step: Array,
        data: Array,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        first: Array | int,
    ) -> tuple[Params, Array]:
        error = model.estimate(params) - data
        size, dim = batch_size(batch), error.shape[0]
        slab = checked_slab(slab_size, dim, MOST)
        trace = jnp.trace(error) if trace_correction else jnp.zeros((), error.dtype)

        def add_slab(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            inputs, normals, valid, owner = _draw(key, index, slab, dim, error.dtype, batch, first)
            own = _spurious_forms(inputs, owner, world, batch, trace_correction)
            forms = jnp.sum(linalg.product(inputs, error) * inputs, 1) - trace - own
            residuals = jnp.where(valid, SCALE * forms - noise * normals, 0)
            gain = linalg.product(inputs.T, residuals[:, None] * inputs)
            sums, plain, total = carry
            return sums + gain, plain + jnp.sum(residuals), total + jnp.sum(residuals**2)

        zero = jnp.zeros((), error.dtype)
        sums, plain, total = over_slabs(
            add_slab, (jnp.zeros_like(error), zero, zero), batch, slab, first
        )
        if trace_correction:
            # The -I of every X, once: it is the same in all examples.
            sums = sums - plain * jnp.eye(dim)
        number = size.astype(error.dtype)
        return pull_back(model, params, SCALE * sums / number), total / number / 4

    return measure_spans(dense_invariant, of_span)


def examples(
    *, noise: float | Array = 0.0, trace_correction: bool = True, slab_size: int | None = None
) -> Measurement:
    """Inputs and labels: the loss is sum_i r_i^2 / (4 m) with r_i = f(x_i) / sqrt(2) - y_i.

    f is the model's `predict`; jax.grad gives the gradient. For models without `predict`, f(x) is
    x' estimate x, minus the trace of the estimate with the correction; this equals `rank_one`, draw
    by draw. The division by sqrt(2) keeps the learning rates of matrix sensing, as for `rank_one`.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced.
        trace_correction: whether the labels are centred, y = (x'S_e x - tr S_e) / sqrt(2). The
            predictions of a model with `predict` are not corrected; it has a constant of its own.
        slab_size: examples held at once by a run; None for at most 256. It changes the draws.

    Returns:
        A measurement that draws m d numbers a step.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("noise", noise, minimum=0)
    checked_slab(slab_size, 1)
    checks.flags(trace_correction=trace_correction)

    def of_span(
        key: Key,
        step: Array,
        data: tuple[()],
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        first: Array | int,
    ) -> tuple[Params, Array]:
        size, dim = batch_size(batch), world.invariant_basis.shape[0]
        dtype = world.invariant_basis.dtype
        slab = checked_slab(slab_size, dim, MOST)
        spectrum = world.invariant_spectrum
        trace = jnp.sum(spectrum) if trace_correction else jnp.zeros((), dtype)

        def squares(params: Params, index: Array) -> Array:
            inputs, normals, valid, owner = _draw(key, index, slab, dim, dtype, batch, first)
            inside = linalg.product(inputs, world.invariant_basis)
            shared = jnp.sum(inside**2 * spectrum[None, :], 1) - trace
            labels = shared + _spurious_forms(inputs, owner, world, batch, trace_correction)
            predictions = _predictions(model, params, inputs, trace_correction)
            return jnp.sum(
                jnp.where(valid, SCALE * (predictions - labels) - noise * normals, 0) ** 2
            )

        def add_slab(index: Array, carry: tuple[Array, Params]) -> tuple[Array, Params]:
            # Differentiated within the loop, slab by slab: nothing is kept for a backward pass.
            return jax.tree.map(jnp.add, carry, jax.value_and_grad(squares)(params, index))

        start = jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, params)
        total, sums = over_slabs(add_slab, start, batch, slab, first)
        number = size.astype(dtype)
        return jax.tree.map(lambda leaf: leaf / number / 4, sums), total / number / 4

    return measure_spans(lambda key, world: (), of_span)


def _predictions(
    model: MatrixModel, params: Params, inputs: Array, trace_correction: bool
) -> Array:
    """The model's predictions [n] for inputs [n, d]."""
    predict = model.predict
    if predict is not None:
        return jax.vmap(lambda one: predict(params, one))(inputs)
    estimate = model.estimate(params)
    forms = jnp.sum(linalg.product(inputs, estimate) * inputs, 1)
    return forms - jnp.trace(estimate) if trace_correction else forms


def _draw(
    key: Key, index: Array, slab: int, dim: int, dtype: DTypeLike, batch: Batch, first: Array | int
) -> tuple[Array, Array, Array, Array]:
    """The examples of a slab.

    Returns:
        Inputs [n, d], normals for the noise [n], whether an example belongs to the batch [n], and
        the position of its environment within the batch [n].
    """
    numbers = random.normals(random.fold_in(key, index), slab * (dim + 1), dtype)
    owner, valid = owners(batch.counts, index * slab - first, slab)
    return numbers[: slab * dim].reshape(slab, dim), numbers[slab * dim :], valid, owner


def _spurious_forms(
    inputs: Array, owner: Array, world: World, batch: Batch, trace_correction: bool
) -> Array:
    """x'A_e x for each input and its environment, minus the trace of A_e if corrected; [n]."""
    inside = linalg.product(inputs, world.spurious_basis)
    cores = world.spurious_cores[batch.environments]
    across = jnp.einsum("ni,eij->nej", inside, cores, precision="highest")
    forms = jnp.sum(across * inside[:, None, :], 2)  # [n, B]
    if trace_correction:
        gram = linalg.product(world.spurious_basis.T, world.spurious_basis)
        forms = forms - jnp.sum(cores * gram[None], (1, 2))[None, :]
    return of_owners(forms, owner)

"""Matrix completion: single entries of the signal, drawn anew in every step."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.sensing.measurements._algebra import (
    batch_size,
    checked_slab,
    dense_invariant,
    measure_spans,
    over_slabs,
    owners,
    pull_back,
)
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params

MOST = 1024  # entries drawn at once by default; batches are padded to a multiple of it


def completion(*, noise: float | Array = 0.0, slab_size: int | None = None) -> Measurement:
    """Uniformly drawn entries, with replacement: X = d e_i e_j'.

    The mean gradient is that of `population`, since E[<X, R> X] = R, and E |X|_F^2 = d^2 as for a
    Gaussian X. But X is far from isotropic. E[<X, R>^2 <X, M>^2] = d^2 sum_ij R_ij^2 M_ij^2 is of
    the order |R|^2 |M|^2, the value for Gaussian X, only if R is spread evenly over all entries,
    that is if the bases of the signals are incoherent (`designs.coherence` near 1). Random bases
    are, up to logarithms. In the canonical basis each signal has r diagonal entries, and a batch of
    m << d^2 / r examples contains none of them or overweights those that it contains.

    Args:
        noise: sigma_y >= 0, the standard deviation of the noise of a label d S_ij. An entry is thus
            observed with noise / d, and the gradient is as noisy as in matrix sensing. May be
            traced.
        slab_size: entries held at once by a run; None for 1024. It changes the draws.

    Returns:
        A measurement of the estimate space [d, d] that draws 3 m numbers a step.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("noise", noise, minimum=0)
    slab = checked_slab(slab_size, 1, MOST)

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
        basis, cores = world.spurious_basis, world.spurious_cores[batch.environments]

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            slab_key = random.fold_in(key, index)
            uniform = random.uniforms(random.bits(slab_key, 2 * slab), error.dtype).reshape(2, slab)
            # The minimum guards against a product that rounds up to d.
            place = jnp.minimum((dim * uniform).astype(jnp.int32), dim - 1)
            owner, valid = owners(batch.counts, index * slab - first, slab)
            across = jnp.einsum("ni,nij->nj", basis[place[0]], cores[owner], precision="highest")
            entries = error[place[0], place[1]] - jnp.sum(across * basis[place[1]], 1)
            labels = noise * random.normals(slab_key, slab, error.dtype, stream=1)
            residuals = jnp.where(valid, dim * entries - labels, 0)
            sums, total = carry
            return sums.at[place[0], place[1]].add(residuals), total + jnp.sum(residuals**2)

        zero = jnp.zeros_like(error), jnp.zeros((), error.dtype)
        sums, total = over_slabs(add_slab, zero, batch, slab, first)
        matrix = (sums + sums.T) / 2 if model.symmetric else sums
        examples = size.astype(error.dtype)
        return pull_back(model, params, dim * matrix / examples), total / examples / 4

    return measure_spans(dense_invariant, of_span)

"""Matrix completion: of the signal single entries are seen, drawn anew in every step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.sensing.measurements._algebra import dense_invariant, owners, pull_back, slabs
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params

__all__ = ["coherence", "completion"]

MOST = 1024  # entries drawn at once: batches are filled up to a multiple of it


def completion(*, noise: float | Array = 0.0, slab_size: int | None = None) -> Measurement:
    """Entries at places drawn uniformly, with replacement: X = d e_i e_j', so that the mean gradient is `population`'s.

    E |X|_F^2 = d^2 as for a Gaussian X, and E[<X, R> X] = R. But X is far from isotropic: E[<X, R>^2 <X, M>^2] =
    d^2 sum_ij R_ij^2 M_ij^2 is of the order |R|^2 |M|^2, the value for Gaussian X, only where R is spread over all entries
    alike: where the bases of the signals are incoherent (`coherence` near 1). In a random basis they are, up to logarithms. In
    the canonical basis each signal sits in r diagonal entries, of which a batch of m << d^2 / r sees none or too much.

    Args:
        noise: sigma_y >= 0, the standard deviation of the noise of a label d S_ij: an entry is known up to noise / d, and
            the noise shakes the gradient as much as in matrix sensing. May be traced.
        slab_size: entries held at once by a run; None for 1024. It changes the draws.

    Returns:
        A measurement of the estimate space [d, d] that draws 3 m numbers a step.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("noise", noise, minimum=0)
    slab = MOST if slab_size is None else checks.integer("slab_size", slab_size)

    def gradient(
        key: Key,
        step: Array,
        data: Any,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        error = model.estimate(params) - data
        size, dim = jnp.sum(batch.counts), error.shape[0]
        basis, cores = world.spurious_basis, world.spurious_cores[batch.environments]

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            slab_key = random.fold_in(key, index)
            uniform = random.uniforms(random.bits(slab_key, 2 * slab), error.dtype).reshape(2, slab)
            place = jnp.minimum((dim * uniform).astype(jnp.int32), dim - 1)
            owner, valid = owners(batch.counts, index * slab, slab)
            across = jnp.einsum("ni,nij->nj", basis[place[0]], cores[owner], precision="highest")
            entries = error[place[0], place[1]] - jnp.sum(across * basis[place[1]], 1)
            labels = noise * random.normals(slab_key, slab, error.dtype, stream=1)
            residuals = jnp.where(valid, dim * entries - labels, 0)
            sums, total = carry
            return sums.at[place[0], place[1]].add(residuals), total + jnp.sum(residuals**2)

        zero = jnp.zeros_like(error), jnp.zeros((), error.dtype)
        sums, total = jax.lax.fori_loop(0, slabs(size, slab), add_slab, zero)
        matrix = (sums + sums.T) / 2 if model.symmetric else sums
        return pull_back(model, params, dim * matrix / size), total / (4 * size)

    return Measurement(dense_invariant, gradient)


def coherence(basis: Array) -> Array:
    """How much a subspace leans on single coordinates, (d / r) max_i |e_i' B|^2 (Candes and Recht 2009); [].

    Args:
        basis: B [d, r] with orthonormal columns.

    Returns:
        A number from 1, where all coordinates take part alike, to d / r, where a coordinate lies in the subspace.
    """
    dim, rank = basis.shape
    return dim / rank * jnp.max(jnp.sum(basis**2, 1))

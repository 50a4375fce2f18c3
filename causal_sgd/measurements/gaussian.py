"""How examples become a gradient: in the mean, by the exact law of the batch gradient, or really drawn.

All three are written in the space of the estimate. With residuals r_i = <X_i, estimate - S_e> + noise the loss of a
batch of m is 1/(4m) sum_i r_i^2, and its gradient with respect to the estimate is G / 2 with
G = (1/m) sum_i r_i sym(X_i); the model pulls that back to its parameters. X_i has iid N(0, 1) entries.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from causal_sgd import checks, draws
from causal_sgd.measurements.algebra import combine, dense_invariant, pack, pull_back, safe_inverse, sandwich, unpack
from causal_sgd.types import Array, Batch, Key, Measurement, Model, Params, World

__all__ = ["gaussian_law", "population", "streamed"]

SLAB = 2**16  # numbers drawn at once by `streamed`


def population() -> Measurement:
    """The mean gradient over infinitely many measurements of the batch's environments: G = sum_e (m_e/m) R_e.

    Only the shares of the environments in the batch matter, not its size.
    """

    def gradient(
        key: Key, step: Array, data: Any, model: Model, params: Params, world: World, batch: Batch
    ) -> tuple[Params, Array]:
        shares = batch.counts / jnp.sum(batch.counts)
        cores = world.spurious_cores[batch.environments]
        mean_core = combine(shares, cores)
        residual = model.estimate(params) - data - world.spurious(mean_core)
        # sum_e share_e |R_e|^2 = |mean R|^2 + the variance of the cores, as the spurious basis is orthonormal
        variance = jnp.sum(shares * jnp.sum((cores - mean_core[None]) ** 2, (1, 2)))
        loss = (jnp.sum(residual**2) + variance) / 4
        return pull_back(model, params, residual), loss

    return Measurement(dense_invariant, gradient)


def gaussian_law(*, noise: float | Array = 0.0) -> Measurement:
    """Streaming Gaussian measurements by the exact law of the batch gradient, at a cost free of the batch size.

    sym(X) is a GOE matrix (variance 1 on, 1/2 off the diagonal), isotropic among symmetric matrices. Given the residual
    matrix R_e the m_e examples of one environment therefore contribute to m G

        (|R_e| Q - noise g sqrt(Q)) R_e/|R_e| + sqrt(RR_e) (W - <W, R_e/|R_e|> R_e/|R_e|),
        RR_e = |R_e|^2 Q - 2 |R_e| noise g sqrt(Q) + noise^2 (g^2 + K),

    with Q ~ chi^2_{m_e}, g ~ N(0, 1), K ~ chi^2_{m_e - 1} and W ~ GOE(d) independent. Several environments add up; as
    their residuals differ only within the span of V (.) V', each needs its own draw only there, and one GOE matrix scaled
    by sqrt(sum_e RR_e) serves the rest. Distribution and batch loss sum_e RR_e / (4m) are exact, for every m.

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced. A plain 0 draws none.

    Returns:
        A measurement of the estimate space [d, d].
    """
    checks.number("noise", noise, minimum=0)
    known = checks.concrete(noise)
    noiseless = known is not None and not known.any()

    def squared_sums(key: Key, counts: Array, norms: Array) -> tuple[Array, Array]:
        """Along R_e/|R_e| the sum of r_i <X_i, R_e>/|R_e|, and the sum of r_i^2, for each environment: [B], [B]."""
        law_key, noise_key = jax.random.split(key)
        size = counts.astype(norms.dtype)
        squares = draws.chi_square(law_key, size)
        if noiseless:
            return norms * squares, norms**2 * squares
        normal_key, rest_key = jax.random.split(noise_key)
        cross = noise * jax.random.normal(normal_key, size.shape, size.dtype) * jnp.sqrt(squares)
        rest = draws.chi_square(rest_key, size - 1)
        own = noise**2 * jnp.where(size > 0, rest, 0)
        along = norms * squares - cross
        # |R|^2 Q - 2 |R| c + noise^2 g^2 = (|R| Q - c)^2 / Q: a sum of squares cannot round to below zero
        return along, along**2 / jnp.where(squares > 0, squares, 1) + own

    def pure(key: Key, residual: Array, size: Array) -> tuple[Array, Array]:
        """M G [d, d] and sum of r_i^2 [] for a batch from one environment."""
        sums_key, goe_key = jax.random.split(key)
        norm = jnp.sqrt(jnp.sum(residual**2))
        along, total = squared_sums(sums_key, size[None], norm[None])
        goe = draws.goe(goe_key, residual.shape[0], residual.dtype)
        inverse = safe_inverse(norm)
        scale = jnp.sqrt(total[0])
        projection = jnp.sum(goe * residual) * inverse
        return (along[0] - scale * projection) * inverse * residual + scale * goe, total[0]

    def mixture(key: Key, off: Array, blocks: Array, basis: Array, counts: Array) -> tuple[Array, Array]:
        """M G [d, d] and sum of r_i^2 [] for several environments with R_e = off + V blocks_e V'.

        `off` [d, d] is the part of the residuals outside the span of V (.) V', the same for all environments, so that
        its direction and V (.) V' with `blocks` [B, r2, r2] are orthogonal coordinates of every R_e.
        """
        sums_key, goe_key, line_key, block_key = jax.random.split(key, 4)
        size, rank = blocks.shape[:2]
        off_norm = jnp.sqrt(jnp.sum(off**2))
        norms = jnp.sqrt(off_norm**2 + jnp.sum(blocks**2, (1, 2)))
        along, totals = squared_sums(sums_key, counts, norms)
        inverse = safe_inverse(norms)
        unit_line, unit_blocks = off_norm * inverse, blocks * inverse[:, None, None]
        line = jax.random.normal(line_key, (size,), off.dtype)
        goes = jax.vmap(lambda k: draws.goe(k, rank, off.dtype))(jax.random.split(block_key, size))
        overlap = line * unit_line + jnp.sum(goes * unit_blocks, (1, 2))
        scales = jnp.sqrt(totals)
        shift = along - scales * overlap
        line_sum = jnp.sum(scales * line + shift * unit_line)
        block_sum = combine(scales, goes) + combine(shift, unit_blocks)
        # One GOE matrix for all that is orthogonal to those coordinates, with its components along them taken out.
        total = jnp.sum(totals)
        scale = jnp.sqrt(total)
        goe = draws.goe(goe_key, off.shape[0], off.dtype)
        goe_block = sandwich(basis.T, goe)
        off_inverse = safe_inverse(off_norm)
        goe_line = jnp.sum(goe * off) * off_inverse
        matrix = (line_sum - scale * goe_line) * off_inverse * off + scale * goe
        return matrix + sandwich(basis, block_sum - scale * goe_block), total

    def gradient(
        key: Key, step: Array, data: Any, model: Model, params: Params, world: World, batch: Batch
    ) -> tuple[Params, Array]:
        size = jnp.sum(batch.counts)
        cores = world.spurious_cores[batch.environments]
        error = model.estimate(params) - data
        if batch.environments.shape[0] == 1:
            matrix, total = pure(key, error - world.spurious(cores[0]), size)
        else:
            basis = world.spurious_basis
            block = sandwich(basis.T, error)
            off = error - sandwich(basis, block)
            # Where V spans all that the error has, only rounding is left, and that has no direction.
            floor = 64 * jnp.finfo(off.dtype).eps
            off = jnp.where(jnp.sum(off**2) > floor**2 * jnp.sum(error**2), off, 0)
            matrix, total = mixture(key, off, block[None] - cores, basis, batch.counts)
        return pull_back(model, params, matrix / size), total / (4 * size)

    return Measurement(dense_invariant, gradient)


def streamed(*, noise: float | Array = 0.0, slab_size: int | None = None) -> Measurement:
    """Really draws every measurement matrix of the batch: the plain definition, and the oracle of `gaussian_law`.

    Only sym(X) meets the symmetric residuals, so of every measurement its d (d + 1) / 2 packed coordinates are drawn, which
    are iid N(0, 1).

    Args:
        noise: sigma_y >= 0, the standard deviation of the label noise; may be traced.
        slab_size: measurements held at once by a run; None for about 2^16 numbers. It bounds the memory and changes
            the draws.

    Returns:
        A measurement of the estimate space [d, d] whose cost is that of m d (d + 1) / 2 normal numbers a step.
    """
    checks.number("noise", noise, minimum=0)
    if slab_size is not None:
        checks.integer("slab_size", slab_size)

    def gradient(
        key: Key, step: Array, data: Any, model: Model, params: Params, world: World, batch: Batch
    ) -> tuple[Params, Array]:
        size = jnp.sum(batch.counts)
        last = jnp.cumsum(batch.counts)
        error = model.estimate(params) - data
        dim = error.shape[0]
        width = dim * (dim + 1) // 2
        slab = slab_size or max(1, SLAB // width)
        spurious = jax.vmap(world.spurious)(world.spurious_cores[batch.environments])
        residuals = pack(error[None] - spurious).T  # [p, B]

        def add_slab(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            sums, total = carry
            law_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
            example = index * slab + jnp.arange(slab)
            owner = jnp.sum(last[None, :] <= example[:, None], 1)  # B for the examples past the end of the batch
            measured = draws.normal(law_key, (slab, width), error.dtype)
            products = jnp.matmul(measured, residuals, precision="highest")
            products = jnp.sum(jnp.where(owner[:, None] == jnp.arange(products.shape[1])[None, :], products, 0), 1)
            labels = noise * jax.random.normal(noise_key, (slab,), error.dtype)
            residual = jnp.where(example < size, products - labels, 0)
            gain = jnp.matmul(residual, measured, precision="highest")
            return sums + gain, total + jnp.sum(residual**2)

        zero = jnp.zeros(width, error.dtype), jnp.zeros((), error.dtype)
        sums, total = jax.lax.fori_loop(0, (size + slab - 1) // slab, add_slab, zero)
        return pull_back(model, params, unpack(sums / size)), total / (4 * size)

    return Measurement(dense_invariant, gradient)

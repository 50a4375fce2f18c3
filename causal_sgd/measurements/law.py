"""The exact law of the batch gradient, in any orthonormal frame that holds the residuals.

Given the residual matrix R_e, the m_e examples of one environment contribute to m G

    (|R_e| Q - noise g sqrt(Q)) R_e/|R_e| + sqrt(RR_e) (W - <W, R_e/|R_e|> R_e/|R_e|),
    RR_e = |R_e|^2 Q - 2 |R_e| noise g sqrt(Q) + noise^2 (g^2 + K),

with Q ~ chi^2_{m_e}, g ~ N(0, 1), K ~ chi^2_{m_e - 1} and W ~ GOE(d) independent. Only inner products with the residuals
enter, so with R_e = F C_e F' for a frame F of n orthonormal columns all of it may be said of the n x n matrices C_e and
F' W F. `gaussian_law` takes the frame of all d directions, `low_rank_law` a small one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, draws
from causal_sgd.measurements.algebra import combine, safe_inverse, sandwich
from causal_sgd.types import Array, Key

__all__ = ["Keys", "batch_gradient"]


class Keys(NamedTuple):
    """The streams of one batch."""

    sums: Key
    goe: Key  # the caller's, for W
    line: Key
    blocks: Key


def batch_gradient(
    keys: Keys,
    goe: Array,
    error: Array,
    basis: Array,
    cores: Array,
    counts: Array,
    noise: float | Array,
) -> tuple[Array, Array, Array]:
    """M G = part + scale W for a batch of environments with the residuals error - basis core_e basis'.

    Args:
        keys: of the batch; `keys.goe` is not used here.
        goe: W in the frame, [n, n].
        error: the estimate minus A* in the frame, [n, n].
        basis: V in the frame, orthonormal columns, [n, r2].
        cores: of the environments, [B, r2, r2].
        counts: m_e, [B]; may be zero where B > 1.
        noise: sigma_y, may be traced; a plain 0 draws none.

    Returns:
        part [n, n] in the frame, scale [], and the sum of the squared residuals of all examples [].
    """
    if counts.shape[0] == 1:
        return _pure(keys, goe, error - sandwich(basis, cores[0]), counts, noise)
    block = sandwich(basis.T, error)
    off = error - sandwich(basis, block)
    # Where V spans all that the error has, only rounding is left, and that has no direction.
    floor = 64 * jnp.finfo(off.dtype).eps
    off = jnp.where(jnp.sum(off**2) > floor**2 * jnp.sum(error**2), off, 0)
    return _mixture(keys, goe, off, block[None] - cores, basis, counts, noise)


def _squared_sums(key: Key, counts: Array, norms: Array, noise: float | Array) -> tuple[Array, Array]:
    """Along R_e/|R_e| the sum of r_i <X_i, R_e>/|R_e|, and the sum of r_i^2, for each environment: [B], [B]."""
    law_key, noise_key = jax.random.split(key)
    size = counts.astype(norms.dtype)
    squares = draws.chi_square(law_key, size)
    known = checks.concrete(noise)
    if known is not None and not known.any():
        return norms * squares, norms**2 * squares
    normal_key, rest_key = jax.random.split(noise_key)
    cross = noise * jax.random.normal(normal_key, size.shape, size.dtype) * jnp.sqrt(squares)
    rest = draws.chi_square(rest_key, size - 1)
    own = noise**2 * jnp.where(size > 0, rest, 0)
    along = norms * squares - cross
    # |R|^2 Q - 2 |R| c + noise^2 g^2 = (|R| Q - c)^2 / Q: a sum of squares cannot round to below zero
    return along, along**2 / jnp.where(squares > 0, squares, 1) + own


def _pure(
    keys: Keys, goe: Array, residual: Array, counts: Array, noise: float | Array
) -> tuple[Array, Array, Array]:  # fmt: skip
    """`batch_gradient` for one environment with the residual [n, n]."""
    norm = jnp.sqrt(jnp.sum(residual**2))
    along, total = _squared_sums(keys.sums, counts, norm[None], noise)
    inverse = safe_inverse(norm)
    scale = jnp.sqrt(total[0])
    projection = jnp.sum(goe * residual) * inverse
    return (along[0] - scale * projection) * inverse * residual, scale, total[0]


def _mixture(
    keys: Keys, goe: Array, off: Array, blocks: Array, basis: Array, counts: Array, noise: float | Array
) -> tuple[Array, Array, Array]:
    """`batch_gradient` for several environments with R_e = off + V blocks_e V'.

    `off` [n, n] is the part of the residuals outside the span of V (.) V', the same for all environments, so that its
    direction and V (.) V' with `blocks` [B, r2, r2] are orthogonal coordinates of every R_e.
    """
    size, rank = blocks.shape[:2]
    off_norm = jnp.sqrt(jnp.sum(off**2))
    norms = jnp.sqrt(off_norm**2 + jnp.sum(blocks**2, (1, 2)))
    along, totals = _squared_sums(keys.sums, counts, norms, noise)
    inverse = safe_inverse(norms)
    unit_line, unit_blocks = off_norm * inverse, blocks * inverse[:, None, None]
    line = jax.random.normal(keys.line, (size,), off.dtype)
    goes = jax.vmap(lambda k: draws.goe(k, rank, off.dtype))(jax.random.split(keys.blocks, size))
    overlap = line * unit_line + jnp.sum(goes * unit_blocks, (1, 2))
    scales = jnp.sqrt(totals)
    shift = along - scales * overlap
    line_sum = jnp.sum(scales * line + shift * unit_line)
    block_sum = combine(scales, goes) + combine(shift, unit_blocks)
    # W serves all that is orthogonal to those coordinates, with its components along them taken out.
    total = jnp.sum(totals)
    scale = jnp.sqrt(total)
    off_inverse = safe_inverse(off_norm)
    goe_line = jnp.sum(goe * off) * off_inverse
    part = (line_sum - scale * goe_line) * off_inverse * off
    return part + sandwich(basis, block_sum - scale * sandwich(basis.T, goe)), scale, total

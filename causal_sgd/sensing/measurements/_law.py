"""The exact law of the batch gradient, in any orthonormal frame that holds the residuals.

Given the residual matrix R_e, the m_e examples of one environment contribute to m G

    (|R_e| Q - noise g sqrt(Q)) R_e/|R_e| + sqrt(RR_e) (W - <W, R_e/|R_e|> R_e/|R_e|),
    RR_e = |R_e|^2 Q - 2 |R_e| noise g sqrt(Q) + noise^2 (g^2 + K),

with Q ~ chi^2_{m_e}, g ~ N(0, 1), K ~ chi^2_{m_e - 1} and W ~ GOE(d) independent. Only inner
products with the residuals enter. If R_e = F C_e F' for a frame F of n orthonormal columns, the law
can therefore be written in the n x n matrices C_e and F' W F. `gaussian_law` uses the frame of all
d directions, `low_rank_law` a small one.

For estimates that are not symmetric the whole of X matters, which is isotropic among all matrices.
The same law holds, with iid N(0, 1) entries of W in place of a GOE matrix.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from causal_sgd import checks, random
from causal_sgd.sensing.measurements._algebra import (
    combine,
    fused_sandwich,
    inner_product,
    safe_inverse,
    safe_ratio,
)
from causal_sgd.types import Array, Key


class Numbers(NamedTuple):
    """The random numbers of one batch from B environments."""

    normals: Array  # [*] for the caller, who makes W from them
    candidates: Array  # [1 or 2, B, *] normals of the chi-squares; the second is for the noise
    words: Array  # [1 or 2, B, *] 32-bit words of the chi-squares
    cross: Array  # [B] normals, g; none without noise
    line: Array  # [B] normals; none for a pure batch
    blocks: Array  # [B, *] normals of matrices [r2, r2] like W; none for a pure batch


def half_size(dim: int, symmetric: bool) -> int:
    """Normal numbers that `make_half` takes."""
    return random.goe_summand_size(dim) if symmetric else dim * dim


def make_half(normals: Array, dim: int, symmetric: bool) -> Array:
    """H [d, d]: H + H' is a GOE matrix or, without symmetry, 2 H has iid N(0, 1) entries."""
    return random.goe_summand(normals, dim) if symmetric else normals.reshape(dim, dim) / 2


def whole(half: Array, symmetric: bool) -> Array:
    """W from H. In both cases <W, R> = 2 <H, R>, as the residuals R are symmetric if W is."""
    return half + half.T if symmetric else 2 * half


def draw_numbers(
    key: Key,
    size: int,
    *,
    environments: int,
    spurious_rank: int,
    noise: float | Array,
    dtype: DTypeLike,
    symmetric: bool = True,
) -> Numbers:
    """All random numbers of one batch, drawn in one pass, since every pass has a launch cost.

    Args:
        key: of the step.
        size: normals that the caller needs.
        environments: B.
        spurious_rank: r2.
        noise: sigma_y; nothing is drawn for a plain 0.
        dtype: of the numbers.
        symmetric: whether W is symmetric.
    """
    chi_squares = 1 if checks.is_zero(noise) else 2
    # `line` and `blocks` tell the environments of a batch apart; a pure batch has W alone.
    shapes = {
        "normals": (size,),
        "candidates": (chi_squares, environments, random.CHI_SQUARE_NORMALS),
        "cross": (0 if chi_squares == 1 else environments,),
        "line": (0 if environments == 1 else environments,),
        "blocks": (0 if environments == 1 else environments, half_size(spurious_rank, symmetric)),
    }
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    normals = jnp.split(random.normals(key, int(ends[-1]), dtype), ends)
    parts = {
        name: part.reshape(shape)
        for (name, shape), part in zip(shapes.items(), normals, strict=False)
    }
    tail = chi_squares, environments, random.CHI_SQUARE_WORDS
    return Numbers(**parts, words=random.bits(key, math.prod(tail), stream=1).reshape(tail))


def batch_gradient(
    numbers: Numbers,
    half: Array,
    error: Array,
    basis: Array,
    cores: Array,
    counts: Array,
    noise: float | Array,
    symmetric: bool = True,
) -> tuple[Array, Array, Array]:
    """The law of m G = part + scale W for environments with residuals error - basis core_e basis'.

    Args:
        numbers: of the batch.
        half: H of W in the frame (see `whole`), [n, n].
        error: the estimate minus A* in the frame, [n, n].
        basis: V in the frame, orthonormal columns, [n, r2].
        cores: of the environments, [B, r2, r2].
        counts: m_e, [B]; may be zero where B > 1.
        noise: sigma_y; may be traced.
        symmetric: whether W and the residuals are symmetric.

    Returns:
        part [n, n] in the frame, scale [], and the sum of the squared residuals of all examples [].
    """
    if counts.shape[0] == 1:
        return _pure(numbers, half, error - fused_sandwich(basis, cores[0]), counts, noise)
    block = fused_sandwich(basis.T, error)
    off = error - fused_sandwich(basis, block)
    # If V spans all of the error, `off` is pure rounding and must not define a direction.
    floor = 64 * jnp.finfo(off.dtype).eps
    off = jnp.where(inner_product(off, off) > floor**2 * inner_product(error, error), off, 0)
    return _mixture(numbers, half, off, block[None] - cores, basis, counts, noise, symmetric)


def _squared_sums(
    numbers: Numbers, counts: Array, norms: Array, noise: float | Array
) -> tuple[Array, Array]:
    """The sums of r_i <X_i, R_e>/|R_e| [B] and of r_i^2 [B] over the examples of environments."""
    size = counts.astype(norms.dtype)
    squares = random.chi_square(numbers.candidates[0], numbers.words[0], size)
    if checks.is_zero(noise):
        return norms * squares, norms**2 * squares
    cross = noise * numbers.cross * jnp.sqrt(squares)
    rest = random.chi_square(numbers.candidates[1], numbers.words[1], size - 1)
    own = noise**2 * jnp.where(size > 0, rest, 0)
    along = norms * squares - cross
    # |R|^2 Q - 2 |R| c + noise^2 g^2 = (|R| Q - c)^2 / Q: a square cannot round to below zero.
    return along, along**2 / jnp.where(squares > 0, squares, 1) + own


def _pure(
    numbers: Numbers, half: Array, residual: Array, counts: Array, noise: float | Array
) -> tuple[Array, Array, Array]:
    """`batch_gradient` for one environment with the residual [n, n]."""
    norm = jnp.sqrt(inner_product(residual, residual))
    along, total = _squared_sums(numbers, counts, norm[None], noise)
    scale = jnp.sqrt(total[0])
    projection = safe_ratio(2 * inner_product(half, residual), norm)
    return safe_ratio(along[0] - scale * projection, norm) * residual, scale, total[0]


def _mixture(
    numbers: Numbers,
    half: Array,
    off: Array,
    blocks: Array,
    basis: Array,
    counts: Array,
    noise: float | Array,
    symmetric: bool,
) -> tuple[Array, Array, Array]:
    """`batch_gradient` for several environments with R_e = off + V blocks_e V'.

    `off` [n, n], the part of the residuals outside the span of V (.) V', is the same for all
    environments. Its direction and the entries of `blocks` [B, r2, r2] are therefore orthogonal
    coordinates of every R_e, in which each environment has its own W (`line` and `goes`).
    """
    rank = blocks.shape[1]
    off_norm = jnp.sqrt(inner_product(off, off))
    norms = jnp.sqrt(off_norm**2 + jnp.sum(blocks**2, (1, 2)))
    along, totals = _squared_sums(numbers, counts, norms, noise)
    inverse = safe_inverse(norms)
    unit_line, unit_blocks = off_norm * inverse, blocks * inverse[:, None, None]
    line = numbers.line
    goes = jax.vmap(lambda normals: whole(make_half(normals, rank, symmetric), symmetric))(
        numbers.blocks
    )
    # <W_e, R_e/|R_e|>, and what replaces that component of W_e.
    overlap = line * unit_line + jnp.sum(goes * unit_blocks, (1, 2))
    scales = jnp.sqrt(totals)
    shift = along - scales * overlap
    line_sum = jnp.sum(scales * line + shift * unit_line)
    block_sum = combine(scales, goes) + combine(shift, unit_blocks)
    # One W serves the complement of those coordinates, with its components along them removed.
    total = jnp.sum(totals)
    scale = jnp.sqrt(total)
    off_inverse = safe_inverse(off_norm)
    inside = whole(fused_sandwich(basis.T, half), symmetric)
    goe_line = 2 * inner_product(half, off) * off_inverse
    part = (line_sum - scale * goe_line) * off_inverse * off
    return part + fused_sandwich(basis, block_sum - scale * inside), scale, total

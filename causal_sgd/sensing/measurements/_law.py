"""The exact law of the batch gradient, in any orthonormal frame that holds the residuals.

Given the residual matrix R_e, the m_e examples of one environment contribute to m G

    (|R_e| Q - noise g sqrt(Q)) R_e/|R_e| + sqrt(RR_e) (W - <W, R_e/|R_e|> R_e/|R_e|),
    RR_e = |R_e|^2 Q - 2 |R_e| noise g sqrt(Q) + noise^2 (g^2 + K),

with Q ~ chi^2_{m_e}, g ~ N(0, 1), K ~ chi^2_{m_e - 1} and W ~ GOE(d) independent. Only inner
products with the residuals enter. If R_e = F C_e F' for a frame F of n orthonormal columns, the law
can therefore be written in the n x n matrices C_e and F' W F. `gaussian_law` uses the frame of all
d directions, `low_rank_law` a small one.

The draws of a batch are arranged such that batches of one key are as alike as the law allows,
whatever their environments are. Environments e with chi-squares Q_e share a batch-wide Q ~ chi^2_m
by Dirichlet weights; with u_e = sqrt(Q_e / Q), their W_e combine to sum_e u_e W_e = W, a GOE matrix
drawn at the same place in every batch. Given the Q_e, the matrices

    W_e = W'_e + u_e (W - sum_f u_f W'_f)

are again independent GOE matrices if the W'_e and W are. (The label noise is shared likewise.) If
all residuals are equal, the gradient of a batch does not depend on its composition.

For estimates that are not symmetric the whole of X matters, which is isotropic among all matrices.
The same law holds, with iid N(0, 1) entries of W in place of a GOE matrix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.measurements._algebra import (
    fused_sandwich,
    inner_product,
    safe_inverse,
    safe_ratio,
)
from causal_sgd.sensing.measurements._risks import population_risks
from causal_sgd.sensing.models import MatrixModel
from causal_sgd.sensing.worlds import World
from causal_sgd.types import Array, Batch, Key, Measurement, Params, PyTree, RiskFunction, Risks

# Streams of the key of a step: stream 0 has the normals that all batches share and stream 1 their
# words, 2 + 2 e and 3 + 2 e those of environment e, and CLIENTS + e the W'_e of clients.
CLIENTS = np.uint32(2**31)


class Squares(NamedTuple):
    """The random sizes of the contributions of the B environments of a batch."""

    along: Array  # [B] Q ~ chi^2 of m_e degrees
    cross: Array | None  # [B] g, normal; None without label noise
    rest: Array | None  # [B] K ~ chi^2 of m_e - 1 degrees; None without label noise


class Numbers(NamedTuple):
    """The random numbers of one batch from B environments."""

    normals: Array  # [*] for the caller, who makes W from them
    squares: Squares
    line: Array  # [B] normals of the W'_e along the common part of the residuals; used for B > 1
    blocks: Array  # [B, *] normals of the W'_e, matrices [r2, r2], within the span of V; likewise


class OfEnvironments(Protocol):
    """The gradient of the examples of some environments, and their loss []."""

    def __call__(
        self,
        draw: Callable[..., Numbers],
        data: PyTree,
        model: MatrixModel,
        params: Params,
        world: World,
        environments: Array,
        size: Array,
    ) -> tuple[Params, Array]:
        """Return both.

        Args:
            draw: `draw_numbers` or `client_numbers` without what the law decides: size, rank, ...
            data: the measurement's.
            model: of the estimate.
            params: of the model.
            world: of the signals.
            environments: that have examples, [B].
            size: number of examples [], at least 1.
        """
        ...


def measure_by_law(
    init: Callable[[Key, World], PyTree], of_environments: OfEnvironments, noise: float | Array
) -> Measurement:
    """A measurement by the exact law of the gradient, for a batch and for each of its clients.

    Args:
        init: (key, world) -> data.
        of_environments: the law.
        noise: sigma_y.
    """

    def gradient(
        key: Key,
        step: Array,
        data: PyTree,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
    ) -> tuple[Params, Array]:
        draw = functools.partial(draw_numbers, key, batch=batch)
        size = jnp.sum(batch.counts)
        return of_environments(draw, data, model, params, world, batch.environments, size)

    def client(
        key: Key,
        step: Array,
        data: PyTree,
        model: MatrixModel,
        params: Params,
        world: World,
        batch: Batch,
        position: Array,
    ) -> tuple[Params, Array]:
        draw = functools.partial(client_numbers, key, position=position, batch=batch)
        environment = batch.environments[position][None]
        size = jnp.maximum(batch.counts[position], 1)
        return of_environments(draw, data, model, params, world, environment, size)

    def whole(data: PyTree, model: MatrixModel, world: World) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores, noise)

    def single(data: PyTree, model: MatrixModel, world: World, environment: Array) -> RiskFunction:
        return population_risks(model, world, world.spurious_cores[environment][None], noise)

    # Messages name a measurement after the function that made it.
    gradient.__qualname__ = getattr(of_environments, "__qualname__", gradient.__qualname__)
    return Measurement(init, gradient, risks=Risks(whole, single=single), client=client)


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
    batch: Batch,
    spurious_rank: int,
    noise: float | Array,
    dtype: DTypeLike,
    symmetric: bool = True,
) -> Numbers:
    """All random numbers of one batch, drawn in one pass, since every pass has a launch cost.

    Args:
        key: of the step.
        size: normals that the caller needs.
        batch: the environments and their counts, [B].
        spurious_rank: r2.
        noise: sigma_y; nothing is drawn for a plain 0.
        dtype: of the numbers.
        symmetric: whether W is symmetric.
    """
    environments, counts = batch
    several = counts.shape[0] > 1  # a pure batch has W alone and needs no W'_e
    candidates, block = random.CHI_SQUARE_NORMALS, half_size(spurious_rank, symmetric)
    # Label noise comes last, so that it shifts nothing else.
    noisy = [] if checks.is_zero(noise) else [candidates + 1]
    streams = 2 + 2 * environments.astype(jnp.uint32)
    shared, own = random.normal_regions(
        key,
        [size, candidates, *noisy],
        dtype,
        own_sizes=[1 + block, candidates, *noisy] if several else (),
        own_streams=streams if several else None,
    )
    word_streams = jnp.ones(1, jnp.uint32)
    table = [row[None] for row in shared[1:]]
    coordinates = jnp.zeros((1, 1 + block), dtype)
    if several:
        word_streams = jnp.concatenate([word_streams, streams + 1])
        table = [jnp.concatenate(rows) for rows in zip(table, own[1:], strict=True)]
        coordinates = own[0]
    words = random.bits(key, len(table) * random.CHI_SQUARE_WORDS, word_streams)
    squares = _draw_squares(table, words, counts)
    return Numbers(shared[0], squares, line=coordinates[:, 0], blocks=coordinates[:, 1:])


def _draw_squares(table: list[Array], words: Array, counts: Array) -> Squares:
    """The chi-squares of environments, which add up to those of the batch.

    Args:
        table: normals of the batch and, for B > 1, of its environments; [1 or 1 + B, 6], and with
            noise another [1 or 1 + B, 7].
        words: for the chi-squares, [1 or 1 + B, 7 or 14].
        counts: m_e, [B].
    """
    size = counts.astype(table[0].dtype)
    several, split = counts.shape[0] > 1, random.CHI_SQUARE_WORDS
    degrees = size
    if several:
        degrees = jnp.concatenate([jnp.sum(counts).astype(size.dtype)[None], size])

    def draw(words: Array, degrees: Array, *table: Array) -> list[Array]:
        normals = [row[:, : random.CHI_SQUARE_NORMALS] for row in table]
        return [
            random.chi_square(row, words[:, kind * split : (kind + 1) * split], degrees - kind)
            for kind, row in enumerate(normals)
        ]

    # Those of a mixture have many consumers.
    once = random.evaluated_once if several else lambda function, *arguments: function(*arguments)
    along, *rest = once(draw, words, degrees, *table)
    shares = jnp.ones_like(along)
    if several:
        # Q and the shares G_e / sum_f G_f are independent, so their products are chi-squares.
        shares = along[1:] / jnp.sum(along[1:])
        along = along[0] * shares
    if not rest:
        return Squares(along, None, None)
    cross, rest = table[1][:, -1], rest[0]
    if several:
        # The squared label noise of a batch is g^2 + K. What the environments have beside their
        # parts of g adds up to K, again in shares that are independent of it.
        weights = jnp.sqrt(shares)
        own = jnp.where(size > 0, cross[1:], 0)
        own = own - weights * jnp.sum(weights * own)
        share = safe_ratio(rest[0], jnp.sum(rest[1:]) + jnp.sum(own**2))
        cross, rest = weights * cross[0] + jnp.sqrt(share) * own, share * rest[1:]
    return Squares(along, cross, rest)


def client_numbers(
    key: Key,
    size: int,
    position: Array,
    *,
    batch: Batch,
    spurious_rank: int,
    noise: float | Array,
    dtype: DTypeLike,
    symmetric: bool = True,
) -> Numbers:
    """The numbers of one environment of a batch, as of a pure batch.

    The environments of a batch are independent, and together they have the W and the chi-squares
    of `draw_numbers`. Where positions are mapped, what does not depend on them is computed once.

    Args:
        key: of the step.
        size: normals that the caller needs.
        position: of the environment within the batch, [].
        batch: the environments and their counts, [B].
        spurious_rank: r2.
        noise: sigma_y; nothing is drawn for a plain 0.
        dtype: of the numbers.
        symmetric: whether W is symmetric.
    """
    numbers = draw_numbers(
        key,
        size,
        batch=batch,
        spurious_rank=spurious_rank,
        noise=noise,
        dtype=dtype,
        symmetric=symmetric,
    )
    streams = CLIENTS + batch.environments.astype(jnp.uint32)
    _, (own,) = random.normal_regions(key, (), dtype, own_sizes=[size], own_streams=streams)
    weights = jnp.sqrt(numbers.squares.along / jnp.sum(numbers.squares.along))
    missing = numbers.normals - linalg.product(weights, own)
    own = own[position] + weights[position] * missing
    return numbers._replace(
        normals=own, squares=jax.tree.map(lambda values: values[position][None], numbers.squares)
    )


def batch_gradient(
    numbers: Numbers,
    half: Array,
    error: Array,
    basis: Array,
    cores: Array,
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
        noise: sigma_y; may be traced.
        symmetric: whether W and the residuals are symmetric.

    Returns:
        part [n, n] in the frame, scale [], and the sum of the squared residuals of all examples [].
    """
    if cores.shape[0] == 1:
        return _pure(numbers, half, error - fused_sandwich(basis, cores[0]), noise)
    block = fused_sandwich(basis.T, error)
    off = error - fused_sandwich(basis, block)
    # If V spans all of the error, `off` is pure rounding and must not define a direction.
    floor = 64 * jnp.finfo(off.dtype).eps
    square = inner_product(off, off)
    outside = square > floor**2 * inner_product(error, error)
    off, square = jnp.where(outside, off, 0), jnp.where(outside, square, 0)
    return _mixture(numbers, half, off, square, block[None] - cores, basis, noise, symmetric)


def _squared_sums(squares: Squares, norms: Array, noise: float | Array) -> tuple[Array, Array]:
    """The sums of r_i <X_i, R_e>/|R_e| [B] and of r_i^2 [B] over the examples of environments."""
    if squares.cross is None or squares.rest is None:
        return norms * squares.along, norms**2 * squares.along
    along = norms * squares.along - noise * squares.cross * jnp.sqrt(squares.along)
    # |R|^2 Q - 2 |R| c + noise^2 g^2 = (|R| Q - c)^2 / Q: a square cannot round to below zero.
    own = along**2 / jnp.where(squares.along > 0, squares.along, 1)
    return along, own + noise**2 * squares.rest


def _pure(
    numbers: Numbers, half: Array, residual: Array, noise: float | Array
) -> tuple[Array, Array, Array]:
    """`batch_gradient` for one environment with the residual [n, n]."""
    norm = jnp.sqrt(inner_product(residual, residual))
    along, total = _squared_sums(numbers.squares, norm[None], noise)
    scale = jnp.sqrt(total[0])
    projection = safe_ratio(2 * inner_product(half, residual), norm)
    return safe_ratio(along[0] - scale * projection, norm) * residual, scale, total[0]


def _mixture(
    numbers: Numbers,
    half: Array,
    off: Array,
    square: Array,
    blocks: Array,
    basis: Array,
    noise: float | Array,
    symmetric: bool,
) -> tuple[Array, Array, Array]:
    """`batch_gradient` for several environments with R_e = off + V blocks_e V'.

    `off` [n, n], the part of the residuals outside the span of V (.) V', is the same for all
    environments. Its direction and the entries of `blocks` [B, r2, r2] are therefore orthogonal
    coordinates of every R_e, the only ones in which each environment needs its own W_e. `square` []
    is |off|^2.
    """
    number, rank = blocks.shape[:2]
    off_norm = jnp.sqrt(square)
    off_inverse = safe_inverse(off_norm)
    # Rows of 1 + r2^2 coordinates. Only products with symmetric matrices are needed, so 2 H serves
    # as W.
    signals = jnp.concatenate(
        [jnp.broadcast_to(off_norm, (number, 1)), blocks.reshape(number, -1)], 1
    )
    halves = jax.vmap(lambda normals: make_half(normals, rank, symmetric))(numbers.blocks)
    own = jnp.concatenate([numbers.line[:, None], 2 * halves.reshape(number, -1)], 1)  # W'_e
    shared = 2 * jnp.concatenate(
        [
            (inner_product(half, off) * off_inverse)[None],
            fused_sandwich(basis.T, half).reshape(-1),
        ]
    )
    norms = jnp.sqrt(jnp.sum(signals**2, 1))
    units = signals * safe_inverse(norms)[:, None]
    along, totals = _squared_sums(numbers.squares, norms, noise)
    total = jnp.sum(totals)
    scale, scales = jnp.sqrt(total), jnp.sqrt(totals)
    # The weights with which the W_e enter m G: given the sizes, W_e as above has its law for any.
    weights = scales * safe_inverse(scale)
    missing = shared - jnp.sum(weights[:, None] * own, 0)
    # <W_e, R_e/|R_e|>, and what replaces that component of W_e.
    overlap = jnp.sum((own + weights[:, None] * missing[None]) * units, 1)
    part = jnp.sum((along - scales * overlap)[:, None] * units, 0)
    within = fused_sandwich(basis, part[1:].reshape(rank, rank))
    return part[0] * off_inverse * off + within, scale, total

"""The factor U of `factored` up to rotations of the directions in which there is no signal."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.models._model import MatrixModel
from causal_sgd.types import Array, Key, Params, PyTree

WORDS = 1  # stream of the words of a start; its normals are in stream 0
EXTRA = 3  # rows that `embed` adds


@dataclass(frozen=True)
class ReducedModel(MatrixModel):
    """A factor in coordinates [rows, k], of which the law of `factored` depends on nothing else.

    Attributes:
        dim: d of the factor that it stands for; may be traced.
        rank: k.
        frame: r, the rows that are coordinates along U* and V.
        slots: s, arrays of the factor's shape that one step carries.
    """

    # Declared again, since type checkers take inherited ones for methods.
    init: Callable[[Key], Params]
    estimate: Callable[[Params], Array]
    dim: int | Array = field(default=0, compare=False)
    rank: int = 1
    frame: int = 0
    slots: int = 1

    @property
    def rows(self) -> int:
        """Rows of the parameters and of the world, r + (s + 1) k."""
        return self.frame + (self.slots + 1) * self.rank

    @property
    def inner_rows(self) -> int:
        """Rows n = r + s k that are not zero between steps; the other k serve within a step."""
        return self.frame + self.slots * self.rank

    def embed(self, tree: PyTree) -> PyTree:
        """Rotate what lies below the frame into more rows, as if r or s were larger.

        Args:
            tree: all its leaves [rows, k] of numbers, NumPy's or traced, are rotated together, the
                others returned.
        """
        turn, shape = _embedding(self.rows, self.frame), (self.rows, self.rank)

        def rotate(leaf: Array | np.ndarray) -> Array | np.ndarray:
            return turn.astype(leaf.dtype) @ leaf if is_buffer(leaf, shape) else leaf

        return jax.tree.map(rotate, tree)


@functools.cache
def _embedding(rows: int, frame: int) -> np.ndarray:
    """The identity on a frame, and orthonormal columns below it, [rows + EXTRA, rows]."""
    turn, below = np.eye(rows + EXTRA, rows), rows - frame
    generic = np.random.default_rng(0).normal(size=(below + EXTRA, below))
    turn[frame:, frame:] = np.linalg.qr(generic)[0]
    return turn


def order_parameters(
    *,
    dim: int | Array,
    rank: int,
    frame: int,
    init_scale: float | Array = 1e-3,
    slots: int = 1,
) -> ReducedModel:
    """The chain of order parameters of `factored`, at a cost that does not depend on d.

    Let the columns of F be an orthonormal basis of the signals. Under isotropic measurements, the
    order parameters A = F'U [r, k] and B = U'(I - FF')U [k, k] are a Markov chain: rotations that
    fix F change neither the signals nor the law of a batch. The parameters are X = [A; L; 0] with
    L'L = B. Buffers of an optimizer, such as a momentum, share the rows below A with L, so that
    their products with U are those of the full factor. `measurements.order_parameter_law` draws
    a step, whose new directions fill the last k rows; the algorithm then calls `reduce`, which
    brings all of them into the rows above.

    The world must be `worlds.reduced(..., rows=model.rows)`. What needs U itself or d directions,
    as `hessian_trace` does, is refused; so are optimizers that do not commute with rotations.

    Args:
        dim: d, at least the number of rows; may be traced. A run of a smaller traced d is NaN from
            its first step.
        rank: k, the number of columns.
        frame: r = r1 + r2, the number of columns of U* and V together.
        init_scale: alpha > 0; U starts with alpha times standard normal entries. May be traced.
        slots: s, 1 for plain SGD, and 1 more for each buffer of the factor's shape: momentum,
            averages of parameters, accumulated gradients.

    Returns:
        A model whose parameters are X [r + (s + 1) k, k].

    Raises:
        ValueError: if an argument is out of range, or d is below the number of rows; (when an
            algorithm is traced) if the optimizer has more buffers than slots.
    """
    checks.integer("rank", rank)
    checks.integer("frame", frame)
    checks.integer("slots", slots)
    checks.number("init_scale", init_scale, above=0)
    checks.whole("dim", dim, maximum=2**30)
    rows = frame + (slots + 1) * rank
    least = checks.concrete(dim)
    if least is not None and (least < rows).any():
        raise ValueError(
            f"dim must be at least frame + (slots + 1) rank = {rows} for order_parameters, got "
            f"{dim}: use models.factored with gaussian_law or low_rank_law"
        )

    def start(key: Key) -> Array:
        dtype = jnp.result_type(float)
        numbers = random.normals(key, frame * rank + random.bartlett_normals(rank), dtype)
        words = random.bits(key, random.bartlett_words(rank), WORDS)
        outside = random.bartlett(
            numbers[frame * rank :], words, jnp.asarray(dim, dtype) - frame, rank
        )
        along = numbers[: frame * rank].reshape(frame, rank)
        zero = jnp.zeros((slots * rank, rank), dtype)
        return init_scale * jnp.concatenate([along, outside, zero])

    def estimate(params: Array) -> Array:
        return linalg.product(params, params.T)

    def pullback(params: Array, cotangent: Array) -> Array:
        return linalg.product(2 * cotangent, params)

    def reduce(tree: PyTree) -> PyTree:
        return _reduce(tree, rank=rank, frame=frame, slots=slots)

    return ReducedModel(
        start,
        estimate,
        pullback=pullback,
        factor=lambda params: params,
        reduce=reduce,
        dim=dim,
        rank=rank,
        frame=frame,
        slots=slots,
    )


def _reduce(tree: PyTree, *, rank: int, frame: int, slots: int) -> PyTree:
    """Rotate the rows below the frame such that the last k are zero.

    Args:
        tree: parameters and optimizer state; all its leaves [rows, k] are rotated together.
        rank: k.
        frame: r.
        slots: s, the most leaves.
    """
    shape = frame + (slots + 1) * rank, rank
    leaves, structure = jax.tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if is_buffer(leaf, shape)]
    if len(places) > slots:
        raise ValueError(
            f"slots must be at least {len(places)} for an optimizer with {len(places) - 1} buffers "
            f"of the shape of the parameters, got {slots}"
        )
    outside = jnp.concatenate([leaves[place][frame:] for place in places], 1)
    triangle = linalg.triangle(outside)
    triangle = jnp.pad(triangle, ((0, outside.shape[0] - triangle.shape[0]), (0, 0)))
    for place, part in zip(places, jnp.split(triangle, len(places), 1), strict=True):
        leaf = leaves[place]
        leaves[place] = jnp.concatenate([leaf[:frame], part.astype(leaf.dtype)])
    return jax.tree.unflatten(structure, leaves)


def is_buffer(leaf: Array | np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a leaf is an array of numbers of the shape of the parameters."""
    return jnp.shape(leaf) == shape and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)

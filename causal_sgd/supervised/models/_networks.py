"""Linear networks."""

from __future__ import annotations

from collections.abc import Sequence

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.models._linear import LARGEST_DEPTH, intercept_of, with_intercept
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["linear_network"]


def linear_network(
    *,
    dim: int,
    hidden: int,
    depth: int = 2,
    intercept: bool = False,
    init_scale: float | Array = 1.0,
) -> VectorModel:
    """A fully connected network without nonlinearities: x' W_1 ... W_{L-1} a.

    Args:
        dim: number of inputs p.
        hidden: h, the width of every hidden layer.
        depth: L, the number of layers, at least 2.
        intercept: whether there is a b, added to the output, which starts at 0.
        init_scale: the initial weights of a layer are normal with standard deviation
            init_scale / sqrt(inputs of the layer), above 0; may be traced.

    Returns:
        A model with params {"layers": (W_1 [p, h], W_2 [h, h], ..., a [h])}, and "intercept": []
        where there is one. Its features are those of the last hidden layer, which the head scales.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.integer("hidden", hidden)
    checks.integer("depth", depth, minimum=2, maximum=LARGEST_DEPTH)
    checks.flags(intercept=intercept)
    checks.number("init_scale", init_scale, above=0)
    shapes: list[tuple[int, ...]] = [(dim, hidden), *[(hidden, hidden)] * (depth - 2), (hidden,)]

    def start(key: Key) -> Params:
        layers = tuple(
            init_scale * random.normals(random.fold_in(key, place), shape, float) / shape[0] ** 0.5
            for place, shape in enumerate(shapes)
        )
        return with_intercept({"layers": layers}, intercept)

    def estimate(params: Params) -> Array:
        *matrices, weights = params["layers"]
        for matrix in reversed(matrices):
            weights = linalg.product(matrix, weights[:, None])[:, 0]
        return weights

    def rescaled(params: Params, head: Array) -> Params:
        *matrices, weights = params["layers"]
        return {**params, "layers": (*matrices, weights * head)}

    return VectorModel(
        start,
        estimate,
        intercept=intercept_of(intercept),
        features=lambda params: _product(params["layers"][:-1]),
        rescaled=rescaled,
        head_size=hidden,
    )


def _product(matrices: Sequence[Array]) -> Array:
    result, *others = matrices
    for matrix in others:
        result = linalg.product(result, matrix)
    return result

"""The model of matrix sensing: parameters and a matrix, with what is cheaper than the matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from causal_sgd.types import Array, Key, Params, PyTree


@dataclass(frozen=True)
class MatrixModel:
    """Parameters and the matrix [d, d] that they stand for.

    Attributes:
        init: key -> params, any pytree.
        estimate: params -> the estimate [d, d] that measurements and metrics see.
        pullback: (params, cotangent [d, d]) -> gradient with respect to params, where that is
            cheaper than `jax.vjp`; the cotangent is symmetric if the estimate is. None for
            `jax.vjp`.
        factor: params -> U [d, k] with estimate U U'; None where the model has no such factor. A
            metric reads it as `snapshot.model.factor(snapshot.params)`.
        diagonal: params -> the diagonal [d] of an estimate that is zero elsewhere; None where it
            may not be.
        layers: params -> the factors [n_l, n_(l - 1)] of the estimate W_L ... W_1, W_1 first, where
            L >= 2 factors are parameters of their own; None otherwise.
        symmetric: whether the estimate is symmetric whatever the parameters; measurements then need
            symmetric parts only.
        predict: (params, input [d]) -> prediction []; None for x' estimate x. A model that has its
            own is no linear function of an estimate, and only `measurements.examples` trains it;
            its `estimate` is what metrics see.
        reduce: (params, optimizer state) -> an equivalent pair, for parameters that stand for all
            that differ from them by a symmetry; see `order_parameters`. None where parameters
            stand for themselves.
    """

    init: Callable[[Key], Params]
    estimate: Callable[[Params], Array]
    pullback: Callable[[Params, Array], Params] | None = None
    factor: Callable[[Params], Array] | None = None
    diagonal: Callable[[Params], Array] | None = None
    layers: Callable[[Params], Sequence[Array]] | None = None
    symmetric: bool = True
    predict: Callable[[Params, Array], Array] | None = None
    reduce: Callable[[PyTree], PyTree] | None = None

    def bound(self, params: Params) -> Array:
        """Return the diagonal [d] of U U', which bounds all of it, or the estimate [d, d].

        Raises:
            ValueError: if `params` holds anything but arrays of numbers.
        """
        leaves = jax.tree.leaves(params)
        kinds = [getattr(leaf, "dtype", None) for leaf in leaves]
        if not kinds or not all(kind and jnp.issubdtype(kind, jnp.number) for kind in kinds):
            raise ValueError(f"params must be parameters that init returns, got {params!r:.60}")
        if self.factor is None:
            return self.estimate(params)
        return jnp.sum(self.factor(params) ** 2, 1)

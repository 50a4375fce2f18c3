"""The model of linear prediction: parameters, weights, an intercept, and a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from causal_sgd import linalg
from causal_sgd.types import AnyModel, Array, Key, Params, PyTree

__all__ = ["VectorModel", "predictions_of"]


@dataclass(frozen=True)
class VectorModel:
    """Parameters and the weights [p] of a linear prediction x'w + b.

    Attributes:
        init: key -> params, any pytree.
        estimate: params -> w [p].
        intercept: params -> b []; None where there is none.
        features: params -> Phi [p, k], the linear features x'Phi that the last layer combines;
            None for the inputs themselves.
        rescaled: (params, head [k]) -> params of the model whose features are multiplied by the
            head, which at ones changes nothing; None where the model has no head.
        head_size: k; 0 where the model has no head.
        predict: (params, input [p]) -> prediction [], or [C] of several classes; None for x'w + b.
        reduce: see `causal_sgd.types.Model`.
    """

    init: Callable[[Key], Params]
    estimate: Callable[[Params], Array]
    intercept: Callable[[Params], Array] | None = None
    features: Callable[[Params], Array] | None = None
    rescaled: Callable[[Params, Array], Params] | None = None
    head_size: int = 0
    predict: Callable[[Params, Array], Array] | None = None
    reduce: Callable[[PyTree], PyTree] | None = None

    @property
    def has_weights(self) -> bool:
        """Whether there is an estimate; a network has none, and metrics of weights refuse it."""
        return True

    def predictions(self, params: Params, inputs: Array) -> Array:
        """Return the predictions [...] for inputs [..., p].

        Args:
            params: of the model.
            inputs: x.
        """
        return predictions_of(self, params, inputs)

    def bound(self, params: Params) -> Array:
        """Return all parameters in one array, which is finite exactly where the estimate is."""
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])


def predictions_of(model: AnyModel, params: Params, inputs: Array) -> Array:
    """The predictions [...] of a model, or of a fit, for inputs [..., p]."""
    predict = model.predict
    if predict is not None:
        flat = jax.vmap(lambda x: predict(params, x))(inputs.reshape(-1, inputs.shape[-1]))
        return flat.reshape(*inputs.shape[:-1], *flat.shape[1:])
    weighted = linalg.product(inputs, model.estimate(params)[:, None])[..., 0]
    return weighted if model.intercept is None else weighted + model.intercept(params)

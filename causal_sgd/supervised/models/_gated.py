"""Linear prediction from inputs that a gate each lets through."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.supervised.models._linear import linear
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["GatedModel", "gated"]


@dataclass(frozen=True)
class GatedModel(VectorModel):
    """A model whose inputs pass through gates before a linear prediction.

    Attributes:
        plain: the model of the inputs behind the gates, which `rescaled` multiplies by them.
    """

    plain: VectorModel | None = None

    def gates(self, params: Params) -> Array:
        """Return the gates [p] in [0, 1], without noise.

        Args:
            params: of the model.
        """
        return jax.nn.sigmoid(params["logits"])


def gated(
    *,
    dim: int,
    intercept: bool = False,
    init: str = "gaussian",
    init_scale: float | Array | None = None,
    init_logit: float | Array = -3.0,
) -> GatedModel:
    """The linear model of gated inputs, x'(w sigmoid(logits)) + b, for `algorithms.fair`.

    Args:
        dim: number of inputs p.
        intercept: whether there is a b, which has no gate.
        init: of w and b, see `linear`.
        init_scale: see `linear`.
        init_logit: initial value of all logits; may be traced. -3 in the source of FAIR.

    Returns:
        A model with params {"weights": [p], "logits": [p]}, and "intercept": [] where there is one.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.number("init_logit", init_logit)
    plain = linear(dim=dim, intercept=intercept, init=init, init_scale=init_scale)

    def start(key: Key) -> Params:
        return plain.init(key) | {"logits": jnp.full(dim, init_logit, jnp.result_type(float))}

    return GatedModel(
        start,
        lambda params: params["weights"] * jax.nn.sigmoid(params["logits"]),
        intercept=plain.intercept,
        plain=plain,
    )

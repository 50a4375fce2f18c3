"""Linear models."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["linear"]


def linear(*, dim: int, intercept: bool = False, init_scale: float | Array = 0.0) -> VectorModel:
    """The linear model x'w, or x'w + b.

    Args:
        dim: number of inputs p.
        intercept: whether there is a b, which starts at 0.
        init_scale: standard deviation of the initial weights, at least 0; may be traced.

    Returns:
        A model with params {"weights": [p]}, and "intercept": [] where there is one. Its head
        scales every input.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.flags(intercept=intercept)
    checks.number("init_scale", init_scale, minimum=0)

    def init(key: Key) -> Params:
        weights = init_scale * random.normals(key, dim, float)
        return {"weights": weights} | ({"intercept": jnp.zeros(())} if intercept else {})

    def rescaled(params: Params, head: Array) -> Params:
        return {**params, "weights": params["weights"] * head}

    return VectorModel(
        init,
        lambda params: params["weights"],
        intercept=(lambda params: params["intercept"]) if intercept else None,
        rescaled=rescaled,
        head_size=dim,
    )

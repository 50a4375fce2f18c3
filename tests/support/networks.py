"""A small network of two inputs and one output, as two pure functions, and the same in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HIDDEN = 3


def init_mlp(key: jax.Array) -> dict[str, Any]:
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(first, (2, HIDDEN)), "bias": jnp.full(HIDDEN, 0.1)},
        "last": jax.random.normal(second, (HIDDEN,)),
    }


def apply_mlp(params: dict[str, Any], x: jax.Array) -> jax.Array:
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return hidden @ params["last"]


def mlp_by_hand(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """The predictions [n] for inputs [n, 2], in double precision."""
    values = jax.tree.map(lambda leaf: np.asarray(leaf, float), params)
    hidden = np.tanh(x @ values["hidden"]["kernel"] + values["hidden"]["bias"])
    return hidden @ values["last"]


def make_equinox(key: jax.Array) -> Any:
    import equinox as eqx

    return eqx.nn.MLP(2, "scalar", HIDDEN, 1, key=key)


def linen_module() -> Any:
    from flax import linen

    return linen.Sequential([linen.Dense(HIDDEN), linen.relu, linen.Dense(1)])

"""From parameters to the estimate that measurements see."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.types import Array, Key, Model

__all__ = ["factored"]


def factored(
    *,
    dim: int,
    rank: int | None = None,
    init_scale: float | Array = 1e-3,
    init: str | None = None,
) -> Model:
    """The estimate U U' of matrix sensing, with U [d, k] [XGF].

    Args:
        dim: d.
        rank: k, the number of columns; None for d. It may lie below, at or above the rank of the signals.
        init_scale: alpha > 0, the scale of U at the start; may be traced.
        init: "identity" for alpha * I (k = d only), "gaussian" for alpha times standard normal entries; None takes
            "identity" where k = d and "gaussian" otherwise.

    Returns:
        A model whose parameters are U itself.

    Raises:
        ValueError: if an argument is out of range, or "identity" is asked for with k other than d.
    """
    checks.integer("dim", dim)
    k = dim if rank is None else checks.integer("rank", rank)
    checks.number("init_scale", init_scale, above=0)
    if init is None:
        init = "identity" if k == dim else "gaussian"
    checks.choice("init", init, ("identity", "gaussian"))
    if init == "identity" and k != dim:
        raise ValueError(
            f"init must be 'gaussian' unless rank equals dim, got 'identity' with rank {k} and dim {dim}: "
            "a truncated identity would never see some directions"
        )

    def start(key: Key) -> Array:
        shape = jnp.eye(dim) if init == "identity" else jax.random.normal(key, (dim, k))
        return init_scale * shape

    def estimate(params: Array) -> Array:
        return jnp.matmul(params, params.T, precision="highest")

    def pullback(params: Array, cotangent: Array) -> Array:
        # d<C, U U'> = 2 <C U, dU> for symmetric C: one product, where the transpose of `estimate` would take two.
        return jnp.matmul(2 * cotangent, params, precision="highest")

    return Model(start, estimate, pullback=pullback, factor=lambda params: params)

"""Two-layer networks with vectors as inputs: f(x) = sum_j a_j g(w_j'x)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.sensing.models._model import MatrixModel
from causal_sgd.types import Array, Key


def quadratic(
    *,
    dim: int,
    neurons: int | None = None,
    negative: int | None = None,
    init_scale: float | Array = 1e-3,
) -> MatrixModel:
    """A network with quadratic activations, f(x) = sum_j a_j (w_j'x)^2, with fixed a_j = +-1.

    Its predictions are x' estimate x with the estimate sum_j a_j w_j w_j', so every measurement of
    matrices can train it; `rank_one` is the one for networks. Without negative neurons it is
    `factored` with U' = W.

    Args:
        dim: d, the length of an input.
        neurons: h; None for 2 d, enough for every symmetric matrix.
        negative: number of neurons with a_j = -1; None for half of them.
        init_scale: alpha > 0, the standard deviation of the weights at the start; may be traced.

    Returns:
        A model whose parameters are the weights W [h, d].

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    width = 2 * dim if neurons is None else checks.integer("neurons", neurons)
    minus = (
        width // 2
        if negative is None
        else checks.integer("negative", negative, minimum=0, maximum=width)
    )
    checks.number("init_scale", init_scale, above=0)
    signs = np.repeat([1.0, -1.0], [width - minus, minus])

    def signed(params: Array) -> Array:
        return jnp.asarray(signs, params.dtype)[:, None] * params

    return MatrixModel(
        lambda key: init_scale * random.normals(key, (width, dim), jnp.result_type(float)),
        lambda params: linalg.product(params.T, signed(params)),
        pullback=lambda params, cotangent: linalg.product(signed(params), 2 * cotangent),
        factor=None if minus else lambda params: params.T,
    )


class TwoLayers(NamedTuple):
    """Parameters of `relu`."""

    weights: Array  # [h, d] w_j
    outputs: Array | tuple[()]  # [h]    a_j; () if they are fixed
    offset: Array  # []     c


def relu(
    *,
    dim: int,
    neurons: int = 32,
    trained_layers: Literal["both", "first"] = "both",
    init_scale: float | Array = 1e-2,
) -> MatrixModel:
    """A two-layer ReLU network, f(x) = sum_j a_j max(w_j'x, 0) + c, for `measurements.examples`.

    Half of the neurons start with a_j > 0. The second-order term of the network's expansion in
    Hermite polynomials, for inputs x ~ N(0, I), is x' H x with

        H = E[f(x) (x x' - I)] / 2 = E[f''(x)] / 2 = sum_j a_j w_j w_j' / (2 sqrt(2 pi) |w_j|),

    as the second derivative of max(., 0) is a delta function (Stein's identity). This matrix is the
    model's `estimate`: a network that has learned x'Sx has H = S, so all metrics of matrices apply.
    Only the metrics of predictions see the other terms.

    Args:
        dim: d, the length of an input.
        neurons: h, an even number.
        trained_layers: "both", which start balanced, |a_j| = |w_j|; or "first", with a_j = +-1
            fixed. The offset c starts at 0 and is always trained.
        init_scale: alpha > 0, the standard deviation of the weights at the start; may be traced.

    Returns:
        A model whose parameters are `TwoLayers`.

    Raises:
        ValueError: if an argument is out of range.
    """
    checks.integer("dim", dim)
    checks.integer("neurons", neurons)
    if neurons % 2:
        raise ValueError(
            f"neurons must be an even number, half of them of either sign, got {neurons}"
        )
    checks.choice("trained_layers", trained_layers, ("both", "first"))
    checks.number("init_scale", init_scale, above=0)
    signs = np.tile([1.0, -1.0], neurons // 2)

    def start(key: Key) -> TwoLayers:
        weights = init_scale * random.normals(key, (neurons, dim), jnp.result_type(float))
        balanced = jnp.asarray(signs, weights.dtype) * _lengths(weights)
        outputs = () if trained_layers == "first" else balanced
        return TwoLayers(weights, outputs, jnp.zeros((), weights.dtype))

    def outputs_of(params: TwoLayers) -> Array:
        if isinstance(params.outputs, tuple):
            return jnp.asarray(signs, params.weights.dtype)
        return params.outputs

    def predict(params: TwoLayers, inputs: Array) -> Array:
        hidden = jax.nn.relu(linalg.product(params.weights, inputs))
        return linalg.product(outputs_of(params), hidden) + params.offset

    def estimate(params: TwoLayers) -> Array:
        lengths = _lengths(params.weights)
        scale = 2 * math.sqrt(2 * math.pi)
        shares = outputs_of(params) / jnp.where(lengths > 0, lengths, 1) / scale
        return linalg.product(params.weights.T, shares[:, None] * params.weights)

    return MatrixModel(start, estimate, predict=predict)


def _lengths(weights: Array) -> Array:
    """|w_j|, [h]."""
    return jnp.sqrt(jnp.sum(weights**2, 1))

"""Any network as a model: two pure functions, of a key and of parameters with one input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.supervised.models._model import VectorModel
from causal_sgd.types import Array, Key, Params

__all__ = ["STATELESS", "NetworkModel", "network"]

STATELESS = (
    "a network with a state (batch norm, running averages) or with random numbers of its own "
    "(dropout) cannot be trained here, as its prediction depends on more than parameters and one "
    "input; use group or layer norm, and no dropout"
)
"""Why networks with a state are refused, for messages."""


@dataclass(frozen=True)
class NetworkModel(VectorModel):
    """A network: it predicts, and has no weights of its inputs.

    Its `estimate` raises a ValueError, and so do metrics of weights and measurements of moments.
    Measurements of examples and metrics of predictions need none.

    Attributes:
        outputs: C, the number of classes; None for one number.
    """

    outputs: int | None = None

    @property
    def has_weights(self) -> bool:
        """False: see the class."""
        return False

    def check(self, params: Params, shape: tuple[int, ...]) -> None:
        """Refuse parameters that cannot be trained, and inputs that the network does not take.

        Args:
            params: initial.
            shape: (p,) of the world's inputs.

        Raises:
            ValueError: if they do not fit.
        """
        check_params(params)
        assert self.predict is not None
        sample = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        try:
            jax.eval_shape(self.predict, params, sample)
        except (TypeError, AttributeError, IndexError, KeyError, AssertionError) as error:
            raise ValueError(_failing(shape, error)) from error


def network(
    init: Callable[[Key], Params],
    apply: Callable[[Params, Array], Array],
    *,
    outputs: int | None = None,
) -> NetworkModel:
    """A network of your own, from two pure functions.

    >>> import jax, jax.numpy as jnp
    >>> from causal_sgd.supervised import models
    >>> def init(key):
    ...     return {"first": jax.random.normal(key, (3, 8)) / 3, "last": jnp.zeros(8)}
    >>> def apply(params, x):
    ...     return jax.nn.relu(x @ params["first"]) @ params["last"]
    >>> models.network(init, apply).predict(init(jax.random.key(0)), jnp.ones(3)).shape
    ()

    Args:
        init: key -> params, any pytree of arrays of floating-point numbers.
        apply: (params, input [p]) -> the prediction for this input: a number, [] or [1], or with
            `outputs` [C]. Batches and runs are this under `vmap`.
        outputs: C, the number of classes, at least 2, for `losses.softmax`; None for one number.

    Returns:
        A model for `measurements.examples` and, in worlds that are tables, `measurements.counts`,
        under all objectives but those of a linear head or of linear features (irm, coral).

    Raises:
        ValueError: if an argument is not of its kind, or (when it runs) if the network does not
            take the world's inputs, or returns something else, such as a state.
    """
    checks.function("init", init, 1, "a function key -> params")
    checks.function("apply", apply, 2, "a function (params, input [p]) -> prediction")
    check_outputs(outputs)
    return NetworkModel(
        init,
        without_weights,
        predict=lambda params, x: prediction(apply(params, x), outputs),
        outputs=outputs,
    )


def check_outputs(outputs: object) -> None:
    """Raise ValueError if it is neither None nor a number of classes."""
    if outputs is not None:
        checks.integer("outputs", outputs, minimum=2)


def check_params(params: Params) -> None:
    """Raise ValueError if parameters are not arrays that have gradients."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("init must return parameters, got no array")
    for path, leaf in leaves:
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            kind = leaf.dtype if isinstance(leaf, jax.Array) else type(leaf).__name__
            raise ValueError(
                "init must return arrays of floating-point numbers alone, which are all trained, "
                f"got {kind} at {jax.tree_util.keystr(path) or 'the top'}"
            )


def without_weights(params: Params) -> Array:
    """The `estimate` of a network, which has none.

    Raises:
        ValueError: always.
    """
    del params
    raise ValueError(
        "model must have weights of its inputs for an estimate, got a network, which has none; use "
        "metrics of its predictions, such as training_error"
    )


def prediction(result: object, outputs: int | None) -> Array:
    """What a network returned for one input, as a prediction [] or [C].

    Args:
        result: of the network.
        outputs: C, or None for one number.

    Raises:
        ValueError: if it is not of this shape.
    """
    if isinstance(result, tuple | list | dict):
        raise ValueError(
            f"apply must return the prediction alone, got a {type(result).__name__}: {STATELESS}"
        )
    try:
        array = jnp.asarray(result)
    except TypeError:
        raise ValueError(
            f"apply must return the prediction, an array, got a {type(result).__name__}"
        ) from None
    if outputs is None and math.prod(array.shape) == 1 and array.ndim <= 1:
        return array.reshape(())
    if outputs is not None and array.shape == (outputs,):
        return array
    wanted = "one number, [] or [1]" if outputs is None else f"[{outputs}], as outputs says"
    hint = ""
    if outputs is None and array.ndim == 1:
        hint = f"; pass outputs={array.shape[0]} for logits of classes"
    raise ValueError(
        f"apply must return for one input {wanted}, got an array {list(array.shape)}{hint}"
    )


def _failing(shape: tuple[int, ...], error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"model must take the inputs {list(shape)} of the world, got a network that fails: {reason}"
    )

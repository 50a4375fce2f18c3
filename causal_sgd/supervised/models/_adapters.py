"""Networks of flax and equinox as models; both packages are imported on use."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.models._any_network import (
    STATELESS,
    NetworkModel,
    check_outputs,
    network,
)
from causal_sgd.types import Array, Key, Params

__all__ = ["from_equinox", "from_flax"]

Module = Any
"""Of a package that need not be there."""


def from_flax(module: Module, example: object, *, outputs: int | None = None) -> NetworkModel:
    """A network of flax: a module of linen, or what makes a module of nnx.

    The module is called with a batch of one input, [1, *example.shape], and batches are that under
    `vmap`: inputs [p] of the world are brought to the shape of the example. What the module keeps
    beside parameters is refused.

    Args:
        module: an instance of `flax.linen.Module`, or a function or class rngs -> `flax.nnx.Module`
            (of an instance, all seeds would share the initial parameters).
        example: one input without an axis of batches, of p numbers; only its shape matters.
        outputs: C, the number of classes, for a module that returns [1, C]; None for one number,
            [1] or [1, 1].

    Returns:
        A model, as `network` makes it. Its params are the dictionaries of flax.

    Raises:
        ImportError: without the extra `flax`.
        ValueError: if the module has a state or draws random numbers, or fails on the example.
    """
    linen = _package("flax.linen", "flax", "from_flax")
    nnx = _package("flax.nnx", "flax", "from_flax")
    shape = _shape(example)
    check_outputs(outputs)
    if isinstance(module, linen.Module):
        return _of_linen(module, shape, outputs)
    if inspect.isclass(module) and issubclass(module, linen.Module):
        raise ValueError(
            f"module must be an instance of a linen module, got the class {module.__name__}; call "
            "it with its own arguments first"
        )
    if isinstance(module, nnx.Module):
        raise ValueError(
            "module must be a function of rngs that makes a module of nnx, such as lambda rngs: "
            f"MLP(rngs=rngs), so that every seed begins anew, got a {type(module).__name__}"
        )
    if not callable(module):
        raise ValueError(
            "module must be a linen module, or a function rngs -> nnx module, got "
            f"{type(module).__name__}"
        )
    return _of_nnx(module, shape, outputs)


def from_equinox(
    make: Callable[[Key], Module], *, example: object = None, outputs: int | None = None
) -> NetworkModel:
    """A network of equinox, which is called with one input, as equinox has it.

    Args:
        make: key -> `equinox.Module`, such as lambda key: eqx.nn.MLP(2, "scalar", 8, 1, key=key).
            All its arrays of floating-point numbers are trained.
        example: one input, of p numbers, to the shape of which inputs [p] are brought; only its
            shape matters. None for [p].
        outputs: C, the number of classes, for a module that returns [C]; None for one number, []
            or [1].

    Returns:
        A model, as `network` makes it. Its params are the module with None in place of all else.

    Raises:
        ImportError: without the extra `equinox`.
        ValueError: if the module has a state or draws random numbers.
    """
    eqx = _package("equinox", "equinox", "from_equinox")
    checks.function("make", make, 1, "a function key -> equinox module")
    shape = None if example is None else _shape(example)
    check_outputs(outputs)
    with _Naming("make", "a function key -> equinox module"):
        frame = eqx.filter_eval_shape(make, _abstract_key())
    if isinstance(frame, tuple):
        raise ValueError(f"make must return a module alone, got a tuple: {STATELESS}")
    if not isinstance(frame, eqx.Module) or not callable(frame):
        raise ValueError(
            f"make must return an equinox module that can be called, got {type(frame).__name__}"
        )
    _refuse_state(eqx, frame)
    kept, static = eqx.partition(frame, _is_trained)
    structure, sizes = jax.tree.structure(kept), _sizes(kept)
    if others := [leaf for leaf in jax.tree.leaves(static) if _is_abstract(leaf)]:
        raise ValueError(
            "make must return a module whose arrays are of floating-point numbers and trained, got "
            f"one of {others[0].dtype} {list(others[0].shape)}; NumPy arrays are constants"
        )

    def init(key: Key) -> Params:
        made = eqx.filter(make(key), eqx.is_inexact_array)
        if _sizes(made) != sizes:
            raise ValueError("make must return a module of the same shapes for all keys")
        # Functions that `make` creates differ from call to call, so that structures would, too.
        return jax.tree.unflatten(structure, jax.tree.leaves(made))

    def apply(params: Params, x: Array) -> Array:
        return eqx.combine(params, static)(x if shape is None else x.reshape(shape))

    return _of_example(init, apply, shape, outputs, "make")


def _of_linen(module: Module, shape: tuple[int, ...], outputs: int | None) -> NetworkModel:
    def variables(key: Key) -> Any:
        return module.init(key, jnp.zeros((1, *shape)))

    with _Naming("module", "a linen module that is called with inputs alone"):
        collections = jax.eval_shape(variables, _abstract_key())
    if others := sorted(set(collections) - {"params"}):
        raise ValueError(f"module must have parameters alone, got {', '.join(others)}: {STATELESS}")
    if "params" not in collections:
        raise ValueError("module must have parameters, got one without")

    def apply(params: Params, x: Array) -> Array:
        return _first(module.apply({"params": params}, x.reshape(1, *shape)))

    return _of_example(lambda key: variables(key)["params"], apply, shape, outputs, "module")


def _of_nnx(
    make: Callable[..., Module], shape: tuple[int, ...], outputs: int | None
) -> NetworkModel:
    nnx = importlib.import_module("flax.nnx")
    by_name = "rngs" in _parameters(make)

    def parts(key: Key) -> tuple[Any, Any, Any]:
        rngs = nnx.Rngs(key)
        module = make(rngs=rngs) if by_name else make(rngs)
        if not isinstance(module, nnx.Module):
            raise ValueError(
                f"module must be a function rngs -> nnx module, got one that returns "
                f"{type(module).__name__}"
            )
        return nnx.split(module, nnx.Param, ...)

    graphs, kinds = [], set()

    def shapes(key: Key) -> Params:
        graph, params, rest = parts(key)
        graphs.append(graph)
        kinds.update(type(value).__name__ for _, value in nnx.to_flat_state(rest))
        return nnx.to_pure_dict(params)

    with _Naming("module", "a linen module, or a function rngs -> nnx module"):
        jax.eval_shape(shapes, _abstract_key())
    if kinds:
        raise ValueError(
            f"module must have parameters alone, got {', '.join(sorted(kinds))}: {STATELESS}"
        )

    def apply(params: Params, x: Array) -> Array:
        return _first(nnx.merge(graphs[0], nnx.State(params))(x.reshape(1, *shape)))

    def init(key: Key) -> Params:
        return nnx.to_pure_dict(parts(key)[1])

    return _of_example(init, apply, shape, outputs, "module")


def _of_example(
    init: Callable[[Key], Params],
    apply: Callable[[Params, Array], Array],
    shape: tuple[int, ...] | None,
    outputs: int | None,
    argument: str,
) -> NetworkModel:
    """The network, tried on an example where its shape is known."""
    model = network(init, apply, outputs=outputs)
    if shape is None:
        return model
    sample = jax.ShapeDtypeStruct((math.prod(shape),), jnp.result_type(float))

    def tried(key: Key, x: Array) -> Array:
        assert model.predict is not None
        return model.predict(model.init(key), x)

    with _Naming(argument, f"a network for inputs {list(shape)}"):
        jax.eval_shape(tried, _abstract_key(), sample)
    return model


def _abstract_key() -> jax.ShapeDtypeStruct:
    """A key without its words: a key itself would start jax, and fix its devices."""
    return jax.eval_shape(jax.random.key, 0)


def _first(result: Any) -> Any:
    """The prediction of the only input of a batch; what is no batch passes, and is refused."""
    if isinstance(result, tuple | list | dict) or not np.ndim(result):
        return result
    return result[0]


class _Naming:
    """Name an argument where what the user's code raises does not."""

    def __init__(self, argument: str, allowed: str) -> None:
        self.argument, self.allowed = argument, allowed

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        del kind, trace
        if not isinstance(error, Exception) or _is_own(error):
            return
        name = type(error).__name__
        if name == "InvalidRngError":
            raise ValueError(
                f"{self.argument} must draw no random numbers in a call: {STATELESS}"
            ) from error
        reason = (str(error).strip() or name).splitlines()[0]
        raise ValueError(
            f"{self.argument} must be {self.allowed}, got one that fails: {name}: {reason}"
        ) from error


def _is_own(error: Exception) -> bool:
    """Whether a message already is one of this package."""
    return type(error) is ValueError and " must " in str(error).split(",")[0]


def _package(name: str, extra: str, function: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{function} needs {extra}: pip install 'causal_sgd[{extra}]'") from error


def _shape(example: object) -> tuple[int, ...]:
    """The shape of an input without an axis of batches."""
    shape = getattr(example, "shape", None)
    if not isinstance(shape, tuple):
        checks.number("example", example, scalar=False)
        shape = np.shape(example)  # pyright: ignore
    if not shape or 0 in shape:
        raise ValueError(
            f"example must be one input, an array of at least one axis, got the shape {list(shape)}"
        )
    return shape


def _parameters(make: Callable[..., Module]) -> Sequence[str]:
    try:
        return list(inspect.signature(make).parameters)
    except (TypeError, ValueError):  # a builtin without a signature
        return []


def _refuse_state(eqx: ModuleType, frame: Module) -> None:
    """Raise ValueError if a module of equinox has a state, or dropout that is not switched off."""
    kinds = (eqx.nn.StateIndex, eqx.nn.BatchNorm, eqx.nn.SpectralNorm, eqx.nn.Dropout)

    def is_layer(node: object) -> bool:
        return isinstance(node, kinds)

    for layer in jax.tree.leaves(frame, is_leaf=is_layer):
        dropout = isinstance(layer, eqx.nn.Dropout)
        if dropout and (layer.inference or layer.p == 0):
            continue
        if is_layer(layer):
            raise ValueError(
                f"make must return a module without {type(layer).__name__}: {STATELESS}"
            )


def _is_abstract(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _is_trained(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _sizes(tree: Params) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]

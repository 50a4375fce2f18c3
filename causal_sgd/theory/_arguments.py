"""What every formula does at its door: check the arguments, give them one shape and dtype, compile."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.types import Array

__all__ = ["check", "common", "door"]

_POSITIVE = (
    "learning_rate",
    "eigenvalue",
    "invariant_eigenvalue",
    "init_scale",
    "level",
    "num_steps",
)
_COUNTS = (
    "batch_size", "dim", "invariant_rank", "num_environments", "num_examples", "rank", "spurious_rank",
)  # fmt: skip
_LIMITS: dict[str, dict[str, Any]] = {
    **{name: {"above": 0} for name in _POSITIVE},
    **{name: {"minimum": 1} for name in _COUNTS},
    **{name: {"minimum": 0} for name in ("label_noise", "spread", "up", "down")},
    "depth": {"minimum": 2},
    "share": {"above": 0, "maximum": 1},
}


_P = ParamSpec("_P")
_R = TypeVar("_R")


def check(**values: Any) -> None:
    """Check concrete arguments against the limits of their names."""
    for name, value in values.items():
        checks.number(name, value, scalar=False, **_LIMITS.get(name, {}))


def door(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Check the concrete numbers by name, then run the function compiled whole.

    Called eagerly, every operation would compile on its own at every new shape, and every loop at every call.
    """
    names = list(inspect.signature(function).parameters)
    static = [name for name in ("family", "environments_per_batch", "directions") if name in names]
    compiled = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in set(static) & set(values):
            checks.instance(
                name, values[name], Hashable, "a name" if name == "family" else "a whole number"
            )
        check(**{name: value for name, value in values.items() if name not in static})
        call: Any = compiled  # jax would take a list for several arguments
        return call(*map(_array, args), **{name: _array(value) for name, value in kwargs.items()})

    return checked


def common(*values: Any) -> list[Array]:
    """The values as arrays of one shape and one floating dtype."""
    arrays = [jnp.asarray(value) for value in values]
    dtype = jnp.result_type(float, *arrays)
    shapes = [array.shape for array in arrays]
    try:
        jnp.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"arguments must have shapes that broadcast against each other, got {shapes}"
        ) from None
    return jnp.broadcast_arrays(*(array.astype(dtype) for array in arrays))


def _array(value: Any) -> Any:
    return jnp.asarray(value) if isinstance(value, list | tuple) else value

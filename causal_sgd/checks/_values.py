"""What an argument is: traced, masked, zero, or concrete; and how a message shows it."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "Value",
    "concrete",
    "has_x64",
    "is_traced",
    "is_tracing",
    "is_zero",
    "shown",
    "unmasked",
]

Value = TypeVar("Value", bound=Any)  # whatever a user passes


def concrete(value: object) -> np.ndarray | None:
    """The value as a NumPy array, or None if it is traced; of objects, if it is no array."""
    if is_traced(value):
        return None
    try:
        return np.asarray(value)
    except (TypeError, ValueError):  # a key of jax, rows of different lengths
        array = np.empty((), object)
        array[()] = value
        return array


def unmasked(name: str, value: Value) -> Value:
    """Return `value` if it is not a masked array, whose hidden entries would count as numbers.

    Raises:
        ValueError: if it is.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name} must have no masked entries, got a masked array; pass its .compressed() values"
        )
    return value


def is_tracing() -> bool:
    """Whether jax traces a function here and now, so that nothing may be computed at once."""
    if "jax" not in sys.modules:
        return False
    from jax.extend.core import get_opaque_trace_state

    return get_opaque_trace_state() != _state_by_hand()


@functools.cache
def _state_by_hand() -> object:
    from jax.core import eval_context
    from jax.extend.core import get_opaque_trace_state

    with eval_context():
        return get_opaque_trace_state()


def is_zero(value: object) -> bool:
    """Whether a value is a concrete zero in all entries; False for a traced one."""
    array = concrete(value)
    return array is not None and not array.any()


def shown(value: object) -> str:
    """A value on one line: a function by its name, a long value by its type."""
    name = getattr(value, "__qualname__", None)
    if callable(value) and name is not None:
        return f"the function {name}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def has_x64() -> bool:
    """Whether jax computes in double precision, here and now, or will once it is imported."""
    jax = sys.modules.get("jax")
    if jax is None:
        return os.environ.get("JAX_ENABLE_X64", "0").lower() in ("1", "true", "yes", "y", "t", "on")
    return bool(jax.config.jax_enable_x64)


def is_traced(value: object) -> bool:
    jax = sys.modules.get("jax")  # if jax was never imported, nothing can be traced
    return jax is not None and isinstance(value, jax.core.Tracer)

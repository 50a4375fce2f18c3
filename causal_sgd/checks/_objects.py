"""Checks of what is no number: names, functions, keys and other objects."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from causal_sgd.checks._values import Value, shown

__all__ = [
    "choice",
    "flags",
    "function",
    "instance",
    "key",
    "made_of",
    "spelled",
    "transformation",
    "world_factory",
]


def flags(**values: object) -> None:
    """Raise ValueError if one of the values is not True or False, such as a key or a traced one."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {shown(value)}")


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Return `value` if it is one of the options.

    Raises:
        ValueError: if it is not; the message suggests the nearest option.
    """
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}{hint}")


def spelled(name: str, value: object, options: Iterable[str]) -> str:
    """Return the option that `value` spells, with hyphens or underscores, else raise ValueError."""
    options = list(options)
    spellings = {option.replace("_", "-"): option for option in options}
    if isinstance(value, str):
        value = spellings.get(value.replace("_", "-"), value)
    return choice(name, value, options)


def instance(name: str, value: Value, kind: type | tuple[type, ...], allowed: str) -> Value:
    """Return `value` if it is an instance of `kind`.

    Raises:
        ValueError: if it is not; `allowed` states in words what is.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    return value


def function(name: str, value: Value, count: int, allowed: str) -> Value:
    """Return `value` if it can be called with `count` positional arguments.

    Raises:
        ValueError: if it cannot; the message for a factory adds that it must be called first.
    """
    try:
        inspect.signature(value).bind(*range(count))
    except TypeError:
        hint = "; call it with its own arguments first" if callable(value) else ""
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}{hint}") from None
    except ValueError:  # a builtin without a signature
        pass
    return value


def made_of(name: str, value: Value, functions: Sequence[str], allowed: str) -> Value:
    """Return `value` if it has all these functions as attributes.

    Raises:
        ValueError: if it has not; the message for a factory adds that it must be called first.
    """
    if not all(callable(getattr(value, attribute, None)) for attribute in functions):
        hint = "; call it with its own arguments first" if callable(value) else ""
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}{hint}")
    return value


def world_factory(name: str, value: Value) -> Value:
    """Return `value` if it can be called with a key, else raise ValueError."""
    return function(
        name, value, 1, "a function key -> World, such as worlds.two_point(dim=50, ...)"
    )


def transformation(name: str, value: Value) -> Value:
    """Return `value` if it is an optax transformation, else raise ValueError."""
    return made_of(
        name, value, ("init", "update"), "an optax transformation, such as optax.sgd(0.1)"
    )


def key(name: str, value: Value) -> Value:
    """Return `value` if it is one random key, typed or raw, or traced; else raise ValueError."""
    jax = sys.modules.get("jax")
    allowed = "one random key, such as jax.random.key(0)"
    if jax is None or not isinstance(value, jax.Array):
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    typed = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    if value.ndim != (not typed) or not (typed or value.dtype == np.uint32):
        hint = "; jax.vmap runs over several" if typed else ""
        raise ValueError(
            f"{name} must be {allowed}, got {value.dtype} of shape {value.shape}{hint}"
        )
    return value

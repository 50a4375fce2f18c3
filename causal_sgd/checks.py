"""Argument checks at the door: one line that names the argument, the value got and what is allowed.

Traced values pass unchecked (nothing branches on them); everything concrete is checked before anything is compiled.
Imports no jax, so that the command line and the plots can check names quickly.
"""

from __future__ import annotations

import difflib
import inspect
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "choice", "concrete", "function", "instance", "integer", "is_zero", "key", "made_of", "number", "probabilities", "transformation",
    "whole", "world_factory",
]  # fmt: skip


def concrete(value: Any) -> np.ndarray | None:
    """The value as a NumPy array, or None when it is traced."""
    return None if _traced(value) else np.asarray(value)


def is_zero(value: Any) -> bool:
    """Whether a value is known to be zero throughout; a traced one is not known."""
    array = concrete(value)
    return array is not None and not array.any()


def number(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    scalar: bool = True,
) -> Any:
    """Return `value` if it is finite (traced: unchecked) and within the limits, else raise ValueError.

    Args:
        name: how the caller knows the argument.
        value: a number, an array of numbers when `scalar` is false, or a tracer.
        minimum: the least value allowed.
        above: a value that must be exceeded.
        maximum: the greatest value allowed.
        scalar: whether only a single number is allowed.
    """
    limits = [
        f"{words} {limit:g}"
        for words, limit in (("at least", minimum), ("above", above), ("at most", maximum))
        if limit is not None
    ]
    allowed = "a finite number" + (" " + " and ".join(limits) if limits else "")
    if scalar and getattr(value, "ndim", 0) != 0:
        raise ValueError(f"{name} must be {allowed}, got an array of shape {tuple(value.shape)}")
    array = concrete(value)
    if array is None:
        return value
    if array.dtype.kind not in "iuf" or (scalar and array.ndim):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    good = np.isfinite(array)
    if minimum is not None:
        good &= array >= minimum
    if above is not None:
        good &= array > above
    if maximum is not None:
        good &= array <= maximum
    if not good.all():
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return value


def integer(name: str, value: Any, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return `value` as an int if it is a concrete whole number within the limits, else raise ValueError."""
    allowed = f"a whole number, at least {minimum}"
    if maximum is not None:
        allowed += f" and at most {maximum}"
    if _traced(value):
        raise ValueError(
            f"{name} must be {allowed}; it fixes shapes, so it cannot be traced or swept in one program"
        )
    try:
        result = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
    if isinstance(value, bool) or result < minimum or (maximum is not None and result > maximum):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return result


def whole(name: str, value: Any, *, minimum: int = 1, maximum: int) -> Any:
    """Return `value`, a whole number that may be traced, else raise ValueError; a traced one is not looked at."""
    number(name, value, minimum=minimum, maximum=maximum)
    known = concrete(value)
    if known is not None and known != round(float(known)):
        raise ValueError(f"{name} must be a whole number, got {value}")
    return value


def choice(name: str, value: Any, options: Iterable[str]) -> str:
    """Return `value` if it is one of the options, else raise ValueError that names the nearest one."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}{hint}")


def probabilities(name: str, value: Any, size: int) -> Any:
    """Return `value` if it holds `size` non-negative probabilities that sum to one, else raise ValueError."""
    shape = tuple(np.shape(value))
    if shape != (size,):
        raise ValueError(
            f"{name} must have one entry per environment, shape ({size},), got shape {shape}"
        )
    array = concrete(value)
    if array is not None:
        number(name, array, minimum=0, scalar=False)
        if abs(float(array.sum()) - 1) > 1e-5:
            raise ValueError(f"{name} must sum to one, got a sum of {float(array.sum()):g}")
    return value


def instance(name: str, value: Any, kind: type | tuple[type, ...], allowed: str) -> Any:
    """Return `value` if it is of a kind, else raise ValueError that says in words what is allowed."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
    return value


def function(name: str, value: Any, count: int, allowed: str) -> Any:
    """Return `value` if it can be called with `count` arguments, else raise ValueError; of a factory, that it is to be called."""
    try:
        inspect.signature(value).bind(*range(count))
    except TypeError:
        hint = "; call it with its own arguments first" if callable(value) else ""
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}{hint}") from None
    except ValueError:  # a builtin that tells no signature
        pass
    return value


def made_of(name: str, value: Any, functions: Sequence[str], allowed: str) -> Any:
    """Return `value` if it has all these functions, else raise ValueError; of a factory, that it is to be called."""
    if not all(callable(getattr(value, part, None)) for part in functions):
        hint = "; call it with its own arguments first" if callable(value) else ""
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}{hint}")
    return value


def world_factory(name: str, value: Any) -> Any:
    """Return `value` if it can make a world from a key, else raise ValueError."""
    return function(
        name, value, 1, "a function key -> World, such as worlds.two_point(dim=50, ...)"
    )


def transformation(name: str, value: Any) -> Any:
    """Return `value` if it is an optax transformation, else raise ValueError."""
    return made_of(
        name, value, ("init", "update"), "an optax transformation, such as optax.sgd(0.1)"
    )


def key(name: str, value: Any) -> Any:
    """Return `value` if it is one random key, typed or raw, traced or not, else raise ValueError."""
    jax = sys.modules.get("jax")
    allowed = "one random key, such as jax.random.key(0)"
    if jax is None or not isinstance(value, jax.Array):
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
    typed = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    if value.ndim != (not typed) or not (typed or value.dtype == np.uint32):
        hint = "; jax.vmap runs over several" if typed else ""
        raise ValueError(
            f"{name} must be {allowed}, got {value.dtype} of shape {value.shape}{hint}"
        )
    return value


def _shown(value: Any) -> str:
    """A value in a line: a function by its name, what is long by its type."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"the function {value.__qualname__}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def _traced(value: Any) -> bool:
    jax = sys.modules.get("jax")  # where it was never imported, nothing can be traced
    return jax is not None and isinstance(value, jax.core.Tracer)

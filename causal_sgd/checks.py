"""Argument checks: errors of one line that name the argument, the value and what is allowed.

Traced values pass unchecked, and nothing branches on them. Everything concrete is checked before
anything is compiled. The module does not import jax, so that the command line and the figures can
check names quickly.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar, cast

import numpy as np

__all__ = [
    "choice",
    "concrete",
    "flags",
    "floating",
    "function",
    "instance",
    "integer",
    "is_tracing",
    "is_zero",
    "key",
    "made_of",
    "number",
    "path",
    "probabilities",
    "record",
    "representable",
    "spelled",
    "transformation",
    "unmasked",
    "whole",
    "world_factory",
]

Value = TypeVar("Value", bound=Any)  # whatever a user passes

# What jax holds without and with x64: integers, and normal floating-point numbers.
_INT32, _INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
_FLOAT32, _FLOAT64 = ((np.float64(f.tiny), np.float64(f.max)) for f in map(np.finfo, ("f4", "f8")))


def concrete(value: object) -> np.ndarray | None:
    """The value as a NumPy array, or None if it is traced; of objects, if it is no array."""
    if _is_traced(value):
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


def number(
    name: str,
    value: Value,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    scalar: bool = True,
    double: bool = False,
) -> Value:
    """Return `value` if it is finite, within the limits, and fits the types of programs.

    Args:
        name: the argument's name, for the message.
        value: a number, an array of numbers if `scalar` is false, or a tracer, which passes.
        minimum: the least value allowed.
        above: an exclusive lower limit.
        maximum: the greatest value allowed.
        scalar: whether arrays are refused.
        double: whether NumPy computes with it, in double precision whatever jax does.

    Raises:
        ValueError: if it is not.
    """
    limits = [
        f"{words} {limit:g}"
        for words, limit in (("at least", minimum), ("above", above), ("at most", maximum))
        if limit is not None
    ]
    allowed = "a finite number" + (" " + " and ".join(limits) if limits else "")
    if scalar and getattr(value, "ndim", 0) != 0:
        raise ValueError(
            f"{name} must be {allowed}, got an array of shape {tuple(np.shape(value))}"
        )
    array = concrete(unmasked(name, value))
    if array is None:
        return value
    if array.dtype.kind == "O" and array.ndim == 0 and type(array.item()) is int:
        representable(name, value)
    if array.dtype.kind not in "iuf" or (scalar and array.ndim):
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
    valid = np.isfinite(array)
    if minimum is not None:
        valid &= array >= minimum
    if above is not None:
        valid &= array > above
    if maximum is not None:
        valid &= array <= maximum
    if not valid.all():
        shown = str(value)
        if "\n" in shown:  # of a matrix
            shown = f"{array[~valid][0]:g} in an array of shape {array.shape}"
        raise ValueError(f"{name} must be {allowed}, got {shown}")
    return value if double else representable(name, value)


def record(name: str, value: object) -> np.ndarray:
    """Return `value` as an array of double precision; NaN and infinity, as of failed runs, pass.

    Raises:
        ValueError: if it holds anything but real numbers, or is traced.
    """
    array = concrete(unmasked(name, value))
    if array is None or array.dtype.kind not in "biuf":
        shown = "a traced value" if array is None else _shown(value)
        raise ValueError(f"{name} must be an array of real numbers, got {shown}")
    return array.astype(float, copy=False)


def representable(name: str, value: Value) -> Value:
    """Return `value` if it keeps its value in the types that jax computes with.

    These are int32 and float32, or with x64 int64 and float64. Larger integers would wrap, and
    floating-point numbers outside the normal range would become zero, denormal or infinite.

    Args:
        name: the argument's name, for the message.
        value: a number, an array of numbers, or a tracer, which passes. NaN and infinity pass, too.

    Raises:
        ValueError: if a number does not fit.
    """
    array = concrete(value)
    if array is None:
        return value
    # Integers beyond 64 bits are objects; what is no number is for others to refuse.
    large = array.dtype.kind == "O" and all(type(entry) is int for entry in array.flat)
    single, whole = not _has_x64(), large or array.dtype.kind in "iu"
    if whole:
        smallest, largest = _INT32 if single else _INT64
        outside = (array < smallest) | (array > largest)
        kind = "int32, where it is an integer" if single else "int64, where it is an integer"
        allowed = f"from {smallest} to {largest}, the range of {kind}"
    elif array.dtype.kind == "f":
        smallest, largest = _FLOAT32 if single else _FLOAT64
        size = abs(array)
        outside = ((size < smallest) & (size > 0)) | ((size > largest) & (size < np.inf))
        kind = "float32" if single else "float64"
        limits = f"from {smallest:.2g} to {largest:.2g}"
        allowed = f"0 or {limits} in magnitude, the normal range of {kind}"
    else:
        return value
    if np.any(outside):
        first = np.asarray(array[outside]).flat[0]
        raise ValueError(f"{name} must be {allowed}, got {first if whole else format(first, 'g')}")
    return value


def floating() -> np.dtype:
    """The type in which jax holds floating-point numbers, here and now."""
    return np.dtype(np.float64 if _has_x64() else np.float32)


def integer(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return `value` as an int if it is a concrete whole number within the limits.

    Raises:
        ValueError: if it is not.
    """
    allowed = f"a whole number, at least {minimum}"
    if maximum is not None:
        allowed += f" and at most {maximum}"
    else:
        maximum = _INT32[1]
    if _is_traced(value):
        raise ValueError(
            f"{name} must be {allowed}; it fixes shapes, so it cannot be traced or swept in one "
            "program"
        )
    try:
        result = operator.index(cast("SupportsIndex", value))
    except TypeError:
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
    if result > maximum == _INT32[1]:
        allowed = f"a whole number, at least {minimum} and at most {maximum}"
    if isinstance(value, bool) or not minimum <= result <= maximum:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return result


def whole(name: str, value: Value, *, minimum: int = 1, maximum: int) -> Value:
    """Return `value` if it is a whole number within the limits; a traced one passes.

    Raises:
        ValueError: if it is not.
    """
    number(name, value, minimum=minimum, maximum=maximum)
    array = concrete(value)
    if array is not None and array != round(float(array)):
        raise ValueError(f"{name} must be a whole number, got {value}")
    return value


def flags(**values: object) -> None:
    """Raise ValueError if one of the values is not True or False, such as a key or a traced one."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, got {_shown(value)}")


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


def probabilities(name: str, value: Value, size: int) -> Value:
    """Return `value` if it holds `size` non-negative numbers that sum to one.

    Raises:
        ValueError: if it does not; a traced one only for its shape.
    """
    array = concrete(value)
    shape = tuple(np.shape(value) if array is None else array.shape)
    if shape != (size,):
        raise ValueError(
            f"{name} must have one entry per environment, shape ({size},), got shape {shape}"
        )
    if array is not None:
        number(name, array, minimum=0, scalar=False, double=True)  # 1e-50 may well become 0
        if abs(float(array.sum()) - 1) > 1e-5:
            raise ValueError(f"{name} must sum to one, got a sum of {float(array.sum()):g}")
    return value


def path(name: str, value: object, *, absolute: bool = True) -> Path:
    """Return `value` as a path with ~ expanded, absolute so that it survives a change of folder.

    Args:
        name: of the argument.
        value: a string or an object with a file system path.
        absolute: whether to make it absolute.

    Raises:
        ValueError: if it is not a path, or a URL.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{name} must be a path, as text or a pathlib.Path, got {value!r}")
    # `Path` makes one slash of two. A letter alone is a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(
            f"{name} must be a path on this machine, got the URL {text!r}: mount what it names, "
            "or copy it here"
        )
    try:
        result = Path(text).expanduser()
        return result.absolute() if absolute else result
    except (RuntimeError, OSError) as error:  # no such user, or the current folder is gone
        raise ValueError(
            f"{name} must be a path that exists from here, got {text!r}: {error}"
        ) from None


def instance(name: str, value: Value, kind: type | tuple[type, ...], allowed: str) -> Value:
    """Return `value` if it is an instance of `kind`.

    Raises:
        ValueError: if it is not; `allowed` states in words what is.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
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
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}{hint}") from None
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
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}{hint}")
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
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
    typed = jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
    if value.ndim != (not typed) or not (typed or value.dtype == np.uint32):
        hint = "; jax.vmap runs over several" if typed else ""
        raise ValueError(
            f"{name} must be {allowed}, got {value.dtype} of shape {value.shape}{hint}"
        )
    return value


def _shown(value: object) -> str:
    """A value on one line: a function by its name, a long value by its type."""
    name = getattr(value, "__qualname__", None)
    if callable(value) and name is not None:
        return f"the function {name}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def _has_x64() -> bool:
    """Whether jax computes in double precision, here and now, or will once it is imported."""
    jax = sys.modules.get("jax")
    if jax is None:
        return os.environ.get("JAX_ENABLE_X64", "0").lower() in ("1", "true", "yes", "y", "t", "on")
    return bool(jax.config.jax_enable_x64)


def _is_traced(value: object) -> bool:
    jax = sys.modules.get("jax")  # if jax was never imported, nothing can be traced
    return jax is not None and isinstance(value, jax.core.Tracer)

"""Checks of numbers: kinds, limits, and whether they fit the types of programs."""

from __future__ import annotations

import operator
from typing import SupportsIndex, cast

import numpy as np

from causal_sgd.checks._values import Value, concrete, has_x64, is_traced, shown, unmasked

__all__ = [
    "angle",
    "floating",
    "integer",
    "number",
    "probabilities",
    "record",
    "representable",
    "whole",
]

# What jax holds without and with x64: integers, and normal floating-point numbers.
_INT32, _INT64 = (-(2**31), 2**31 - 1), (-(2**63), 2**63 - 1)
_FLOAT32, _FLOAT64 = ((np.float64(f.tiny), np.float64(f.max)) for f in map(np.finfo, ("f4", "f8")))


# A quarter turn, rounded up so that pi / 2 in single precision is one.
_QUARTER_TURN = 1.5708


def angle(name: str, value: Value, *, minimum: float = -_QUARTER_TURN) -> Value:
    """Return `value` if it is an angle in radians of at most a quarter turn.

    Args:
        name: the argument's name, for the message.
        value: a number, or a tracer, which passes.
        minimum: the least value allowed.

    Raises:
        ValueError: if it is not.
    """
    try:
        return number(name, value, minimum=minimum, maximum=_QUARTER_TURN)
    except ValueError as error:
        text = str(error).replace(f"{_QUARTER_TURN:g}", "pi / 2")
        raise ValueError(f"{text}; angles are in radians") from None


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
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}")
    valid = np.isfinite(array)
    if minimum is not None:
        valid &= array >= minimum
    if above is not None:
        valid &= array > above
    if maximum is not None:
        valid &= array <= maximum
    if not valid.all():
        text = str(value)
        if "\n" in text:  # of a matrix
            text = f"{array[~valid][0]:g} in an array of shape {array.shape}"
        raise ValueError(f"{name} must be {allowed}, got {text}")
    return value if double else representable(name, value)


def record(name: str, value: object) -> np.ndarray:
    """Return `value` as an array of double precision; NaN and infinity, as of failed runs, pass.

    Raises:
        ValueError: if it holds anything but real numbers, or is traced.
    """
    array = concrete(unmasked(name, value))
    if array is None or array.dtype.kind not in "biuf":
        text = "a traced value" if array is None else shown(value)
        raise ValueError(f"{name} must be an array of real numbers, got {text}")
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
    single, whole = not has_x64(), large or array.dtype.kind in "iu"
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
    return np.dtype(np.float64 if has_x64() else np.float32)


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
    if is_traced(value):
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

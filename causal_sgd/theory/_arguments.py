"""Checks, broadcasting and compilation that all formulas share."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.types import Array

__all__ = ["broadcast", "check", "checked_jit", "count_environments"]

_POSITIVE = (
    "batch_ratio",
    "colour",
    "curvature",
    "eigenvalue",
    "init_scale",
    "invariant_eigenvalue",
    "invariant_eigenvalues",
    "input_variance",
    "input_variances",
    "learning_rate",
    "largest",
    "length",
    "level",
    "lower",
    "margins",
    "num_steps",
    "loss",
    "overshoot",
    "product",
    "ratio",
    "shares",
    "strong",
    "task_variances",
    "time",
    "tolerance",
    "variance",
    "weak",
)
_COUNTS = (
    "batch_size",
    "context_length",
    "dim",
    "dim_spurious",
    "invariant_rank",
    "num_environments",
    "num_examples",
    "rank",
    "spurious_rank",
)
_NOT_NEGATIVE = (
    "deviation",
    "down",
    "gain",
    "gamma",
    "gradient_norm",
    "imbalance",
    "label_noise",
    "noise_variance",
    "radius",
    "signal_to_noise",
    "spare",
    "spread",
    "step",
    "up",
    "weight",
    "within_variance",
)
_LIMITS: dict[str, dict[str, Any]] = {
    **{name: {"above": 0} for name in _POSITIVE},
    **{name: {"minimum": 1} for name in _COUNTS},
    **{name: {"minimum": 0} for name in _NOT_NEGATIVE},
    "accuracy": {"minimum": 0, "maximum": 1},
    "agreement": {"minimum": 0, "maximum": 1},
    "foreground": {"minimum": 0, "maximum": 1},
    "invariant_flip": {"minimum": 0, "maximum": 0.5},
    "spurious_flip": {"minimum": 0, "maximum": 1},
    "spurious_flips": {"minimum": 0, "maximum": 1},
    "minority_share": {"minimum": 0, "maximum": 1},
    "momentum": {"minimum": 0, "maximum": 1},
    "depth": {"minimum": 2},
    "share": {"above": 0, "maximum": 1},
    "start_share": {"above": 0, "maximum": 1},
}

_STATIC: dict[str, tuple[type, str]] = {
    "design": (str, "a name"),
    "directions": (Hashable, "a whole number"),
    "environments_per_batch": (Hashable, "a whole number"),
    "family": (str, "a name"),
    "nesterov": (bool, "True or False"),
    "sampler": (str, "a name"),
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def check(**values: object) -> None:
    """Check concrete arguments against the limits of their names."""
    for name, value in values.items():
        checks.number(name, value, scalar=False, **_LIMITS.get(name, {}))


def count_environments(name: str, values: ArrayLike) -> int:
    """The number E of environments on the last axis of an argument [..., E]."""
    check(**{name: values})
    shape = np.shape(values)  # of lists, too
    if not shape or shape[-1] == 0:
        raise ValueError(
            f"{name} must have a last axis of environments, [..., E], got shape {shape}"
        )
    return shape[-1]


def checked_jit(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile a formula as a whole and check its concrete arguments by name before each call.

    Without `jit` every operation would be compiled separately for each new shape, and every loop at
    each call.
    """
    parameters = inspect.signature(function).parameters
    names = list(parameters)
    optional = {name for name in names if parameters[name].default is None}
    static = [name for name in _STATIC if name in names]
    compiled: Callable[..., _R] = jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        values: dict[str, object] = {**dict(zip(names, args, strict=False)), **kwargs}
        for name in set(static) & set(values):
            checks.instance(name, values[name], *_STATIC[name])
        left_out = {name for name in optional if values.get(name, 0) is None}
        unchecked = left_out.union(static)
        check(**{name: value for name, value in values.items() if name not in unchecked})
        # jit would take a list for a pytree of several arguments
        positional = [
            value if name in static else _as_array(value)
            for name, value in itertools.zip_longest(names[: len(args)], args)
        ]
        arrays = {
            name: value if name in static else _as_array(value) for name, value in kwargs.items()
        }
        return compiled(*positional, **arrays)

    return checked


def broadcast(*values: ArrayLike) -> list[Array]:
    """Convert the values to arrays of one shape and one floating dtype."""
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


def _as_array(value: object) -> object:
    return jnp.asarray(value) if isinstance(value, list | tuple) else value

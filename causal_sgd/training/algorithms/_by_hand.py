"""Steps by hand, outside of any trace: compiled once an algorithm, or run as they are written.

Op by op, jax compiles every loop anew in every call. A step is therefore compiled if all functions
in it come from libraries, whose results follow from their arguments, their closures and these
arrays and numbers. What their closures hold is compared in every step, so that no change is missed.
A function of the user's own may read or print anything: with one, the step runs op by op.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator

import jax
import numpy as np

from causal_sgd import checks
from causal_sgd.types import Key, State

__all__ = ["by_hand"]

LIBRARIES = frozenset({"builtins", "causal_sgd", "chex", "functools", "jax", "numpy", "optax"})
MOST_NUMBERS = 1024  # in an array of numpy, which may change in place and is compared as a whole
Step = Callable[[Key, State], State]


def by_hand(step: Step) -> Step:
    """Return a step that is compiled where nothing is traced; within a trace it is the same."""
    compiled: list[tuple[list[object], Step]] = []  # at most one, with what it read

    @functools.wraps(step)
    def call(key: Key, state: State) -> State:
        if checks.is_tracing():
            return step(key, state)
        try:
            reads = list(_reads(step, set()))
        except _UnknownError:
            return step(key, state)
        if not compiled or not _equal(compiled[0][0], reads):
            # A function of its own: jax.jit would find the program of the last one.
            compiled[:] = [(reads, jax.jit(lambda key, state: step(key, state)))]
        return compiled[0][1](key, state)

    return call


class _UnknownError(Exception):
    """Something is reached whose changes could not be seen."""


def _reads(value: object, outer: set[int]) -> Iterator[object]:
    """All that a function of libraries reads besides its arguments and its own module."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        yield value
        return
    if isinstance(value, np.ndarray) and value.size <= MOST_NUMBERS:
        yield value.dtype, value.shape, value.tobytes()
        return
    if isinstance(value, jax.Array | np.dtype | jax.tree_util.PyTreeDef | types.CellType):
        yield value  # does not change
        return
    if id(value) in outer:
        return
    outer.add(id(value))
    if not isinstance(value, tuple | list | dict):
        module = value.__module__ if hasattr(value, "__module__") else type(value).__module__
        opaque = isinstance(value, types.ModuleType) or not (
            callable(value) or hasattr(value, "__dict__")
        )
        if opaque or str(module).split(".")[0] not in LIBRARIES:
            raise _UnknownError
        yield value
    for part in _parts(value):
        yield from _reads(part, outer)


def _parts(value: object) -> Iterator[object]:
    """What a container, a function or an object of a library holds."""
    if isinstance(value, types.FunctionType):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not set yet
                yield cell
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, dict):
        for item in value.items():
            yield from item
    elif isinstance(value, tuple | list):
        yield from value
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield vars(value)


def _equal(before: list[object], after: list[object]) -> bool:
    return len(before) == len(after) and all(map(_same, before, after))


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    # By their text: 0.0 and -0.0 are equal, and NaN is not.
    plain = bool | int | float | complex | str | bytes | np.generic | tuple
    return type(one) is type(other) and isinstance(one, plain) and repr(one) == repr(other)

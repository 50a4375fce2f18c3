"""Properties of a traced program: memory, shared draws, LAPACK calls, callbacks, fingerprint."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
import re
import types
import weakref
from collections.abc import Hashable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex_core

from causal_sgd import random

__all__ = [
    "batches_lapack",
    "callbacks",
    "fingerprint",
    "shared_bytes",
    "shares_draws",
    "working_bytes",
]

LAPACK = {"cholesky", "eig", "eigh", "geqrf", "householder_product", "lu", "qr", "schur", "svd"}


def working_bytes(jaxpr: jex_core.Jaxpr) -> int:
    """Bytes of all values that a program computes, each counted once: an upper bound on its memory.

    A jitted function counts as if it were inlined; of loops and branches, the largest counts.
    """
    own = sum(_bytes(variable.aval) for equation in jaxpr.eqns for variable in equation.outvars)
    called, largest = 0, 0
    for equation in jaxpr.eqns:
        for inner in _inner(equation):
            size = working_bytes(inner)
            if equation.primitive.name in ("jit", "pjit"):
                called += size
            else:
                largest = max(largest, size)
    return own + called + largest


def shared_bytes(jaxpr: jex_core.ClosedJaxpr) -> int:
    """Bytes of the constants that every run reads as a whole.

    Constants from which a run gathers rows do not count; they are recognised by their size.
    """
    gathered = {
        _bytes(equation.invars[0].aval)
        for equation in _equations(jaxpr.jaxpr)
        if equation.primitive.name == "gather"
    }
    sizes = [_bytes(constant) for constant in jaxpr.consts]
    return sum(size for size in sizes if size not in gathered)


def batches_lapack(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program passes batches of matrices to LAPACK, as a user's metric might."""
    return any(
        equation.primitive.name in LAPACK and int(np.prod(_shape(equation.invars[0].aval)[:-2])) > 1
        for equation in _equations(jaxpr)
    )


def shares_draws(jaxpr: jex_core.Jaxpr) -> bool:
    """Whether a program (root key, seeds, values...) draws what all runs of a seed may share.

    That is, whether there are numbers that bear the mark of `random.shareable` and depend on the
    seed, and none of them depends on a value.
    """
    values = len(jaxpr.invars) - 2
    if not values or not any(map(_is_mark, _equations(jaxpr))):
        return False
    return _flow(jaxpr, [0, _SEED] + [_VALUE] * values)[1] - {0} == {_SEED}


# What a number depends on, as bits.
_SEED, _VALUE = 1, 2
_Flow = tuple[list[int], set[int]]  # what the outputs depend on, and what marked numbers do


def _is_mark(equation: jex_core.JaxprEqn) -> bool:
    return equation.primitive.name == "name" and equation.params["name"] == random.SHAREABLE


def _flow(jaxpr: jex_core.Jaxpr, given: Sequence[int]) -> _Flow:
    """Follow what the inputs of a program depend on."""
    depends: dict[object, int] = dict(zip(jaxpr.invars, given, strict=True))
    marked: set[int] = set()

    def known(atoms: Sequence[object]) -> list[int]:
        return [0 if isinstance(atom, jex_core.Literal) else depends.get(atom, 0) for atom in atoms]

    for equation in jaxpr.eqns:
        inputs = known(equation.invars)
        outputs, inside = _FLOWS.get(equation.primitive.name, _through)(equation, inputs)
        depends.update(zip(equation.outvars, outputs, strict=True))
        marked |= inside | (set(inputs) if _is_mark(equation) else set())
    return known(jaxpr.outvars), marked


def _through(equation: jex_core.JaxprEqn, inputs: list[int]) -> _Flow:
    """A call hands on its inputs in order; outputs of any other operation depend on all inputs."""
    programs, size = list(_inner(equation)), len(equation.outvars)
    if [(len(each.invars), len(each.outvars)) for each in programs] == [(len(inputs), size)]:
        return _flow(programs[0], inputs)
    every = functools.reduce(operator.or_, inputs, 0)
    marked = (_flow(program, [every] * len(program.invars))[1] for program in programs)
    return [every] * size, set().union(*marked)


def _through_while(equation: jex_core.JaxprEqn, inputs: list[int]) -> _Flow:
    first = equation.params["cond_nconsts"]
    last = first + equation.params["body_nconsts"]
    carry = inputs[last:]
    while True:
        (ends,), tested = _flow(equation.params["cond_jaxpr"].jaxpr, inputs[:first] + carry)
        outputs, marked = _flow(equation.params["body_jaxpr"].jaxpr, inputs[first:last] + carry)
        grown = [old | new | ends for old, new in zip(carry, outputs, strict=True)]
        if grown == carry:
            return carry, tested | marked
        carry = grown


def _through_scan(equation: jex_core.JaxprEqn, inputs: list[int]) -> _Flow:
    (body,) = _inner(equation)
    first = equation.params["num_consts"]
    count = equation.params["num_carry"]
    carry = inputs[first : first + count]
    while True:
        outputs, marked = _flow(body, inputs[:first] + carry + inputs[first + count :])
        grown = [old | new for old, new in zip(carry, outputs[:count], strict=True)]
        if grown == carry:
            return carry + outputs[count:], marked
        carry = grown


def _through_branches(equation: jex_core.JaxprEqn, inputs: list[int]) -> _Flow:
    flows = [_flow(branch, inputs[1:]) for branch in _inner(equation)]
    outputs = [inputs[0]] * len(equation.outvars)
    for others, _ in flows:
        outputs = [one | other for one, other in zip(outputs, others, strict=True)]
    return outputs, set().union(*(marked for _, marked in flows))


_FLOWS = {"while": _through_while, "scan": _through_scan, "cond": _through_branches}


def callbacks(jaxpr: jex_core.Jaxpr) -> tuple[Hashable, ...]:
    """The Python functions that a program calls, which its fingerprint does not see.

    Two programs of one fingerprint may share a compiled one if these are equal: functions of the
    same code, over the same objects.
    """
    return tuple(
        _identity(equation.params["callback"], ())
        for equation in _equations(jaxpr)
        if "callback" in equation.params
    )


def fingerprint(jaxpr: jex_core.ClosedJaxpr) -> str:
    """SHA-256 of a program and its constants, the same in every process with the same versions."""
    # Addresses of Python functions differ between processes, and IPython has colours.
    text = jaxpr.pretty_print(use_color=False)
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", text).encode())
    for constant in _constants(jaxpr):
        digest.update(_digest(constant))
    return digest.hexdigest()


def _constants(jaxpr: jex_core.ClosedJaxpr) -> Iterator[jax.Array | np.ndarray]:
    """The arrays of a program, whose numbers its text does not show."""
    yield from jaxpr.consts
    for equation in _equations(jaxpr.jaxpr):
        for variable in equation.invars:
            if isinstance(variable, jex_core.Literal) and getattr(variable.val, "ndim", 0):
                yield variable.val
        for leaf in _leaves(equation):
            if isinstance(leaf, jex_core.ClosedJaxpr):
                yield from leaf.consts
            elif hasattr(leaf, "nbytes") and isinstance(leaf, jax.Array | np.ndarray):
                yield leaf


# Constants may be large, and a sweep is often repeated. Arrays of jax do not change.
_digests: dict[int, tuple[weakref.ref[jax.Array], bytes]] = {}


def _digest(constant: jax.Array | np.ndarray) -> bytes:
    """SHA-256 of an array; computed once for an array of jax, while it lives."""
    if not isinstance(constant, jax.Array):
        return _hash(np.asarray(constant), "")
    place = id(constant)
    if place not in _digests:
        if jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
            words = np.asarray(jax.random.key_data(constant))
            content = _hash(words, str(jax.random.key_impl(constant)))
        else:
            content = _hash(np.asarray(constant), "")
        _digests[place] = weakref.ref(constant, lambda _: _digests.pop(place, None)), content
    return _digests[place][1]


def _hash(array: np.ndarray, kind: str) -> bytes:
    digest = hashlib.sha256(f"{array.shape} {array.dtype} {kind}".encode())
    if array.nbytes:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.digest()


@dataclasses.dataclass(frozen=True)
class _Same:
    """Equal for one object only; holds it, so that its address is not used again."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _identity(value: object, outer: tuple[object, ...]) -> Hashable:
    """Equal for values that compute the same; `outer` are those that contain this one."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return type(value), repr(value)  # 0.0 and -0.0 are equal
    if isinstance(value, jax.tree_util.PyTreeDef):
        return value
    if any(value is other for other in outer):  # a function that refers to itself
        return _Same(value)
    fixed: Hashable = type(value)
    if isinstance(value, types.FunctionType):
        fixed = value.__code__, _Same(value.__globals__)
        parts = value.__defaults__, *(value.__kwdefaults__ or {}).items(), *_closure(value)
    elif isinstance(value, functools.partial):
        parts = value.func, value.args, *value.keywords.items()
    elif isinstance(value, types.MethodType):
        parts = value.__func__, value.__self__
    elif isinstance(value, tuple):
        parts = value
    elif dataclasses.is_dataclass(value) and type(value).__module__.startswith("jax."):
        parts = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    else:  # what can change is equal to itself only
        return _Same(value)
    return fixed, tuple(_identity(part, (*outer, value)) for part in parts)


def _closure(function: types.FunctionType) -> Iterator[object]:
    """The values of a function's closure; the cell of one that is not set yet."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield cell


def _equations(jaxpr: jex_core.Jaxpr) -> Iterator[jex_core.JaxprEqn]:
    """The equations of a program and of all programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inner(equation):
            yield from _equations(inner)


def _inner(equation: jex_core.JaxprEqn) -> Iterator[jex_core.Jaxpr]:
    """The programs inside an equation: bodies of loops, branches, calls."""
    for leaf in _leaves(equation):
        if isinstance(leaf, PROGRAMS):
            yield leaf.jaxpr if isinstance(leaf, jex_core.ClosedJaxpr) else leaf


PROGRAMS = jex_core.Jaxpr | jex_core.ClosedJaxpr


def _leaves(equation: jex_core.JaxprEqn) -> Iterator[object]:
    """The parameters of an equation, taken out of containers."""
    # jax.tree would do, in ten times the time.
    values = list(equation.params.values())
    while values:
        value = values.pop()
        if isinstance(value, tuple | list):
            values += value
        elif isinstance(value, dict):
            values += value.values()
        else:
            yield value


def _bytes(aval: object) -> int:
    """The size of a value, abstract or not; 0 for tokens and others that have none."""
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return int(np.prod(_shape(aval))) * itemsize


def _shape(aval: object) -> tuple[int, ...]:
    return getattr(aval, "shape", ())

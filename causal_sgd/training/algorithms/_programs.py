"""Programs that may depend on traced numbers, evaluated on concrete ones while jax traces.

Common primitives are evaluated by NumPy, since compiling takes far longer than their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.extend import core as jex_core

from causal_sgd.types import Array, PyTree

__all__ = ["FactorisationError", "Programs"]

COMPARISONS = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
IN_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    **COMPARISONS,
    "abs": np.abs,
    "add": np.add,
    "and": np.bitwise_and,
    "convert_element_type": np.asarray,
    "cos": np.cos,
    "div": np.divide,  # of integers, too: the type of the result truncates it
    "is_finite": np.isfinite,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rem": np.fmod,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
}
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "checkpoint": "jaxpr"}

# Their signs are those of a library, which two representations need not share.
FACTORISATIONS = {"eig", "eigh", "geqrf", "householder_product", "qr", "svd"}


class FactorisationError(Exception):
    """The program factorises a matrix."""


class Programs:
    """Programs with a concrete number in place of each traced one, the same in all of them."""

    def __init__(self) -> None:
        self.traced: list[object] = []

    def trace(self, function: Callable[..., PyTree], *like: PyTree) -> Callable[..., PyTree]:
        """(outcome, *arguments) -> the function's value with this outcome of comparisons."""
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*like)
        constants = [self.concrete(constant) for constant in closed.consts]
        structure = jax.tree.structure(shape)

        def call(outcome: bool | None, *arguments: PyTree) -> PyTree:
            leaves = _evaluate(closed.jaxpr, constants, jax.tree.leaves(arguments), outcome)
            return jax.tree.unflatten(structure, leaves)

        return call

    def concrete(self, constant: Array) -> object:
        """A number in (0.3, 0.7), 3 or True for a traced one; others as they are."""
        if not isinstance(constant, Tracer):
            return constant
        places = [place for place, other in enumerate(self.traced) if other is constant]
        if not places:
            places = [len(self.traced)]
            self.traced.append(constant)
        if jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        number = 0.3 + 0.4 * (0.618 * places[0] % 1)
        value = number if jnp.issubdtype(constant.dtype, jnp.floating) else 3
        return np.full(constant.shape, value, constant.dtype)


def _evaluate(
    jaxpr: jex_core.Jaxpr,
    constants: Sequence[object],
    arguments: Sequence[object],
    outcome: bool | None,
) -> list[object]:
    """The results of a program in which comparisons of single numbers have the given outcome."""
    values: dict[jex_core.Var, object] = {}

    def write(variables: Sequence[jex_core.Var], results: Sequence[object]) -> None:
        for variable, result in zip(variables, results, strict=True):
            values[variable] = _in_numpy(result, variable)

    def read(atom: jex_core.Var | jex_core.Literal) -> object:
        return _in_numpy(atom.val, atom) if isinstance(atom, jex_core.Literal) else values[atom]

    write([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments])
    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        write(equation.outvars, _results(equation, inputs, outcome))
    return [read(atom) for atom in jaxpr.outvars]


def _results(
    equation: jex_core.JaxprEqn, inputs: Sequence[object], outcome: bool | None
) -> Sequence[object]:
    name, parameters = equation.primitive.name, equation.params
    if name in FACTORISATIONS:
        raise FactorisationError
    if name in CALLS:
        inner = parameters[CALLS[name]]
        return _evaluate(inner.jaxpr, inner.consts, inputs, outcome)
    if name == "cond":
        index, *inputs = inputs
        branch = parameters["branches"][int(np.asarray(index))]
        return _evaluate(branch.jaxpr, branch.consts, inputs, outcome)
    if name in COMPARISONS and outcome is not None:
        shape = _shaped(equation.outvars[0]).shape
        if np.prod(shape) == 1:
            return [np.full(shape, outcome)]
    if name in IN_NUMPY:
        return [IN_NUMPY[name](*inputs)]
    bound = equation.primitive.get_bind_params(parameters)
    # Older versions of jax return functions as well.
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    result = equation.primitive.bind(*functions, *inputs, **bound)
    return result if equation.primitive.multiple_results else [result]


def _in_numpy(result: object, atom: jex_core.Var | jex_core.Literal) -> object:
    """An array of numbers in the type of its variable; keys as they are."""
    kind = _shaped(atom).dtype
    return result if jnp.issubdtype(kind, jax.dtypes.extended) else np.asarray(result, kind)


def _shaped(atom: jex_core.Var | jex_core.Literal) -> ShapedArray:
    assert isinstance(atom.aval, ShapedArray)
    return atom.aval

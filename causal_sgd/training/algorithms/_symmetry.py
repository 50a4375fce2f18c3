"""Whether an optimizer commutes with the symmetry by which a model reduces its parameters.

Its numbers may be traced, so its program is evaluated with others in their place: on generic
gradients of very different sizes, beside the same in an equivalent, larger representation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.extend import core as jex_core

from causal_sgd.training.algorithms._updates import init_state, offered, transform
from causal_sgd.types import Array, Params, PyTree

__all__ = ["check_symmetry"]

Embed = Callable[[PyTree], PyTree]
WARM, STEPS = 3, 13  # steps before the buffers are embedded, and after
FINITE = WARM + 6  # steps that must not overflow
TOLERANCE = 1e-3  # relative; what acts on single entries differs by about 1
# Outcomes of all comparisons of numbers: as they are, true, false. Branches and masks that are rare
# or that stand-ins never reach, such as the updates of MultiSteps, are evaluated too.
OUTCOMES = 3
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "remat2": "jaxpr"}
CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "checkpoint": "jaxpr"}

# Their signs are those of a library, which two representations need not share.
FACTORISATIONS = {"eig", "eigh", "geqrf", "householder_product", "qr", "svd"}


class _SignError(Exception):
    """The program factorises a matrix."""


def check_symmetry(
    argument: str, optimizer: optax.GradientTransformation, params: Params, embed: Embed
) -> None:
    """Raise ValueError unless an optimizer commutes with an embedding of parameters and buffers.

    Args:
        argument: its name, for messages.
        optimizer: any optax transformation; its numbers may be traced.
        params: of the model; may be traced.
        embed: a linear map of all leaves of the shape of the parameters to an equivalent
            representation of another shape.
    """
    small = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    large = jax.eval_shape(embed, small)
    numbers = _StandIns()

    def init(params: Params) -> PyTree:
        return init_state(argument, optimizer, params)

    def step(params: Params, state: PyTree, gradient: Params) -> tuple[Params, PyTree]:
        extra = offered(optimizer, _Quadratic(gradient).extra(params))
        return transform(argument, optimizer, gradient, params, state, **extra)

    states = [jax.eval_shape(init, like) for like in (small, large)]
    if not _alike(jax.eval_shape(embed, states[0]), states[1]):
        raise ValueError(_message(argument))
    start = numbers.program(init, small)
    one = numbers.program(step, small, states[0], small)
    other = numbers.program(step, large, states[1], large)

    def commutes(outcome: Array) -> Array:
        def advance(carry: PyTree, given: tuple[Array, Params]) -> tuple[PyTree, Array]:
            before, after = carry
            index, gradient = given
            before = one(outcome, *before, gradient)
            after = other(outcome, *after, embed(gradient))
            target = embed(before)
            agree = _close(large, target, after, (outcome > 0) | (index >= FINITE))
            begins = index < WARM
            after = jax.tree.map(lambda *pair: jnp.where(begins, *pair), target, after)
            return (before, after), agree | begins

        gradients = _gradients(small)
        params = jax.tree.map(lambda leaf: leaf[0], gradients)
        before = params, start(outcome, params)
        given = jnp.arange(WARM + STEPS), gradients
        return jnp.all(jax.lax.scan(advance, (before, embed(before)), given)[1])

    # Nothing in it is traced, so that it runs here and now.
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.transfer_guard("allow"):
        try:
            result = np.asarray(jax.lax.map(commutes, jnp.arange(OUTCOMES)))
        except _SignError:
            raise ValueError(_message(argument)) from None
    if not result.all():
        raise ValueError(_message(argument))


def _message(argument: str) -> str:
    return (
        f"{argument} must commute with rotations of the rows of U for order_parameters, as sgd, "
        "momentum, weight decay, clip_by_global_norm, MultiSteps and averages do, got one that "
        "acts on single entries or depends on the number of rows (such as adam, sign_sgd or "
        "noisy_sgd); use models.factored with low_rank_law"
    )


class _Quadratic:
    """What a step offers an optimizer, for the loss |params|^2 / 2 + 1, which is symmetric."""

    def __init__(self, gradient: Params) -> None:
        self.gradient = gradient

    def extra(self, params: Params) -> dict[str, object]:
        """All that optimizers may ask for, by optax's names."""
        return {
            "value": self.value(params),
            "grad": self.gradient,
            "value_fn": self.value,
            "obj_fn": self.value,
            "grad_fn": lambda other, index: other,
        }

    def value(self, params: Params, *, grad_fn: object = None, obj_fn: object = None) -> Array:
        """The loss []; line searches hand it every argument that they do not know."""
        del grad_fn, obj_fn
        squares = jax.tree.map(lambda leaf: jnp.sum(leaf**2), params)
        return jax.tree.reduce(jnp.add, squares) / 2 + 1


class _StandIns:
    """Programs with a concrete number in place of each traced one, the same in all of them."""

    def __init__(self) -> None:
        self.traced: list[object] = []

    def program(self, function: Callable[..., PyTree], *like: PyTree) -> Callable[..., PyTree]:
        """(outcome, *arguments) -> the function's value with this outcome of comparisons."""
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*like)
        constants = [self.concrete(constant) for constant in closed.consts]

        def call(outcome: Array, *arguments: PyTree) -> PyTree:
            leaves = _evaluate(closed.jaxpr, constants, jax.tree.leaves(arguments), outcome)
            return jax.tree.unflatten(jax.tree.structure(shape), leaves)

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
    jaxpr: jex_core.Jaxpr, constants: Sequence[object], arguments: Sequence[object], outcome: Array
) -> list[Array]:
    """The results of a program in which comparisons of single numbers have the given outcome."""
    values: dict[jex_core.Var, object] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True)
    )

    def read(atom: jex_core.Var | jex_core.Literal) -> object:
        return atom.val if isinstance(atom, jex_core.Literal) else values[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        results = _results(equation, inputs, outcome)
        values.update(zip(equation.outvars, results, strict=True))
    return [jnp.asarray(read(atom)) for atom in jaxpr.outvars]


def _results(
    equation: jex_core.JaxprEqn, inputs: Sequence[object], outcome: Array
) -> Sequence[object]:
    name, parameters = equation.primitive.name, equation.params
    if name in FACTORISATIONS:
        raise _SignError
    if name in CALLS:
        inner = parameters[CALLS[name]]
        return _evaluate(inner.jaxpr, inner.consts, inputs, outcome)
    if name == "cond":

        def branch(inner: jex_core.ClosedJaxpr) -> Callable[..., list[Array]]:
            return lambda *given: _evaluate(inner.jaxpr, inner.consts, given, outcome)

        return jax.lax.switch(
            jnp.asarray(inputs[0]), [branch(inner) for inner in parameters["branches"]], *inputs[1:]
        )
    bound = equation.primitive.get_bind_params(parameters)
    # Older versions of jax return functions as well.
    functions, bound = bound if isinstance(bound, tuple) else ((), bound)
    result = equation.primitive.bind(*functions, *inputs, **bound)
    results = result if equation.primitive.multiple_results else [result]
    if name in COMPARISONS and np.prod(jnp.shape(results[0])) == 1:
        return [jnp.where(outcome == 0, results[0], jnp.full_like(results[0], outcome == 1))]
    return results


def _gradients(like: Params) -> Params:
    """Generic gradients, small ones and then of sizes from 1e-6 to 1e6; [WARM + STEPS, ...]."""
    generator = np.random.default_rng(0)
    sizes = np.concatenate([np.full(WARM, 1e-7), np.logspace(-6, 6, STEPS)])

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        normals = generator.normal(size=(len(sizes), *leaf.shape))
        return jnp.asarray(sizes.reshape(-1, *[1] * len(leaf.shape)) * normals, leaf.dtype)

    return jax.tree.map(draw, like)


def _alike(one: PyTree, other: PyTree) -> bool:
    leaves = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
    return jax.tree.structure(one) == jax.tree.structure(other) and leaves[0] == leaves[1]


def _close(like: Params, one: PyTree, other: PyTree, excused: Array) -> Array:
    """Whether parameters and buffers agree; of infinite ones whether they are excused; [].

    Other numbers of a state may be pure rounding, and where they matter they act on later updates.

    Args:
        like: the parameters.
        one: parameters and state.
        other: parameters and state.
        excused: whether infinite ones count as equal, [].
    """
    shapes = {leaf.shape for leaf in jax.tree.leaves(like)}

    def same(left: Array, right: Array) -> Array:
        if left.shape not in shapes or not jnp.issubdtype(left.dtype, jnp.floating):
            return jnp.asarray(True)
        finite = jnp.all(jnp.isfinite(left) & jnp.isfinite(right))
        within = jnp.max(jnp.abs(left - right)) <= TOLERANCE * jnp.max(jnp.abs(right))
        return (finite & within) | (~finite & excused)

    return jax.tree.reduce(jnp.logical_and, jax.tree.map(same, one, other))

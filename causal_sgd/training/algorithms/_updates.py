"""One update by one batch, for optimizers that look at the batch once or at several points."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import optax

from causal_sgd import random
from causal_sgd.training.algorithms._parts import stream
from causal_sgd.types import Array, Key, Params, PyTree

__all__ = [
    "Minimised",
    "Term",
    "apply_update",
    "init_state",
    "optimizer_key",
    "transform",
]

Term = Callable[[Params], tuple[Params, Array]]
"""Params -> gradient and value [] of what an objective has beside the loss of its examples."""


class Minimised(Protocol):
    """What one update lowers, seen at the step's parameters and at others."""

    def measure(self, params: Params) -> tuple[Params, Array]:
        """Return the gradient and the value []."""
        ...

    def gradient(self, params: Params) -> Params:
        """Return the gradient at other parameters, by the same examples."""
        ...

    def loss(self, params: Params) -> Array:
        """Return the value [] at other parameters, by the same examples."""
        ...


def apply_update(
    optimizer: optax.GradientTransformation,
    examples: Minimised,
    params: Params,
    state: optax.OptState,
    term: Term | None = None,
    *,
    key: Key,
) -> tuple[Params, optax.OptState, Params, Array]:
    """Make one update by one batch; return the gradient and the batch's loss [] before it as well.

    Transformations that need the loss, or losses and gradients at other parameters by the same
    examples (line searches, `optimizers.sam`), receive them by optax's names: `value`, `grad`,
    `value_fn(params)`, `obj_fn(params)` and `grad_fn(params, index)`. All of them, and the
    gradient, contain the term. The loss that is returned does not. Those that draw
    (`optimizers.langevin`) receive `key`.

    Args:
        optimizer: any optax transformation.
        examples: of the step.
        params: before the update.
        state: the optimizer's.
        term: of the objective, beside the loss; None for none.
        key: of what the optimizer draws in this update.

    Raises:
        ValueError: if the optimizer asks for what the measurement cannot offer.
    """
    gradient, loss = examples.measure(params)
    chex.assert_trees_all_equal_shapes(gradient, params)
    value = loss
    if term is not None:
        slope, height = term(params)
        gradient, value = _add(gradient, slope), loss + height

    # Line searches hand every argument that they do not know to `value_fn`.
    def value_fn(
        other: Params, *, grad_fn: object = None, obj_fn: object = None, key: object = None
    ) -> Array:
        del grad_fn, obj_fn, key
        value = examples.loss(other)
        return value if term is None else value + term(other)[1]

    def grad_fn(other: Params, index: Array) -> Params:
        gradient = examples.gradient(other)
        return gradient if term is None else _add(gradient, term(other)[0])

    extra = {
        "value": value,
        "grad": gradient,
        "value_fn": value_fn,
        "obj_fn": value_fn,
        "grad_fn": grad_fn,
        "key": key,
    }
    params, state = transform("optimizer", optimizer, gradient, params, state, **extra)
    return params, state, gradient, loss


def optimizer_key(key: Key, step: Array, part: int | Array = 0) -> Key:
    """Return the key of what an optimizer draws in one update.

    Args:
        key: the run's.
        step: updates of this optimizer so far, [].
        part: which of the optimizers of a method it is, at least 0.
    """
    return random.fold_in(random.fold_in(stream(key, "optimizer"), step), part)


def _offered(
    optimizer: optax.GradientTransformation, extra: Mapping[str, object]
) -> dict[str, object]:
    """Return those of the extra arguments of an update that an optimizer accepts."""
    accepted = inspect.signature(optax.with_extra_args_support(optimizer).update).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in accepted.values())
    # optax.contrib.sam refuses arguments that it does not know.
    return {name: value for name, value in extra.items() if anything or name in accepted}


def init_state(argument: str, optimizer: optax.GradientTransformation, params: Params) -> PyTree:
    """Return the first state of an optimizer.

    Args:
        argument: its name, for messages.
        optimizer: any optax transformation.
        params: initial.

    Raises:
        ValueError: if it does not accept the parameters.
    """
    with _failures(argument):
        return optimizer.init(params)


def transform(
    argument: str,
    optimizer: optax.GradientTransformation,
    gradient: Params,
    params: Params,
    state: optax.OptState,
    **extra: object,
) -> tuple[Params, optax.OptState]:
    """Return parameters and state after an update, both in the types that they had.

    Args:
        argument: the optimizer's name, for messages.
        optimizer: any optax transformation.
        gradient: at the parameters.
        params: before the update.
        state: the optimizer's.
        **extra: what else the optimizer may ask for; it receives what it accepts.

    Raises:
        ValueError: if it asks for more, or returns updates or a state of another structure.
        AssertionError: (from chex, with both shapes) if its updates have other shapes.
    """
    extra = _offered(optimizer, extra)
    with _failures(argument, *(name for name in extra if name != "key")):
        updates, new = optax.with_extra_args_support(optimizer).update(
            gradient, state, params, **extra
        )
    chex.assert_trees_all_equal_shapes(
        updates, params, custom_message=f"{argument} returns updates of other shapes"
    )
    before, after = jax.tree.structure(state), jax.tree.structure(new)
    if before != after:
        raise ValueError(
            f"{argument} must keep the structure of its state, got {after} after {before}"
        )
    return (
        keep_types(optax.apply_updates(params, updates), params),
        jax.tree.map(_in_type_of, new, state),
    )


@contextlib.contextmanager
def _failures(argument: str, *offered: str) -> Iterator[None]:
    """Name the argument where an optimizer fails because it does not get what it needs."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        # jax explains itself, and this package where it offers something.
        if isinstance(error, jax.errors.JAXTypeError) or (
            offered and isinstance(error, ValueError)
        ):
            raise
        extra = f", and at most {', '.join(offered)}" if offered else " only"
        raise ValueError(
            f"{argument} must be an optax transformation that takes gradients, its state and the "
            f"model's parameters{extra}, got one that fails: {error}"
        ) from error


def _add(gradient: Params, slope: Params) -> Params:
    return keep_types(jax.tree.map(jnp.add, gradient, slope), gradient)


def _in_type_of(leaf: Array, like: Array) -> Array:
    # Keys and numbers of any kind; `keep_types` is for parameters.
    kind = jnp.result_type(like)
    return leaf if jnp.result_type(leaf) == kind else jnp.asarray(leaf, kind)


def keep_types(new: Params, old: Params) -> Params:
    """Return the new parameters in the types of the old ones.

    Loops need constant types, and a traced hyperparameter of another type must not promote the
    parameters.
    """
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), new, old)

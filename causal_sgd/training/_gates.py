"""Optax transformations for gates: a step of their own, and a cap on its relative size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from causal_sgd import checks
from causal_sgd.types import Array, Params, PyTree

__all__ = ["GatesState", "gates", "relative_cap"]


class GatesState(NamedTuple):
    """State of `gates`."""

    gates: optax.OptState
    rest: optax.OptState  # of the other parameters


def relative_cap(*, cap: float | Array) -> optax.GradientTransformation:
    """Let no update change a parameter by more than a share of its size; it goes last in a chain.

    An update u of a parameter g becomes clip(u, -cap |g|, cap |g|). Behind SGD this is
    g <- g (1 + clip(-learning_rate * gradient / g, -cap, cap)): no step changes a sign, and a
    multiplicative weight can neither diverge in one step nor vanish.

    Args:
        cap: above 0 and below 1; may be traced.

    Returns:
        A transformation that needs the parameters.

    Raises:
        ValueError: if the cap is out of range.
    """
    checks.number("cap", cap, above=0, maximum=1)
    concrete = checks.concrete(cap)
    if concrete is not None and concrete == 1:
        raise ValueError("cap must be below 1: at 1 a step may end at 0, where gates stay")

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("params must be passed to the update of a relative cap")

        def capped(change: Array, param: Array) -> Array:
            most = jnp.asarray(cap, param.dtype) * jnp.abs(param)
            return jnp.clip(change, -most, most)

        return jax.tree.map(capped, updates, params), state

    return optax.GradientTransformation(optax.identity().init, update)


def gates(
    optimizer: optax.GradientTransformation,
    *,
    learning_rate: optax.ScalarOrSchedule,
    cap: float | Array | None = None,
    where: Callable[[Params], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Gates descend by SGD with a step of their own, all other parameters by any optimizer.

    HeteroSGD rejects what is behind a gate at large steps only, which may be too large for the
    rest of a network. With a cap such large steps do not diverge. Sharpness-aware steps belong
    outside: sam(gates(...)).

    Args:
        optimizer: of the other parameters, with its own step.
        learning_rate: of the gates, a number, at least 0, or a schedule of optax; may be traced.
        cap: the largest relative change of a gate in a step, see `relative_cap`; None for none.
        where: params -> which of them are gates, True or False for every array or for a part of the
            tree; None for params["gates"], as `supervised.models.input_gates` has them.

    Returns:
        A transformation that needs the parameters. Line searches of the optimizer see the loss as a
        function of the other parameters, with the gates as they are before the step.

    Raises:
        ValueError: if an argument is out of range, or (at the start) if there are no gates.
    """
    checks.transformation("optimizer", optimizer)
    if callable(learning_rate):
        checks.function("learning_rate", learning_rate, 1, "a number or a schedule of optax")
    else:
        checks.number("learning_rate", learning_rate, minimum=0)
    own = optax.sgd(learning_rate)
    if cap is not None:
        own = optax.chain(own, relative_cap(cap=cap))
    if where is not None:
        checks.function("where", where, 1, "None or a function params -> which of them are gates")
    rest = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> GatesState:
        chosen = _chosen(where, params)
        return GatesState(own.init(_part(params, chosen)), rest.init(_part(params, chosen, False)))

    def update(
        updates: optax.Updates,
        state: PyTree,
        params: optax.Params | None = None,
        **extra: PyTree,
    ) -> tuple[optax.Updates, GatesState]:
        if params is None:
            raise ValueError("params must be passed to the update of an optimizer of gates")
        chosen = _chosen(where, params)
        before = _part(params, chosen)
        moved, gates_state = own.update(_part(updates, chosen), state.gates, before)
        others, rest_state = rest.update(
            _part(updates, chosen, False),
            state.rest,
            _part(params, chosen, False),
            **_of_rest(extra, chosen, before),
        )
        return _joined(chosen, moved, others), GatesState(gates_state, rest_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _chosen(where: Callable[[Params], PyTree] | None, params: Params) -> PyTree:
    """For every array of the parameters whether it is a gate."""
    if where is None:
        if not isinstance(params, Mapping) or "gates" not in params:
            raise ValueError(
                "params must have gates for an optimizer of gates, as models.input_gates makes "
                "them, or `where` must say which they are"
            )
        flags = {name: name == "gates" for name in params}
    else:
        flags = where(params)
    if not all(isinstance(flag, bool) for flag in jax.tree.leaves(flags)):
        raise ValueError("where must return True or False for every array or part of the params")
    try:
        chosen = jax.tree.map(lambda flag, part: jax.tree.map(lambda _: flag, part), flags, params)
    except ValueError as error:
        raise ValueError(
            f"where must return a tree of the structure of params, or of its parts: {error}"
        ) from error
    if not any(jax.tree.leaves(chosen)):
        raise ValueError("where must choose at least one array of the params, got none")
    return chosen


def _part(tree: PyTree, chosen: PyTree, kind: bool = True) -> PyTree:
    """The gates of a tree, or what else there is; nothing in place of all others."""
    return jax.tree.map(
        lambda gate, leaf: leaf if gate == kind else optax.MaskedNode(), chosen, tree
    )


def _joined(chosen: PyTree, of_gates: PyTree, of_rest: PyTree) -> PyTree:
    """The tree of which two parts are given."""
    return jax.tree.map(lambda gate, one, other: one if gate else other, chosen, of_gates, of_rest)


def _of_rest(extra: Mapping[str, PyTree], chosen: PyTree, before: PyTree) -> dict[str, PyTree]:
    """What optimizers may ask for beside the gradient, as functions of the other parameters."""

    def loss_of(function: Callable[..., Array]) -> Callable[..., Array]:
        @functools.wraps(function)  # line searches look for the names of its arguments
        def loss(other: Params, **given: PyTree) -> Array:
            return function(_joined(chosen, before, other), **given)

        return loss

    def slope_of(function: Callable[..., Params]) -> Callable[..., Params]:
        return lambda other, *given: _part(
            function(_joined(chosen, before, other), *given), chosen, False
        )

    changed = dict(extra)
    for name in ("value_fn", "obj_fn"):
        if extra.get(name) is not None:
            changed[name] = loss_of(extra[name])
    if extra.get("grad_fn") is not None:
        changed["grad_fn"] = slope_of(extra["grad_fn"])
    if extra.get("grad") is not None:
        changed["grad"] = _part(extra["grad"], chosen, False)
    return changed

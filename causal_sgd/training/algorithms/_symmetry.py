"""Whether an optimizer commutes with the symmetry by which a model reduces its parameters.

Its program is evaluated on generic gradients of very different sizes, beside the same in an
equivalent, larger representation.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from causal_sgd.training.algorithms._programs import FactorisationError, Programs
from causal_sgd.training.algorithms._updates import init_state, transform
from causal_sgd.types import Array, Params, PyTree

__all__ = ["check_symmetry"]

Embed = Callable[[PyTree], PyTree]
WARM, STEPS = 3, 13  # steps before the buffers are embedded, and after
FINITE = WARM + 6  # steps that must not overflow
TOLERANCE = 1e-3  # relative; what acts on single entries differs by about 1
# Outcomes of all comparisons of numbers: as they are, true, false. Branches and masks that are rare
# or that stand-ins never reach, such as the updates of MultiSteps, are evaluated too.
OUTCOMES = (None, True, False)


def check_symmetry(
    argument: str, optimizer: optax.GradientTransformation, params: Params, embed: Embed
) -> None:
    """Raise ValueError unless an optimizer commutes with an embedding of parameters and buffers.

    Args:
        argument: its name, for messages.
        optimizer: any optax transformation; its numbers may be traced.
        params: of the model; may be traced.
        embed: a linear map of all leaves of the shape of the parameters, NumPy's or traced, to an
            equivalent representation of another shape.
    """
    first, *_ = gradients = _gradients(params)
    large = embed(first)
    programs = Programs()

    def init(params: Params) -> PyTree:
        return init_state(argument, optimizer, params)

    def step(params: Params, state: PyTree, gradient: Params) -> tuple[Params, PyTree]:
        extra = _Quadratic(gradient).extra(params)
        return transform(argument, optimizer, gradient, params, state, **extra)

    states = [jax.eval_shape(init, like) for like in (first, large)]
    if not _alike(jax.eval_shape(embed, states[0]), states[1]):
        raise ValueError(_message(argument))
    start = programs.trace(init, first)
    one = programs.trace(step, first, states[0], first)
    other = programs.trace(step, large, states[1], large)

    def commutes(outcome: bool | None) -> bool:
        before = first, start(outcome, first)
        after = embed(before)
        for index, gradient in enumerate(gradients):
            before = one(outcome, *before, gradient)
            after = other(outcome, *after, embed(gradient))
            target = embed(before)
            if index < WARM:
                after = target
            elif not _close(large, target, after, outcome is not None or index >= FINITE):
                return False
        return True

    # Nothing in it is traced, so that it runs here and now.
    with (
        jax.ensure_compile_time_eval(),
        jax.debug_nans(False),
        jax.transfer_guard("allow"),
        np.errstate(all="ignore"),
    ):
        try:
            accepted = all(commutes(outcome) for outcome in OUTCOMES)
        except FactorisationError:
            accepted = False
    if not accepted:
        raise ValueError(_message(argument))


def _message(argument: str) -> str:
    return (
        f"{argument} must commute with rotations of the rows of U for order_parameters, as sgd, "
        "momentum, weight decay, clip_by_global_norm, MultiSteps and averages do, got one that "
        "acts on single entries or depends on the number of rows (such as adam, sign_sgd, "
        "noisy_sgd or langevin); use models.factored with low_rank_law"
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
            "key": jax.random.key(0),
        }

    def value(
        self, params: Params, *, grad_fn: object = None, obj_fn: object = None, key: object = None
    ) -> Array:
        """The loss []; line searches hand it every argument that they do not know."""
        del grad_fn, obj_fn, key
        squares = jax.tree.map(lambda leaf: jnp.sum(leaf**2), params)
        return jax.tree.reduce(jnp.add, squares) / 2 + 1


def _gradients(like: Params) -> list[Params]:
    """Generic gradients, small ones and then of sizes from 1e-6 to 1e6."""
    generator = np.random.default_rng(0)

    def draw(size: float) -> Params:
        return jax.tree.map(
            lambda leaf: (size * generator.normal(size=leaf.shape)).astype(leaf.dtype), like
        )

    return [draw(size) for size in (*[1e-7] * WARM, *np.logspace(-6, 6, STEPS))]


def _alike(one: PyTree, other: PyTree) -> bool:
    leaves = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (one, other)]
    return jax.tree.structure(one) == jax.tree.structure(other) and leaves[0] == leaves[1]


def _close(like: Params, one: PyTree, other: PyTree, excused: bool) -> bool:
    """Whether parameters and buffers agree; of infinite ones whether they are excused.

    Other numbers of a state may be pure rounding, and where they matter they act on later updates.

    Args:
        like: the parameters.
        one: parameters and state.
        other: parameters and state.
        excused: whether infinite ones count as equal.
    """
    shapes = {leaf.shape for leaf in jax.tree.leaves(like)}

    def same(left: np.ndarray, right: np.ndarray) -> bool:
        if left.shape not in shapes or not jnp.issubdtype(left.dtype, jnp.floating):
            return True
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return excused
        return bool(np.abs(left - right).max() <= TOLERANCE * np.abs(right).max())

    return jax.tree.all(jax.tree.map(same, one, other))

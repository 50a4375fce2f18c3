"""Weights that change during a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from causal_sgd import checks
from causal_sgd.types import Array, Measured, Objective, Params, State

__all__ = ["annealed"]

Numbers = float | Array | Mapping[str, float | Array]


def annealed(
    objective: Callable[..., Objective],
    *,
    start: int | Array,
    before: Numbers,
    after: Numbers,
) -> Objective:
    """Other numbers before a step than from it on, as the sources of IRM, V-REx and Fishr anneal.

    They also restart the optimizer there: `optimizers.restarted(optimizer, at=start)`.

    Args:
        objective: a factory of this module, such as `objectives.irmv1`, or a partial one with its
            other arguments.
        start: updates before the numbers change, at least 0; may be traced.
        before: its numbers until then, {"weight": 1.0, ...}, or the weight alone; may be traced.
        after: the same numbers from then on.

    Returns:
        An objective; each step evaluates it once.

    Raises:
        ValueError: if `before` and `after` name different numbers, or an argument is out of range.
    """
    if not callable(objective):
        raise ValueError(
            "objective must be a factory of objectives, such as objectives.irmv1, got "
            f"{objective!r}"
        )
    checks.number("start", start, minimum=0)
    early, late = _named("before", before), _named("after", after)
    if set(early) != set(late):
        raise ValueError(
            f"before and after must name the same numbers, got {sorted(early)} and {sorted(late)}"
        )
    _made(objective, early)  # whose checks refuse numbers that are out of range
    inside = _made(objective, late)

    def gradient(
        step: Array, state: State, examples: Measured, params: Params
    ) -> tuple[Params, Array, State]:
        numbers = {name: jnp.where(step < start, early[name], late[name]) for name in late}
        return _made(objective, numbers).gradient(step, state, examples, params)

    return Objective(inside.init, gradient)


def _named(name: str, numbers: Numbers) -> dict[str, float | Array]:
    result: dict[str, float | Array] = {}
    result.update(numbers if isinstance(numbers, Mapping) else {"weight": numbers})
    for key, value in result.items():
        checks.number(f"{name}[{key!r}]", value)
    return result


def _made(objective: Callable[..., Objective], numbers: Mapping[str, float | Array]) -> Objective:
    try:
        result = objective(**numbers)
    except TypeError as error:
        raise ValueError(
            f"objective must be a factory that takes {', '.join(numbers)}, such as "
            f"objectives.irmv1; calling it fails: {error}"
        ) from None
    return checks.made_of(
        "objective's result", result, ("init", "gradient"), "an Objective of the numbers"
    )

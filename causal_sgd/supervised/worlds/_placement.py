"""What linear worlds share: means, intercept, scrambled inputs and how often environments occur."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.types import Array, Key

__all__ = [
    "Placement",
    "array",
    "check_placement",
    "numbers_of",
    "place",
    "rotation",
    "weights_of",
]

Numbers = float | Sequence[float] | np.ndarray | Array


class Placement(TypedDict, total=False):
    """The options of every linear world.

    Attributes:
        input_means: means of the inputs in every environment, [E, p], in the original coordinates;
            zero by default. May be traced.
        intercept: c of the label, whose mean is w*'(means of the inputs) + c; 0 by default. May be
            traced.
        scramble: whether the inputs are rotated by a random rotation of the key, x = Q'z with Q
            Haar distributed; `target` is rotated with them.
        probabilities: [E], how often each environment is drawn; None for equally often.
    """

    input_means: np.ndarray | Array | None
    intercept: float | Array
    scramble: bool
    probabilities: np.ndarray | Array | None


def check_placement(placement: Placement, environments: int, dim: int) -> None:
    """Refuse options of linear worlds that are out of range.

    Raises:
        ValueError: if one is.
    """
    unknown = set(placement) - set(Placement.__annotations__)
    if unknown:
        raise TypeError(f"unexpected keyword argument {sorted(unknown)[0]!r}")
    means = placement.get("input_means")
    if means is not None:
        array("input_means", means, (environments, dim))
    checks.number("intercept", placement.get("intercept", 0.0))
    checks.flags(scramble=placement.get("scramble", False))
    probabilities = placement.get("probabilities")
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, environments)


def array(
    name: str,
    value: Numbers,
    shape: tuple[int | str, ...],
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> Array:
    """A value as an array of jax of a shape, see `numbers_of`."""
    numbers = numbers_of(name, value, shape, minimum=minimum, above=above, maximum=maximum)
    return jnp.asarray(numbers, float)


def numbers_of(
    name: str,
    value: Numbers,
    shape: tuple[int | str, ...],
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
) -> np.ndarray | Array:
    """A value as numbers of a shape, in which words stand for any size of at least 1.

    They are traced or NumPy's: no use of jax yet, whose first one fixes its devices.

    Raises:
        ValueError: if its shape or a number differs from what is allowed.
    """
    checks.number(name, value, minimum=minimum, above=above, maximum=maximum, scalar=False)
    found = np.shape(value)
    fits = len(found) == len(shape) and all(
        size >= 1 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(found, shape, strict=True)
    )
    if not fits:
        words = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape [{words}], got {list(found)}")
    concrete = checks.concrete(value)
    return jnp.asarray(value, float) if concrete is None else np.array(concrete, float)


def weights_of(probabilities: Numbers | None, size: int) -> Array:
    """The probabilities [E] of the environments; equal ones for None."""
    if probabilities is None:
        return jnp.full(size, 1 / size)
    return jnp.asarray(probabilities, float)


def rotation(key: Key, dim: int) -> Array:
    """A Haar distributed orthogonal matrix [p, p]."""
    return linalg.orthonormal(random.normals(key, (dim, dim), jnp.result_type(float)))


def place(
    key: Key,
    mixing: Array,
    target: Array,
    causal: Array,
    placement: Placement,
    test_mixing: Array | None = None,
    turn: Array | None = None,
) -> LinearWorld:
    """A linear world in its place: with means, an intercept, and scrambled if it shall be.

    Args:
        key: of the rotation.
        mixing: of the original inputs and the label, [E, p + 1, k].
        target: w* [p] of the original inputs.
        causal: [p] bool.
        placement: checked options.
        test_mixing: [T, p + 1, k'] of the environments of the test, whose inputs have mean zero;
            None for none.
        turn: the rotation of a scrambled world, [p, p]; None to draw one with the key.
    """
    size, dim = mixing.shape[0], target.shape[0]
    means = placement.get("input_means")
    inputs = jnp.zeros((size, dim)) if means is None else jnp.asarray(means, float)
    intercept = jnp.asarray(placement.get("intercept", 0.0), float)
    tests = mixing[:0] if test_mixing is None else test_mixing
    world = LinearWorld(
        mixing=mixing,
        means=_with_label(inputs, target, intercept),
        target=target,
        causal=causal,
        unscramble=jnp.eye(dim),
        test_mixing=tests,
        test_means=_with_label(jnp.zeros((tests.shape[0], dim)), target, intercept),
        probabilities=weights_of(placement.get("probabilities"), size),
    )
    if not placement.get("scramble", False):
        return world
    return rotated(world, rotation(key, dim) if turn is None else turn)


def rotated(world: LinearWorld, turn: Array) -> LinearWorld:
    """The world whose inputs are Q'x, for orthogonal Q [p, p]."""

    def turned(values: Array) -> Array:  # [..., p + 1, k]
        inputs = linalg.product(turn.T, values[..., :-1, :])
        return jnp.concatenate([inputs, values[..., -1:, :]], -2)

    return world._replace(
        mixing=turned(world.mixing),
        means=turned(world.means[..., None])[..., 0],
        target=linalg.product(turn.T, world.target[:, None])[:, 0],
        unscramble=linalg.product(world.unscramble, turn),
        test_mixing=turned(world.test_mixing),
        test_means=turned(world.test_means[..., None])[..., 0],
    )


def _with_label(inputs: Array, target: Array, intercept: Array) -> Array:
    """The means [E, p + 1] of inputs and label."""
    label = linalg.product(inputs, target[:, None]) + intercept
    return jnp.concatenate([inputs, label], 1)

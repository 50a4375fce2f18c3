"""The world of a user's own function that draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.worlds._known import known_inputs, known_weights
from causal_sgd.supervised.worlds._placement import Numbers, weights_of
from causal_sgd.supervised.worlds._sampled import SampledWorld
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key, PyTree

__all__ = ["from_draws"]

REAL = (jnp.bool_, jnp.integer, jnp.floating)
Draw = Callable[[Key, Array, int], tuple[Array, Array]]


class _Sample(NamedTuple):
    """How the world draws; equal for equal functions, so that worlds have one structure."""

    draw: Draw
    dim: int

    def __call__(
        self, key: Key, nothing: PyTree, environment: Array, size: int
    ) -> tuple[Array, Array]:
        """Return inputs [n, p] and labels [n]."""
        del nothing
        x, y = self.draw(key, environment, size)
        kind = jnp.result_type(float)
        return jnp.asarray(x, kind).reshape(size, self.dim), jnp.asarray(y, kind)


def from_draws(
    draw: Draw,
    num_environments: int,
    *,
    num_tests: int = 0,
    test_examples: int = 1000,
    target: Numbers | None = None,
    causal: Sequence[str | int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """The world of a user's own function that draws examples of an environment.

    `measurements.examples` draws a data set by it once, `examples(n)`, or fresh examples in every
    step, `examples(fresh=n)`. The examples of the test are drawn once, from the world's key.

    Args:
        draw: (key, environment [], n) -> inputs [n, p] and labels [n], in functions of jax; n is
            static. Images [n, height, width, ...] are flattened. Environments 0, 1, ... are those
            of training; those of the test come after them. An array that it looks up needs E + T
            entries: jax takes the last one for those beyond.
        num_environments: E, the environments of training.
        num_tests: T, the environments E, ..., E + T - 1 of the test, which only metrics see.
        test_examples: examples of each of them.
        target: w* [p], where it is known.
        causal: places of the inputs that the label depends on, where they are known; none by
            default.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range, or `draw` cannot be traced or returns something
            else than inputs and labels of n examples.
    """
    checks.function("draw", draw, 3, "a function (key, environment, n) -> (x [n, p], y [n])")
    checks.integer("num_environments", num_environments)
    checks.integer("num_tests", num_tests, minimum=0)
    checks.integer("test_examples", test_examples)
    dim = _inputs(draw)
    weights, mask = known_weights(target, dim), known_inputs(causal, None, dim)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, num_environments)

    sample = _Sample(draw, dim)

    def world(key: Key) -> SampledWorld:
        kind = jnp.result_type(float)
        return SampledWorld(
            sample=sample,
            coefficients=(),
            probabilities=jnp.asarray(weights_of(probabilities, num_environments), kind),
            target=jnp.asarray(weights, kind),
            causal=jnp.asarray(mask),
            accepted=jnp.ones((), bool),
            test_rows=None if not num_tests else tests(key),
        )

    def tests(key: Key) -> Rows:
        places = num_environments + jnp.arange(num_tests, dtype=jnp.int32)
        x, y = jax.vmap(lambda k, e: sample(k, (), e, test_examples))(
            random.fold_in(key, places), places
        )
        inputs, labels = random.shareable((x, y))
        return Rows(inputs, labels, jnp.full(num_tests, test_examples, y.dtype))

    return world


def _inputs(draw: Draw) -> int:
    """The number of inputs p of what a function draws.

    Raises:
        ValueError: if it draws something else than inputs and labels.
    """
    number = 3
    try:
        found = jax.eval_shape(
            lambda key, environment: draw(key, environment, number),
            jax.eval_shape(jax.random.key, 0),  # a key itself would start jax
            jax.ShapeDtypeStruct((), jnp.int32),
        )
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            "draw must be a function that jax can trace in its key and environment, such as "
            "jnp.asarray(rates)[environment] where it looks something up; got "
            f"{type(error).__name__}"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"draw must return (x [n, p], y [n]) of (key, environment, n) = (key, [], {number}), "
            f"got a TypeError: {str(error).partition(chr(10))[0]}"
        ) from error
    allowed = f"inputs [n, p] and labels [n] for n = {number}"
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError(f"draw must return a pair, {allowed}, got {_shown(found)}")
    inputs, labels = (getattr(part, "shape", ()) for part in found)
    fits = len(inputs) >= 2 and inputs[0] == number and 0 not in inputs
    if not fits or labels != (number,):
        raise ValueError(f"draw must return {allowed}, got {_shown(found)}")
    for part in found:
        if not any(jnp.issubdtype(part.dtype, kind) for kind in REAL):
            raise ValueError(f"draw must return real numbers, got {part.dtype}")
    return math.prod(inputs[1:])


def _shown(found: object) -> str:
    """The shapes of what was drawn, for a message."""
    leaves = found if isinstance(found, tuple | list) else [found]
    shapes = [getattr(part, "shape", type(part).__name__) for part in leaves]
    return " and ".join(str(list(s) if isinstance(s, tuple) else s) for s in shapes) or "nothing"

"""Worlds of which only a way to draw examples is known."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Rows, used_rows, weighted_moments
from causal_sgd.supervised.worlds._world import SupervisedWorld
from causal_sgd.types import Array, Key, PyTree

__all__ = ["DrawnMoments", "SampledWorld", "drawn_moments", "first_accepted"]

SLAB = 1024
"""Examples that are drawn at a time where only their moments are kept."""
MOST_EXAMPLES = 10**9


class DrawnMoments:
    """What worlds share that draw examples, and whose moments of samples are those of examples."""

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment: not known to be."""
        return False

    def draw_moments(self: SupervisedWorld, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of fresh samples, which are drawn slab by slab and not kept; [B, q, q].

        The cost is proportional to the number of examples, the largest one of all runs where it is
        traced and mapped over.

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: examples n of each, [B], at most 10^9; may be traced, and the result is NaN
                where a traced one is larger.

        Raises:
            ValueError: if a concrete number is not finite or too large.
        """
        return drawn_moments(self.draw_examples, key, environments, counts, self.target)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["coefficients", "probabilities", "target", "causal", "accepted", "test_rows"],
    meta_fields=["sample"],
)
@dataclasses.dataclass(frozen=True)
class SampledWorld(DrawnMoments):
    """Environments of any structural model, of which moments are those of drawn examples.

    Attributes:
        sample: (key, coefficients, environment [], n) -> inputs [n, p] and labels [n]; static.
        coefficients: what it needs, any pytree.
        probabilities: how often each environment is drawn, [E].
        target: w* [p].
        causal: [p] bool.
        accepted: whether the world has the properties that its factory promises, [] bool; false
            where every candidate was rejected.
        test_rows: examples of environments of the test; None where there is none.
    """

    sample: Callable[[Key, PyTree, Array, int], tuple[Array, Array]]
    coefficients: PyTree
    probabilities: Array
    target: Array
    causal: Array
    accepted: Array
    test_rows: Rows | None = None

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def unscramble(self) -> Array:
        """The identity [p, p]."""
        return jnp.eye(self.target.shape[0], dtype=self.target.dtype)

    @property
    def counts(self) -> None:
        """The world is a law and does not rest upon examples."""

    @property
    def second_moments(self) -> Array:
        """The population's moments, which are unknown.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "world must know the moments of its population for this, but of a nonlinear structural "
            "model or a function that draws only samples are known: give the measurement a number "
            "of examples"
        )

    @property
    def test_moments(self) -> Array:
        """The moments of the examples of the test, [T, q, q]; T is 0 where there are none."""
        if self.test_rows is not None:
            return weighted_moments(self.test_rows, used_rows(self.test_rows))
        size = self.target.shape[0] + 2
        return jnp.zeros((0, size, size), self.target.dtype)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        return self.sample(key, self.coefficients, environment, size)

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other.
        """
        for name in ("target", "causal"):
            found = jnp.shape(getattr(self, name))
            if found != self.target.shape or len(found) != 1:
                raise ValueError(
                    f"world.{name} must have shape {[*self.target.shape]}, got {[*found]}"
                )
        size = int(np.shape(self.probabilities)[0]) if np.ndim(self.probabilities) == 1 else 1
        checks.probabilities("world.probabilities", self.probabilities, size)


def first_accepted(
    judged: Callable[[Key, Array], SampledWorld], key: Key, candidates: int
) -> SampledWorld:
    """The first of several candidates that is accepted, or else the last one.

    Args:
        judged: (key, number of the candidate []) -> a world that says whether it is accepted.
        key: of all candidates.
        candidates: how many there are.
    """

    def unfinished(carry: tuple[Array, SampledWorld]) -> Array:
        return ~carry[1].accepted & (carry[0] < candidates)

    def again(carry: tuple[Array, SampledWorld]) -> tuple[Array, SampledWorld]:
        return carry[0] + 1, judged(key, carry[0])

    none = jnp.zeros((), jnp.int32)
    shapes = jax.eval_shape(judged, key, none)
    # No model yet, so that the program holds one copy of the candidate.
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.while_loop(unfinished, again, (none, empty))[1]


def drawn_moments(
    draw_examples: Callable[[Key, Array, int], tuple[Array, Array]],
    key: Key,
    environments: Array,
    counts: Array,
    target: Array,
) -> Array:
    """Moments [B, q, q] of examples that are drawn slab by slab.

    Args:
        draw_examples: (key, environment [], n) -> inputs [n, p] and labels [n].
        key: of the draw.
        environments: [B].
        counts: [B]; may be traced.
        target: w* [p], for its shape and type.

    Raises:
        ValueError: if a concrete number is not finite or too large.
    """
    numbers = checks.concrete(counts)
    if numbers is not None and not (numbers <= MOST_EXAMPLES).all():
        raise ValueError(
            "counts must be finite and at most 10^9 in a world of which examples have to be "
            f"drawn, got {numbers.tolist()}"
        )
    size = target.shape[0] + 2

    def of_one(key: Key, environment: Array, count: Array) -> Array:
        allowed = count <= MOST_EXAMPLES
        number = jnp.where(allowed, count, 0)

        def add(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            index, mean = carry
            x, y = draw_examples(random.fold_in(key, index), environment, SLAB)
            z = jnp.concatenate([x, y[:, None], jnp.ones((SLAB, 1), x.dtype)], 1)
            left = number - index.astype(number.dtype) * SLAB
            z = jnp.where((jnp.arange(SLAB) < left)[:, None], z, 0)
            # Divided slab by slab: sums of 10^9 examples would lose the digits of the last ones.
            return index + 1, mean + linalg.product(z.T, z) / number

        def unfinished(carry: tuple[Array, Array]) -> Array:
            return carry[0].astype(number.dtype) * SLAB < number

        start = (jnp.zeros((), jnp.int32), jnp.zeros((size, size), number.dtype))
        _, mean = jax.lax.while_loop(unfinished, add, start)
        return jnp.where(allowed, mean, jnp.nan)

    environments = jnp.asarray(environments)
    keys = random.fold_in(key, environments)
    return jax.vmap(of_one)(keys, environments, jnp.asarray(counts, target.dtype))

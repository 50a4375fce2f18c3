"""Worlds that are data on one design, which all environments share."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.worlds._sampled import drawn_moments
from causal_sgd.types import Array, Key

__all__ = ["DesignWorld"]


class DesignWorld(NamedTuple):
    """Rows x_i that all environments share, and their labels in each.

    Drawn examples are rows with replacement. The environments of the test are Gaussian, with inputs
    of mean zero.
    """

    inputs: Array  # [n, p]
    labels: Array  # [E, n]
    target: Array  # [p]    w*
    causal: Array  # [p]    bool
    probabilities: Array  # [E]
    test_covariance: Array  # [p, p] of the inputs
    test_weights: Array  # [T, p]
    test_variances: Array  # [T]    of the labels' noise

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def unscramble(self) -> Array:
        """The identity [p, p]."""
        return jnp.eye(self.target.shape[0], dtype=self.inputs.dtype)

    @property
    def counts(self) -> Array:
        """The number of rows of every environment, [E]."""
        return jnp.full(len(self.labels), len(self.inputs), self.labels.dtype)

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment: no, they are rows."""
        return False

    @property
    def rows(self) -> Rows:
        """The data set of a measurement, whose inputs [1, n, p] are those of all environments."""
        return Rows(self.inputs[None], self.labels, self.counts)

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) over the rows of every environment, [E, q, q]."""
        number = len(self.inputs)
        every = jnp.concatenate([self.inputs, jnp.ones((number, 1), self.inputs.dtype)], 1)
        square = linalg.product(every.T, every) / number
        cross = linalg.product(self.labels, every) / number  # [E, p + 1]
        return _assembled(square, cross, jnp.mean(self.labels**2, 1))

    @property
    def test_moments(self) -> Array:
        """The moments in every test environment, [T, q, q]."""
        dim = len(self.test_covariance)
        square = jnp.zeros((dim + 1, dim + 1), self.inputs.dtype)
        square = square.at[:dim, :dim].set(self.test_covariance).at[dim, dim].set(1)
        along = linalg.product(self.test_weights, self.test_covariance)
        variances = jnp.sum(along * self.test_weights, 1) + self.test_variances
        cross = jnp.concatenate([along, jnp.zeros_like(along[:, :1])], 1)
        return _assembled(square, cross, variances)

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of rows drawn with replacement, [B, q, q].

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: rows to draw, [B], at most 10^9; may be traced.

        Raises:
            ValueError: if a concrete number is not finite or too large.
        """
        return drawn_moments(self.draw_examples, key, environments, counts, self.target)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Rows of one environment with replacement: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        number = jnp.full(size, len(self.inputs), jnp.uint32)
        rows = (random.bits(key, size) % number).astype(jnp.int32)
        return self.inputs[rows], self.labels[environment, rows]

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other, or a number is not finite.
        """
        number, dim = jnp.shape(self.inputs)
        size, tests = jnp.shape(self.labels)[0], jnp.shape(self.test_weights)[0]
        shapes = {
            "labels": (size, number),
            "target": (dim,),
            "causal": (dim,),
            "probabilities": (size,),
            "test_covariance": (dim, dim),
            "test_weights": (tests, dim),
            "test_variances": (tests,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"world.{name} must have shape {list(shape)}, got {list(jnp.shape(value))}"
                )
            if name not in ("causal", "target"):
                checks.number(f"world.{name}", value, scalar=False, double=True)
        checks.number("world.inputs", self.inputs, scalar=False, double=True)
        checks.probabilities("world.probabilities", self.probabilities, size)


def _assembled(square: Array, cross: Array, variances: Array) -> Array:
    """Moments [E, q, q] of (x, y, 1).

    Args:
        square: of (x, 1), [p + 1, p + 1], in all environments.
        cross: of (x, 1) with y, [E, p + 1].
        variances: E y^2, [E].
    """
    size, dim = cross.shape[0], cross.shape[1] - 1
    second = jnp.zeros((size, dim + 2, dim + 2), cross.dtype)
    places = jnp.append(jnp.arange(dim), dim + 1)
    second = second.at[:, places[:, None], places[None, :]].set(
        jnp.broadcast_to(square[None], (size, dim + 1, dim + 1))
    )
    second = second.at[:, dim, places].set(cross).at[:, places, dim].set(cross)
    return second.at[:, dim, dim].set(variances)

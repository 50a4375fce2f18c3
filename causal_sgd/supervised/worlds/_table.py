"""Discrete worlds: inputs and labels take finitely many values."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised.worlds._placement import Numbers, array, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["TableWorld", "two_bit"]


class TableWorld(NamedTuple):
    """Atoms (x, y) and their probabilities in every environment."""

    inputs: Array  # [A, p]
    labels: Array  # [A]
    mass: Array  # [E, A], rows sum to one
    test_mass: Array  # [T, A]
    target: Array  # [p]    w*
    causal: Array  # [p]    bool
    probabilities: Array  # [E]

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def unscramble(self) -> Array:
        """The identity [p, p]."""
        return jnp.eye(self.target.shape[0], dtype=self.inputs.dtype)

    @property
    def counts(self) -> None:
        """The world is a law and does not rest upon examples."""

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment: no."""
        return False

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) in every environment, [E, q, q]."""
        return self.moments_of(self.mass)

    @property
    def test_moments(self) -> Array:
        """The moments in every test environment, [T, q, q]."""
        return self.moments_of(self.test_mass)

    def draw_counts(self, key: Key, environments: Array, counts: Array) -> Array:
        """How many examples of fresh samples are at each atom, [B, A]: multinomial numbers.

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: examples n of each, [B]; may be traced.
        """
        keys = random.fold_in(key, environments)
        numbers = jnp.asarray(counts).astype(self.mass.dtype)
        return jax.vmap(random.multinomial)(keys, numbers, self.mass[environments])

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of fresh samples, from multinomial counts of the atoms; [B, q, q].

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: examples n of each, [B]; may be traced. In single precision counts of atoms
                beyond 2^24 are rounded to multiples of 2, 4, ...
        """
        drawn = self.draw_counts(key, environments, counts)
        return self.moments_of(drawn / jnp.maximum(jnp.sum(drawn, 1, keepdims=True), 1))

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        levels = jnp.cumsum(self.mass[environment])[:-1]
        uniform = random.uniforms(random.bits(key, size), levels.dtype)
        atom = jnp.sum(uniform[:, None] >= levels[None], 1)
        return self.inputs[atom], self.labels[atom]

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other, or the masses are no probabilities.
        """
        dim = jnp.shape(self.target)[-1] if jnp.ndim(self.target) else 0
        atoms, size = jnp.size(self.labels), jnp.shape(self.mass)[0]
        shapes = {
            "inputs": (atoms, dim),
            "labels": (atoms,),
            "mass": (size, atoms),
            "test_mass": (*jnp.shape(self.test_mass)[:1], atoms),
            "target": (dim,),
            "causal": (dim,),
        }
        for name, shape in shapes.items():
            found = jnp.shape(getattr(self, name))
            if found != shape:
                raise ValueError(f"world.{name} must have shape {list(shape)}, got {list(found)}")
        for name in ("inputs", "labels"):
            checks.number(f"world.{name}", getattr(self, name), scalar=False, double=True)
        for name in ("mass", "test_mass"):
            rows = getattr(self, name)
            checks.number(f"world.{name}", rows, minimum=0, scalar=False, double=True)
            sums = checks.concrete(jnp.sum(rows, 1))
            if sums is not None and (abs(sums - 1) > 1e-5).any():
                raise ValueError(
                    f"world.{name} must sum to one in every environment, got {sums.tolist()}"
                )
        checks.probabilities("world.probabilities", self.probabilities, size)

    def moments_of(self, shares: Array) -> Array:
        """The moments [..., q, q] for shares [..., A] of the atoms."""
        ones = jnp.ones_like(self.labels)
        z = jnp.concatenate([self.inputs, self.labels[:, None], ones[:, None]], 1)
        return linalg.product(z.T, shares[..., :, None] * z[None])


def two_bit(
    *,
    invariant_flip: float | Array = 0.25,
    spurious_flips: Numbers = (0.2, 0.1),
    test_flips: Numbers = (0.9,),
    colour: float | Array = 1.0,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Two bits that agree with the label up to noise; the noise of the second one varies.

    y is +1 or -1 with probability 1/2, x1 = y but for a sign that flips with probability alpha, and
    x2 = c y but for a sign that flips with probability beta_e. (The defaults are those of the
    coloured digits of Arjovsky et al. 2019 without the images.) In every environment the best
    linear prediction from x1 alone is (1 - 2 alpha) x1, so w* = (1 - 2 alpha, 0).

    Args:
        invariant_flip: alpha in [0, 1]; may be traced.
        spurious_flips: beta_e of every environment, in [0, 1]; may be traced.
        test_flips: those of the environments of the test.
        colour: c, the size of the second bit, above 0; may be traced.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if a number is out of range.
    """
    checks.number("invariant_flip", invariant_flip, minimum=0, maximum=1)
    betas = array("spurious_flips", spurious_flips, ("E",), minimum=0, maximum=1)
    tests = array("test_flips", test_flips, ("T",), minimum=0, maximum=1)
    checks.number("colour", colour, above=0)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(betas))

    def world(key: Key) -> TableWorld:
        del key
        signs = jnp.array([1.0, -1.0])
        atoms = jnp.stack([part.ravel() for part in jnp.meshgrid(signs, signs, signs)], 1)
        y, x = atoms[:, 0], atoms[:, 1:]

        def mass(flips: Array) -> Array:
            alpha = jnp.asarray(invariant_flip, float)
            first = jnp.where(x[:, 0] == y, 1 - alpha, alpha)
            second = jnp.where((x[:, 1] == y)[None], 1 - flips[:, None], flips[:, None])
            return first[None] * second / 2

        return TableWorld(
            inputs=x * jnp.stack([jnp.ones(()), jnp.asarray(colour, float)])[None],
            labels=y,
            mass=mass(betas),
            test_mass=mass(tests),
            target=jnp.stack([1 - 2 * jnp.asarray(invariant_flip, float), jnp.zeros(())]),
            causal=jnp.array([True, False]),
            probabilities=weights_of(probabilities, len(betas)),
        )

    return world

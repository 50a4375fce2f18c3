"""Linear Gaussian worlds: inputs and labels are linear in Gaussian noises."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import augmented
from causal_sgd.types import Array, Key

__all__ = ["LinearWorld"]


class LinearWorld(NamedTuple):
    """Environment e has (x, y) = means_e + mixing_e noise with noise ~ N(0, I_k).

    k may exceed p + 1 (hidden noises); nothing is ever factorised.
    """

    mixing: Array  # [E, p + 1, k]; the last row makes the label
    means: Array  # [E, p + 1]
    target: Array  # [p]    w*, in the coordinates of the data
    causal: Array  # [p]    bool, in the original coordinates
    unscramble: Array  # [p, p] orthogonal
    test_mixing: Array  # [T, p + 1, k']
    test_means: Array  # [T, p + 1]
    probabilities: Array  # [E]
    counts: Array | None = None  # [E] examples behind the moments; None for a law

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

    @property
    def gaussian(self) -> bool:
        """Whether (x, y) is Gaussian in every environment: yes."""
        return True

    @property
    def second_moments(self) -> Array:
        """The moments of z = (x, y, 1) in every environment, [E, q, q]."""
        return _population(self.mixing, self.means)

    @property
    def test_moments(self) -> Array:
        """The moments in every test environment, [T, q, q]."""
        return _population(self.test_mixing, self.test_means)

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of fresh samples by the law of Wishart matrices (Bartlett 1933), [B, q, q].

        The sample mean of the k noises is g / sqrt(n), and their scatter a Wishart matrix of n - 1
        degrees, which needs n > k. With n <= k examples their noises are drawn one by one, [n, k].

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: examples n of each, [B]; may be traced.
        """
        mixing, means = self.mixing[environments], self.means[environments]
        keys = random.fold_in(key, environments)
        return jax.vmap(_sampled)(keys, mixing, means, counts)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        mixing, means = self.mixing[environment], self.means[environment]
        noise = random.normals(key, (size, mixing.shape[-1]), mixing.dtype)
        values = means[None] + linalg.product(noise, mixing.T)
        return values[:, :-1], values[:, -1]

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other, or a number is not finite.
        """
        dim = jnp.shape(self.target)[-1] if jnp.ndim(self.target) else 0
        size, tests = jnp.shape(self.mixing)[0], jnp.shape(self.test_mixing)[0]
        shapes = {
            "mixing": (size, dim + 1, *jnp.shape(self.mixing)[2:3]),
            "means": (size, dim + 1),
            "target": (dim,),
            "causal": (dim,),
            "unscramble": (dim, dim),
            "test_mixing": (tests, dim + 1, *jnp.shape(self.test_mixing)[2:3]),
            "test_means": (tests, dim + 1),
            "probabilities": (size,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"world.{name} must have shape {list(shape)}, got {list(jnp.shape(value))}"
                )
            if name not in ("causal", "target"):
                checks.number(f"world.{name}", value, scalar=False, double=True)
        checks.probabilities("world.probabilities", self.probabilities, size)
        if self.counts is not None and jnp.shape(self.counts) != (size,):
            raise ValueError(
                f"world.counts must have shape {[size]}, got {list(jnp.shape(self.counts))}"
            )


def _population(mixing: Array, means: Array) -> Array:
    return augmented(linalg.product(mixing, jnp.swapaxes(mixing, -1, -2)), means)


def _sampled(key: Key, mixing: Array, means: Array, count: Array) -> Array:
    """The moments [q, q] of a sample of n examples of one environment."""
    noises = mixing.shape[-1]
    size = noises + random.bartlett_normals(noises)
    numbers = random.normals(random.fold_in(key, 0), size, mixing.dtype)
    words = random.bits(random.fold_in(key, 1), random.bartlett_words(noises))
    n = jnp.asarray(count, mixing.dtype)
    # Both laws read the same numbers, of which only one is used.
    triangle = random.bartlett(numbers[noises:], words, jnp.maximum(n - 1, noises), noises)
    center, deviations = _few(numbers[noises : noises + noises**2].reshape(noises, noises), n)
    enough = n > noises
    root = jnp.sqrt(jnp.maximum(n, 1))
    center = jnp.where(enough, numbers[:noises] / root, center)
    factor = linalg.product(mixing, jnp.where(enough, triangle, deviations).T) / root
    second = augmented(
        linalg.product(factor, factor.T), means + linalg.product(mixing, center[:, None])[:, 0]
    )
    return jnp.where(n > 0, second, 0)


def _few(noise: Array, count: Array) -> tuple[Array, Array]:
    """The mean [k] and the deviations from it of the first n <= k rows of noise [k, k]."""
    rows = (jnp.arange(len(noise)) < count)[:, None]
    center = jnp.sum(jnp.where(rows, noise, 0), 0) / jnp.maximum(count, 1)
    return center, jnp.where(rows, noise - center[None], 0)

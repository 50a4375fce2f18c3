"""Worlds of a label with few values, given which the inputs are Gaussian."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import Rows
from causal_sgd.supervised.worlds._placement import Numbers, array, rotation, weights_of
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["TARGETS", "MixtureWorld", "gaussian_environments"]

TARGETS = ("squared", "logistic")
"""The losses whose invariant predictors are known."""


class MixtureWorld(NamedTuple):
    """Group g of environment e has the label labels[g] and inputs means[e, g] + root N(0, I).

    Means that all environments share have one row, so that their groups are evaluated once.
    """

    weights: Array  # [E, G] shares of the groups, rows sum to one
    means: Array  # [E, G, p], or [1, G, p] if all environments share them
    root: Array  # [p, p] of the covariance within a group, or [p] if it is diagonal
    labels: Array  # [G]
    test_weights: Array  # [T, G']
    test_means: Array  # [T, G', p], or [1, G', p]
    test_labels: Array  # [G']
    target: Array  # [p]    w*, in the coordinates of the data
    causal: Array  # [p]    bool, in the original coordinates
    unscramble: Array  # [p, p] orthogonal
    probabilities: Array  # [E]
    test_root: Array | None = None  # of the test's groups, in the shape of root; None for root
    rows: Rows | None = None  # a data set that was drawn with the world

    @property
    def estimate_shape(self) -> tuple[int, ...]:
        """The shape of an estimate, (p,)."""
        return self.target.shape

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
        return _population(self.weights, self.means, self.labels, self.root)

    @property
    def test_moments(self) -> Array:
        """The moments in every test environment, [T, q, q]."""
        own = self.test_weights, self.test_means, self.test_labels
        return _population(*own, self._of_test())

    def error_rates(self, weights: Array, intercept: float | Array = 0.0) -> Array:
        """The share of labels with another sign than the prediction in every environment, [E].

        Args:
            weights: w [p] of the prediction x'w + b.
            intercept: b [].
        """
        own = self.weights, self.means, self.labels, self.root
        return _errors(*own, weights, intercept)

    def test_error_rates(self, weights: Array, intercept: float | Array = 0.0) -> Array:
        """The same in every test environment, [T]."""
        own = self.test_weights, self.test_means, self.test_labels, self._of_test()
        return _errors(*own, weights, intercept)

    def means_of(self, environments: Array) -> Array:
        """The means of the groups of environments [...]: [..., G, p]."""
        return self.means[environments if len(self.means) > 1 else jnp.zeros_like(environments)]

    def noise_along(self, weights: Array) -> Array:
        """The noise root'w of a prediction x'w within a group, whose variance is |root'w|^2; [p].

        Args:
            weights: w [p].
        """
        return self.to_noise(weights[None])[0]

    def to_noise(self, vectors: Array) -> Array:
        """The same of several vectors [..., p]."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        return _times(self.root.T, flat.T).T.reshape(vectors.shape)

    def from_noise(self, noise: Array) -> Array:
        """Inputs root n [..., p] of noises n [..., p] within a group."""
        flat = noise.reshape(-1, noise.shape[-1])
        return _times(self.root, flat.T).T.reshape(noise.shape)

    def draw_moments(self, key: Key, environments: Array, counts: Array) -> Array:
        """Moments of fresh samples by their exact law, [B, q, q].

        The sizes n_g of the groups are multinomial, the means of their noises are N(0, I / n_g),
        and the scatter of all noises around these means is a Wishart matrix of n - G' degrees,
        where G' is the number of groups that are not empty. With n - G' < p it is the sum of
        squares of n - G' vectors, one by one.

        Args:
            key: of the draw.
            environments: [B] int32.
            counts: examples n of each, [B]; may be traced.
        """
        keys = random.fold_in(key, environments)
        weights, means = self.weights[environments], self.means_of(environments)
        numbers = jnp.asarray(counts).astype(means.dtype)
        return jax.vmap(self._sampled)(keys, weights, means, numbers)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        levels = jnp.cumsum(self.weights[environment])[:-1]
        words = random.bits(random.fold_in(key, 0), size)
        group = jnp.sum(random.uniforms(words, levels.dtype)[:, None] >= levels[None], 1)
        shape = (size, self.target.shape[0])
        noise = random.normals(random.fold_in(key, 1), shape, levels.dtype)
        x = self.means_of(environment)[group] + self.from_noise(noise)
        return x, self.labels[group]

    def check(self) -> None:
        """Refuse arrays that make no world; of traced ones only the shapes can be judged.

        Raises:
            ValueError: if the shapes do not fit each other, or a number is not finite.
        """
        dim = jnp.shape(self.target)[-1] if jnp.ndim(self.target) else 0
        size, groups = jnp.shape(self.weights)[0], jnp.size(self.labels)
        tests, test_groups = jnp.shape(self.test_weights)[0], jnp.size(self.test_labels)
        shapes = {
            "weights": (size, groups),
            "means": (1 if len(self.means) == 1 else size, groups, dim),
            "labels": (groups,),
            "test_weights": (tests, test_groups),
            "test_means": (1 if len(self.test_means) == 1 else tests, test_groups, dim),
            "test_labels": (test_groups,),
            "target": (dim,),
            "causal": (dim,),
            "unscramble": (dim, dim),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"world.{name} must have shape {list(shape)}, got {list(jnp.shape(value))}"
                )
            if name not in ("causal", "target"):
                checks.number(f"world.{name}", value, scalar=False, double=True)
        for name in ("root", "test_root"):
            value = getattr(self, name)
            if value is None:
                continue
            if jnp.shape(value) not in ((dim, dim), (dim,)):
                raise ValueError(
                    f"world.{name} must have shape [{dim}, {dim}], or [{dim}] for independent "
                    f"inputs, got {list(jnp.shape(value))}"
                )
            checks.number(f"world.{name}", value, scalar=False, double=True)
        for name in ("weights", "test_weights"):
            rows = checks.concrete(getattr(self, name))
            if rows is not None and ((rows < 0).any() or (abs(rows.sum(1) - 1) > 1e-5).any()):
                raise ValueError(
                    f"world.{name} must be shares that sum to one in every environment, got "
                    f"{rows.tolist()}"
                )
        checks.probabilities("world.probabilities", self.probabilities, size)

    def _of_test(self) -> Array:
        return self.root if self.test_root is None else self.test_root

    def _sampled(self, key: Key, weights: Array, means: Array, count: Array) -> Array:
        (groups, dim), dtype = means.shape, means.dtype
        sizes = random.multinomial(random.fold_in(key, 0), count, weights)
        square = random.bartlett_normals(dim)
        normals = random.normals(random.fold_in(key, 1), groups * dim + square, dtype)
        words = random.bits(random.fold_in(key, 2), random.bartlett_words(dim))
        of_means, rest = normals[: groups * dim].reshape(groups, dim), normals[groups * dim :]
        centers = of_means / jnp.sqrt(jnp.maximum(sizes, 1))[:, None]
        centers = means + self.from_noise(centers)
        degrees = count - jnp.sum(sizes > 0).astype(dtype)
        triangle = random.bartlett(rest, words, jnp.maximum(degrees, dim), dim)
        # Both laws read the same numbers, of which only one is used.
        rows = jnp.where((jnp.arange(dim) < degrees)[:, None], rest[: dim**2].reshape(dim, dim), 0)
        factor = _times(self.root, jnp.where(degrees >= dim, triangle, rows).T)
        number = jnp.maximum(count, 1)
        within = jnp.pad(linalg.product(factor, factor.T), (0, 2))
        return _between(sizes / number, centers, self.labels) + within / number


def _times(root: Array, columns: Array) -> Array:
    """The product of a root, or of the diagonal of one, with columns [p, m]."""
    return root[:, None] * columns if root.ndim == 1 else linalg.product(root, columns)


def _population(weights: Array, means: Array, labels: Array, root: Array) -> Array:
    covariance = jnp.diag(root**2) if root.ndim == 1 else linalg.product(root, root.T)
    return _between(weights, means, labels) + jnp.pad(covariance, (0, 2))[None]


def _errors(
    shares: Array,
    means: Array,
    labels: Array,
    root: Array,
    weights: Array,
    intercept: float | Array,
) -> Array:
    """The shares [E] of labels with another sign than the prediction x'w + b."""
    centers = linalg.product(means, weights[:, None])[..., 0] + intercept
    deviation = jnp.sqrt(jnp.sum(_times(root.T, weights[:, None]) ** 2))
    # Of a constant prediction the sign alone counts; at zero it is as good as a coin.
    sure = deviation == 0
    ratio = labels[None] * centers / jnp.where(sure, 1, deviation)
    wrong = jnp.where(sure, (1 - jnp.sign(ratio)) / 2, ndtr(-ratio))
    return jnp.sum(shares * wrong, -1)


def _between(shares: Array, means: Array, labels: Array) -> Array:
    """The moments [..., q, q] of group means [..., G, p] with shares [..., G]."""
    last = jnp.broadcast_to(labels[:, None], (*means.shape[:-1], 1))
    z = jnp.concatenate([means, last, jnp.ones_like(last)], -1)
    return linalg.product(jnp.swapaxes(z, -1, -2), shares[..., None] * z)


def gaussian_environments(
    *,
    dim_causal: int = 3,
    dim_spurious: int = 3,
    num_environments: int = 3,
    signal: Numbers = 1.0,
    noise: float | Array = 1.0,
    spurious_noise: float | Array = 1.0,
    spurious_scale: float | Array = 1.0,
    spurious_means: Numbers | None = None,
    target: str = "squared",
    scramble: bool = False,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """A label +1 or -1 with inputs that are Gaussian given the label (Rosenfeld et al. 2021).

    y is +1 or -1 with probability 1/2, z_c ~ N(y mu_c, sigma_c^2 I), z_e ~ N(y mu_e, sigma_e^2 I),
    and the inputs are (z_c, z_e). The best linear prediction from z_c alone is the same in every
    environment. Under squared loss, where the label is a number, it is w* =
    (mu_c / (sigma_c^2 + |mu_c|^2), 0). Under logistic loss it is the logit, w* =
    (2 mu_c / sigma_c^2, 0). In the environments of the test mu_e has the other sign.

    Args:
        dim_causal: number of the inputs z_c.
        dim_spurious: number of the inputs z_e.
        num_environments: E.
        signal: mu_c, a number for all inputs or one for each, [dim_causal]; may be traced.
        noise: sigma_c, above 0; may be traced.
        spurious_noise: sigma_e, above 0; may be traced.
        spurious_scale: mu_e ~ N(0, spurious_scale^2 I), drawn with the world; may be traced.
        spurious_means: mu_e of every environment, [E, dim_spurious], in place of drawn ones; may be
            traced.
        target: "squared" or "logistic", the loss whose w* errors of weights are measured from.
        scramble: whether the inputs are rotated by a random rotation of the key.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory.

    Raises:
        ValueError: if an argument is out of range.
    """
    for name, value in (("dim_causal", dim_causal), ("dim_spurious", dim_spurious)):
        checks.integer(name, value)
    size = checks.integer("num_environments", num_environments)
    checks.number("noise", noise, above=0)
    checks.number("spurious_noise", spurious_noise, above=0)
    checks.number("spurious_scale", spurious_scale, minimum=0)
    checks.number("signal", signal, scalar=False)
    if np.ndim(signal):
        causal_mean = array("signal", signal, (dim_causal,))
    else:
        causal_mean = jnp.broadcast_to(jnp.asarray(signal, float), (dim_causal,))
    given = None
    if spurious_means is not None:
        given = array("spurious_means", spurious_means, ("E", dim_spurious))
        size = len(given)
    checks.choice("target", target, TARGETS)
    checks.flags(scramble=scramble)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, size)
    dim = dim_causal + dim_spurious

    def world(key: Key) -> MixtureWorld:
        own = given
        if own is None:
            normals = random.normals(random.fold_in(key, 0), (size, dim_spurious), float)
            own = spurious_scale * normals
        turn = rotation(random.fold_in(key, 1), dim) if scramble else jnp.eye(dim)
        shared = jnp.broadcast_to(causal_mean, (size, dim_causal))
        deviations = [jnp.full(dim_causal, noise), jnp.full(dim_spurious, spurious_noise)]
        if target == "squared":
            ratio = causal_mean / (noise**2 + jnp.sum(causal_mean**2))
        else:
            ratio = 2 * causal_mean / noise**2
        wanted = jnp.concatenate([ratio, jnp.zeros(dim_spurious)])
        halves = jnp.full((size, 2), 0.5)
        return MixtureWorld(
            weights=halves,
            means=_both_signs(jnp.concatenate([shared, own], 1), turn),
            root=turn.T * jnp.concatenate(deviations)[None],
            labels=jnp.array([1.0, -1.0]),
            test_weights=halves,
            test_means=_both_signs(jnp.concatenate([shared, -own], 1), turn),
            test_labels=jnp.array([1.0, -1.0]),
            target=linalg.product(turn.T, wanted[:, None])[:, 0],
            causal=jnp.arange(dim) < dim_causal,
            unscramble=turn,
            probabilities=weights_of(probabilities, size),
        )

    return world


def _both_signs(means: Array, turn: Array) -> Array:
    """The means [E, 2, p] of both labels, in the coordinates of the data."""
    turned = linalg.product(means, turn)
    return jnp.stack([turned, -turned], 1)

"""Single-index worlds: labels that are any function of one linear form of the inputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from causal_sgd import checks, linalg, random
from causal_sgd.supervised._moments import augmented
from causal_sgd.supervised.worlds._placement import Numbers
from causal_sgd.supervised.worlds._regression import checked, root_of
from causal_sgd.supervised.worlds._sampled import DrawnMoments
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["LINKS", "IndexWorld", "single_index"]

Link = Callable[[Array], Array]

LINKS: dict[str, Link] = {
    "linear": lambda z: z,
    "sine": jnp.sin,
    "tanh": jnp.tanh,
    "sign": jnp.sign,
    "cubic": lambda z: z**3,
}
"""Links by name; all are odd."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "weights",
        "covariance",
        "root",
        "noise",
        "test_weights",
        "test_noise",
        "target",
        "causal",
        "probabilities",
    ],
    meta_fields=["link"],
)
@dataclasses.dataclass(frozen=True)
class IndexWorld(DrawnMoments):
    """Environments with x ~ N(0, S) and y = f(x'w_e) + noise N.

    Attributes:
        weights: w_e [E, p].
        covariance: S [p, p].
        root: of it, [p, p]; None for the identity.
        noise: standard deviation in every environment, [E].
        test_weights: those of the environments of the test, [T, p].
        test_noise: [T].
        target: the best linear weights on which all environments agree, [p].
        causal: [p] bool.
        probabilities: how often each environment is drawn, [E].
        link: f, element by element; static.
    """

    weights: Array
    covariance: Array
    root: Array | None
    noise: Array
    test_weights: Array
    test_noise: Array
    target: Array
    causal: Array
    probabilities: Array
    link: Link

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
        """The moments of z = (x, y, 1) in every environment, [E, q, q]."""
        return _population(self.link, self.weights, self.covariance, self.noise)

    @property
    def test_moments(self) -> Array:
        """The moments in every test environment, [T, q, q]."""
        return _population(self.link, self.test_weights, self.covariance, self.test_noise)

    def draw_examples(self, key: Key, environment: Array, size: int) -> tuple[Array, Array]:
        """Fresh examples of one environment: inputs [n, p] and labels [n].

        Args:
            key: of the draw.
            environment: [] int32.
            size: n.
        """
        kind, dim = self.weights.dtype, self.weights.shape[1]
        x = random.normals(random.fold_in(key, 0), (size, dim), kind)
        x = x if self.root is None else linalg.product(x, self.root)
        own = random.normals(random.fold_in(key, 1), size, kind)
        index = linalg.product(x, self.weights[environment][:, None])[:, 0]
        return x, self.link(index) + self.noise[environment] * own

    def check(self) -> None:
        """Refuse probabilities that do not fit.

        Raises:
            ValueError: if they do not.
        """
        checks.probabilities("world.probabilities", self.probabilities, len(self.weights))


def single_index(
    weights: Numbers,
    *,
    link: str | Link = "tanh",
    covariance: Numbers | None = None,
    noise: Numbers = 0.0,
    test_weights: Numbers | None = None,
    causal: Sequence[int] | None = None,
    probabilities: Numbers | None = None,
) -> WorldFactory:
    """Gaussian inputs, and labels that are a function of one linear form of them.

    x ~ N(0, S) and y = f(x'w_e) + noise N. The best linear weights are b_e = w_e E f'(x'w_e)
    whatever f is (Stein's identity), so that a linear model finds w_e up to a factor (Fan, Yang and
    Yu 2020). This factor depends on w_e'S w_e: environments that differ in one weight differ in all
    b_e unless f is linear.

    Args:
        weights: w_e of every environment, [E, p]; may be traced.
        link: f: "linear", "sine", "tanh", "sign", "cubic" (z^3), or a function of an array, element
            by element. Moments of the population are by quadrature, exact for links that are
            smooth but for a jump at zero.
        covariance: S [p, p], symmetric and positive semidefinite; may be traced. None for the
            identity.
        noise: standard deviation of the label's noise, [] or of every environment [E], at least 0;
            may be traced.
        test_weights: weights of the environments of the test, [T, p]; None for the environments
            themselves.
        causal: places of the inputs that count as causal; None for those whose w_e is the same in
            all environments and not 0.
        probabilities: [E], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key. Its target is the mean of the best
        linear weights b_e of the inputs that are causal, and 0 elsewhere.

    Raises:
        ValueError: if an argument is out of range or has a wrong shape.
    """
    if isinstance(link, str):
        function = LINKS[checks.choice("link", link, tuple(LINKS))]
    else:
        function = checks.function("link", link, 1, "a name or a function of an array")
    given = checked(weights, covariance, noise, test_weights, None, causal, probabilities)
    dim = given.weights.shape[1]

    def world(key: Key) -> IndexWorld:
        del key
        square = jnp.eye(dim) if given.covariance is None else given.covariance
        tests, variances = given.tests()
        best = given.weights * _slopes(function, given.weights, square)[:, None]
        mean = linalg.product(given.probabilities[None], best)[0]
        return IndexWorld(
            weights=given.weights,
            covariance=square,
            root=root_of(given.covariance),
            noise=given.noise,
            test_weights=tests,
            test_noise=jnp.sqrt(variances),
            target=jnp.where(given.causal, mean, 0),
            causal=given.causal,
            probabilities=given.probabilities,
            link=function,
        )

    return world


def _scales(weights: Array, covariance: Array) -> Array:
    """The standard deviations of the index [E]; 1 where it is constant, as moments need."""
    variances = jnp.sum(linalg.product(weights, covariance) * weights, 1)
    return jnp.sqrt(jnp.where(variances > 0, variances, 1))


def _slopes(link: Link, weights: Array, covariance: Array) -> Array:
    """E f'(x'w_e), [E]."""
    return _of_link(link, _scales(weights, covariance))[1]


NODES, END = 64, 10.0  # of Gauss-Legendre on either side of zero, where a link may jump


def _of_link(link: Link, scales: Array) -> tuple[Array, Array, Array]:
    """E f, E f' and E f^2 of f(sigma g), g ~ N(0, 1), for sigma [E]; [E] each."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = END * (points + 1) / 2
    density = END / 2 * weights * np.exp(-(half**2) / 2) / np.sqrt(2 * np.pi)
    g = jnp.asarray(np.concatenate([-half, half]), scales.dtype)[None]
    mass = jnp.asarray(np.concatenate([density, density]), scales.dtype)[None]
    values = link(scales[:, None] * g)
    terms = (values, values * g / scales[:, None], values**2)
    mean, slope, square = (jnp.sum(mass * term, 1) for term in terms)
    return mean, slope, square


def _population(link: Link, weights: Array, covariance: Array, noise: Array) -> Array:
    """The moments [E, q, q]."""
    size, dim = weights.shape
    cross = linalg.product(weights, covariance)
    moving = jnp.sum(cross * weights, 1) > 0
    mean, slope, square = _of_link(link, _scales(weights, covariance))
    constant = link(jnp.zeros(size, weights.dtype))
    mean = jnp.where(moving, mean, constant)
    square = jnp.where(moving, square, constant**2) + noise**2
    both = jnp.zeros((size, dim + 1, dim + 1), weights.dtype)
    both = both.at[:, :dim, :dim].set(jnp.broadcast_to(covariance[None], (size, dim, dim)))
    along = cross * slope[:, None]
    both = both.at[:, :dim, dim].set(along).at[:, dim, :dim].set(along)
    both = both.at[:, dim, dim].set(square - mean**2)
    means = jnp.concatenate([jnp.zeros((size, dim), weights.dtype), mean[:, None]], 1)
    return augmented(both, means)

"""Early stopping in a single-index model: which weights are learned when, and at what error.

Labels y = f(x'w) + noise of inputs x ~ N(0, I) have E x y = b with b = w E f'(x'w) whatever the
link f is (Stein's identity), so that the loss |beta|^2/4 - beta'b^/2 with the mean b^ of x y over
n examples finds w up to a factor without knowing f (Fan, Yang and Yu 2020, whose score S(x) is x
here). For beta = u^2 - v^2 from u = v = alpha its coordinates decouple: a step is

    u <- u (1 - eta (beta - b^)),   v <- v (1 + eta (beta - b^)).

For small steps uv stays alpha^2, and z = u/v follows the Riccati equation
dz/dt = 2 eta (alpha^2 + b^ z - alpha^2 z^2), whose solution has closed form. A coordinate rises
from 0 to b^ around t = log(b^/alpha^2)/(2 eta b^). Weights of the support rise at b^ ~ b,
others at b^ ~ N(0, E y^2/n), the largest of d - s of them at (2 E y^2 log(2 (d - s))/n)^(1/2). In
the window between the two times the error is that of least squares on the true support; afterwards
that of all d coordinates. (Closed forms and window are derived here; the source states an error of
s log d/n.)

Environments e whose weights differ have b_e of their own. Under HeteroSGD u of a coordinate near
zero is multiplied by 1 + eta b_e, as a spurious direction is in a product, and in two environments
with b_1 > 0 > b_2 it dies iff eta > 1/|b_2| - 1/b_1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.typing import ArrayLike

from causal_sgd import _room, checks
from causal_sgd.theory._arguments import broadcast, check, checked_jit
from causal_sgd.types import Array

_room(__name__)
__all__ = [
    "LinkMoments",
    "learning_time",
    "link_moments",
    "noise_level",
    "rejecting_learning_rate",
    "stopped_error",
    "stopped_weights",
]

NODES, END = 64, 10.0  # of Gauss-Legendre on either side of zero
POINTS = 401  # of the normal distribution, for errors


class LinkMoments(NamedTuple):
    """Moments of f(sigma g) with g ~ N(0, 1), each [...]."""

    mean: Array  # E f
    slope: Array  # E f g / sigma, which is E f' by parts
    square: Array  # E f^2
    weighted: Array  # E f^2 g^2


def link_moments(link: Callable[[Array], Array], scale: ArrayLike = 1.0) -> LinkMoments:
    """The moments of a link at a normal index, by Gauss-Legendre quadrature on both sides of zero.

    Accuracy: 1e-6 relative in single precision, for links that are smooth but for a jump at zero.

    Args:
        link: f, element by element on an array.
        scale: sigma [...], the standard deviation of the index, above 0.

    Raises:
        ValueError: if the link is no function of an array, or the scale is out of range.

    >>> import jax.numpy as jnp
    >>> print(f"{link_moments(jnp.sign).slope:.5f}")
    0.79788
    """
    checks.function("link", link, 1, "a function of an array")
    checks.number("scale", scale, above=0, scalar=False)
    sigma = jnp.asarray(scale, float)
    points, weights = _normal()
    shape = (1,) * sigma.ndim + (-1,)
    g = jnp.asarray(points, sigma.dtype).reshape(shape)
    mass = jnp.asarray(weights, sigma.dtype).reshape(shape)
    values = link(sigma[..., None] * g)
    checks.instance("link", values, jax.Array, "a function that returns an array")
    if values.shape != (*sigma.shape, len(points)):
        raise ValueError(f"link must keep the shape of its argument, got {list(values.shape)}")
    square = values**2
    return LinkMoments(
        jnp.sum(values * mass, -1),
        jnp.sum(values * g * mass, -1) / sigma,
        jnp.sum(square * mass, -1),
        jnp.sum(square * g**2 * mass, -1),
    )


def _normal() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights [2 NODES] of a standard normal number."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = END * (points + 1) / 2
    density = END / 2 * weights * np.exp(-(half**2) / 2) / np.sqrt(2 * np.pi)
    return np.concatenate([-half[::-1], half]), np.concatenate([density[::-1], density])


@checked_jit
def stopped_weights(
    steps: ArrayLike, signals: ArrayLike, *, learning_rate: ArrayLike, init_scale: ArrayLike
) -> Array:
    """The weights beta [...] after some steps, u^2 - v^2 from u = v = alpha.

    With r = (b^2 + 4 alpha^4)^(1/2), z_+ = (b + r)/(2 alpha^2) and
    q = z_+ (z_+ - 1)/(z_+ + 1) e^(-2 eta r t) the solution of the Riccati equation for b >= 0 is

        z = (z_+ - q/z_+)/(1 + q),   beta = alpha^2 (z - 1/z).

    Finite steps shrink uv by 1 - (eta b)^2 each at first, which delays the rise: u grows by
    1 + eta b, so that log(1 + eta b) stands for eta b here.

    Accuracy: of the gradient flow, a few roundings. Of gradient descent, 0.02 b for eta b <= 0.1.

    Args:
        steps: t [...], at least 0.
        signals: b [...], of either sign.
        learning_rate: eta [...].
        init_scale: alpha [...].

    >>> print(f"{stopped_weights(200.0, 0.5, learning_rate=0.1, init_scale=0.01):.4f}")
    0.5000
    """
    t, b, eta, alpha = broadcast(steps, signals, learning_rate, init_scale)
    least = alpha**2
    size = jnp.abs(b)
    root = jnp.sqrt(size**2 + 4 * least**2)
    top = (size + root) / (2 * least)
    q = top * ((top - 1) / (top + 1)) * jnp.exp(-2 * _speed(eta, size) * root * t)
    z = (top - q / top) / (1 + q)
    return jnp.sign(b) * least * (z - 1 / z)


@checked_jit
def learning_time(
    signals: ArrayLike,
    *,
    learning_rate: ArrayLike,
    init_scale: ArrayLike,
    share: ArrayLike = 0.5,
) -> Array:
    """The steps [...] after which a weight has reached a share of its signal.

    `stopped_weights` solved for t: with z = e^arsinh(share b/(2 alpha^2)) and the notation there,

        t = log[z_+ (z_+ - 1)/(z_+ + 1) (z + 1/z_+)/(z_+ - z)]/(2 eta r).

    Accuracy: as there.

    Args:
        signals: |b| [...], of either sign; infinite time for 0.
        learning_rate: eta [...].
        init_scale: alpha [...].
        share: above 0 and below 1, [...].

    >>> print(f"{learning_time(0.5, learning_rate=0.1, init_scale=0.01):.1f}")
    87.3
    """
    b, eta, alpha, part = broadcast(signals, learning_rate, init_scale, share)
    least, size = alpha**2, jnp.abs(b)
    root = jnp.sqrt(size**2 + 4 * least**2)
    top = (size + root) / (2 * least)
    z = jnp.exp(jnp.arcsinh(part * size / (2 * least)))
    ratio = top * ((top - 1) / (top + 1)) * (z + 1 / top) / (top - z)
    time = jnp.log(ratio) / (2 * _speed(eta, size) * root)
    return jnp.where(size > 0, jnp.where(part < 1, time, jnp.inf), jnp.inf)


def _speed(learning_rate: Array, size: Array) -> Array:
    """The rate of a flow that grows as steps do, log(1 + eta b)/b."""
    safe = jnp.where(size > 0, size, 1)
    return jnp.where(size > 0, jnp.log1p(learning_rate * safe) / safe, learning_rate)


@checked_jit
def noise_level(
    num_noise: ArrayLike,
    num_examples: ArrayLike,
    *,
    variance: ArrayLike = 1.0,
    share: ArrayLike = 0.5,
) -> Array:
    """The quantile [...] of the largest |b| among coordinates without a signal.

    They are independent N(0, variance/n), so that P(max <= l) = (2 Phi(l) - 1)^k in units of their
    deviation. For large k this is (2 log(2 k) variance/n)^(1/2) to leading order.

    Accuracy: 1e-5 relative, for k up to 10^6; the law itself to order 1/n.

    Args:
        num_noise: k [...], the number of these coordinates, above 0.
        num_examples: n [...].
        variance: E y^2 [...].
        share: of the quantile, [...]; 0.5 for the median.

    >>> print(f"{noise_level(195, 400):.4f}")
    0.1458
    """
    k, n, square, part = broadcast(num_noise, num_examples, variance, share)
    tail = -jnp.expm1(jnp.log(part) / k) / 2  # 1 - Phi
    return -ndtri(tail) * jnp.sqrt(square / n)


def stopped_error(
    steps: ArrayLike,
    signals: ArrayLike,
    *,
    variances: ArrayLike,
    noise_variance: ArrayLike,
    num_noise: ArrayLike,
    num_examples: ArrayLike,
    learning_rate: ArrayLike,
    init_scale: ArrayLike,
) -> Array:
    """The expected squared error |beta - b|^2 [...] of weights that are stopped.

    The signals of n examples are b_i + N(0, v_i/n) on the support and N(0, v/n) elsewhere, with
    v_i = Var x_i y and v = E y^2. The expectation is over these numbers, on a grid of 401 points.

    Accuracy: 1e-3 relative where the normal law of means holds, by the grid.

    Args:
        steps: t [...].
        signals: b_i of the support, [s].
        variances: v_i [s].
        noise_variance: v [].
        num_noise: d - s [].
        num_examples: n [].
        learning_rate: eta [].
        init_scale: alpha [].

    Raises:
        ValueError: if an argument is out of range.

    >>> options = {"learning_rate": 0.1, "init_scale": 1e-3, "num_examples": 400.0}
    >>> noise = {"variances": [1.0], "noise_variance": 1.0, "num_noise": 99.0}
    >>> print(f"{stopped_error(250.0, [1.0], **noise, **options):.5f}")
    0.00252
    """
    check(steps=steps, signals=signals, variances=variances)
    check(noise_variance=noise_variance, num_noise=num_noise, num_examples=num_examples)
    check(learning_rate=learning_rate, init_scale=init_scale)
    if np.ndim(signals) != 1 or np.shape(variances) != np.shape(signals):
        raise ValueError(
            "signals and variances must have one shape [s], got "
            f"{np.shape(signals)} and {np.shape(variances)}"
        )
    numbers = (noise_variance, num_noise, num_examples, learning_rate, init_scale)
    if any(np.ndim(number) for number in numbers):
        raise ValueError(
            "noise_variance, num_noise, num_examples, learning_rate and init_scale "
            f"must be numbers, got shapes {[np.shape(number) for number in numbers]}"
        )
    return _stopped_error(*(jnp.asarray(v, float) for v in (steps, signals, variances, *numbers)))


@jax.jit
def _stopped_error(
    steps: Array,
    signals: Array,
    variances: Array,
    noise_variance: Array,
    num_noise: Array,
    num_examples: Array,
    learning_rate: Array,
    init_scale: Array,
) -> Array:
    grid = np.linspace(-8, 8, POINTS)
    density = np.exp(-(grid**2) / 2)
    points = jnp.asarray(grid, steps.dtype)
    mass = jnp.asarray(density / density.sum(), steps.dtype)
    true = jnp.append(signals, 0)
    spread = jnp.sqrt(jnp.append(variances, noise_variance) / num_examples)
    found = true[:, None] + spread[:, None] * points[None]  # [s + 1, POINTS]
    lifted = steps.reshape(*steps.shape, 1, 1)
    reached = stopped_weights(
        lifted,
        found.reshape((1,) * steps.ndim + found.shape),
        learning_rate=learning_rate,
        init_scale=init_scale,
    )
    center = true.reshape((1,) * steps.ndim + (-1, 1))
    weights = mass.reshape((1,) * (steps.ndim + 1) + (-1,))
    errors = jnp.sum((reached - center) ** 2 * weights, -1)
    return jnp.sum(errors[..., :-1], -1) + num_noise * errors[..., -1]


@checked_jit
def rejecting_learning_rate(high: ArrayLike, low: ArrayLike) -> Array:
    """The learning rate [...] beyond which HeteroSGD forgets a weight of two environments.

    Its signals are `high` > 0 > `low`, equally likely, with a positive mean. Near zero the exponent
    of u is log[(1 + eta high)(1 - eta |low|)]/2, negative for eta > 1/|low| - 1/high, as long as
    eta |low| <= 1. That of v, log[|1 - eta high| (1 + eta |low|)]/2, is then negative, too, as long
    as eta high <= 1; for larger signals v may grow instead.

    Accuracy: a few roundings.

    Args:
        high: the larger signal [...], above 0.
        low: the smaller one [...].

    Returns:
        eta [...]; infinite where the signals do not differ in sign.

    >>> print(f"{rejecting_learning_rate(1.5, -1.0):.4f}")
    0.3333
    """
    first, second = broadcast(high, low)
    differ = (first > 0) & (second < 0)
    safe_first, safe_second = jnp.where(differ, first, 1), jnp.where(differ, -second, 1)
    return jnp.where(differ, 1 / safe_second - 1 / safe_first, jnp.inf)

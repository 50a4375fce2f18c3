"""Momentum: the exponent of a spurious direction with a velocity, and where it changes its sign.

A step multiplies (u, w), w the velocity times eta, by one of the `momentum_factors`. What counts is
the direction of that vector, the angle theta with tan theta = w / (scale u). A function h of the
angle becomes P h, its mean over the next environment, and with f the mean logarithm of the growth
the exponent lambda and h solve Poisson's equation

    h - P h + lambda = f.

Both are exact. On equally spaced angles, with cubic interpolation between them, this is a linear
system. No draws are needed, so that critical curves are smooth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks, linalg
from causal_sgd.theory._arguments import broadcast, check, checked_jit, count_environments
from causal_sgd.theory._exponents import DEVIATION, families
from causal_sgd.types import Array

__all__ = ["lyapunov_momentum", "momentum_critical_spread"]

ANGLES = 64
WIDTH = 3.0  # the scale of w / u, in its standard deviations near w = 0
NODES = 24  # of uniform and normal eigenvalues
REACH = 5.0  # of normal eigenvalues, in standard deviations
POINTS, ROUNDS = 17, 3  # of the grids of spreads, each over an interval of the previous one
SEARCHED = (0.4, 2.0)  # in critical spreads of SGD with learning rate eta / (1 - beta)
_TINY = 1e-30


def lyapunov_momentum(
    learning_rate: ArrayLike,
    momentum: ArrayLike,
    eigenvalues: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    nesterov: bool = False,
) -> Array:
    """Lyapunov exponent [...] of SGD with momentum in fixed environments, drawn independently.

    The top exponent of the product of `momentum_factors`. For small steps it is that of SGD with
    learning rate eta / (1 - beta): to second order eta' mu - eta'^2 M^2 / 2 with eta' that rate,
    less (eta' mu)^2 (1 + beta) / (2 (1 - beta)).

    Accuracy: 2e-3 for eta |s_e| up to 1 - beta, and 0.01 up to 1.

    Args:
        learning_rate: eta [...], the rate of the optimizer.
        momentum: beta [...], in [0, 1].
        eigenvalues: s_e [..., E], the spurious eigenvalue of each environment.
        probabilities: [E], sum to one; None for equal ones.
        nesterov: whether to use Nesterov's momentum.

    >>> print(f"{lyapunov_momentum(0.05, 0.5, jnp.array([5.0, -3.0])):.3f}")
    0.017
    """
    check(learning_rate=learning_rate, momentum=momentum, eigenvalues=eigenvalues)
    checks.flags(nesterov=nesterov)
    size = count_environments("eigenvalues", eigenvalues)
    weights = np.full(size, 1 / size)
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    eta, beta, values = broadcast(
        jnp.asarray(learning_rate)[..., None], jnp.asarray(momentum)[..., None], eigenvalues
    )
    return _exponents(eta * values, beta[..., 0], jnp.asarray(weights, eta.dtype), nesterov)


@checked_jit
def momentum_critical_spread(
    learning_rate: ArrayLike,
    mean: ArrayLike,
    momentum: ArrayLike,
    family: str = "two_point",
    *,
    nesterov: bool = False,
) -> Array:
    """The critical heterogeneity M_c of SGD with momentum: beyond it `lyapunov_momentum` < 0.

    For small steps it is `critical_spread` of the learning rate eta / (1 - beta). For larger ones
    the velocity remembers environments for as long as a direction takes to change, and from a
    learning rate on no heterogeneity makes the exponent negative.

    Accuracy: relative 3e-3 for two points and uniform eigenvalues and eta mu up to 0.1 (1 - beta),
    0.01 for normal ones up to 0.05 (1 - beta).

    Args:
        learning_rate: eta [...], the rate of the optimizer.
        mean: mu [...].
        momentum: beta [...], in [0, 1].
        family: one of `families`.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        M_c [...], the smallest spread beyond which lambda is negative: 0 where mu <= 0; inf where
        no spread up to twice that of SGD makes it negative.

    >>> [f"{momentum_critical_spread(0.1 * (1 - beta), 1.0, beta):.2f}" for beta in (0.0, 0.5, 0.9)]
    ['4.58', '4.39', 'inf']
    """
    checks.choice("family", family, families)
    eta, mu, beta = broadcast(learning_rate, mean, momentum)
    nodes, weights = (jnp.asarray(array, eta.dtype) for array in _rule(family))
    # Rates of one: lambda depends on eta mu and eta M only.
    drift = eta * jnp.where(mu > 0, mu, 1)
    rest = jnp.maximum(1 - beta, _TINY)
    unit = jnp.sqrt(drift * (2 * rest + drift)) / DEVIATION[family]

    def solve(point: tuple[Array, Array, Array]) -> Array:
        drift, beta, unit = point

        def exponents(spreads: Array) -> Array:
            pushes = drift + unit * jnp.outer(spreads, nodes)
            return _exponents(pushes, jnp.broadcast_to(beta, spreads.shape), weights, nesterov)

        return unit * _first_root(exponents, *SEARCHED)

    points = (drift.ravel(), beta.ravel(), unit.ravel())
    root = jax.lax.map(solve, points, batch_size=8).reshape(mu.shape) / eta
    return jnp.where(mu > 0, jnp.where(beta < 1, root, jnp.inf), 0)


def _rule(family: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the eigenvalues at mean 0 and spread 1."""
    if family == "two_point":
        return np.array([1.0, -1.0]), np.array([0.5, 0.5])
    nodes = (np.arange(NODES) + 0.5) / NODES * 2 - 1
    if family == "uniform":
        return nodes, np.full(NODES, 1 / NODES)
    weights = np.exp(-((REACH * nodes) ** 2) / 2)
    return REACH * nodes, weights / weights.sum()


@functools.partial(jax.jit, static_argnames="nesterov")
def _exponents(pushes: Array, momentum: Array, weights: Array, nesterov: bool) -> Array:
    """The exponent [...] of steps with eta s_e [..., E] and momentum beta [...]."""
    one = functools.partial(_exponent, weights=weights, nesterov=nesterov)
    flat = jax.vmap(one)(pushes.reshape(-1, pushes.shape[-1]), momentum.ravel())
    return flat.reshape(momentum.shape)


def _exponent(pushes: Array, beta: Array, *, weights: Array, nesterov: bool) -> Array:
    """The exponent [] of steps with eta s_e [E] and momentum beta []."""
    dtype = pushes.dtype
    size = jnp.sqrt(jnp.sum(weights * pushes**2))
    scale = jnp.maximum(WIDTH * size / jnp.sqrt(jnp.maximum(1 - beta**2, _TINY)), _TINY)

    def step(along: Array, across: Array, push: Array) -> tuple[Array, Array, Array]:
        """The log growth and the weights [4] at the columns [4] next to the image of an angle."""
        velocity = beta * across - push / scale * along  # the new w, in scales
        kept = (1 + push) * along if nesterov else along
        u = kept - (beta if nesterov else 1) * scale * velocity
        place = jnp.arctan2(velocity, u) * (ANGLES / np.pi) - 0.5
        columns = jnp.floor(place) + offsets
        return jnp.log(jnp.hypot(u, velocity)), _cubic(place - columns), columns.astype(int)

    # Half a spacing off the axes: without momentum u vanishes at a right angle.
    angles = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
    along, across = (jnp.asarray(part, dtype) for part in (np.cos(angles), np.sin(angles)))
    offsets = jnp.arange(-1, 3, dtype=dtype)
    over_environments = jax.vmap(step, (None, None, 0))
    growth, shares, columns = jax.vmap(over_environments, (0, 0, None))(along, across, pushes)
    rows = jnp.broadcast_to(jnp.arange(ANGLES)[:, None, None], columns.shape)
    mixing = jnp.zeros((ANGLES, ANGLES), dtype)
    mixing = mixing.at[rows, columns % ANGLES].add(shares * weights[None, :, None])
    # The mean of the solution is lambda: 1/ANGLES adds back the constants that I - P takes away.
    system = jnp.eye(ANGLES, dtype=dtype) - mixing + 1 / ANGLES
    return jnp.mean(linalg.solve(system, linalg.product(growth, weights)[:, None]))


def _cubic(offset: Array) -> Array:
    """The weight of a node in cubic interpolation, by its distance in spacings."""
    t = jnp.abs(offset)
    near, far = (1 - t**2) * (2 - t) / 2, (1 - t) * (2 - t) * (3 - t) / 6
    return jnp.where(t < 1, near, jnp.where(t < 2, far, 0))


def _first_root(function: Callable[[Array], Array], low: float, high: float) -> Array:
    """Where a function [n] -> [n] first turns negative, by successive grids; inf if nowhere.

    Around the least value, later grids find a narrow dip that the first one steps over.
    """

    def narrow(_: int, state: tuple[Array, ...]) -> tuple[Array, ...]:
        grid = jnp.linspace(state[0], state[1], POINTS)
        values = function(grid)
        negative = values < 0
        below = jnp.any(negative)
        at = jnp.where(below, jnp.argmax(negative), jnp.argmin(values))
        first = jnp.maximum(at - 1, 0)
        last = jnp.where(below, at, jnp.minimum(at + 1, POINTS - 1))
        drop = values[first] - values[last]
        share = jnp.clip(values[first] / jnp.where(drop > 0, drop, 1), 0, 1)
        root = grid[first] + share * (grid[last] - grid[first])
        return grid[first], grid[last], jnp.where(below, root, jnp.inf)

    ends = jnp.asarray(low), jnp.asarray(high)
    return jax.lax.fori_loop(0, ROUNDS, narrow, (*ends, jnp.asarray(jnp.inf)))[2]

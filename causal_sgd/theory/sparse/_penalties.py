"""The penalties that HeteroSGD, label noise and batches put on squares of weights."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd import checks, linalg
from causal_sgd.theory._exponents import lyapunov_gaussian
from causal_sgd.theory.sparse._arguments import check_environments
from causal_sgd.theory.sparse._lasso import lasso
from causal_sgd.types import Array

__all__ = ["HeterogeneityLasso", "gradient_variances", "growth_exponents", "heterogeneity_lasso"]

ROUNDS = 40  # of penalties from a solution and a solution from penalties
SWEEPS = 30  # of the Lasso in each round, from the last solution


class HeterogeneityLasso(NamedTuple):
    """The solution of a Lasso whose penalties are the variances at this solution."""

    estimate: Array  # theta [d]
    penalties: Array  # (eta / 2) V_i [d], in units of S theta
    change: Array  # [] the largest change of a penalty in a further round; 0 if it has settled


def gradient_variances(
    estimate: ArrayLike,
    second: ArrayLike,
    cross: ArrayLike,
    *,
    probabilities: ArrayLike | None = None,
    label_noise: ArrayLike = 0.0,
    batch_size: ArrayLike = 1.0,
    label_squares: ArrayLike | None = None,
) -> Array:
    """The variances V_i of a step's gradient g_i in an environment drawn at random.

    Where g = S_e theta - b_e exactly, V_i is its variance over environments, plus delta^2 s_i / m
    if labels of m examples get fresh noise of standard deviation delta; s_i is the mean of S_ii.
    With the squares of labels the batch is m fresh Gaussian examples of mean zero. For Gaussian x_i
    and residual r = x'theta - y (Isserlis 1918)

        Var(x_i r) = S_ii E r^2 + (E x_i r)^2,   E r^2 = theta'S theta - 2 theta'b + E y^2,

    of which the mean over environments is added, divided by m.

    Accuracy: a few roundings of the largest term.

    Args:
        estimate: theta [d].
        second: S_e [E, d, d] of environments, or [d, d] of all.
        cross: b_e [E, d].
        probabilities: [E], which sum to one; None for equal ones.
        label_noise: delta [].
        batch_size: m [], examples with noise in a step; at least 1.
        label_squares: E y^2 [E] of environments; None for no noise of batches.

    Returns:
        V [d].

    Raises:
        ValueError: if a shape does not fit or a number is out of range.

    >>> import numpy as np
    >>> second = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> print(gradient_variances(np.zeros(2), second, [[3.0, 6.0], [-3.0, -6.0]]))
    [ 9. 36.]
    """
    arrays = check_environments(estimate, second, cross, probabilities, label_squares)
    noise = _noise(label_noise, batch_size)
    return _variances(*arrays, *noise)


def growth_exponents(
    estimate: ArrayLike,
    second: ArrayLike,
    cross: ArrayLike,
    *,
    learning_rate: ArrayLike,
    probabilities: ArrayLike | None = None,
    label_noise: ArrayLike = 0.0,
    batch_size: ArrayLike = 1.0,
) -> Array:
    """The log-growth of each coordinate u_i of theta = u * u at a point, E log|1 - eta g_i|.

    Zero on the support of a stationary state and negative off it. The gradient is g = S_e theta -
    b_e plus, with label noise, a normal number of variance delta^2 s_i / m, as in
    `gradient_variances`; its expectation is that of `lyapunov` for Gaussian eigenvalues. The
    moment of theta is held fixed: along a run it fluctuates by order eta.

    Accuracy: 2e-6 in single precision where no factor comes close to zero.

    Args:
        estimate: theta [d].
        second: S_e [E, d, d] of environments, or [d, d] of all.
        cross: b_e [E, d].
        learning_rate: eta [].
        probabilities: [E], which sum to one; None for equal ones.
        label_noise: delta [].
        batch_size: m [], examples with noise in a step; at least 1.

    Returns:
        Exponents [d] a step.

    Raises:
        ValueError: if a shape does not fit or a number is out of range.

    >>> import numpy as np
    >>> cross = np.array([[7.0], [-5.0]])  # the eigenvalues 1 + 6 and 1 - 6
    >>> print(f"{growth_exponents([0.0], np.eye(1), cross, learning_rate=0.1)[0]:.4f}")
    -0.0813
    """
    arrays = check_environments(estimate, second, cross, probabilities, None)
    checks.number("learning_rate", learning_rate, above=0)
    return _exponents(*arrays[:4], jnp.asarray(learning_rate), *_noise(label_noise, batch_size))


def heterogeneity_lasso(
    second: ArrayLike,
    cross: ArrayLike,
    *,
    learning_rate: ArrayLike,
    probabilities: ArrayLike | None = None,
    label_noise: ArrayLike = 0.0,
    batch_size: ArrayLike = 1.0,
    label_squares: ArrayLike | None = None,
    signed: bool = False,
) -> HeterogeneityLasso:
    """The Lasso that training in environments solves, with penalties from its own solution.

    A coordinate u_i of theta = u * u is multiplied by 1 - eta g_i. It is stationary where
    E log|1 - eta g_i| = -eta E g_i - (eta^2 / 2) E g_i^2 + .. vanishes and dies where this is
    negative. With S and b the means over environments and E g_i of order eta on the support, this
    reads (S theta - b)_i + (eta / 2) V_i = 0 on it and >= 0 off it: the optimality conditions of

        min over theta >= 0 of  theta'S theta / 2 - b'theta + (eta / 2) sum_i V_i theta_i,

    where V_i = Var(g_i), see `gradient_variances`. With S_e = S of all environments and without
    batch noise V does not depend on theta. Otherwise solution and penalties are iterated, a
    contraction for small eta. For one coordinate, S = 1 and b_e = mu +- M it is lost at
    M^2 = 2 mu / eta, where `critical_spread` is M^2 = 2 mu / eta + mu^2.

    Accuracy: that of `weighted_lasso`. Runs agree to the next order in eta.

    Args:
        second: S_e [E, d, d] of environments, or [d, d] of all.
        cross: b_e [E, d].
        learning_rate: eta [].
        probabilities: [E], which sum to one; None for equal ones.
        label_noise: delta [].
        batch_size: m [], examples with noise in a step; at least 1.
        label_squares: E y^2 [E] of environments; None for no noise of batches.
        signed: whether theta = u * u - v * v, of both signs.

    Raises:
        ValueError: if a shape does not fit or a number is out of range.

    >>> import numpy as np
    >>> cross = np.array([[1.0, 4.5], [1.0, -3.5]])  # the second is 0.5 +- 4
    >>> result = heterogeneity_lasso(np.eye(2), cross, learning_rate=0.05)
    >>> print([f"{value:.2f}" for value in result.estimate])
    ['1.00', '0.10']
    """
    checks.flags(signed=signed)
    arrays = check_environments(None, second, cross, probabilities, label_squares)
    checks.number("learning_rate", learning_rate, above=0)
    noise = _noise(label_noise, batch_size)
    return _fixed_point(*arrays, jnp.asarray(learning_rate), *noise, signed)


def _noise(label_noise: ArrayLike, batch_size: ArrayLike) -> tuple[Array, Array]:
    checks.number("label_noise", label_noise, minimum=0)
    checks.number("batch_size", batch_size, minimum=1)
    return jnp.asarray(label_noise), jnp.asarray(batch_size)


def _gradients(theta: Array, second: Array, cross: Array) -> Array:
    """S_e theta - b_e [E, d]."""
    return linalg.product(second, theta[:, None])[..., 0] - cross


@jax.jit
def _variances(
    theta: Array,
    second: Array,
    cross: Array,
    shares: Array,
    squares: Array | None,
    label_noise: Array,
    batch_size: Array,
) -> Array:
    g = _gradients(theta, second, cross)
    each = shares[:, None]
    diagonal = jnp.diagonal(second, axis1=1, axis2=2)
    mean = jnp.sum(each * g, 0)
    between = jnp.sum(each * (g - mean[None]) ** 2, 0)
    within = label_noise**2 * jnp.sum(each * diagonal, 0)
    if squares is not None:
        residual = jnp.sum((g - cross) * theta[None], 1) + squares
        within = within + jnp.sum(each * (diagonal * residual[:, None] + g**2), 0)
    return between + within / batch_size


@jax.jit
def _exponents(
    theta: Array,
    second: Array,
    cross: Array,
    shares: Array,
    learning_rate: Array,
    label_noise: Array,
    batch_size: Array,
) -> Array:
    g = _gradients(theta, second, cross)
    diagonal = jnp.diagonal(second, axis1=1, axis2=2)
    mean = jnp.sum(shares[:, None] * diagonal, 0)
    deviations = label_noise * jnp.sqrt(mean / batch_size)
    logs = lyapunov_gaussian(learning_rate[None, None], -g, deviations[None])
    return jnp.sum(shares[:, None] * logs, 0)


@functools.partial(jax.jit, static_argnames="signed")
def _fixed_point(
    theta: Array,
    second: Array,
    cross: Array,
    shares: Array,
    squares: Array | None,
    learning_rate: Array,
    label_noise: Array,
    batch_size: Array,
    signed: bool,
) -> HeterogeneityLasso:
    mean_second = jnp.sum(shares[:, None, None] * second, 0)
    mean_cross = jnp.sum(shares[:, None] * cross, 0)

    def penalties(theta: Array) -> Array:
        found = _variances(theta, second, cross, shares, squares, label_noise, batch_size)
        return (learning_rate / 2 * found).astype(theta.dtype)

    def work(_: int | Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        theta, _ = carry
        weights = penalties(theta)
        numbers = mean_second, mean_cross, weights, theta
        return lasso(*numbers, signed=signed, sweeps=SWEEPS), weights

    theta, weights = jax.lax.fori_loop(0, ROUNDS, work, (theta, jnp.zeros_like(theta)))
    return HeterogeneityLasso(theta, weights, jnp.max(jnp.abs(penalties(theta) - weights)))

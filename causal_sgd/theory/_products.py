"""Lyapunov exponents of products of random matrices: cores without a common eigenbasis."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks, linalg
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.types import Array, Key

__all__ = ["LyapunovExponents", "linearised", "lyapunov_exponents"]


def linearised(learning_rate: ArrayLike, cores: ArrayLike) -> Array:
    """The factors I + eta C_e, [..., n, n], of the spurious dynamics near zero.

    Accuracy: a rounding of each entry.

    Args:
        learning_rate: eta [].
        cores: C_e [..., n, n], in units of the signal.
    """
    checks.number("learning_rate", learning_rate, above=0)
    check(cores=cores)
    shape = np.shape(cores)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"cores must be square matrices, [..., n, n], got shape {shape}")
    identity = jnp.broadcast_to(jnp.eye(shape[-1], dtype=int), shape)
    eta, cores, identity = broadcast(learning_rate, cores, identity)
    return identity + eta * cores


class LyapunovExponents(NamedTuple):
    """Estimates of all Lyapunov exponents of a random matrix product."""

    exponents: Array  # [n] per step, in descending order up to sampling error
    standard_error: Array  # [n] of `exponents`, from the variation between chains


@functools.partial(jax.jit, static_argnames=("num_steps", "num_chains"))
def _random_product(
    matrices: Array, weights: Array | None, key: Key, *, num_steps: int, num_chains: int
) -> LyapunovExponents:
    size, n, _ = matrices.shape
    burn_in = -(-num_steps // 10)

    def step(frame: Array, index: Array) -> tuple[Array, Array]:
        frame, triangle = jnp.linalg.qr(linalg.product(matrices[index], frame))
        return frame, jnp.log(jnp.abs(jnp.diagonal(triangle)))

    def chain(key: Key) -> Array:
        order, start = jax.random.split(key)
        indices = jax.random.choice(order, size, (burn_in + num_steps,), p=weights)
        # A generic frame: coordinate axes may span invariant subspaces and give a wrong order.
        frame, _ = jnp.linalg.qr(jax.random.normal(start, (n, n), matrices.dtype))
        return jax.lax.scan(step, frame, indices)[1][burn_in:].mean(0)

    means = jax.vmap(chain)(jax.random.split(key, num_chains))
    return LyapunovExponents(means.mean(0), means.std(0, ddof=1) / math.sqrt(num_chains))


def lyapunov_exponents(
    matrices: ArrayLike,
    probabilities: ArrayLike | None = None,
    *,
    key: Key,
    num_steps: int = 2000,
    num_chains: int = 64,
) -> LyapunovExponents:
    """Estimate the Lyapunov exponents of a product of independent matrices by the QR method.

    An orthonormal frame is multiplied by the matrices and orthonormalised after every step; the
    exponents are the averages of the logarithms of the diagonal of R. Spurious subspaces that
    rotate between environments (cores that do not commute) die iff the largest exponent of their
    `linearised` factors is negative. Unbatched; use `vmap` over matrices or keys.

    Accuracy: the standard error, which is that of a mean over independent chains; the burn-in
    leaves a bias of the order exp(-(gap between exponents) num_steps / 10).

    Args:
        matrices: [E, n, n]; a singular one gives -inf.
        probabilities: [E], sum to one; None for equal ones.
        key: random key.
        num_steps: steps averaged in each chain, after a burn-in of a tenth as many.
        num_chains: independent chains, at least 2.

    Returns:
        The exponents [n] and their standard errors [n].

    >>> factors = linearised(0.1, jnp.array([[[5.0, 1.0], [1.0, 2.0]], [[-3.0, 1.0], [1.0, -2.5]]]))
    >>> lyapunov_exponents(factors, key=jax.random.key(0), num_steps=200).exponents.shape
    (2,)
    """
    check(matrices=matrices)
    (array,) = broadcast(matrices)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise ValueError(f"matrices must have the shape [E, n, n], got {array.shape}")
    checks.key("key", key)
    num_steps = checks.integer("num_steps", num_steps)
    num_chains = checks.integer("num_chains", num_chains, minimum=2)
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, len(array))
        probabilities = jnp.asarray(probabilities, array.dtype)
    return _random_product(array, probabilities, key, num_steps=num_steps, num_chains=num_chains)

"""The nonlinear structural model by which EILLS was demonstrated."""

from __future__ import annotations

import jax.numpy as jnp

from causal_sgd import checks, random
from causal_sgd.supervised.worlds._placement import Numbers, weights_of
from causal_sgd.supervised.worlds._sampled import SampledWorld
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key, PyTree

__all__ = ["eills_demo"]

DIM = 12
TARGET = (3.0, 2.0, -0.5)


def eills_demo(*, probabilities: Numbers | None = None) -> WorldFactory:
    """Twelve inputs of a nonlinear structural model in two environments (Fan et al. 2023).

    With u_0, ..., u_12 ~ N(0, 1): x4 = u4 in the first environment and u4^2 - 1 in the second;
    x1 = u1, x2 = sin x4 + u2, x3 = cos x4 + u3, x5 = sin(x3 + u5), x10 = 2.5 x1 + 1.5 x2 + u10,
    y = 3 x1 + 2 x2 - x3 / 2 + u0, x6 = 0.8 y u6, x7 = x3 / 2 + y + u7 in the first and
    4 x3 + tanh y + u7 in the second, x8 = x7 / 2 - y + x10 + u8,
    x9 = tanh x7 + 0.1 cos x8 + u9, x11 = 0.4 (x7 + x8) u11 and x12 = u12. So w* has the support
    {1, 2, 3}; x7, x8 and x9 are correlated with the noise of y.

    Args:
        probabilities: [2], how often each environment is drawn; None for equally often.

    Returns:
        A world factory; its world does not depend on the key, and only samples of it are known.

    Raises:
        ValueError: if the probabilities are none.
    """
    if probabilities is not None:
        checks.probabilities("probabilities", probabilities, 2)

    def world(key: Key) -> SampledWorld:
        del key
        target = jnp.zeros(DIM).at[:3].set(jnp.array(TARGET))
        return SampledWorld(
            sample=_sample,
            coefficients=(),
            probabilities=weights_of(probabilities, 2),
            target=target,
            causal=jnp.arange(DIM) < 3,
            accepted=jnp.ones((), bool),
        )

    return world


def _sample(key: Key, coefficients: PyTree, environment: Array, size: int) -> tuple[Array, Array]:
    del coefficients
    first = environment == 0
    u = random.normals(key, (DIM + 1, size), jnp.result_type(float))
    x4 = jnp.where(first, u[4], u[4] ** 2 - 1)
    x1 = u[1]
    x2 = jnp.sin(x4) + u[2]
    x3 = jnp.cos(x4) + u[3]
    x5 = jnp.sin(x3 + u[5])
    x10 = 2.5 * x1 + 1.5 * x2 + u[10]
    y = TARGET[0] * x1 + TARGET[1] * x2 + TARGET[2] * x3 + u[0]
    x6 = 0.8 * y * u[6]
    x7 = jnp.where(first, 0.5 * x3 + y, 4 * x3 + jnp.tanh(y)) + u[7]
    x8 = 0.5 * x7 - y + x10 + u[8]
    x9 = jnp.tanh(x7) + 0.1 * jnp.cos(x8) + u[9]
    x11 = 0.4 * (x7 + x8) * u[11]
    return jnp.stack([x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, u[12]], 1), y

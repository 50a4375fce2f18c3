"""The linear regime of other methods than plain SGD: what multiplies a small spurious direction in a step or a round.

Near zero an environment's gradient is -s_e u. A method with a memory (momentum, control variates) multiplies the vector of u
and of what it remembers by a matrix, and the direction dies iff the `top_exponent` of the matrices' random product is
negative. Exponents here are per step, for a federated method per round.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import check, common
from causal_sgd.types import Array

__all__ = ["federated_factors", "lyapunov_federated", "momentum_factors", "scaffold_factors"]


def momentum_factors(
    learning_rate: ArrayLike, momentum: ArrayLike, eigenvalues: ArrayLike, *, nesterov: bool = False
) -> Array:
    """The matrices [..., E, 2, 2] that momentum applies to (u, eta times the velocity).

    With w the velocity times eta: w <- beta w - eta s u and u <- u - w (the new w), or u <- u + eta s u - beta w by
    Nesterov, as optax writes it. For small steps the exponent is that of SGD with the learning rate eta / (1 - beta).

    Args:
        learning_rate: eta [...].
        momentum: beta [...], in [0, 1).
        eigenvalues: s_e [..., E].
        nesterov: which of the two.
    """
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    checks.number("momentum", momentum, minimum=0, maximum=1, scalar=False)
    eta, beta, values = common(
        jnp.asarray(learning_rate)[..., None], jnp.asarray(momentum)[..., None], eigenvalues
    )
    push = eta * values
    if nesterov:
        rows = [[1 + (1 + beta) * push, -(beta**2)], [-push, beta]]
    else:
        rows = [[1 + push, -beta], [-push, beta]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def federated_factors(
    learning_rate: ArrayLike,
    eigenvalues: ArrayLike,
    local_steps: ArrayLike,
    proximal: ArrayLike = 0.0,
) -> Array:
    """What K local steps in environment e multiply u by, [...]: (1 + eta s_e)^K without a proximal term.

    With strength rho a local step is y <- a y + eta rho u, a = 1 + eta (s_e - rho), which after K of them gives
    a^K + eta rho (1 + a + ... + a^(K-1)).

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [...].
        local_steps: K [...], whole numbers.
        proximal: rho [...].
    """
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    checks.number("local_steps", local_steps, minimum=1, scalar=False)
    checks.number("proximal", proximal, minimum=0, scalar=False)
    eta, values, steps, rho = common(learning_rate, eigenvalues, local_steps, proximal)

    def step(index: Array, y: Array) -> Array:
        return jnp.where(index < steps, y + eta * (values * y - rho * (y - 1)), y)

    return jax.lax.fori_loop(0, jnp.max(steps).astype(int), step, jnp.ones_like(values))


def lyapunov_federated(
    factors: ArrayLike, participants: int | None = 1, probabilities: ArrayLike | None = None
) -> Array:
    """Lyapunov exponent [...] per round where the ends of the environments that take part are averaged.

    With one participant it is E log|f_e|, HeteroSGD's; with all of them log|E f_e|. As f_e = (1 + eta s_e)^K is convex in s
    for even K (and for factors above zero), E f_e >= (1 + eta mu)^K: averaging everybody makes the spurious direction grow
    at least as fast as pooled training does, the faster the more heterogeneous the environments are.

    Args:
        factors: f_e [..., E], such as `federated_factors`.
        participants: k environments drawn independently with the probabilities, static; None for all, by their probabilities.
        probabilities: [E], sum to one; None for equal ones.
    """
    check(factors=factors)
    shape = jnp.shape(factors)
    if not shape or shape[-1] == 0:
        raise ValueError(
            f"factors must have a last axis of environments, [..., E], got shape {shape}"
        )
    size = shape[-1]
    weights = np.full(size, 1 / size)
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    values, weights = common(factors, weights)
    if participants is None:
        return jnp.log(jnp.abs(jnp.sum(weights * values, -1)))
    drawn = list(
        itertools.combinations_with_replacement(
            range(size), checks.integer("participants", participants)
        )
    )
    total = jnp.zeros(shape[:-1], values.dtype)
    for group in drawn:
        ways = math.factorial(participants) // math.prod(
            math.factorial(group.count(e)) for e in range(size)
        )
        chance = ways * math.prod(
            (weights[..., e] for e in group), start=jnp.ones((), values.dtype)
        )
        mean = (
            sum((values[..., e] for e in group), start=jnp.zeros((), values.dtype)) / participants
        )
        total = total + jnp.where(chance > 0, chance * jnp.log(jnp.abs(mean)), 0)
    return total


def scaffold_factors(
    learning_rate: ArrayLike,
    eigenvalues: ArrayLike,
    local_steps: int = 1,
    *,
    everyone: bool = False,
    probabilities: ArrayLike | None = None,
) -> Array:
    """The matrices of a round of SCAFFOLD on (u, eta c_1, ..., eta c_E): [E, 1 + E, 1 + E], one for each participant.

    In environment e, y <- a y + b with a = 1 + eta s_e, b = eta (c_e - c) and c the mean of all c_e; after K steps eta c_e
    becomes (u - y) / K + b.

    Args:
        learning_rate: eta [].
        eigenvalues: s_e [E].
        local_steps: K, static.
        everyone: all take part in every round, and one matrix [1, 1 + E, 1 + E] is all there is.
        probabilities: [E] of the means; None for equal ones.
    """
    checks.number("learning_rate", learning_rate, above=0)
    check(eigenvalues=eigenvalues)
    shape = jnp.shape(eigenvalues)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"eigenvalues must have shape [E], got shape {shape}")
    size, steps = shape[0], checks.integer("local_steps", local_steps)
    weights = np.full(size, 1 / size)
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    eta, values, weights = common(learning_rate, eigenvalues, weights)
    state = jnp.eye(1 + size, dtype=values.dtype)
    ends, controls = [], []
    for e in range(size):
        pull = state[1 + e] - jnp.concatenate(
            [jnp.zeros(1, values.dtype), weights]
        )  # b, as a row on the vector
        end = state[0]
        for _ in range(steps):
            end = (1 + eta[e] * values[e]) * end + pull
        ends.append(end)
        controls.append((state[0] - end) / steps + pull)
    if everyone:
        mean = jnp.sum(weights[:, None] * jnp.stack(ends), 0)
        return jnp.stack([mean, *controls])[None]
    return jnp.stack([state.at[0].set(ends[e]).at[1 + e].set(controls[e]) for e in range(size)])

"""The linear regime of momentum and federated methods: the factors of a small spurious direction.

Near zero the gradient of an environment is -s_e u. A method with memory (momentum, control
variates) multiplies the vector of u and its state by a matrix, and the direction dies iff the
`top_exponent` of the random product of these matrices is negative. Exponents are per step, for
federated methods per round.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check, count_environments
from causal_sgd.types import Array

__all__ = ["federated_factors", "lyapunov_federated", "momentum_factors", "scaffold_factors"]


def momentum_factors(
    learning_rate: ArrayLike, momentum: ArrayLike, eigenvalues: ArrayLike, *, nesterov: bool = False
) -> Array:
    """The matrices [..., E, 2, 2] that momentum applies to (u, eta times the velocity).

    With w the velocity times eta, w <- beta w - eta s u, then u <- u - w with the new w, or with
    Nesterov's momentum u <- u + eta s u - beta w (the form of optax). For small steps the exponent
    is that of SGD with learning rate eta / (1 - beta).

    Accuracy: a few roundings of the largest entry.

    Args:
        learning_rate: eta [...].
        momentum: beta [...], in [0, 1].
        eigenvalues: s_e [..., E].
        nesterov: whether to use Nesterov's momentum.
    """
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    checks.number("momentum", momentum, minimum=0, maximum=1, scalar=False)
    eta, beta, values = broadcast(
        jnp.asarray(learning_rate)[..., None], jnp.asarray(momentum)[..., None], eigenvalues
    )
    push = eta * values
    checks.flags(nesterov=nesterov)
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
    """The factor [...] by which K local steps in environment e multiply u.

    It is (1 + eta s_e)^K without a proximal term. With a term of strength rho a local step is
    y <- a y + eta rho u, a = 1 + eta (s_e - rho), and the factor
    a^K + eta rho (1 + a + ... + a^(K-1)).

    Accuracy: 4e-7 K times (1 + eta |s_e| + eta rho)^K in single precision.

    Args:
        learning_rate: eta [...].
        eigenvalues: s_e [...].
        local_steps: K [...], whole numbers.
        proximal: rho [...].
    """
    check(learning_rate=learning_rate, eigenvalues=eigenvalues)
    checks.number("local_steps", local_steps, minimum=1, scalar=False)
    checks.number("proximal", proximal, minimum=0, scalar=False)
    eta, values, steps, rho = broadcast(learning_rate, eigenvalues, local_steps, proximal)

    def step(index: Array, y: Array) -> Array:
        return jnp.where(index < steps, y + eta * (values * y - rho * (y - 1)), y)

    return jax.lax.fori_loop(0, jnp.max(steps).astype(int), step, jnp.ones_like(values))


def lyapunov_federated(
    factors: ArrayLike, participants: int | None = 1, probabilities: ArrayLike | None = None
) -> Array:
    """Lyapunov exponent [...] per round of federated averaging over the participating environments.

    With one participant it is E log|f_e|, as for HeteroSGD; with full participation log|E f_e|. As
    f_e = (1 + eta s_e)^K is convex in s for even K (and wherever factors are positive),
    E f_e >= (1 + eta mu)^K: with full participation the spurious direction grows at least as fast
    as in pooled training, and faster for more heterogeneous environments.

    Accuracy: 1e-5 in single precision where no mean factor is near 0.

    Args:
        factors: f_e [..., E], such as `federated_factors`.
        participants: number k of environments drawn independently from the probabilities, static;
            None for all environments, weighted by their probabilities.
        probabilities: [E], sum to one; None for equal ones.
    """
    check(factors=factors)
    size = count_environments("factors", factors)
    weights = np.full(size, 1 / size)
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    values, weights = broadcast(factors, weights)
    if participants is None:
        return jnp.log(jnp.abs(jnp.sum(weights * values, -1)))
    count = checks.integer("participants", participants)
    zero, one = jnp.zeros((), values.dtype), jnp.ones((), values.dtype)
    exponent = jnp.zeros(values.shape[:-1], values.dtype)
    # The mean does not depend on the order of the participants: each multiset is evaluated once.
    for group in itertools.combinations_with_replacement(range(size), count):
        repeats = math.prod(map(math.factorial, Counter(group).values()))
        orders = math.factorial(count) // repeats
        probability = orders * math.prod((weights[..., e] for e in group), start=one)
        mean = sum((values[..., e] for e in group), start=zero) / count
        # Environments of probability zero may have a factor of zero, whose logarithm is -inf.
        term = jnp.where(probability > 0, probability * jnp.log(jnp.abs(mean)), 0)
        exponent = exponent + term
    return exponent


def scaffold_factors(
    learning_rate: ArrayLike,
    eigenvalues: ArrayLike,
    local_steps: int = 1,
    *,
    everyone: bool = False,
    probabilities: ArrayLike | None = None,
) -> Array:
    """The matrices [E, 1 + E, 1 + E] of a SCAFFOLD round on (u, eta c_1, ..., eta c_E).

    There is one per participant. In environment e a local step is y <- a y + b with
    a = 1 + eta s_e, b = eta (c_e - c) and c the mean of all c_e. After K steps eta c_e becomes
    (u - y) / K + b.

    Accuracy: relative 1e-5 in single precision for K up to 10.

    Args:
        learning_rate: eta [].
        eigenvalues: s_e [E].
        local_steps: K, static.
        everyone: whether all environments take part in every round; the result is one matrix
            [1, 1 + E, 1 + E].
        probabilities: [E], weights of the means; None for equal ones.
    """
    checks.number("learning_rate", learning_rate, above=0)
    checks.flags(everyone=everyone)
    check(eigenvalues=eigenvalues)
    shape = np.shape(eigenvalues)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"eigenvalues must have shape [E], got shape {shape}")
    size, steps = shape[0], checks.integer("local_steps", local_steps)
    weights = np.full(size, 1 / size)
    if probabilities is not None:
        weights = checks.probabilities("probabilities", probabilities, size)
    eta, values, weights = broadcast(learning_rate, eigenvalues, weights)
    # Quantities that are linear in the state are represented by their row of coefficients.
    identity = jnp.eye(1 + size, dtype=values.dtype)
    mean_control = jnp.concatenate([jnp.zeros(1, values.dtype), weights])
    ends, controls = [], []
    for e in range(size):
        correction = identity[1 + e] - mean_control
        end = identity[0]
        for _ in range(steps):
            end = (1 + eta[e] * values[e]) * end + correction
        ends.append(end)
        controls.append((identity[0] - end) / steps + correction)
    if everyone:
        mean = jnp.sum(weights[:, None] * jnp.stack(ends), 0)
        return jnp.stack([mean, *controls])[None]
    return jnp.stack([identity.at[0].set(ends[e]).at[1 + e].set(controls[e]) for e in range(size)])

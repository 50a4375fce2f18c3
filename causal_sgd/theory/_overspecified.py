"""Over-specified rank: how spare columns forget, with U U', with U V', and under heterogeneity.

With more columns k than the rank r of the signal, k - r directions of the estimate have a target of
zero. In population training such a direction of U U' follows u <- (1 - eta u^2) u, so that 1/u^2
grows by 2 eta a step: a power law (Zhuo et al. 2021; Xiong, Ding and Du, ICLR 2024, prove an
Omega(1/T^2) bound of the loss and an exponential rate for U V'; constants here are derived, not
quoted). A direction of U V' has two parameters f and g, and

    f <- f - (eta/2) r g,  g <- g - (eta/2) r f,  r = f g - s.

The product p = f g decays exponentially where f^2 differs from g^2. This imbalance D = f^2 - g^2 is
multiplied by 1 - (eta r/2)^2 exactly, so that gradient flow keeps it and persistent residuals,
those of disagreeing environments, destroy it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, check, checked_jit
from causal_sgd.theory._exponents import log_abs
from causal_sgd.types import Array

__all__ = [
    "balancing_spread",
    "overspecified_error",
    "overspecified_rate",
    "unbalanced_error",
    "unbalanced_floor",
]

POINTS = 129  # of a trapezoidal rule whose integrand vanishes at the end with all derivatives
ITERATIONS = 4  # each gains a factor of eta S


@checked_jit
def overspecified_error(
    num_steps: ArrayLike,
    *,
    learning_rate: ArrayLike,
    rank: ArrayLike,
    invariant_rank: ArrayLike,
    init_scale: ArrayLike,
) -> Array:
    """The distance |U U' - A*|_F that k - r spare columns leave after t steps of pooled training.

    The map u <- (1 - eta u^2) u gives 1/u_{t+1}^2 = 1/u_t^2 + 2 eta + 3 eta^2 u_t^2 + ..., and
    with it

        |U U' - A*| = sqrt(k - r) / (1/alpha^2 + 2 eta t + (3 eta/2) log(1 + 2 eta alpha^2 t)).

    The error of the learned directions, which decays exponentially, is left out. Whatever the
    start, error times 2 eta t / sqrt(k - r) tends to one: the loss is (k - r) / (16 eta^2 t^2).

    Accuracy: relative 0.007 for eta alpha^2 up to 0.1 and all t, for U = alpha I.

    Args:
        num_steps: t [...], above 0.
        learning_rate: eta [...] of `models.factored`.
        rank: k [...], the number of columns, at most d; for d > k every start has other levels, and
            the result holds for 2 eta alpha^2 t >> 1.
        invariant_rank: r [...], the rank of the signal.
        init_scale: alpha [...] of the spare directions at the start, above 0.

    Returns:
        The distance [...], in units of the signal; 0 where k <= r.

    >>> settings = {"learning_rate": 0.1, "rank": 7, "invariant_rank": 2, "init_scale": 0.5}
    >>> print(f"{overspecified_error(1000, **settings):.4f}")
    0.0109
    """
    t, eta, k, r, alpha = broadcast(num_steps, learning_rate, rank, invariant_rank, init_scale)
    growth = 2 * eta * t
    inverse = 1 / alpha**2 + growth + 1.5 * eta * jnp.log1p(growth * alpha**2)
    return jnp.sqrt(jnp.maximum(k - r, 0)) / inverse


@checked_jit
def unbalanced_error(
    num_steps: ArrayLike, *, learning_rate: ArrayLike, product: ArrayLike, imbalance: ArrayLike
) -> Array:
    """The product p = f g of a spare direction of U V' after t steps of pooled training.

    With S = f^2 + g^2 = sqrt(D^2 + 4 p^2), gradient flow is dp/dt = -(eta/2) p S and keeps D. It is
    solved by

        p = |D| / (2 sinh(c + eta |D| t / 2)),   sinh c = |D| / (2 p_0),

    which is the power law 1/(1/p_0 + eta t) up to t of about 2/(eta |D|) and exponential
    beyond. Finite steps advance this time by log(p_0/p)/2 + log(S_0/S)/4 and reduce |D| by the
    factor exp(-(eta |D|/8) (coth c - coth(c + eta |D| t/2))), to second order in eta.

    Accuracy: relative 0.02 for eta S_0 up to 0.2 and products down to 1e-4 of p_0.

    Args:
        num_steps: t [...], above 0.
        learning_rate: eta [...] of `models.asymmetric`.
        product: p_0 [...], above 0.
        imbalance: |D| [...] = |f^2 - g^2| at the start, not negative.

    Returns:
        The product [...], in units of the signal.

    >>> start = {"learning_rate": 0.2, "product": 0.5, "imbalance": 0.5}
    >>> print(f"{unbalanced_error(200, **start):.1e}")
    1.2e-05
    """
    steps, eta, start, imbalance = broadcast(num_steps, learning_rate, product, imbalance)
    total = jnp.hypot(imbalance, 2 * start)

    def flow(time: Array, imbalance: Array) -> tuple[Array, Array]:
        """The product, and |D| (coth c - coth(c + eta |D| t/2))."""
        # sinh and coth divided by |D|, whose limits at D = 0 are finite.
        turn = jnp.maximum(eta * imbalance / 2, 1e-6 * eta * start)
        level = 2 * turn / eta
        whole = jnp.arcsinh(level / (2 * start)) + turn * time
        safe = jnp.minimum(whole, 80.0)
        product = level * jnp.exp(-whole) / -jnp.expm1(-2 * whole)
        fallen = jnp.hypot(level, 2 * start) - level / jnp.tanh(safe)
        return product, fallen

    def correct(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        product, reduced = state
        late = jnp.hypot(reduced, 2 * product)
        advance = jnp.log(start / product) / 2 + jnp.log(total / late) / 4
        product, fallen = flow(steps + advance, reduced)
        return product, imbalance * jnp.exp(-eta / 8 * fallen)

    first = flow(steps, imbalance)[0], imbalance
    return jax.lax.fori_loop(0, ITERATIONS, correct, first)[0]


@checked_jit
def _overspecified_rate(spare: Array, learning_rate: Array) -> Array:
    spare, eta = broadcast(spare, learning_rate[..., None])
    return -log_abs(-eta[..., 0] / 2 * jnp.min(spare**2, -1))


def overspecified_rate(spare: ArrayLike, *, learning_rate: ArrayLike) -> Array:
    """The rate at which U V' converges with spare columns, from the values that survive.

    Near a minimiser the residual of a spare direction, in which only one of the factors survives,
    is multiplied by 1 - eta f^2/2. The least of the surviving singular values decides.

    Accuracy: relative 2e-6 of the rate.

    Args:
        spare: the k - r largest [..., k - r] among the singular values of both factors that belong
            to spare directions, at the end of training; each factor has its share of them.
        learning_rate: eta [...] of `models.asymmetric`.

    Returns:
        -log|1 - eta min f^2 / 2| [...], the decay of log |U V' - A*| per step.

    Raises:
        ValueError: if `spare` has no last axis of values, or a number is out of range.

    >>> print(f"{overspecified_rate([0.5, 0.6], learning_rate=0.1):.5f}")
    0.01258
    """
    check(spare=spare, learning_rate=learning_rate)
    if not jnp.ndim(jnp.asarray(spare)) or not jnp.shape(jnp.asarray(spare))[-1]:
        raise ValueError(
            f"spare must have a last axis of singular values, [..., k - r], got shape "
            f"{jnp.shape(jnp.asarray(spare))}"
        )
    return _overspecified_rate(jnp.asarray(spare), jnp.asarray(learning_rate))


@checked_jit
def unbalanced_floor(learning_rate: ArrayLike, spread: ArrayLike, imbalance: ArrayLike) -> Array:
    """The root mean square of p = f g under HeteroSGD, for mean zero and a given imbalance.

    With p = (|D|/2) sinh 2x the rapidity x follows dx = -(eta |D|/4) sinh 2x dt + (eta M/2) dB.
    Its stationary density is ~ exp(-kappa cosh 2x) with kappa = |D| / (eta M^2), so

        E p^2 = (eta M^2 |D| / 4) K_1(kappa) / K_0(kappa).

    Heterogeneity therefore keeps the product from converging while |D| lasts, which is a time of
    order 4/(eta M)^2 (`stability.balance_exponent`). The floor holds while that is slow against
    the rate eta |D|/2, for kappa above one.

    Accuracy: relative 0.03 for kappa >= 4 and eta M, eta |D| up to 0.1.

    Args:
        learning_rate: eta [...] of `models.asymmetric`.
        spread: M [...], the standard deviation of the eigenvalue.
        imbalance: |D| [...], not negative.

    Returns:
        sqrt(E p^2) [...], in units of the signal; 0 where M or D is 0.

    >>> print(f"{unbalanced_floor(0.2, 0.5, 0.5):.4f}")
    0.0810
    """
    eta, spread, imbalance = broadcast(learning_rate, spread, imbalance)
    noise = eta * spread**2
    exists = (noise > 0) & (imbalance > 0)
    kappa = jnp.where(exists, imbalance, 1) / jnp.where(exists, noise, 1)
    kappa = jnp.clip(kappa, 1e-8, 1e8)[..., None]
    # cosh y = 1 + 2 sinh(y/2)^2, without cancellation for large kappa.
    end = 2 * jnp.arcsinh(jnp.sqrt(40 / kappa) / 2**0.5)
    unit = jnp.linspace(0, 1, POINTS, dtype=kappa.dtype).reshape((1,) * (kappa.ndim - 1) + (-1,))
    y = end * unit
    weights = jnp.exp(-2 * kappa * jnp.sinh(y / 2) ** 2) * jnp.where(unit == 0, 0.5, 1)
    square = jnp.sum(weights * jnp.sinh(y) ** 2, -1) / jnp.sum(weights, -1)
    return jnp.where(exists, imbalance / 2 * jnp.sqrt(square), 0)


@checked_jit
def balancing_spread(learning_rate: ArrayLike, imbalance: ArrayLike) -> Array:
    """The M [...] below which heterogeneity slows a spare direction of U V' of mean zero.

    Pooled training decays at the rate eta |D|/2. HeteroSGD destroys the imbalance, after which f
    and g decay alike and the product typically at the rate -log|1 - (eta M/2)^2|. To leading order
    both are equal at M = sqrt(2 |D|/eta).

    Accuracy: the definition. Finite runs cross at a larger M, as fluctuations of order eta M
    sqrt(t)/2 add to log p; see the study `over-specified-rank`.

    Args:
        learning_rate: eta [...] of `models.asymmetric`.
        imbalance: |D| [...] at the start of HeteroSGD, not negative.

    >>> print(f"{balancing_spread(0.2, 0.5):.3f}")
    2.236
    """
    eta, imbalance = broadcast(learning_rate, imbalance)
    return jnp.sqrt(2 * imbalance / eta)

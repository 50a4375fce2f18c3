"""What the noise of the batches decides for d -> infinity: boundaries in m/d, M_c, the best error.

They follow from the equations of `noise_level`; all hold where the spurious signal is rejected.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import lyapunov_two_point
from causal_sgd.theory._noise import above, branches, columns_outside
from causal_sgd.types import Array

__all__ = [
    "annealing_window",
    "batch_critical_spread",
    "best_error",
    "divergence_batch_ratio",
    "retention_batch_ratio",
]


@checked_jit
def batch_critical_spread(
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    batch_ratio: ArrayLike,
    rank: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
    dim: ArrayLike | None = None,
) -> Array:
    """The critical heterogeneity M_c of two eigenvalues mu +- M with the noise of the batches.

    The noise keeps the spare columns at b_s, which damps a small spurious direction:
    E log|1 + eta (s - b_s)| = 0 at M^2 = 2 (mu - b_s)/eta + (mu - b_s)^2, with b_s of `noise_level`
    at this M, again a quadratic equation. For small eta,
    M_c^2 = (2 mu/eta - (r2 mu^2 + sigma_y^2)/(2 rho))/(1 + r2/(2 rho)).

    Accuracy: 1e-4 in single precision as the root of these equations; 1 % against the limit for
    eta = 0.1 and rho above 0.7. At finite d the means of |V'U|^2 approach it like 1/log d only.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        batch_ratio: rho = m/d [...].
        rank: k [...], columns of U, at least r1.
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero, below 2/eta.
        label_noise: sigma_y [...].
        dim: d [...], for the bulk of many spare columns; None for d -> infinity at fixed k. With
            n/4 spare columns or more, nothing damps the direction.

    Returns:
        M_c [...]: 0 where the noise rejects the mean without heterogeneity; NaN where runs diverge
        at a smaller spread.

    >>> numbers = {"rank": 4, "invariant_rank": 2, "spurious_rank": 1}
    >>> critical = batch_critical_spread(
    ...     learning_rate=0.1, mean=1.0, batch_ratio=jnp.array([1.0, 5.0, 1e4]), **numbers
    ... )
    >>> [f"{value:.3f}" for value in critical]
    ['3.535', '4.333', '4.582']
    """
    numbers = (learning_rate, mean, batch_ratio, rank, invariant_rank, spurious_rank)
    eta, mu, rho, k, r1, r2, sigma, noise, *dims = broadcast(
        *numbers, invariant_eigenvalue, label_noise, *([] if dim is None else [dim])
    )
    outside = dims[0] - r1 - r2 if dims else None
    kept, lost = branches(eta, rho, k, r1, sigma, r2 * mu**2 + noise**2, outside)
    learned = kept.critical_root(eta, mu, r2)
    alive = learned <= sigma
    spare = jnp.where(alive, learned, above(lost.critical_root(eta, mu, r2), sigma))
    left = mu - jnp.where(alive, kept.columns.damping, lost.columns.damping) * spare
    at_zero = kept.root(eta)
    learned = at_zero <= sigma
    at_zero = jnp.where(learned, at_zero, above(lost.root(eta), sigma))
    damping = jnp.where(learned, kept.columns.damping, lost.columns.damping)
    found = jnp.where(left > 0, jnp.sqrt(jnp.maximum(left, 0) * (2 / eta + left)), jnp.nan)
    return jnp.where(mu - damping * at_zero <= 0, 0, found)


@checked_jit
def retention_batch_ratio(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    rank: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The ratio m/d below which the noise of the batches drives A* out of U, too.

    At b = b_s = sigma* the noise equation gives
    rho = eta ((r2 (mu^2 + M^2) + sigma_y^2)/sigma* + (k + r1) sigma*)/(2 (2 - eta sigma*)). Where
    this lies on the unstable branch of the equation (many spare columns), A* is kept down to
    `divergence_batch_ratio`, which is then the result.

    Accuracy: relative 1e-5 in single precision; 5 % against the limit for M = 3 and 6, eta = 0.1.

    Args:
        spread: M [...], standard deviation of the spurious eigenvalues.
        learning_rate: eta [...].
        mean: mu [...], their mean.
        rank: k [...], columns of U, at least r1.
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero, below 2/eta.
        label_noise: sigma_y [...].

    Returns:
        rho [...].

    >>> numbers = {"learning_rate": 0.1, "mean": 1.0, "rank": 4}
    >>> numbers |= {"invariant_rank": 2, "spurious_rank": 1}
    >>> [f"{retention_batch_ratio(spread, **numbers):.3f}" for spread in (3.0, 6.0)]
    ['0.421', '1.132']
    """
    spread, eta, mu, k, r1, r2, sigma, noise = broadcast(
        spread,
        learning_rate,
        mean,
        rank,
        invariant_rank,
        spurious_rank,
        invariant_eigenvalue,
        label_noise,
    )
    residual = r2 * (mu**2 + spread**2) + noise**2
    kept, _ = branches(eta, jnp.zeros_like(eta), k, r1, sigma, residual, None)
    lost = eta * (residual / sigma + (k + r1) * sigma) / (2 * (2 - eta * sigma))
    return jnp.where(kept.least_root(eta) <= sigma, kept.least_ratio(eta) - kept.ratio, lost)


@checked_jit
def divergence_batch_ratio(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    rank: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
    dim: ArrayLike | None = None,
) -> Array:
    """The ratio m/d below which the noise of the batches sustains itself and runs diverge.

    The two solutions of the noise equation merge (a saddle-node). With h = eta^2 N this is at
    rho = (h + sqrt(h^2 + 4 q h))/4 + r1 eta sigma*/(2 - eta sigma*) while A* is learned, and with
    h = eta^2 (N + r1 sigma*^2) and k for q at the first term alone where A* is lost before. With
    all columns, k = d, the number q (1 - 2q/n) = n/8 gives m ~ eta sqrt(N/32) d^(3/2).

    Accuracy: relative 1e-5 in single precision. Limit and runs diverge up to 10 % above for
    eta = 0.1, because nu varies with the environments; with k = d 5 % below to 10 % above for
    eta = 0.03, once the bulk has grown, after log(1/alpha^2)/(eta^2 nu) steps.

    Args:
        spread: M [...], standard deviation of the spurious eigenvalues.
        learning_rate: eta [...].
        mean: mu [...], their mean.
        rank: k [...], columns of U, at least r1.
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero, below 2/eta.
        label_noise: sigma_y [...].
        dim: d [...], for the bulk of many spare columns; None for d -> infinity at fixed k.

    Returns:
        rho [...].

    >>> numbers = {"learning_rate": 0.1, "mean": 1.0, "invariant_rank": 2, "spurious_rank": 1}
    >>> [f"{divergence_batch_ratio(spread, rank=4, **numbers):.3f}" for spread in (3.0, 6.0)]
    ['0.378', '0.730']
    """
    numbers = (learning_rate, mean, rank, invariant_rank, spurious_rank)
    spread, eta, mu, k, r1, r2, sigma, noise, *dims = broadcast(
        spread, *numbers, invariant_eigenvalue, label_noise, *([] if dim is None else [dim])
    )
    outside = dims[0] - r1 - r2 if dims else None
    residual = r2 * (mu**2 + spread**2) + noise**2
    kept, lost = branches(eta, jnp.zeros_like(eta), k, r1, sigma, residual, outside)
    # The branches meet at b_s = sigma* with a kink, where the minimum of rho may lie.
    count = kept.columns.active
    kink = (eta * (residual / sigma + count * sigma) / (2 - eta * sigma)) / 2 - kept.ratio
    last = jnp.where(lost.least_root(eta) >= sigma, lost.least_ratio(eta), kink)
    return jnp.where(kept.least_root(eta) <= sigma, kept.least_ratio(eta) - kept.ratio, last)


@checked_jit
def best_error(
    *,
    mean: ArrayLike,
    batch_ratio: ArrayLike,
    rank: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    dim: ArrayLike | None = None,
) -> Array:
    """The error |UU' - A*|_F at the critical heterogeneity, for small steps.

    Rejection needs eta M^2 = 2 (mu - b_s), so the noise b_s = eta nu/2 = r2 mu/(2 rho + r2) does
    not depend on the step size or the heterogeneity: with the environments given, only the batch
    buys accuracy. The error is (2 r1 sigma* b_s + q b_s^2)^(1/2). It is below that of M = 0,
    mu sqrt(r2), for m above about r1 d sigma*/mu.

    Accuracy: first order in eta, as the error of `noise_level` at `batch_critical_spread`: 5 % for
    eta = 0.01. Close to the transition the remnants of the spurious signal add 8 to 17 % at
    eta = 0.02 to 0.1.

    Args:
        mean: mu [...], above zero.
        batch_ratio: rho = m/d [...].
        rank: k [...], columns of U, at least r1.
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero.
        dim: d [...], for the bulk of many spare columns; None for d -> infinity at fixed k.

    Returns:
        Frobenius error [...]; NaN where m/d is at most r2 (mu/sigma* - 1)/2 and noise that rejects
        the spurious signal drives out A*, too.

    >>> ratios = jnp.array([10.0, 40.0])
    >>> errors = best_error(
    ...     mean=1.0, batch_ratio=ratios, rank=4, invariant_rank=2, spurious_rank=1
    ... )
    >>> [f"{value:.3f}" for value in errors]
    ['0.442', '0.223']
    """
    mu, rho, k, r1, r2, sigma, *dims = broadcast(
        mean,
        batch_ratio,
        rank,
        invariant_rank,
        spurious_rank,
        invariant_eigenvalue,
        *([] if dim is None else [dim]),
    )
    count, damping = columns_outside(k - r1, dims[0] - r1 - r2 if dims else None)
    spare = r2 * mu / (2 * rho + r2 * damping)
    error = jnp.sqrt(2 * r1 * sigma * spare + count * spare**2)
    return jnp.where(spare < sigma, error, jnp.nan)


@checked_jit
def annealing_window(
    signal: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    spread: ArrayLike,
    level: ArrayLike = 1.0,
) -> Array:
    """The steps at a smaller learning rate until a rejected spurious signal is back.

    After rejection a smaller step lowers the floor like its square root, but below the critical
    learning rate the remaining signal grows again, in the median from |V'U| to the level after
    log(level/|V'U|)/lambda steps, with the exponent lambda of `lyapunov_two_point`, about
    eta mu - (eta M)^2/2.

    Accuracy: that of `growth_time` for the median over environments, besides their fluctuation.

    Args:
        signal: |V'U| [...] at the change of the learning rate, above zero; about m^(-1/2).
        learning_rate: eta [...], the smaller one.
        mean: mu [...].
        spread: M [...].
        level: |V'U| [...] that counts as back, above zero.

    Returns:
        Number of steps [...], fractional; 0 where the signal is at the level, inf where it stays
        rejected.

    >>> rates = jnp.array([0.003, 0.01, 0.1])
    >>> window = annealing_window(0.01, learning_rate=rates, mean=1.0, spread=6.0)
    >>> [f"{value:.0f}" for value in window]
    ['1625', '563', 'inf']
    """
    start, eta, mu, spread, level = broadcast(signal, learning_rate, mean, spread, level)
    exponent = lyapunov_two_point(eta, mu, spread)
    steps = jnp.maximum(jnp.log(level) - jnp.log(start), 0)
    growing = exponent > 0
    return jnp.where(growing, steps / jnp.where(growing, exponent, 1), jnp.inf)

"""Growth times and the stationary state of HeteroSGD: remaining spurious signal and error."""

from __future__ import annotations

import math
from typing import NamedTuple, NotRequired, TypedDict, Unpack, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._boundaries import critical_spread
from causal_sgd.theory._exponents import (
    DEVIATION,
    RATIO_OF_LEAST_EXPONENT,
    log_variance_two_point,
    lyapunov,
)
from causal_sgd.types import Array

__all__ = [
    "BatchSettings",
    "SpuriousMoments",
    "complement_power",
    "error_floor",
    "expected_error",
    "finite_data_error",
    "growth_time",
    "optimal_spread",
    "stationary_spurious_moments",
]


@checked_jit
def growth_time(eigenvalue: ArrayLike, *, learning_rate: ArrayLike, init_scale: ArrayLike) -> Array:
    """The steps log(sqrt(s)/alpha)/log(1 + eta s) from alpha to the stationary level sqrt(s).

    Accuracy: at that time u^2 is at half its level, to within 2 % and one step for eta s up to
    0.04.

    Args:
        eigenvalue: s [...], eigenvalue of the signal in the direction, above zero.
        learning_rate: eta [...].
        init_scale: alpha [...], above zero.

    Returns:
        Number of steps [...], fractional; 0 where alpha is above the level.

    >>> print(f"{growth_time(1.0, learning_rate=0.1, init_scale=1e-3):.1f}")
    72.5
    """
    s, eta, alpha = broadcast(eigenvalue, learning_rate, init_scale)
    return jnp.maximum(jnp.log(s) / 2 - jnp.log(alpha), 0) / jnp.log1p(eta * s)


class SpuriousMoments(NamedTuple):
    """Stationary moments of a spurious direction u."""

    second: Array  # [...] <u^2>, in units of the signal
    fourth: Array  # [...] <u^4>, in units of the signal squared


@checked_jit
def stationary_spurious_moments(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> SpuriousMoments:
    """The stationary <u^2> and <u^4> of a spurious direction near the transition.

    <u^2> = lambda/eta and <u^4> = lambda (lambda + v)/eta^2. For small steps
    d log u = (lambda - eta u^2) dt + sqrt(v) dB: u^2 follows a logistic equation with
    multiplicative noise, whose stationary law is Gamma with shape lambda/v and scale v/eta. v is
    exact for two points, otherwise (eta sd/a)^2. The relative error is of order eta mu and largest
    near the transition. Moments of simulated two-point dynamics, divided by these formulas, at
    M/M_c = 0.5, 0.8 and 0.95 (standard error up to 0.03):

        eta mu    <u^2>               <u^4>
        0.005     1.00  0.99  0.98    1.00  0.99  0.97
        0.01      1.00  0.99  0.97    1.01  1.00  0.97
        0.05      0.99  0.94  0.89    1.04  1.01  0.97
        0.1       0.98  0.85  0.74    1.08  0.99  0.88

    Accuracy: relative 3 %, 12 % and 27 % for eta mu up to 0.01, 0.05 and 0.1 and M up to 0.95 M_c,
    as in the table.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...], below `divergence_bound`: the formulas ignore divergence.
        family: one of `families`.

    Returns:
        Moments [...]; 0 where lambda <= 0.
    """
    exponent = lyapunov(family, learning_rate, mean, spread)
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    if family == "two_point":
        variance = log_variance_two_point(eta, mu, spread)
    else:
        variance = (eta * spread * DEVIATION[family] / (1 + eta * mu)) ** 2
    alive = exponent > 0
    exponent, variance = jnp.where(alive, exponent, 0), jnp.where(alive, variance, 0)
    return SpuriousMoments(exponent / eta, exponent * (exponent + variance) / eta**2)


class BatchSettings(TypedDict):
    """The arguments of `error_floor` besides spread and learning rate, each [...]."""

    batch_size: ArrayLike  # m, examples in a batch
    dim: ArrayLike  # d
    invariant_rank: ArrayLike  # r1
    spurious_rank: ArrayLike  # r2
    invariant_eigenvalue: NotRequired[ArrayLike]  # sigma* of A*, above zero; 1 unless given
    label_noise: NotRequired[ArrayLike]  # sigma_y; 0 unless given


@checked_jit
def error_floor(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The error floor |UU' - A*|_F of HeteroSGD, sqrt((M^2 r2 + sigma_y^2) r1 d eta sigma*/(2m)).

    Neither the residual -A_e, of norm M sqrt(r2), nor the label noise vanishes: an entry of the
    batch gradient has the variance v = (M^2 r2 + sigma_y^2)/(2m). This noise drives the rows of U
    outside U*, which decay at the rate eta sigma*, to entries of variance eta v/2. UU' contains r1
    d of them twice, times sigma*. Here M^2 is E s^2: mu^2 + M^2 for eigenvalues of mean mu and
    standard deviation M. First order in eta and 1/m; see `noise_level` for the self-consistent
    value. Simulated errors were about 10 % larger at eta = 0.1, M = 6.

    Accuracy: first order in eta and 1/m: median simulated errors are up to 25 % larger for eta
    sigma* up to 0.1 and floors up to sigma*/4, with k = r1 columns and spurious directions
    rejected.

    Args:
        spread: the root mean square [...] of the spurious eigenvalues, (mu^2 + M^2)^(1/2).
        learning_rate: eta [...].
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero.
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Frobenius error [...].

    >>> batch = {"batch_size": 500, "dim": 30, "invariant_rank": 2, "spurious_rank": 1}
    >>> print(f"{error_floor(6.0, learning_rate=0.1, **batch):.3f}")
    0.465
    """
    numbers = (
        learning_rate,
        batch_size,
        dim,
        invariant_rank,
        spurious_rank,
        invariant_eigenvalue,
        label_noise,
    )
    spread, eta, m, d, r1, r2, sigma, noise = broadcast(spread, *numbers)
    return jnp.sqrt((r2 * spread**2 + noise**2) * r1 * d * eta * sigma / (2 * m))


@checked_jit
def complement_power(
    spread: ArrayLike,
    *,
    rank: ArrayLike,
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    invariant_eigenvalue: ArrayLike = 1.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The stationary power that batch noise sustains outside all signals, E|(I - P) U|_F^2.

    Let n = d - r1 - r2 and v = (M^2 r2 + sigma_y^2)/(2m), the variance of an entry of the batch
    gradient G. The r1 columns of U that represent A* are driven as in `error_floor`:
    r1 n eta v/(2 - eta sigma*). The other q columns follow w <- w - eta (G + w w') w. For a GOE
    matrix G, log det w'w is stationary where the mean of |w|^2 is q eta v (n - 1 - 2q)/2. With
    q > (n - 1)/4 columns the noise suppresses the smallest ones, so at most (n - 1)/4 columns are
    active. From a scale alpha they take about log(1/alpha) * 2/(eta^2 v n) steps to grow. First
    order in eta, v and (r1 + r2)/d; see `noise_level` for the self-consistent value. The study
    `over-parameterisation` compares it with simulations.

    Accuracy: first order: 6 % for products of random matrices with eta v n up to 0.1 (n = 24, q =
    3).

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        rank: k [...], columns of U, at least r1.
        learning_rate: eta [...].
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...]; the spurious directions must be rejected.
        invariant_eigenvalue: sigma* [...] of A*, above zero.
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Mean square of the complement signal [...].

    >>> batch = {"batch_size": 1000, "dim": 40, "invariant_rank": 2, "spurious_rank": 1}
    >>> power = complement_power(6.0, rank=jnp.array([2, 6, 40]), learning_rate=0.1, **batch)
    >>> [f"{value:.3f}" for value in power]
    ['0.070', '0.171', '0.216']
    """
    numbers = (
        learning_rate,
        batch_size,
        dim,
        invariant_rank,
        spurious_rank,
        invariant_eigenvalue,
        label_noise,
    )
    spread, columns, eta, m, d, r1, r2, sigma, noise = broadcast(spread, rank, *numbers)
    variance = (r2 * spread**2 + noise**2) / (2 * m)
    outside = d - r1 - r2
    active = jnp.clip(columns - r1, 0, jnp.maximum((outside - 1) / 4, 0))
    driven = r1 * outside / (2 - eta * sigma)
    return eta * variance * (driven + active * (outside - 1 - 2 * active) / 2)


@checked_jit
def finite_data_error(
    spread: ArrayLike,
    *,
    num_examples: ArrayLike,
    num_environments: ArrayLike,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The error |UU' - A*|_F from a fixed data set of n examples per environment, for k = d.

    The residuals -A_e multiply the same n measurements in every step, so the mean gradient has a
    symmetric error D that does not average out, with entries of variance
    v = (M^2 r2 + sigma_y^2)/(2 n E), and U U' converges to the positive part of A* + D. With
    N = d - r1 - r2 the squared error is 2 r1 d v from the directions of A* plus N^2 v/2 from all
    others, the positive half of Wigner's semicircle of radius 2 sqrt(N v). Leading order in 1/n, if
    the spurious directions are rejected.

    Accuracy: 15 % where the error is below sigma*/2.

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        num_examples: n [...], examples of each environment.
        num_environments: E [...], with equal probabilities.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Frobenius error [...].
    """
    numbers = (num_examples, num_environments, dim, invariant_rank, spurious_rank, label_noise)
    spread, n, environments, d, r1, r2, noise = broadcast(spread, *numbers)
    variance = (r2 * spread**2 + noise**2) / (2 * n * environments)
    return jnp.sqrt(variance * (2 * r1 * d + (d - r1 - r2) ** 2 / 2))


@checked_jit
def expected_error(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    family: str = "two_point",
    **batch: Unpack[BatchSettings],
) -> Array:
    """The stationary error |UU' - A*|_F [...]: the floor and the remaining spurious signal.

    sqrt(floor^2 + r2 <u^4>) with the moments of `stationary_spurious_moments`, as if the r2
    spurious directions were independent, and `error_floor` at the root mean square of the residual
    s - u^2. Its square is Var s + mu^2 - 2 mu <u^2> + <u^4>, because u does not depend on the next
    s: E s^2 beyond the transition. It ignores divergence.

    Accuracy: 25 %, that of `error_floor` and of `stationary_spurious_moments`.

    Args:
        spread: M [...].
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    second, fourth = stationary_spurious_moments(learning_rate, mean, spread, family)
    second, fourth, mu, deviation = broadcast(
        second, fourth, mean, DEVIATION[family] * jnp.asarray(spread)
    )
    unlearned = jnp.maximum(mu * (mu - 2 * second) + fourth, 0)
    floor = error_floor(jnp.sqrt(deviation**2 + unlearned), learning_rate=learning_rate, **batch)
    floor, fourth, rank = broadcast(floor, fourth, batch["spurious_rank"])
    return jnp.sqrt(floor**2 + rank * fourth)


@checked_jit
def optimal_spread(
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    family: str = "two_point",
    **batch: Unpack[BatchSettings],
) -> Array:
    """The heterogeneity M [...] that minimises `expected_error`; it is not always M_c.

    It equals M_c only for batch sizes above about m = r1 d sigma*/mu. In smaller batches the noise
    due to heterogeneity costs more than the spurious signal it removes, and M = 0 is best, although
    M_c remains a local minimum down to half that batch size: for small steps the squared error
    below M_c is r2 (mu^2 - eta^2 Var(s)^2/4) + floor^2, concave in Var(s), so an end of [0, M_c] is
    best. The minimum is computed by a grid on [0, M_c] and a golden-section search; without an M_c
    the range ends where lambda is least. The result may lie beyond `divergence_bound`.

    Accuracy: relative 1e-3 as the minimum of `expected_error`, whose accuracy limits it.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    values = cast("list[ArrayLike]", list(batch.values()))
    eta, mu, *rest = broadcast(learning_rate, mean, *values)
    batch = cast(BatchSettings, dict(zip(batch, rest, strict=True)))
    critical = critical_spread(eta, mu, family)
    # Beyond M_c only the floor remains, which grows; without an M_c, search up to the least lambda.
    last = jnp.where(
        jnp.isfinite(critical), critical, RATIO_OF_LEAST_EXPONENT[family] * (1 / eta + mu)
    )
    golden = (math.sqrt(5) - 1) / 2

    @jax.vmap
    def errors(fraction: Array) -> Array:
        return expected_error(fraction * last, learning_rate=eta, mean=mu, family=family, **batch)

    def shrink(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = errors(jnp.stack((left, right)))
        falling = at_left > at_right
        return jnp.where(falling, left, low), jnp.where(falling, high, right)

    grid = jnp.linspace(0, 1, 33, dtype=eta.dtype)
    best = grid[jnp.argmin(errors(grid), 0)]
    bracket = (jnp.maximum(best - 1 / 32, 0), jnp.minimum(best + 1 / 32, 1))
    low, high = jax.lax.fori_loop(0, 24, shrink, bracket)
    inner = (low + high) / 2
    # Ties go to the grid, which contains both ends: the error has a corner at M_c.
    at_inner, at_best = errors(jnp.stack((inner, best)))
    return jnp.where(at_inner < at_best, inner, best) * last

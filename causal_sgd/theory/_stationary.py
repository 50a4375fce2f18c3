"""Growth, and the state that HeteroSGD settles in: what is left of the spurious signal, and the error it costs."""

from __future__ import annotations

import math
from typing import NamedTuple, NotRequired, TypedDict, Unpack, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import common, door
from causal_sgd.theory._boundaries import critical_spread
from causal_sgd.theory._exponents import DEVIATION, LOWEST, log_variance_two_point, lyapunov
from causal_sgd.types import Array

__all__ = [
    "BatchSettings", "SpuriousMoments", "complement_power", "error_floor", "expected_error", "finite_data_error",
    "growth_time", "optimal_spread", "stationary_spurious_moments",
]  # fmt: skip


@door
def growth_time(eigenvalue: ArrayLike, *, learning_rate: ArrayLike, init_scale: ArrayLike) -> Array:
    """Steps log(sqrt(s)/alpha)/log(1 + eta s) that a direction needs to grow from alpha to its level sqrt(s).

    Args:
        eigenvalue: s [...] of the signal in that direction, above zero.
        learning_rate: eta [...].
        init_scale: alpha [...], above zero.

    Returns:
        Steps [...], fractional; 0 from above the level.

    >>> print(f"{growth_time(1.0, learning_rate=0.1, init_scale=1e-3):.1f}")
    72.5
    """
    s, eta, alpha = common(eigenvalue, learning_rate, init_scale)
    return jnp.maximum(jnp.log(s) / 2 - jnp.log(alpha), 0) / jnp.log1p(eta * s)


class SpuriousMoments(NamedTuple):
    """Stationary moments of a spurious direction u."""

    second: Array  # [...] <u^2>, in units of the signal
    fourth: Array  # [...] <u^4>, in units of the signal squared


@door
def stationary_spurious_moments(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> SpuriousMoments:
    """The stationary <u^2> and <u^4> of a spurious direction near the transition; 0 where lambda <= 0.

    <u^2> = lambda/eta and <u^4> = lambda (lambda + v)/eta^2. For small steps
    d log u = (lambda - eta u^2) dt + sqrt(v) dB: u^2 follows a logistic equation with multiplicative noise,
    whose stationary law is Gamma of shape lambda/v and scale v/eta. v is exact for two points, otherwise
    (eta sd/a)^2. The error is of order eta mu and largest near the transition: simulated two-point dynamics
    over these formulas, at M/M_c = 0.5, 0.8 and 0.95 (standard error up to 0.03), gave

        eta mu    <u^2>               <u^4>
        0.005     1.00  0.99  0.98    1.00  0.99  0.97
        0.01      1.00  0.99  0.97    1.01  1.00  0.97
        0.05      0.99  0.94  0.89    1.04  1.01  0.97
        0.1       0.98  0.85  0.74    1.08  0.99  0.88

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...], below `divergence_bound`: the formulas know nothing of divergence.
        family: one of `families`.
    """
    exponent = lyapunov(family, learning_rate, mean, spread)
    eta, mu, spread = common(learning_rate, mean, spread)
    if family == "two_point":
        variance = log_variance_two_point(eta, mu, spread)
    else:
        variance = (eta * spread * DEVIATION[family] / (1 + eta * mu)) ** 2
    alive = exponent > 0
    exponent, variance = jnp.where(alive, exponent, 0), jnp.where(alive, variance, 0)
    return SpuriousMoments(exponent / eta, exponent * (exponent + variance) / eta**2)


class BatchSettings(TypedDict):
    """What `error_floor` needs besides spread and learning rate, each [...]."""

    batch_size: ArrayLike  # m, examples in a batch
    dim: ArrayLike  # d
    invariant_rank: ArrayLike  # r1
    spurious_rank: ArrayLike  # r2
    invariant_eigenvalue: NotRequired[ArrayLike]  # sigma* of A*, above zero; 1 unless given
    label_noise: NotRequired[ArrayLike]  # sigma_y; 0 unless given


@door
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
    """The error |UU' - A*|_F at which HeteroSGD stops, sqrt((M^2 r2 + sigma_y^2) r1 d eta sigma*/(2m)).

    The residual -A_e, of norm M sqrt(r2), never vanishes, nor do the labels' errors: an entry of the batch gradient has
    the variance v = (M^2 r2 + sigma_y^2)/(2m). It drives the rows of U outside U*, which decay at the rate
    eta sigma*, to entries of variance eta v/2; UU' holds r1 d of them twice, times sigma*. First order in eta
    and 1/m; simulated errors were some 10 % larger at eta = 0.1, M = 6.

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        learning_rate: eta [...].
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero.
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Frobenius error [...].

    >>> floor = error_floor(6.0, learning_rate=0.1, batch_size=500, dim=30, invariant_rank=2, spurious_rank=1)
    >>> print(f"{floor:.3f}")
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
    spread, eta, m, d, r1, r2, sigma, noise = common(spread, *numbers)
    return jnp.sqrt((r2 * spread**2 + noise**2) * r1 * d * eta * sigma / (2 * m))


@door
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
    """What the noise of the batches keeps outside of all signals in the end, the mean of |(I - P) U|_F^2.

    Let n = d - r1 - r2 and v = (M^2 r2 + sigma_y^2)/(2m), the variance of an entry of the batch gradient G. The r1 columns
    of U that hold A* are driven as in `error_floor`: r1 n eta v/(2 - eta sigma*). The other q columns w meet
    w <- w - eta (G + w w') w, and for G a GOE matrix log det w'w is stationary where the mean of |w|^2 is
    q eta v (n - 1 - 2q)/2. With q > (n - 1)/4 columns the noise would kill the least: not more than (n - 1)/4 live, however
    many there are. From a scale alpha they take about log(1/alpha) * 2/(eta^2 v n) steps to grow. First order in eta, v
    and (r1 + r2)/d; the study `over-parameterisation` compares it with simulations.

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        rank: k [...], columns of U, at least r1.
        learning_rate: eta [...].
        batch_size: m [...], examples in a batch.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...], which have to be rejected.
        invariant_eigenvalue: sigma* [...] of A*, above zero.
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Mean square of the complement signal [...].

    >>> batch = {"learning_rate": 0.1, "batch_size": 1000, "dim": 40, "invariant_rank": 2, "spurious_rank": 1}
    >>> [f"{complement_power(6.0, rank=rank, **batch):.3f}" for rank in (2, 6, 40)]
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
    spread, columns, eta, m, d, r1, r2, sigma, noise = common(spread, rank, *numbers)
    variance = (r2 * spread**2 + noise**2) / (2 * m)
    outside = d - r1 - r2
    alive = jnp.clip(columns - r1, 0, jnp.maximum((outside - 1) / 4, 0))
    driven = r1 * outside / (2 - eta * sigma)
    return eta * variance * (driven + alive * (outside - 1 - 2 * alive) / 2)


@door
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
    """The error |UU' - A*|_F that n examples of each of E environments leave, used again and again, where k = d.

    The residuals -A_e meet the same n measurements in every step, so the mean gradient has a symmetric error D that does not
    average out, with entries of variance v = (M^2 r2 + sigma_y^2)/(2 n E), and U U' becomes the positive part of A* + D.
    With N = d - r1 - r2 that is 2 r1 d v from the directions of A* and, of all others, the positive half of Wigner's
    semicircle of radius 2 sqrt(N v): N^2 v/2. Leading order in 1/n, for spurious directions that are rejected.

    Args:
        spread: M [...], the root mean square of the spurious eigenvalues.
        num_examples: n [...], of each environment.
        num_environments: E [...], equally often met.
        dim: d [...].
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        label_noise: sigma_y [...], standard deviation of the labels' noise.

    Returns:
        Frobenius error [...].
    """
    numbers = (num_examples, num_environments, dim, invariant_rank, spurious_rank, label_noise)
    spread, n, environments, d, r1, r2, noise = common(spread, *numbers)
    variance = (r2 * spread**2 + noise**2) / (2 * n * environments)
    return jnp.sqrt(variance * (2 * r1 * d + (d - r1 - r2) ** 2 / 2))


@door
def expected_error(
    spread: ArrayLike,
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    family: str = "two_point",
    **batch: Unpack[BatchSettings],
) -> Array:
    """The stationary error |UU' - A*|_F [...]: the floor and what is left of the spurious signal.

    sqrt(floor^2 + r2 <u^4>), from `error_floor` at the standard deviation of s and
    `stationary_spurious_moments`, as if the r2 spurious directions were independent. It knows nothing of
    divergence.

    Args:
        spread: M [...].
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    fourth = stationary_spurious_moments(learning_rate, mean, spread, family).fourth
    floor = error_floor(
        DEVIATION[family] * jnp.asarray(spread), learning_rate=learning_rate, **batch
    )
    floor, fourth, rank = common(floor, fourth, batch["spurious_rank"])
    return jnp.sqrt(floor**2 + rank * fourth)


@door
def optimal_spread(
    *,
    learning_rate: ArrayLike,
    mean: ArrayLike,
    family: str = "two_point",
    **batch: Unpack[BatchSettings],
) -> Array:
    """The heterogeneity M [...] that minimises `expected_error`: not always M_c.

    It equals M_c only for batches above about m = r1 d sigma*/mu. For smaller ones the noise that heterogeneity
    brings costs more than the spurious signal it removes, and none is best, although M_c stays a local minimum
    down to half that batch size. Why: for small steps the squared error below M_c is
    r2 (mu^2 - eta^2 Var(s)^2/4) + floor^2, concave in Var(s), so that an end of [0, M_c] is best. Found by a
    grid on [0, M_c] and a golden-section search; without an M_c the range ends where lambda stops falling.
    The result may lie beyond `divergence_bound`.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        family: one of `families`.
        **batch: the other arguments of `error_floor`, see `BatchSettings`.
    """
    eta, mu, *rest = common(learning_rate, mean, *batch.values())
    batch = cast(BatchSettings, dict(zip(batch, rest, strict=True)))
    critical = critical_spread(eta, mu, family)
    # Beyond M_c only the floor is left, which grows; without an M_c look as far as lambda falls.
    last = jnp.where(jnp.isfinite(critical), critical, LOWEST[family] * (1 / eta + mu))
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
    # Ties go to the grid, which holds both ends: M_c is a corner of the error.
    at_inner, at_best = errors(jnp.stack((inner, best)))
    return jnp.where(at_inner < at_best, inner, best) * last

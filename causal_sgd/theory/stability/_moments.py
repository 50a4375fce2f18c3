"""Second moments of a small deviation from A* under the exact law of the batch gradient.

Let U = U* + delta with U*U*' = sigma* P of rank r1 = k, without spare columns: they are neutral to
second order. A batch of m from one environment has the gradient matrix G = (1/m) sum_i x_i <x_i, R>
in packed coordinates of the symmetric matrices, where x_i is iid N(0, 1). With the residual
R = -A_e + L, L = U* delta' + delta U*', the deviation moves by

    delta <- delta - eta (G[-A_e] delta + G[L] U*),    E G[A] x G[B] = A x B + (B x A + <A, B> I)/m,

up to the noise G[-A_e] U* that drives it. The law is isotropic, so squares of four blocks are
closed: h = |H|^2 with H = A + A' for the part A = Q'delta inside U* (rotations of the columns keep
A symmetric), t = (tr H)^2, v = |V'delta|^2 and w, that of the other d - r1 - r2 directions. Each
moment after a step is quadratic in eta, and the matrix is

    T = I - eta (D - eta Z),    D = diag(4 sigma*, 4 sigma*, 2 (sigma* - mu), 2 sigma*),

with Z >= 0 entry by entry, the sum of a part of the mean gradient (diagonal) and one of 1/m. Hence
T has its spectral radius below one iff eta times that of Z/D is: the largest learning rate with
bounded second moments is 1 over a Perron root, linear in m for small batches, until the mean
gradient limits it.

Without environments the linear dynamics is exact, and so are T and the edge. For one column and no
spurious direction both reduce to D - eta Z = [[4, 0], [0, 2]] - a [[4 (1 + 2/m), 4/m],
[(d - 1)/m, 1 + d/m]] in units of sigma* and of (|R_QQ|^2, 2 |R_WQ|^2). With environments the
residual does not vanish, so that other coordinates around A* differ by terms of order eta^2 M^2/m;
those that grow with d are the same in all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = [
    "almost_sure_cap",
    "critical_batch_size",
    "heterogeneity_cap",
    "mean_square_edge",
    "second_moments",
    "stationary_error",
]


def _rates(sigma: Array, mean: Array) -> Array:
    """D [..., 4]."""
    return jnp.stack([4 * sigma, 4 * sigma, 2 * (sigma - mean), 2 * sigma], -1)


def _mean_part(sigma: Array, mean: Array, spread: Array) -> Array:
    """The diagonal [..., 4] of the part of Z that large batches keep."""
    inside = 4 * sigma**2
    return jnp.stack([inside, inside, (sigma - mean) ** 2 + spread**2, sigma**2], -1)


def _batch_part(
    sigma: Array,
    mean: Array,
    spread: Array,
    noise: Array,
    dim: Array,
    rank: Array,
    spurious_rank: Array,
) -> Array:
    """The part [..., 4, 4] of Z that falls like 1/m, times m."""
    power = mean**2 + spread**2
    kappa = spurious_rank * power + noise**2  # E |A_e|^2 and label noise: the irreducible residual
    square, zero = sigma**2, jnp.zeros_like(sigma)
    rest = jnp.maximum(dim - rank - spurious_rank, 0)

    def outside(size: Array) -> list[Array]:
        """A block of rows outside U*, from h, t and the squares outside."""
        cross = size * kappa / 2 + size * rank * square
        return [size * (kappa / 8 + rank * square / 2), zero, cross, cross]

    size = rank * (rank + 1)
    inside = 4 * square * size + kappa * (rank + 1)
    trace = 8 * square * rank + 2 * kappa
    along = 4 * square * (1 + size / 2) + kappa * (rank + 2) / 4
    rows = [
        [along, kappa / 4, inside, inside],
        [4 * square * rank + kappa, 4 * square, trace, trace],
        outside(spurious_rank),
        outside(rest),
    ]
    own = square + kappa / 2
    rows[2][2] = rows[2][2] + own + power
    rows[3][3] = rows[3][3] + own
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _perron(matrix: Array) -> Array:
    """The largest eigenvalue [...] of matrices [..., n, n] of entries >= 0, by squaring."""

    def square(index: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log = carry
        size = jnp.max(power, (-2, -1))
        # matrix^(2^index) is this power times exp(2^index log).
        log = log + jnp.log(size) * 0.5**index
        power = power / size[..., None, None]
        return jnp.matmul(power, power, precision="highest"), log

    start = matrix, jnp.zeros(matrix.shape[:-2], matrix.dtype)
    return jnp.exp(jax.lax.fori_loop(0, 30, square, start)[1])


def _spread_diagonal(diagonal: Array) -> Array:
    return diagonal[..., None] * jnp.eye(4, dtype=diagonal.dtype).reshape(
        (1,) * (diagonal.ndim - 1) + (4, 4)
    )


@checked_jit
def second_moments(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    *,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike = 1,
    invariant_eigenvalue: ArrayLike = 1.0,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 0.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The matrix T [..., 4, 4] of one step for the second moments (h, t, v, w) around A*.

    h = |H|^2 and t = (tr H)^2 with H = Q'delta + delta'Q, v = |V'delta|^2, and w the square of
    delta outside U* and V, for U* = sqrt(sigma*) Q. In terms of the residual, |R_QQ|^2 =
    sigma* h and |R|^2 = sigma* (h + 2 v + 2 w). For mu = M = 0 the blocks v and w are alike. The
    noise that drives the deviation adds a constant to T times the moments; it is left out.

    Accuracy: a few roundings; against 10^5 draws of the linear step within their error.

    Args:
        learning_rate: eta [...].
        batch_size: m [...].
        dim: d [...], at least the sum of the ranks.
        invariant_rank: r1 [...], the number of columns too.
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...], of all invariant directions.
        mean: mu [...].
        spread: M [...], the standard deviation of each spurious eigenvalue.
        label_noise: sigma_y [...].
    """
    eta, m, sigma, mu, spread, noise, dim, rank, spurious = broadcast(
        learning_rate,
        batch_size,
        invariant_eigenvalue,
        mean,
        spread,
        label_noise,
        dim,
        invariant_rank,
        spurious_rank,
    )
    batch = _batch_part(sigma, mu, spread, noise, dim, rank, spurious) / m[..., None, None]
    step = eta[..., None]
    diagonal = 1 - step * (_rates(sigma, mu) - step * _mean_part(sigma, mu, spread))
    return _spread_diagonal(diagonal) + (eta**2)[..., None, None] * batch


@checked_jit
def mean_square_edge(
    batch_size: ArrayLike,
    *,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike = 1,
    invariant_eigenvalue: ArrayLike = 1.0,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 0.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The largest learning rate [...] at which deviations from A* have bounded second moments.

    1 over the Perron root of Z/D, see `second_moments`: linear in m for small batches, and below
    `heterogeneity_cap` for all. 0 for mu >= sigma*, where a step towards V repels on average.

    Accuracy: relative 1e-5 in single precision.

    Args:
        batch_size: m [...].
        dim: d [...], at least the sum of the ranks.
        invariant_rank: r1 [...], the number of columns too.
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...].
        mean: mu [...].
        spread: M [...].
        label_noise: sigma_y [...].

    >>> sizes = jnp.array([1.0, 16.0, 256.0, 4096.0])
    >>> print([f"{edge:.4f}" for edge in mean_square_edge(sizes, dim=50, invariant_rank=3)])
    ['0.0129', '0.1866', '0.9515', '0.9982']
    """
    m, sigma, mu, spread, noise, dim, rank, spurious = broadcast(
        batch_size,
        invariant_eigenvalue,
        mean,
        spread,
        label_noise,
        dim,
        invariant_rank,
        spurious_rank,
    )
    batch = _batch_part(sigma, mu, spread, noise, dim, rank, spurious) / m[..., None, None]
    quadratic = _spread_diagonal(_mean_part(sigma, mu, spread)) + batch
    return _reciprocal(sigma, mu, quadratic)


@checked_jit
def stationary_error(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    *,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike = 1,
    invariant_eigenvalue: ArrayLike = 1.0,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 0.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The root mean square of |UU' - A*|_F [...] in the stationary state of the linear dynamics.

    The moments x of `second_moments` settle where x = T x + c, with c those of the noise
    eta G[-A_e] U* that drives the deviation. For small steps and large d it is the error floor
    `theory.error_floor`, and it diverges at `mean_square_edge`. Without environments and label
    noise it is 0.

    Accuracy: relative 1e-4 in single precision up to 0.99 of the edge, for the linear dynamics; the
    full one follows while the error is below a fifth of |A*|.

    Args:
        learning_rate: eta [...].
        batch_size: m [...].
        dim: d [...], at least the sum of the ranks.
        invariant_rank: r1 [...], the number of columns too.
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...].
        mean: mu [...].
        spread: M [...].
        label_noise: sigma_y [...].

    Returns:
        The error [...]; inf from the edge on, where there is no such state.
    """
    eta, m, sigma, mu, spread, noise, dim, rank, spurious = broadcast(
        learning_rate,
        batch_size,
        invariant_eigenvalue,
        mean,
        spread,
        label_noise,
        dim,
        invariant_rank,
        spurious_rank,
    )
    batch = _batch_part(sigma, mu, spread, noise, dim, rank, spurious) / m[..., None, None]
    diagonal = _mean_part(sigma, mu, spread)
    stable = eta < _reciprocal(sigma, mu, _spread_diagonal(diagonal) + batch)
    # Beyond the edge any stable matrix will do.
    step = jnp.where(stable, eta, 0)[..., None]
    matrix = _spread_diagonal(1 - step * (_rates(sigma, mu) - step * diagonal))
    matrix = matrix + (step**2)[..., None] * batch
    matrix = jnp.where(stable[..., None, None], matrix, 0)
    kappa = (spurious * (mu**2 + spread**2) + noise**2) / m
    rest = jnp.maximum(dim - rank - spurious, 0)
    sizes = jnp.stack([2 * rank * (rank + 1), 4 * rank, spurious * rank / 2, rest * rank / 2], -1)
    driven = (eta**2 * sigma * kappa)[..., None] * sizes

    def double(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Twice as many terms of sum_n T^n c, all of them positive."""
        power, total = carry
        total = total + jnp.matmul(power, total, precision="highest")
        return jnp.matmul(power, power, precision="highest"), total

    moments = jax.lax.fori_loop(0, 30, double, (matrix, driven[..., None]))[1][..., 0]
    square = sigma * (moments[..., 0] + 2 * moments[..., 2] + 2 * moments[..., 3])
    return jnp.where(stable, jnp.sqrt(square), jnp.inf)


@checked_jit
def critical_batch_size(
    *,
    dim: ArrayLike,
    invariant_rank: ArrayLike,
    spurious_rank: ArrayLike = 1,
    invariant_eigenvalue: ArrayLike = 1.0,
    mean: ArrayLike = 0.0,
    spread: ArrayLike = 0.0,
    label_noise: ArrayLike = 0.0,
) -> Array:
    """The batch size [...] at which the linear law of the largest step meets its cap.

    The linear scaling rule eta ~ m holds well below, and nothing is gained well above. With
    environments of M^2 >> sigma*^2 both the slope and the cap fall like 1/M^2, so that the critical
    batch size no longer depends on M.

    Accuracy: relative 1e-5 in single precision.

    Args:
        dim: d [...], at least the sum of the ranks.
        invariant_rank: r1 [...], the number of columns too.
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...].
        mean: mu [...], below sigma*; NaN otherwise.
        spread: M [...].
        label_noise: sigma_y [...].

    >>> print(f"{critical_batch_size(dim=50, invariant_rank=3):.0f}")
    77
    """
    sigma, mu, spread, noise, dim, rank, spurious = broadcast(
        invariant_eigenvalue, mean, spread, label_noise, dim, invariant_rank, spurious_rank
    )
    slope = _reciprocal(sigma, mu, _batch_part(sigma, mu, spread, noise, dim, rank, spurious))
    return _cap(sigma, mu, spread) / slope


def _reciprocal(sigma: Array, mean: Array, quadratic: Array) -> Array:
    """1 over the Perron root of quadratic/D; 0 where D is not positive."""
    stable = mean < sigma
    rates = _rates(sigma, jnp.where(stable, mean, 0))
    return jnp.where(stable, 1 / _perron(quadratic / rates[..., None]), 0)


def _cap(sigma: Array, mean: Array, spread: Array) -> Array:
    gap = jnp.maximum(sigma - mean, 0)
    positive = gap > 0
    square = jnp.where(positive, gap**2 + spread**2, 1)
    return jnp.minimum(1 / sigma, 2 * gap / square)


@checked_jit
def heterogeneity_cap(invariant_eigenvalue: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """The largest learning rate [...] with bounded second moments, however large the batch.

    A column of A* has a component towards V that the mean gradient of environment e multiplies by
    1 + eta (s_e - sigma*), since sigma* holds the column back. Its square falls on average iff
    eta < 2 (sigma* - mu)/((sigma* - mu)^2 + M^2), for any law of s with this mean and standard
    deviation. The column itself is stable up to 1/sigma*. 0 for mu >= sigma*.

    Accuracy: a few roundings.

    Args:
        invariant_eigenvalue: sigma* [...].
        mean: mu [...].
        spread: M [...], the standard deviation.

    >>> print([f"{cap:.3f}" for cap in heterogeneity_cap(1.0, 0.0, jnp.array([0.0, 2.0, 4.0]))])
    ['1.000', '0.400', '0.118']
    """
    return _cap(*broadcast(invariant_eigenvalue, mean, spread))


@checked_jit
def almost_sure_cap(invariant_eigenvalue: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> Array:
    """The largest learning rate [...] at which almost all large-batch runs stay at A*.

    The exponent E log|1 + eta (s - sigma*)| of the component towards V vanishes: for two points
    mu +- M with g = sigma* - mu at eta = 2/(g + sqrt(2 M^2 - g^2)) or, where this is not real, at
    2g/(g^2 - M^2); in any case at most 1/sigma*. It is above `heterogeneity_cap`: in between
    almost all runs contract, but rare bursts make the variance infinite.

    Accuracy: a few roundings.

    Args:
        invariant_eigenvalue: sigma* [...].
        mean: mu [...].
        spread: M [...], of two points.

    Returns:
        The learning rate [...]. For mu > sigma* it is the end of the range of rates that contract,
        which begins at `theory.critical_learning_rate` of s - sigma*; 0 if there is none.

    >>> print([f"{cap:.3f}" for cap in almost_sure_cap(1.0, 0.0, jnp.array([0.0, 2.0, 4.0]))])
    ['1.000', '0.549', '0.305']
    """
    sigma, mu, spread = broadcast(invariant_eigenvalue, mean, spread)
    gap = sigma - mu
    inner = 2 * spread**2 - gap**2
    real = inner >= 0
    narrow = jnp.where(real, 1, gap**2 - spread**2)  # positive wherever `inner` is negative
    # For mu > sigma* the denominator is positive iff M > |g|.
    below = gap + jnp.sqrt(jnp.maximum(inner, 0))
    positive = below > 0
    root = jnp.where(positive, 2 / jnp.where(positive, below, 1), 0)
    end = jnp.where(real, root, jnp.maximum(2 * gap, 0) / narrow)
    return jnp.minimum(1 / sigma, end)

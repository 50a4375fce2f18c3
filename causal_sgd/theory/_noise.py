"""Closed forms for d -> infinity with m/d = rho: the level of the batch noise, and what it decides.

Let the spurious signal be rejected, so that it adds N = r2 (mu^2 + M^2) + sigma_y^2 to the square
of the residual. A column of U that holds a unit of A* carries b = eta nu/(2 - eta sigma*) outside
the signals, with a^2 = sigma* - b inside; each of the q = k - r1 spare columns carries
b_s = (1 - sqrt(1 - eta^2 nu))/eta. The noise level nu is self-consistent,

    2 rho nu = N + 2 r1 sigma* b + q b_s^2,

which is a quadratic equation in b_s, because eta nu = b_s (2 - eta b_s). At b_s = b = sigma* the
noise drives A* out of U, which happens continuously: beyond, 2 rho nu = N + r1 sigma*^2 + k b_s^2.

At finite d with q proportional to n = d - r1 - r2 the columns outside the signals form a bulk: to
first order in eta^2 nu, q (1 - 2q/n) takes the place of q, at most n/4 columns are active, and they
damp a small signal by (1 - 4q/n) b_s. The argument `dim` includes this.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.types import Array

__all__ = ["Branch", "NoiseLevel", "above", "branches", "columns_outside", "noise_level"]


class NoiseLevel(NamedTuple):
    """The stationary noise of the batches and what it sustains, each [...]."""

    nu: Array  # variance of the batch gradient's entries times d, in units of the signal squared
    driven: Array  # b, square of a column of A* outside the signals; b_s where A* is lost
    spare: Array  # b_s, square of a spare column
    complement: Array  # |(I - P)U|_F^2, the sum of all these squares
    error: Array  # |UU' - A*|_F


class _Columns(NamedTuple):
    """Columns outside the signals: how many count, and which share of b_s damps a signal."""

    active: Array  # q, or q (1 - 2q/n)
    damping: Array  # 1, or 1 - 4q/n


def columns_outside(number: Array, outside: Array | None) -> _Columns:
    if outside is None:
        return _Columns(number, jnp.ones_like(number))
    share = jnp.clip(number / jnp.maximum(outside, 1), 0, 0.25)
    return _Columns(share * outside * (1 - 2 * share), 1 - 4 * share)


def _smaller_root(square: Array, linear: Array, constant: Array) -> Array:
    """The smaller positive root of square x^2 - linear x + constant = 0; NaN where none is real."""
    discriminant = linear**2 - 4 * square * constant
    real = (discriminant >= 0) & (linear > 0)
    root = jnp.sqrt(jnp.where(real, discriminant, 1))
    return jnp.where(real, 2 * constant / (jnp.where(real, linear, 1) + root), jnp.nan)


class Branch(NamedTuple):
    """One of the two forms of the noise equation: (2 rho' + q) b^2 - (4 rho'/eta) b + N = 0."""

    ratio: Array  # rho', what of rho is left for the spare columns
    columns: _Columns
    residual: Array  # N

    def root(self, eta: Array) -> Array:
        """b_s; NaN where there is no fixed point."""
        return _smaller_root(
            2 * self.ratio + self.columns.active, 4 * self.ratio / eta, self.residual
        )

    def critical_root(self, eta: Array, mean: Array, rank: Array) -> Array:
        """b_s where M is the critical spread, M^2 = 2 (mu - c b_s)/eta + (mu - c b_s)^2.

        `residual` is that of M = 0. NaN where the noise grows by itself at a smaller spread.
        """
        ratio, (count, damping), residual = self
        root = _smaller_root(
            2 * ratio + count + rank * damping**2,
            4 * ratio / eta + 2 * rank * damping * (1 / eta + mean),
            residual + rank * mean * (2 / eta + mean),
        )
        # Beyond its maximum the equation's solution is unstable.
        stable = root * (2 * ratio + count) <= 2 * ratio / eta
        return jnp.where(stable, root, jnp.nan)

    def least_ratio(self, eta: Array) -> Array:
        """The rho' below which no fixed point exists."""
        h = eta**2 * self.residual
        return (h + jnp.sqrt(h**2 + 4 * self.columns.active * h)) / 4

    def least_root(self, eta: Array) -> Array:
        """b_s at `least_ratio`."""
        ratio = self.least_ratio(eta)
        total = 2 * ratio + self.columns.active
        return 2 * ratio / (eta * jnp.where(total > 0, total, 1))


def branches(
    eta: Array,
    rho: Array,
    columns: Array,
    rank: Array,
    sigma: Array,
    residual: Array,
    outside: Array | None,
) -> tuple[Branch, Branch]:
    """The equation with A* learned, and that with A* lost."""
    kept = Branch(
        rho - rank * eta * sigma / (2 - eta * sigma),
        columns_outside(columns - rank, outside),
        residual,
    )
    lost = Branch(rho, columns_outside(columns, outside), residual + rank * sigma**2)
    return kept, lost


@checked_jit
def noise_level(
    spread: ArrayLike,
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
) -> NoiseLevel:
    """The self-consistent noise of the batches where the spurious signal is rejected.

    The least solution of the equations at the head of this module; A* is lost where `driven` is
    above sigma*. `error` is (2 r1 sigma* b + q b_s^2)^(1/2), or (r1 sigma*^2 + k b_s^2)^(1/2) where
    A* is lost.

    Accuracy: 1e-4 in single precision as the fixed point of the equations. The averages of
    `limit_trajectory` differ by 1 % for M = 6, eta = 0.1 and rho from twice the least one, because
    nu varies with the environments.

    Args:
        spread: M [...], standard deviation of the spurious eigenvalues.
        learning_rate: eta [...].
        mean: mu [...], their mean.
        batch_ratio: rho = m/d [...].
        rank: k [...], columns of U, at least r1.
        invariant_rank: r1 [...].
        spurious_rank: r2 [...].
        invariant_eigenvalue: sigma* [...] of A*, above zero, below 2/eta.
        label_noise: sigma_y [...], standard deviation of the labels' noise.
        dim: d [...], for the bulk of many spare columns; None for d -> infinity at fixed k.

    Returns:
        The level and what it sustains [...]; NaN where there is none and runs diverge.

    >>> numbers = {"learning_rate": 0.1, "mean": 1.0, "rank": 4}
    >>> numbers |= {"invariant_rank": 2, "spurious_rank": 1}
    >>> level = noise_level(6.0, batch_ratio=jnp.array([0.7, 2.0, 20.0]), **numbers)
    >>> [f"{value:.3f}" for value in level.error]
    ['nan', '1.612', '0.447']
    """
    numbers = (learning_rate, mean, batch_ratio, rank, invariant_rank, spurious_rank)
    spread, eta, mu, rho, k, r1, r2, sigma, noise, *dims = broadcast(
        spread, *numbers, invariant_eigenvalue, label_noise, *([] if dim is None else [dim])
    )
    outside = dims[0] - r1 - r2 if dims else None
    residual = r2 * (mu**2 + spread**2) + noise**2
    kept, lost = branches(eta, rho, k, r1, sigma, residual, outside)
    learned = kept.root(eta)
    alive = learned <= sigma
    spare = jnp.where(alive, learned, above(lost.root(eta), sigma))
    nu = spare * (2 - eta * spare) / eta
    driven = jnp.where(alive, eta * nu / (2 - eta * sigma), spare)
    count = jnp.where(alive, kept.columns.active, lost.columns.active)
    column_error = jnp.where(alive, 2 * sigma * driven, sigma**2)
    return NoiseLevel(
        nu,
        driven,
        spare,
        jnp.where(alive, r1 * driven, 0) + count * spare,
        jnp.sqrt(r1 * column_error + count * spare**2),
    )


def above(root: Array, sigma: Array) -> Array:
    """A root of the branch without A*, which holds above sigma* only."""
    # The branches meet at sigma*, where rounding may put both roots on the wrong side.
    return jnp.where(root >= sigma * (1 - 1e-5), root, jnp.nan)

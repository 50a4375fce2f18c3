"""Where training ends in the landscape of a loss: the whole Hessian at A*.

Let U have the columns sqrt(sigma_i) u_i*, and k - r1 spare ones of zero, and let L(U) =
|UU' - A* - V diag(s) V'|_F^2/4 be the mean loss over infinitely many Gaussian measurements: with s
= s_e that of one environment, with s = mu, by linearity, the pooled one up to a constant. U'V = 0,
so that the gradient vanishes, in every environment and whatever s is: A* is a stationary point of
them all (of type II in the words of Ziyin et al., arXiv 2303.13093, as its noise vanishes, too).
Along D the second derivative is

    <R D, D> + |D U' + U D'|_F^2/2,    R = -V diag(s) V',

and D separates into blocks. Entry (u_i*, j) and (u_j*, i) give (D_ij sqrt(sigma_j) + D_ji
sqrt(sigma_i))^2, hence sigma_i + sigma_j and, for i != j, the 0 of a rotation. A column i that
turns towards the complement gives sigma_i, towards v_b sigma_i - s_b. A spare column gives -s_b
along v_b and 0 elsewhere. (Derived here.)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, check
from causal_sgd.types import Array

__all__ = ["SaddleSpectrum", "saddle_spectrum"]

LARGEST = 2**15  # rows and columns, so that multiplicities are int32


class SaddleSpectrum(NamedTuple):
    """Eigenvalues of a Hessian, each with its multiplicity."""

    values: Array  # [..., n], in units of the signal
    multiplicities: Array  # [n] int32, at least 0; their sum is d k


def saddle_spectrum(
    invariant_eigenvalues: ArrayLike,
    spurious_eigenvalues: ArrayLike,
    *,
    dim: ArrayLike,
    rank: ArrayLike,
) -> SaddleSpectrum:
    """The Hessian's eigenvalues at U U' = A*, with spare columns of zero, for `models.factored`.

    The loss is that over infinitely many measurements, pooled or of one environment, by the choice
    of `spurious_eigenvalues`. With means mu > 0 and spare columns A* is a strict saddle of the
    pooled loss: the lowest curvature is -mu, and 0 only if the mean signal is rejected anyway. The
    end of pooled training has the spectrum of A* + mean A_e as the invariant signal and no spurious
    one, with the lowest curvature 0 and the sharpness 2 max(sigma_1, mu).

    The values come in this order: sigma_i + sigma_j for i <= j, each once; sigma_i, each d - r1 -
    r2 times; sigma_i - s_b, once; -s_b, k - r1 times; 0, (k - r1)(d - r2) + r1 (r1 - 1)/2 times.

    Accuracy: a rounding.

    Args:
        invariant_eigenvalues: sigma_i of A* [..., r1], above zero.
        spurious_eigenvalues: s_b [..., r2], of either sign: mu of each direction for the pooled
            loss, s_e for that of an environment; r2 may be 0.
        dim: d [], at least r1 + r2 and at most 2^15.
        rank: k [], the number of columns, at least r1 and at most 2^15.

    Returns:
        The n = r1 (r1 + 1)/2 + r1 + r1 r2 + r2 + 1 values and their multiplicities.

    Raises:
        ValueError: if an argument is out of range, or there are fewer rows or columns than needed.

    >>> pooled = saddle_spectrum(jnp.ones(1), jnp.array([0.5]), dim=3, rank=2)
    >>> for value, multiplicity in zip(*pooled):
    ...     print(f"{value:.1f}: {multiplicity}")
    2.0: 1
    1.0: 1
    0.5: 1
    -0.5: 1
    0.0: 2
    """
    check(invariant_eigenvalues=invariant_eigenvalues, spurious_eigenvalues=spurious_eigenvalues)
    sigma, spurious = jnp.asarray(invariant_eigenvalues), jnp.asarray(spurious_eigenvalues)
    for name, values in (("invariant", sigma), ("spurious", spurious)):
        if values.ndim == 0:
            raise ValueError(
                f"{name}_eigenvalues must have a last axis of directions, [..., r], got a number"
            )
    r1, r2 = sigma.shape[-1], spurious.shape[-1]
    if r1 == 0:
        raise ValueError("invariant_eigenvalues must hold at least one, got none")
    broadcast(sigma[..., 0], spurious.sum(-1))  # an error that shows the shapes if they do not fit
    checks.whole("dim", dim, minimum=r1 + r2, maximum=LARGEST)
    checks.whole("rank", rank, minimum=r1, maximum=LARGEST)
    return _spectrum(sigma, spurious, jnp.asarray(dim), jnp.asarray(rank))


@jax.jit
def _spectrum(sigma: Array, spurious: Array, dim: Array, rank: Array) -> SaddleSpectrum:
    dtype = jnp.result_type(float, sigma, spurious)
    r1, r2 = sigma.shape[-1], spurious.shape[-1]
    batch = jnp.broadcast_shapes(sigma.shape[:-1], spurious.shape[:-1])
    sigma = jnp.broadcast_to(sigma, (*batch, r1)).astype(dtype)
    spurious = jnp.broadcast_to(spurious, (*batch, r2)).astype(dtype)
    first, second = np.triu_indices(r1)
    towards = sigma[..., :, None] - spurious[..., None, :]
    values = [
        sigma[..., first] + sigma[..., second],
        sigma,
        towards.reshape(*batch, r1 * r2),
        -spurious,
        jnp.zeros((*batch, 1), dtype),
    ]
    spare = rank - r1
    zeros = spare * (dim - r2) + r1 * (r1 - 1) // 2
    counts = [1, dim - r1 - r2, 1, spare, zeros]
    multiplicities = [
        jnp.broadcast_to(jnp.asarray(count, jnp.int32), part.shape[-1:])
        for count, part in zip(counts, values, strict=True)
    ]
    return SaddleSpectrum(jnp.concatenate(values, -1), jnp.concatenate(multiplicities))

"""The catapult: output and sharpness of U V' with one entry, exactly.

One entry f = u'v of two rows with k columns has the loss (f - s)^2/4, the tangent kernel and
sharpness S = (|u|^2 + |v|^2)/2, and steps u <- u - (eta/2) r v, v <- v - (eta/2) r u, r = f - s.
Hence, whatever k is,

    f <- f - eta S r + (eta^2/4) r^2 f,    S <- S - eta f r + (eta^2/4) r^2 S.

For s = 0 the sharpness falls iff eta S < 4 and f shrinks iff eta S - (eta f)^2/4 < 2: from 2 < eta
S < 4 the loss first grows and the run ends in a flatter minimum (Lewkowycz et al., arXiv 2003.02218
describe it for wide networks). The combinations u + v and u - v are multiplied by 1 - eta r/2 and
1 + eta r/2, so that

    S + f <- (1 - eta r/2)^2 (S + f),    S - f <- (1 + eta r/2)^2 (S - f),

and the imbalance |u|^2 - |v|^2 is multiplied by 1 - (eta r/2)^2. Whatever keeps the residual from
vanishing (large steps, label noise, environments) balances the two factors and flattens the minimum
through r^2 alone.
"""

from __future__ import annotations

from typing import NamedTuple

from jax.typing import ArrayLike

from causal_sgd import checks
from causal_sgd.theory._arguments import broadcast, checked_jit
from causal_sgd.theory._exponents import families, lyapunov
from causal_sgd.types import Array

__all__ = ["Catapult", "balance_exponent", "catapult_step"]


class Catapult(NamedTuple):
    """The state of U V' with one entry, each [...]."""

    output: Array  # f = u'v, in units of the signal
    sharpness: Array  # S = (|u|^2 + |v|^2)/2, in units of the signal; never below |f|


@checked_jit
def catapult_step(
    learning_rate: ArrayLike, output: ArrayLike, sharpness: ArrayLike, eigenvalues: ArrayLike
) -> Catapult:
    """One step of output and sharpness on the loss (f - s)^2/4.

    Accuracy: a few roundings of the largest term.

    Args:
        learning_rate: eta [...].
        output: f [...].
        sharpness: S [...], at least |f|.
        eigenvalues: s [...], the target, that of the step's environment; of either sign.

    >>> state = catapult_step(3.0, 0.1, 1.0, 0.0)  # eta S = 3: f changes sign and grows, S falls
    >>> print([f"{value:.4f}" for value in state])
    ['-0.1978', '0.9925']
    """
    eta, f, sharpness, s = broadcast(learning_rate, output, sharpness, eigenvalues)
    r = f - s
    square = (eta * r) ** 2 / 4
    return Catapult(
        f - eta * sharpness * r + square * f, sharpness - eta * f * r + square * sharpness
    )


@checked_jit
def balance_exponent(
    learning_rate: ArrayLike, mean: ArrayLike, spread: ArrayLike, family: str = "two_point"
) -> Array:
    """The exponent [...] at which environments balance the factors of a rejected direction.

    E log|1 - (eta s/2)^2|, that of ||u|^2 - |v|^2| where the output is zero and r = -s: the sum of
    the exponents of u + v and u - v, which are those of eigenvalues s and -s at half the learning
    rate. It holds beyond the critical spread only: where a direction is learned, r is smaller than
    s.

    Accuracy: that of the family's exponent, twice.

    Args:
        learning_rate: eta [...].
        mean: mu [...].
        spread: M [...].
        family: one of `theory.families`.

    >>> print(f"{balance_exponent(0.2, 1.0, 5.0):.4f}")
    -0.3103
    """
    checks.choice("family", family, families)
    eta, mu, spread = broadcast(learning_rate, mean, spread)
    return lyapunov(family, eta / 2, mu, spread) + lyapunov(family, eta / 2, -mu, spread)

"""The canonical world of two inputs, in which every method has a closed form."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from causal_sgd import checks
from causal_sgd.supervised.worlds._linear import LinearWorld
from causal_sgd.supervised.worlds._world import WorldFactory
from causal_sgd.types import Array, Key

__all__ = ["contradiction"]


def contradiction(
    *,
    mean: float | Array = 0.5,
    spread: float | Array = 1.0,
    variance: float | Array = 4.0,
    noise: float | Array = 1.0,
    biases: Sequence[float] | Array | None = None,
) -> WorldFactory:
    """One invariant and one spurious input whose correlation with the noise varies.

    x1 ~ N(0, 1), y = x1 + noise eps, and x2 = (b_e / noise) eps + sqrt(V - (b_e / noise)^2) N, so
    that E x2 (y - x1) = b_e and E x x' = diag(1, V) in every environment.

    Args:
        mean: of the biases b_e, mu; may be traced.
        spread: M, b_e = mu + M and mu - M; may be traced.
        variance: V of the spurious input; may be traced.
        noise: standard deviation sigma of the label's noise; may be traced.
        biases: b_e of any environments [E], in place of mean and spread; may be traced.

    Returns:
        A world factory; its world does not depend on the key.

    Raises:
        ValueError: if a number is out of range, or some |b_e| > noise sqrt(V).
    """
    checks.number("variance", variance, above=0)
    checks.number("noise", noise, above=0)
    checks.number("mean", mean)
    checks.number("spread", spread, minimum=0)
    if biases is None:
        values = jnp.stack([jnp.asarray(mean + spread, float), jnp.asarray(mean - spread, float)])
    else:
        values = jnp.asarray(checks.number("biases", biases, scalar=False), float)
        if values.ndim != 1 or not len(values):
            raise ValueError(
                f"biases must have shape [E], at least [1], got {list(np.shape(biases))}"
            )
    _check_biases(values, variance, noise)

    def world(key: Key) -> LinearWorld:
        del key
        loading = values / noise
        rest = jnp.sqrt(variance - loading**2)
        zero, one = jnp.zeros_like(loading), jnp.ones_like(loading)
        rows = [[one, zero, zero], [zero, loading, rest], [one, noise * one, zero]]
        mixing = jnp.stack([jnp.stack(row, -1) for row in rows], 1)
        size = len(values)
        return LinearWorld(
            mixing=mixing,
            means=jnp.zeros((size, 3)),
            target=jnp.array([1.0, 0.0]),
            causal=jnp.array([True, False]),
            unscramble=jnp.eye(2),
            test_mixing=mixing[:0],
            test_means=jnp.zeros((0, 3)),
            probabilities=jnp.full(size, 1 / size),
        )

    return world


def _check_biases(values: Array, variance: float | Array, noise: float | Array) -> None:
    biases, most = checks.concrete(values), checks.concrete(noise * variance**0.5)
    if biases is not None and most is not None and (abs(biases) > most * (1 + 1e-6)).any():
        raise ValueError(
            f"biases must be at most noise * sqrt(variance) = {float(most):g} in size, got "
            f"{biases.tolist()}"
        )

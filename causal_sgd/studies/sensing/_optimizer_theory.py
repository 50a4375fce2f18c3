"""Predictions for the study of optimisers: exponents of random matrices, balances, scalar maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies.sensing._optimizer_cells import EVERY, MEAN, METHODS, STEPS
from causal_sgd.studies.sensing._scalars import optimized_levels, optimizer_rule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from causal_sgd.types import Array

__all__ = ["balance", "cosine_spread", "matrix_exponents", "scalar_levels"]


def cosine_spread(rate: float) -> float:
    """The spread at which the exponents along a cosine decay from a rate sum to zero."""
    from scipy import optimize

    from causal_sgd import theory

    rates = rate * (1 + np.cos(np.pi * (np.arange(STEPS) + 0.5) / STEPS)) / 2

    def total(spread: float) -> float:
        return float(np.sum(theory.lyapunov_two_point(rates, MEAN, np.full(STEPS, spread))))

    return float(optimize.root_scalar(total, bracket=(1.0, 0.9 / rate), xtol=1e-3).root)


def balance(spread: float, decay: float) -> float:
    """The u at which the mean gradient over its root mean square, which Adam follows, equals decay
    u.
    """
    from scipy import optimize

    def excess(u: float) -> float:
        mean = MEAN - u * u
        return mean / np.hypot(spread, mean) - decay * u

    return float(optimize.root_scalar(excess, bracket=(0.0, 1.0)).root)


def matrix_exponents(
    name: str, rates: ArrayLike, spreads: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Lyapunov exponents [rates, spreads] of the matrices of a method with momentum, and their
    standard errors.
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd import theory

    momentum = METHODS[name].numbers.get("momentum", 0.0)
    eta, spread = jnp.meshgrid(
        jnp.asarray(rates) * (1 - momentum), jnp.asarray(spreads), indexing="ij"
    )

    def exponent(eta: Array, spread: Array) -> theory.TopExponent:
        eigenvalues = MEAN + spread * jnp.array([1.0, -1.0])
        matrices = theory.momentum_factors(
            eta, momentum, eigenvalues, nesterov=name.startswith("Nesterov")
        )
        return theory.top_exponent(
            lambda key: matrices[jax.random.randint(key, (), 0, 2)],
            key=jax.random.key(0),
            num_steps=1000,
        )

    top = jax.jit(jax.vmap(exponent))(eta.ravel(), spread.ravel())
    values, errors = (np.asarray(part) for part in (top.exponent, top.standard_error))
    return values.reshape(eta.shape), errors.reshape(eta.shape)


def scalar_levels(
    name: str, spreads: np.ndarray, *, rate: float, start: float, draws: int
) -> np.ndarray:
    """The levels [spread, draw] of a method on one direction, by NumPy."""
    method = METHODS[name]
    numbers = {part: method.numbers.get(part, 0.0) for part in ("momentum", "decay")}
    rule = optimizer_rule(method.program, **numbers)
    return optimized_levels(
        rule, spreads, rate=rate, start=start, steps=STEPS, every=EVERY, draws=draws, mean=MEAN
    )

"""The methods of the study of federated training, and the linear theory of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causal_sgd.studies.sensing import _experiments

if TYPE_CHECKING:
    from causal_sgd.types import Array

__all__ = [
    "BASE",
    "EVERY",
    "LOCAL_STEPS",
    "METHODS",
    "PROGRAMS",
    "SMALL",
    "SPREADS",
    "TINY",
    "Method",
    "boundary",
    "fixed_point",
    "predicted",
]


class Method(NamedTuple):
    """A program, the strength of its proximal term, its participants and its linear regime."""

    program: str
    proximal: float
    participants: int | None  # None for all, which is deterministic
    settled: int  # the growth is measured from this round on
    rounds: int  # and up to this one
    along: str = "local_steps"


PROGRAMS: dict[str, dict[str, str | int]] = {
    "averaging, one": {"algorithm": "fedprox", "sampler": "hetero"},
    "averaging, two": {"algorithm": "fedprox", "sampler": "mixed", "environments_per_batch": 2},
    "averaging, all": {"algorithm": "fedprox", "sampler": "stratified"},
    "control, one": {"algorithm": "scaffold", "sampler": "hetero"},
    "control, all": {"algorithm": "scaffold", "sampler": "stratified"},
    "accumulation": {"sampler": "hetero"},
}
METHODS = {
    "FedAvg, one": Method("averaging, one", 0.0, 1, 2, 8),
    "FedAvg, two": Method("averaging, two", 0.0, 2, 2, 8),
    "FedAvg, all": Method("averaging, all", 0.0, None, 2, 8),
    "accumulation": Method("accumulation", 0.0, 1, 8, 32, "accumulate"),
    "FedProx, one": Method("averaging, one", 5.0, 1, 2, 8),
    "FedProx, all": Method("averaging, all", 5.0, None, 2, 8),
    "SCAFFOLD, one": Method("control, one", 0.0, 1, 6, 24),
    "SCAFFOLD, all": Method("control, all", 0.0, None, 4, 12),
}
EVERY = 2
BASE = _experiments.TWO_SCALARS.replace(
    batch_size=8, steps=600, record_every=EVERY, metrics=("spurious_signal",)
)
# Without M = 5, where a factor of u, 1 + eta (mu - M - u^2) at u^2 = mu + M, vanishes by chance,
# and u stays at zero for good.
SPREADS = np.arange(15) * 0.6
LOCAL_STEPS = (1, 2, 4, 8)
TINY, SMALL = 1e-9, 0.1  # starts that stay in the linear regime, and that do not


def predicted(
    name: str, spreads: Iterable[float], steps: int
) -> tuple[np.ndarray, np.ndarray | float]:
    """Exponents of a method per step of its own (a round or a batch), and their standard errors.

    Args:
        name: of the method.
        spreads: M [n].
        steps: local steps of a round, or batches of an update.

    Returns:
        Exponents [n], and standard errors [n] or 0.
    """
    import jax
    import jax.numpy as jnp

    from causal_sgd import theory

    eta, method = BASE.learning_rate, METHODS[name]
    eigenvalues = [BASE.mean + spread * np.array([1.0, -1.0]) for spread in spreads]
    if method.program == "accumulation":
        factors = theory.federated_factors(eta, np.stack(eigenvalues), 1)
        return np.asarray(theory.lyapunov_federated(factors, steps)) / steps, 0.0
    if method.program == "control, all":
        matrices = np.stack(
            [theory.scaffold_factors(eta, s, steps, everyone=True)[0] for s in eigenvalues]
        )
        return np.log(np.abs(np.linalg.eigvals(matrices.astype(float))).max(-1)), 0.0
    if method.program == "control, one":
        matrices = jnp.stack([theory.scaffold_factors(eta, s, steps) for s in eigenvalues])

        def exponent(matrices: Array) -> theory.TopExponent:
            return theory.top_exponent(
                lambda key: matrices[jax.random.randint(key, (), 0, len(matrices))],
                key=jax.random.key(0),
                num_steps=2000,
            )

        top = jax.jit(jax.vmap(exponent))(matrices)
        return np.asarray(top.exponent), np.asarray(top.standard_error)
    factors = theory.federated_factors(eta, np.stack(eigenvalues), steps, method.proximal)
    return np.asarray(theory.lyapunov_federated(factors, method.participants)), 0.0


def fixed_point(spread: float, steps: int) -> float:
    """The limit of u <- mean over both environments of K local steps, from a small start."""
    eigenvalues = BASE.mean + spread * np.array([1.0, -1.0])
    u = SMALL
    for _ in range(BASE.steps):
        ends = np.full(2, u)
        for _ in range(steps):
            ends = ends * (1 + BASE.learning_rate * (eigenvalues - ends**2))
        u = float(ends.mean())
    return u


def boundary(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The spreads at which the exponent first falls through zero, and the numbers of local steps.

    None where it crosses zero for fewer than two of these numbers.
    """
    if METHODS[name].program == "control, one":
        # It follows the pooled gradient wherever it does not diverge, and random products are slow.
        return None
    crossings = {}
    grid = np.linspace(0.1, SPREADS[-1], 160)
    for steps in LOCAL_STEPS:
        rates = predicted(name, grid, steps)[0]
        falls = np.flatnonzero((rates[:-1] > 0) & (rates[1:] <= 0))
        if len(falls):
            first = falls[0]
            share = rates[first] / (rates[first] - rates[first + 1])
            crossings[steps] = grid[first] + share * (grid[first + 1] - grid[first])
    if len(crossings) < 2:
        return None
    return np.array([*crossings.values()]), np.array([*crossings], float)

"""Cells of the study of the limit of high dimension, and closed forms at its settings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from causal_sgd.experiment import Experiment

if TYPE_CHECKING:
    import optax
    import xarray as xr
    from jax.typing import ArrayLike

    from causal_sgd.studies._cells import Cell
    from causal_sgd.theory.limits import NoiseLevel
    from causal_sgd.types import Algorithm, Array, Key, Trace

__all__ = [
    "ABOVE",
    "BELOW",
    "CHANGE",
    "DENSE",
    "ETA",
    "FEW",
    "MIDDLE",
    "PARTS",
    "boundaries",
    "burst_exponent",
    "cell",
    "critical",
    "dense_divergence",
    "divergence",
    "floor",
    "kept",
    "pooled_power",
    "power",
    "retention",
]

ETA, MEAN = 0.1, 1.0
BELOW, ABOVE = 3.0, 6.0  # M; the critical one is 4.58 for batches without noise
MIDDLE = 5.0  # batch ratio
PARTS = ("invariant", "spurious", "complement")
CHANGE = 300  # steps until a run may change its learning rate
START = 0.1  # of the order parameters in every dimension: small overlaps would escape later
Method = Literal["chain", "limit", "product"]


class Columns(TypedDict):
    """Columns and ranks, by theory's names."""

    rank: int
    invariant_rank: int
    spurious_rank: int


FEW: Columns = {"rank": 4, "invariant_rank": 2, "spurious_rank": 1}
FRAME = FEW["invariant_rank"] + FEW["spurious_rank"]
DENSE = Experiment(
    measurement="gaussian-law",
    invariant_rank=FEW["invariant_rank"],
    spurious_rank=FEW["spurious_rank"],
    mean=0.0,
    spread=3.0,
    learning_rate=0.03,
    init="gaussian",
    steps=1000,
    metrics=("complement_signal",),
)
"""All columns, k = d."""


def cell(
    method: Method, *, steps: int, every: int, pooled: bool = False, size: int | None = None
) -> Cell:
    """A run at m = rho d from one start for all d, with another learning rate after `CHANGE` steps.

    Args:
        method: "chain" of order parameters; its "limit", in which d and m only set the shares of
            mixed batches; or the "product" of the low-rank law with the whole factor.
        steps: of a run.
        every: steps between frames.
        pooled: whether batches mix the environments.
        size: d of the product, which it must know beforehand.
    """
    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import metrics
    from causal_sgd.training import run

    recorded = [
        metrics.invariant_signal,
        metrics.spurious_signal,
        metrics.complement_signal,
        metrics.invariant_error,
    ]

    def train(
        key: Key,
        *,
        spread: ArrayLike,
        batch_ratio: ArrayLike,
        dim: ArrayLike = size or 0,
        mean: ArrayLike = MEAN,
        learning_rate: ArrayLike = ETA,
        later_rate: ArrayLike = ETA,
    ) -> Trace:
        def rate(step: ArrayLike) -> Array:
            return jnp.where(jnp.asarray(step) < CHANGE, learning_rate, later_rate)

        algorithm = _algorithm(
            method,
            optax.sgd(rate),
            spread=jnp.asarray(spread),
            mean=jnp.asarray(mean),
            ratio=jnp.asarray(batch_ratio),
            dim=size or jnp.asarray(dim),
            pooled=pooled,
        )
        return run(key, algorithm=algorithm, metrics=recorded, num_steps=steps, record_every=every)

    return train


def _algorithm(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    spread: Array,
    mean: Array,
    ratio: Array,
    dim: int | Array,
    pooled: bool,
) -> Algorithm:
    import jax.numpy as jnp

    from causal_sgd.sensing import measurements, models, worlds
    from causal_sgd.training import samplers, sgd

    rank = FEW["rank"]
    measurement = {
        "chain": measurements.order_parameter_law,
        "limit": lambda: measurements.order_parameter_limit(batch_ratio=ratio),
        "product": measurements.low_rank_law,
    }[method]()
    if isinstance(dim, int):
        model, rows = models.factored(dim=dim, rank=rank), dim
    else:
        model = models.order_parameters(dim=dim, rank=rank, frame=FRAME)
        rows = model.rows
    world = worlds.two_point(
        dim=dim if isinstance(dim, int) else FRAME,
        invariant_rank=FEW["invariant_rank"],
        spurious_rank=FEW["spurious_rank"],
        mean=mean,
        spread=spread,
        basis="canonical",
    )
    sampler = samplers.pooled if pooled else samplers.hetero
    return sgd(
        world=world if isinstance(dim, int) else worlds.reduced(world, rows=rows),
        sampler=sampler(batch_size=jnp.round(ratio * dim).astype(jnp.int32)),
        measurement=measurement,
        model=dataclasses.replace(model, init=lambda key: _start(key, rows)),
        optimizer=optimizer,
    )


def _start(key: Key, rows: int) -> Array:
    """Overlaps of variance START^2, and B = START^2 I."""
    import jax.numpy as jnp

    from causal_sgd import random

    rank = FEW["rank"]
    along = random.normals(key, FRAME * rank, jnp.result_type(float)).reshape(FRAME, rank)
    return START * jnp.concatenate([along, jnp.eye(rows - FRAME, rank)])


def power(dataset: xr.Dataset, part: str) -> xr.DataArray:
    """The square of a signal; NaN where a run diverges."""
    return (dataset[f"{part}_signal"] ** 2).where(dataset.diverged_at < 0)


def critical(batch_ratio: float) -> float:
    """M_c at a batch ratio; infinity for batches without noise."""
    from causal_sgd import theory

    if np.isinf(batch_ratio):
        return float(theory.critical_spread(ETA, MEAN))
    return float(
        theory.limits.batch_critical_spread(
            learning_rate=ETA, mean=MEAN, batch_ratio=batch_ratio, **FEW
        )
    )


def retention(spread: ArrayLike, learning_rate: ArrayLike = ETA) -> np.ndarray:
    """The batch ratio below which A* is lost."""
    from causal_sgd import theory

    ratio = theory.limits.retention_batch_ratio(
        spread, learning_rate=learning_rate, mean=MEAN, **FEW
    )
    return np.asarray(ratio)


def divergence(spread: ArrayLike, learning_rate: ArrayLike = ETA) -> np.ndarray:
    """The batch ratio below which runs diverge."""
    from causal_sgd import theory

    ratio = theory.limits.divergence_batch_ratio(
        spread, learning_rate=learning_rate, mean=MEAN, **FEW
    )
    return np.asarray(ratio)


def boundaries(
    rates: np.ndarray, spreads: np.ndarray, batch_ratio: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fields [M, eta] that vanish where the spurious part dies, A* dies and runs diverge."""
    from causal_sgd import theory

    critical = theory.limits.batch_critical_spread(
        learning_rate=rates, mean=MEAN, batch_ratio=batch_ratio, **FEW
    )
    grid = spreads[:, None], rates[None, :]
    lost, diverged = retention(*grid), divergence(*grid)
    # Where runs diverge with A* learned, both ratios are equal, and one line is enough.
    lost = np.where(lost > 1.001 * diverged, lost, np.nan)
    rejected = spreads[:, None] - np.asarray(critical)[None, :]
    # The other two hold where the spurious part is rejected, also where M_c does not exist.
    outside = rejected < 0
    return (
        rejected,
        np.where(outside, np.nan, lost - batch_ratio),
        np.where(outside, np.nan, diverged - batch_ratio),
    )


def dense_divergence(dim: int) -> float:
    """The batch ratio below which runs with all columns diverge."""
    from causal_sgd import theory

    return float(
        theory.limits.divergence_batch_ratio(
            DENSE.spread,
            learning_rate=DENSE.learning_rate,
            mean=DENSE.mean,
            rank=dim,
            invariant_rank=DENSE.invariant_rank,
            spurious_rank=DENSE.spurious_rank,
            dim=dim,
        )
    )


def kept(spread: float, batch_ratio: float) -> float:
    """|U*'U|^2 in the noise of the batches, r1 (1 - b)."""
    return FEW["invariant_rank"] * (1 - float(_noise(spread, batch_ratio, ETA).driven))


def floor(spread: float, batch_ratio: float, learning_rate: float) -> float:
    """The self-consistent error |UU' - A*|_F with a rejected spurious signal."""
    return float(_noise(spread, batch_ratio, learning_rate).error)


def _noise(spread: float, batch_ratio: float, learning_rate: float) -> NoiseLevel:
    from causal_sgd import theory

    return theory.limits.noise_level(
        spread, learning_rate=learning_rate, mean=MEAN, batch_ratio=batch_ratio, **FEW
    )


def burst_exponent(spread: float, batch_ratio: float) -> float:
    """The kappa of P(|V'U| > x) ~ x^-kappa, damped by the spare columns."""
    import jax.numpy as jnp

    from causal_sgd import theory

    values = MEAN + spread * jnp.array([1.0, -1.0])
    damping = _noise(spread, batch_ratio, ETA).spare
    return float(theory.tail_exponent(ETA, values - damping))


def pooled_power(spread: float, mean: float, batch_ratio: float, steps: int) -> float:
    """|V'U|^2 of PooledSGD in the limit after some steps, where all batches are alike."""
    import jax.numpy as jnp

    from causal_sgd import theory
    from causal_sgd.theory.limits import OrderParameters

    frame, rank = FRAME, FEW["rank"]
    signal = jnp.concatenate([jnp.ones(FEW["invariant_rank"]), mean * jnp.ones(1)])
    start = OrderParameters(START * jnp.eye(frame, rank), START**2 * jnp.eye(rank))
    curve = theory.limits.limit_trajectory(
        start,
        jnp.broadcast_to(signal, (steps, frame)),
        learning_rate=ETA,
        batch_ratio=batch_ratio,
        within_variance=spread**2,
        record_every=steps,
    )
    spectrum = jnp.ones(FEW["invariant_rank"])
    return float(theory.limits.order_statistics(curve, spectrum)["spurious_signal"][-1] ** 2)

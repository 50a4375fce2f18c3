"""Settings, cells and laws of the study `over-specified-rank`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment

if TYPE_CHECKING:
    import xarray as xr
    from jax.typing import ArrayLike

    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = [
    "BALANCED",
    "BALANCED_WINDOW",
    "BASE",
    "BATCHES",
    "FREED",
    "FREED_RANKS",
    "FREED_SPREAD",
    "IMBALANCE",
    "PAIR_DIM",
    "PAIR_EVERY",
    "PAIR_RANK",
    "PAIR_SCALES",
    "PAIR_STEPS",
    "PRODUCT",
    "RANKS",
    "RATE",
    "RESOLVED",
    "SHAKEN",
    "SPREADS",
    "STRONG",
    "STRONG_WINDOW",
    "TIGHT",
    "TIGHT_WINDOW",
    "UNEQUAL",
    "WEAK",
    "balancing",
    "crossing",
    "floor_of_batches",
    "forgotten_power",
    "free_walk",
    "growth",
    "pair_cell",
    "pair_rates",
    "pooled_product",
    "slope_of",
    "spare_law",
    "unequal_cell",
]

RATE = 0.1
BASE = Experiment(
    measurement="population",
    basis="canonical",
    dim=10,
    invariant_rank=2,
    spurious_rank=0,
    learning_rate=RATE,
    init="gaussian",
    init_scale=0.5,
    steps=8000,
    record_every=50,
    metrics=("invariant_error",),
)
RANKS = (3, 7, 10)
TIGHT = BASE.replace(rank=2, steps=130, record_every=5)
TIGHT_WINDOW = 50, 110  # between the transient and the rounding
# Two factors, each with half of the gradient.
PAIR_DIM, PAIR_RANK, PAIR_STEPS, PAIR_EVERY = 8, 4, 6000, 50
PAIR_SCALES = np.array([0.2, 0.3, 0.4])
RESOLVED = 2e-5, 5e-4  # distances between which the local rate is measured
# One direction with eigenvalue +-M, and no mean.
SHAKEN = Experiment(
    measurement="population",
    basis="canonical",
    model="diagonal",
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    mean=0.0,
    learning_rate=RATE,
    init_scale=0.7,
    steps=300,
    record_every=5,
    metrics=("spurious_signal",),
)
STRONG, STRONG_WINDOW = 6.0, (50, 200)
# Two factors at twice the learning rate: alike if they were balanced, f^2 = g^2 = 0.7^2.
UNEQUAL = 0.9, 0.7**2 / 0.9
PRODUCT, IMBALANCE = 0.49, UNEQUAL[0] ** 2 - UNEQUAL[1] ** 2
SPREADS = np.array(
    [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.25, 2.375, 2.5, 2.625, 2.75, 2.875, 3.0, 3.5, 4.0]
)
WEAK = 0.25
BALANCED, BALANCED_WINDOW = 3.0, (75, 225)
# A shaken direction beside others, as many columns as directions, or fewer.
FREED = BASE.replace(
    dim=8, spurious_rank=1, mean=0.0, steps=3000, metrics=("invariant_error", "spurious_signal")
)
FREED_RANKS, FREED_SPREAD = (4, 8), 3.0
BATCHES = FREED.replace(
    measurement="low-rank-law",
    dim=24,
    rank=4,
    spread=FREED_SPREAD,
    batch_size=400,
    steps=4000,
    record_every=50,
    metrics=("complement_signal",),
)


def pair_cell(key: Key, *, init_scale: ArrayLike) -> Trace:
    """U V' on A* alone; the least of the k - r singular values that survive in spare directions."""
    import jax.numpy as jnp
    import optax

    from causal_sgd import linalg
    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    rank = BASE.invariant_rank

    def survivor(snapshot: Snapshot) -> Array:
        values = [linalg.singular_values(factor)[rank:] for factor in snapshot.params]
        return jnp.sort(jnp.concatenate(values))[rank - PAIR_RANK]

    algorithm = sgd(
        world=worlds.two_point(
            dim=PAIR_DIM, invariant_rank=rank, spurious_rank=0, basis=BASE.basis
        ),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=models.asymmetric(dim=PAIR_DIM, rank=PAIR_RANK, init_scale=jnp.asarray(init_scale)),
        optimizer=optax.sgd(RATE),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics={"invariant_error": metrics.invariant_error, "survivor": survivor},
        num_steps=PAIR_STEPS,
        record_every=PAIR_EVERY,
    )


def unequal_cell(key: Key, *, spread: ArrayLike) -> Trace:
    """U V' with U = f I and V = g I at the start; |f g| and the imbalance along V."""
    import dataclasses

    import jax.numpy as jnp
    import optax

    from causal_sgd.sensing import measurements, metrics, models, worlds
    from causal_sgd.training import run, samplers, sgd

    model = models.asymmetric(dim=2)
    start = type(model.init(key))(*(scale * jnp.eye(2) for scale in UNEQUAL))

    def imbalance(snapshot: Snapshot) -> Array:
        """|f^2 - g^2| as a product, which keeps its digits when f and g are close."""
        f, g = (snapshot.world.spurious_basis[:, 0] @ factor for factor in snapshot.params)
        return jnp.abs(jnp.sum((f + g) * (f - g)))

    algorithm = sgd(
        world=worlds.two_point(
            dim=2,
            invariant_rank=1,
            spurious_rank=1,
            mean=0.0,
            spread=jnp.asarray(spread),
            basis=SHAKEN.basis,
        ),
        sampler=samplers.hetero(batch_size=1),
        measurement=measurements.population(),
        model=dataclasses.replace(model, init=lambda key: start),
        optimizer=optax.sgd(2 * RATE),
    )
    return run(
        key,
        algorithm=algorithm,
        metrics={"product": metrics.spurious_power, "imbalance": imbalance},
        num_steps=SHAKEN.steps,
        record_every=SHAKEN.record_every,
    )


def pair_rates(dataset: xr.Dataset) -> np.ndarray:
    """The local rate over that of the least survivor [scale, seed]; NaN if not resolved."""
    from causal_sgd import theory

    errors = dataset.invariant_error.transpose("init_scale", "seed", "step").values
    survivors = dataset.survivor.isel(step=-1).transpose("init_scale", "seed").values
    steps = dataset.step.values
    rates = np.full(survivors.shape, np.nan)
    for run in np.ndindex(*rates.shape):
        first, last = (int(np.sum(errors[run] > level)) for level in RESOLVED[::-1])
        if last < len(steps) and last - first >= 2:
            window = slice(first, last)
            rates[run] = -np.polyfit(steps[window], np.log(errors[run][window]), 1)[0]
    predicted = theory.overspecified_rate(survivors[..., None], learning_rate=RATE)
    return rates / np.asarray(predicted)


def growth(errors: xr.DataArray) -> float:
    """The growth of 1/error over the second half of the run, over 2 eta; the median over seeds."""
    first, last = (1 / errors.sel(step=step) for step in (FREED.steps // 2, FREED.steps))
    return float((last - first).median("seed")) / (RATE * FREED.steps)


def slope_of(values: xr.DataArray, window: tuple[int, int]) -> float:
    """The slope per step of a curve between two steps."""
    part = values.sel(step=slice(*window))
    return float(np.polyfit(part.step.values, part.values, 1)[0])


def spare_law(steps: ArrayLike, columns: int, scale: float) -> np.ndarray:
    """The law of a number of spare columns that start alike."""
    from causal_sgd import theory

    return np.asarray(
        theory.overspecified_error(
            steps,
            learning_rate=RATE,
            rank=columns + BASE.invariant_rank,
            invariant_rank=BASE.invariant_rank,
            init_scale=scale,
        )
    )


def forgotten_power() -> float:
    """|V'U|^2 of pooled training at the end."""
    return float(spare_law(SHAKEN.steps, 1, SHAKEN.init_scale))


def pooled_product() -> float:
    """The product of two unequal factors of pooled training at the end."""
    from causal_sgd import theory

    return float(
        theory.unbalanced_error(
            SHAKEN.steps, learning_rate=2 * RATE, product=PRODUCT, imbalance=IMBALANCE
        )
    )


def balancing() -> float:
    from causal_sgd import theory

    return float(theory.balancing_spread(2 * RATE, IMBALANCE))


def free_walk(spread: np.ndarray) -> np.ndarray:
    """The median product [n] at the end if log f/g were a free random walk from the start.

    With |D| the imbalance, f g is |D| exp(2|x|)/4 and the steps of x are artanh(eta M/2).
    """
    kicks = np.arctanh(RATE * spread)  # eta / 2 of the factors is RATE
    decay = SHAKEN.steps * np.log1p(-((RATE * spread) ** 2))
    return IMBALANCE / 4 * np.exp(decay + 2 * 0.67449 * kicks * SHAKEN.steps**0.5)


def crossing(typical: xr.DataArray) -> float:
    """The M at which the median log10 of the product [spread] falls below its value at M = 0."""
    excess = (typical - typical.sel(spread=0)).values
    last = int(np.flatnonzero(excess > 0)[-1])
    spreads = SPREADS[last : last + 2]
    return float(np.interp(0, -excess[last : last + 2], spreads))


def floor_of_batches() -> float:
    from causal_sgd import theory

    return float(
        theory.complement_power(
            FREED_SPREAD,
            rank=BATCHES.rank or BATCHES.dim,
            learning_rate=RATE,
            batch_size=BATCHES.batch_size,
            dim=BATCHES.dim,
            invariant_rank=BATCHES.invariant_rank,
            spurious_rank=BATCHES.spurious_rank,
        )
    )

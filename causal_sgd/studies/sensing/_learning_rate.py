"""Cells and predictions of the study `max-learning-rate`."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.studies._cells import Cell

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from causal_sgd.types import Array, Key, Snapshot, Trace

SMALL = 3e-4  # of a deviation whose square is measured: a linear regime well above rounding
SQUARES_DIM, SQUARES_RANK, SQUARES_BATCH, SQUARES_STEPS = 6, 2, 5, 8
SQUARES_SHARES = (0.7, 1.0, 1.3)  # of the mean-square edge
DIM = 20
SPREADS = (0.0, 2.0, 4.0)
BATCHES = 4.0 ** np.arange(8)
RATES = np.geomspace(0.008, 1.3, 16)
STEPS = 400
START, LOST = 0.01, 0.5  # distances to A*, |A*| = 1
# Beyond the edge of gradient descent a run ends in a two-cycle about A*, which is narrow at first.
TYPICAL_START, TYPICAL_LOST = 0.001, 0.1
TYPICAL = BATCHES[:5]
TYPICAL_SHARES = np.array([0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15])  # of the predicted edge
TINY = 1e-14  # of the component towards V, which must stay small while it is measured
TOWARDS_STEPS, VARIANCE_STEPS = 96, 8
CAP_SHARES = np.array([0.94, 0.97, 1.0, 1.03, 1.06])  # of the almost sure cap


def squares_cell() -> Cell:
    """A cell that starts at a fixed small deviation, without environments, and records squares."""

    def cell(key: Key, *, learning_rate: Array) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.sensing import measurements, models, worlds
        from causal_sgd.training import run, samplers, sgd

        rank = SQUARES_RANK
        signal = jnp.eye(SQUARES_DIM)[:, :rank]
        start = signal + SMALL * jnp.asarray(deviation(), signal.dtype)

        def inside(snapshot: Snapshot) -> Array:
            """|Q'RQ|^2 in units of SMALL^2."""
            error = snapshot.estimate[:rank, :rank] - jnp.eye(rank)
            return jnp.sum((error / SMALL) ** 2)

        def across(snapshot: Snapshot) -> Array:
            """The rest of |R|^2, to first order, in units of SMALL^2."""
            return 2 * jnp.sum((snapshot.estimate[rank:, :rank] / SMALL) ** 2)

        algorithm = sgd(
            world=worlds.two_point(
                dim=SQUARES_DIM,
                invariant_rank=rank,
                spurious_rank=1,
                mean=0.0,
                spread=0.0,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=SQUARES_BATCH),
            measurement=measurements.gaussian_law(),
            model=dataclasses.replace(
                models.factored(dim=SQUARES_DIM, rank=rank), init=lambda key: start
            ),
            optimizer=optax.sgd(learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={"inside": inside, "across": across},
            num_steps=SQUARES_STEPS,
            record_every=1,
        )

    return cell


def deviation() -> np.ndarray:
    """A fixed deviation [d, r] of entries of about one."""
    return np.random.default_rng(0).normal(size=(SQUARES_DIM, SQUARES_RANK))


def squares_edge() -> float:
    from causal_sgd.theory import stability

    return float(
        stability.mean_square_edge(SQUARES_BATCH, dim=SQUARES_DIM, invariant_rank=SQUARES_RANK)
    )


def leaving_cell() -> Cell:
    """A cell that starts near A* and records how far from it a run ends."""

    def cell(
        key: Key, *, batch_size: Array, learning_rate: Array, spread: Array, start: Array
    ) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd import random
        from causal_sgd.sensing import measurements, metrics, models, worlds
        from causal_sgd.training import run, samplers, sgd

        def near(key: Key) -> Array:
            signal = jnp.eye(DIM)[:, :1]
            return signal + start * DIM**-0.5 * random.normals(key, (DIM, 1), signal.dtype)

        algorithm = sgd(
            world=worlds.two_point(
                dim=DIM,
                invariant_rank=1,
                spurious_rank=1,
                mean=0.0,
                spread=spread,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=batch_size),
            measurement=measurements.low_rank_law(),
            model=dataclasses.replace(models.factored(dim=DIM, rank=1), init=near),
            optimizer=optax.sgd(learning_rate),
        )
        return run(key, algorithm=algorithm, metrics=[metrics.invariant_error], num_steps=STEPS)

    return cell


def towards_cell() -> Cell:
    """A cell of one column at A* with a tiny component towards V, by population gradients."""

    def cell(key: Key, *, spread: Array, learning_rate: Array) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.sensing import measurements, metrics, models, worlds
        from causal_sgd.training import run, samplers, sgd

        algorithm = sgd(
            world=worlds.two_point(
                dim=2,
                invariant_rank=1,
                spurious_rank=1,
                mean=0.0,
                spread=spread,
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=dataclasses.replace(
                models.factored(dim=2, rank=1), init=lambda key: jnp.array([[1.0], [TINY]])
            ),
            optimizer=optax.sgd(learning_rate),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics=[metrics.spurious_signal],
            num_steps=TOWARDS_STEPS,
            record_every=VARIANCE_STEPS,
        )

    return cell


def towards_spreads() -> np.ndarray:
    return np.repeat(SPREADS[1:], len(CAP_SHARES) + 1)


def towards_rates() -> np.ndarray:
    """For each spread the rate of bounded variance, then shares of the almost sure cap."""
    rates = [
        [variance_cap(spread), *(CAP_SHARES * float(almost_sure_cap(spread)))]
        for spread in SPREADS[1:]
    ]
    return np.ravel(rates)


def mean_square_edge(batch_size: ArrayLike, spread: ArrayLike) -> np.ndarray:
    """The mean-square edge of one invariant and one spurious direction."""
    from causal_sgd.theory import stability

    return np.asarray(
        stability.mean_square_edge(batch_size, dim=DIM, invariant_rank=1, spread=spread)
    )


def noise_edge(batch_size: ArrayLike, spread: ArrayLike) -> np.ndarray:
    """Rates at which the stationary error is LOST; the mean-square edge without environments."""
    from causal_sgd.theory import stability

    sizes, spreads = np.broadcast_arrays(batch_size, spread)
    shares = np.linspace(0.0005, 0.9995, 1000)
    edges = mean_square_edge(sizes, spreads)
    errors = stability.stationary_error(
        edges[..., None] * shares,
        sizes[..., None],
        dim=DIM,
        invariant_rank=1,
        spread=spreads[..., None],
    )
    return edges * np.clip((np.asarray(errors) < LOST).mean(-1), shares[0], 1)


def variance_cap(spread: ArrayLike) -> np.ndarray:
    from causal_sgd.theory import stability

    return np.asarray(stability.heterogeneity_cap(1.0, 0.0, spread))


def almost_sure_cap(spread: ArrayLike) -> np.ndarray:
    from causal_sgd.theory import stability

    return np.asarray(stability.almost_sure_cap(1.0, 0.0, spread))


def finite_rates() -> np.ndarray:
    """The rates, by batch size of TYPICAL, at which a typical run grows to its end in STEPS."""
    growth = np.log(TYPICAL_LOST / (TYPICAL_START * 2**0.5)) / STEPS
    return almost_sure_rates(growth)[0, : len(TYPICAL)]


def almost_sure_rates(exponent: float) -> np.ndarray:
    """The rates [spread, batch size] up to which the exponent is below a value."""
    rates, values = _exponents()
    roots = []
    for logs, row in zip(np.log(rates), values - exponent, strict=True):
        after = min(int(np.flatnonzero(row < 0).max(initial=0)) + 1, len(row) - 1)
        part = -row[after - 1] / (row[after] - row[after - 1])
        roots.append(np.exp((1 - part) * logs[after - 1] + part * logs[after]))
    return np.reshape(roots, (len(SPREADS), len(BATCHES)))


@functools.cache
def _exponents() -> tuple[np.ndarray, np.ndarray]:
    """Rates around the mean-square edges and their exponents, both [spread x batch size, rate]."""
    import jax
    import jax.numpy as jnp

    from causal_sgd.theory import stability

    spreads, sizes = (grid.ravel() for grid in np.meshgrid(SPREADS, BATCHES, indexing="ij"))
    rates = mean_square_edge(sizes, spreads)[:, None] * np.geomspace(0.85, 3.4, 13)

    def exponent(rate: Array, size: Array, spread: Array) -> Array:
        return stability.almost_sure_exponent(
            rate,
            size,
            dim=DIM,
            spread=spread,
            key=jax.random.key(1),
            num_steps=300,
            num_chains=8,
        ).exponent

    over_rates = jax.vmap(exponent, (0, None, None))
    values = jax.vmap(over_rates)(*map(jnp.asarray, (rates, sizes, spreads)))
    return rates, np.asarray(values)


def knee(spread: float) -> float:
    from causal_sgd.theory import stability

    return float(stability.critical_batch_size(dim=DIM, invariant_rank=1, spread=spread))

"""Settings and cells of the study `incremental-learning`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from causal_sgd.experiment import Experiment
from causal_sgd.studies._cells import Cell

if TYPE_CHECKING:
    from jax.typing import ArrayLike

    from causal_sgd.types import Array, Key, Snapshot, Trace

__all__ = [
    "BETWEEN",
    "DATA_RATE",
    "DATA_SCALES",
    "DATA_STEPS",
    "DEEP",
    "DEEP_EVERY",
    "DEEP_RATE",
    "DEEP_SCALES",
    "DEEP_SPREAD",
    "DEEP_STEPS",
    "DEPTHS",
    "DIM",
    "EXAMPLES",
    "LEVELS",
    "NOISY",
    "NOISY_MEANS",
    "NOISY_SPREADS",
    "ORDER",
    "POWER",
    "SCALES",
    "SEPARATED",
    "SPECTRUM",
    "SPREADS",
    "STOPPED",
    "TARGETS",
    "TIMED",
    "arrivals_cell",
    "data_cell",
    "levels_cell",
]

DEPTHS = (2, 3, 4)
LEVELS = (1.0, 0.8, 0.4)  # the eigenvalues of A*
SEPARATED = 0.9  # the first has this share when the second has the rest
DEEP_RATE, DEEP_STEPS, DEEP_EVERY = 0.05, 2600, 2
# Around the critical scales of the first two eigenvalues.
SCALES = {
    2: np.geomspace(1e-5, 1e-4, 7),
    3: np.geomspace(0.05, 0.16, 7),
    4: np.geomspace(0.15, 0.33, 7),
}
# Full batches of one data set.
DIM, EXAMPLES, SPECTRUM = 12, 150, (3.0, 2.0, 1.0)
DATA_RATE, DATA_STEPS = 0.05, 1000
DATA_SCALES = np.logspace(-6, -1, 6)
TARGETS = {
    "minimiser_1": "rank-1 minimiser of the loss",
    "minimiser_2": "rank-2 minimiser",
    "truncation_1": "best rank 1 of $A^\\star$",
}
# One direction of each kind, from a start that leaves time for the order to show.
ORDER = Experiment(
    measurement="population",
    basis="canonical",
    model="diagonal",
    dim=2,
    invariant_rank=1,
    spurious_rank=1,
    mean=1.5,
    learning_rate=0.1,
    init_scale=1e-6,
    steps=600,
    record_every=1,
    metrics=("invariant_signal", "spurious_signal"),
)
SPREADS = np.array([0.0, 1.0, 2.0, 2.75, 3.0, 3.25, 3.5, 3.75, 4.5, 5.5])
TIMED = slice(3, 8)  # the spreads around M_r at which nearly all runs arrive
POWER = 0.05  # of both directions, in the linear phase
BETWEEN = 4.5  # M_r is 3.35, M_c 5.68
STOPPED = ORDER.replace(steps=2000, record_every=4, metrics=("invariant_error", "spurious_signal"))
DEEP = ORDER.replace(model="deep", depth=3, learning_rate=0.02, steps=7000, record_every=5)
DEEP_SPREAD, DEEP_SCALES = 10.0, np.array([0.015, 0.03, 0.06, 0.12, 0.24])
NOISY = DEEP.replace(init_scale=0.12, steps=900, record_every=1)
NOISY_MEANS, NOISY_SPREADS = np.array([0.7, 1.5]), np.array([2.0, 5.0, 10.0, 15.0, 20.0, 30.0])


def levels_cell(depth: int) -> Cell:
    """A cell that records the level of each eigenvalue of A* in a product of equal factors."""

    def cell(key: Key, *, init_scale: ArrayLike) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.sensing import measurements, models, worlds
        from causal_sgd.training import run, samplers, sgd

        def level(index: int, snapshot: Snapshot) -> Array:
            direction = snapshot.world.invariant_basis[:, index]
            return direction @ snapshot.estimate @ direction

        rank = len(LEVELS)
        algorithm = sgd(
            world=worlds.two_point(
                dim=rank,
                invariant_rank=rank,
                spurious_rank=0,
                invariant_spectrum=np.array(LEVELS),
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=1),
            measurement=measurements.population(),
            model=models.deep(dim=rank, depth=depth, init_scale=jnp.asarray(init_scale)),
            optimizer=optax.sgd(DEEP_RATE),
        )
        return run(
            key,
            algorithm=algorithm,
            metrics={f"level_{i}": functools.partial(level, i) for i in range(rank)},
            num_steps=DEEP_STEPS,
            record_every=DEEP_EVERY,
        )

    return cell


def data_cell() -> Cell:
    """A cell in full batches of one data set, the same in all runs, which records the distances to
    the rank-s minimisers of its loss and to the best rank-1 approximation of A*.
    """
    design = np.random.default_rng(0).standard_normal((EXAMPLES, DIM, DIM))
    design = (design + np.swapaxes(design, 1, 2)) / 2
    targets = {f"minimiser_{rank}": _minimiser(design, rank) for rank in (1, 2)}
    targets["truncation_1"] = np.diag([SPECTRUM[0], *np.zeros(DIM - 1)])

    def cell(key: Key, *, init_scale: ArrayLike) -> Trace:
        import jax.numpy as jnp
        import optax

        from causal_sgd.sensing import measurements, models, worlds
        from causal_sgd.training import run, samplers, sgd

        def distance(target: np.ndarray, snapshot: Snapshot) -> Array:
            return jnp.linalg.norm(snapshot.estimate - jnp.asarray(target, float))

        algorithm = sgd(
            world=worlds.two_point(
                dim=DIM,
                invariant_rank=len(SPECTRUM),
                spurious_rank=0,
                invariant_spectrum=np.array(SPECTRUM),
                basis="canonical",
            ),
            sampler=samplers.hetero(batch_size=EXAMPLES),
            measurement=measurements.fixed_design(design=design[None], full=True),
            model=models.factored(dim=DIM, init_scale=jnp.asarray(init_scale)),
            optimizer=optax.sgd(DATA_RATE),
        )
        metrics = {name: functools.partial(distance, target) for name, target in targets.items()}
        return run(key, algorithm=algorithm, metrics=metrics, num_steps=DATA_STEPS, record_every=1)

    return cell


def _minimiser(design: np.ndarray, rank: int) -> np.ndarray:
    """U U' [d, d] of least loss sum_i (<X_i, U U' - A*>)^2, by Levenberg-Marquardt from A*.

    Args:
        design: symmetric measurements [n, d, d].
        rank: the number s of columns.
    """
    labels = np.einsum("nii,i->n", design[:, : len(SPECTRUM), : len(SPECTRUM)], SPECTRUM)
    u, damping = np.diag(np.sqrt([*SPECTRUM, *np.zeros(DIM - len(SPECTRUM))]))[:, :rank], 1.0
    residual = np.einsum("nij,ik,jk->n", design, u, u) - labels
    for _ in range(100):
        slope = 2 * (design @ u).reshape(len(design), -1)
        normal = slope.T @ slope
        normal[np.diag_indices_from(normal)] += damping
        step = np.linalg.solve(normal, slope.T @ residual).reshape(u.shape)
        new = np.einsum("nij,ik,jk->n", design, u - step, u - step) - labels
        better = new @ new < residual @ residual
        damping *= 0.3 if better else 5
        u, residual = (u - step, new) if better else (u, residual)
    return u @ u.T


def arrivals_cell(cell: Cell) -> Cell:
    """A cell that records the steps at which both directions reach a power; NaN for never."""

    @functools.wraps(cell)  # with its signature, from which `sweep` reads the parameters
    def arrivals(key: Key, **numbers: ArrayLike) -> Trace:
        import jax.numpy as jnp

        from causal_sgd.types import Trace

        trace = cell(key, **numbers)

        def first(signal: Array) -> Array:
            reached = signal**2 >= POWER
            step = trace.step[jnp.argmax(reached)] * 1.0
            return jnp.where(jnp.any(reached), step, jnp.nan)[None]

        times = {kind: first(trace.metrics[f"{kind}_signal"]) for kind in ("invariant", "spurious")}
        return Trace(trace.step[-1:], times, trace.diverged_at)

    return arrivals
